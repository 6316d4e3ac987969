"""Trials on stretches of a file: what it measures before and after an edit, and which strengths reach the goals."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from steer.acoustics import PITCH_FRAMES, Acoustics, change, measure
from steer.calibrate import calibrate, error_of
from steer.editing.excerpts import Stretch
from steer.editing.manner import Manner
from steer.editing.render import Memory, Planned, SiteEdits
from steer.errors import EditError
from steer.goals import GOALS, Changes
from steer.recipe import Recipe
from steer.values import Span

log = logging.getLogger(f"audiosteer.{__name__}")
FEWEST_VOICED = 5
"""With fewer voiced frames of 10 ms a sound has no pitch to move."""
DOUBTFUL = 1.0
"""Semitones between the strength that a search ended at and the goal above which the pitch was misread: CREPE's `tiny`
network takes some low voices for their octave in one sound and not in the other."""
LARGER_CREPE, LARGER_CREPE_FRAMES = "full", 30
"""The network that measures the pitch in that case, and in how many frames: it takes a second for fifteen of them."""

ROUND_TRIP_FRAMES = 40
"""Frames that the pitch of the round trip is read in: it decides nothing, and CREPE takes most of an edit's time."""


class Render(Protocol):
    """Renders a stretch as `Renderer.render` does: (before, after) of its blocks."""

    def __call__(
        self,
        blocks: Iterable[Tensor],
        sample_rate: int,
        edits: SiteEdits,
        manner: Manner,
        start_s: float,
        memory: Memory,
        planned: Planned | None,
    ) -> Iterator[tuple[Tensor, Tensor]]: ...


