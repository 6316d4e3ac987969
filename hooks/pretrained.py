"""Modules of transformers from a folder on this machine, whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hooks.errors import ModelError


def from_pretrained(cls: Any, folder: Path, name: str, optional: tuple[str, ...] = (), **options: Any) -> Any:
    """`cls.from_pretrained(folder, **options)`, without the network.

    Weights whose names end in one of `optional` may be missing.

    Raises:
        ModelError: the file lacks weights, or has them in other shapes: the library starts them at random, with a
            warning only.
    """
    module, loading = cls.from_pretrained(
        folder, output_loading_info=True, ignore_mismatched_sizes=True, local_files_only=True, **options
    )
    unlike = sorted(loading["mismatched_keys"])
    if unlike:
        key, stored, needed = unlike[0]
        raise ModelError(
            f"{name}: {key} is {list(stored)} in its file and {list(needed)} by its config.json; "
            "they do not belong together: fetch both again"
        )
    absent = sorted(key for key in loading["missing_keys"] if not key.endswith(optional))
    if absent:
        raise ModelError(f"{name}: {len(absent)} weights are not in its file, among them {absent[0]}; fetch it again")
    return module
