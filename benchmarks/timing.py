"""Times that can be compared: variants take turns in one process, and what counts is their ratio in the same round.

A sample in which the threads of this process waited for a core was disturbed by another process: it is taken again, and
if that does not help its round does not count. The base is measured twice in every round (A/A), as two variants: how
far their ratio is from 1 says what the machine's noise is.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from evaluation.report import Interval

TOLERANCE = 0.03
"""The share of its time that a sample may have waited for a core."""
TRIES = 3
LEAST = 3
"""So many rounds are kept in any case, the calmest."""
SAMPLE_S = 0.05
"""What is shorter than this is repeated within a sample until it is not."""


class Spread(Interval):
    """A median with its quartiles, and the number of rounds it stands on."""

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        values = sorted(values)
        if len(values) == 1:
            return cls(values[0], values[0], values[0], 1)
        low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(middle, low, high, len(values))


@dataclass(frozen=True)
class Sample:
    """Seconds a call, and the share of them that was spent in waiting for a core (0 where that is not known)."""

    seconds: float
    waited: float = 0.0


@dataclass(frozen=True)
class Timing:
    """The samples of a variant and of the base, one a round."""

    own: tuple[Sample, ...]
    base: tuple[Sample, ...]

    @property
    def kept(self) -> list[int]:
        """The rounds in which neither was disturbed; the calmest `LEAST` of them where those are fewer."""
        waited = [max(own.waited, base.waited) for own, base in zip(self.own, self.base, strict=True)]
        calm = [number for number, share in enumerate(waited) if share <= TOLERANCE]
        if len(calm) >= min(LEAST, len(waited)):
            return calm
        return sorted(sorted(range(len(waited)), key=waited.__getitem__)[:LEAST])

    @property
    def disturbed(self) -> bool:
        """Whether a round had to be kept that was disturbed."""
        return any(max(self.own[n].waited, self.base[n].waited) > TOLERANCE for n in self.kept)

    @property
    def seconds(self) -> Spread:
        return Spread.of(self.own[number].seconds for number in self.kept)

    @property
    def ratio(self) -> Spread:
        """To the base, round by round."""
        return Spread.of(self.own[number].seconds / self.base[number].seconds for number in self.kept)

    @property
    def extra_s(self) -> Spread:
        """Seconds more than the base, round by round."""
        return Spread.of(self.own[number].seconds - self.base[number].seconds for number in self.kept)


@dataclass(frozen=True)
class Variant:
    """What is timed, and what holds around it (an edit that is on) and is not."""

    run: Callable[[], object]
    around: Callable[[], AbstractContextManager[object]] = nullcontext


def compare(
    variants: Mapping[str, Variant | Callable[[], object]],
    base: str,
    rounds: int,
    sample_s: float = SAMPLE_S,
    measure: Callable[[Callable[[], object], int], Sample] | None = None,
) -> dict[str, Timing]:
    """Time all variants against the one named `base`: they take turns, and every round starts with another.

    `measure` takes a sample of so many calls, by default by the clock.
    """
    measure = measure or measured
    ready = {name: one if isinstance(one, Variant) else Variant(one) for name, one in variants.items()}
    repeats = {}
    for name, variant in ready.items():
        with variant.around():
            variant.run()
            repeats[name] = max(1, int(sample_s / max(measure(variant.run, 1).seconds, 1e-7)))
    samples: dict[str, list[Sample]] = {name: [] for name in ready}
    names = list(ready)
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            with ready[name].around():
                samples[name].append(calmest(lambda name=name: measure(ready[name].run, repeats[name])))  # type: ignore[misc]
    return {name: Timing(tuple(own), tuple(samples[base])) for name, own in samples.items()}


def calmest(take: Callable[[], Sample]) -> Sample:
    """The first sample that was not disturbed, or of `TRIES` the least disturbed."""
    samples: list[Sample] = []
    while len(samples) < TRIES:
        samples.append(take())
        if samples[-1].waited <= TOLERANCE:
            return samples[-1]
    return min(samples, key=lambda sample: sample.waited)


def measured(run: Callable[[], object], repeats: int) -> Sample:
    waited, began = waited_s(), time.perf_counter()
    for _ in range(repeats):
        run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    took = time.perf_counter() - began
    return Sample(took / repeats, (waited_s() - waited) / took)


def measured_by_events(run: Callable[[], object], repeats: int) -> Sample:
    """The same by a GPU's own clock, between the moments at which it comes to the first call and is done with all."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    waited, began = waited_s(), time.perf_counter()
    begin.record()
    for _ in range(repeats):
        run()
    end.record()
    end.synchronize()
    took = time.perf_counter() - began
    return Sample(begin.elapsed_time(end) / 1e3 / repeats, (waited_s() - waited) / took)


def waited_s() -> float:
    """Seconds that the threads of this process have been ready to run but had no core (Linux; elsewhere 0)."""
    total = 0
    for task in threads():
        try:
            total += int((task / "schedstat").read_text().split()[1])
        except (OSError, IndexError):  # a thread that has just ended
            continue
    return total / 1e9


def threads() -> Sequence[Path]:
    try:
        return [Path(entry.path) for entry in os.scandir("/proc/self/task")]
    except OSError:
        return []


def peak_bytes(run: Callable[[], object]) -> int:
    """The most memory on the CPU that torch held at once for `run`, beside what it held before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler:
        run()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    held = most = 0
    for event in sorted((one for one in events if one["name"] == "[memory]"), key=lambda one: one["ts"]):
        if event["args"]["Device Type"] == 0:
            held += event["args"]["Bytes"]
            most = max(most, held)
    return most