class Trials:
    """Renders stretches of a file with any strengths and measures, over all stretches together, what changed against
    the file. `planned` edits are made with all strengths."""

    def __init__(
        self,
        recipe: Recipe,
        edits_for: Callable[[Mapping[str, float]], SiteEdits],
        names: Sequence[str],
        render: Render,
        stretches: Sequence[Stretch],
        sample_rate: int,
        manner: Manner,
        pitch: bool = True,
        planned: Planned | None = None,
    ) -> None:
        self.planned = planned
        self.recipe, self.edits_for, self.names, self.render = recipe, edits_for, names, render
        self.sample_rate = sample_rate
        self.pitch, self.manner, self.stretches = pitch, manner, stretches
        self.crepe, self.pitch_frames = "tiny", PITCH_FRAMES
        self.full_scale, self.bits = False, 0
        """Whether what is written is clipped at full scale, and how many bits a sample has there (0: as it is)."""
        self._memories: list[Memory] = [{} for _ in stretches]
        self._known: dict[tuple[Any, ...], Changes] = {}
        self._last: tuple[tuple[Any, ...], Tensor] | None = None

    @property
    def seconds(self) -> float:
        """How much of the file is measured."""
        return sum(s.samples[:, s.inner].shape[1] for s in self.stretches) / self.sample_rate

    @property
    def spans(self) -> list[Span]:
        """The parts of the file that are measured, in seconds."""
        edges = [(s.inner.start, min(s.inner.stop, s.samples.shape[1]), s.start_s) for s in self.stretches]
        return [(at_s + start / self.sample_rate, at_s + stop / self.sample_rate) for start, stop, at_s in edges]

    def rendered(self, edits: SiteEdits, manner: Manner, planned: Planned | None = None) -> Tensor:
        """What is measured of an output, [C, n]."""
        parts = []
        for stretch, memory in zip(self.stretches, self._memories, strict=True):
            sound = ([stretch.samples], self.sample_rate)
            blocks = self.render(*sound, edits, manner, stretch.start_s, memory, planned)
            parts.append(torch.cat([after_CN for _, after_CN in blocks], dim=1)[:, stretch.inner])
        return torch.cat(parts, dim=1)

    def edited(self, strengths: Mapping[str, float]) -> Tensor:
        """What is measured of the output with these strengths, [C, n]; the last one is kept."""
        key = tuple(sorted(strengths.items()))
        if self._last is None or self._last[0] != key:
            self._last = None  # so that two do not lie in memory
            self._last = key, self.rendered(self.edits_for(strengths), self.manner, self.planned)
        return self._last[1]

    def written(self, strengths: Mapping[str, float]) -> Tensor:
        """As `edited`, as a file holds it."""
        written_CN = self.edited(strengths)
        if self.full_scale:
            written_CN = written_CN.clamp(-1.0, 1.0)
        if self.bits:
            # of soft sounds the rounding is part of what is measured
            largest = 2.0 ** (self.bits - 1)
            written_CN = (written_CN * largest).round() / largest
        return written_CN

    @cached_property
    def original(self) -> Tensor:
        """What is measured of the file, [C, n]."""
        return torch.cat([stretch.samples[:, stretch.inner] for stretch in self.stretches], dim=1)

    @cached_property
    def before(self) -> Acoustics:
        return self.measured(self.original, self.pitch)

    def measured(self, samples_CN: Tensor, pitch: bool, pitch_frames: int = 0) -> Acoustics:
        """With the pitch read in so many frames, by default in as many as the search."""
        frames = pitch_frames or self.pitch_frames
        return measure(samples_CN, self.sample_rate, pitch, False, self.crepe, frames, self.recipe.wanted)

    def changes(self, strengths: Mapping[str, float], pitch: bool = True) -> Changes:
        """What these strengths change against the file; all None where nothing of the file is measured.

        What was tried once is not tried again.
        """
        if not self.stretches:
            return dict.fromkeys(GOALS)
        pitch = pitch and self.pitch
        key = (pitch, *sorted(strengths.items()))
        if key not in self._known:
            self._known[key] = change(self.before, self.measured(self.written(strengths), pitch))
        return self._known[key]

    def channels(self, strengths: Mapping[str, float]) -> list[Changes]:
        """The changes of each channel by itself, where there are several; pitch is not measured by channel."""
        if self.original.shape[0] < 2:
            return []
        pairs = zip(self.original.split(1), self.written(strengths).split(1), strict=True)
        return [change(*(measure(x_CN, self.sample_rate, pitch=False, lufs=False) for x_CN in pair)) for pair in pairs]

    def against_round_trip(self, strengths: Mapping[str, float]) -> Changes:
        """What the codec's output alone changes against its plain round trip, both without the input's detail."""
        if not self.stretches:
            return dict.fromkeys(GOALS)
        manner = replace(self.manner, residual="drop", spans=None, limit=False)
        ways: list[tuple[SiteEdits, Planned | None]] = [({}, None), (self.edits_for(strengths), self.planned)]
        before, after = (
            self.measured(self.rendered(edits, manner, planned), "pitch" in self.recipe.wanted, ROUND_TRIP_FRAMES)
            for edits, planned in ways
        )
        return change(before, after)

    def search(self, report: Callable[[int], None]) -> dict[str, float]:
        """Strengths of the control vectors that come nearest to the recipe's goals; none without goals.

        Raises:
            EditError: a pitch goal for a sound without pitch.
        """
        goals, count = self.recipe.wanted, 0
        if not goals:
            return {}
        if "pitch" in goals and self.before.pitch_track is not None:
            voiced = int((~self.before.pitch_track.isnan()).sum())
            if voiced < FEWEST_VOICED:
                raise EditError("there is no pitch to move: CREPE finds none in what is edited; leave the goal out")

        def trial(strengths: Mapping[str, float]) -> Changes:
            nonlocal count
            count += 1
            report(count)
            # pitch takes longest to measure
            changes = self.changes(strengths, pitch="pitch" in goals)
            log.debug("trial %d: strengths %s change %s", count, strengths, changes)
            return changes

        found = calibrate(goals, trial, self.names).strengths
        if "pitch" in goals and abs(found["pitch"] - goals["pitch"]) > DOUBTFUL:
            self.crepe, self.pitch_frames = LARGER_CREPE, LARGER_CREPE_FRAMES
            self._known.clear()
            del self.before
            found = calibrate(goals, trial, self.names).strengths
        log.info("goals %s: strengths %s after %d trials", goals, found, count)
        return found

    def met(self, measured: Mapping[str, float | None]) -> bool:
        return all(error_of(name, goal, measured[name]) <= 1.0 for name, goal in self.recipe.wanted.items())
