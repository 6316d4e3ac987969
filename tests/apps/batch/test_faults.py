"""Full disks, folders and files without rights, files that change while they are read, and damaged ones."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import soundfile

from apps.batch.edit_work import EditWorker
from apps.batch.jobs import Job
from apps.batch.journal import read_rows
from tests.apps.batch.cluster import QUIET, main_under, rows, without_root_rights
from tests.apps.batch.conftest import outputs, write_sounds
from tests.processes import Forked

Steer = Callable[..., tuple[int, str, str]]


def steer_under(limit: Callable[[], object], *arguments: object) -> tuple[int, str, str]:
    """Exit code, output and errors of `steer ARGUMENTS` in a process in which `limit` was called before."""
    process = Forked(main_under, limit, [*map(str, arguments)], variables=QUIET)
    out, err = process.text()
    return process.wait(300), out, err


@pytest.fixture
def few(tmp_path: Path) -> Path:
    write_sounds(tmp_path / "in", 6)
    return tmp_path / "in"


# --- the disk ---


def test_full_disk(steer: Steer, few: Path, edits: list[str], tmp_path: Path) -> None:
    """No file may be longer than some of the outputs are: neither the others nor the journal."""
    out = tmp_path / "out"
    sizes = {path.relative_to(few).as_posix(): path.stat().st_size for path in few.rglob("*.wav")}
    limit = sorted(sizes.values())[3]
    no_more = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (limit, limit))
    code, printed, err = steer_under(no_more, "edit", few, "-o", out, *edits, "--json")
    assert code == 1
    (line,) = err.splitlines()
    assert line.startswith(f"{out / 'journal.jsonl'}: could not be written (is the disk full?): ")
    report = json.loads(printed)["report"]
    too_long = {name for name, size in sizes.items() if size > limit}
    assert report["files"] == 6 and report["failed"] == len(too_long) == 2
    for failure in report["failures"]:
        assert failure["target"] in too_long
        assert failure["error"] == f"{out / failure['target']}: could not be written (File too large)"
    done = outputs(out)
    assert set(done) == set(sizes) - too_long  # and nothing half-written
    assert all(line.endswith(b"}") for line in (out / "journal.jsonl").read_bytes().splitlines())
    # there is room again: what the journal tells of goes on, what it could not tell of is not overwritten unasked
    code, printed, _ = steer("edit", few, "-o", out, *edits, "--retry-failed", "--json")
    assert code == 1
    for failure in json.loads(printed)["report"]["failures"]:
        assert failure["error"].endswith(": exists already; use --force to overwrite it")
    assert set(outputs(out)) == set(sizes)
    assert outputs(out).items() >= done.items()
    assert steer("edit", few, "-o", out, *edits, "--force")[0] == 0


def test_disk_full_at_outputs_alone(
    steer: Steer, few: Path, edits: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk takes the name of a file and not its content, when that is sent to it at the end."""
    sent, full = os.fsync, OSError(28, "No space left on device")

    def fsync(file: int) -> None:
        if os.readlink(f"/proc/self/fd/{file}").endswith(".partial"):
            raise full
        sent(file)

    out = tmp_path / "out"
    monkeypatch.setattr(os, "fsync", fsync)
    code, printed, _ = steer("edit", few, "-o", out, *edits, "--json")
    assert code == 1
    assert not outputs(out)
    errors = {one["target"]: one["error"] for one in json.loads(printed)["report"]["failures"]}
    assert len(errors) == 6
    assert all(error == f"{out / key}: could not be written (No space left on device)" for key, error in errors.items())
    monkeypatch.undo()
    assert steer("edit", few, "-o", out, *edits)[0] == 1  # failures are kept
    assert steer("edit", few, "-o", out, *edits, "--retry-failed")[0] == 0
    assert len(outputs(out)) == 6


# --- rights ---


def test_folder_and_files_without_rights(steer: Steer, few: Path, edits: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "1").mkdir(parents=True)
    unreadable, hidden = few / "2" / "002.wav", few / "1" / "001.wav"
    unreadable.chmod(0)
    (out / "1").chmod(0o555)
    code, printed, err = steer_under(without_root_rights, "edit", few, "-o", out, *edits, "--json")
    assert code == 1, err
    errors = {one["source"]: one["error"] for one in json.loads(printed)["report"]["failures"]}
    assert errors == {
        str(unreadable): f"{unreadable}: cannot be read (Permission denied)",
        str(hidden): f"{out / '1'}: no permission to write there",
    }
    assert len(outputs(out)) == 4
    unreadable.chmod(0o644)
    (out / "1").chmod(0o755)
    assert steer("edit", few, "-o", out, *edits, "--retry-failed")[0] == 0
    assert len(outputs(out)) == 6


