"""`SteeredModel.trace`: sites, features and edits by their names inside an nnsight trace (arXiv 2407.14561).

nnsight compiles the body of the with-block and runs it in turns with the model: where the body asks for a value it
waits until the model is there. A site is served to it by a hook of ours and not by the envoy of its module, so that
layout, port and element are those of the `Site`, edits that are active around the trace are in what is read, and
nothing stays on the module. The body has a context of its own, the model keeps the caller's: only what runs on the
model's side may ask for the time or hold edits.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from types import CodeType
from typing import Any, Protocol

import nnsight
import torch
from nnsight.intervention.eproperty import eproperty
from nnsight.intervention.interleaver import Interleaver, Mediator
from nnsight.intervention.tracer import InterleavingTracer
from torch import Tensor, nn

from hooks import AudioModel, ModelError, Site, SiteError, attach
from steer.decoding import moved
from steer.delta import Mode
from steer.edits import Edit
from steer.errors import EditError, SAEError
from steer.sae import EncodesAndDecodes


class Steered(Protocol):
    """What a trace needs of a `SteeredModel`."""

    model: AudioModel
    saes: dict[str, EncodesAndDecodes]
    sites: dict[str, Site]

    def changes(
        self,
        *edits: Edit | Mapping[str, Edit | Sequence[Edit]],
        site: str | None = None,
        mode: Mode = "delta",
        padding: bool = True,
    ) -> dict[str, Callable[[Tensor], Tensor]]: ...


class TracedSite:
    """A site inside a trace: its activation and its features can be read, changed in place and assigned.

    Both are copies, which the model does not change later on. A change in place is taken over when the body asks for
    something else; until then the same value is given again, so save a clone of what is changed afterwards. Gradients
    (nnsight's `with loss.backward():`) reach both.
    """

    def __init__(self, site: Site, sae: EncodesAndDecodes | None, interleaver: Interleaver) -> None:
        self.site, self.sae, self.interleaver = site, sae, interleaver
        self.path = f"sites.{site.name}"  # the name of this place in nnsight's errors

    def _read(self, x_BTD: Tensor) -> Tensor:
        return x_BTD.clone()

    def _put_back(self, view_BTD: Tensor, x_BTD: Tensor) -> Tensor:
        return view_BTD.clone()

    def _assign(self, value_BTD: Tensor) -> Tensor:
        return self._fitting(value_BTD, self._present(), "activation")

    activation: Any = eproperty("activation")(_read).transform(_put_back).postprocess(_assign)
    """The activation [B, T, D] at the present pass."""

    def _read_features(self, x_BTD: Tensor) -> Tensor:
        return self._encode(x_BTD).clone()

    def _put_back_features(self, new_BTF: Tensor, x_BTD: Tensor) -> Tensor:
        f_BTF = self._encode(x_BTD)
        if torch.equal(f_BTF, new_BTF) and not new_BTF.requires_grad:
            return x_BTD
        assert self.sae is not None
        # where nothing was changed this adds zeros, but lets gradients reach the features
        return (x_BTD + moved(self.sae, new_BTF, f_BTF, x_BTD)).to(x_BTD.dtype)

    def _assign_features(self, value_BTF: Tensor) -> Tensor:
        # takes the place of changes to features that were read at the same pass
        mediator = Mediator.current(self.path)
        place = (type(self).features, self._location, mediator.wanted(self._location))
        if mediator.transform is not None and mediator.transform.key == place:
            mediator.transform = None
        x_BTD = self._present()
        return self._put_back_features(self._fitting(value_BTF, self._encode(x_BTD), "features"), x_BTD)

    features: Any = eproperty("activation")(_read_features).transform(_put_back_features).postprocess(_assign_features)
    """The features [B, T, d_sae] at the present pass.

    Changed or assigned, x becomes x + decode(f') - decode(f): what the SAE cannot explain stays. Values are taken as
    they are, also where the SAE normalises its own.
    """

    @property
    def _location(self) -> str:
        return f"{self.path}.activation"

    def _present(self) -> Tensor:
        return Mediator.value(self._location)

    def _encode(self, x_BTD: Tensor) -> Tensor:
        if self.sae is None:
            raise SAEError(f"site {self.site.name!r} has no SAE, so there are no features; use its activation")
        return self.sae.encode(x_BTD)

    def _fitting(self, value: Tensor, old: Tensor, what: str) -> Tensor:
        if not isinstance(value, Tensor) or value.shape != old.shape:
            found = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise EditError(f"site {self.site.name!r}: {what} is a tensor {list(old.shape)}, not {found}")
        return value.to(old)


class TracedSites(dict[str, TracedSite]):
    """All named sites of a model.

    Raises:
        SiteError: where another one is asked for.
    """

    def __init__(self, steered: Steered, interleaver: Interleaver) -> None:
        sites = {**steered.model.sites, **steered.sites}
        super().__init__({name: TracedSite(site, steered.saes.get(name), interleaver) for name, site in sites.items()})
        self._model = steered.model

    def __missing__(self, name: str) -> TracedSite:
        self._model.site(name)
        raise SiteError(f"{name!r} is a module but no site of {self._model.name}: name it with wrap_model(model, Site)")


class SiteTracer(InterleavingTracer):
    """nnsight's tracer with `sites` by their names, and `edit`."""

    def __init__(self, steered: Steered, envoy: nnsight.Envoy, *args: Any, **kwargs: Any) -> None:
        super().__init__(envoy, *args, **kwargs)
        self.sites = TracedSites(steered, envoy.interleaver)
        self._steered = steered
        self._changes: dict[str, list[Callable[[Tensor], Tensor]]] = defaultdict(list)
        self._passed: set[str] = set()
        self._late: set[str] = set()

    def edit(
        self,
        *edits: Edit | Mapping[str, Edit | Sequence[Edit]],
        site: str | None = None,
        mode: Mode = "delta",
        padding: bool = True,
    ) -> None:
        """As `SteeredModel.edit`, from here to the end of the trace, at every pass of the site.

        Raises:
            EditError: as there; at the end of the trace, if the site had been passed before and was not passed again.
            SiteError: a direction at a module that is no named site.
        """
        for name, change in self._steered.changes(*edits, site=site, mode=mode, padding=padding).items():
            _ = self.sites[name]  # what is not there would never be served
            self._changes[name].append(change)
            if name in self._passed:
                self._late.add(name)

    def execute(self, code: CodeType) -> None:
        """What nnsight calls at the end of the with-block."""
        with ExitStack() as stack:
            for name, traced in self.sites.items():
                change = partial(self._serve, name, traced)
                stack.enter_context(attach(self._steered.model.module, traced.site, change))
            super().execute(code)
        if self._late:
            name = min(self._late)
            raise EditError(f"the edit at {name!r} did nothing: the model had passed it; edit earlier in the trace")

    def _serve(self, name: str, traced: TracedSite, x_BTD: Tensor) -> Tensor | None:
        changes = self._changes[name]
        self._passed.add(name)
        new_BTD, known = x_BTD, len(changes)
        for change in changes[:known]:
            new_BTD = change(new_BTD)
        new_BTD = TracedSite.activation.provide(traced, new_BTD)
        for change in changes[known:]:  # what the body has added while it was here
            new_BTD = change(new_BTD)
        self._late.discard(name)
        return None if new_BTD is x_BTD else new_BTD


def trace(steered: Steered, fn: str | Callable[..., Any] | None, *args: Any, **kwargs: Any) -> SiteTracer:
    """A trace of `fn` on the wrapper that the model came in, or on an empty one, which leaves the module alone."""
    if kwargs.get("remote"):
        raise ModelError("a trace with sites runs in this process: trace(remote=...) is for nnsight's own wrapper")
    envoy = steered.model.envoy
    if isinstance(fn, str):
        fn = getattr(steered, fn)
    if envoy is None:
        envoy, fn = nnsight.NNsight(nn.Module()), fn or steered.model
    return envoy.trace(*args, fn=fn, tracer_cls=partial(SiteTracer, steered), **kwargs)
