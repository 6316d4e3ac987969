"""Batches as people start them: manifests, reports, workers, and calls that go on where the last one ended."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
Write = Callable[..., Path]
Edit = Callable[..., tuple[int, dict[str, Any], str]]


@pytest.fixture
def means(codec_folder: Path, sae_folder: Path) -> list[str]:
    return ["--model", str(codec_folder), "--sae", str(sae_folder), "--clamp", "0=1.0"]


@pytest.fixture
def edit(steer: Callable[..., tuple[int, str, str]], means: list[str]) -> Edit:
    """`steer edit --json` with the tiny codec: (exit code, what it prints, standard error)."""

    def run(*arguments: object) -> tuple[int, dict[str, Any], str]:
        code, out, err = steer("edit", *means, *arguments, "--json")
        return code, json.loads(out) if out else {}, err

    return run


def done_now(told: dict[str, Any]) -> int:
    return told["report"]["this_call"]["files"]


def sounds_in(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.wav")}


def test_a_manifest_with_recipes_of_its_own(
    edit: Edit, steer: Callable[..., tuple[int, str, str]], codec_folder: Path, sae_folder: Path, sound: Write
) -> None:
    folder = sound("in/a.wav", 0.3).parent
    (folder / "sae").symlink_to(sae_folder)
    own = {"model": str(codec_folder), "saes": {"latent": "sae"}, "edits": [{"clamp": {"1": 3.0}}]}
    (folder / "own.yaml").write_text(json.dumps(own))
    rows = [{"path": "a.wav", "output": f"x/{name}.wav"} for name in ("plain", "file", "inside", "none")]
    rows[1]["recipe"] = "own.yaml"
    rows[2]["recipe"] = own  # type: ignore[assignment]
    rows[3]["path"] = "none.wav"
    manifest = folder / "list.jsonl"
    manifest.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    out = folder.parent / "out"
    code, told, _ = edit(manifest, "-o", out)
    assert code == 1 and (told["report"]["done"], told["report"]["failed"]) == (3, 1)
    assert told["report"]["failures"][0]["target"] == "x/none.wav"
    sounds = sounds_in(out)
    # its own recipe with the option --clamp 0=1.0 on top is another sound than that alone
    assert sounds["x/file.wav"] == sounds["x/inside.wav"] != sounds["x/plain.wav"]
    assert done_now(edit(manifest, "-o", out)[1]) == 0
    # one recipe is changed: its file is done again, and no other
    (folder / "own.yaml").write_text(json.dumps({**own, "edits": [{"clamp": {"1": -3.0}}]}))
    assert done_now(edit(manifest, "-o", out)[1]) == 1
    assert sounds_in(out)["x/file.wav"] != sounds["x/file.wav"]


def test_reports_retries_and_force(edit: Edit, sound: Write, tmp_path: Path) -> None:
    for name in ("a.wav", "deep/b.wav"):
        sound(f"in/{name}", 0.2)
    broken = tmp_path / "in" / "<script>.wav"
    broken.write_text("no sound")
    out, page, data = tmp_path / "out", tmp_path / "r" / "report.html", tmp_path / "r" / "report.json"
    code, told, _ = edit(tmp_path / "in", "-o", out, "--report", page, "--report", data)
    assert code == 1 and json.loads(data.read_text()) == told["report"]
    assert "&lt;script&gt;.wav" in page.read_text() and "<script>" not in page.read_text()
    before = sounds_in(out)
    assert done_now(edit(tmp_path / "in", "-o", out)[1]) == 0
    code, told, _ = edit(tmp_path / "in", "-o", out, "--retry-failed")
    assert code == 1 and done_now(told) == 1
    shutil.copy(tmp_path / "in" / "a.wav", broken)
    code, told, _ = edit(tmp_path / "in", "-o", out)
    assert code == 0 and done_now(told) == 1
    (out / "a.wav").write_text("changed by hand")
    code, told, _ = edit(tmp_path / "in", "-o", out)
    assert code == 1 and "use --force" in told["report"]["failures"][0]["error"]
    code, told, _ = edit(tmp_path / "in", "-o", out, "--force")
    assert code == 0 and done_now(told) == 3
    assert {name: sounds_in(out)[name] for name in before} == before


def test_from_another_folder_it_is_the_same_batch(
    edit: Edit, sound: Write, tmp_path: Path, sae_folder: Path, codec_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound("in/a.wav", 0.2)
    (tmp_path / "sae").symlink_to(sae_folder)
    (tmp_path / "r.yaml").write_text(json.dumps({"model": str(codec_folder), "saes": {"latent": "sae"}}))
    monkeypatch.chdir(tmp_path)
    assert done_now(edit("in", "-o", "out", "--recipe", "r.yaml")[1]) == 1
    monkeypatch.chdir(tmp_path / "in")
    assert done_now(edit(".", "-o", "../out", "--recipe", "../r.yaml")[1]) == 0


def test_two_workers_write_the_same_bytes(edit: Edit, sound: Write, tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    for number in range(4):
        sound(f"in/{number}.wav", 0.2 + 0.1 * number)
    (tmp_path / "in" / "bad.wav").write_text("no sound")
    code, here, _ = edit(tmp_path / "in", "-o", tmp_path / "1")
    assert code == 1
    code, there, _ = edit(tmp_path / "in", "-o", tmp_path / "2", "--workers", 2)
    assert code == 1 and sounds_in(tmp_path / "1") == sounds_in(tmp_path / "2") and len(sounds_in(tmp_path / "2")) == 4

    def results(told: dict[str, Any]) -> list[dict[str, Any]]:
        return [{key: value for key, value in one.items() if key != "target"} for one in told["files"]]

    assert results(here) == results(there)
    assert done_now(edit(tmp_path / "in", "-o", tmp_path / "2")[1]) == 0  # who did it makes no difference


def test_no_scheduler_is_one_line(edit: Edit, sound: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr("apps.batch.engine.CONNECT_S", 1)
    sound("in/a.wav", 0.2)
    code, _, err = edit(tmp_path / "in", "-o", tmp_path / "out", "--cluster", "tcp://127.0.0.1:9")
    assert code == 2 and err.startswith("steer: --cluster tcp://127.0.0.1:9: no scheduler") and err.count("\n") == 1


STOPPED = """
import sys, time
from apps.batch.edit_work import EditWorker
from apps.cli import main
work, worked = EditWorker.work, []
def slow(self, jobs, values):
    worked.append(jobs)
    if len(worked) == 3:
        print("now", flush=True)
        for _ in range(6000):  # a signal just before one long sleep would wait for its end
            time.sleep(0.1)
    return work(self, jobs, values)
