"""Many files through one `Editor`: one bad file never stops the rest, and a table at the end says what became of each."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from apps.editor import Editor, Outcome
from apps.files import Job
from hooks import AudioFileError, AudioSteerError
from steer.recipe import UNITS

log = logging.getLogger(__name__)
After = Callable[[Job], None]
"""What else is done with a file that was edited (its picture)."""


@dataclass(frozen=True)
class Result:
    """A job and what became of it: an outcome, or the error in one line."""

    job: Job
    outcome: Outcome | None = None
    error: str = ""

    def to_dict(self) -> dict[str, Any]:
        if self.outcome is None:
            return {"source": str(self.job.source), "target": str(self.job.target), "error": self.error}
        return self.outcome.to_dict()


def progress_bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(), console=console, transient=True
    )


def edit_all(editor: Editor, jobs: Sequence[Job], console: Console, *, force: bool = False, after: After | None = None) -> list[Result]:
    """Edit file after file with a bar for all and one for the present file; errors are collected, not raised."""
    results = []
    with progress_bar(console) as progress:
        whole = progress.add_task("all files", total=len(jobs))
        one = progress.add_task("", total=1.0)
        for job in jobs:
            name = job.source.name
            progress.reset(one, description=name)
            try:
                make_folder(job.target.parent)
                outcome = editor.edit_file(
                    job.source,
                    job.target,
                    force=force,
                    report=lambda stage, share, name=name: progress.update(one, description=f"{name}: {stage}", completed=share),
                )
                if after is not None:
                    after(job)
                results.append(Result(job, outcome))
            except AudioSteerError as error:
                results.append(Result(job, error=str(error)))
            except Exception as error:  # one bad file never stops the rest
                log.debug("%s", job.source, exc_info=True)
                results.append(Result(job, error=f"{job.source}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"))
            progress.advance(whole)
    return results


def make_folder(folder: Path) -> None:
    """Raises AudioFileError if it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AudioFileError(f"{folder}: the folder cannot be made ({error.strerror})") from error


def shown(name: str, value: float | None) -> str:
    """A change with its unit; pitch in semitones."""
    return "–" if value is None else f"{value:+.2f} {UNITS[name]}" if name != "brightness" else f"{value:+.1f} %"


def batch_table(results: Sequence[Result]) -> Table:
    table = Table(title=f"{len(results)} files, {sum(not r.error for r in results)} edited")
    for head in ("file", *UNITS, "result"):
        table.add_column(head, overflow="fold")
    for result in results:
        if result.outcome is None:
            table.add_row(str(result.job.source), *[""] * len(UNITS), f"[red]{result.error}[/red]")
            continue
        outcome = result.outcome
        cells = []
        for name in UNITS:
            asked = f"{shown(name, outcome.requested[name])} → " if name in outcome.requested else ""
            cells.append(asked + shown(name, outcome.measured[name]))
        table.add_row(str(result.job.source), *cells, verdict(outcome))
    return table


def outcome_table(outcome: Outcome) -> Table:
    """Requested and measured changes of one file; what was not asked for is drift."""
    part = "" if outcome.measured_s >= outcome.seconds - 0.01 else f" (over {outcome.measured_s:.0f} of {outcome.seconds:.0f} s)"
    table = Table(title=f"{outcome.target}{part}")
    for head in ("", "requested", "measured"):
        table.add_column(head, justify="right" if head else "left")
    for name in UNITS:
        asked = outcome.requested.get(name)
        if asked is None:
            table.add_row(f"{name} drift", "", drift(name, outcome.measured[name]), style="dim")
        else:
            table.add_row(name, shown(name, asked), shown(name, outcome.measured[name]))
    return table


def drift(name: str, value: float | None) -> str:
    """As `shown`, but small changes of pitch in cents."""
    return f"{100 * value:+.0f} cents" if name == "pitch" and value is not None else shown(name, value)


def verdict(outcome: Outcome) -> str:
    words = ["unchanged" if outcome.unchanged else "done"] if outcome.met else ["[yellow]goal not reached[/yellow]"]
    if outcome.clipped:
        words.append(f"{outcome.clipped} samples clipped")
    return ", ".join(words)


def shortfalls(outcome: Outcome) -> list[str]:
    """A line for each goal that was not reached: what was asked for, and how far it got."""
    from steer.calibrate import error_of

    lines = []
    for name, goal in outcome.requested.items():
        reached = outcome.measured[name]
        if error_of(name, goal, reached) > 1.0:
            got = "it could not be measured there" if reached is None else f"it got to {shown(name, reached)}"
            lines.append(f"{outcome.source}: {name} {shown(name, goal)} was not reached: {got}")
    return lines
