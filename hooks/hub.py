"""The Hugging Face hub: folders of its repositories, and what went wrong there in one line that says what to do.

`HF_ENDPOINT`, `HF_HOME`, `HF_TOKEN`, `HF_HUB_OFFLINE` and the other variables of `huggingface_hub` count.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from hooks.errors import AudioSteerError, ModelError, one_line, require

log = logging.getLogger(f"audiosteer.{__name__}")
FULL = (errno.ENOSPC, errno.EDQUOT)
NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)
FOREIGN_WEIGHTS = ("*.msgpack", "*.h5", "*.ot", "*.onnx", "*.tflite", "*.mlmodel")
"""Files of a hub repository that are for other frameworks, as large as the weights themselves."""


class HubError(AudioSteerError):
    """What could not be done with a repository, why, and the remedy."""

    def __init__(self, repository: str, done: str, reason: str, remedy: str) -> None:
        super().__init__(f"hf:{repository}: could not be {done} ({reason}); {remedy}")
        self.reason, self.remedy = reason, remedy


def snapshot(
    repository: str,
    revision: str | None = None,
    *,
    only: Sequence[str] | None = None,
    without: Sequence[str] | None = None,
    token: str | None = None,
) -> Path:
    """Folder of a repository in the local cache, from there or from the network; `only` and `without` are patterns.

    Raises:
        HubError: it cannot be downloaded, or what came is not what the hub had announced.
    """
    hub = require("huggingface_hub", "all")
    start = time.time()
    log.info("hf:%s: from the cache, or downloading", repository)
    try:
        found = hub.snapshot_download(
            repository, revision=revision, allow_patterns=only, ignore_patterns=without, token=token
        )
    except Exception as error:  # the hub raises its own, its http library's and OS errors
        raise HubError(repository, "downloaded", *explained(error, repository, revision)) from error
    folder = Path(found)
    log.debug("hf:%s is in %s", repository, folder)
    spoiled = check_sums(folder, start)
    if spoiled:
        raise HubError(repository, "downloaded", f"{spoiled[0]} came with a wrong checksum", "try again")
    return folder


def download(repository: str, revision: str | None = None, only: list[str] | None = None) -> Path:
    """Folder of a hub repository, or `only` the files of these patterns, from the local cache or the network."""
    try:
        return snapshot(repository, revision, only=only, without=FOREIGN_WEIGHTS)
    except HubError as error:
        raise ModelError(str(error)) from error


def published_path(rest: str, name: str, published: Mapping[str, tuple[str, str]]) -> Path:
    """What stands behind a family's prefix: a file or folder, or a published model, {name: (hub repository, file)}.

    Raises:
        ModelError: there is neither, or it cannot be downloaded.
    """
    if Path(rest).exists():
        return Path(rest)
    scheme = name.partition(":")[0]
    if rest not in published:
        known = ", ".join(f"{scheme}:{one}" for one in published)
        raise ModelError(f"unknown model {name!r}; there are {known}, or {scheme}: and a path")
    repository, file = published[rest]
    return download(repository, only=[file]) / file


def check_sums(folder: Path, since: float) -> list[Path]:
    """Deletes large files that were downloaded since then and are not what the hub had announced, and lists them.

    The library compares lengths only. In its cache a large file is called by its SHA-256, and the folder has a link.
    """
    spoiled = []
    for link in sorted(folder.rglob("*")):
        blob = link.resolve()
        # to the second, as some file systems keep it
        if re.fullmatch("[0-9a-f]{64}", blob.name) and blob.is_file() and blob.stat().st_mtime >= int(since):
            with blob.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest != blob.name:
                link.unlink()
                blob.unlink()
                spoiled.append(link.relative_to(folder))
    return spoiled


def explained(error: BaseException, repository: str, revision: str | None = None) -> tuple[str, str]:
    """What an exception of `huggingface_hub` means to a user, and what they can do."""
    errors, constants = (require(f"huggingface_hub.{part}", "all") for part in ("errors", "constants"))
    page = f"{constants.ENDPOINT}/{repository}"
    log_in = "log in with `hf auth login` or set HF_TOKEN"
    for one in chain(error):
        status = getattr(getattr(one, "response", None), "status_code", None)
        if isinstance(one, errors.GatedRepoError):
            return "it is gated", f"ask for access at {page}, then {log_in}"
        if isinstance(one, errors.RevisionNotFoundError):
            return f"it has no revision {revision!r}", f"see {page}/commits, or leave it out for the newest"
        if isinstance(one, errors.RepositoryNotFoundError):
            return "there is no such repository, or it is private", f"check the name, or {log_in}"
        if isinstance(one, errors.HFValidationError):
            return "that is not the name of a repository", "write owner/name"
        if isinstance(one, errors.OfflineModeIsEnabled):
            return "HF_HUB_OFFLINE is set, and it is not in the cache", "check the name, unset it, or open a folder"
        if status == 401:
            return "the token is missing or not valid", log_in
        if status == 403:
            return "the token has no right to do that", f"see {constants.ENDPOINT}/settings/tokens"
        if status is not None:
            return f"the hub answered with error {status}", "try again later"
        if type(one).__module__.startswith("httpx"):
            return f"the hub cannot be reached: {one_line(one)}", "check the network, or use a local folder"
        if isinstance(one, OSError) and one.errno in FULL:
            return f"no space left in {constants.HF_HUB_CACHE}", "make room, or set HF_HOME to another disk"
        if isinstance(one, OSError) and one.errno in NOT_WRITABLE:
            return f"{one.filename or constants.HF_HUB_CACHE} cannot be written", "set HF_HOME to a folder that can"
        if "Consistency check failed" in str(one):
            return "the download was cut short, and nothing of it was kept", "try again"
    return one_line(error), "check the name, the revision and the network, or open a folder that holds it"


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An exception, what it was raised from, and so on."""
    while error is not None:
        yield error
        error = error.__cause__
