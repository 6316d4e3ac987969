"""`capture`: stream the activations of a model at some sites over many sounds, in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from hooks.attach import attach
from hooks.errors import AudioSteerError, SiteError
from hooks.gradients import gradients, gradients_kept
from hooks.model import AudioModel, Source
from hooks.registry import wrap_model
from hooks.site import Site, names_of
from hooks.timing import Whole, at_time, now, real_frames, saying, whole_sounds

AHEAD = 8
"""So many batches are read ahead to find stretches of equal length."""


@dataclass(frozen=True, eq=False)
class Captured:
    """Activations {site: [B, T, D]} of one sound, or of one stretch of a long one that starts at `start_s` seconds.

    `last` says whether the sound ends with it.
    """

    source: Source
    start_s: float
    activations: dict[str, Tensor]
    last: bool = True


class Recorder:
    """Collects what passes at sites while it is open; several passes at one site are put one behind the other.

    Frames of padding, where the model says what they are, are left out. Gradients are kept where `gradients` asks for
    them. Rows that have different times (`rows_at`)
    cannot be one tensor, and raise a SiteError.
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
        rows = now().rows
        if rows is not None and len(rows.groups) > 1:
            raise SiteError(
                f"site {site.name!r}: rows that start or end at different seconds cannot be recorded as one tensor; "
                "record the sounds one by one"
            )
        real_BTD = x_BTD[:, : real_frames(x_BTD.shape[1], site.frame_rate)]
        # cloned: several models change their activations in place later on
        self._seen[site.name].append(real_BTD.clone() if gradients_kept() else real_BTD.detach().clone())

    def take(self) -> dict[str, Tensor]:
        """What was seen since the last call, {site: [B, T, D]}.

        Raises:
            SiteError: a site was not passed, or with another number of rows each time.
        """
        taken = {}
        for name, seen in self._seen.items():
            if not seen:
                raise SiteError(f"site {name!r} was not passed: the model's forward does not call its module")
            if len({len(x_BTD) for x_BTD in seen}) > 1:
                raise SiteError(
                    f"site {name!r}: passed with {', '.join(str(len(x_BTD)) for x_BTD in seen)} rows, "
                    "which cannot be put one behind the other"
                )
            taken[name] = torch.cat(seen, dim=1) if len(seen) > 1 else seen[0]
            seen.clear()
        return taken


@dataclass(eq=False)
class _Stretch:
    """A stretch of a sound, before and after its run."""

    source: Source
    start_s: float
    audio_BCN: Tensor
    last: bool
    activations: dict[str, Tensor] | None = None

    @property
    def alike(self) -> tuple[float, torch.Size]:
        """Stretches of which this is the same can run beside each other as rows of a batch."""
        return self.start_s, self.audio_BCN.shape


def capture(
    model: AudioModel | nn.Module,
    sources: Iterable[Source],
    sites: str | Sequence[str],
    max_s: float = 30.0,
    batch: int = 1,
    *,
    grad: bool = False,
) -> Iterator[Captured]:
    """Run sounds through a model and give what passes at `sites` (or at the only one), sound by sound.

    A module of the user's own is put into evaluation mode for as long as sounds are taken.

    Sounds longer than `max_s` seconds are cut into stretches of that length. With `batch` up to so many stretches of
    equal length run at once, to which end `AHEAD` times as many are read ahead; rows of a batch do not see each other,
    but may round in another order than alone. With `grad` the activations keep their gradients, as in `AudioModel.run`,
    and with these all that the model computed for as long as they are held; stretches that ran at once have one graph.

    Raises:
        SiteError: an unknown site, or one that the model does not pass.
        AudioFileError: a sound cannot be read; those before it are given first.
    """
    with wrapped(model) as model:
        yield from captured(model, sources, [model.site(name) for name in names_of(sites)], max_s, batch, grad)


@contextmanager
def wrapped(model: AudioModel | nn.Module) -> Iterator[AudioModel]:
    """`wrap_model` for a while: a module of the user's own is in evaluation mode inside, and then as it was."""
    modes = {part: part.training for part in model.modules()} if isinstance(model, nn.Module) else {}
    try:
        yield wrap_model(model)
    finally:
        for part, mode in modes.items():
            part.training = mode


def captured(
    model: AudioModel, sources: Iterable[Source], chosen: Sequence[Site], max_s: float, batch: int, grad: bool = False
) -> Iterator[Captured]:
    coming: Iterator[_Stretch] | None = stretches(model, sources, max_s)
    error: AudioSteerError | None = None
    read: deque[_Stretch] = deque()
    while True:
        while coming is not None and len(read) < (AHEAD * batch if batch > 1 else 1):
            try:
                read.append(next(coming))
            except StopIteration:
                coming = None
            except AudioSteerError as found:
                coming, error = None, found
        if not read:
            break
        if read[0].activations is None:
            alike = [one for one in read if one.activations is None and one.alike == read[0].alike]
            run_beside(model, alike[:batch], chosen, grad)
        first = read.popleft()
        assert first.activations is not None
        yield Captured(first.source, first.start_s, first.activations, first.last)
    if error is not None:
        raise error


def stretches(model: AudioModel, sources: Iterable[Source], max_s: float) -> Iterator[_Stretch]:
    for source in sources:
        audio_BCN = model.prepare(source)
        assert model.sample_rate is not None
        length = max(1, round(max_s * model.sample_rate))
        for start in range(0, audio_BCN.shape[-1], length):
            end = start + length
            last = end >= audio_BCN.shape[-1]
            yield _Stretch(source, start / model.sample_rate, audio_BCN[..., start:end], last)


def row_whole(model: AudioModel, row: _Stretch) -> Whole:
    """The recording of a stretch, as far as it is known: a part of a longer one does not tell its end."""
    if row.start_s or not row.last:
        return Whole()
    assert model.sample_rate is not None
    return whole_sounds(row.audio_BCN, model.sample_rate, model.run)[0]


def run_beside(model: AudioModel, rows: Sequence[_Stretch], sites: Sequence[Site], grad: bool) -> None:
    """Run stretches that are alike as one batch."""
    audio_BCN, start_s = torch.cat([row.audio_BCN for row in rows]), rows[0].start_s
    wholes = tuple(row_whole(model, row) for row in rows)
    with gradients(grad), Recorder(model.module, sites) as recorder, at_time(start_s), saying(wholes=wholes):
        model.run(audio_BCN)
        taken = recorder.take()
    for number, row in enumerate(rows):
        # some sites have several rows for each of the batch, as one for each channel
        row.activations = {name: x_BTD.chunk(len(rows))[number] for name, x_BTD in taken.items()}
