"""`python -m benchmarks.batch`: how much sooner batch work is done by more processes, and than file after file.

Every ratio is of whole calls in the same round: variants take turns, and the first round warms up and does not count.
A call goes from the folder's name to the last line of the journal, and opens the model. Only Dask's processes stand
ready, with their libraries loaded in the first round: `--costs` tells how long their start takes.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from apps.batch.engine import local_cluster
from apps.batch.jobs import BatchError
from apps.batch.run import How
from benchmarks.batch.kinds import Kind, kinds
from benchmarks.batch.made import lengths, write_voices
from benchmarks.machine import describe, version_of
from benchmarks.settings import Aim
from benchmarks.timing import Spread
from evaluation.concept_sets import SPEECH
from evaluation.dataset import Dataset
from evaluation.report import Report, Row
from hooks import AudioFileError
from hooks.clip import audio_info
from hooks.errors import require
from hooks.files import whole_file

Run = Callable[[Path], object]
"""Does the work, into a folder."""
Seconds = Mapping[str, Sequence[float]]
"""Of each variant, round by round."""

LOOP_1, LOOP_2 = "loop, 1 thread", "loop, 2 threads"
HERE_1, HERE_2 = "batch, 1 thread", "batch, 2 threads"
WORKER, WORKERS = "batch, 1 worker x 1 thread", "batch, 2 workers x 1 thread"
RATIOS = {
    "2 workers against 1": (WORKER, WORKERS, Aim(">=", 1.6)),
    "overlap and batches, 1 thread": (LOOP_1, HERE_1, None),
    "2 threads against the loop": (LOOP_2, HERE_2, None),
    "2 workers against the loop": (LOOP_2, WORKERS, None),
}
"""The slower and the faster one, and the aim."""
MARKS = ("<!-- costs -->", "<!-- end of costs -->")
BETTER, BETTER_AIM = "better of both against the loop", Aim(">=", 1.5)


def variants(kind: Kind, folder: Path, one: str, two: str) -> dict[str, Run]:
    """All ways to do a folder; the clusters at `one` and `two` have so many workers."""
    sources = sorted(folder.iterdir())

    def with_threads(count: int, run: Run) -> Run:
        def run_with_threads(out: Path) -> None:
            torch.set_num_threads(count)
            run(out)

        return run_with_threads

    def loop(out: Path) -> None:
        kind.loop(sources, out)

    def batch(how: How) -> Run:
        return lambda out: kind.batch(folder, out, how)

    return {
        LOOP_1: with_threads(1, loop),
        HERE_1: with_threads(1, batch(How())),
        WORKER: batch(How(cluster=one)),
        LOOP_2: with_threads(2, loop),
        HERE_2: with_threads(2, batch(How())),
        WORKERS: batch(How(cluster=two)),
    }


def timed(runs: Mapping[str, Run], rounds: int, place: Path) -> Seconds:
    """Every round starts with another variant; the first one warms up, unless it is the only one."""
    names, seconds = list(runs), {name: list[float]() for name in runs}
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            with tempfile.TemporaryDirectory(dir=place) as out:
                began = time.perf_counter()
                runs[name](Path(out))
                took = time.perf_counter() - began
            if number or rounds == 1:
                seconds[name].append(took)
    return seconds


def rows_of(task: str, sounds: str, seconds: Seconds) -> list[Row]:
    def row(what: str, slow: str, fast: str, aim: Aim | None) -> Row:
        ratio = Spread.of(a / b for a, b in zip(seconds[slow], seconds[fast], strict=True))
        reached = ("yes" if aim.reached(ratio.value) else "no") if aim else None
        return {
            "task": task,
            "sounds": sounds,
            "what": what,
            "times as fast": ratio,
            "s": Spread.of(seconds[fast]).value,
            "aim": str(aim) if aim else None,
            "reached": reached,
        }

    better = min((HERE_2, WORKERS), key=lambda name: Spread.of(seconds[name]).value)
    rows = [row(what, *ratio) for what, ratio in RATIOS.items()]
    return [*rows, row(BETTER, LOOP_2, better, BETTER_AIM)]


@contextmanager
def cluster(workers: int) -> Iterator[str]:
    """So many processes with a thread each, and their scheduler; gives its address.

    Raises:
        MissingExtraError: Dask is not installed.
    """
    distributed = require("distributed", "cluster")
    # Dask starts a worker with one thread for OpenMP, which is what torch takes
    with local_cluster(distributed, workers) as local:
        yield local.scheduler_address


def make_sounds(folder: Path, task: str, kind: Kind, files: int, audio: Path | None) -> dict[str, Path]:
    """A folder of mixed and one of equal lengths; the mixed ones are recordings from `audio`, if that is given."""
    named = f"{kind.shortest_s:g} to {kind.longest_s:g} s", f"all {kind.longest_s / 2:g} s"
    mixed, equal = (folder / f"{task} {name}" for name in named)
    mixed.mkdir()
    equal.mkdir()
    if audio is None:
        write_voices(mixed, lengths(files, kind.shortest_s, kind.longest_s), kind.sample_rate)
    else:
        link_recordings(mixed, kind, SPEECH if task == "transcribe" else None, files, audio)
    write_voices(equal, [kind.longest_s / 2] * files, kind.sample_rate)
    return dict(zip(named, (mixed, equal), strict=True))


def link_recordings(folder: Path, kind: Kind, subsets: Sequence[str] | None, files: int, audio: Path) -> None:
    """The valid split's, of lengths that are the kind's, spread evenly over these.

    Raises:
        AudioFileError: there are none.
    """
    paths = [Path(str(sound.source)) for sound in Dataset(audio).sounds(subsets, "valid")]
    known = {path: audio_info(path).seconds for path in paths}
    fitting = [
        path for path in sorted(known, key=known.__getitem__) if kind.shortest_s <= known[path] <= kind.longest_s
    ]
    if not fitting:
        raise AudioFileError(f"{audio}: no recordings of {kind.shortest_s:g} to {kind.longest_s:g} s")
    for number in range(files):
        source = fitting[number * len(fitting) // files].resolve()
        (folder / f"{number:04}{source.suffix}").symlink_to(source)


def about(rounds: int, files: int) -> dict[str, Any]:
    described = describe()
    described["versions"] = described["versions"] | {"distributed": version_of("distributed")}
    # the rows say how many threads
    del described["threads"]
    load = [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else None
    return {**described, "rounds": rounds, "files": files, "load before": load}


def tell_costs(files: int, rounds: int, out: Path | None) -> None:
    """Print what work costs and what that comes to, as Markdown; `out` gets it, between its marks, or as JSON."""
    from benchmarks.batch import costs, scale

    described = about(rounds, files)
    found = costs.costs(files, rounds)
    inputs, plan = scale.cost_rows(found), scale.scale_rows(found)
    tables = [inputs, plan, scale.part_rows(found), scale.planning_rows(found)]
    told = ", ".join(f"{name} {described[name]}" for name in ("date", "processor", "cores", "load before", "versions"))
    text = "\n\n".join([f"Measured: {told}.", *(Report("", rows).markdown() for rows in tables)])
    print(text)
    if out is not None and out.suffix == ".md":
        fill(out, text)
    elif out is not None:
        Report("Costs", inputs, plan, {**described, "costs": asdict(found)}).save(out)


def fill(page: Path, text: str) -> None:
    """Put it between the marks of a page, in the place of what is there.

    Raises:
        BatchError: it has no marks.
    """
    head, start, rest = page.read_text(encoding="utf-8").partition(MARKS[0])
    _, end, tail = rest.partition(MARKS[1])
    if not end:
        raise BatchError(f"{page}: has no lines {MARKS[0]} and {MARKS[1]} to write between")
    with whole_file(page) as partial:
        partial.write_text(f"{head}{start}\n\n{text}\n\n{end}{tail}", encoding="utf-8")


def main(
    tasks: Annotated[str, typer.Option(help="Some of edit,goal,transcribe,features.")] = ",".join(kinds()),
    rounds: Annotated[int, typer.Option(min=1, help="After one that warms up; the table has medians.")] = 5,
    files: Annotated[int, typer.Option(min=1, help="So many sounds for a call.")] = 64,
    audio: Annotated[Path | None, typer.Option(help="Recordings for the mixed lengths, in subsets.")] = None,
    costs: Annotated[
        bool, typer.Option("--costs", help="Instead: what each piece costs, and docs/scale.md's plan.")
    ] = False,
    equal: Annotated[bool, typer.Option(help="Also sounds of equal lengths.")] = True,
    quick: Annotated[bool, typer.Option(help="A round, a few files: shows that all runs, and nothing else.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Save the table here as JSON, with all times; or costs in a .md page.")
    ] = None,
) -> None:
    """Throughput of batch work: medians [quartiles] of ratios in the same round."""
    known = kinds()
    chosen = [name for name in tasks.split(",") if name]
    if unknown := [name for name in chosen if name not in known]:
        raise typer.BadParameter(f"there is no task {', '.join(unknown)}; there are {', '.join(known)}")
    rounds, files = (1, 2) if quick else (rounds, files)
    if costs:
        tell_costs(min(files, 16), rounds, out)
        return
    report = Report("Batch work", [], about=about(rounds, files))
    before = torch.get_num_threads()
    with ExitStack() as stack:
        stack.callback(torch.set_num_threads, before)
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        one, two = (stack.enter_context(cluster(workers)) for workers in (1, 2))
        for task in chosen:
            for sounds, folder in list(make_sounds(place, task, known[task], files, audio).items())[
                : 2 if equal and not quick else 1
            ]:
                seconds = timed(variants(known[task], folder, one, two), rounds if quick else rounds + 1, place)
                report.rows += rows_of(task, sounds, seconds)
                report.clips.append({"task": task, "sounds": sounds, "seconds": dict(seconds)})
                print({name: round(Spread.of(values).value, 2) for name, values in seconds.items()}, flush=True)
    report.print()
    if out is not None:
        report.save(out)
