"""Reading what others wrote, without trusting it: JSON, and weights as `hooks.weights` reads them.

Files are only ever found by names written here, never by names written in a file.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hooks.errors import ModelError, one_line
from hooks.files import read_text
from hooks.weights import read_checkpoint
from steer.errors import SAEError

MAX_JSON_BYTES = 16 * 2**20
MAX_VALUES, MAX_DEPTH = 10**6, 100


def number(dtype: Any, data: Any) -> Any:
    """A numpy number as it was pickled; the function that numpy names there makes an item of any size."""
    if not isinstance(dtype, np.dtype) or dtype.kind not in "fiub":
        raise ValueError(f"{dtype} is not a number type")
    return np.frombuffer(data, dtype)[0]


NUMPY_NUMBERS: list[Any] = [
    # losses that a trainer left as numpy numbers beside its tensors; numpy 1 wrote the first name
    (number, "numpy.core.multiarray.scalar"),
    (number, "numpy._core.multiarray.scalar"),
    np.dtype,
    *(type(np.dtype(kind)) for kind in (np.float32, np.float64, np.int32, np.int64)),
]


@dataclass(frozen=True)
class Checkpoint:
    """What was found of an SAE: `state`, the tensors and values of its file (or module); `config`, the JSON beside it.

    `folder` is None for a module in memory. `k` is what the user says where the file does not.
    """

    name: str
    state: dict[str, Any]
    config: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    k: int | None = None

    def section(self, key: str) -> dict[str, Any]:
        """A part of the config that is an object itself; {} where there is none."""
        value = self.config.get(key)
        if value is not None and not isinstance(value, dict):
            raise SAEError(f"{self.name}: {key} in its config is not an object")
        return dict(value or {})


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        SAEError: it is not there, damaged, or no object.
    """
    try:
        config = json.loads(read_text(path, MAX_JSON_BYTES))
    except FileNotFoundError as error:
        raise SAEError(f"no {path.name} in {path.parent}") from error
    except OSError as error:
        raise SAEError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise SAEError(f"{path}: damaged file ({one_line(error)})") from error
    if not isinstance(config, dict):
        raise SAEError(f"{path}: damaged file (not a JSON object)")
    return config


def read_weights(path: Path) -> dict[str, Any]:
    """The dict in a safetensors file, or in one of torch.save.

    Raises:
        SAEError: it is damaged, holds more than tensors and plain values, or unpacks to more than it holds.
    """
    try:
        with torch.serialization.safe_globals(NUMPY_NUMBERS):
            state = read_checkpoint(path)
    except ModelError as error:
        raise SAEError(str(error)) from error
    if not isinstance(state, dict):
        raise SAEError(f"{path}: holds no dict of tensors but {type(state).__name__}")
    check_tensors(state, path)
    return state


def check_tensors(state: dict[str, Any], path: Path) -> None:
    """Raises SAEError where a file claims more than it holds: a view of a few numbers, lists of the same lists."""
    waiting: list[tuple[Any, int]] = [(state, 0)]
    met = 1
    while waiting:
        value, depth = waiting.pop()
        if isinstance(value, Tensor) and value.numel() * value.element_size() > path.stat().st_size:
            raise SAEError(f"{path}: a tensor claims to be {list(value.shape)}, which the file has no room for")
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple | set) else ()
        met += len(inner)
        if met > MAX_VALUES or depth > MAX_DEPTH:
            raise SAEError(f"{path}: holds values within values without end; it is not to be trusted")
        waiting += [(one, depth + 1) for one in inner]


def plain(values: dict[str, Any]) -> dict[str, Any]:
    """As JSON has it, without tensors."""
    kept = {key: value for key, value in values.items() if not isinstance(value, Tensor)}
    return json.loads(json.dumps(kept, default=str, skipkeys=True))
