"""What is exported opens in both libraries without a network, and is the same model there."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hooks import AudioModel, ModelError, open_model, wrap_model
from hooks.families.whisper.export import CHECKPOINT, export, to_transformers, tokenizer_of
from hooks.families.whisper.hf import WhisperTransformers

whisper = pytest.importorskip("whisper", reason="extra whisper")
transformers = pytest.importorskip("transformers", reason="extra whisper")

WIDTH, LAYERS = 32, 2
ENGLISH, MULTILINGUAL, LARGE_V3 = 51_864, 51_865, 51_866
"""Sizes of the vocabularies that there are."""
TEXTS = (
    "Hello world, it's a colour test: I'll pay $12,345.67!",
    "!!!!!!!!!!! hahahahahaha aaaaaaaaaaaaa ========== ________ 1000000000",
    "  two  spaces \n\n\t and tabs\r\n",
    "naïve Größe 日本語 ♪♪ — …",
)


def random_whisper(vocabulary: int = ENGLISH, mels: int = 80) -> Any:
    torch.manual_seed(0)
    dims = whisper.model.ModelDimensions(mels, 1500, WIDTH, 2, LAYERS, vocabulary, 448, WIDTH, 2, LAYERS)
    module = whisper.model.Whisper(dims).eval()
    for weight in module.parameters():
        if weight.ndim > 1:
            # large enough for what is heard to decide what is written
            nn.init.normal_(weight, std=0.3)
    return module


@pytest.fixture(scope="module")
def module() -> Any:
    return random_whisper()


@pytest.fixture(scope="module")
def folder(module: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "not" / "there"
    export(wrap_model(module), folder)
    return folder


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*args: object) -> None:
        raise AssertionError("asked the network")

    monkeypatch.setattr(socket.socket, "connect", connect)


@pytest.fixture
def noise_N() -> Tensor:
    """30 s: where a window is full, the libraries' ways to fill it up do not matter."""
    time_N = torch.arange(480_000) / 16_000
    return (0.02 + 0.01 * time_N) * (torch.randn(480_000) + torch.sin(40 * time_N.square()))


def test_the_package_opens_its_file(module: Any, folder: Path) -> None:
    opened = whisper.load_model(str(folder / CHECKPOINT), device="cpu")
    assert opened.dims == module.dims
    for name, value in module.state_dict().items():
        assert torch.equal(opened.state_dict()[name], value), name


def test_files_are_for_everybody_and_nothing_else_is_there(folder: Path) -> None:
    names = {"config.json", "generation_config.json", CHECKPOINT, "model.safetensors", "normalizer.json"}
    names |= {"preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"}
    assert {path.name for path in folder.iterdir()} == names
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1


@torch.no_grad()
def test_transformers_computes_the_same(module: Any, folder: Path, noise_N: Tensor) -> None:
    opened = transformers.WhisperForConditionalGeneration.from_pretrained(folder)
    assert opened.dtype == torch.float32
    mel_BFT = whisper.log_mel_spectrogram(noise_N)[None]
    tokens_BL = torch.tensor([[50_257, 50_362, 11, 12, 13]])
    given = opened(mel_BFT, decoder_input_ids=tokens_BL).logits
    # float32, and logits of size 10
    torch.testing.assert_close(given, module(mel_BFT, tokens_BL), atol=1e-4, rtol=1e-5)


def test_the_same_words_in_both(folder: Path, noise_N: Tensor) -> None:
    model = open_model(folder)
    assert isinstance(model, WhisperTransformers)
    package = whisper.load_model(str(folder / CHECKPOINT), device="cpu")
    # transformers does not show a window the text before it
    options = {"temperature": 0.0, "fp16": False, "sample_len": 8, "condition_on_previous_text": False}
    for timed in (True, False):
        expected = whisper.transcribe(package, noise_N.numpy(), without_timestamps=not timed, **options)["text"].strip()
        assert expected
        assert model.transcribe(noise_N, return_timestamps=timed, max_new_tokens=8) == expected
    pipeline = transformers.pipeline("automatic-speech-recognition", model=str(folder))
    # it searches with five beams if it is not told otherwise
    told = pipeline(noise_N.numpy(), generate_kwargs={"max_new_tokens": 8, "num_beams": 1})
    assert told["text"].strip() == expected


def test_the_processor_reads_and_writes_as_the_package(folder: Path, noise_N: Tensor) -> None:
    processor = transformers.WhisperProcessor.from_pretrained(folder)
    features = processor(noise_N.numpy(), sampling_rate=16_000, return_tensors="pt").input_features
    torch.testing.assert_close(features[0], whisper.log_mel_spectrogram(noise_N), atol=1e-4, rtol=1e-5)
    names = whisper.tokenizer.get_tokenizer(False)
    for text in TEXTS:
        tokens = processor.tokenizer(text, add_special_tokens=False).input_ids
        assert tokens == names.encode(text)
        assert processor.decode(tokens) == text
    start = [names.sot, names.no_timestamps]
    assert processor.tokenizer("Hi").input_ids == [*start, *names.encode("Hi"), names.eot]
    timed = [*start[:1], names.timestamp_begin, *names.encode(" Hi"), names.timestamp_begin + 50, names.eot]
    assert processor.decode(timed, skip_special_tokens=True) == " Hi"
    assert "<|0.00|> Hi<|1.00|>" in processor.decode(timed, decode_with_timestamps=True)
    spoken = "The colour, um, isn't GREY"
    own = whisper.normalizers.EnglishTextNormalizer()
    assert processor.tokenizer.normalize(spoken) == own(spoken) == "the color is not gray"


@pytest.mark.parametrize(("vocabulary", "mels", "last"), [(MULTILINGUAL, 80, "su"), (LARGE_V3, 128, "yue")])
def test_models_of_many_languages(vocabulary: int, mels: int, last: str) -> None:
    module = random_whisper(vocabulary, mels)
    module.register_buffer(
        "alignment_heads", torch.tensor([[False, True], [True, False]]).to_sparse(), persistent=False
    )
    converted = to_transformers(module)
    names = whisper.tokenizer.get_tokenizer(True, num_languages=module.num_languages)
    settings = converted.generation_config
    assert settings.is_multilingual
    assert settings.lang_to_id[f"<|{last}|>"] == max(settings.lang_to_id.values()) == names.translate - 1
    assert settings.task_to_id == {"transcribe": names.transcribe, "translate": names.translate}
    assert settings.alignment_heads == [[0, 1], [1, 0]]
    assert converted.config.num_mel_bins == mels
    tokenizer = tokenizer_of(module)
    assert len(tokenizer) == vocabulary
    for name, token in names.special_tokens.items():
        assert tokenizer.convert_tokens_to_ids(name) == token
    for text in TEXTS:
        assert tokenizer(text, add_special_tokens=False).input_ids == names.encode(text)


def test_others_are_refused(folder: Path, tmp_path: Path) -> None:
    for model in (open_model(folder), AudioModel(nn.Linear(1, 1), name="mine")):
        with pytest.raises(ModelError, match=f"^{model.name}: only Whispers of openai-whisper are exported"):
            export(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_is_left_of_an_export_that_fails(module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError("no space left\non the disk")

    monkeypatch.setattr(transformers.WhisperFeatureExtractor, "save_pretrained", full)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "config.json").write_text("mine")
    for folder in (tmp_path / "out", mine):
        with pytest.raises(ModelError, match=r"could not be written \(no space left on the disk\)"):
            export(wrap_model(module), folder)
    assert not (tmp_path / "out").exists()
    assert [path.name for path in mine.iterdir()] == ["config.json"]
    assert (mine / "config.json").read_text() == "mine"
