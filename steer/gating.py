"""How a gate decides while a model runs: `Decider` reads at the gate's site, `Conditional` is the edit that asks it.

A decision is made from the pass itself where the gate's site comes before the edit: as it reaches the site, other edits
that are on included. Where it comes later, or where a clip is longer than a pass, the whole recording is passed once
beforehand (`hooks.timing`), without any edit, and the decision is kept for all its windows.

Each recording of a batch is decided by itself, from its own frames, so that its decision does not depend on what lies
beside it; several rows of one recording (channels, beams) share one.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from hooks import AudioModel, attach
from hooks.attach import unhooked
from hooks.random_numbers import seeded
from hooks.site import Site
from hooks.timing import Moment, Whole, now, real_frames, saying
from steer.errors import EditError
from steer.feature_ids import check_features
from steer.gates import Gate, GateProbe
from steer.sae import SAE, EncodesAndDecodes
from steer.values import Frames

SHUT = float("-inf")
"""The logit where there is no sound to decide by."""
EARLIER = 64
"""So many passes of rows that nobody named are remembered, until the edits behind the gate have been passed."""


@dataclass(frozen=True)
class Said:
    """What a gate says of one recording at one pass: a logit, or one a frame [T] at `rate` from `start_s` on."""

    logits: float | Tensor
    start_s: float = 0.0
    rate: float = 1.0

    def open(self, threshold: float, frames: Frames) -> Tensor:
        """Whether it is open at the frames of an edit, [1] or [T]; before and after its own frames as at their ends."""
        if isinstance(self.logits, float):
            return torch.tensor([self.logits > threshold])
        # 0.29 s * 100 Hz is 28.999999999999996
        index_T = ((frames.time_T - self.start_s) * self.rate + 1e-6).floor().long().clamp(0, len(self.logits) - 1)
        return self.logits[index_T] > threshold


class Decider:
    """A gate at a model. `note` takes what passes at the gate's site, `at` says where the gate is open.

    `edited` are the sites of the edits that ask.

    Raises:
        EditError: the gate does not fit the model or the SAE, or an edit's site has no time that it could ask for.
    """

    def __init__(self, gate: Gate, model: AudioModel, sae: EncodesAndDecodes | None, edited: Sequence[str]) -> None:
        self.gate, self.model, self.site = gate, model, model.site(gate.site)
        if self.site.frame_rate is None and model.sample_rate is not None:
            raise EditError(
                f"a gate reads at a site whose frames follow each other in time; {gate.site!r} has no frame rate "
                "(declare it, Site(frame_rate=...), where they do)"
            )
        if isinstance(gate.scope, float) and self.site.frame_rate is None:
            raise EditError(f"site {gate.site!r}: no frame rate is known there, so a gate's seconds have no meaning")
        for name in edited:
            if isinstance(gate.scope, float) and model.site(name).frame_rate is None:
                raise EditError(f"site {name!r} has no frame rate: an edit there takes a gate by clip or window")
        order = list(model.sites)
        self.beforehand = any(
            gate.site in order and name in order and order.index(name) < order.index(gate.site) for name in edited
        )
        self.read = ReadOut(gate.probe, sae)
        self._said: WeakKeyDictionary[Whole, tuple[Any, Said]] = WeakKeyDictionary()
        self._here = threading.local()

    # --- at the gate's site ---

    @torch.no_grad()
    def note(self, x_BTD: Tensor) -> None:
        """Take what passes; decide where that can be done from it."""
        if self.beforehand:
            return
        moment = now()
        if moment.wholes is None:
            if self.site.chunk_s is not None and moment.end_s is None:
                raise EditError(
                    f"{self.model.name} cuts its input into chunks, and a gate has to know where the sound ends: call "
                    "run or transcribe, or say it with at_time and sound_until"
                )
            real_BTD = self._sound(x_BTD, moment, None)
            rows = len(x_BTD) if self._decides(None, moment, x_BTD.shape[1]) else 0
            passes: dict[Any, list[Said]] = vars(self._here).setdefault("passes", {})
            passes[moment.start_s, moment.end_s] = [self._say(real_BTD[n : n + 1], moment) for n in range(rows)]
            while len(passes) > EARLIER:
                del passes[next(iter(passes))]
            return
        each = rows_each(x_BTD, moment.wholes, self.site)
        for number, whole in enumerate(moment.wholes):
            if self._decides(whole, moment, x_BTD.shape[1]):
                rows_ETD = x_BTD[number * each : (number + 1) * each]
                said = self._say(self._sound(rows_ETD, moment, whole), moment)
                self._said[whole] = (self._place(moment), said)

    def _sound(self, x_ETD: Tensor, moment: Moment, whole: Whole | None) -> Tensor:
        """The frames that hold sound."""
        end_s = whole.end_s if whole is not None and moment.end_s is None else moment.end_s
        with saying(end_s=end_s):
            return x_ETD[:, : real_frames(x_ETD.shape[1], self.site.frame_rate)]

    def _decides(self, whole: Whole | None, moment: Moment, frames: int) -> bool:
        """Whether a pass is all that the decision needs."""
        if self.gate.scope != "clip":
            return True
        if whole is None:
            return moment.start_s is None and self.site.chunk_s is None
        if whole in self._said or self.gate in whole.found:
            return False
        if whole.end_s is None:
            return False
        if moment.start_s is None:
            return self.site.chunk_s is None
        assert self.site.frame_rate is not None
        end_s = moment.start_s + (frames + 0.5) / self.site.frame_rate
        return moment.start_s <= whole.start_s and whole.end_s <= end_s

    def _say(self, x_ETD: Tensor, moment: Moment) -> Said:
        return self._of(self.read(x_ETD) if x_ETD.shape[1] else x_ETD, moment.start_s or 0.0)

    def _of(self, f_ETJ: Tensor, start_s: float) -> Said:
        if not f_ETJ.shape[1]:
            return Said(SHUT)
        if not isinstance(self.gate.scope, float):
            return Said(self.gate.probe.logit(f_ETJ))
        assert self.site.frame_rate is not None
        logits_T = self.gate.probe.logits(f_ETJ, self.gate.frames(self.site.frame_rate)).cpu()
        return Said(logits_T, start_s, self.site.frame_rate)

    def _place(self, moment: Moment) -> Any:
        return None if self.gate.scope == "clip" else (moment.start_s, moment.end_s)

    # --- at the edits ---

    @torch.no_grad()
    def at(self, x_BTD: Tensor, frames: Frames) -> Tensor:
        """Whether the gate is open, [B, T or 1, 1] on the CPU.

        Raises:
            EditError: it cannot be told: the gate's site was not passed before, and the whole sound is not known.
        """
        moment = now()
        said = (
            self._of_rows(moment)
            if moment.wholes is None
            else [self._of_whole(whole, moment, frames) for whole in moment.wholes]
        )
        each, rest = divmod(len(x_BTD), max(len(said), 1))
        if rest or not each:
            raise EditError(f"{len(said)} rows passed the gate at {self.gate.site!r}, {len(x_BTD)} are to be edited")
        open_ = [one.open(self.gate.threshold, frames) for one in said]
        length = max(map(len, open_))
        open_BT = torch.stack([one.expand(length) for one in open_]).repeat_interleave(each, dim=0)
        return open_BT[:, :, None]

    def _of_rows(self, moment: Moment) -> list[Said]:
        passes = vars(self._here).get("passes", {})
        said = passes.get((moment.start_s, moment.end_s))
        if said:
            return said
        if self.gate.scope == "clip" and (moment.start_s is not None or self.site.chunk_s is not None):
            raise EditError(
                f"a gate by clip needs to know the whole sound, and {self.model.name} gets a part here: call run or "
                "transcribe, or use scope='window' or a number of seconds"
            )
        raise EditError(
            f"the gate's site {self.gate.site!r} was not passed before the edit's: gate at that site or an earlier one"
        )

    def _of_whole(self, whole: Whole, moment: Moment, frames: Frames) -> Said:
        place, said = self._said.get(whole, (None, None))
        if said is not None and place == self._place(moment):
            return said
        if self.gate.scope != "window":
            if self.gate not in whole.found:
                whole.found[self.gate] = self._of(self._passed(whole), whole.start_s)
            return whole.found[self.gate]
        if self.gate.probe not in whole.found:
            whole.found[self.gate.probe] = self._passed(whole)
        f_ETJ = whole.found[self.gate.probe]
        assert self.site.frame_rate is not None
        start_s = whole.start_s if moment.start_s is None else moment.start_s
        first = round((start_s - whole.start_s) * self.site.frame_rate)
        seconds = self.site.chunk_s or frames.count / frames.rate
        return self._of(f_ETJ[:, first : first + round(seconds * self.site.frame_rate)], start_s)

    def _passed(self, whole: Whole) -> Tensor:
        """The gate's features [E, T, j] of a whole recording, passed for it without edits; T may be 0."""
        if whole.again is None:
            raise EditError(
                f"the gate at {self.gate.site!r} needs to know the sound before it is there (scope {self.gate.scope}): "
                "in a stream use a gate at the edit's site or an earlier one, by window or by seconds"
            )
        passed: list[Tensor] = []

        def note(x_ETD: Tensor) -> None:
            moment, real_ETD = now(), self._sound(x_ETD, now(), whole)
            if moment.start_s is not None and self.site.frame_rate is not None:
                # where windows overlap, frames that are there already are left out
                known_s = whole.start_s + sum(one.shape[1] for one in passed) / self.site.frame_rate
                real_ETD = real_ETD[:, max(0, round((known_s - moment.start_s) * self.site.frame_rate)) :]
            if real_ETD.shape[1]:
                passed.append(self.read(real_ETD))

        # seeded: what is drawn at random afterwards is what it would have been
        alone = saying(start_s=whole.start_s, end_s=None, carry=None, rows=None, wholes=None)
        with unhooked(), alone, seeded(0, self.model.device), attach(self.model.module, self.site, note):
            whole.again()
        return torch.cat(passed, dim=1) if passed else torch.zeros(1, 0, 1)


