"""`Editor`: a recipe with its model opened, ready to be done on sound files.

The change in the sound comes from features at a site and from nothing else. What is written is

    residual keep:  input + (edited round trip - plain round trip)
    residual drop:  edited round trip

where a round trip is: to the codec's rate, through the codec, back to the file's rate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from apps.excerpt import Stretch, choose, read_stretches
from apps.files import copy_file, kind_of
from apps.stream import CHUNK_S, in_chunks, resampled
from apps.trials import Memory, SiteEdits, Trials
from hooks import AudioFileError, ModelError
from hooks.clip import AudioInfo, audio_info, check_target, create_audio, read_blocks
from hooks.errors import require
from hooks.files import Stamp, stamp_of
from hooks.model import Codec
from steer.edits import Edit
from steer.errors import EditError
from steer.recipe import UNITS, Recipe
from steer.steered import SteeredModel
from steer.stream import Plan, Process, Queue, round_trip

BLOCK_S = 1.0
Report = Callable[[str, float], None]
"""Called with what is being done and how much of it is done, 0 to 1; what it raises ends the work."""


@dataclass(frozen=True)
class Outcome:
    """What became of one file. Changes are in dB, semitones and %, None where they cannot be measured.

    `measured` compares the output with what the file is without the edit: the input, or with residual `drop` the plain
    round trip; over `measured_s` seconds of it.
    """

    source: str
    target: str
    seconds: float
    requested: dict[str, float]
    measured: dict[str, float | None]
    measured_s: float
    met: bool
    strengths: dict[str, float] = field(default_factory=dict)
    clipped: int = 0
    unchanged: bool = False

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Excerpts:
    """A file before its edit: its header, where it shall go and of which `kind`, and what is tried and measured of it.

    `whole` says that this is all of it, and `stamp` tells whether it is still the same file.
    """

    info: AudioInfo
    target: Path
    kind: tuple[str, str]
    stamp: Stamp | None
    stretches: list[Stretch]
    whole: bool

    @property
    def same_kind(self) -> bool:
        return self.kind == (self.info.format, self.info.subtype)


@dataclass(frozen=True)
class Edited:
    """What became of it; `samples_CN` wait to be written."""

    excerpts: Excerpts
    outcome: Outcome
    samples_CN: Tensor | None


class _NoChange(Exception):
    """Leaves the writer, so that nothing is written: a copy of the input takes its place."""


class Editor:
    """Opens what a recipe names and checks it: edits that cannot be done are refused here, before any file.

    Files run through the codec in chunks of `chunk_s` seconds. `steered` is what the recipe names, where that is open
    already. Pitch takes longest to measure: without `pitch` it is, only where it is a goal.

    Raises:
        AudioSteerError: no such model, SAE, site, feature or vector; a model that is no codec; a pitch goal without the
            extra `eval`.
    """

    def __init__(
        self, recipe: Recipe, chunk_s: float = CHUNK_S, *, steered: SteeredModel | None = None, pitch: bool = True
    ) -> None:
        self.recipe = recipe
        self.steered = steered or recipe.open()
        if not isinstance(self.steered.model, Codec):
            raise ModelError(f"{recipe.model} is no codec: only a model that gives audio back can edit files")
        self.codec = self.steered.model
        self.plan = Plan.of(self.codec, chunk_s)
        self.vectors = recipe.control_vectors()
        self.pitch = pitch or "pitch" in recipe.wanted
        if "pitch" in recipe.wanted:
            require("torchcrepe", "eval")
        with self.steered.edit(recipe.edits_for(dict.fromkeys(recipe.wanted, 1.0), self.vectors)):
            pass

    # --- one file ---

    def edit_file(self, source: Path, target: Path, *, force: bool = False, report: Report | None = None) -> Outcome:
        """Edit one file of any length; the output has the rate, channels and, where the format is the same, subtype.

        Raises:
            AudioFileError: the source cannot be read, or the target exists (without `force`) or cannot be written.
            EditError: the edit blows the sound up.
        """
        check_target(target, force)
        return self.write(self.edit(self.read(source, target), force=force, report=report), force=force)

    def read(self, source: Path, target: Path) -> Excerpts:
        """The first of three steps, each of which can run on a thread of its own: all that is tried and measured.

        Raises:
            AudioFileError: as `edit_file`; or the file ends before the spans to edit begin.
        """
        stamp = stamp_of(source) if source.exists() else None
        info = audio_info(source)
        kind = kind_of(info, target)
        spans = choose(info, self.recipe.during)
        if not spans and self.recipe.wanted:
            raise AudioFileError(f"{source}: is over after {info.seconds:.2f} s, before the spans to edit begin")
        whole = spans == [(0.0, info.seconds)]
        return Excerpts(info, target, kind, stamp, read_stretches(info, spans, self.codec.context_s), whole)

    def edit(self, excerpts: Excerpts, *, force: bool = False, report: Report | None = None) -> Edited:
        """The second step: strengths are searched, and the sound is edited. One that is not in memory whole is read
        and written on the way.

        Raises:
            AudioFileError: as `edit_file`; or the source was changed while it was read.
            EditError: the edit blows the sound up.
        """
        report = report or (lambda stage, share: None)
        report("searching strengths" if self.recipe.wanted else "listening", 0.0)
        stretches, rate = excerpts.stretches, excerpts.info.sample_rate
        trials = Trials(self.recipe, self.vectors, self.render, stretches, rate, self.pitch)
        strengths = trials.search(lambda count: report(f"searching strengths, trial {count}", 0.0))
        edits = self.recipe.edits_for(strengths, self.vectors)
        samples_CN, clipped = None, 0
        if not edits and self.recipe.keeps_residual and excerpts.same_kind:
            unchanged = True
        elif excerpts.whole:
            report("editing", 0.0)
            samples_CN = trials.edited(strengths)
            unchanged = torch.equal(samples_CN, stretches[0].samples)
        else:
            clipped, unchanged = self._stream(excerpts, edits, force, report)
        if unchanged and self.recipe.keeps_residual:
            measured: dict[str, float | None] = dict.fromkeys(UNITS, 0.0)
        else:
            report("measuring", 1.0)
            measured = trials.changes(strengths)
        outcome = Outcome(
            str(excerpts.info.path),
            str(excerpts.target),
            excerpts.info.seconds,
            self.recipe.wanted,
            measured,
            trials.seconds,
            trials.met(measured),
            strengths,
            clipped,
            unchanged,
        )
        return Edited(excerpts, outcome, samples_CN)

    def write(self, edited: Edited, *, force: bool = False) -> Outcome:
        """The third step: what is in memory goes to the target, if it is not there yet.

        Raises:
            AudioFileError: as `edit_file`.
        """
        excerpts, outcome = edited.excerpts, edited.outcome
        info, target = excerpts.info, excerpts.target
        if outcome.unchanged and excerpts.same_kind:
            copy_file(info.path, target, force, excerpts.stamp)
        elif edited.samples_CN is not None:
            with create_audio(target, info.sample_rate, info.channels, *excerpts.kind, force=force) as writer:
                writer.write(edited.samples_CN)
            outcome = replace(outcome, clipped=writer.clipped)
        return outcome

    def _stream(self, excerpts: Excerpts, edits: SiteEdits, force: bool, report: Report) -> tuple[int, bool]:
        """Edit block by block from file to file; gives the count of clipped samples and whether nothing changed."""
        info, done, changed = excerpts.info, 0, False
        blocks = read_blocks(info, int(BLOCK_S * info.sample_rate), "float64")
        with (
            suppress(_NoChange),
            create_audio(excerpts.target, info.sample_rate, info.channels, *excerpts.kind, force=force) as writer,
        ):
            for before_CN, after_CN in self.render(blocks, info.sample_rate, edits):
                changed = changed or not torch.equal(before_CN, after_CN)
                writer.write(after_CN)
                done += after_CN.shape[1]
                report("editing", done / info.frames)
            if stamp_of(info.path) != excerpts.stamp:
                raise AudioFileError(f"{info.path}: was changed while it was read")
            if excerpts.same_kind and not changed:
                raise _NoChange
        return writer.clipped, not changed

    # --- samples ---

    def render(
        self,
        blocks: Iterable[Tensor],
        sample_rate: int,
        edits: SiteEdits,
        start_s: float = 0.0,
        memory: Memory | None = None,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Blocks [C, n] of a sound (float64, at `sample_rate` Hz) before and after, together as long as the input.

        `start_s` is the time of the first sample, for edits with `during`. A `memory` keeps the plain round trips, for
        further passes over the same blocks.
        """
        waiting: Queue | None = None
        keep = self.recipe.keeps_residual

        def noted() -> Iterator[Tensor]:
            nonlocal waiting
            for block_CN in blocks:
                waiting = waiting or Queue(block_CN.shape[0], torch.float64)
                waiting.add(block_CN)
                yield block_CN

        rate = self.codec.sample_rate
        assert rate is not None
        process = self._process(edits, start_s, memory)
        new_blocks = in_chunks(resampled(noted(), sample_rate, rate), self.plan, rate, process)
        for new_CN in resampled(new_blocks, rate, sample_rate):
            assert waiting is not None
            before_CN = waiting.take(new_CN.shape[1])
            new_CN = new_CN[:, : before_CN.shape[1]]
            if new_CN.shape[1]:
                yield before_CN, before_CN + new_CN if keep else new_CN
        if waiting is not None and waiting.end > waiting.start:
            # rates that do not divide each other: a sample or two may be missing at the end
            before_CN = waiting.take(waiting.end - waiting.start)
            yield before_CN, before_CN if keep else torch.zeros_like(before_CN)

    def _process(self, edits: SiteEdits, start_s: float, memory: Memory | None) -> Process:
        """What becomes of a chunk: its edited round trip, less the plain one where the residual is kept."""
        rate = self.codec.sample_rate
        assert rate is not None
        keep = self.recipe.keeps_residual
        every = [edit for some in edits.values() for edit in some]

        def plain(audio_CN: Tensor, at_s: float) -> Tensor:
            if memory is None:
                return self._round_trip(audio_CN, at_s, {})
            key = (at_s, audio_CN.shape[1])
            if key not in memory:
                memory[key] = self._round_trip(audio_CN, at_s, {})
            return memory[key]

        def process(audio_CN: Tensor, chunk_s: float) -> Tensor:
            at_s = start_s + chunk_s
            if not any(meets(edit, at_s, at_s + audio_CN.shape[1] / rate) for edit in every):
                return torch.zeros_like(audio_CN) if keep else plain(audio_CN, at_s)
            edited_CN = self._round_trip(audio_CN, at_s, edits)
            if not torch.isfinite(edited_CN).all():
                raise EditError(f"the edit makes the sound overflow near {at_s:.1f} s: use smaller values")
            return edited_CN - plain(audio_CN, at_s) if keep else edited_CN

        return process

    def _round_trip(self, audio_CN: Tensor, at_s: float, edits: SiteEdits) -> Tensor:
        with self.steered.edit(edits):
            return round_trip(self.codec, audio_CN, at_s)


def meets(edit: Edit, start_s: float, end_s: float) -> bool:
    """Whether an edit does something between two times."""
    return edit.during is None or any(start < end_s and end > start_s for start, end in edit.during)  # type: ignore[misc]
