"""The library's own classes with small random weights, but the published patches, window and spectrogram."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from hooks import Clip, ModelError, at_time, attach, capture, open_model, wrap_model
from hooks.capture import Recorder
from hooks.families.ast import SpectrogramTransformer
from hooks.timing import current_time
from steer import SAE, Ablate, EditError, SteeredModel

transformers = pytest.importorskip("transformers", reason="extra ssl")
pytest.importorskip("torchaudio", reason="AST's spectrograms")

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "num_labels": 4}
SITES = ("embeddings", "encoder.0", "encoder.1", "encoder.norm")
TOKENS = 2 + 12 * 101
WINDOW = 163_840  # 10.24 s


def build(head: str, **config: Any) -> Any:
    torch.manual_seed(0)
    return getattr(transformers, f"AST{head}")(transformers.ASTConfig(**SMALL | config))


@cache
def opened(head: str) -> SpectrogramTransformer:
    model = wrap_model(build(head))
    assert isinstance(model, SpectrogramTransformer)
    return model


@pytest.fixture(params=["Model", "ForAudioClassification"])
def model(request: pytest.FixtureRequest) -> SpectrogramTransformer:
    return opened(request.param)


@pytest.fixture
def bare() -> SpectrogramTransformer:
    return opened("Model")


def noise(samples: int = 16_000, seed: int = 0) -> Tensor:
    level = torch.linspace(0.02, 0.3, samples)
    return level * torch.randn(1, samples, generator=torch.Generator().manual_seed(seed))


def spectrogram(audio_CN: Tensor) -> Tensor:
    own = transformers.ASTFeatureExtractor()(audio_CN[0].numpy(), sampling_rate=16_000, return_tensors="pt")
    return own.input_values


# --- sites ---


@torch.no_grad()
def test_sites_are_the_librarys_hidden_states(model: SpectrogramTransformer) -> None:
    assert tuple(model.sites) == SITES
    base = model.module.base_model
    own = base(spectrogram(noise()), output_hidden_states=True)
    seen = next(capture(model, [noise()], SITES)).activations
    for name, theirs in zip(SITES, [*own.hidden_states, own.last_hidden_state], strict=True):
        assert torch.equal(seen[name], theirs), name
        assert seen[name].shape == (1, TOKENS, 16)
        site = model.sites[name]
        assert (site.width, site.frame_rate, site.chunk_s) == (16, None, 10.24)


@torch.no_grad()
def test_run_is_the_librarys_own_output(model: SpectrogramTransformer) -> None:
    own = model.module(spectrogram(noise()))
    output = model.run(model.prepare(noise()))
    if model is opened("Model"):
        assert torch.equal(output, own.last_hidden_state)
    else:
        assert torch.equal(output, own.logits[:, None])


def test_the_grid_says_where_a_patch_lies(bare: SpectrogramTransformer) -> None:
    """Patches with no neighbours in common see no change of one another's part of the spectrogram."""
    values = spectrogram(noise())
    with Recorder(bare.module, [bare.sites["embeddings"]]) as recorder, torch.no_grad():
        bare.module(values)
        plain = bare.grid(recorder.take()["embeddings"])
        changed = values.clone()
        changed[0, 505, 93] += 1.0  # frame 505 of the spectrogram, mel bin 93
        bare.module(changed)
        grid = bare.grid(recorder.take()["embeddings"])
    assert plain.shape == (1, 12, 101, 16)
    touched = (grid != plain).any(-1)[0].nonzero().tolist()
    # patches of 16 every 10: bin 93 is in those from 80 and 90, frame 505 in those from 490 and 500
    assert touched == [[8, 49], [8, 50], [9, 49], [9, 50]]


def test_the_two_tokens_come_first(bare: SpectrogramTransformer) -> None:
    x_BTD = next(capture(bare, [noise()], ["encoder.norm"])).activations["encoder.norm"]
    assert torch.equal(x_BTD[:, 2:], bare.grid(x_BTD).flatten(1, 2))
    torch.testing.assert_close(bare.embed(noise()), x_BTD[:, :2].mean(1))


def test_tokens_have_no_time(model: SpectrogramTransformer) -> None:
    steered = SteeredModel(model, SAE(16, 32, "relu"), "encoder.0")
    plain = model.embed(noise())
    with steered.edit(Ablate(range(32))):
        assert not torch.equal(steered.embed(noise()), plain)
    with (
        steered.edit(Ablate([0], during=(0.0, 1.0))),
        pytest.raises(EditError, match=r"site 'encoder.0': no frame rate"),
    ):
        steered.embed(noise())
    assert current_time() is None
    assert torch.equal(model.embed(noise()), plain)


# --- windows ---


def test_long_sounds_go_window_by_window(model: SpectrogramTransformer) -> None:
    audio_CN = noise(2 * WINDOW + 8_000)
    starts: list[float | None] = []
    with attach(model.module, model.sites["encoder.0"], lambda x_BTD: starts.append(current_time())), at_time(100.0):
        output = model.run(model.prepare(audio_CN))
    assert starts == pytest.approx([100.0, 110.24, 120.48])
    embedding = model.embed(audio_CN)
    assert embedding.shape == (3, 16)
    # a window's last spectrogram frame reaches 240 samples into the next one
    own = spectrogram(audio_CN[:, WINDOW : 2 * WINDOW + 240])
    rows = output.shape[1] // 3
    with torch.no_grad():
        assert torch.equal(output[:, rows : 2 * rows].flatten(), model.module(own)[0].flatten())
        # the library cuts off what is longer than a window
        first = model.module.base_model(spectrogram(audio_CN)).pooler_output
    assert torch.equal(embedding[:1], first)


