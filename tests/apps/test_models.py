"""`steer models`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

import pytest

Run = Callable[..., tuple[int, str, str]]


def rows_of(steer: Run) -> dict[str, dict[str, object]]:
    code, out, _ = steer("models", "--json")
    assert code == 0
    return {row["model"]: row for row in json.loads(out)}


def test_what_there_is_and_what_it_needs(steer: Run) -> None:
    rows = rows_of(steer)
    assert rows["starter:codec"] | {"SAEs": 0} == {
        "model": "starter:codec",
        "family": "starter",
        "needs": None,
        "installed": True,
        "SAEs": 0,
    }
    assert "starter:codec/latent" in rows["starter:codec"]["SAEs"]  # type: ignore[operator]
    expected = {
        "starter:asr": "whisper",
        "starter:ssl": "ssl",
        "encodec:24khz": "encodec",
        "hf:facebook/encodec_24khz": "encodec",
        "whisper:tiny": "whisper",
        "hf:facebook/hubert-base-ls960": "ssl",
        "a folder (hubert, wavlm, wav2vec2, mert_model)": "ssl",
    }
    assert {name: rows[name]["needs"] for name in expected} == {
        name: f"audiosteer[{extra}]" for name, extra in expected.items()
    }
    assert rows["a folder (wavtokenizer)"]["needs"] is None


def test_without_any_optional_package(steer: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for library in ("transformers", "encodec", "whisper"):
        monkeypatch.setitem(sys.modules, library, None)
    for name, row in rows_of(steer).items():
        if row["family"] in ("encodec", "whisper", "ssl") or name in ("starter:asr", "starter:ssl"):
            assert row["installed"] is False, name
        if row["needs"] is None:
            assert row["installed"] is True


def test_either_library_of_a_family(steer: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "transformers" else object())
    rows = rows_of(steer)
    assert rows["encodec:24khz"]["installed"]
    assert rows["whisper:tiny"]["installed"]
    assert not rows["hf:facebook/encodec_24khz"]["installed"]
    assert not rows["hf:openai/whisper-tiny"]["installed"]


def test_as_a_table(steer: Run) -> None:
    code, out, _ = steer("models")
    assert code == 0
    assert all(word in out for word in ("extra", "starter:ssl/encoder.3", "starter:codec", "hf:m-a-p/MERT-v1-95M"))
