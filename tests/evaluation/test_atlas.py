from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from evaluation.atlas import Atlas, AtlasError, Concept, Match, Peak
from steer.errors import EditError

NAN = float("nan")


@pytest.fixture
def atlas() -> Atlas:
    """Of 4 features: 0 tells dogs, 1 tells theo, 2 is silent, 3 tells little; one label has a single clip."""
    return Atlas(
        model="tiny",
        sae="some/sae",
        site="latent",
        frames=100,
        clips=["a.wav", "b.wav", "c.wav"],
        concepts=[
            Concept("label", "dog", 5, 20, 0.7),
            Concept("label", "cat", 1, 24, None),
            Concept("speaker", "theo", 3, 9, 0.9),
            Concept("speaker", "dog", 4, 8, 0.8),
        ],
        about={"split": "test"},
        density=torch.tensor([0.5, 0.25, 0.0, 1.0]),
        mean=torch.tensor([1.0, 0.5, 0.0, 2.0]),
        max=torch.tensor([3.0, 2.0, 0.0, 9.0]),
        peak_value=torch.tensor([[3.0, 1.0], [2.0, 0.0], [0.0, 0.0], [9.0, 8.0]]),
        peak_clip=torch.tensor([[2, 0], [1, -1], [-1, -1], [0, 1]], dtype=torch.int32),
        peak_s=torch.tensor([[0.5, 1.5], [NAN, NAN], [NAN, NAN], [0.25, 0.75]]),
        auroc=torch.tensor([[1.0, 0.5, 0.5, 0.625], [NAN] * 4, [0.75, 1.0, 0.5, 0.25], [0.5, 0.75, 0.5, 0.5]]),
    )


def test_a_feature(atlas: Atlas) -> None:
    meaning = atlas.feature(0)
    assert (meaning.density, meaning.mean, meaning.max) == (0.5, 1.0, 3.0)
    assert meaning.peaks == [Peak("c.wav", 0.5, 3.0), Peak("a.wav", 1.5, 1.0)]
    # by how far they are above chance: 0.3, -0.15, -0.3; the label of one clip has no AUROC
    assert [match.label for match in meaning.labels] == ["label:dog", "speaker:theo", "speaker:dog"]
    assert meaning.labels[0] == Match("label:dog", 1.0, 5, 20, 0.7)
    assert len(atlas.feature(0, labels=1).labels) == 1
    assert atlas.feature(1).peaks == [Peak("b.wav", None, 2.0)]
    with pytest.raises(EditError, match="no feature 4: the SAE has features 0 to 3"):
        atlas.feature(4)


def test_silent_features_are_known_and_never_listed(atlas: Atlas) -> None:
    assert atlas.silent == [2]
    assert atlas.feature(2).peaks == []
    assert [meaning.feature for meaning in atlas.clearest(9)] == [0, 1, 3]
    assert [meaning.feature for meaning in atlas.by_label("theo", 9)] == [1, 0, 3]
    assert [row["density"] for row in atlas.table([atlas.feature(2)]).rows] == ["silent"]


def test_without_labels_the_highest_come_first(atlas: Atlas) -> None:
    bare = replace(atlas, concepts=[], auroc=torch.zeros(0, 4))
    assert [meaning.feature for meaning in bare.clearest(2)] == [3, 0]
    assert bare.feature(0).labels == []
    assert bare.report().rows == []


def test_labels_by_value_or_in_full(atlas: Atlas) -> None:
    assert [match.label for match in atlas.by_label("theo", 1)[0].labels] == ["speaker:theo"]
    assert atlas.by_label("label:dog", 1)[0].feature == 0
    for label, message in (
        ("dog", "label 'dog' is one of label:dog, speaker:dog: say which"),
        ("cow", "no label 'cow'; it has label:dog, label:cat, speaker:theo, speaker:dog"),
        ("cat", "label:cat: too few clips"),
    ):
        with pytest.raises(AtlasError, match=message):
            atlas.by_label(label, 1)


def test_tables(atlas: Atlas, capsys: pytest.CaptureFixture[str]) -> None:
    rows = atlas.report().rows
    assert [(row["label"], row["clips"], row["feature"], row["AUROC"], row["chance"]) for row in rows] == [
        ("label:dog", 5, 0, 1.0, 0.7),
        ("label:cat", 1, None, None, None),
        ("speaker:theo", 3, 1, 1.0, 0.9),
        ("speaker:dog", 4, 1, 0.75, 0.8),
    ]
    json.dumps(atlas.report().to_dict(), allow_nan=False)
    row = atlas.table(atlas.clearest(1)).rows[0]
    assert row["labels: AUROC (clips)"].splitlines()[0] == "label:dog 1.00 (5; shuffled 0.70)"
    assert row["fires most at"].splitlines() == ["c.wav 0.50 s", "a.wav 1.50 s"]
    atlas.table(atlas.clearest(3)).print()
    assert "1 silent in 3 clips" in " ".join(capsys.readouterr().out.split())


def test_the_file(atlas: Atlas, tmp_path: Path) -> None:
    again = Atlas.load(atlas.save(tmp_path / "one.atlas"))
    for field in fields(Atlas):
        old, new = getattr(atlas, field.name), getattr(again, field.name)
        if isinstance(old, torch.Tensor):
            assert old.dtype == new.dtype
            torch.testing.assert_close(old, new, rtol=0, atol=0, equal_nan=True)
        else:
            assert old == new
    bare = replace(atlas, concepts=[], auroc=torch.zeros(0, 4))
    assert Atlas.load(bare.save(tmp_path / "bare.atlas")).auroc.shape == (0, 4)


def test_it_is_of_one_sae(atlas: Atlas) -> None:
    atlas.check_fits("latent", 4)
    for site, d_sae in (("encoder.0", 4), ("latent", 5)):
        with pytest.raises(AtlasError, match=f"of 4 features at latent, the SAE has {d_sae} at {site}"):
            atlas.check_fits(site, d_sae)


def test_a_file_that_is_none(atlas: Atlas, tmp_path: Path) -> None:
    with pytest.raises(AtlasError, match="no such atlas; make one with"):
        Atlas.load(tmp_path / "none.atlas")
    path = tmp_path / "bad.atlas"
    path.write_bytes(atlas.save(tmp_path / "one.atlas").read_bytes()[:-8])
    with pytest.raises(AtlasError, match="not an atlas, or a damaged one"):
        Atlas.load(path)
    save_file({"W_enc": torch.zeros(2, 2)}, path)
    with pytest.raises(AtlasError, match="not an atlas, or a damaged one"):
        Atlas.load(path)
    for damage in ({"clips": ["a.wav"]}, {"mean": torch.zeros(3)}, {"concepts": []}, {"peak_s": torch.zeros(4, 1)}):
        replace(atlas, **damage).save(path)  # type: ignore[arg-type]
        with pytest.raises(AtlasError, match="not an atlas, or a damaged one"):
            Atlas.load(path)
    with pytest.raises(AtlasError, match="could not be written"):
        atlas.save(tmp_path / "nowhere" / "one.atlas")
