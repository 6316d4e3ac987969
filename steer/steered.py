"""`SteeredModel`: a model whose activations pass through SAEs where features are edited while it runs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any, overload

import torch
from torch import Tensor, nn

from hooks import AudioModel, Handle, Site, attach, wrap_model
from hooks.capture import Recorder
from hooks.errors import require
from hooks.gradients import gradients
from hooks.model import CHAINED, AnyKind, Source
from hooks.timing import current_time, real_frames
from steer.delta import Mode, Step, steps_of
from steer.edits import Edit, Frames
from steer.errors import EditError, SAEError
from steer.fit import misfit, prove, renamed, warn_of_foreign, width_of
from steer.gates import Gate
from steer.gating import Conditional, Decider
from steer.sae import SAE, EncodesAndDecodes

if TYPE_CHECKING:
    from steer.tracing import SiteTracer

SAEs = EncodesAndDecodes | Mapping[str, EncodesAndDecodes]


class EditHandle:
    """Edits that stay until `remove()`."""

    def __init__(self, handles: list[Handle]) -> None:
        self._handles = handles

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()


class SteeredModel(AnyKind):
    """A model and an SAE for one of its sites, or {site: SAE}; or none, for edits that need none (`AddDirection`).

    Calling it is the model's own forward, and every attribute that is not here is read and set as the model's own;
    inside `with steered.edit(...)` all of that runs edited, outside it is untouched, bit for bit. `site` may be left
    out where the SAE says where it belongs; SAEs are moved to the model's device. At a module of no known family, a
    site is a module path or a `Site`.

    With `check` (and a model that takes audio) every site is proven on a second of noise: it is passed, its width fits
    the SAE, and a change there changes the output. An SAE that says it was made for another model is warned of.

    Raises:
        SiteError: an unknown site, or one that fails its proof.
        SAEError: an SAE of another width, or one whose site is not known.
    """

    def __init__(
        self,
        model: AudioModel | nn.Module,
        sae: SAEs | None = None,
        site: str | Site | None = None,
        *,
        check: bool = True,
    ) -> None:
        self.model = wrap_model(model)
        if isinstance(site, Site):
            wrap_model(self.model, site)
            site = site.name
        if sae is None:
            sae = {}
        if not isinstance(sae, Mapping):
            site = site or getattr(getattr(sae, "info", None), "site", "")
            if not site:
                raise SAEError("it is not known where this SAE belongs: pass site=...")
            sae = {site: sae}
        self.saes: dict[str, EncodesAndDecodes] = dict(sae)
        self.sites = {name: self.model.site(name) for name in self.saes}
        for name, one in self.saes.items():
            warn_of_foreign(f"the SAE at {name!r}", getattr(getattr(one, "info", None), "model", ""), self.model)
            if isinstance(one, nn.Module):
                one.to(self.model.device)
        if check and self.sites and self.model.sample_rate is not None:
            prove(self.model, self.sites, self.saes)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.model(*args, **kwargs)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name == "model":
                raise AttributeError(name)
            if name in CHAINED:
                return partial(self._all, name)
            return getattr(self.model, name)

    def __setattr__(self, name: str, value: Any) -> None:
        mine = name in ("model", "saes", "sites") or hasattr(type(self), name)
        if mine or not hasattr(self.model, name):
            object.__setattr__(self, name, value)
        else:
            setattr(self.model, name, value)

    def _all(self, method: str, *args: Any, **kwargs: Any) -> SteeredModel:
        """A method of `nn.Module` for the model and for its SAEs."""
        for one in (self.model, *self.saes.values()):
            if isinstance(one, AudioModel | nn.Module):
                getattr(one, method)(*args, **kwargs)
        return self

    def to(self, *args: Any, **kwargs: Any) -> SteeredModel:
        """Put the model and its SAEs on a device, in a dtype or both, as `nn.Module.to`; edits that are on come along.

        An SAE that shall keep more digits than the model is put back by itself: `steered.saes[site].float()`.
        """
        return self._all("to", *args, **kwargs)

    def __repr__(self) -> str:
        return f"SteeredModel({self.model.name!r}, sites {', '.join(self.sites)})"

    # --- edits ---

    def apply(
        self,
        *edits: Edit | Mapping[str, Edit | Sequence[Edit]],
        site: str | None = None,
        mode: Mode = "delta",
        padding: bool = True,
        when: Gate | None = None,
    ) -> EditHandle:
        """Turn edits on in the whole process until the handle's `remove()`: in every thread and task, those that start
        later among them (a server's, a streamer's, the next notebook cell's).

        With SAEs at several sites say which with `site`, or pass {site: edit or [edits]}; an `AddDirection` may be at
        any site of the model. Edits of a site act in their order. `mode="reconstruct"` puts
        decode(f') in place of the activation, so that what the SAE cannot explain is lost. `padding=False` leaves the
        frames of a model's window that hold no sound as they are.

        With a gate `when`, edits act only where it is open (`steer.gates`); an edit's own `when` goes before it. Where
        it is shut the activation is the model's own, bit for bit. The gate reads what reaches its site. Decisions that
        need a pass of their own are made without edits. Edits of features behind different gates encode one after
        another.

        Raises:
            EditError: a feature that is not there, an edit of features at a site without an SAE, or a gate that does
                not fit.
            SiteError: no such site.
        """
        return self._attached(self.changes(*edits, site=site, mode=mode, padding=padding, when=when), everywhere=True)

    def _attached(self, changes: Mapping[str, Callable[[Tensor], Tensor]], everywhere: bool) -> EditHandle:
        if in_trace():
            raise EditError("inside a trace edits are made with tracer.edit(...), or with steered.edit(...) around it")
        handles: list[Handle] = []
        for name, change in changes.items():
            try:
                same_is_none = partial(changed, change)
                handles.append(attach(self.model.module, self.model.site(name), same_is_none, everywhere=everywhere))
            except BaseException:
                EditHandle(handles).remove()
                raise
        return EditHandle(handles)

    @contextmanager
    def edit(
        self,
        *edits: Edit | Mapping[str, Edit | Sequence[Edit]],
        site: str | None = None,
        mode: Mode = "delta",
        padding: bool = True,
        when: Gate | None = None,
    ) -> Iterator[SteeredModel]:
        """Turn edits on for the length of a with-block, in this thread (or task) alone; as `apply` in all else.

        Others that run the same model meanwhile do not see them; threads that start inside are others too.
        """
        handle = self._attached(
            self.changes(*edits, site=site, mode=mode, padding=padding, when=when), everywhere=False
        )
        try:
            yield self
        finally:
            handle.remove()

    def changes(
        self,
        *edits: Edit | Mapping[str, Edit | Sequence[Edit]],
        site: str | None = None,
        mode: Mode = "delta",
        padding: bool = True,
        when: Gate | None = None,
    ) -> dict[str, Callable[[Tensor], Tensor]]:
        """What `apply` attaches, {site: change}; a site where only a gate reads is among them."""
        chosen = {
            name: [edit if when is None or edit.when else edit.conditional(when) for edit in some]
            for name, some in self._by_site(edits, site, mode).items()
            if some or mode == "reconstruct"
        }
        deciders = self._deciders(chosen, when)
        changes = {}
        for name, some in chosen.items():
            for edit in some:
                warn_of_foreign(f"the vector of an edit at {name!r}", getattr(edit, "made_for", ""), self.model)
            try:
                steps = self._steps(name, some, mode, when, deciders)
            except EditError as error:
                raise EditError(f"{error}{renamed(self.model, self.saes.get(name), some)}") from error
            changes[name] = self._change(name, steps, any(edit.timed for edit in some), padding)
        for decider in deciders.values():
            if not decider.beforehand:
                changes[decider.site.name] = partial(noted, decider, changes.get(decider.site.name))
        return changes

    def _deciders(self, chosen: Mapping[str, Sequence[Edit]], when: Gate | None) -> dict[Gate, Decider]:
        """One for each gate of the edits of some sites."""
        asked: dict[Gate, list[str]] = {}
        for name, some in chosen.items():
            for gate in [edit.when for edit in some] or [when]:
                if gate is not None:
                    asked.setdefault(gate, []).append(name)
        for gate in asked:
            warn_of_foreign(f"the gate at {gate.site!r}", gate.probe.model, self.model)
        return {gate: Decider(gate, self.model, self.saes.get(gate.site), names) for gate, names in asked.items()}

    def _steps(
        self, name: str, some: Sequence[Edit], mode: Mode, when: Gate | None, deciders: Mapping[Gate, Decider]
    ) -> list[Step]:
        """The edits of a site in their order; those behind one gate that follow each other are one step."""
        runs = [(gate, list(run)) for gate, run in groupby(some, lambda edit: edit.when)] or [(when, [])]
        if mode == "reconstruct" and len(runs) > 1:
            raise EditError("mode='reconstruct' takes one gate for all edits of a site, or none")
        steps: list[Step] = []
        for gate, run in runs:
            own = steps_of(self.saes.get(name), [edit.conditional(None) for edit in run], mode)
            steps += own if gate is None else [Conditional(own, deciders[gate])]
        return steps

    def _by_site(self, edits: tuple[Any, ...], site: str | None, mode: Mode) -> dict[str, list[Edit]]:
        # reconstruction without edits is a measurement of its own, at every site
        chosen: dict[str, list[Edit]] = (
            {name: [] for name in self.saes} if mode == "reconstruct" and site is None else {}
        )
        for edit in edits:
            if isinstance(edit, Mapping):
                several = {name: some if isinstance(some, Sequence) else [some] for name, some in edit.items()}
                pairs = [(name, one) for name, some in several.items() for one in some]
            else:
                if site is None and len(self.saes) != 1:
                    raise EditError(f"this model has SAEs at {self._with_saes()}: say which site with site=...")
                pairs = [(site or next(iter(self.saes)), edit)]
            for name, one in pairs:
                if not isinstance(one, Edit):
                    raise EditError(f"an edit is an Ablate, a Shift or another Edit, not {type(one).__name__}")
                if name not in self.saes and one.of_features:
                    raise EditError(f"there is no SAE at {name!r}; there are SAEs at {self._with_saes()}")
                chosen.setdefault(name, []).append(one)
        return chosen

    def _with_saes(self) -> str:
        return ", ".join(self.saes) or "no site"

    def _change(self, name: str, steps: Sequence[Step], timed: bool, padding: bool) -> Callable[[Tensor], Tensor]:
        site = self.model.site(name)
        width = width_of(self.saes[name]) if name in self.saes else None

        def change(x_BTD: Tensor) -> Tensor:
            if width not in (None, x_BTD.shape[2]):
                raise misfit(self.model, name, self.saes[name], x_BTD.shape[2])
            start_s = current_time()
            if timed and site.frame_rate is None:
                raise EditError(
                    f"site {name!r}: no frame rate is known there, so `during` and curves have no meaning "
                    "(declare it, Site(frame_rate=...), where frames follow each other in time)"
                )
            if timed and site.chunk_s is not None and start_s is None:
                raise EditError(
                    f"{self.model.name} cuts its input into chunks: for edits with `during` or curves "
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

    # --- reading ---

    @overload
    def features(self, source: Source, *, grad: bool = False) -> dict[str, Tensor]: ...
    @overload
    def features(self, source: list[Source], *, grad: bool = False) -> list[dict[str, Tensor]]: ...
    def features(
        self, source: Source | list[Source], *, grad: bool = False
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """Features of a sound at every site, {site: [1, T, d_sae]}; of a list of sounds a list of these.

        Edits that are active in this context are in what later sites see. With `grad` gradients are kept, as in `run`.

        Raises:
            AudioFileError: a sound that cannot be read, or something else than a sound.
        """
        if isinstance(source, list):
            return [self.features(one, grad=grad) for one in source]
        audio_BCN = self.model.prepare(source)
        with gradients(grad):
            with Recorder(self.model.module, list(self.sites.values())) as recorder:
                self.model.run(audio_BCN)
            return {name: self.saes[name].encode(x_BTD) for name, x_BTD in recorder.take().items()}

    # --- nnsight ---

    def trace(self, *args: Any, fn: str | Callable[..., Any] | None = None, **kwargs: Any) -> SiteTracer:
        """An nnsight trace, `with steered.trace(x) as tracer:`, in whose body sites have their names.

        `tracer.sites[NAME].activation` and `.features` can be read (`.save()` keeps them), changed in place and
        assigned; `tracer.edit` is `edit` from there to the end of the trace, and edits around a trace hold in it. All
        else is nnsight's, `tracer.result` among it. `fn` is what runs, by default the model's forward: a method of the
        model (`"run"`, `"generate"`, `"transcribe"`) or a callable. Beside the sites, the envoys of a model that was
        handed over in an nnsight wrapper (or was given one, `model.envoy = NNsight(model.module)`) can be used.

        The body asks in the order in which the model passes, each time for the first pass; where a site is passed
        several times (chunks, tokens) `for step in tracer.iter[:]` takes them one by one. nnsight reads the body's
        source: it has to stand in a file, a notebook cell or `python -c`. A plain module can be traced in several
        threads, one nnsight wrapper in one at a time.

        Raises:
            MissingExtraError: nnsight is not installed.
            SiteError, SAEError, EditError: in the body: an unknown site, no SAE there, a value of another shape.
        """
        require("nnsight", "nnsight")
        from steer.tracing import trace

        return trace(self, fn, *args, **kwargs)


def changed(change: Callable[[Tensor], Tensor], x_BTD: Tensor) -> Tensor | None:
    """None where a change leaves the activation alone: then the module's own output is not even copied."""
    new_BTD = change(x_BTD)
    return None if new_BTD is x_BTD else new_BTD


def noted(decider: Decider, change: Callable[[Tensor], Tensor] | None, x_BTD: Tensor) -> Tensor:
    """What a change gives, once a gate has read the activation."""
    decider.note(x_BTD)
    return x_BTD if change is None else change(x_BTD)


def in_trace() -> bool:
    """Whether the body of an nnsight trace runs: it has a context of its own, so edits made there would not be seen."""
    greenlet = sys.modules.get("greenlet")
    return greenlet is not None and hasattr(greenlet.getcurrent(), "mediator")


__all__ = ["SAE", "EditHandle", "SteeredModel"]
