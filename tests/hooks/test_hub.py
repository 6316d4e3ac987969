from __future__ import annotations

from pathlib import Path

import pytest

from hooks import ModelError
from hooks.hub import hub_file

hub = pytest.importorskip("huggingface_hub", reason="extra all")


def test_a_file_that_the_hub_gives(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(hub, "hf_hub_download", lambda repository, file: str(tmp_path / repository / file))
    assert hub_file("who/what", "model.pt", "family:size") == tmp_path / "who" / "what" / "model.pt"


def test_without_a_network_it_is_one_line_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    message = (
        r"family:size: model\.pt could not be downloaded from hub nobody/nothing .*open it as family:/path/model\.pt"
    )
    with pytest.raises(ModelError, match=message) as caught:
        hub_file("nobody/nothing", "model.pt", "family:size")
    assert "\n" not in str(caught.value)
