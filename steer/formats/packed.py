"""SAEs in a pack (`steer.packs`), named `FILE.safetensors#SITE`: some features of another SAE, renumbered from 0."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from hooks.errors import one_line
from hooks.files import check_regular
from hooks.weights import UNREADABLE
from steer.activations import ACTIVATIONS
from steer.errors import SAEError
from steer.formats.assemble import assemble, info_of
from steer.normalize import NORMALIZATIONS
from steer.sae import SAE

SUFFIX = ".safetensors"
MAX_BYTES = 2**30
"""Columns and rows of some hundred features are a thousandth of this."""


def part_of(source: str) -> tuple[Path, str] | None:
    """(file, name) of a part of a file that is there, None where the text is not one."""
    path, mark, name = source.rpartition("#")
    return (Path(path), name) if mark and name and path.endswith(SUFFIX) and Path(path).is_file() else None


def load_part(path: Path, site: str) -> SAE:
    """Raises SAEError where the file has no SAE at the site, or is damaged."""
    try:
        metadata, tensors = read_pack(path, f"sae.{site}.")
        return packed_sae(site, json.loads(metadata["pack"])["saes"][site], tensors, path)
    except SAEError as error:
        raise SAEError(str(error) if str(error).startswith(str(path)) else f"{path}: {error}") from error
    except UNREADABLE as error:
        raise SAEError(f"{path}: has no SAE at {site!r} that can be opened ({one_line(error)})") from error


def read_pack(path: Path, prefix: str = "") -> tuple[dict[str, str], dict[str, Tensor]]:
    """The metadata of a file, and the tensors whose names begin with a prefix, by the rest of their names.

    Raises:
        Exception: one of `UNREADABLE`.
    """
    check_regular(path)
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"more than {MAX_BYTES} bytes")
    with safe_open(str(path), "pt") as file:
        names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118
        return file.metadata() or {}, {name.removeprefix(prefix): file.get_tensor(name) for name in names}


def packed_sae(site: str, said: Mapping[str, Any], tensors: Mapping[str, Tensor], path: Path) -> SAE:
    """Raises SAEError or one of `UNREADABLE` where these are not an SAE's."""
    activation, normalize, center = said["activation"], said["normalize"], said["center"]
    fits = isinstance(activation, str) and isinstance(center, bool)
    if not fits or not (normalize is None or (isinstance(normalize, str) and normalize in NORMALIZATIONS)):
        raise ValueError(f"what it says of the SAE at {site} makes no sense")
    if not ACTIVATIONS[activation].separable:
        raise ValueError(f"features of {activation} depend on each other, and cannot be in a pack")
    name = f"{path}#{site}"
    # BatchTopK needs one, and with its threshold does not use it
    k = 1 if ACTIVATIONS[activation].needs_k else None
    return assemble(name, activation, tensors, k, center=center, normalize=normalize, info=info_of(said["info"], name))
