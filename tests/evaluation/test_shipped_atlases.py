"""The atlases that ship: each fits its SAE, says how it was made, and knows labels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors import safe_open

from evaluation.atlas import Atlas
from evaluation.dataset import Dataset
from steer import SAE, starter
from steer.errors import SAEError

SAES = [sae for model in (*starter.models(), *starter.public_models()) for sae in starter.saes(model)]


@pytest.mark.parametrize("name", SAES)
def test_it_fits_its_sae(name: str) -> None:
    atlas, sae = Atlas.load(name), SAE.load(name)
    atlas.check_fits(sae.info.site, sae.d_sae)
    assert (atlas.model, atlas.sae) == (sae.info.model, name)
    assert len(atlas.silent) < sae.d_sae / 3
    assert len(atlas.clips) == len(set(atlas.clips)) > 300


@pytest.mark.parametrize("name", SAES)
def test_it_knows_labels_and_when_features_peak(name: str) -> None:
    atlas = Atlas.load(name)
    known = [concept for concept in atlas.concepts if concept.chance is not None]
    assert {concept.kind for concept in known} == {"subset", "label", "speaker"}
    best = atlas.clearest(1)[0]
    assert best.labels[0].auroc > best.labels[0].chance + 0.2
    assert all(peak.at_s is not None for peak in best.peaks)


@pytest.mark.parametrize("name", SAES)
def test_it_is_of_valid_clips_and_names_no_place(name: str) -> None:
    with safe_open(starter.atlas_file(name), "pt") as file:
        about = json.loads(file.metadata()["atlas"])
    assert about["about"]["split"] == "valid"
    # clips are named subset/file
    assert all(not clip.startswith(("/", ".")) and ".." not in clip for clip in about["clips"])
    assert "/" not in about["about"]["audio"]
    assert starter.atlas_file(name).stat().st_size < 2**21


def test_no_atlas_without_its_sae() -> None:
    with pytest.raises(SAEError, match="no starter SAE"):
        Atlas.load("starter:codec/nothing")


def test_its_clips_are_those_of_the_valid_split(recordings: Path) -> None:
    rows = {sound.name for sound in Dataset(recordings).sounds(split="valid")}
    for name in SAES:
        assert set(Atlas.load(name).clips) == rows
