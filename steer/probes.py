"""`Probe`: a linear read-out from features to the classes of an attribute, and the control vectors in its weights.

p = softmax(W f + b) (arXiv 2510.23802, eq. 3), with that paper's classes: 66 MIDI notes for pitch, 20 equal steps each
for loudness (dB) and spectral centroid (Hz).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from hooks.by_value import ByValue
from hooks.errors import one_line, require
from hooks.files import UNWRITABLE, write_tensors
from hooks.weights import UNREADABLE
from steer.errors import ProbeError
from steer.vectors import ControlVector

PITCH_NOTES = range(31, 97)
"""66 notes, G1 (49 Hz) to C7 (2093 Hz): what CREPE can hear."""
NEVER = -1e4
"""Bias of a class that no frame of the training had."""


@dataclass(frozen=True)
class Bins:
    """Classes of one attribute: equally spaced centres in `unit`, or just names."""

    attribute: str
    centres: tuple[float, ...]
    unit: str = ""
    names: tuple[str, ...] = ()

    def classes(self, values_N: Tensor) -> Tensor:
        """Class [N] of each value: the nearest, also beyond the ends; -1 for NaN (that frame is left out)."""
        values_N = values_N.double()
        step = (self.centres[-1] - self.centres[0]) / max(len(self.centres) - 1, 1) or 1.0
        # + 0.5 and floor: a value on an edge belongs to the class above, never to the nearest even one
        classes = ((values_N - self.centres[0]) / step + 0.5).floor().clamp(0, len(self.centres) - 1)
        return classes.nan_to_num(nan=-1).long()


def pitch_bins() -> Bins:
    return Bins("pitch", tuple(float(note) for note in PITCH_NOTES), "MIDI")


def linear_bins(attribute: str, unit: str, values_N: Tensor, count: int = 20) -> Bins:
    """`count` equal steps over the range of the values (from their 0.5th to their 99.5th percentile; NaN is left out).

    Raises:
        ProbeError: there are no values, or they are all the same.
    """
    known = values_N[values_N.isfinite()].double().sort().values
    if not len(known) or known[0] == known[-1]:
        raise ProbeError(f"{attribute}: bins need values that differ")
    low, high = (float(known[round(share * (len(known) - 1))]) for share in (0.005, 0.995))
    step = (high - low) / count
    return Bins(attribute, tuple(low + (index + 0.5) * step for index in range(count)), unit)


def named_bins(attribute: str, names: Sequence[str]) -> Bins:
    """Classes that have no order: the value of a frame is the index of its name."""
    return Bins(attribute, tuple(float(index) for index in range(len(names))), "", tuple(names))


@dataclass(frozen=True, eq=False)
class Probe(ByValue):
    """`weights` [K, F] and `bias` [K] for the K classes of `bins`; `counts` [K] frames of each were trained on."""

    bins: Bins
    weights: Tensor
    bias: Tensor
    counts: Tensor
    site: str = ""

    @property
    def attribute(self) -> str:
        return self.bins.attribute

    def logits(self, f_XF: Tensor) -> Tensor:
        return f_XF.to(self.weights) @ self.weights.T + self.bias

    def predict(self, f_XF: Tensor) -> Tensor:
        """Class [...] of features [..., F]."""
        return self.logits(f_XF).argmax(-1)

    def accuracy(self, f_NF: Tensor, values_N: Tensor) -> float:
        """Share of the frames that are put in their class; frames without a value do not count.

        Raises:
            ProbeError: no frame has a value.
        """
        classes_N = self.bins.classes(values_N)
        kept = classes_N >= 0
        if not kept.any():
            raise ProbeError(f"{self.attribute}: no frame has a value")
        return float((self.predict(f_NF[kept]) == classes_N[kept]).float().mean())

    def expected_value(self, f_XF: Tensor) -> Tensor:
        """Mean of the class centres, weighted by their probability [...], in the unit of the bins."""
        return self.logits(f_XF).softmax(-1) @ torch.tensor(self.bins.centres).to(self.weights)

    def control_vector(self, class_: int, from_: int | None = None) -> ControlVector:
        """Direction [F] towards a class: its weights minus the mean of all classes' (softmax does not see the mean), or
        minus those of class `from_`.

        Raises:
            ProbeError: no such class, or one that no frame of the training had.
        """
        for index in (class_,) if from_ is None else (class_, from_):
            if not 0 <= index < len(self.bins.centres) or not self.counts[index]:
                raise ProbeError(f"{self.attribute}: class {index} is not among those that this probe was trained on")
        start = self.weights[self.counts > 0].mean(0) if from_ is None else self.weights[from_]
        arrow = self.title(class_) if from_ is None else f"{self.title(from_)} -> {self.title(class_)}"
        return ControlVector(self.weights[class_] - start, f"{self.attribute} {arrow}", f"towards {arrow}", self.site)

    def slope(self) -> ControlVector:
        """Direction [F] of rising values: the least-squares slope of the weights of the classes over their centres,
        each class counting as much as it had frames.

        Raises:
            ProbeError: classes that are names have no order.
        """
        if self.bins.names:
            raise ProbeError(f"{self.attribute}: its classes are names and have no order")
        share_K = (self.counts / self.counts.sum()).double()
        away_K = torch.tensor(self.bins.centres, dtype=torch.float64)
        away_K = away_K - share_K @ away_K
        slope_F = (share_K * away_K) @ self.weights.double() / (share_K @ away_K.square())
        return ControlVector(slope_F.float(), self.attribute, f"towards more {self.bins.unit}".strip(), self.site)

    def title(self, class_: int) -> str:
        if self.bins.names:
            return self.bins.names[class_]
        return f"{self.bins.centres[class_]:.4g} {self.bins.unit}".strip()


def fit_probe(
    f_NF: Tensor,
    values_N: Tensor,
    bins: Bins,
    *,
    site: str = "",
    c: float = 1.0,
    max_iter: int = 300,
    balanced: bool = False,
) -> Probe:
    """Fit by multinomial logistic regression (L-BFGS), `c` being 1 / strength of its L2 penalty.

    Features are standardised one by one for it, which is folded back: the probe takes features as they are. If
    `balanced`, each class counts as much as another, however many frames it has.

    Raises:
        ProbeError: features and values do not fit, or the frames are of fewer than two classes.
        MissingExtraError: scikit-learn is not installed.
    """
    require("sklearn", "eval")
    from sklearn.linear_model import LogisticRegression

    if f_NF.ndim != 2 or values_N.shape != f_NF.shape[:1]:
        raise ProbeError(
            f"features {list(f_NF.shape)} and values {list(values_N.shape)} do not fit; pass [N, F] and [N]"
        )
    classes_N = bins.classes(values_N)
    kept = classes_N >= 0
    counts_K = torch.bincount(classes_N[kept], minlength=len(bins.centres))
    if int((counts_K > 0).sum()) < 2:
        raise ProbeError(f"{bins.attribute}: a probe needs frames of two classes or more")
    x_NF = f_NF[kept].float()
    mean_F, std_F = x_NF.mean(0), x_NF.std(0)
    # a feature that (nearly) never changes tells nothing, and dividing by its deviation would blow it up
    inverse_F = torch.where(std_F > 1e-6 * std_F.max().clamp(min=1e-30), 1 / std_F, 0)
    model = LogisticRegression(C=c, max_iter=max_iter, class_weight="balanced" if balanced else None)
    model.fit(((x_NF - mean_F) * inverse_F).numpy(), classes_N[kept].numpy())
    found, inner = torch.from_numpy(model.coef_).double(), torch.from_numpy(model.intercept_).double()
    if len(model.classes_) == 2:  # one row for two classes: half of it for each is the same softmax
        found, inner = torch.cat([-found, found]) / 2, torch.cat([-inner, inner]) / 2
    seen = torch.from_numpy(model.classes_).long()
    weights_KF = torch.zeros(len(bins.centres), f_NF.shape[1], dtype=torch.float64)
    bias_K = torch.full((len(bins.centres),), NEVER, dtype=torch.float64)
    weights_KF[seen] = found * inverse_F.double()
    bias_K[seen] = inner - weights_KF[seen] @ mean_F.double()
    return Probe(bins, weights_KF.float(), bias_K.float(), counts_K, site)


def save_probes(probes: Mapping[str, Probe], path: str | Path) -> None:
    """Several probes in one safetensors file: `name.weights`, `name.bias`, `name.counts`, and the classes as metadata.

    Raises:
        ProbeError: the file cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    about = {}
    for name, probe in probes.items():
        tensors |= {f"{name}.{part}": getattr(probe, part) for part in ("weights", "bias", "counts")}
        bins = probe.bins
        about[name] = {
            "site": probe.site,
            "bins": {"attribute": bins.attribute, "centres": bins.centres, "unit": bins.unit, "names": bins.names},
        }
    try:
        write_tensors(path, tensors, probes=about)
    except UNWRITABLE as error:
        raise ProbeError(f"{path}: the probes could not be written ({error})") from error


def load_probes(path: str | Path) -> dict[str, Probe]:
    """All probes of a file, by name.

    Raises:
        ProbeError: no such file, or not a file of probes.
    """
    if not os.path.isfile(path):
        raise ProbeError(f"{path}: no such file of probes")
    probes = {}
    try:
        with safe_open(str(path), "pt") as file:
            for name, entry in json.loads((file.metadata() or {})["probes"]).items():
                weights, bias, counts = (file.get_tensor(f"{name}.{part}") for part in ("weights", "bias", "counts"))
                known = entry["bins"]
                bins = Bins(known["attribute"], tuple(known["centres"]), known["unit"], tuple(known["names"]))
                probes[name] = Probe(bins, weights.float(), bias.float(), counts, entry["site"])
    except UNREADABLE as error:
        raise ProbeError(f"{path}: not a file of probes ({one_line(error)})") from error
    return probes
