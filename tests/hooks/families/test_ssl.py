"""The library's own classes with small random configurations, but the real strides and frame rates."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hooks import AudioModel, Clip, ModelError, attach, capture, open_model, wrap_model
from hooks.capture import Recorder
from hooks.families.ssl import SpeechEncoder, receptive_field
from hooks.model import Encoder
from tests.tolerance import of_network

transformers = pytest.importorskip("transformers", reason="extra ssl")

SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "conv_dim": (8,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "num_buckets": 32,
    "vocab_size": 12,
}
BASE = {"feat_extract_norm": "group", "do_stable_layer_norm": False}
LARGE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}
FAMILIES = ("Hubert", "WavLM", "Wav2Vec2")
KINDS = [f"{family} {size}{head}" for family in FAMILIES for size in ("base", "large") for head in ("", " CTC")]


def build(kind: str) -> Any:
    """A module in training mode, as the library's constructors leave it."""
    family, size, *head = kind.split()
    config = getattr(transformers, f"{family}Config")(**SMALL, **(LARGE if size == "large" else BASE))
    torch.manual_seed(0)
    return getattr(transformers, f"{family}{'ForCTC' if head else 'Model'}")(config)


@cache
def opened(kind: str) -> SpeechEncoder:
    model = wrap_model(build(kind))
    assert isinstance(model, SpeechEncoder)
    return model


@pytest.fixture(params=KINDS)
def model(request: pytest.FixtureRequest) -> SpeechEncoder:
    return opened(request.param)


@pytest.fixture(params=[f"{family} large" for family in FAMILIES])
def large(request: pytest.FixtureRequest) -> SpeechEncoder:
    return opened(request.param)


def noise(rows: int = 2, samples: int = 6_000) -> Tensor:
    return torch.randn(rows, 1, samples, generator=torch.Generator().manual_seed(1))


def outputs(model: AudioModel, audio_BCN: Tensor) -> Tensor:
    return model.run(audio_BCN)[0]


def push_of(width: int) -> Tensor:
    """Not the same for all channels: layer norms would not see that."""
    return torch.randn(width, generator=torch.Generator().manual_seed(2))


@contextmanager
def pushed(model: AudioModel, name: str) -> Iterator[Tensor]:
    site = model.sites[name]
    assert site.width is not None
    push_D = push_of(site.width)
    with attach(model.module, site, lambda x_BTD: x_BTD + push_D):
        yield push_D


def seen_at_sites(model: AudioModel, audio_BCN: Tensor) -> dict[str, Tensor]:
    with Recorder(model.module, list(model.sites.values())) as recorder:
        model.run(audio_BCN)
    return recorder.take()


# --- sites ---


def test_every_site_is_passed_and_is_as_declared(model: SpeechEncoder) -> None:
    names = ["conv", "projected", "encoder.in", "encoder.0", "encoder.1", "encoder.2"]
    assert list(model.sites) == names + ["encoder.norm"] * model.config.do_stable_layer_norm
    frames = (6_000 - 400) // 320 + 1
    for name, x_BTD in seen_at_sites(model, noise()).items():
        site = model.sites[name]
        assert x_BTD.shape == (2, frames, 8 if name == "conv" else 16) == (2, frames, site.width), name
        assert site.frame_rate == 50.0
    assert (model.kind, model.sample_rate, model.min_samples) == ("encoder", 16_000, 400)


@torch.no_grad()
def test_activations_are_the_librarys_hidden_states(model: SpeechEncoder) -> None:
    audio_BCN = noise()
    seen = seen_at_sites(model, audio_BCN)
    base = model.module.base_model
    own = base(audio_BCN[:, 0], output_hidden_states=True)
    for n, name in enumerate(("encoder.in", "encoder.0", "encoder.1", "encoder.2")):
        torch.testing.assert_close(seen[name], own.hidden_states[n], atol=1e-5, rtol=0)
    final = "encoder.norm" if "encoder.norm" in seen else "encoder.2"
    torch.testing.assert_close(seen[final], own.last_hidden_state, atol=1e-5, rtol=0)
    if final == "encoder.norm":
        assert not torch.allclose(seen["encoder.2"], own.last_hidden_state, atol=0.1)
    conv_BTD = base.feature_extractor(audio_BCN[:, 0]).transpose(1, 2)
    torch.testing.assert_close(seen["conv"], conv_BTD, atol=1e-5, rtol=0)
    projected = base.feature_projection(conv_BTD)
    projected_BTD = projected if isinstance(projected, Tensor) else projected[0]
    torch.testing.assert_close(seen["projected"], projected_BTD, atol=1e-5, rtol=0)