EditWorker.work = slow
main(sys.argv[1:])
"""


def test_a_stopped_call_is_finished_by_the_next(edit: Edit, means: list[str], sound: Write, tmp_path: Path) -> None:
    """Also with names that are not UTF-8, which the first call prints nothing of and the second one tells."""
    for number in range(5):
        sound(f"in/{number}.wav", 0.2)
    shutil.copy(tmp_path / "in" / "0.wav", os.path.join(os.fsencode(tmp_path), b"in", b"caf\xe9.wav"))
    arguments = ["edit", *means, str(tmp_path / "in"), "-o", str(tmp_path / "out")]
    command = [sys.executable, "-c", STOPPED, *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as first:
        try:
            assert first.stdout is not None and first.stdout.readline() == b"now\n"
            first.send_signal(signal.SIGTERM)
            assert first.wait(60) == 130
        finally:
            first.kill()
        assert first.stderr is not None and b"Traceback" not in first.stderr.read()
    told = edit(tmp_path / "in", "-o", tmp_path / "out")[1]
    assert (told["report"]["done"], told["report"]["failed"], done_now(told)) == (6, 0, 5)
    assert not list((tmp_path / "out").glob(".*"))
    edit(tmp_path / "in", "-o", tmp_path / "whole")
    assert sounds_in(tmp_path / "out") == sounds_in(tmp_path / "whole")
