"""One kind of malformed things through the functions that take them, in a process of its own, so that a crash is too.

`main` writes FOLDER/report.json at the end. FOLDER/now.txt says at any time what is being tried; what it was tried on
lies in FOLDER/tried. A thing that takes longer than `DEADLINE_S` ends the process.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import resource
import shutil
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

DEADLINE_S = 60.0  # the machine may be busy
MAX_MEMORY = 2 * 2**30
CANARY = "canary"
"""A file of this name beside the things means that something in them was run."""


@dataclass(frozen=True)
class Case:
    """A thing to try. `run` raises an error of ours, or gives an exit code or nothing; `named` is in the message."""

    name: str
    run: Callable[[], int | None]
    named: str = ""


class Wrong(Exception):
    """What came out is not what was promised."""


def outcome_of(case: Case) -> str:
    """ "done" or "refused"; raises Wrong."""
    from hooks.errors import AudioSteerError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the project's own notices
            warnings.simplefilter("error", RuntimeWarning)  # numpy's of numbers that went wrong
            refused = case.run()
    except AudioSteerError as error:
        text = str(error)
        if not text or len(text.splitlines()) > 1 or len(text) > 2000:
            raise Wrong(f"not one clear line: {text[:300]!r}") from error
        if case.named not in text:
            raise Wrong(f"the message does not say which file: {text[:300]!r}") from error
        return "refused"
    return "refused" if refused else "done"


def run(cases: Iterator[Case], folder: Path) -> dict[str, object]:
    """Try all; what is wrong is collected."""
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    kept = folder / "wrong"
    slowest, start = (0.0, ""), time.monotonic()
    # a process that tests ran in before may have had more
    allowed = max(MAX_MEMORY, memory())
    for case in cases:
        (folder / "now.txt").write_text(case.name, encoding="utf-8")
        faulthandler.dump_traceback_later(DEADLINE_S, exit=True)
        began = time.monotonic()
        try:
            counts[outcome_of(case)] += 1
        except Exception:
            counts["wrong"] += 1
            wrong.append(f"{case.name}: {traceback.format_exc()[-1500:]}")
            if len(wrong) <= 20:
                shutil.copytree(
                    folder / "tried",
                    kept / case.name.replace("/", "_")[:80],
                    symlinks=True,
                    ignore=special,
                    dirs_exist_ok=True,
                )
        faulthandler.cancel_dump_traceback_later()
        slowest = max(slowest, (time.monotonic() - began, case.name))
        if memory() > allowed:
            wrong.append(f"{case.name}: {memory() / 2**30:.1f} GiB of memory")
            break
        if (folder / CANARY).exists():
            wrong.append(f"{case.name}: was run")
            break
    seconds = round(time.monotonic() - start, 1)
    return {
        "counts": counts,
        "wrong": wrong,
        "seconds": seconds,
        "slowest": slowest,
        "memory": memory(),
    }


def special(folder: str, names: list[str]) -> list[str]:
    """What must not be copied: devices, pipes."""
    return [name for name in names if not os.path.isfile(os.path.join(folder, name))]


def memory() -> int:
    """The most bytes that were resident at a time."""
    status = Path("/proc/self/status")
    if status.exists():
        # what `getrusage` tells begins with what the process that started this one had
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main(kind: str, count: int, folder: Path) -> None:
    # a tenfold of what is allowed would take the machine down before it is measured
    resource.setrlimit(resource.RLIMIT_DATA, (3 * MAX_MEMORY, 3 * MAX_MEMORY))
    tried = folder / "tried"
    tried.mkdir(parents=True)
    os.chdir(folder)
    cases = importlib.import_module(f"tests.fuzz.{kind}").cases(tried, count)
    (folder / "report.json").write_text(json.dumps(run(cases, folder), indent=1), encoding="utf-8")
