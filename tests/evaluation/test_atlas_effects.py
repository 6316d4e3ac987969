"""On the model of `test_atlas_build`, whose features are the samples themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from evaluation.atlas import EFFECTS, Atlas
from evaluation.atlas_build import build
from evaluation.atlas_effects import with_effects
from hooks import Clip
from steer.steered import SteeredModel
from tests.evaluation.test_atlas_build import WIDTH, model_of, noises, signs

pytest.importorskip("sklearn", reason="extra eval")


@pytest.mark.parametrize("site", ["first", "second"])  # the last site is read where the SAE is
def test_what_a_label_loses_without_its_feature(site: str, tmp_path: Path) -> None:
    sounds = noises(40, 200)
    for sound in sounds:
        if sound.labels["subset"] == "odd":
            assert isinstance(sound.source, Clip)
            sound.source.waveform[0, 3::WIDTH] += 0.5
    sae = signs()
    sae.W_dec.copy_(sae.W_enc.T)
    steered = SteeredModel(model_of(), sae, site)
    atlas = with_effects(steered, build(steered, sounds)[site], sounds)
    by_name = {concept.name: concept for concept in atlas.concepts}
    odd = by_name["subset:odd"].effect
    assert odd is not None
    # the label is in this sample alone: 0.5 higher on odd clips, and 0 without the feature
    assert odd.feature == 3 and odd.lost == pytest.approx(1, abs=0.15)
    assert abs(odd.control) < 0.5  # of 20 clips a read-out weighs noise as well
    assert odd.words is None  # no recogniser
    # what is kept and what is shown
    loaded = Atlas.load(atlas.save(tmp_path / "a.safetensors"))
    assert loaded.concepts == atlas.concepts
    row = next(row for row in loaded.report().rows if row["label"] == "subset:odd")
    assert [row[name] for name in EFFECTS] == [odd.lost, odd.control, None]


def test_without_effects_the_table_has_no_such_columns() -> None:
    sounds = noises(12, 200)
    steered = SteeredModel(model_of(), signs(), "first")
    assert not set(EFFECTS) & set(build(steered, sounds)["first"].report().rows[0])


def test_a_label_of_few_clips_has_none() -> None:
    sounds = noises(6, 150)
    steered = SteeredModel(model_of(), signs(), "first")
    atlas = with_effects(steered, build(steered, sounds)["first"], sounds)
    assert all(concept.effect is None for concept in atlas.concepts if concept.positives < 4)
