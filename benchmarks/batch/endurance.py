"""`python -m benchmarks.batch.endurance`: whether memory, open files, hooks or threads grow over time."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import nn

from apps.batch.edit_work import EditTask, EditWorker
from apps.batch.jobs import Job
from apps.batch.run import How, do_batch
from apps.batch.worker import Done, Worker
from benchmarks.batch.kinds import LOUDER, SCALED
from benchmarks.batch.made import write_bursts, write_voices
from benchmarks.machine import describe, threads
from evaluation.report import Report
from hooks.errors import require
from steer.editing.editor import Editor
from steer.recipe import Recipe

SAMPLES = 50
WARM = 0.1
"""The share of samples in which libraries may still take what they keep."""
GROWTH_MB = 1.0
"""A thousand edits may need so much more; noise of the allocator is below it."""
LONGER = 1.1
"""The long file's most memory may be so many times that of `SHORT_MIN` minutes."""
SHORT_MIN = 10
SOURCES = 50


@dataclass(frozen=True)
class Sample:
    """What this process holds after so many edits, or minutes of sound. `hooks` are those left on the model."""

    done: float
    wall_s: float
    rss_mb: float
    files: int
    hooks: int
    threads: int


@dataclass
class Sampler:
    """Takes a sample whenever `every` more are done."""

    every: float
    modules: Callable[[], nn.Module]
    samples: list[Sample] = field(default_factory=list)
    began: float = field(default_factory=time.perf_counter)

    def at(self, done: float) -> None:
        if not self.samples or done >= self.samples[-1].done + self.every:
            self.take(done)

    def take(self, done: float) -> None:
        process = require("psutil", "cluster").Process()
        with process.oneshot():
            files = process.num_fds() if hasattr(process, "num_fds") else process.num_handles()
            held = process.memory_info().rss / 2**20, files, hooks_on(self.modules()), process.num_threads()
        self.samples.append(Sample(done, time.perf_counter() - self.began, *held))
        print(" ".join(f"{key}={value:.6g}" for key, value in asdict(self.samples[-1]).items()), flush=True)


def hooks_on(module: nn.Module) -> int:
    return sum(len(one._forward_hooks) + len(one._forward_pre_hooks) for one in module.modules())


@dataclass(frozen=True)
class Sampled:
    """A task whose worker is looked at before each lot. For this process alone."""

    task: EditTask
    every: float
    samplers: list[Sampler]

    def open(self) -> SampledWorker:
        worker = self.task.open()
        self.samplers.append(Sampler(self.every, lambda: worker.editor(None).codec.module))
        return SampledWorker(worker, self.samplers[-1])


@dataclass
class SampledWorker(Worker):
    worker: EditWorker
    sampler: Sampler
    done: int = 0

    def read(self, job: Job) -> Any:
        return self.worker.read(job)

    def work(self, jobs: Sequence[Job], values: Sequence[Any]) -> Sequence[Any]:
        self.sampler.at(self.done)
        self.done += len(jobs)
        return self.worker.work(jobs, values)

    def keep(self, job: Job, value: Any) -> Done:
        return self.worker.keep(job, value)