class ReadOut:
    """The features [E, T, j] that a probe reads, of activations [E, T, D]: of an SAE, at a cost of their own where its
    activation allows that, or the activations themselves.

    Raises:
        EditError: there is no SAE for a probe of features, or not with these features.
    """

    def __init__(self, probe: GateProbe, sae: EncodesAndDecodes | None) -> None:
        self.probe, self.sae = probe, sae
        if probe.features is None:
            return
        if sae is None:
            raise EditError(f"the gate reads features at {probe.site!r}, where there is no SAE")
        d_sae = getattr(sae, "d_sae", None) or getattr(getattr(sae, "cfg", None), "d_sae", None)
        self.features_J = torch.tensor(probe.features)
        if d_sae is not None:
            check_features(self.features_J, int(d_sae))
        self.all = d_sae is not None and tuple(probe.features) == tuple(range(int(d_sae)))
        self._gather()

    def _gather(self) -> None:
        """Take the columns that are read, once, on the device where the SAE is."""
        self.picked = None
        if isinstance(self.sae, SAE) and not self.sae.rms_norm and not self.all:
            self.placed = self.sae.W_enc.device, self.sae.W_enc.dtype
            self.picked = self.sae.picked(self.features_J.to(self.sae.W_enc.device))

    def __call__(self, x_ETD: Tensor) -> Tensor:
        x_ETD = x_ETD.contiguous()  # so that products round the same whatever lies beside these rows
        if self.probe.features is None:
            width = self.probe.weights.shape[1]
            if x_ETD.shape[2] != width:
                raise EditError(
                    f"the gate reads activations {width} wide, but site {self.probe.site!r} is {x_ETD.shape[2]} wide"
                )
            return x_ETD.to(torch.promote_types(x_ETD.dtype, torch.float32))
        assert self.sae is not None
        if self.picked is None or not isinstance(self.sae, SAE):
            f_ETF = self.sae.encode(x_ETD)
            f_ETJ = f_ETF if self.all else f_ETF[..., self.features_J.to(f_ETF.device)]
        else:
            if self.placed != (self.sae.W_enc.device, self.sae.W_enc.dtype):
                self._gather()  # the model was moved, and its SAEs with it
            f_ETJ = self.picked(self.sae.normalized(x_ETD)[0])
        return f_ETJ.to(torch.promote_types(f_ETJ.dtype, torch.float32))


class Conditional:
    """Steps of an edit that act where a gate is open; elsewhere the activation stays as it is, bit for bit."""

    def __init__(self, steps: Sequence[Any], decider: Decider) -> None:
        self.steps, self.decider = list(steps), decider

    def __call__(self, x_BTD: Tensor, frames: Frames) -> Tensor:
        open_B11 = self.decider.at(x_BTD, frames)
        if not open_B11.any():
            return x_BTD
        new_BTD = x_BTD
        for step in self.steps:
            new_BTD = step(new_BTD, frames)
        return new_BTD if open_B11.all() else torch.where(open_B11.to(x_BTD.device), new_BTD, x_BTD)


def rows_each(x_BTD: Tensor, wholes: Sequence[Whole], site: Site) -> int:
    """How many rows each recording has. Raises EditError where they cannot be told apart."""
    each, rest = divmod(len(x_BTD), len(wholes))
    if rest or not each:
        raise EditError(f"site {site.name!r}: {len(x_BTD)} rows of {len(wholes)} sounds: a gate cannot tell them apart")
    return each