@torch.no_grad()
def test_without_edits_it_is_the_librarys_own_output(model: SpeechEncoder) -> None:
    audio_BCN = noise()
    own = model.module(audio_BCN[:, 0])[0]
    assert torch.equal(outputs(model, audio_BCN), own)
    with ExitStack() as stack:
        for site in model.sites.values():
            stack.enter_context(attach(model.module, site, lambda x_BTD: None))
        assert torch.equal(outputs(model, audio_BCN), own)
        for site in model.sites.values():
            stack.enter_context(attach(model.module, site, lambda x_BTD: x_BTD))
        # a value written back as it was: also through the tuples of WavLM and wav2vec2
        assert torch.equal(outputs(model, audio_BCN), own)


def test_an_edit_changes_what_comes_after_and_nothing_before(model: SpeechEncoder) -> None:
    audio_BCN, names = noise(), list(model.sites)
    plain, plain_output = seen_at_sites(model, audio_BCN), outputs(model, audio_BCN)
    for index, name in enumerate(names):
        with pushed(model, name) as push_D:
            seen = seen_at_sites(model, audio_BCN)
            assert not torch.equal(outputs(model, audio_BCN), plain_output), name
        for before in names[:index]:
            assert torch.equal(seen[before], plain[before]), (name, before)
        assert torch.equal(seen[name], plain[name] + push_D)
        for after in names[index + 1 :]:
            assert not torch.allclose(seen[after], plain[after], atol=1e-3), (name, after)
    assert torch.equal(outputs(model, audio_BCN), plain_output)


def note(passed: list[Any], module: nn.Module, args: Any, output: Any) -> None:
    passed.append(output)


@pytest.mark.parametrize("size", ["base", "large"])
def test_what_a_module_passes_on_keeps_its_type(size: str) -> None:
    for family in FAMILIES:
        model = opened(f"{family} {size}")
        passed: list[Any] = []
        for name in ("encoder.0", "projected"):
            with pushed(model, name):
                own = model.sites[name].find(model.module).register_forward_hook(partial(note, passed))
                model.run(noise())
                own.remove()
        layer, projection = passed
        assert isinstance(layer, tuple if family == "WavLM" else Tensor)
        assert isinstance(projection, Tensor if family == "Hubert" else tuple)
        if family == "WavLM":
            assert len(layer) == 2
            frames = layer[0].shape[1]
            assert layer[1].shape[-2:] == (frames, frames)  # the position bias that all layers share


@pytest.mark.parametrize("head", ["", " CTC"])
def test_a_batch_of_two_on_the_last_layer_of_wavlm(head: str) -> None:
    """Where a bare tensor instead of the tuple would be unpacked along the batch, without an error."""
    model = opened(f"WavLM base{head}")
    plain_BTD = seen_at_sites(model, noise())["encoder.2"]
    with pushed(model, "encoder.2") as push_D:
        output = outputs(model, noise())
    edited_BTD = plain_BTD + push_D
    assert torch.equal(output, model.module.lm_head(edited_BTD) if head else edited_BTD)


# --- batches ---


@torch.no_grad()
def test_a_row_of_a_batch_is_as_alone(model: SpeechEncoder) -> None:
    audio_BCN = noise(3)
    together = outputs(model, audio_BCN)
    # another batch size is another order of summation
    rounding = of_network(model.module, lambda module, x_BN: module(x_BN)[0], audio_BCN[:, 0])
    assert 0 < rounding < 1e-3
    for row in range(3):
        alone = outputs(model, audio_BCN[row : row + 1])
        torch.testing.assert_close(together[row : row + 1], alone, atol=rounding, rtol=0)


