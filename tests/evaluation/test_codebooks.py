"""Numbers of codebooks and bit rates of the codec families, at random weights."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from evaluation.codebooks import codebooks_of, kilobits_of, with_codebooks
from evaluation.codec_index import CHANCE
from evaluation.config import EvaluationError
from evaluation.evaluators.codec_index import CODEC_INDEX, CodecIndexConfig
from hooks import Codec, open_model, wrap_model
from hooks.capture import Recorder


@pytest.fixture(scope="module")
def codec() -> Codec:
    found = open_model("starter:wavtokenizer")
    assert isinstance(found, Codec)
    return found


def decoder_input(codec: Codec) -> torch.Tensor:
    audio = 0.1 * torch.randn(1, 1, 4800, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), Recorder(codec.module, [codec.site("decoder_input")]) as recorder:
        codec.pass_through(audio)
        return recorder.take()["decoder_input"]


def test_the_first_codebooks_of_the_starter(codec: Codec) -> None:
    assert codebooks_of(codec) == 8
    assert kilobits_of(codec, 8) == pytest.approx(8 * kilobits_of(codec, 1))  # type: ignore[operator]
    continuous = decoder_input(codec)
    found = {}
    for count in (1, 2, 8, None):
        with with_codebooks(codec, count):
            found[count] = decoder_input(codec)
    # the library's own sum of the first codebooks
    books = codec.module.quantizer.codebooks()
    codes = codec.module.quantizer.encode(continuous.transpose(1, 2))
    for count in (1, 2):
        summed = sum(book.embed[codes[index]] for index, book in enumerate(books[:count]))
        assert torch.equal(found[count], summed)
    assert torch.equal(found[8], found[None])
    errors = [float((found[count] - continuous).square().mean()) for count in (1, 2, 8)]
    assert errors == sorted(errors, reverse=True)
    # and the codec is left as it was
    assert torch.equal(decoder_input(codec), continuous)
    assert codec.num_quantizers is None  # type: ignore[attr-defined]


def test_wrong_numbers(codec: Codec) -> None:
    for count, said in ((9, "--codebooks 9: starter:wavtokenizer has 8"), (0, "--codebooks 0")):
        with pytest.raises(EvaluationError, match=said), with_codebooks(codec, count):
            pass
    plain = open_model("starter:codec")
    assert isinstance(plain, Codec)
    with pytest.raises(EvaluationError, match="starter:codec has no residual quantiser"), with_codebooks(plain, 1):
        pass
    with with_codebooks(plain, None):
        assert not plain.quantize or plain.has_quantizer


FAMILIES = {
    "encodec": ("24", "package", 32, 2 * 75 * 10),
    "encodec, transformers": ("24", "of_transformers", 32, 2 * 75 * 10),
    "dac": (24_000, "package", 4, 2 * 75 * 6),
    "dac, transformers": (24_000, "of_transformers", 4, 2 * 75 * 6),
    "mimi": (None, "build", 8, 2 * 12.5 * 8),
    "speechtokenizer": (None, "build", 4, 2 * 50 * 8),
}
"""What makes a small module with random codebooks, how many it has, and bit/s of two: frame rate times bits of each."""


def built(family: str) -> Codec:
    """A small codec with random weights."""
    module = importlib.import_module(f"tests.hooks.contract.{family.partition(',')[0]}")
    argument, function, _, _ = FAMILIES[family]
    torch.manual_seed(0)
    if family == "speechtokenizer":
        argument = {**module.config_of("ELU"), "n_q": 4}
    codec = wrap_model(getattr(module, function)(*([] if argument is None else [argument])).eval())
    assert isinstance(codec, Codec)
    return codec


@pytest.mark.parametrize("family", FAMILIES)
def test_families(family: str) -> None:
    codec = built(family)
    _, _, books, bits = FAMILIES[family]
    assert codebooks_of(codec) == books
    assert kilobits_of(codec, 2) == pytest.approx(bits / 1000, rel=1e-3)
    found = []
    for count in (2, 4):
        with with_codebooks(codec, count):
            found.append(decoder_input(codec))
    assert found[0].shape == found[1].shape
    assert not torch.equal(*found)
    if "encodec" in family:
        with pytest.raises(EvaluationError, match="--codebooks 3: 2.25 kbit/s is not a bit rate"):
            with_codebooks(codec, 3).__enter__()


@pytest.fixture(scope="module")
def noises(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 150 noises of several lengths and levels; their labels have nothing to do with them."""
    folder = tmp_path_factory.mktemp("noises")
    rng = np.random.default_rng(0)
    lines = ["path,split,label"]
    for number in range(150):
        samples_N = 10 ** rng.uniform(-1.5, -0.5) * rng.standard_normal(rng.integers(4_000, 8_000))
        soundfile.write(folder / f"{number}.wav", samples_N, 24_000)
        lines.append(f"{number}.wav,{'test' if number % 3 == 0 else 'train'},{'ab'[rng.integers(2)]}")
    (folder / "manifest.csv").write_text("\n".join(lines))
    return folder


@pytest.mark.parametrize("family", ["encodec", "dac", "mimi", "speechtokenizer"])
def test_nothing_is_found_in_nothing(family: str, noises: Path) -> None:
    """`codec-index` of a codec with random weights: no part of its codes has to do with the labels."""
    pytest.importorskip("sklearn", reason="extra eval")
    config = CodecIndexConfig(
        audio=noises, subject=built(family), codebooks=(2,), q=(2,), s=(0.25,), seeds=1, steps=20, nulls=20
    )
    rows = [row for row in CODEC_INDEX.run(config, iter).rows if row["shuffled, 95 %"] is not None]
    assert {row["on"] for row in rows} >= {"u", "z", "position", "magnitude", "level"}
    # one of twenty passes the 95th percentile by chance, with parts of one code together
    assert sum(row["remark"] == CHANCE for row in rows) >= len(rows) - 3
    assert all(row["F1"].value < 0.75 for row in rows)