@pytest.mark.parametrize(
    ("samples", "windows"), [(1, 1), (399, 1), (400, 1), (WINDOW + 399, 1), (WINDOW + 400, 2), (2 * WINDOW, 2)]
)
def test_ends_too_short_for_a_frame_make_no_window(samples: int, windows: int, bare: SpectrogramTransformer) -> None:
    assert bare.embed(noise(samples)).shape == (windows, 16)


def test_prepare_resamples_and_keeps_full_precision(bare: SpectrogramTransformer) -> None:
    assert bare.prepare(Clip(torch.randn(2, 48_000), 48_000)).shape == (1, 1, 16_000)
    half = wrap_model(build("Model").to(torch.bfloat16))
    audio_BCN = half.prepare(noise())
    assert audio_BCN.dtype == torch.float32
    # bfloat16 has 8 bits, and the norm keeps values near 1
    torch.testing.assert_close(half.run(audio_BCN).float(), bare.run(audio_BCN), atol=0.1, rtol=0)


# --- opening ---


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    build("ForAudioClassification").save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_folders_open_with_their_head(folder: Path, tmp_path: Path) -> None:
    model = open_model(folder)
    assert isinstance(model, SpectrogramTransformer)
    assert type(model.module).__name__ == "ASTForAudioClassification" and not model.module.training
    build("Model").save_pretrained(tmp_path / "bare")
    assert type(open_model(tmp_path / "bare").module).__name__ == "ASTModel"


def test_the_feature_extractor_beside_the_weights_counts(folder: Path) -> None:
    plain = open_model(folder).embed(noise())
    transformers.ASTFeatureExtractor(mean=-6.845978, std=5.5654526).save_pretrained(folder)
    loaded = transformers.ASTForAudioClassification.from_pretrained(folder)
    for model in (open_model(folder), wrap_model(loaded)):
        assert isinstance(model, SpectrogramTransformer)
        assert (model.feature_extractor.mean, model.name) == (-6.845978, str(folder))
        assert not torch.allclose(model.embed(noise()), plain, atol=1e-3)
    default = opened("Model").feature_extractor
    assert (default.mean, default.std, default.max_length) == (-4.2677393, 4.5689974, 1024)


def test_a_short_window_as_for_speech_commands(tmp_path: Path) -> None:
    folder = tmp_path / "commands"
    build("ForAudioClassification", max_length=128).save_pretrained(folder)
    model = open_model(folder)  # the default extractor has the model's window
    assert isinstance(model, SpectrogramTransformer)
    assert (model.shape, model.sites["encoder.0"].chunk_s) == ((12, 12), 1.28)
    assert model.run(model.prepare(noise(20_480 + 400))).shape == (1, 2, 4)
    transformers.ASTFeatureExtractor(max_length=1024).save_pretrained(folder)
    with pytest.raises(ModelError, match="its feature extractor has max_length 1024, the model takes 128"):
        open_model(folder)


def test_files_that_older_versions_of_the_library_wrote(folder: Path) -> None:
    """The published ones are such: other paths for the layers and their parts."""
    plain = open_model(folder).embed(noise())
    older = {
        ".layers.": ".encoder.layer.",
        "attention.q_proj": "attention.attention.query",
        "attention.k_proj": "attention.attention.key",
        "attention.v_proj": "attention.attention.value",
        "attention.o_proj": "attention.output.dense",
        "mlp.fc1": "intermediate.dense",
        "mlp.fc2": "output.dense",
    }
    state = {}
    for name, weight in load_file(folder / "model.safetensors").items():
        for new, old in older.items():
            name = name.replace(new, old)
        state[name] = weight
    assert "audio_spectrogram_transformer.encoder.layer.1.attention.attention.query.weight" in state
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    # weights that lie otherwise in memory may round otherwise
    torch.testing.assert_close(open_model(folder).embed(noise()), plain, atol=1e-6, rtol=1e-6)


def test_missing_weights_are_not_made_up(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    gone = [
        name for name in state if name.endswith("layers.1.mlp.fc1.bias") or "layer.1.intermediate.dense.bias" in name
    ]
    state.pop(*gone)
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="1 weights are not in its file, among them .*layers.1.mlp.fc1.bias"):
        open_model(folder)


@pytest.mark.parametrize("file", ["model.safetensors", "preprocessor_config.json"])
def test_damaged_folders_are_one_line(folder: Path, file: str) -> None:
    (folder / file).write_bytes(b"junk")
    with pytest.raises(ModelError, match="could not be opened|holds something else") as caught:
        open_model(folder)
    assert "\n" not in str(caught.value)


def test_other_models_of_the_kind_are_not_recognised(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "ast"}))
    with pytest.raises(ModelError, match="models of type 'ast' are not supported"):
        open_model(folder)


def test_a_hub_model_without_a_network_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    name = "hf:MIT/ast-finetuned-audioset-10-10-0.4593"
    with pytest.raises(ModelError, match=rf"{name}: could not be downloaded .* or open a folder") as caught:
        open_model(name)
    assert "\n" not in str(caught.value)
