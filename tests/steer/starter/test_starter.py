"""What ships in the package: it opens, fits together, and does what its card says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hooks import ModelError
from hooks.model import Codec
from steer import SAE, Shift, SteeredModel, load_vectors, open_model, starter
from steer.errors import SAEError
from steer.formats import find_folder
from steer.probes import load_probes

CODECS = ("starter:codec", "starter:wavtokenizer")
SAE_NAME = "starter:codec/latent"
ATTRIBUTES = {"loudness", "brightness", "pitch"}


def opened(name: str) -> Codec:
    codec = open_model(name)
    assert isinstance(codec, Codec)
    return codec


@pytest.fixture(scope="module", params=CODECS)
def steered(request: pytest.FixtureRequest) -> SteeredModel:
    return SteeredModel(opened(request.param), SAE.load(f"{request.param}/latent"))


@pytest.fixture(scope="module")
def codec() -> SteeredModel:
    return SteeredModel(opened("starter:codec"), SAE.load(SAE_NAME))


def test_the_index_names_what_is_there() -> None:
    assert set(CODECS) <= set(starter.models())
    assert all(f"{name}/latent" in starter.saes(name) for name in CODECS)
    with pytest.raises(ModelError, match="starter:codec"):
        open_model("starter:nothing")
    with pytest.raises(SAEError, match=SAE_NAME):
        SAE.load("starter:codec/nothing")


def test_they_open_in_any_order() -> None:
    """In a process of its own, where transformers is the first to build on the meta device."""
    pytest.importorskip("transformers", reason="extra ssl")
    code = "from steer import open_model; [open_model(f'starter:{name}') for name in ('ssl', 'codec', 'wavtokenizer')]"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[3])
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("folder", [f"{name}{part}" for name in ("codec", "wavtokenizer") for part in ("", "/latent")])
def test_everything_has_a_card_and_is_small(folder: str) -> None:
    root = starter.FOLDER / folder
    card = (root / "README.md").read_text()
    assert card.startswith(f"# starter:{folder}\n")
    for section in ("Data", "Licence", "Command", "Quality"):
        assert f"## {section}" in card
    assert all(path.stat().st_size <= 16 * 2**20 for path in root.rglob("*.safetensors"))


def test_all_weights_that_ship_stay_below_75_mb() -> None:
    assert sum(path.stat().st_size for path in starter.FOLDER.rglob("*.safetensors")) <= 75 * 10**6


def test_sae_vectors_and_probes_belong_together(steered: SteeredModel) -> None:
    sae = steered.saes["latent"]
    assert isinstance(sae, SAE)
    assert sae.info.model == steered.model.name
    folder = find_folder(f"{steered.model.name}/latent")
    vectors, probes = load_vectors(folder / "vectors.safetensors"), load_probes(folder / "probes.safetensors")
    assert set(vectors) >= set(probes) == ATTRIBUTES
    assert all(len(vector.vector) == sae.d_sae for vector in vectors.values())
    assert {name: len(probe.bins.centres) for name, probe in probes.items()} == {
        "loudness": 20,
        "brightness": 20,
        "pitch": 66,
    }
    assert sae.info.metrics["explained_variance"] > 0.7
    assert sae.info.frame_rate == steered.model.site("latent").frame_rate == 75.0


def test_vectors_of_the_codec_say_how_they_were_found() -> None:
    vectors = load_vectors(find_folder(SAE_NAME) / "vectors.safetensors")
    for attribute in ATTRIBUTES:
        ways = {f"{attribute}-{way}" for way in ("lstsq", "pairs", "probe")}
        best = vectors[attribute].name
        assert {key for key in vectors if key.startswith(f"{attribute}-")} == ways - {best}
        assert best in ways
        assert len({vectors[key].unit for key in (attribute, *(ways - {best}))}) == 1


def test_a_semitone_is_a_sixth_of_the_pitch_coordinate(codec: SteeredModel) -> None:
    sae = codec.saes["latent"]
    assert isinstance(sae, SAE)
    vectors = load_vectors(find_folder(SAE_NAME) / "vectors.safetensors")
    exact = next(vector for vector in vectors.values() if vector.name == "pitch-lstsq").vector @ sae.W_dec
    torch.testing.assert_close(exact, torch.eye(64)[0] / 6, atol=1e-4, rtol=1e-3)


def test_no_edit_is_the_codec_itself_to_the_bit(steered: SteeredModel) -> None:
    audio_BCN = 0.1 * torch.randn(2, 1, 12_345)
    plain = opened(steered.model.name).run(audio_BCN)
    assert torch.equal(steered.run(audio_BCN), plain)
    assert plain.shape == audio_BCN.shape


def test_a_longer_vector_is_a_louder_sound(steered: SteeredModel, recordings: Path) -> None:
    vector = load_vectors(find_folder(f"{steered.model.name}/latent") / "vectors.safetensors")["loudness"]
    codec = steered.model
    assert isinstance(codec, Codec)
    audio_BCN = codec.prepare(recordings / "ljspeech" / "LJ001-0018.flac")[..., :48_000].repeat(4, 1, 1)
    with steered.edit(Shift(vector.vector, torch.tensor([-6.0, 0.0, 3.0, 6.0]))):
        levels = steered.run(audio_BCN).square().mean((1, 2)).log10() * 10
    assert (levels.diff() > 0).all()


def test_pitch_moves_by_what_is_asked_for(codec: SteeredModel, recordings: Path) -> None:
    pytest.importorskip("torchcrepe", reason="extra eval")
    from steer.acoustics import change, measure

    vector = load_vectors(find_folder(SAE_NAME) / "vectors.safetensors")["pitch"]
    audio_BCN = codec.model.prepare(recordings / "ljspeech" / "LJ001-0018.flac")[..., :48_000]
    with codec.edit(Shift(vector.vector, torch.tensor([0.0, -5.0, 4.0]))):
        plain, lower, higher = (measure(one, 24_000, lufs=False) for one in codec.run(audio_BCN.repeat(3, 1, 1)))
    assert change(plain, lower)["pitch"] == pytest.approx(-5, abs=0.3)
    assert change(plain, higher)["pitch"] == pytest.approx(4, abs=0.3)


def test_the_quantiser_is_an_option_of_the_wavtokenizer() -> None:
    assert not opened("starter:codec").has_quantizer
    codec = opened("starter:wavtokenizer")
    audio_BCN = 0.1 * torch.randn(1, 1, 6400)
    continuous = codec.run(audio_BCN)
    codec.quantize = True
    assert not torch.equal(codec.run(audio_BCN), continuous)
