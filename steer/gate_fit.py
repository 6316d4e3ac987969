"""Fit a `Gate`: which sounds shall be edited is shown by labelled sounds, and its threshold chosen on others.

    pooled = pool_sounds(steered, sounds, site="encoder.3")
    gate = fit_gate(pooled, is_noise, k=10, held_out=(pool_sounds(steered, others), others_are_noise))

The probe is a class-balanced logistic regression (`steer.probes.fit_probe`) on the pooled features of each sound. With
`k` only that many features are read: those are found by fitting, leaving out the features that weigh least, and fitting
again, until k are left.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from hooks.capture import Recorder
from hooks.model import Source
from steer.errors import EditError
from steer.gates import Gate, GateProbe, Scope
from steer.gating import ReadOut
from steer.pooling import LOGS, pooled
from steer.probes import fit_probe, named_bins
from steer.steered import SteeredModel

SLOWLY = 32
"""From so many features on they are left out one by one, before that by halves."""
C = 0.1
"""1 / strength of the penalty on the squares of the weights."""


@dataclass(frozen=True, eq=False)
class Pooled:
    """`values` [N, P, F] of N examples: P poolings of the features of a site (or of its activation), and the sound that
    each is of, [N], counted from 0: with a scope in seconds a sound is several examples."""

    values: Tensor
    sounds: Tensor
    pooling: tuple[str, ...]
    site: str = ""
    model: str = ""
    on: str = "features"
    scope: Scope = "clip"

    def labels(self, labels: Sequence[bool] | Tensor) -> Tensor:
        """Those of the examples [N], from those of the sounds. Raises EditError where there are not as many."""
        labels_S = torch.as_tensor(labels).bool()
        count = int(self.sounds.max()) + 1 if len(self.sounds) else 0
        if labels_S.shape != (count,):
            raise EditError(f"{count} sounds have a label each, not {list(labels_S.shape)}")
        return labels_S[self.sounds]

    def logits(self, probe: GateProbe) -> Tensor:
        """What a probe gives for each example [N]."""
        values = self.values if probe.features is None else self.values[:, :, list(probe.features)]
        return (values * probe.weights.to(values)).sum((1, 2)) + probe.bias


@torch.no_grad()
def pool_sounds(
    steered: SteeredModel,
    sounds: Iterable[Source],
    site: str | None = None,
    on: str = "features",
    pooling: Sequence[str] | None = None,
    scope: Scope = "clip",
    progress: Callable[[Iterable[Source]], Iterable[Source]] = iter,
) -> Pooled:
    """What a gate would see of sounds: one pass each, as the model's own way with sounds passes them, of which only
    pooled numbers are kept; padding is left out.

    `on` says whether the SAE's features or the "activation" is pooled, by default by `LOGS` or by mean. A scope in
    seconds, or of a model's window, cuts each sound into examples of that length.

    Raises:
        EditError: no sounds, or a site without an SAE.
        AudioFileError: a sound that cannot be read.
    """
    if on not in ("features", "activation"):
        raise EditError(f"a gate is on features or on the activation, not on {on!r}")
    name = site or next(iter(steered.saes), "")
    where, sae = steered.model.site(name), steered.saes.get(name)
    if on == "features" and sae is None:
        raise EditError(f"there is no SAE at {name!r}: a gate there is on the activation")
    chosen = tuple(pooling) if pooling else LOGS if on == "features" else ("mean",)
    values, numbers = [], []
    for number, sound in enumerate(progress(sounds)):
        with Recorder(steered.model.module, [where]) as recorder:
            steered.model.pass_through(steered.model.prepare(sound))
            x_BTD = recorder.take()[name]
        f_BTF = x_BTD.float() if on == "activation" or sae is None else sae.encode(x_BTD).float()
        for part_BTF in parts(f_BTF, scope, where.frame_rate, where.chunk_s):
            values.append(pooled(part_BTF, chosen).cpu())
            numbers.append(number)
    if not values:
        raise EditError("a gate is fitted on sounds, and there are none")
    return Pooled(torch.stack(values), torch.tensor(numbers), chosen, name, steered.model.name, on, scope)


def parts(f_BTF: Tensor, scope: Scope, rate: float | None, chunk_s: float | None) -> Sequence[Tensor]:
    """A sound's features in stretches of a scope; a last one of less than half is a part of the one before."""
    seconds = scope if isinstance(scope, int | float) else chunk_s if scope == "window" else None
    if seconds is None or rate is None:
        return [f_BTF]
    frames = max(1, round(seconds * rate))
    count = max(1, round(f_BTF.shape[1] / frames))
    return [f_BTF[:, n * frames : None if n == count - 1 else (n + 1) * frames] for n in range(count)]


