from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from hooks.networks.wavtokenizer import IGNORED_PREFIXES, WavTokenizer, WavTokenizerConfig


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


def test_names_and_shapes_are_those_of_the_published_checkpoints() -> None:
    with torch.device("meta"):
        state = WavTokenizer().state_dict()
    assert set(state) == set(published_names())
    shapes = {
        "feature_extractor.encodec.encoder.model.0.conv.conv.weight_g": (32, 1, 1),
        "feature_extractor.encodec.encoder.model.12.conv.conv.weight_v": (512, 256, 16),
        "feature_extractor.encodec.encoder.model.15.conv.conv.weight_v": (512, 512, 7),
        "feature_extractor.encodec.quantizer.vq.layers.0._codebook.embed": (4096, 512),
        "backbone.pos_net.2.q.weight": (768, 768, 1),
        "backbone.norm.scale.weight": (4, 768),
        "backbone.convnext.0.pwconv1.weight": (2304, 768),
        "head.out.weight": (1282, 768),
        "head.istft.window": (1280,),
    }
    assert {name: tuple(state[name].shape) for name in shapes} == shapes


def test_a_checkpoint_with_its_training_parts_loads(config: WavTokenizerConfig) -> None:
    module, other = WavTokenizer(config), WavTokenizer(config)
    extra = {f"{prefix}x.weight": torch.zeros(1) for prefix in IGNORED_PREFIXES}
    other.load_checkpoint_(module.state_dict() | extra)
    audio_BN = torch.randn(2, 400)
    assert torch.equal(module(audio_BN), other(audio_BN))


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
