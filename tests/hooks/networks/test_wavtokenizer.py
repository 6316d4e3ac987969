from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
import torch

from hooks.networks.wavtokenizer import WavTokenizer, WavTokenizerConfig

HZ_75 = WavTokenizerConfig()
HZ_40 = WavTokenizerConfig(ratios=(6, 5, 5, 4), n_fft=2400)
TRAINING = (
    "feature_extractor.encodec.decoder.model.0.conv.conv.weight_g",
    "feature_extractor.encodec.decoder.model.1.lstm.weight_ih_l0",
    "multiperioddisc.discriminators.0.convs.0.weight_g",
    "multiresddisc.discriminators.0.conv_post.bias",
    "dac.discriminators.0.convs.0.0.weight_v",
    "dacdiscriminator.discriminator.discriminators.0.convs.0.0.bias",
    "melspec_loss.mel_spec.spectrogram.window",
)
"""Some of what the published checkpoints hold beside the codec; the large ones name more discriminators."""


def published_names() -> Iterator[str]:
    """Parameters and buffers of the codec in the published 75 Hz checkpoints, read off jishengpeng/WavTokenizer."""

    def conv(path: str) -> Iterator[str]:
        yield from (f"{path}.conv.conv.{part}" for part in ("bias", "weight_g", "weight_v"))

    def both(path: str) -> Iterator[str]:
        yield from (f"{path}.{part}" for part in ("weight", "bias"))

    encoder = "feature_extractor.encodec.encoder.model"
    for index in (0, 3, 6, 9, 12, 15):
        yield from conv(f"{encoder}.{index}")
    for index in (1, 4, 7, 10):
        for part in ("block.1", "block.3", "shortcut"):
            yield from conv(f"{encoder}.{index}.{part}")
    for layer in (0, 1):
        for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            yield f"{encoder}.13.lstm.{part}_l{layer}"
    for part in ("inited", "cluster_size", "embed", "embed_avg"):
        yield f"feature_extractor.encodec.quantizer.vq.layers.0._codebook.{part}"
    yield from both("backbone.embed")
    for part in ("scale", "shift"):
        yield f"backbone.norm.{part}.weight"
    for index in (0, 1, 3, 4):
        for part in ("norm1", "conv1", "norm2", "conv2"):
            yield from both(f"backbone.pos_net.{index}.{part}")
    for part in ("norm", "q", "k", "v", "proj_out"):
        yield from both(f"backbone.pos_net.2.{part}")
    yield from both("backbone.pos_net.5")
    for block in range(12):
        path = f"backbone.convnext.{block}"
        yield f"{path}.gamma"
        yield from (f"{path}.norm.{part}.weight" for part in ("scale", "shift"))
        for part in ("dwconv", "pwconv1", "pwconv2"):
            yield from both(f"{path}.{part}")
    yield from both("backbone.final_layer_norm")
    yield from both("head.out")
    yield "head.istft.window"


@pytest.mark.parametrize(
    ("config", "rate", "parameters", "down", "outputs", "window"),
    [
        (HZ_75, 75.0, 71_750_146, (512, 256, 16), 1282, 1280),
        (HZ_40, 40.0, 72_111_714, (512, 256, 12), 2402, 2400),
    ],
)
def test_both_published_sizes(
    config: WavTokenizerConfig, rate: float, parameters: int, down: tuple[int, ...], outputs: int, window: int
) -> None:
    with torch.device("meta"):
        module = WavTokenizer(config)
    state = module.state_dict()
    assert set(state) == set(published_names())
    shapes = {
        "feature_extractor.encodec.encoder.model.0.conv.conv.weight_g": (32, 1, 1),
        "feature_extractor.encodec.encoder.model.12.conv.conv.weight_v": down,
        "feature_extractor.encodec.encoder.model.15.conv.conv.weight_v": (512, 512, 7),
        "feature_extractor.encodec.quantizer.vq.layers.0._codebook.embed": (4096, 512),
        "backbone.pos_net.2.q.weight": (768, 768, 1),
        "backbone.norm.scale.weight": (4, 768),
        "backbone.convnext.0.pwconv1.weight": (2304, 768),
        "head.out.weight": (outputs, 768),
        "head.istft.window": (window,),
    }
    assert {name: tuple(state[name].shape) for name in shapes} == shapes
    assert config.frame_rate == rate
    assert WavTokenizerConfig.of_checkpoint(state) == config
    # 80.6 M and 80.9 M with the SEANet decoder of 8.8 M, which the checkpoints hold and nothing uses
    assert sum(p.numel() for p in module.parameters()) == parameters
    z_BDT = module.encode(torch.zeros(1, 24_000, device="meta"))
    assert z_BDT.shape == (1, 512, rate)
    assert module.decode(z_BDT).shape == (1, 24_000)


