"""From edits to what is attached at the sites of a model: {site: change}."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import groupby

import torch
from torch import Tensor

from hooks import AudioModel
from hooks.timing import current_time, real_frames
from steer.delta import Mode, Step, steps_of
from steer.edits import Edit
from steer.errors import EditError
from steer.fit import misfit, renamed, warn_of_foreign, width_of
from steer.gates import Gate
from steer.gating import Conditional, Decider
from steer.sae import EncodesAndDecodes
from steer.values import Frames

Edits = Edit | Mapping[str, Edit | Sequence[Edit]]
"""One edit, or {site: edit or [edits]}."""
SAEs = Mapping[str, EncodesAndDecodes]
Change = Callable[[Tensor], Tensor]


def changes_of(
    model: AudioModel,
    saes: SAEs,
    edits: Sequence[Edits],
    site: str | None = None,
    mode: Mode = "delta",
    padding: bool = True,
    when: Gate | None = None,
) -> dict[str, Change]:
    """What `SteeredModel.apply` attaches, {site: change}; a site where only a gate reads is among them.

    Raises:
        EditError, SiteError: as there.
    """
    chosen = {
        name: [edit if when is None or edit.when else edit.conditional(when) for edit in some]
        for name, some in by_site(edits, saes, site, mode).items()
        if some or mode == "reconstruct"
    }
    deciders = deciders_of(model, saes, chosen, when)
    changes = {}
    for name, some in chosen.items():
        for edit in some:
            warn_of_foreign(f"the vector of an edit at {name!r}", getattr(edit, "made_for", ""), model)
        try:
            steps = steps_at(saes.get(name), some, mode, when, deciders)
        except EditError as error:
            raise EditError(f"{error}{renamed(model, saes.get(name), some)}") from error
        changes[name] = change_at(model, saes, name, steps, any(edit.timed for edit in some), padding)
    for decider in deciders.values():
        if not decider.beforehand:
            changes[decider.site.name] = partial(noted, decider, changes.get(decider.site.name))
    return changes


def by_site(edits: Sequence[Edits], saes: SAEs, site: str | None, mode: Mode) -> dict[str, list[Edit]]:
    """{site: edits in their order}."""
    with_saes = ", ".join(saes) or "no site"
    chosen: dict[str, list[Edit]] = {}
    if mode == "reconstruct":  # without edits it is a measurement of its own
        if site is not None and site not in saes and not edits:
            raise EditError(f"there is no SAE at {site!r}; there are SAEs at {with_saes}")
        chosen = {name: [] for name in saes if site in (None, name)}
    for edit in edits:
        if isinstance(edit, Mapping):
            several = {name: some if isinstance(some, Sequence) else [some] for name, some in edit.items()}
            pairs = [(name, one) for name, some in several.items() for one in some]
        else:
            if site is None and len(saes) != 1:
                raise EditError(f"this model has SAEs at {with_saes}: say which site with site=...")
            pairs = [(site or next(iter(saes)), edit)]
        for name, one in pairs:
            if not isinstance(one, Edit):
                raise EditError(f"an edit is an Ablate, a Shift or another Edit, not {type(one).__name__}")
            if name not in saes and one.of_features:
                raise EditError(f"there is no SAE at {name!r}; there are SAEs at {with_saes}")
            chosen.setdefault(name, []).append(one)
    return chosen


def deciders_of(
    model: AudioModel, saes: SAEs, chosen: Mapping[str, Sequence[Edit]], when: Gate | None
) -> dict[Gate, Decider]:
    """One for each gate of the edits of some sites."""
    asked: dict[Gate, list[str]] = {}
    for name, some in chosen.items():
        for gate in [edit.when for edit in some] or [when]:
            if gate is not None:
                asked.setdefault(gate, []).append(name)
    for gate in asked:
        warn_of_foreign(f"the gate at {gate.site!r}", gate.probe.model, model)
    return {gate: Decider(gate, model, saes.get(gate.site), names) for gate, names in asked.items()}


def steps_at(
    sae: EncodesAndDecodes | None,
    some: Sequence[Edit],
    mode: Mode,
    when: Gate | None,
    deciders: Mapping[Gate, Decider],
) -> list[Step]:
    """The edits of a site in their order; those behind one gate that follow each other are one step."""
    runs = [(gate, list(run)) for gate, run in groupby(some, lambda edit: edit.when)] or [(when, [])]
    if mode == "reconstruct" and len(runs) > 1:
        raise EditError("mode='reconstruct' takes one gate for all edits of a site, or none")
    steps: list[Step] = []
    for gate, run in runs:
        own = steps_of(sae, [edit.conditional(None) for edit in run], mode)
        steps += own if gate is None else [Conditional(own, deciders[gate])]
    return steps


def change_at(model: AudioModel, saes: SAEs, name: str, steps: Sequence[Step], timed: bool, padding: bool) -> Change:
    """The steps one after another, on the frames that they are meant for."""
    site = model.site(name)
    width = width_of(saes[name]) if name in saes else None

    def change(x_BTD: Tensor) -> Tensor:
        if width not in (None, x_BTD.shape[2]):
            raise misfit(model, name, saes[name], x_BTD.shape[2])
        start_s = current_time()
        if timed and site.frame_rate is None:
            raise EditError(
                f"site {name!r}: no frame rate is known there, so `during` and curves have no meaning "
                "(declare it, Site(frame_rate=...), where frames follow each other in time)"
            )
        if timed and site.chunk_s is not None and start_s is None:
            raise EditError(
                f"{model.name} cuts its input into chunks: for edits with `during` or curves "
                "call run, transcribe or resynthesize, or say the time with at_time"
            )
        count = x_BTD.shape[1] if padding else real_frames(x_BTD.shape[1], site.frame_rate)
        if not count:
            return x_BTD
        sound_BTD = x_BTD if count == x_BTD.shape[1] else x_BTD[:, :count]
        frames = Frames.of(sound_BTD, site.frame_rate or 1.0, start_s or 0.0)
        edited_BTD = sound_BTD
        for step in steps:
            edited_BTD = step(edited_BTD, frames)
        return edited_BTD if sound_BTD is x_BTD else torch.cat([edited_BTD, x_BTD[:, count:]], dim=1)

    return change


def noted(decider: Decider, change: Change | None, x_BTD: Tensor) -> Tensor:
    """What a change gives, once a gate has read the activation."""
    decider.note(x_BTD)
    return x_BTD if change is None else change(x_BTD)
