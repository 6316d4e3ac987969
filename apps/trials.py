"""Trials on stretches of a file: what it measures without the edit, with it, and which strengths reach the goals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from apps.excerpt import Stretch
from evaluation.acoustics import Acoustics, change, measure
from steer.calibrate import calibrate, error_of
from steer.edits import Edit
from steer.recipe import UNITS, Recipe
from steer.vectors import ControlVector

SiteEdits = Mapping[str, Sequence[Edit]]
Memory = dict[tuple[float, int], Tensor]
"""Plain round trips by the chunk's start in seconds and its length."""


class Render(Protocol):
    """`Editor.render`."""

    def __call__(
        self, blocks: Iterable[Tensor], sample_rate: int, edits: SiteEdits, start_s: float, memory: Memory
    ) -> Iterator[tuple[Tensor, Tensor]]: ...


class Trials:
    """Renders stretches of a file with any strengths and measures what changed, over all stretches together."""

    def __init__(
        self,
        recipe: Recipe,
        vectors: Mapping[str, ControlVector],
        render: Render,
        stretches: Sequence[Stretch],
        sample_rate: int,
        pitch: bool = True,
    ) -> None:
        self.recipe, self.vectors, self.render, self.sample_rate = recipe, vectors, render, sample_rate
        self.pitch = pitch
        self.stretches = stretches
        self._plain: list[Memory] = [{} for _ in stretches]
        self._known: dict[tuple[Any, ...], dict[str, float | None]] = {}
        self._last: tuple[tuple[Any, ...], Tensor] | None = None

    @property
    def seconds(self) -> float:
        """How much of the file is measured."""
        return sum(s.samples[:, s.inner].shape[1] for s in self.stretches) / self.sample_rate

    def heard(self, edits: SiteEdits) -> Tensor:
        """What is measured of the output, [C, n]."""
        parts = []
        for stretch, memory in zip(self.stretches, self._plain, strict=True):
            blocks = self.render([stretch.samples], self.sample_rate, edits, stretch.start_s, memory)
            parts.append(torch.cat([after_CN for _, after_CN in blocks], dim=1)[:, stretch.inner])
        return torch.cat(parts, dim=1)

    def edited(self, strengths: Mapping[str, float]) -> Tensor:
        """What is measured of the output with these strengths, [C, n]; the last one is kept."""
        key = tuple(sorted(strengths.items()))
        if self._last is None or self._last[0] != key:
            self._last = None  # so that two do not lie in memory
            self._last = key, self.heard(self.recipe.edits_for(strengths, self.vectors))
        return self._last[1]

    @cached_property
    def before(self) -> Acoustics:
        return measure(self.heard({}), self.sample_rate, self.pitch)

    def changes(self, strengths: Mapping[str, float], pitch: bool = True) -> dict[str, float | None]:
        """Changes that are measured with these strengths, by attribute; all None where nothing of the file is measured.

        What was tried once is not tried again.
        """
        if not self.stretches:
            return dict.fromkeys(UNITS)
        pitch = pitch and self.pitch
        key = (pitch, *sorted(strengths.items()))
        if key not in self._known:
            after = measure(self.edited(strengths), self.sample_rate, pitch)
            self._known[key] = change(self.before, after)
        return self._known[key]

    def search(self, report: Callable[[int], None]) -> dict[str, float]:
        """Strengths of the control vectors that come nearest to the recipe's goals; none without goals."""
        goals, count = self.recipe.wanted, 0
        if not goals:
            return {}

        def trial(strengths: Mapping[str, float]) -> dict[str, float | None]:
            nonlocal count
            count += 1
            report(count)
            # pitch takes longest to measure
            return self.changes(strengths, pitch="pitch" in goals)

        return calibrate(goals, trial, [name for name in UNITS if name in self.vectors]).strengths

    def met(self, measured: Mapping[str, float | None]) -> bool:
        return all(error_of(name, goal, measured[name]) <= 1.0 for name, goal in self.recipe.wanted.items())