def test_read_only_output(few: Path, edits: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir(mode=0o555)
    below = out / "below"
    for folder, said in (
        (out, f"{out / 'journal.jsonl'}: cannot be opened (Permission denied)"),
        (below, f"{below}: the folder cannot be made (Permission denied)"),
    ):
        assert steer_under(without_root_rights, "edit", few, "-o", folder, *edits) == (2, "", f"steer: {said}\n")


# --- files that change ---


@pytest.mark.parametrize("step", ["read", "work", "keep"])
@pytest.mark.parametrize("options", [[], ["--during", "9-10"]], ids=["edited", "copied"])
def test_file_changes_while_the_batch_has_it(
    step: str,
    options: list[str],
    steer: Steer,
    few: Path,
    edits: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before any of the three steps that come after its digest was taken: then the next call does it again."""
    out, victim = tmp_path / "out", few / "3" / "003.wav"
    usual: Callable[..., Any] = getattr(EditWorker, step)

    def disturbed(worker: EditWorker, jobs: Job | Sequence[Job], *values: Any) -> Any:
        if any(job.source == victim for job in ([jobs] if isinstance(jobs, Job) else jobs)):
            soundfile.write(victim, 0.05 * soundfile.read(victim)[0].repeat(2), 8000)
        return usual(worker, jobs, *values)

    monkeypatch.setattr(EditWorker, step, disturbed)
    code, printed, _ = steer("edit", few, "-o", out, *edits, *options, "--json")
    failures = json.loads(printed)["report"]["failures"]
    monkeypatch.undo()
    if step == "read" or options:
        assert code == 1
        (failure,) = failures
        assert failure["error"] == f"{victim}: was changed while it was read"
        assert "3/003.wav" not in outputs(out)
    else:  # it was in memory whole: what is written is what was there then
        assert code == 0
    assert steer("edit", few, "-o", out, *edits, *options)[0] == 0
    assert steer("edit", few, "-o", tmp_path / "fresh", *edits, *options)[0] == 0
    assert outputs(out) == outputs(tmp_path / "fresh")


def test_killed_while_it_was_done_again(
    steer: Steer, few: Path, edits: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An input changed, its output was written, and the row of it was not: the output is ours all the same."""
    out, changed = tmp_path / "out", few / "0" / "000.wav"
    assert steer("edit", few, "-o", out, *edits)[0] == 0
    shutil.copy(few / "1" / "001.wav", changed)
    monkeypatch.setattr("apps.batch.journal.Journal.note", interrupted)
    assert steer("edit", few, "-o", out, *edits)[0] == 130
    monkeypatch.undo()
    assert outputs(out)["0/000.wav"] == outputs(out)["1/001.wav"]
    assert steer("edit", few, "-o", out, *edits)[0] == 0
    assert len(rows(out)) == 7


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_failure_leaves_the_output_before_ours(steer: Steer, few: Path, edits: list[str], tmp_path: Path) -> None:
    out, changed = tmp_path / "out", few / "0" / "000.wav"
    assert steer("edit", few, "-o", out, *edits)[0] == 0
    changed.write_text("no sound")
    assert steer("edit", few, "-o", out, *edits)[0] == 1
    shutil.copy(few / "1" / "001.wav", changed)
    assert steer("edit", few, "-o", out, *edits)[0] == 0
    assert outputs(out)["0/000.wav"] == outputs(out)["1/001.wav"]


# --- damage ---


def flip(data: bytearray, rng: random.Random, start: int, end: int) -> bytes:
    for _ in range(8):
        data[rng.randrange(start, end)] ^= 1 << rng.randrange(8)
    return bytes(data)


def test_damaged_files_among_good_ones(steer: Steer, edits: list[str], tmp_path: Path) -> None:
    """10 of 100: those that cannot be read are a row each that names them; those that decode still are done."""
    folder, out, rng = tmp_path / "in", tmp_path / "out", random.Random(0)
    write_sounds(folder, 100)
    flac = folder / "0" / "flac.flac"
    soundfile.write(flac, soundfile.read(folder / "0" / "000.wav")[0], 8000)
    paths = rng.sample(sorted(folder.rglob("*.wav")), 10)
    head, samples, cut, short, text, empty, zeros, alien, other, magic = paths
    head.write_bytes(flip(bytearray(head.read_bytes()), rng, 0, 4))
    samples.write_bytes(flip(bytearray(samples.read_bytes()), rng, 44, samples.stat().st_size))
    cut.write_bytes(cut.read_bytes()[:300])  # its header says that there is more
    short.write_bytes(short.read_bytes()[:20])
    text.write_text("these are words\n" * 40)
    empty.write_bytes(b"")
    zeros.write_bytes(bytes(900))
    alien.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(200))
    other.write_bytes(flac.read_bytes())  # FLAC by the name of WAV
    magic.write_bytes(b"RIFF" + rng.randbytes(600))
    flac.write_bytes(flip(bytearray(flac.read_bytes()), rng, 100, flac.stat().st_size))  # checksums tell
    code, printed, _ = steer("edit", folder, "-o", out, *edits, "--json")
    assert code == 1
    report = json.loads(printed)["report"]
    errors = {one["source"]: one["error"] for one in report["failures"]}
    assert set(errors) == {str(path) for path in (head, cut, short, text, empty, zeros, alien, magic, flac)}
    assert "truncated" in errors[str(cut)]
    for source, error in errors.items():
        assert error.startswith(f"{source}: ") and "\n" not in error
    good = tmp_path / "good"
    for path in folder.rglob("*.*"):
        if str(path) not in errors:
            (good / path.relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, good / path.relative_to(folder))
    assert steer("edit", good, "-o", tmp_path / "alone", *edits)[0] == 0
    assert outputs(out) == outputs(tmp_path / "alone")
    assert len(outputs(out)) == 101 - len(errors) == report["done"]
    assert {path.relative_to(folder).as_posix() for path in (samples, other)} <= set(outputs(out))
    assert len(read_rows(out)) == 101
