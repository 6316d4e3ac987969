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
from hooks.weights import read_checkpoint
from steer.errors import SAEError

MAX_JSON_BYTES = 16 * 2**20
NUMPY_NUMBERS: list[Any] = [
    # losses that a trainer left as numpy numbers beside its tensors; numpy 1 wrote the first name
    (np.float64(0).__reduce__()[0], "numpy.core.multiarray.scalar"),
    (np.float64(0).__reduce__()[0], "numpy._core.multiarray.scalar"),
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
        if path.stat().st_size > MAX_JSON_BYTES:
            raise SAEError(f"{path}: too large for a config ({path.stat().st_size >> 20} MiB)")
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SAEError(f"no {path.name} in {path.parent}") from error
    except (OSError, ValueError, RecursionError) as error:
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


def check_tensors(value: Any, path: Path) -> None:
    """Raises SAEError for a tensor that claims more numbers than the file has room for, as a view of a few can."""
    if isinstance(value, dict):
        for one in value.values():
            check_tensors(one, path)
    elif isinstance(value, Tensor) and value.numel() * value.element_size() > path.stat().st_size:
        raise SAEError(f"{path}: a tensor claims to be {list(value.shape)}, which the file has no room for")