@torch.no_grad()
def test_a_padded_row_behind_a_mask(large: SpeechEncoder) -> None:
    """As alone in "large" models, but not in "base" ones, whose front normalises over the padding too."""
    audio_BN, samples = noise()[:, 0], 3_600
    mask_BN = torch.ones_like(audio_BN, dtype=torch.long)
    mask_BN[1, samples:] = 0
    audio_BN = audio_BN * mask_BN
    frames = (samples - 400) // 320 + 1
    base = opened(large.name.replace("Model", "") + " base")
    for model, alike in ((large, True), (base, False)):
        padded = model(audio_BN, attention_mask=mask_BN)[0][1, :frames]
        alone = outputs(model, audio_BN[1:, None, :samples])[0]
        assert torch.allclose(padded, alone, atol=1e-5) == alike


# --- how a module is handed over ---


def test_a_module_in_training_mode_is_put_in_evaluation_mode() -> None:
    for kind in KINDS:
        module = build(kind)
        assert module.training
        model = wrap_model(module)
        assert model.module is module
        assert not any(part.training for part in module.modules())
        assert torch.equal(outputs(model, noise()), outputs(model, noise()))


def test_the_users_own_hooks_stay(model: SpeechEncoder) -> None:
    layer = model.sites["encoder.1"].find(model.module)
    calls: list[int] = []
    own = layer.register_forward_hook(lambda *args: calls.append(1))
    before = dict(layer._forward_hooks)
    try:
        wrap_model(model.module)
        with pushed(model, "encoder.1"):
            seen_at_sites(model, noise())
        assert dict(layer._forward_hooks) == before
        assert calls == [1]
    finally:
        own.remove()


def test_other_heads_are_not_recognised() -> None:
    config = transformers.HubertConfig(**SMALL)
    model = wrap_model(transformers.HubertForSequenceClassification(config))
    assert type(model) is AudioModel


def test_edits_of_features_at_every_layer(model: SpeechEncoder) -> None:
    from steer import SAE, Ablate, SteeredModel

    names = [name for name in model.sites if name.startswith("encoder.")]
    torch.manual_seed(0)
    steered = SteeredModel(model, {name: SAE(16, 32, "relu") for name in names})
    source = noise(1)[0]
    plain = model.embed(source)
    for name in names:
        with steered.edit(Ablate(range(8)), site=name):
            assert not torch.equal(steered.embed(source), plain)
    assert torch.equal(steered.embed(source), plain)
    assert {name: f_BTF.shape[2] for name, f_BTF in steered.features(source).items()} == dict.fromkeys(names, 32)


# --- audio ---


@torch.no_grad()
def test_embed_is_the_last_hidden_state(model: SpeechEncoder) -> None:
    clip = Clip(0.1 * noise(1)[0], 16_000)
    embedding_TD = model.embed(clip)
    assert embedding_TD.shape == (18, 16)
    assert torch.equal(embedding_TD, model.module.base_model(model.prepare(clip)[:, 0]).last_hidden_state[0])


def test_an_encoder_has_to_say_how_it_embeds() -> None:
    with pytest.raises(TypeError, match="Encoder does not define _embed"):
        Encoder(nn.Identity()).embed("a.wav")


def test_prepare_is_the_librarys_feature_extractor() -> None:
    model = opened("Hubert base")
    samples = 0.3 + 0.05 * noise(1)[0, 0].numpy()
    own = transformers.Wav2Vec2FeatureExtractor()(samples, sampling_rate=16_000, return_tensors="pt").input_values
    # float32 sums in another order
    torch.testing.assert_close(model.prepare(samples)[0], own, atol=1e-5, rtol=0)
    assert torch.equal(model.prepare(np.zeros(500, np.float32)), torch.zeros(1, 1, 500))
    plain = SpeechEncoder(build("Hubert base"), normalize=False)
    assert torch.equal(plain.prepare(samples)[0, 0], torch.from_numpy(samples))


def test_prepare_resamples_and_mixes() -> None:
    audio_BCN = opened("Hubert base").prepare(Clip(torch.randn(2, 48_000), 48_000))
    assert audio_BCN.shape == (1, 1, 16_000)
    assert float(audio_BCN.mean()) == pytest.approx(0, abs=1e-6)
    assert float(audio_BCN.std()) == pytest.approx(1, abs=1e-4)


def test_what_one_frame_sees() -> None:
    assert receptive_field((10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)) == 400
    assert receptive_field((3,), (2,)) == 3