def test_the_unused_decoder_of_the_checkpoints_makes_up_the_published_size() -> None:
    modules = pytest.importorskip("encodec.modules", reason="extra encodec")
    with torch.device("meta"):
        unused = modules.SEANetDecoder(dimension=512, n_filters=32, ratios=[8, 5, 4, 2], norm="weight_norm")
    extra = sum(p.numel() for p in unused.parameters())
    assert [round((own + extra) / 1e6, 1) for own in (71_750_146, 72_111_714)] == [80.6, 80.9]


def test_a_checkpoint_with_its_training_parts_loads(config: WavTokenizerConfig) -> None:
    module, other = WavTokenizer(config), WavTokenizer(config)
    other.load_checkpoint_(module.state_dict() | {name: torch.zeros(1) for name in TRAINING})
    audio_BN = torch.randn(2, 400)
    assert torch.equal(module(audio_BN), other(audio_BN))


@pytest.mark.parametrize(
    "change",
    [{}, {"phase_pair": True}, {"num_conditions": 4}, {"attention": True, "num_quantizers": 1}, {"ratios": (3, 2)}],
)
def test_shapes_tell_the_configuration(config: WavTokenizerConfig, change: dict[str, object]) -> None:
    changed = dataclasses.replace(config, sample_rate=24_000, **change)  # type: ignore[arg-type]
    assert WavTokenizerConfig.of_checkpoint(WavTokenizer(changed).state_dict()) == changed


@pytest.mark.parametrize("change", ["missing", "unknown"])
def test_loading_is_strict_about_the_codec(config: WavTokenizerConfig, change: str) -> None:
    state = WavTokenizer(config).state_dict()
    if change == "missing":
        del state["head.out.bias"]
    else:
        state["backbone.more"] = torch.zeros(1)
    with pytest.raises(RuntimeError, match=r"head\.out\.bias|backbone\.more"):
        WavTokenizer(config).load_checkpoint_(state)


@pytest.mark.parametrize("samples", [400, 401, 439, 7])
@pytest.mark.parametrize("quantize", [False, True])
def test_the_round_trip_keeps_the_length(config: WavTokenizerConfig, samples: int, quantize: bool) -> None:
    module = WavTokenizer(config)
    audio_BN = torch.randn(2, samples)
    assert module.encode(audio_BN).shape == (2, config.dimension, -(-samples // config.hop_length))
    assert module(audio_BN, quantize=quantize).shape == audio_BN.shape


def test_with_attention_and_conditions(config: WavTokenizerConfig) -> None:
    conditioned = WavTokenizerConfig.from_dict(config.to_dict() | {"num_conditions": 4, "attention": True})
    assert WavTokenizer(conditioned)(torch.randn(1, 400)).shape == (1, 400)


def test_the_config_goes_through_json_types(config: WavTokenizerConfig) -> None:
    values = config.to_dict()
    assert values["ratios"] == [5, 4, 2]
    assert WavTokenizerConfig.from_dict(values) == config
    assert (config.hop_length, config.frame_rate) == (40, 200.0)
    assert WavTokenizerConfig().frame_rate == 75.0
