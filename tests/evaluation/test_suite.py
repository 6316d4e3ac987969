from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from torch import nn

from evaluation.concepts import Needed
from evaluation.report import Interval, Report, Share
from evaluation.suite import Part, SuiteError, fingerprint, fingerprint_of_manifests, read, write
from hooks.errors import AudioSteerError
from steer.sae import SAE


def report(value: float = 0.5) -> Report:
    cells = {"share": Share(value, 0.25, 0.75, 8), "needed": Needed(1.0, 1.0, 1.0, 8, False), "none": None}
    return Report("title", [{"what": "a", **cells}], [{"clip": "x"}], {"split": "test"})


class Picture:
    def savefig(self, path: Path, format: str) -> None:
        path.write_text(format)


def part(runs: list[int], **settings: object) -> Part:
    def measure() -> Report:
        runs.append(1)
        return report()

    return Part("part", {"clips": 4, **settings}, measure, lambda _: Picture())


def test_what_was_measured_with_the_same_settings_is_known(tmp_path: Path) -> None:
    runs: list[int] = []
    one = part(runs, sites=("a", "b"))  # JSON makes a list of it
    assert one.known(tmp_path) is None
    fresh = one.run(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"part.json", "part.md", "part.png"}
    known = one.known(tmp_path)
    assert known is not None and known.to_dict() == fresh.to_dict()
    assert known.about["settings"] == {"clips": 4, "sites": ["a", "b"]}
    assert part(runs, sites=("a",)).known(tmp_path) is None
    assert replace(one, name="other").known(tmp_path) is None
    assert len(runs) == 1


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"title": "", "rows": [{"a": {"b": 1}}], "clips": []}'])
def test_what_is_no_report_is_not_known(tmp_path: Path, text: str) -> None:
    one = part([])
    one.run(tmp_path)
    (tmp_path / "part.json").write_text(text)
    assert one.known(tmp_path) is None


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    def measure() -> Report:
        raise AudioSteerError("no clips")

    with pytest.raises(AudioSteerError, match="no clips"):
        Part("part", {}, measure, lambda _: Picture()).run(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_report_comes_back(tmp_path: Path) -> None:
    write(report(), tmp_path, "name")
    (row,) = read(tmp_path / "name.json").rows
    assert row["share"] == Interval(0.5, 0.25, 0.75, 8)
    assert str(row["needed"]) == "not reached"
    assert (row["what"], row["none"]) == ("a", None)
    assert json.loads((tmp_path / "name.json").read_text())["clips"] == [{"clip": "x"}]
    with pytest.raises(SuiteError, match="could not be written"):
        write(report(), tmp_path / "none", "name")


def test_fingerprints_tell_weights_and_kinds_apart() -> None:
    one = SAE(4, 8, "batchtopk", k=2)
    assert fingerprint(one) == fingerprint(like(one))
    assert len({fingerprint(one), fingerprint(like(one, k=3)), fingerprint(like(one, moved=1e-7))}) == 3
    assert fingerprint(nn.Linear(2, 2).bfloat16()) != fingerprint(nn.Linear(2, 2))


def like(sae: SAE, k: int = 2, moved: float = 0.0) -> SAE:
    other = SAE(4, 8, "batchtopk", k=k)
    other.load_state_dict(sae.state_dict())
    other.b_dec.data[0] += moved
    return other


def test_fingerprints_of_recordings(tmp_path: Path) -> None:
    seen = set()
    for subset, text in (("a", "path,split\n"), ("b", "path,split\n"), ("a", "path,split\nx.wav,test\n")):
        (tmp_path / subset).mkdir(exist_ok=True)
        (tmp_path / subset / "manifest.csv").write_text(text)
        seen.add(fingerprint_of_manifests(tmp_path))
        (tmp_path / subset / "manifest.csv").unlink()
    assert len(seen) == 3
