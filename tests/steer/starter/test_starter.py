"""What ships in the package: it opens, fits together, and does what its card says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hooks import ModelError
from hooks.model import Codec
from steer import SAE, Shift, SteeredModel, load_vectors, open_model, starter
from steer.errors import SAEError
from steer.formats import find_folder
from steer.probes import load_probes

SAE_NAME = "starter:codec/latent"


@pytest.fixture(scope="module")
def steered() -> SteeredModel:
    return SteeredModel(open_model("starter:codec"), SAE.load(SAE_NAME))


def test_the_index_names_what_is_there() -> None:
    assert "starter:codec" in starter.models()
    assert SAE_NAME in starter.saes("starter:codec")
    with pytest.raises(ModelError, match="starter:codec"):
        open_model("starter:nothing")
    with pytest.raises(SAEError, match=SAE_NAME):
        SAE.load("starter:codec/nothing")


@pytest.mark.parametrize("folder", ["codec", "codec/latent"])
def test_everything_has_a_card_and_is_small(folder: str) -> None:
    root = starter.FOLDER / folder
    card = (root / "README.md").read_text()
    for section in ("Data", "Licence", "Command", "Quality"):
        assert f"## {section}" in card
    assert all(path.stat().st_size <= 16 * 2**20 for path in root.rglob("*.safetensors"))


def test_all_starter_weights_stay_below_48_mb() -> None:
    assert sum(path.stat().st_size for path in starter.FOLDER.rglob("*.safetensors")) <= 48 * 2**20


def test_sae_vectors_and_probes_belong_together(steered: SteeredModel) -> None:
    sae = steered.saes["latent"]
    assert isinstance(sae, SAE)
    folder = find_folder(SAE_NAME)
    vectors, probes = load_vectors(folder / "vectors.safetensors"), load_probes(folder / "probes.safetensors")
    assert set(vectors) == set(probes) == {"loudness", "brightness", "pitch"}
    assert all(len(vector.vector) == sae.d_sae for vector in vectors.values())
    assert {name: len(probe.bins.centres) for name, probe in probes.items()} == {
        "loudness": 20,
        "brightness": 20,
        "pitch": 66,
    }
    assert sae.info.metrics["explained_variance"] > 0.7
    assert sae.info.frame_rate == steered.model.site("latent").frame_rate == 75.0


def test_no_edit_is_the_codec_itself_to_the_bit(steered: SteeredModel) -> None:
    audio_BCN = 0.1 * torch.randn(2, 1, 12_345)
    plain = open_model("starter:codec").run(audio_BCN)
    assert torch.equal(steered.run(audio_BCN), plain)
    assert plain.shape == audio_BCN.shape


def test_a_longer_vector_is_a_louder_sound(steered: SteeredModel, recordings: Path) -> None:
    vector = load_vectors(find_folder(SAE_NAME) / "vectors.safetensors")["loudness"]
    codec = steered.model
    assert isinstance(codec, Codec)
    audio_BCN = codec.prepare(recordings / "ljspeech" / "LJ001-0018.flac")[..., :48_000].repeat(4, 1, 1)
    with steered.edit(Shift(vector.vector, torch.tensor([-6.0, 0.0, 3.0, 6.0]))):
        levels = steered.run(audio_BCN).square().mean((1, 2)).log10() * 10
    assert (levels.diff() > 0).all()


def test_the_quantiser_is_an_option(steered: SteeredModel) -> None:
    codec = open_model("starter:codec")
    assert isinstance(codec, Codec)
    audio_BCN = 0.1 * torch.randn(1, 1, 6400)
    continuous = codec.run(audio_BCN)
    codec.quantize = True
    assert not torch.equal(codec.run(audio_BCN), continuous)
