"""`Job`, a file and what shall become of it, and `Row`, what became of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from apps.inputs import Input
from hooks import AudioFileError, AudioSteerError
from steer.recipe import Recipe


class BatchError(AudioSteerError):
    """A batch that cannot begin or go on."""


@dataclass(frozen=True)
class Job:
    """A file to read, the one to write (if any), and a picture if one is wanted.

    `key` is its name in the journal: the target, below the output folder. `recipe` is its own, in the place of the
    task's, and `fingerprint` tells all but the source that decides on the output.
    """

    source: Path
    target: Path | None = None
    key: str = ""
    picture: Path | None = None
    recipe: Recipe | None = None
    fingerprint: str = ""

    def absolute(self) -> Job:
        """The same for a process in another folder."""
        target, picture = (path and path.absolute() for path in (self.target, self.picture))
        return replace(self, source=self.source.absolute(), target=target, picture=picture)


@dataclass(frozen=True)
class Row:
    """What became of a job: a line of the journal.

    `input` and `output` are the files' digests, `read` and `wrote` their sizes (bytes) and times of change (ns);
    `recipe` is the fingerprint of all else that decides on the output. `seconds` is how long the sound is and `took`
    how long the work was; `result` is what the task measured. An `error` is one line.
    """

    key: str
    source: str
    error: str = ""
    input: str = ""
    read: tuple[int, int] = (0, 0)
    recipe: str = ""
    output: str = ""
    wrote: tuple[int, int] = (0, 0)
    seconds: float = 0.0
    took: float = 0.0
    result: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, values: dict[str, Any]) -> Row:
        """Keys that a later version writes are left out. Raises TypeError, ValueError or OverflowError where the
        values are no row's."""
        known = {one.name: values[one.name] for one in fields(cls) if one.name in values}
        row = cls(**known)
        texts = (row.key, row.source, row.error, row.input, row.recipe, row.output)
        if not all(isinstance(text, str) for text in texts):
            raise TypeError("names, digests and errors are text")
        known |= {"read": pair(row.read), "wrote": pair(row.wrote), "result": dict(row.result)}
        return cls(**{**known, "seconds": float(row.seconds), "took": float(row.took)})

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def complaint(self) -> str:
        """The error, with the file's name before it."""
        return self.error if self.error.startswith(f"{self.source}: ") else f"{self.source}: {self.error}"

    def failure(self) -> dict[str, str]:
        return {"source": self.source, "target": self.key, "error": self.error}


def pair(values: Sequence[int]) -> tuple[int, int]:
    first, second = values
    return int(first), int(second)


def plan(
    inputs: Sequence[Input],
    out: Path | None,
    target_of: Callable[[Path], Path],
    picture_of: Callable[[Path], Path | None],
    recipe_of: Callable[[Input], tuple[Recipe | None, str]],
) -> list[Job]:
    """A job for each input. `target_of` says what a name in the tree becomes below `out`, without which nothing is
    written; `picture_of` where its picture goes, and `recipe_of` gives its own recipe and the fingerprint.

    Raises:
        AudioFileError: two files for one place, or none that does not lie in `out` itself.
    """
    if out is None:
        # one source may have several recipes, and a name for each
        twice = {source for source, times in Counter(one.source for one in inputs).items() if times > 1}
        keys = [f"{one.source} as {one.name}" if one.source in twice else str(one.source) for one in inputs]
        return [Job(one.source, None, key, None, *recipe_of(one)) for key, one in zip(keys, inputs, strict=True)]
    if out.is_file():
        raise AudioFileError(f"{out}: is a file; several inputs need a folder to write to")
    jobs: dict[Path, Job] = {}
    inside = out.resolve()
    for one in inputs:
        if inside in one.source.resolve().parents:  # the output may lie in a folder that is read
            continue
        name = target_of(one.name)
        target = out / name
        if target in jobs:
            raise AudioFileError(f"{one.source} and {jobs[target].source} would both be written to {target}")
        jobs[target] = Job(one.source, target, name.as_posix(), picture_of(one.name), *recipe_of(one))
    if not jobs:
        raise AudioFileError(f"{inputs[0].folder}: all its sound files lie in {out}, where results go")
    return list(jobs.values())
