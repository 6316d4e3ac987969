from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hooks.networks.bigcodec import BigCodec, BigCodecConfig, CodecEncoder, FactorizedQuantizer, Quantizer

TINY = BigCodecConfig(sample_rate=800, n_filters=4, ratios=(2, 5), dimension=12, bins=32, code_dim=4)
"""Both kinds of ratio; 10 samples a frame."""


@pytest.fixture
def module() -> BigCodec:
    return BigCodec(TINY).eval()


def published(module: BigCodec) -> dict[str, dict[str, Tensor]]:
    """What `bigcodec.pt` of the published model holds."""
    return {"CodecEnc": module.encoder.state_dict(), "generator": module.decoder.state_dict()}


def published_names() -> Iterator[str]:
    """Parameters and buffers of the published checkpoint, read off Aria-K-Alethia/BigCodec."""

    def layer(path: str) -> Iterator[str]:
        yield from (f"{path}.{part}" for part in ("bias", "weight_g", "weight_v"))

    def snake(path: str) -> Iterator[str]:
        yield from (f"{path}.{part}" for part in ("act.alpha", "act.beta", "upsample.filter"))
        yield f"{path}.downsample.lowpass.filter"

    def unit(path: str) -> Iterator[str]:
        yield from snake(f"{path}.block.0")
        yield from layer(f"{path}.block.1")
        yield from snake(f"{path}.block.2")
        yield from layer(f"{path}.block.3")

    def lstm(path: str) -> Iterator[str]:
        for depth in (0, 1):
            for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                yield f"{path}.lstm.{part}_l{depth}"

    yield from layer("CodecEnc.block.0")
    for index in (1, 2, 3, 4, 5):
        for inner in (0, 1, 2):
            yield from unit(f"CodecEnc.block.{index}.block.{inner}")
        yield from snake(f"CodecEnc.block.{index}.block.3")
        yield from layer(f"CodecEnc.block.{index}.block.4")
    yield from lstm("CodecEnc.block.6")
    yield from snake("CodecEnc.block.7")
    yield from layer("CodecEnc.block.8")

    yield from layer("generator.quantizer.layers.0.in_proj")
    yield from layer("generator.quantizer.layers.0.out_proj")
    yield "generator.quantizer.layers.0._codebook.weight"
    yield from layer("generator.model.0")
    yield from lstm("generator.model.1")
    for index in (2, 3, 4, 5, 6):
        yield from snake(f"generator.model.{index}.block.0")
        yield from layer(f"generator.model.{index}.block.1")
        for inner in (2, 3, 4):
            yield from unit(f"generator.model.{index}.block.{inner}")
    yield from snake("generator.model.7")
    yield from layer("generator.model.8")


@pytest.fixture(scope="module")
def original() -> BigCodec:
    """The published model, on the device that holds no numbers."""
    with torch.device("meta"):
        return BigCodec()


class TestPublished:
    def test_parameters(self, original: BigCodec) -> None:
        encoder, decoder = (sum(p.numel() for p in part.parameters()) for part in (original.encoder, original.decoder))
        assert (encoder, decoder) == (76_530_704, 82_905_586)  # 159 M, as the paper says
        assert original.config.frame_rate == 80.0
        assert original.config.hop_length == 200

    def test_names_and_shapes(self, original: BigCodec) -> None:
        state = {f"{part}.{name}": value for part, half in published(original).items() for name, value in half.items()}
        assert set(state) == set(published_names())
        shapes = {
            "CodecEnc.block.0.weight_v": (48, 1, 7),
            "CodecEnc.block.0.weight_g": (48, 1, 1),
            "CodecEnc.block.1.block.2.block.1.weight_v": (48, 48, 7),
            "CodecEnc.block.5.block.4.weight_v": (1536, 768, 10),
            "CodecEnc.block.6.lstm.weight_ih_l1": (6144, 1536),
            "CodecEnc.block.7.act.alpha": (1536,),
            "CodecEnc.block.8.weight_v": (1024, 1536, 3),
            "generator.quantizer.layers.0.in_proj.weight_v": (8, 1024),
            "generator.quantizer.layers.0.in_proj.weight_g": (8, 1),
            "generator.quantizer.layers.0.out_proj.weight_v": (1024, 8),
            "generator.quantizer.layers.0._codebook.weight": (8192, 8),
            "generator.model.0.weight_v": (1536, 1024, 7),
            "generator.model.2.block.1.weight_v": (1536, 768, 10),
            "generator.model.2.block.1.weight_g": (1536, 1, 1),
            "generator.model.6.block.1.weight_v": (96, 48, 4),
            "generator.model.8.weight_v": (1, 48, 7),
            "generator.model.7.upsample.filter": (1, 1, 12),
        }
        assert {name: tuple(state[name].shape) for name in shapes} == shapes

    def test_shapes_tell_the_configuration(self, original: BigCodec) -> None:
        assert BigCodecConfig.of_checkpoint(published(original)) == BigCodecConfig()
        assert BigCodecConfig.of_checkpoint(original.state_dict()) == BigCodecConfig()

    def test_the_latent_and_the_waveform_have_the_published_rates(self, original: BigCodec) -> None:
        z_BDT = original.encode(torch.zeros(1, 16_000, device="meta"))
        assert z_BDT.shape == (1, 1024, 80)
        assert original.decode(z_BDT).shape == (1, 16_000)