def many_edits(folder: Path, edits: int, seconds: float, recipe: Recipe) -> list[Sample]:
    """Samples over a batch of so many edits of short sounds, in this process."""
    sounds = folder / "sounds"
    sounds.mkdir()
    sources = write_voices(sounds, [seconds] * min(edits, SOURCES), 24_000)
    task = EditTask(recipe)
    out, fingerprint = folder / "out", task.fingerprint(None)
    names = [f"{number // 1000}/{number}.wav" for number in range(edits)]
    jobs = [
        Job(sources[number % len(sources)], out / name, name, fingerprint=fingerprint)
        for number, name in enumerate(names)
    ]
    sampled = Sampled(task, max(1, edits // SAMPLES), [])
    finished = do_batch(sampled, jobs, out, How())
    failed = [row.complaint() for row in finished.rows if row.error]
    if failed or len(finished.rows) != edits:
        raise RuntimeError(f"{len(finished.rows)} of {edits} edits were done, {len(failed)} failed: {failed[:1]}")
    (sampler,) = sampled.samplers
    sampler.take(edits)
    return sampler.samples


def long_file(folder: Path, minutes: float, sample_rate: int, editor: Editor) -> list[Sample]:
    """Samples over the edit of one file, minute by minute of what is written."""
    source, target = folder / "long.wav", folder / "edited.wav"
    write_bursts(source, round(60 * minutes), sample_rate)
    sampler = Sampler(minutes / SAMPLES, lambda: editor.codec.module)
    sampler.at(0.0)

    def report(stage: str, share: float) -> None:
        if stage == "editing":
            sampler.at(share * minutes)

    editor.edit_file(source, target, force=True, report=report)
    source.unlink()
    target.unlink()
    return sampler.samples


def slope(samples: Sequence[Sample]) -> float:
    """MB for each one more that is done, by least squares."""
    done, rss = (torch.tensor([getattr(s, name) for s in samples]).double() for name in ("done", "rss_mb"))
    centred = done - done.mean()
    return float((centred * rss).sum() / centred.square().sum().clamp(min=1e-12))


def grown(samples: Sequence[Sample]) -> list[str]:
    """What, beside memory, there is more of in all of the last third of the samples than anywhere in the first."""
    third = max(1, len(samples) // 3)
    first, last = samples[:third], samples[-third:]

    def values(some: Sequence[Sample], name: str) -> list[int]:
        return [getattr(sample, name) for sample in some]

    return [name for name in ("files", "hooks", "threads") if min(values(last, name)) > max(values(first, name))]


def settled(samples: Sequence[Sample]) -> Sequence[Sample]:
    return samples[int(WARM * len(samples)) :]


def verdict_of_edits(samples: Sequence[Sample]) -> tuple[bool, str]:
    later = settled(samples)
    per_thousand = 1000 * slope(later)
    more = grown(later)
    held = f"memory {per_thousand:+.3f} MB per 1,000 edits after the first {WARM:.0%}, at most {most(samples):.0f} MB"
    return per_thousand <= GROWTH_MB and not more, f"{held}; more at the end: {', '.join(more) or 'nothing else'}"


def verdict_of_hours(short: Sequence[Sample], long: Sequence[Sample]) -> tuple[bool, str]:
    ratio, more = most(long) / most(short), grown(settled(long))
    held = f"memory at most {most(long):.0f} MB, {ratio:.3f} times that of {SHORT_MIN} minutes ({most(short):.0f} MB)"
    return ratio <= LONGER and not more, f"{held}; more at the end: {', '.join(more) or 'nothing else'}"


def most(samples: Sequence[Sample]) -> float:
    return max(sample.rss_mb for sample in samples)


def main(
    edits: Annotated[int, typer.Option(min=0, help="So many edits without goals, in one batch in this process.")] = 0,
    seconds: Annotated[float, typer.Option(min=0.05, help="How long each sound of these is.")] = 0.2,
    hours: Annotated[float, typer.Option(min=0, help="A file this long, edited by a loudness goal.")] = 0,
    rate: Annotated[int, typer.Option(help="Its sampling rate in Hz.")] = 24_000,
    model: Annotated[str, typer.Option(help="A codec with an SAE of its own.")] = "starter:codec",
    out: Annotated[Path | None, typer.Option(help="Save the samples here, as JSON.")] = None,
) -> None:
    """Sample memory, open files, hooks and threads, on one thread of torch. Exit code 1: something grew."""
    if not edits and not hours:
        raise typer.BadParameter("say what: --edits 10000, --hours 3, or both")
    rows, verdicts = [], []
    with threads(1), tempfile.TemporaryDirectory() as place:
        if edits:
            samples = many_edits(Path(place), edits, seconds, Recipe.build({"model": model, **SCALED}))
            rows += [{"of": "edits", **asdict(sample)} for sample in samples]
            verdicts.append(verdict_of_edits(samples))
        if hours:
            editor = Editor(Recipe.build({"model": model, **LOUDER}), pitch=False)
            short = long_file(Path(place), min(SHORT_MIN, 60 * hours), rate, editor)
            long = long_file(Path(place), 60 * hours, rate, editor)
            named = {f"{SHORT_MIN} minutes": short, f"{hours:g} hours": long}
            rows += [{"of": name, **asdict(sample)} for name, samples in named.items() for sample in samples]
            verdicts.append(verdict_of_hours(short, long))
        about = {**describe(), "verdicts": [told for _, told in verdicts]}
    report = Report("Endurance", rows, about=about)
    report.print()
    if out is not None:
        report.save(out)
    for steady, told in verdicts:
        print(f"{'steady' if steady else 'GROWS'}: {told}")
    raise typer.Exit(0 if all(steady for steady, _ in verdicts) else 1)


if __name__ == "__main__":
    typer.run(main)
