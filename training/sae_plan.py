"""What a run of many SAE trainings decides and remembers: which k, how many steps, and what came of each."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hooks.files import whole_file


@dataclass(frozen=True)
class Criterion:
    """Which k is taken: the smallest one that meets both.

    The explained variance is that of valid frames. Dead are features that no training frame activates: valid frames
    are too few to tell a rare feature from a dead one.
    """

    explained: float = 0.85
    dead: float = 0.05

    def met(self, row: dict[str, float]) -> bool:
        return row["explained_variance"] >= self.explained and row["dead_in_training"] < self.dead

    def chosen(self, rows: Sequence[dict[str, float]]) -> int:
        """Of rows with `k`; where none meets both: of those that explain enough the one with the fewest dead features,
        else the one that explains most."""
        good = [row for row in rows if self.met(row)]
        if good:
            return int(min(good, key=lambda row: row["k"])["k"])
        enough = [row for row in rows if row["explained_variance"] >= self.explained]
        if enough:
            return int(min(enough, key=lambda row: row["dead_in_training"])["k"])
        return int(max(rows, key=lambda row: row["explained_variance"])["k"])


class Budget:
    """How many steps an SAE gets so that all are done in time; settled once a run, so that all get as many."""

    def __init__(self, deadline: float, processes: int, most: int, least: int, settled: int = 0) -> None:
        self.deadline, self.processes, self.most, self.least = deadline, processes, most, least
        self.saes, self.speed, self.settled = 0, 0.0, settled

    def expect(self, saes: int) -> None:
        self.saes += saes

    def note(self, seconds_a_step: float) -> None:
        """What a step of a search took, while the other processes were busy too."""
        self.speed = max(self.speed, seconds_a_step)

    def steps(self) -> int:
        if not self.settled:
            self.settled = self.most
            if self.least and self.speed:
                # the rest for the searches that are still going on, and for measuring
                time_left = 0.7 * (self.deadline - time.monotonic())
                fit = time_left * self.processes / max(1, self.saes) / self.speed
                self.settled = int(min(self.most, max(self.least, fit // 100 * 100)))
        return self.settled


class Results:
    """RUN/results.json: what each search and each SAE gave."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.content: dict[str, Any] = {"search": [], "saes": [], "frames": {}, "steps": 0}
        if path.exists():
            self.content = json.loads(path.read_text(encoding="utf-8"))

    def save(self) -> None:
        with whole_file(self.path) as partial:
            partial.write_text(json.dumps(self.content, indent=1) + "\n", encoding="utf-8")

    def search(self, model: str, site: str) -> list[dict[str, Any]]:
        return [row for row in self.content["search"] if (row["model"], row["site"]) == (model, site)]
