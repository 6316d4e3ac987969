"""What families open models by: a folder's configuration, modules of transformers, and errors in one line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hooks.errors import ModelError, one_line
from hooks.weights import UNREADABLE


@contextmanager
def opening(name: str, what: str) -> Iterator[None]:
    """What files of something else raise in this block, as a ModelError: `name` is not `what`, such as "a DAC"."""
    try:
        yield
    except UNREADABLE as error:
        raise ModelError(f"{name}: not {what} that can be opened ({one_line(error)})") from error


def read_config(folder: Path) -> dict[str, Any]:
    """The `config.json` of a folder, without `architecture`, which says the family."""
    values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    values.pop("architecture", None)
    return values


def origin_of(module: Any) -> str:
    """What a module of transformers was loaded from, as a model's name: a folder, `hf:owner/name`, or ""."""
    origin = module.name_or_path
    return origin if not origin or Path(origin).is_dir() else f"hf:{origin}"


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
