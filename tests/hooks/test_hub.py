"""Fetching from a hub on this machine: what comes, and each way in which it does not."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hooks.hub import HubError, explained, snapshot
from tests.endpoint import TOKEN, Hub, a_hub

FILES = {"config.json": b"{}", "model.safetensors": bytes(range(256)) * 40, "sub/deep.bin": b"deep"}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with a_hub(tmp_path / "cache", monkeypatch) as hub:
        hub.add("who/model", FILES)
        yield hub


def failing(message: str, *args: Any, **options: Any) -> None:
    with pytest.raises(HubError, match=message) as caught:
        snapshot(*args, **options)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
    assert str(caught.value).startswith(f"hf:{args[0]}: could not be downloaded (")


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_whole_repository(hub: Hub) -> None:
    folder = snapshot("who/model")
    assert files_in(folder) == FILES
    sent = len(hub.requests)
    assert snapshot("who/model") == folder
    assert not any("/resolve/" in request for request in hub.requests[sent:])


def test_parts_and_revisions(hub: Hub) -> None:
    repository = hub.repositories["who/model"]
    old = repository.branches["main"]
    repository.commit("main", {"config.json": b"new"})
    assert files_in(snapshot("who/model", only=["*.json"])) == {"config.json": b"new"}
    assert files_in(snapshot("who/model", old, without=["sub/*"])) == {k: v for k, v in FILES.items() if "sub" not in k}


def test_what_is_cached_needs_no_hub(hub: Hub) -> None:
    folder = snapshot("who/model")
    hub.faults["status"] = 500
    assert snapshot("who/model") == folder
    hub.go_down()
    assert snapshot("who/model") == folder


def test_names_and_rights(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("who/mine", FILES, private=True)
    hub.add("who/gated", FILES, gated=True)
    unknown = r"no such repository, or it is private\); check the name, or log in with `hf auth login` or set HF_TOKEN"
    failing(unknown, "who/nothing")
    failing(unknown, "who/mine")
    failing(unknown, "who/nothing", token=TOKEN)
    failing("token is missing or not valid", "who/mine", token="hf_wrong")
    failing(r"it is gated\); ask for access at http.*/who/gated, then log in", "who/gated")
    failing(r"has no revision 'v9'\); see http.*/who/model/commits, or leave it out", "who/model", "v9")
    failing(r"not the name of a repository\); write owner/name", "who/model/too/deep")
    assert files_in(snapshot("who/mine", token=TOKEN)) == FILES
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert files_in(snapshot("who/gated")) == FILES


@pytest.mark.parametrize("status", [429, 500, 503])
def test_the_hub_is_ill(hub: Hub, status: int) -> None:
    hub.faults["status"] = status
    failing(rf"the hub answered with error {status}\); try again later", "who/model")


def test_the_hub_is_down(hub: Hub) -> None:
    hub.go_down()
    failing(r"the hub cannot be reached: .*\); check the network, or use a local folder", "who/model")


def test_a_name_that_no_server_has(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://no-such-host.invalid")
    failing("the hub cannot be reached", "who/model")


def test_offline(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    failing("HF_HUB_OFFLINE is set, and it is not in the cache", "who/model")


class TestDownloads:
    def blobs(self, tmp_path: Path) -> list[bytes]:
        return sorted(path.read_bytes() for path in (tmp_path / "cache").rglob("blobs/*") if path.is_file())

    def test_cut_short(self, hub: Hub, tmp_path: Path) -> None:
        hub.faults["cut"] = 100
        failing("cut short, and nothing of it was kept|cannot be reached", "who/model")
        assert not [blob for blob in self.blobs(tmp_path) if len(blob) == 100]
        hub.faults.clear()
        assert files_in(snapshot("who/model")) == FILES

    def test_a_wrong_checksum(self, hub: Hub, tmp_path: Path) -> None:
        hub.faults["flip"] = True
        failing(r"model.safetensors came with a wrong checksum\); try again", "who/model")
        hub.faults.clear()
        assert files_in(snapshot("who/model")) == FILES

    def test_a_cache_that_cannot_be_written(self, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "file").write_text("")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "file" / "cache"))
        failing(r"file.* cannot be written\); set HF_HOME to a folder that can", "who/model")

    @pytest.mark.parametrize(
        ("number", "message"),
        [
            (errno.ENOSPC, r"no space left in .*cache\); make room, or set HF_HOME to another disk"),
            (errno.EDQUOT, "no space left"),
            (errno.EROFS, r"cannot be written\); set HF_HOME"),
        ],
    )
    def test_a_disk_that_is_full_or_read_only(
        self, number: int, message: str, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*args: Any, **options: Any) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr("huggingface_hub.file_download.http_get", full)
        failing(message, "who/model")
        assert self.blobs(tmp_path) == []


def test_what_nobody_foresaw_is_one_line_too() -> None:
    reason, remedy = explained(ValueError("some\nthing"), "who/model")
    assert reason == "some thing"
    assert "check the name" in remedy
