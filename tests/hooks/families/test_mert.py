"""MERT-v1 as HuBERT at 24 kHz: the published configurations, and files with the names that its authors gave."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hooks import Clip, ModelError, capture, open_model, wrap_model
from hooks.families.ssl import FAMILY, SpeechEncoder
from tests.hooks.contract.ssl import MERT, MERT_COMMON, build_mert, save_mert

transformers = pytest.importorskip("transformers", reason="extra ssl")

PUBLISHED = {"95M": (12, 768, 94_371_712), "330M": (24, 1024, 315_438_720 - 7 * 512 - 6 * 1024)}
"""Layers, width, parameters: those of HuBERT base, and of HuBERT large less 7 biases and 6 norms of its front."""


@pytest.fixture(params=["95M", "330M"])
def size(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def folder(size: str, tmp_path: Path) -> Path:
    torch.manual_seed(0)
    return Path(save_mert(build_mert(size), tmp_path / size))


def noise(samples: int = 9_600) -> Tensor:
    return 0.1 * torch.randn(1, samples, generator=torch.Generator().manual_seed(1))


def state_of(folder: Path) -> dict[str, Tensor]:
    return torch.load(folder / "pytorch_model.bin", weights_only=True)


def test_published_sizes(size: str) -> None:
    layers, width, parameters = PUBLISHED[size]
    with torch.device("meta"):
        module = transformers.HubertModel(transformers.HubertConfig(**MERT[size], **MERT_COMMON))
    model = wrap_model(module)
    assert sum(weight.numel() for weight in module.parameters()) == parameters
    assert (model.sample_rate, f"hf:m-a-p/MERT-v1-{size}" in FAMILY.names) == (24_000, True)
    sites = [site for name, site in model.sites.items() if name.startswith("encoder.")]
    # the input of the first layer; and the final norm, where layer norms come first
    assert len(sites) == layers + 1 + (size == "330M")
    assert {(site.width, site.frame_rate) for site in sites} == {(width, 75.0)}


def test_a_published_folder_opens_with_nothing_missing(folder: Path, size: str) -> None:
    names = state_of(folder)
    assert {"masked_spec_embed", "encoder.pos_conv_embed.conv.weight_g"} < set(names)
    assert "feature_extractor.conv_layers.0.layer_norm.weight" in names  # the group norm
    assert not any(name.endswith("conv.bias") and "conv_layers" in name for name in names)
    model = open_model(folder)
    assert isinstance(model, SpeechEncoder)
    assert (model.sample_rate, model.normalize, type(model.module).__name__) == (24_000, True, "HubertModel")
    assert ("encoder.norm" in model.sites) == (size == "330M")
    torch.manual_seed(0)
    own = build_mert(size).eval()
    for name, weight in own.state_dict().items():
        assert torch.equal(model.module.state_dict()[name], weight), name
    # another allocation of the weights may round otherwise
    torch.testing.assert_close(model.embed(noise()), wrap_model(own).embed(noise()), atol=1e-5, rtol=1e-5)


def test_frames_are_75_a_second_at_whatever_rate_a_sound_has(folder: Path) -> None:
    model = open_model(folder)
    # 10 s at 24 kHz: 240000 samples, of which the last frame sees 400
    seen = next(capture(model, [Clip(torch.randn(1, 160_000) * 0.1, 16_000)], ["encoder.1"])).activations["encoder.1"]
    assert seen.shape[:2] == (1, (240_000 - 400) // 320 + 1) == (1, 749)


@pytest.mark.parametrize("left", ["final_proj.weight", "feature_extractor_cqt.cqt_kernels", "encoder.mask_emb"])
def test_what_training_has_left_in_the_file_is_ignored(left: str, folder: Path) -> None:
    plain = open_model(folder).embed(noise())
    torch.save(state_of(folder) | {left: torch.randn(4, 4)}, folder / "pytorch_model.bin")
    torch.testing.assert_close(open_model(folder).embed(noise()), plain, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "missing",
    [
        "encoder.pos_conv_embed.conv.weight_g",
        "feature_extractor.conv_layers.0.layer_norm.weight",
        "encoder.layers.2.attention.q_proj.bias",
        "encoder.layer_norm.weight",
    ],
)
def test_what_is_missing_is_an_error(missing: str, folder: Path) -> None:
    state = state_of(folder)
    del state[missing]
    torch.save(state, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="1 weights are not in its file, among them") as caught:
        open_model(folder)
    assert missing.removesuffix("weight_g") in str(caught.value)


@pytest.mark.parametrize("key", ["feature_extractor_cqt", "deepnorm"])
def test_other_networks_under_the_name_are_refused(key: str, folder: Path) -> None:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {key: True}))
    with pytest.raises(ModelError, match=f"a MERT with {key} is another network than HuBERT"):
        open_model(folder)


def test_the_code_beside_the_weights_is_never_run(folder: Path) -> None:
    """`auto_map` in its configuration names it."""
    ran = folder / "ran"
    (folder / "modeling_MERT.py").write_text(f"open({str(ran)!r}, 'w').close()\nclass MERTModel: pass\n")
    (folder / "configuration_MERT.py").write_text(f"open({str(ran)!r}, 'w').close()\nclass MERTConfig: pass\n")
    open_model(folder)
    assert not ran.exists()


def test_opening_says_nothing(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The library warns of a `model_type` that it does not know."""
    logger = transformers.utils.logging.get_logger("transformers")
    logger.addHandler(caplog.handler)
    try:
        open_model(folder)
    finally:
        logger.removeHandler(caplog.handler)
    assert not caplog.records
