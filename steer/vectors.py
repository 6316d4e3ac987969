"""`ControlVector`: a direction in feature space with a name and a unit: from means, from pairs of clips, or from a
direction of the activation.

(The fourth way to one, a probe's class weights, is `Probe.control_vector` and `Probe.slope`.)
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from hooks.by_value import ByValue
from hooks.errors import one_line
from hooks.files import UNWRITABLE, write_tensors
from hooks.weights import UNREADABLE
from steer.errors import EditError


@dataclass(frozen=True, eq=False)
class ControlVector(ByValue):
    """`vector` [d_sae], or [D] where it is a direction of the activation (`steer.directions`).

    `unit` says what a strength of +1 does ("1 dB louder"), and `model` what it was made for, as far as that is known.
    """

    vector: Tensor
    name: str = "vector"
    unit: str = ""
    site: str = ""
    model: str = ""

    def __add__(self, other: ControlVector) -> ControlVector:
        return replace(self, vector=self.vector + other.vector, name=f"{self.name} + {other.name}", unit="")

    def __sub__(self, other: ControlVector) -> ControlVector:
        return self + -other

    def __neg__(self) -> ControlVector:
        return self * -1.0

    def __mul__(self, factor: float) -> ControlVector:
        return replace(self, vector=self.vector * factor, name=f"{factor:g} {self.name}", unit="")

    __rmul__ = __mul__


def difference_of_means(with_NF: Tensor, without_NF: Tensor, name: str = "vector", **fields: str) -> ControlVector:
    """Mean features of frames that have an attribute minus those of frames that do not."""
    return ControlVector(with_NF.mean(0) - without_NF.mean(0), name, **fields)


def from_pairs(pairs: Iterable[tuple[Tensor, Tensor, float]], name: str = "vector", **fields: str) -> ControlVector:
    """Direction from pairs (features [T, F] of a sound, of the same sound changed, by how many units).

    The least-squares slope of the pairs' mean differences on the amount of change: +1 is one unit.

    Raises:
        EditError: no pair, or no change in any of them.
    """
    total: Tensor | None = None
    weight = 0.0
    for before_TF, after_TF, amount in pairs:
        term = amount * (after_TF.mean(0) - before_TF.mean(0))
        total = term if total is None else total + term
        weight += amount**2
    if total is None or weight == 0:
        raise EditError(f"{name}: a direction from pairs needs pairs that differ")
    return ControlVector(total / weight, name, **fields)


def from_direction(direction_D: Tensor, W_dec: Tensor, name: str = "vector", **fields: str) -> ControlVector:
    """The shortest vector that moves the activation by `direction_D`, through an SAE's decoder [F, D]: exact where
    the decoder's rows span it.

    Raises:
        EditError: they do not, by more than a hundredth of its length.
    """
    rows_DF, wanted_D = W_dec.detach().double().T, direction_D.detach().double()
    vector_F = torch.linalg.lstsq(rows_DF, wanted_D[:, None], driver="gelsd").solution[:, 0]
    missing = float((rows_DF @ vector_F - wanted_D).norm() / wanted_D.norm().clamp(min=1e-12))
    if missing > 0.01:
        raise EditError(f"{name}: the SAE's decoder reaches this direction but for {missing:.0%} of its length")
    return ControlVector(vector_F.to(W_dec.dtype), name, **fields)


def save_vectors(vectors: Mapping[str, ControlVector], path: str | Path) -> None:
    """Several vectors in one safetensors file, with names, units, sites and models as its metadata.

    Raises:
        EditError: the file cannot be written.
    """
    about = {key: {"name": v.name, "unit": v.unit, "site": v.site, "model": v.model} for key, v in vectors.items()}
    try:
        # cloned: one vector under two names is not written by safetensors
        write_tensors(path, {key: v.vector.clone() for key, v in vectors.items()}, vectors=about)
    except UNWRITABLE as error:
        raise EditError(f"{path}: the vectors could not be written ({error})") from error


def load_vectors(path: str | Path) -> dict[str, ControlVector]:
    """All vectors of a safetensors file; one of another origin may hold bare tensors [d_sae], a pack (`steer.packs`)
    other things too.

    Raises:
        EditError: no such file, not a safetensors file, or tensors of more than one axis.
    """
    if not os.path.isfile(path):
        raise EditError(f"{path}: no such file of control vectors")
    try:
        with safe_open(str(path), "pt") as file:
            metadata = file.metadata() or {}
            about = json.loads(metadata.get("vectors", "{}"))
            vectors = {
                key: ControlVector(file.get_tensor(key).float(), **texts(about.get(key, {"name": key})))
                for key in (about if "pack" in metadata else file.keys())
            }
    except UNREADABLE as error:
        raise EditError(f"{path}: not a file of control vectors ({one_line(error)})") from error
    for key, vector in vectors.items():
        if vector.vector.ndim != 1:
            raise EditError(f"{path}: {key} has shape {list(vector.vector.shape)}, a control vector has one axis")
    return vectors


def texts(said: Mapping[str, Any]) -> Mapping[str, str]:
    """Raises TypeError for what is not text."""
    for key, value in said.items():
        if not isinstance(value, str):
            raise TypeError(f"its {key} is not text")
    return said


def load_vector(source: str | Path) -> ControlVector:
    """The only vector of a file, or the one named behind a `#`: `vectors.safetensors#brightness`.

    Raises:
        EditError: the file holds several and none was named, or not the one that was.
    """
    path, _, key = str(source).partition("#")
    vectors = load_vectors(path)
    if not key and len(vectors) == 1:
        return next(iter(vectors.values()))
    if key not in vectors:
        raise EditError(f"{path}: holds {', '.join(vectors)}; name one as {path}#{next(iter(vectors), 'name')}")
    return vectors[key]
