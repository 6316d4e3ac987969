"""`Gate`: a read-out that decides where an edit acts: on which clips, in which windows, or at which seconds.

    gate = Gate(GateProbe(weights, bias, features=[3, 17], site="encoder.3"), threshold=0.0, scope="clip")
    with steered.edit(Shift(vector), when=gate):
        steered.transcribe("talk.wav")

The probe gives a logit from features (or from the activation itself) at its site, pooled over the frames that hold
sound; the edit acts where the logit is above the threshold, and elsewhere the activation stays as it is, bit for bit.
How a decision is made while a model runs: `steer.gating`. How a gate is fitted: `steer.gate_fit`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hooks.by_value import ByValue
from hooks.errors import one_line, shortened
from hooks.files import check_regular, whole_file
from hooks.weights import UNREADABLE
from steer.errors import EditError
from steer.pooling import POOLINGS, pooled, smoothed

if TYPE_CHECKING:
    from steer.probes import Probe

Scope = Literal["clip", "window"] | float
"""A whole sound, one pass of the model (a window of 30 s of Whisper's, a block of a stream), or seconds around each
frame."""
MAX_BYTES = 2**28
"""A gate that reads all features of a large SAE is a hundredth of this."""


@dataclass(frozen=True, eq=False)
class GateProbe(ByValue):
    """logit = sum over p and f of weights[p, f] * pooling p of feature f, + bias.

    `weights` [P, j] has a row for each of the `pooling`s (`steer.pooling`). `features` are the ids [j] of the features
    that it reads, at a cost of their own where the SAE's activation allows that; None: it reads the activation [D]
    itself, and needs no SAE. `model` is the name of the model that it was made for, as far as it is known.

    Raises:
        EditError: the shapes do not fit, numbers are not finite, a feature is named twice, an unknown pooling, or one
            with a logarithm of activations, which may be negative.
    """

    weights: Tensor
    bias: float = 0.0
    features: Sequence[int] | None = None
    pooling: Sequence[str] = ("mean",)
    site: str = ""
    model: str = ""

    def __post_init__(self) -> None:
        weights_PJ = torch.as_tensor(self.weights, dtype=torch.float32).detach()
        weights_PJ = weights_PJ[None] if weights_PJ.ndim == 1 else weights_PJ
        pooling = tuple([self.pooling] if isinstance(self.pooling, str) else self.pooling)
        unknown = [name for name in pooling if name not in POOLINGS]
        if unknown or not pooling:
            raise EditError(f"a gate's pooling is of {', '.join(POOLINGS)}, not {shortened(repr(unknown or pooling))}")
        if self.features is None and any(name.startswith("log") for name in pooling):
            raise EditError("a gate on activations pools by mean or max: they may be negative, and have no logarithm")
        if weights_PJ.ndim != 2 or len(weights_PJ) != len(pooling) or not weights_PJ.shape[1]:
            wanted = f"[{len(pooling)}, features] for {', '.join(pooling)}"
            raise EditError(f"a gate's weights are {wanted}, not {list(weights_PJ.shape)}")
        if not (torch.isfinite(weights_PJ).all() and math.isfinite(self.bias)):
            raise EditError("a gate's weights and bias have to be finite")
        if self.features is not None:
            features = tuple(int(feature) for feature in self.features)
            if len(features) != weights_PJ.shape[1] or len(set(features)) != len(features) or min(features) < 0:
                raise EditError("a gate's features are different ids from 0 on, one for each column of the weights")
            object.__setattr__(self, "features", features)
        object.__setattr__(self, "weights", weights_PJ)
        object.__setattr__(self, "bias", float(self.bias))
        object.__setattr__(self, "pooling", pooling)

    @classmethod
    def of(cls, probe: Probe, class_: int, features: Sequence[int] | None = None, model: str = "") -> GateProbe:
        """A probe of two classes as a read-out for one of them, from means. `features` are the ids that it was fitted
        on; None where that was the activation itself.

        Raises:
            EditError: a probe of more classes.
        """
        if len(probe.weights) != 2 or class_ not in (0, 1):
            raise EditError(f"{probe.attribute}: a gate is a probe of two classes, this one has {len(probe.weights)}")
        weights_F = probe.weights[class_] - probe.weights[1 - class_]
        bias = float(probe.bias[class_] - probe.bias[1 - class_])
        return cls(weights_F, bias, features, site=probe.site, model=model)

    def logit(self, f_ETJ: Tensor) -> float:
        """Of all frames of features [E, T, j] together."""
        return float((self.weights.to(f_ETJ) * pooled(f_ETJ, self.pooling)).sum()) + self.bias

    def logits(self, f_ETJ: Tensor, frames: int) -> Tensor:
        """Of an odd number of `frames` around each frame, [T]."""
        weights_PJ = self.weights.to(f_ETJ)
        if self.pooling == ("mean",):  # a product and a mean change places: one number a frame is smoothed
            return smoothed(f_ETJ @ weights_PJ.T, self.pooling, frames)[:, 0, 0] + self.bias
        return (weights_PJ * smoothed(f_ETJ, self.pooling, frames)).sum((1, 2)) + self.bias


@dataclass(frozen=True, eq=False)
class Gate(ByValue):
    """Open where the probe's logit is above `threshold`; `~gate` is open where it is below.

    `scope` says over what the probe pools, and for what it decides: "clip", a whole sound, however many windows the
    model takes it in; "window", one pass of the model; or a number of seconds around each frame.

    Raises:
        EditError: another scope, or a threshold that is not finite.
    """

    probe: GateProbe
    threshold: float = 0.0
    scope: Scope = "clip"

    def __post_init__(self) -> None:
        if not isinstance(self.probe, GateProbe):
            raise EditError(f"a gate takes a GateProbe (GateProbe.of makes one), not a {type(self.probe).__name__}")
        object.__setattr__(self, "scope", checked_scope(self.scope))
        if not math.isfinite(self.threshold):
            raise EditError(f"a gate's threshold has to be finite, not {self.threshold}")
        object.__setattr__(self, "threshold", float(self.threshold))

    def __invert__(self) -> Gate:
        probe = replace(self.probe, weights=-self.probe.weights, bias=-self.probe.bias)
        return replace(self, probe=probe, threshold=-self.threshold)

    @property
    def site(self) -> str:
        return self.probe.site

    def frames(self, rate: float) -> int:
        """How many frames around each one are pooled; an odd number."""
        assert isinstance(self.scope, float)
        return 2 * round(self.scope * rate / 2) + 1

    def save(self, path: str | Path) -> Path:
        """One safetensors file: `weights`, `bias`, `features` (where there are some), all else as its metadata.

        Raises:
            EditError: it cannot be written.
        """
        path = Path(path)
        try:
            with whole_file(path) as partial:
                save_file(tensors_of(self), partial, {"gate": json.dumps(described(self))})
        except (OSError, SafetensorError) as error:
            raise EditError(f"{path}: the gate could not be written ({one_line(error)})") from error
        return path

    @classmethod
    def load(cls, path: str | Path) -> Gate:
        """From a file that `save` wrote, or from a pack (`steer.packs`): `FILE#NAME`.

        Raises:
            EditError: there is no such file, or it is damaged or not a gate.
        """
        file_name, _, part = str(path).partition("#")
        path = Path(file_name)
        try:
            check_regular(path)
            if path.stat().st_size > MAX_BYTES:
                raise ValueError(f"more than {MAX_BYTES} bytes")
            with safe_open(str(path), "pt") as file:
                about = json.loads((file.metadata() or {})["pack" if part else "gate"])
                about = about["gates"][part] if part else about
                prefix = f"gate.{part}." if part else ""
                names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118
                return gate_of({name.removeprefix(prefix): file.get_tensor(name) for name in names}, about)
        except FileNotFoundError as error:
            raise EditError(f"{path}: no such file of a gate") from error
        except EditError as error:
            raise EditError(f"{path}: {error}") from error
        except UNREADABLE as error:
            raise EditError(f"{path}: not a gate that can be opened ({one_line(error)})") from error


def checked_scope(scope: Any) -> Scope:
    """A scope, seconds as a float. Raises EditError where it is none."""
    if isinstance(scope, str) and scope in ("clip", "window"):
        return scope  # type: ignore[return-value]
    if isinstance(scope, int | float) and not isinstance(scope, bool) and 0 < scope < math.inf:
        return float(scope)
    raise EditError(f"a gate's scope is clip, window or a number of seconds above 0, not {shortened(repr(scope))}")


def tensors_of(gate: Gate) -> dict[str, Tensor]:
    probe = gate.probe
    # float64: a threshold between two clips must not move
    tensors = {"weights": probe.weights.contiguous(), "bias": torch.tensor(probe.bias, dtype=torch.float64)}
    return tensors if probe.features is None else {**tensors, "features": torch.tensor(probe.features)}


def described(gate: Gate) -> dict[str, Any]:
    probe = gate.probe
    about: dict[str, Any] = {"pooling": list(probe.pooling), "site": probe.site, "model": probe.model}
    return {**about, "threshold": gate.threshold, "scope": gate.scope}


def gate_of(tensors: dict[str, Tensor], about: dict[str, Any]) -> Gate:
    """Raises EditError or one of `UNREADABLE` where these are not a gate's."""
    features = tensors.get("features")
    if features is not None and (features.ndim != 1 or features.is_floating_point()):
        raise ValueError("features are not a list of whole numbers")
    bias, pooling, site, model = tensors["bias"], about["pooling"], about["site"], about["model"]
    if not (isinstance(pooling, list) and all(isinstance(text, str) for text in (*pooling, site, model))):
        raise TypeError("pooling, site and model are text")
    ids = None if features is None else features.tolist()
    probe = GateProbe(tensors["weights"], float(bias), ids, tuple(pooling), site, model)
    return Gate(probe, float(about["threshold"]), about["scope"])