class TestLoading:
    def test_a_published_checkpoint(self, module: BigCodec) -> None:
        other = BigCodec(TINY)
        other.load_checkpoint_(published(module))
        audio_BN = torch.randn(2, 55)
        assert torch.equal(other(audio_BN), module(audio_BN))

    def test_the_configuration_of_a_small_one(self, module: BigCodec) -> None:
        config = BigCodecConfig.of_checkpoint(published(module))
        assert config == BigCodecConfig(n_filters=4, ratios=(2, 5), dimension=12, bins=32, code_dim=4)

    @pytest.mark.parametrize("part", ["CodecEnc", "generator"])
    def test_it_is_strict(self, part: str, module: BigCodec) -> None:
        checkpoint = published(module)
        checkpoint[part]["more"] = torch.zeros(1)
        with pytest.raises(RuntimeError, match="more"):
            BigCodec(TINY).load_checkpoint_(checkpoint)
        del checkpoint[part]
        with pytest.raises((KeyError, RuntimeError), match=f"{part}|encoder"):
            BigCodec(TINY).load_checkpoint_(checkpoint)


class TestLengths:
    @torch.no_grad()
    @pytest.mark.parametrize("ratios", [(2, 5), (2, 2, 2, 5, 5), (3, 4)])
    def test_the_decoder_gives_back_what_the_encoder_took(self, ratios: tuple[int, ...]) -> None:
        module = BigCodec(BigCodecConfig(n_filters=1, ratios=ratios, dimension=4, bins=8, code_dim=2))
        hop = module.config.hop_length
        for frames in (1, 2, 7):
            z_BDT = module.encoder(torch.randn(2, 1, frames * hop))
            assert z_BDT.shape == (2, 4, frames)
            assert module.decoder(z_BDT, vq=False).shape == (2, 1, frames * hop)

    @torch.no_grad()
    @pytest.mark.parametrize("samples", [1, 9, 10, 11, 57])
    @pytest.mark.parametrize("quantize", [True, False])
    def test_the_round_trip_keeps_the_length(self, samples: int, quantize: bool, module: BigCodec) -> None:
        audio_BN = torch.randn(2, samples)
        assert module.encode(audio_BN).shape == (2, 12, -(-samples // 10))
        assert module(audio_BN, quantize=quantize).shape == audio_BN.shape

    @torch.no_grad()
    def test_the_last_frame_is_filled_with_silence(self, module: BigCodec) -> None:
        audio_BN = torch.randn(2, 57)
        filled_BN = F.pad(audio_BN, (0, 3))
        assert torch.equal(module.encode(audio_BN), module.encode(filled_BN))
        assert torch.equal(module(audio_BN), module(filled_BN)[:, :57])


@torch.no_grad()
def test_the_round_trip_is_the_three_calls_of_the_authors(module: BigCodec) -> None:
    audio_BN = torch.randn(2, 60)
    q_BDT, codes_KBT = module.decoder(module.encoder(audio_BN[:, None]), vq=True)
    assert codes_KBT.shape == (1, 2, 6)
    assert torch.equal(module.decoder(q_BDT, vq=False)[:, 0], module(audio_BN))
    assert torch.equal(module.decode(module.quantizer.decode(codes_KBT)), module(audio_BN))


@torch.no_grad()
def test_the_quantiser_is_the_dac_packages_with_the_same_weights() -> None:
    library = pytest.importorskip("dac.nn.quantize", reason="extra dac")
    ours, theirs = FactorizedQuantizer(TINY), library.VectorQuantize(12, 32, 4)
    state = {name.replace("_codebook", "codebook"): value for name, value in ours.state_dict().items()}
    theirs.load_state_dict({k: v[..., None] if "weight_" in k else v for k, v in state.items()})  # 1x1 convolutions
    z_BDT = torch.randn(2, 12, 50)
    q_BDT, _, _, codes_BT, _ = theirs(z_BDT)
    assert torch.equal(ours.encode(z_BDT), codes_BT)
    # float32 sums in another order
    torch.testing.assert_close(ours.decode(codes_BT), q_BDT, atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_the_nearest_vector_is_the_one_of_the_smallest_angle() -> None:
    quantizer = Quantizer(TINY)
    layer = quantizer.layer
    z_BDT = torch.randn(1, 12, 5)
    codes_1BT = quantizer.encode(z_BDT)
    cosine_TN = F.cosine_similarity(layer.in_proj(z_BDT[0].T)[:, None], layer._codebook.weight[None], dim=-1)
    assert torch.equal(codes_1BT[0, 0], cosine_TN.argmax(-1))
    q_BDT = quantizer(z_BDT)[0]
    assert torch.equal(q_BDT, quantizer.decode(codes_1BT))
    layer._codebook.weight.mul_(torch.rand(32, 1) + 0.5)  # lengths decide nothing, but are heard
    assert torch.equal(quantizer.encode(z_BDT), codes_1BT)
    assert not torch.allclose(quantizer(z_BDT)[0], q_BDT)


@torch.no_grad()
def test_the_encoder_without_its_lstm_is_that_of_xcodec2_in_transformers() -> None:
    library = pytest.importorskip("transformers.models.xcodec2", reason="extra encodec")
    modeling = pytest.importorskip("transformers.models.xcodec2.modeling_xcodec2", reason="extra encodec")
    ours = CodecEncoder(TINY)
    lstm = ours.block[len(TINY.ratios) + 1]
    for parameter in lstm.parameters():
        parameter.zero_()  # such an LSTM gives zeros, so that its input is what is left
    for name, parameter in ours.named_parameters():
        if name.endswith(("alpha", "beta")):
            parameter.normal_(0, 0.5)
    config = library.Xcodec2Config(
        encoder_hidden_size=4, downsampling_ratios=[2, 5], hidden_size=12, num_attention_heads=1, num_key_value_heads=1
    )
    theirs = modeling.Xcodec2Encoder(config)
    copy_layers(ours.block[0], theirs.conv1)
    for block, their_block in zip(ours.block[1:3], theirs.block, strict=True):
        units = (their_block.res_unit1, their_block.res_unit2, their_block.res_unit3)
        for unit, their_unit in zip(block.block[:3], units, strict=True):
            for layer, name in zip(unit.block, ("snake1", "conv1", "snake2", "conv2"), strict=True):
                copy_layers(layer, getattr(their_unit, name))
        copy_layers(block.block[3], their_block.snake1)
        copy_layers(block.block[4], their_block.conv1)
    copy_layers(ours.block[4], theirs.snake1)
    copy_layers(ours.block[5], theirs.conv2)
    audio_B1N = torch.randn(2, 1, 130)
    # float32 sums in another order through 15 layers
    torch.testing.assert_close(ours(audio_B1N), theirs(audio_B1N), atol=1e-5, rtol=1e-4)


def copy_layers(ours: nn.Module, theirs: nn.Module) -> None:
    """Weights of a layer into one of transformers, which has no weight norm."""
    if hasattr(ours, "normed_weight"):
        theirs.load_state_dict({"weight": ours.normed_weight(), "bias": ours.bias})
    else:
        theirs.load_state_dict(ours.state_dict(), strict=False)


@torch.no_grad()
def test_the_decoder_is_these_functions_of_the_published_names(module: BigCodec) -> None:
    for name, parameter in module.decoder.named_parameters():
        if name.endswith(("alpha", "beta")):
            parameter.normal_(0, 0.5)
    state = published(module)["generator"]

    def weight(path: str) -> Tensor:
        v = state[f"{path}.weight_v"]
        return state[f"{path}.weight_g"] * v / v.flatten(1).norm(dim=1)[:, None, None]

    def conv(x: Tensor, path: str, dilation: int = 1) -> Tensor:
        return F.conv1d(x, weight(path), state[f"{path}.bias"], padding="same", dilation=dilation)

    def snake(x: Tensor, path: str) -> Tensor:
        part = module.decoder.model.get_submodule(path.removeprefix("model."))
        return part(x)  # tested by itself, against transformers

    def upsample(x: Tensor, path: str, ratio: int) -> Tensor:
        # 2 * ratio taps reach over one frame more than there is; the middle of it stays
        full = F.conv_transpose1d(snake(x, f"{path}.0"), weight(f"{path}.1"), state[f"{path}.1.bias"], stride=ratio)
        start = (ratio + 1) // 2
        return full[..., start : start + x.shape[-1] * ratio]

    z_BDT = torch.randn(2, 12, 6)
    x = conv(z_BDT, "model.0")
    lstm = nn.LSTM(16, 16, 2, batch_first=True)
    lstm.load_state_dict({k.removeprefix("model.1.lstm."): v for k, v in state.items() if k.startswith("model.1.")})
    x = x + lstm(x.transpose(1, 2))[0].transpose(1, 2)
    for index, ratio in ((2, 5), (3, 2)):
        path = f"model.{index}.block"
        x = upsample(x, path, ratio)
        for inner, dilation in ((2, 1), (3, 3), (4, 9)):
            unit = f"{path}.{inner}.block"
            h = conv(snake(x, f"{unit}.0"), f"{unit}.1", dilation)
            x = x + conv(snake(h, f"{unit}.2"), f"{unit}.3")
    expected = conv(snake(x, "model.4"), "model.5").tanh()
    # float32 sums in another order
    torch.testing.assert_close(module.decoder(z_BDT, vq=False), expected, atol=1e-5, rtol=1e-4)
