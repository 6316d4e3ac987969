from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from evaluation import frame
from evaluation.config import Config, EvaluationError, Names
from evaluation.dataset import Dataset
from evaluation.frame import Evaluator, depends_on, digest_of_module, digest_of_recordings, measured, write
from evaluation.report import Interval, Needed, Progress, Report, Share
from hooks import AudioModel
from hooks.errors import AudioSteerError
from steer.sae import SAE


def report(value: float = 0.5) -> Report:
    cells = {"share": Share(value, 0.25, 0.75, 8), "needed": Needed(1.0, 1.0, 1.0, 8, False), "none": None}
    return Report("title", [{"what": "a", **cells}], [{"clip": "x"}], {"split": "test"})


class Picture:
    def savefig(self, path: Path, format: str) -> None:
        path.write_text(format)


class Mine(Config):
    """A test's own."""

    sites: Names = ()
    notes: Path | None = None


class Runs:
    def __init__(self) -> None:
        self.count = 0

    def __call__(self, config: Mine, progress: Progress) -> Report:
        self.count += 1
        return report()

    __module__ = __name__


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    (tmp_path / "audio" / "a").mkdir(parents=True)
    (tmp_path / "audio" / "a" / "manifest.csv").write_text("path,split\nx.wav,test\n")
    (tmp_path / "audio" / "a" / "x.wav").write_bytes(b"1")
    return tmp_path / "audio"


@pytest.fixture
def config(audio: Path) -> Callable[..., Mine]:
    model = AudioModel(nn.Linear(2, 2), name="model")
    return lambda **options: Mine.build({"audio": audio, "subject": model, **options})


def evaluator(runs: Runs) -> Evaluator[Mine]:
    return Evaluator("part", Mine, runs, figure=lambda report: Picture())


def test_a_result_with_the_same_settings_is_found_again(tmp_path: Path, config: Callable[..., Mine]) -> None:
    runs, out = Runs(), tmp_path / "out"
    out.mkdir()
    fresh, known = measured(evaluator(runs), config(sites="a,b"), out)
    assert not known and {path.name for path in out.iterdir()} == {"part.json", "part.md", "part.png"}
    again, known = measured(evaluator(runs), config(sites=("a", "b")), out)
    assert known and again.to_dict() == fresh.to_dict() and runs.count == 1
    assert again.about["settings"]["sites"] == ["a", "b"]
    measured(evaluator(runs), config(sites="a,b"), out, fresh=True)
    assert runs.count == 2
    measured(evaluator(runs), config(sites="a,b"), out, "other")
    assert runs.count == 3 and (out / "other.json").exists()


def test_a_result_depends_on_options_recordings_models_files_and_code(
    tmp_path: Path, audio: Path, config: Callable[..., Mine], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Any]] = []

    def changed(**options: Any) -> bool:
        seen.append(depends_on(evaluator(Runs()), config(**options)))
        return seen[-1] not in seen[:-1]

    assert changed() and not changed() and not changed(out=tmp_path)
    assert changed(sites="a") and changed(seed=1) and changed(clips=3)
    (audio / "a" / "x.wav").write_bytes(b"2")
    assert changed()
    (audio / "a" / "manifest.csv").write_text("path,split\nx.wav,valid\n")
    assert changed()
    (tmp_path / "notes").write_text("1")
    assert changed(notes=tmp_path / "notes")
    (tmp_path / "notes").write_text("2")
    assert changed(notes=tmp_path / "notes")
    assert changed(subject=AudioModel(nn.Linear(2, 2), name="model"))
    monkeypatch.setattr(frame, "digest_of_code", lambda module: "another")
    assert changed()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"title": "", "rows": [{"a": {"b": 1}}], "clips": []}'])
def test_what_is_not_a_report_is_measured_again(tmp_path: Path, config: Callable[..., Mine], text: str) -> None:
    runs = Runs()
    measured(evaluator(runs), config(), tmp_path)
    (tmp_path / "part.json").write_text(text)
    assert not measured(evaluator(runs), config(), tmp_path)[1] and runs.count == 2


def test_what_fails_leaves_nothing(tmp_path: Path, config: Callable[..., Mine]) -> None:
    def fails(config: Mine, progress: Progress) -> Report:
        raise AudioSteerError("no clips")

    (tmp_path / "out").mkdir()
    with pytest.raises(AudioSteerError, match="no clips"):
        measured(Evaluator("part", Mine, fails), config(), tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_a_report_comes_back(tmp_path: Path) -> None:
    write(report(), tmp_path, "name")
    read = Report.load(tmp_path / "name.json")
    assert read == report()
    assert [type(value).__name__ for value in read.rows[0].values()] == ["str", "Share", "Needed", "NoneType"]
    write(Report("", [{"a": Interval(1, 0, 2, 3)}]), tmp_path, "plain")
    assert type(Report.load(tmp_path / "plain.json").rows[0]["a"]) is Interval
    assert json.loads((tmp_path / "name.json").read_text())["clips"] == [{"clip": "x"}]
    with pytest.raises(EvaluationError, match="could not be written"):
        write(report(), tmp_path / "none", "name")


def test_options_that_make_no_sense_are_one_line(audio: Path) -> None:
    with pytest.raises(EvaluationError, match="^--clips 0: .*greater than or equal to 1"):
        Mine.build({"audio": audio, "clips": 0})
    with pytest.raises(EvaluationError, match="^--columns text: 'text' is not of the form NAME=NAME"):
        Mine.build({"audio": audio, "columns": "text"})
    with pytest.raises(EvaluationError, match="--site nowhere: latent have theirs, pass --sae"):
        Mine.build({"audio": audio, "model": "starter:codec", "site": "nowhere"}).recipe()


def test_digests_tell_weights_and_kinds_apart() -> None:
    one = SAE(4, 8, "batchtopk", k=2)
    assert digest_of_module(one) == digest_of_module(like(one))
    assert len({digest_of_module(each) for each in (one, like(one, k=3), like(one, moved=1e-7))}) == 3
    assert digest_of_module(nn.Linear(2, 2).bfloat16()) != digest_of_module(nn.Linear(2, 2))


def like(sae: SAE, k: int = 2, moved: float = 0.0) -> SAE:
    other = SAE(4, 8, "batchtopk", k=k)
    other.load_state_dict(sae.state_dict())
    other.b_dec.data[0] += moved
    return other


def test_digests_of_recordings_go_by_subset(audio: Path) -> None:
    whole = digest_of_recordings(Dataset(audio))
    (audio / "b").mkdir()
    (audio / "b" / "manifest.csv").write_text("path,split\n")
    (audio / "b" / "manifest.csv").write_text("path,split\ny.wav,test\n")
    assert digest_of_recordings(Dataset(audio)) != whole == digest_of_recordings(Dataset(audio), ["a"])
