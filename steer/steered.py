"""`SteeredModel`: a model whose activations pass through SAEs where features are edited while it runs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, overload

from torch import Tensor, nn

from hooks import AudioModel, Handle, Site, attach, wrap_model
from hooks.capture import Recorder
from hooks.errors import require
from hooks.gradients import gradients
from hooks.model import CHAINED, AnyKind, Source
from steer.changes import Change, Edits, changes_of
from steer.delta import Mode
from steer.errors import EditError, SAEError
from steer.fit import prove, warn_of_foreign
from steer.gates import Gate
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
        *edits: Edits,
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

    def _attached(self, changes: Mapping[str, Change], everywhere: bool) -> EditHandle:
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
        *edits: Edits,
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
        *edits: Edits,
        site: str | None = None,
        mode: Mode = "delta",
        padding: bool = True,
        when: Gate | None = None,
    ) -> dict[str, Change]:
        """What `apply` attaches, {site: change}; a site where only a gate reads is among them."""
        return changes_of(self.model, self.saes, edits, site, mode, padding, when)

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


def changed(change: Change, x_BTD: Tensor) -> Tensor | None:
    """None where a change leaves the activation alone: then the module's own output is not even copied."""
    new_BTD = change(x_BTD)
    return None if new_BTD is x_BTD else new_BTD


def in_trace() -> bool:
    """Whether the body of an nnsight trace runs: it has a context of its own, so edits made there would not be seen."""
    greenlet = sys.modules.get("greenlet")
    return greenlet is not None and hasattr(greenlet.getcurrent(), "mediator")


__all__ = ["SAE", "EditHandle", "SteeredModel"]
