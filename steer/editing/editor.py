"""`Editor`: a recipe with its model opened, ready to edit sound files.

The change in the sound is made only by editing SAE features at a site of the codec. How it reaches the file, and what
of the file stays, is in `steer.editing.render`; goals are searched and reported against the file itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from hooks import AudioFileError, ModelError
from hooks.clip import audio_info, check_target, read_blocks
from hooks.errors import require
from hooks.files import stamp_of
from hooks.model import Codec
from hooks.sound_files import copy_file, kind_of
from hooks.sound_info import AudioInfo
from hooks.tags import read_tags
from hooks.timing import Whole, saying, sound_until
from steer.editing.chunks import CHUNK_S, file_plan, fitted
from steer.editing.excerpts import choose, read_stretches
from steer.editing.kept import Kept, what_was_kept
from steer.editing.manner import Manner, manner_for
from steer.editing.outcome import Edited, Excerpts, Outcome
from steer.editing.render import Planned, Renderer, SiteEdits
from steer.editing.trials import Trials
from steer.editing.voice_edits import VoiceEdits, check_voice, formant_sae
from steer.editing.voice_measure import measured_voice
from steer.edits import Edit
from steer.errors import EditError
from steer.goals import GOALS, Changes
from steer.recipe import Recipe
from steer.steered import SteeredModel
from steer.stream import Chunks, round_trip
from steer.vectors import ControlVector

BLOCK_S = 1.0
MOST_LIMITED_DB = 12.0
"""Strengths are not searched further where the limiter turns peaks down by more than this."""
BITS = {"PCM_S8": 8, "PCM_U8": 8, "PCM_16": 16}
"""Formats whose rounding can be heard in soft sounds."""
Report = Callable[[str, float], None]
"""Called with what is being done and how much of it is done, 0 to 1; what it raises ends the work."""


class _NoChange(Exception):
    """Leaves the writer, so that nothing is written: a copy of the input takes its place."""


class Editor:
    """Opens what a recipe names and checks it: edits that cannot be made are refused here, before any file.

    Files run through the codec in chunks of `chunk_s` seconds. `steered` is what the recipe names, where that is open
    already, `vectors` the goals' control vectors, where they do not lie beside its SAEs, and `edits` are made beside
    the recipe's. Pitch takes longest to measure: without `pitch` it is measured only where it is a goal. `details` (by
    default as `pitch`) says whether the channels, the round trip and what was kept are measured.

    Raises:
        AudioSteerError: no such model, SAE, site, feature or vector; a model that is not a codec; a pitch goal without
            the extra `eval`.
    """

    def __init__(
        self,
        recipe: Recipe,
        chunk_s: float = CHUNK_S,
        *,
        steered: SteeredModel | None = None,
        vectors: Mapping[str, ControlVector] | None = None,
        edits: Sequence[Edit] = (),
        pitch: bool = True,
        details: bool | None = None,
    ) -> None:
        self.recipe, self.added = recipe, list(edits)
        self.steered = steered or recipe.open()
        if not isinstance(self.steered.model, Codec):
            raise ModelError(f"{recipe.model} is not a codec: only a model that gives audio back can edit files")
        self.codec = self.steered.model
        self.chunk_s = chunk_s
        if recipe.voice.active:
            check_voice(recipe.voice, self.codec, self.steered.saes, recipe.model)
        self.vectors = dict(vectors) if vectors is not None else recipe.control_vectors()
        recipe.voice.check_vectors(self.vectors, "among those that are given")
        self.pitch = pitch or "pitch" in recipe.wanted
        self.details = pitch if details is None else details
        if "pitch" in recipe.wanted:
            require("torchcrepe", "eval")
        with self.steered.edit(self.edits_for(dict.fromkeys(recipe.wanted, 1.0))):
            pass

    def edits_for(self, strengths: Mapping[str, float]) -> dict[str, list[Edit]]:
        """{site: edits}, with the goals' vectors at these strengths."""
        edits = self.recipe.edits_for(strengths, self.vectors)
        if self.added:
            site = next(iter(self.recipe.saes))
            edits[site] = [*edits.get(site, []), *self.added]
        return edits

    # --- one file ---

    def edit_file(self, source: Path, target: Path, *, force: bool = False, report: Report | None = None) -> Outcome:
        """Edit one file of any length; the output has the rate, channels and, where the format is the same, subtype.

        Raises:
            AudioFileError: the source cannot be read, or the target exists (without `force`) or cannot be written.
            EditError: the edit makes the sound overflow, or asks for a pitch where there is none.
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
        if not spans and (self.recipe.wanted or self.recipe.voice.active):
            raise AudioFileError(f"{source}: ends at {info.seconds:.2f} s, before the spans to edit begin")
        whole = spans == [(0.0, info.seconds)]
        stretches = read_stretches(info, spans, self.codec.context_s)
        return Excerpts(info, target, kind, stamp, stretches, whole, read_tags(info))

    def edit(self, excerpts: Excerpts, *, force: bool = False, report: Report | None = None) -> Edited:
        """The second step: strengths are searched, and the sound is edited. A file too long to lie in memory is read
        and written on the way.

        Raises:
            AudioFileError: as `edit_file`; or the source was changed while it was read.
            EditError: as `edit_file`.
        """
        try:
            with saying(wholes=(self._whole(excerpts.info),)):
                return self._edit(excerpts, force, report or (lambda stage, share: None))
        except EditError as error:
            raise EditError(f"{excerpts.info.path}: {error}") from error

    def _edit(self, excerpts: Excerpts, force: bool, report: Report) -> Edited:
        report("searching strengths" if self.recipe.wanted else "reading", 0.0)
        renderer = Renderer(self.steered, self.chunk_s)
        manner = self.manner(renderer, excerpts)
        stretches, rate = excerpts.stretches, excerpts.info.sample_rate

        names, render = [name for name in GOALS if name in self.vectors], renderer.render
        planned = self.voice_edits(renderer, excerpts, manner) if self.recipe.voice.active else None

        def trials_with(manner: Manner) -> Trials:
            trials = Trials(self.recipe, self.edits_for, names, render, stretches, rate, manner, self.pitch, planned)
            trials.full_scale = manner.limit or (excerpts.has_full_scale and not self.recipe.limit)
            trials.bits = BITS.get(excerpts.kind[1], 0)
            return trials

        def search(trials: Trials) -> dict[str, float]:
            return trials.search(lambda count: report(f"searching strengths, trial {count}", 0.0))

        trials = trials_with(manner)
        strengths = search(trials)
        if strengths and manner.limit and stretches:
            trials.edited(strengths)
            if renderer.turned_down_db > MOST_LIMITED_DB:
                # a goal that only a crushed sound would reach: the strengths that reach it before the limiter
                strengths = search(trials_with(replace(manner, limit=False)))
        edits = self.edits_for(strengths)
        samples_CN, clipped, limited_db, unmoved = None, 0, 0.0, None
        if not edits and planned is None and manner.residual != "drop" and excerpts.same_kind:
            unchanged = True
        else:
            if excerpts.whole:
                report("editing", 0.0)
                samples_CN = trials.edited(strengths)
                unchanged = torch.equal(samples_CN, stretches[0].samples)
            else:
                clipped, unchanged = self._stream(renderer, excerpts, edits, planned, manner, force, report)
            limited_db, unmoved = renderer.turned_down_db, renderer.unmoved
        report("measuring", 1.0)
        measured: Changes = dict.fromkeys(GOALS, 0.0) if unchanged else trials.changes(strengths)
        detailed = self.details and not unchanged
        kept = Kept()
        if detailed and stretches:
            kept = what_was_kept(trials.original, trials.written(strengths), rate, self.codec)
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
            trials.against_round_trip(strengths) if detailed else {},
            trials.channels(strengths) if detailed and stretches else [],
            limited_db,
            {**kept.to_dict(outside_unchanged=manner.spans is not None), "unmoved": unmoved},
            measured_voice(self.recipe.voice, trials.original, trials.written(strengths), rate, trials.spans)
            if planned is not None and stretches
            else {},
            notes=excerpts.notes(unchanged),
        )
        return Edited(excerpts, outcome, samples_CN)

    def manner(self, renderer: Renderer, excerpts: Excerpts) -> Manner:
        """How the change reaches this file."""
        edits = self.edits_for(dict.fromkeys(self.recipe.wanted, 1.0))
        return manner_for(self.recipe, self.codec, excerpts, edits, renderer.pitch_change)

    def voice_edits(self, renderer: Renderer, excerpts: Excerpts, manner: Manner) -> VoiceEdits:
        """The edits of the recipe's voice for this file, whose median pitch is that of its excerpts."""
        passages = []
        voice, alone = self.recipe.voice, manner.linked or excerpts.info.channels == 1
        needed = voice.note is not None or voice.pitch_range is not None or not alone
        hop = excerpts.info.sample_rate / self.codec.frame_rate
        for stretch in excerpts.stretches if needed else ():
            audio_CN, z_BTD = renderer.latent(stretch.samples, excerpts.info.sample_rate, manner, stretch.start_s)
            inner = slice(round(stretch.inner.start / hop), round(stretch.inner.stop / hop))
            passages.append((z_BTD, audio_CN, inner))
        sae = formant_sae(self.steered.saes, alone) if voice.formants is not None else None
        return VoiceEdits(voice, self.codec, self.vectors, sae, self.recipe.during, passages)

    def _whole(self, info: AudioInfo) -> Whole:
        """The file, for gates that decide by clip: its channels share a decision."""
        rate = self.codec.sample_rate
        assert rate is not None

        def again() -> None:
            plan = file_plan(self.codec, info.sample_rate, self.chunk_s)

            def passed(x_CN: Tensor, at_s: float) -> Tensor:
                # the frames of what lies around a core are of other chunks
                end_s = min((chunks.core + plan.core) / info.sample_rate, info.seconds)
                with sound_until(end_s):
                    round_trip(self.codec, fitted(x_CN, info.sample_rate, rate), at_s)
                return x_CN

            chunks = Chunks(plan, info.sample_rate, passed, torch.float64)
            for block_CN in read_blocks(info, int(BLOCK_S * info.sample_rate), "float64"):
                for _ in chunks.push(block_CN):
                    pass
            for _ in chunks.finish():
                pass

        return Whole(0.0, info.seconds, again)

    def write(self, edited: Edited, *, force: bool = False) -> Outcome:
        """The third step: what is in memory goes to the target, if it is not there yet.

        Raises:
            AudioFileError: as `edit_file`.
        """
        excerpts, outcome = edited.excerpts, edited.outcome
        if outcome.unchanged and excerpts.same_kind:
            copy_file(excerpts.info.path, excerpts.target, force, excerpts.stamp)
        elif edited.samples_CN is not None:
            with excerpts.writer(force) as writer:
                writer.write(edited.samples_CN)
            outcome = replace(outcome, clipped=writer.clipped)
        return outcome

    def round_trip(self, blocks: Iterable[Tensor], sample_rate: int) -> Iterator[Tensor]:
        """Blocks [C, n] as the codec gives them back without an edit, the input kept above its band."""
        return Renderer(self.steered, self.chunk_s).round_trip(blocks, sample_rate)

    def _stream(
        self,
        renderer: Renderer,
        excerpts: Excerpts,
        edits: SiteEdits,
        planned: Planned | None,
        manner: Manner,
        force: bool,
        report: Report,
    ) -> tuple[int, bool]:
        """Edit block by block from file to file; gives the count of clipped samples and whether nothing changed."""
        info, done, changed = excerpts.info, 0, False
        blocks = read_blocks(info, int(BLOCK_S * info.sample_rate), "float64")
        with suppress(_NoChange), excerpts.writer(force) as writer:
            for before_CN, after_CN in renderer.render(blocks, info.sample_rate, edits, manner, planned=planned):
                changed = changed or not torch.equal(before_CN, after_CN)
                writer.write(after_CN)
                done += after_CN.shape[1]
                report("editing", done / info.frames)
            if stamp_of(info.path) != excerpts.stamp:
                raise AudioFileError(f"{info.path}: was changed while it was read")
            if excerpts.same_kind and not changed:
                raise _NoChange
        return writer.clipped, not changed