def test_ends_that_are_shorter_than_a_frame(model: SpeechEncoder) -> None:
    """A long sound is cut into stretches, of which the last may be too short for the convolutions."""
    pieces = list(capture(model, [noise(1)[0, :, :3_300]], ["encoder.2"], max_s=0.2))
    assert [piece.activations["encoder.2"].shape[1] for piece in pieces] == [9, 1]
    assert model.embed(noise(1)[0, :, :100]).shape == (1, 16)


# --- folders ---


@pytest.fixture(params=KINDS)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    build(request.param).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def hubert(tmp_path: Path) -> Path:
    build("Hubert base").save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_what_save_pretrained_wrote(folder: Path) -> None:
    model = open_model(folder)
    assert isinstance(model, SpeechEncoder)
    assert model.name == str(folder)
    (name,) = model.config.architectures
    own = getattr(transformers, name).from_pretrained(folder)
    assert type(own) is type(model.module)
    assert not model.module.training
    with torch.no_grad():
        assert torch.equal(outputs(model, noise()), own(noise()[:, 0])[0])


def test_the_feature_extractor_beside_the_weights_counts(hubert: Path) -> None:
    for processor in (False, True):
        extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=False, sampling_rate=8_000)
        extractor.save_pretrained(hubert)
        if processor:  # the other place where the library keeps it
            settings = json.loads((hubert / "preprocessor_config.json").read_text())
            (hubert / "preprocessor_config.json").unlink()
            (hubert / "processor_config.json").write_text(json.dumps({"feature_extractor": settings}))
        for model in (open_model(hubert), wrap_model(transformers.HubertModel.from_pretrained(hubert))):
            assert isinstance(model, SpeechEncoder)
            assert (model.normalize, model.sample_rate, model.sites["conv"].frame_rate) == (False, 8_000, 25.0)
            assert model.name == str(hubert)


def test_names_of_modules_loaded_by_hand() -> None:
    module = build("Hubert base")
    assert wrap_model(module).name == "HubertModel"
    module.name_or_path = "facebook/hubert-base-ls960"
    assert wrap_model(module).name == "hf:facebook/hubert-base-ls960"


def test_mert_is_a_hubert_at_24_khz(hubert: Path) -> None:
    config = json.loads((hubert / "config.json").read_text())
    mert = {
        "model_type": "mert_model",
        "architectures": ["MERTModel"],
        "auto_map": {"AutoModel": "modeling_MERT.MERTModel"},
        "sample_rate": 24_000,
        "feature_extractor_cqt": False,
        "deepnorm": False,
    }
    (hubert / "config.json").write_text(json.dumps(config | mert))
    model = open_model(hubert)
    assert (model.sample_rate, model.sites["encoder.0"].frame_rate) == (24_000, 75.0)
    with torch.no_grad():
        assert torch.equal(outputs(model, noise()), build("Hubert base").eval()(noise()[:, 0])[0])
    (hubert / "config.json").write_text(json.dumps(config | mert | {"feature_extractor_cqt": True}))
    with pytest.raises(ModelError, match="a MERT with feature_extractor_cqt is another network than HuBERT"):
        open_model(hubert)


def drop(folder: Path, end: str) -> None:
    state = load_file(folder / "model.safetensors")
    gone = [name for name in state if name.endswith(end)]
    assert gone
    save_file({name: state[name] for name in state if name not in gone}, folder / "model.safetensors", {"format": "pt"})


def test_missing_weights_are_not_made_up(hubert: Path) -> None:
    drop(hubert, "masked_spec_embed")  # used in training only; published files lack it
    open_model(hubert)
    drop(hubert, "layers.1.final_layer_norm.weight")
    with pytest.raises(ModelError, match="1 weights are not in its file, among them encoder.layers.1"):
        open_model(hubert)


@pytest.mark.parametrize("file", ["model.safetensors", "preprocessor_config.json"])
def test_damaged_folders_are_one_line(hubert: Path, file: str) -> None:
    (hubert / file).write_bytes(b"junk")
    with pytest.raises(ModelError, match="could not be opened|fetch it again") as caught:
        open_model(hubert)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["facebook/hubert-base-ls960", "microsoft/wavlm-base", "facebook/wav2vec2-base"])
def test_a_hub_model_without_a_network_is_one_line(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match=rf"hf:{name}: could not be downloaded .* or open a folder") as caught:
        open_model(f"hf:{name}")
    assert "\n" not in str(caught.value)
