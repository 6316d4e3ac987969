"""Probes on few features, where it is known which features tell a concept."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation import sparse_probing
from evaluation.ablation import ConceptError
from evaluation.dataset import LabelledSound
from evaluation.site_features import SiteFeatures
from evaluation.sparse_probing import evaluate
from steer import SteeredModel

pytest.importorskip("sklearn", reason="extra eval")

CLIPS = 160


class Named:
    name = "m"


class Steered:
    """What the evaluation needs of a model whose features are known."""

    model = Named()


@pytest.fixture
def features(monkeypatch: pytest.MonkeyPatch) -> dict[str, SiteFeatures]:
    """At the first site feature 7 tells a bark alone; at the second 3 and 5 have to be added for that. Feature 0 is
    silent."""
    rng = np.random.default_rng(0)
    bark_N = np.arange(CLIPS) % 4 == 0
    part_N = rng.integers(0, 2, CLIPS) * 2.0
    alone_NF, split_NF = (rng.random((CLIPS, 30)) for _ in range(2))
    alone_NF[:, 7] += 3 * bark_N
    split_NF[:, 3] = part_N + 0.1 * rng.random(CLIPS)
    split_NF[:, 5] = 2 * bark_N - part_N + 3 + 0.1 * rng.random(CLIPS)
    for some in (alone_NF, split_NF):
        some[:, 0] = 0
    found = {
        "a": SiteFeatures(np.zeros_like(alone_NF), alone_NF),
        "b": SiteFeatures(alone_NF, split_NF),
    }
    monkeypatch.setattr(sparse_probing, "site_features", lambda *_: found)
    return found


def clips() -> tuple[list[LabelledSound], list[LabelledSound]]:
    made = [
        LabelledSound("", str(n), {"sound": "bark" if n % 4 == 0 else "rain", "day": "xyz"[n * 7 % 11 % 3]})
        for n in range(CLIPS)
    ]
    return made[: CLIPS // 2], made[CLIPS // 2 :]


def test_one_feature_or_two_tell_it(features: dict[str, SiteFeatures]) -> None:
    steered: SteeredModel = Steered()  # type: ignore[assignment]
    reports = evaluate(steered, *clips(), ["sound"], sites=["a", "b"], counts=[2, 1, 10])
    (alone,), (split,) = (report.rows for report in reports.values())
    assert list(alone) == ["concept", "held out", "chance", "1", "2", "10", "all", "random 10"]
    assert reports["a"].about["best features"]["sound=bark"][0] == 7
    assert alone["1"].value == alone["all"].value == 1.0
    assert set(reports["b"].about["best features"]["sound=bark"][:2]) == {3, 5}
    assert split["1"].value < 0.95
    assert split["2"].value == 1.0
    # the one that tells is among 10 of 29 every third time or so
    assert alone["random 10"].value < 0.9
    assert reports["a"].about["features that fire"] == 29
    assert alone["1"].low < 1.0  # 80 clips that are all told right


def test_what_cannot_be_told_is_not_in_the_mean(features: dict[str, SiteFeatures]) -> None:
    steered: SteeredModel = Steered()  # type: ignore[assignment]
    report = evaluate(steered, *clips(), ["sound", "day"], sites=["a"], draws=0)["a"]
    names = [row["concept"] for row in report.rows]
    assert names[0] == "sound=bark" and names[-1].startswith("mean of ")
    days = [row for row in report.rows if row["concept"].startswith("day=")]
    told = [row for row in days if row["all"].value > row["chance"]]
    assert names[-1] == f"mean of {1 + len(told)}"
    assert f"day: mean of {len(told)}" in names
    assert "random 20" not in report.rows[0]


def test_the_mean_over_a_clip_can_be_read_instead(features: dict[str, SiteFeatures]) -> None:
    steered: SteeredModel = Steered()  # type: ignore[assignment]
    report = evaluate(steered, *clips(), ["sound"], sites=["b"], pooling="mean", draws=0)["b"]
    assert report.about["best features"]["sound=bark"][0] == 7


def test_numbers_of_features_are_above_zero(features: dict[str, SiteFeatures]) -> None:
    steered: SteeredModel = Steered()  # type: ignore[assignment]
    with pytest.raises(ConceptError, match="from 1"):
        evaluate(steered, *clips(), ["sound"], sites=["a"], counts=[0, 1])
