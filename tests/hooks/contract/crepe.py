"""CREPE. "tiny" is small enough for CI as it is; "full" is the same code, 46 times as large."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.hooks.contract.case import PUBLISHED, Case, Way

torchcrepe = pytest.importorskip("torchcrepe", reason="extra crepe")


def save(module: Any, folder: Path) -> str:
    folder.mkdir()
    torch.save(module.state_dict(), folder / "own.pth")
    return f"crepe:{folder / 'own.pth'}"


def frames(model: Any, audio_BCN: Tensor) -> Tensor:
    (rows,) = torchcrepe.preprocess(audio_BCN[:, 0].float(), 16_000)
    return rows.to(model.dtype)


def infer(model: Any, rows: Tensor, **options: Any) -> Tensor:
    """The package's functions run the network that it holds for the whole process."""
    held = {key: getattr(torchcrepe.infer, key) for key in ("model", "capacity") if hasattr(torchcrepe.infer, key)}
    torchcrepe.infer.model, torchcrepe.infer.capacity = model.module, model.capacity
    try:
        return torchcrepe.infer(rows, model.capacity, **options)
    finally:
        for key in ("model", "capacity"):
            delattr(torchcrepe.infer, key)
        vars(torchcrepe.infer).update(held)


# what ends at the embedding has nobody who reads it
FRONT = tuple(f"encoder.{n}" for n in range(4))
# the slowest of these sites counts 16 places a frame
PLACES = 16
WAYS = {
    "forward": Way(lambda model, rows: model.module(rows), given=frames),
    "infer": Way(infer, given=frames),
    "embedding": Way(partial(infer, embed=True), FRONT, PLACES, given=frames),
    "embed": Way(lambda model, rows: model.module.embed(rows), FRONT, PLACES, given=frames),
}
CASES = [
    Case(f"CREPE {size}", partial(torchcrepe.Crepe, size), WAYS, save, seconds=0.06)
    for size in (("tiny", "full") if PUBLISHED else ("tiny",))
]
