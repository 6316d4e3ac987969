"""Where an SAE lies: a path, `starter:codec/latent`, or a repository of the hub, fetched no more than is needed."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable
from pathlib import Path

from hooks.errors import shortened
from hooks.hub import HubError, snapshot
from steer.errors import SAEError
from steer.formats.packed import part_of

SCHEMES: dict[str, Callable[[str], Path]] = {}
"""Prefixes that stand for a folder, as in `starter:codec/latent`."""
TORCH_FILES = (".pt", ".pth")


def find_folder(source: str | Path) -> Path:
    """The folder that a path, `starter:codec/latent` or a hub id (`hf:owner/name/sub/folder@revision`) stands for.

    Raises:
        SAEError: there is none, or it cannot be downloaded.
    """
    path = locate(source)
    return path.parent if path.is_file() else path


def locate(source: str | Path) -> Path:
    """The folder or file that a name stands for; see `find_folder`."""
    text = str(source)
    if os.path.exists(text):
        return Path(text)
    part = part_of(text)
    if part is not None:
        return part[0]
    scheme, _, rest = text.partition(":")
    if scheme in SCHEMES:
        return SCHEMES[scheme](rest)
    if scheme == "hf" and rest.count("/") >= 1:
        name, _, revision = rest.partition("@")
        owner, repository, *inner = name.split("/")
        return downloaded(f"{owner}/{repository}", "/".join(inner), revision or None)
    raise SAEError(
        f"there is no SAE {shortened(text)!r}: pass a folder, starter:codec/latent, or hf:owner/name/folder@revision"
    )


def downloaded(repository: str, inner: str = "", revision: str | None = None, token: str | None = None) -> Path:
    """A folder in a repository `owner/name`, or one file and the configs beside it; nothing else is fetched.

    Raises:
        SAEError: it is not there, or cannot be downloaded.
    """
    name = f"hf:{repository}/{inner}" if inner else f"hf:{repository}"
    inside = path_inside(inner, name)
    is_file = Path(inside).suffix in (*TORCH_FILES, ".safetensors")
    folder = glob.escape(inside.rpartition("/")[0] if is_file else inside)
    patterns = [glob.escape(inside)] if is_file else []
    patterns.append("/".join(part for part in (folder, "*.json" if is_file else "*") if part))
    try:
        # without a folder, the files at the top: other SAEs may lie in folders
        root = snapshot(
            repository, revision, only=patterns if inside else None, without=None if inside else ["*/*"], token=token
        )
    except HubError as error:
        raise SAEError(f"{name}: could not be downloaded ({error.reason}); {error.remedy}") from error
    path = Path(root, inside)
    if not path.exists():
        raise SAEError(f"{name}: the repository has no {inside}")
    return path


def path_inside(inner: str, name: str) -> str:
    """A path in a repository without a slash at its end, "" for the top.

    Raises:
        SAEError: it is absolute, leads out, or is not plain.
    """
    inside = inner.removesuffix("/")
    if inside and any(part in ("", ".", "..") for part in inside.split("/")):
        raise SAEError(f"{name}: {inner!r} is not a path inside a repository: write it as layers/3")
    return inside