def fit_gate(
    examples: Pooled,
    labels: Sequence[bool] | Tensor,
    k: int | None = None,
    *,
    held_out: tuple[Pooled, Sequence[bool] | Tensor] | None = None,
    wrong: float = 0.0,
    c: float = C,
    names: tuple[str, str] = ("leave", "edit"),
) -> Gate:
    """A gate that opens on sounds like those whose label is true, reading all features or the best `k`.

    The threshold is 0 (the probe finds both alike likely), or by the `held_out` sounds: the lowest at which the gate
    opens on at most a share `wrong` of those whose label is false, in the middle between the last that is let through
    and the next one; never below what that share needs, so that more true ones are let go rather than false ones
    edited.

    Raises:
        EditError: labels that do not fit, or all alike; another k; no held-out sound whose label is false.
        MissingExtraError: scikit-learn is not installed.
    """
    labels_N = examples.labels(labels)
    if labels_N.all() or not labels_N.any():
        raise EditError("a gate is fitted on sounds of both labels")
    width = examples.values.shape[2]
    if k is not None and not 0 < k <= width:
        raise EditError(f"a gate reads 1 to {width} features, not {k}")
    if k is not None and examples.on != "features":
        raise EditError("a gate of k features reads features, not the activation")
    kept = torch.arange(width)
    weights_PJ, bias, spread_PJ = fitted(examples.values, labels_N, c, names)
    while k is not None and len(kept) > k:
        count = max(k, len(kept) // 2 if len(kept) > SLOWLY else len(kept) - 1)
        # how much a feature moves the logit over the examples, by all its poolings
        best_J = (weights_PJ * spread_PJ).square().sum(0).topk(count).indices.sort().values
        kept = kept[best_J]
        weights_PJ, bias, spread_PJ = fitted(examples.values[:, :, kept], labels_N, c, names)
    if examples.on == "features" and k is None:
        moves_J = weights_PJ.abs().sum(0) > 0  # those that never fire cost time and say nothing
        kept, weights_PJ = kept[moves_J], weights_PJ[:, moves_J]
    ids = kept.tolist() if examples.on == "features" else None
    probe = GateProbe(weights_PJ, bias, ids, examples.pooling, examples.site, examples.model)
    gate = Gate(probe, 0.0, examples.scope)
    if held_out is None:
        return gate
    others, truth = held_out
    logits_N, false_N = others.logits(probe), ~others.labels(truth)
    return replace(gate, threshold=threshold_for(logits_N, false_N, wrong))


def fitted(values_NPJ: Tensor, labels_N: Tensor, c: float, names: tuple[str, str]) -> tuple[Tensor, float, Tensor]:
    """(weights [P, J], bias, standard deviations [P, J]) of a logistic regression on pooled features."""
    flat_NX = values_NPJ.flatten(1).float()
    bins = named_bins("gate", names)
    probe = fit_probe(flat_NX, labels_N.double(), bins, c=c, max_iter=1000, balanced=True)
    shape = values_NPJ.shape[1:]
    weights_PJ = (probe.weights[1] - probe.weights[0]).view(shape)
    return weights_PJ, float(probe.bias[1] - probe.bias[0]), flat_NX.std(0).view(shape)


def threshold_for(logits_N: Tensor, false_N: Tensor, wrong: float = 0.0) -> float:
    """The lowest threshold at which at most a share `wrong` of the false ones lies above it; see `fit_gate`.

    Raises:
        EditError: there is no false one, or a share outside 0 to 1.
    """
    if not 0 <= wrong < 1:
        raise EditError(f"the share of wrong decisions is from 0 to below 1, not {wrong}")
    falses_M = logits_N[false_N].sort(descending=True).values
    if not len(falses_M):
        raise EditError("a threshold is chosen on held-out sounds whose label is false, and there are none")
    # the highest of those that have to stay below
    bound = float(falses_M[math.floor(wrong * len(falses_M))])
    above_N = logits_N[logits_N > bound]
    return (bound + float(above_N.min())) / 2 if len(above_N) else bound


@torch.no_grad()
def gate_logits(steered: SteeredModel, gate: Gate, source: Source) -> Tensor:
    """What a gate's probe gives for a sound without edits: [1] for its clip, [T] for its windows or its frames."""
    site, model = steered.model.site(gate.site), steered.model
    read = ReadOut(gate.probe, steered.saes.get(gate.site))
    with Recorder(model.module, [site]) as recorder:
        model.pass_through(model.prepare(source))
        f_BTJ = read(recorder.take()[site.name])
    if isinstance(gate.scope, float):
        if site.frame_rate is None:
            raise EditError(f"site {gate.site!r}: no frame rate is known there, so a gate's seconds have no meaning")
        return gate.probe.logits(f_BTJ, gate.frames(site.frame_rate)).cpu()
    seconds: Any = gate.scope if gate.scope == "clip" else "window"
    return torch.tensor([gate.probe.logit(part) for part in parts(f_BTJ, seconds, site.frame_rate, site.chunk_s)])
