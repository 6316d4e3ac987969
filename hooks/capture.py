"""`capture`: stream the activations of a model at some sites over many sounds, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from hooks.attach import at_time, attach
from hooks.errors import SiteError
from hooks.model import AudioModel, Source
from hooks.padding import real_frames
from hooks.registry import wrap_model
from hooks.site import Site


@dataclass(frozen=True)
class Captured:
    """Activations {site: [B, T, D]} of one sound, or of one stretch of a long one that starts at `start_s` seconds."""

    source: Source
    start_s: float
    activations: dict[str, Tensor]


class Recorder:
    """Collects what passes at sites while it is open; several passes at one site are put one behind the other.

    Frames of padding, where the model says what they are, are left out.
    """

    def __init__(self, model: nn.Module, sites: Sequence[Site]) -> None:
        self.model, self.sites = model, sites
        self._seen: dict[str, list[Tensor]] = {site.name: [] for site in sites}
        self._stack = ExitStack()

    def __enter__(self) -> Recorder:
        with ExitStack() as stack:
            for site in self.sites:
                stack.enter_context(attach(self.model, site, partial(self._note, site)))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def _note(self, site: Site, x_BTD: Tensor) -> None:
        # cloned: several models change their activations in place later on
        real_BTD = x_BTD[:, : real_frames(x_BTD.shape[1], site.frame_rate)]
        self._seen[site.name].append(real_BTD.detach().clone())

    def take(self) -> dict[str, Tensor]:
        """What was seen since the last call, {site: [B, T, D]}.

        Raises:
            SiteError: a site was not passed.
        """
        taken = {}
        for name, seen in self._seen.items():
            if not seen:
                raise SiteError(f"site {name!r} was not passed: the model's forward does not call its module")
            taken[name] = torch.cat(seen, dim=1) if len(seen) > 1 else seen[0]
            seen.clear()
        return taken


@torch.no_grad()
def capture(
    model: AudioModel | nn.Module, sources: Iterable[Source], sites: Sequence[str], max_s: float = 30.0
) -> Iterator[Captured]:
    """Run sounds through a model one by one and give what passes at `sites`.

    Sounds longer than `max_s` seconds are cut into stretches of that length.

    Raises:
        SiteError: an unknown site, or one that the model does not pass.
        AudioFileError: a sound cannot be read.
    """
    model = wrap_model(model)
    for source in sources:
        audio_BCN = model.prepare(source)
        assert model.sample_rate is not None
        length = max(1, round(max_s * model.sample_rate))
        for start in range(0, audio_BCN.shape[-1], length):
            start_s = start / model.sample_rate
            with Recorder(model.module, [model.site(name) for name in sites]) as recorder, at_time(start_s):
                model.run(audio_BCN[..., start : start + length])
            yield Captured(source, start_s, recorder.take())
