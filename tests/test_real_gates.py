"""Conditional edits on OpenAI's own weights: three libraries write the same behind one gate, and a shut one is none."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hooks import open_model, read_clip
from hooks.families.whisper import WhisperPackage
from hooks.families.whisper.export import export
from steer import SAE, AddDirection, Gate, SteeredModel, fit_gate, gate_logits, pool_sounds

pytest.importorskip("whisper", reason="extra whisper")
pytest.importorskip("sklearn", reason="extra eval")
GREEDY: dict[str, Any] = {"temperature": 0.0, "condition_on_previous_text": False, "sample_len": 40}
SITE = "encoder.3"
WIDTH = 384


def some(folder: Path, subset: str, split: str, step: int, count: int) -> list[Path]:
    rows = csv.DictReader((folder / subset / "manifest.csv").open(encoding="utf-8"))
    return [folder / subset / row["path"] for row in rows if row["split"] == split][::step][:count]


@pytest.fixture(scope="module")
def checkpoint(real_weights: Path) -> WhisperPackage:
    model = open_model(f"whisper:{real_weights}/tiny.en.pt")
    assert isinstance(model, WhisperPackage)
    return model


@pytest.fixture(scope="module")
def sae() -> SAE:
    """Random directions above random thresholds: what is tested is exact for any features."""
    torch.manual_seed(0)
    sae = SAE(WIDTH, 512, "batchtopk", 16).requires_grad_(False)
    sae.threshold.fill_(1.0)
    return sae


@pytest.fixture(scope="module")
def gates(checkpoint: WhisperPackage, sae: SAE, recordings: Path) -> dict[str, Gate]:
    """Open on what is not speech: by ten features of the SAE, or by the activation itself."""
    steered = SteeredModel(checkpoint, sae, SITE, check=False)
    speech = some(recordings, "orders", "train", 7, 4) + some(recordings, "keywords", "train", 9, 4)
    other = some(recordings, "esc10", "train", 19, 8)
    found = {}
    for on, k in (("features", 10), ("activation", None)):
        examples = pool_sounds(steered, speech + other, SITE, on)
        found[on] = fit_gate(examples, [False] * len(speech) + [True] * len(other), k)
    return found


@pytest.fixture(scope="module")
def gate(gates: dict[str, Gate]) -> Gate:
    return gates["features"]


@pytest.fixture(scope="module")
def sounds(recordings: Path) -> list[Path]:
    """Speech, noise, speech, noise; of the test split."""
    speech, other = some(recordings, "orders", "test", 5, 2), some(recordings, "esc10", "test", 9, 2)
    return [speech[0], other[0], speech[1], other[1]]


def vector() -> AddDirection:
    push_D = torch.randn(WIDTH, generator=torch.Generator().manual_seed(1))
    return AddDirection(18 * push_D / push_D.norm())


def steer(model: Any, sae: SAE) -> SteeredModel:
    return SteeredModel(model, sae, SITE, check=False)


def whole(transcript: Any) -> list[tuple[Any, ...]]:
    keys = ("start", "end", "text", "tokens", "temperature", "avg_logprob", "no_speech_prob")
    return [tuple(segment.get(key) for key in keys) for segment in transcript.segments]


@pytest.fixture(scope="module")
def texts(checkpoint: WhisperPackage, sounds: list[Path], sae: SAE) -> dict[str, list[Any]]:
    """As the model is, and with the edit everywhere."""
    steered = steer(checkpoint, sae)
    plain = [checkpoint.transcribe(path, **GREEDY) for path in sounds]
    with steered.edit(vector(), site=SITE):
        return {"plain": plain, "always": [steered.transcribe(path, **GREEDY) for path in sounds]}


@pytest.mark.parametrize("on", ["features", "activation"])
def test_speech_is_left_and_noise_is_edited(
    on: str,
    checkpoint: WhisperPackage,
    sae: SAE,
    gates: dict[str, Gate],
    sounds: list[Path],
    texts: dict[str, list[Any]],
) -> None:
    steered, gate = steer(checkpoint, sae), gates[on]
    logits = [float(gate_logits(steered, gate, path)) for path in sounds]
    assert [logit > 0 for logit in logits] == [False, True, False, True]
    with steered.edit(vector(), site=SITE, when=gate):
        found = [steered.transcribe(path, **GREEDY) for path in sounds]
        if on == "features":
            assert steered.transcribe_all(sounds, **GREEDY) == found
    for number, one in enumerate(found):
        assert whole(one) == whole(texts["always" if number % 2 else "plain"][number])
        assert one != texts["plain" if number % 2 else "always"][number]


def test_an_edit_before_the_gate(
    checkpoint: WhisperPackage, sae: SAE, gate: Gate, sounds: list[Path], texts: dict[str, list[Any]]
) -> None:
    """Decided beforehand, by a pass of its own."""
    steered = steer(checkpoint, sae)
    with steered.edit(vector(), site="encoder.0"):
        always = steered.transcribe(sounds[1], **GREEDY)
    with steered.edit(vector(), site="encoder.0", when=gate):
        assert whole(steered.transcribe(sounds[0], **GREEDY)) == whole(texts["plain"][0])
        assert whole(steered.transcribe(sounds[1], **GREEDY)) == whole(always)


def test_three_libraries_agree(
    checkpoint: WhisperPackage,
    sae: SAE,
    gate: Gate,
    sounds: list[Path],
    recordings: Path,
    real_weights: Path,
    tmp_path: Path,
) -> None:
    pytest.importorskip("transformers", reason="extra whisper")
    export(checkpoint, tmp_path)
    models = [checkpoint, open_model(f"ct2:{real_weights}/ct2/tiny.en"), open_model(tmp_path)]
    plain: dict[str, Any] = {"temperature": 0.0, "condition_on_previous_text": False}
    options: list[dict[str, Any]] = [plain, plain, {"return_timestamps": True}]
    sentence, noise = recordings / "ljspeech" / "LJ001-0019.flac", sounds[1]
    expected = checkpoint.transcribe(sentence, **plain)
    outputs, logits = [], []
    for model, how in zip(models, options, strict=True):
        steered = steer(model, sae)
        with steered.edit(vector(), site=SITE, when=gate):
            # what libraries fill a window up with differs, and with it the words of close calls: this is none
            assert steered.transcribe(sentence, **how) == expected
            outputs.append(steered.run(model.prepare(noise)))
            with torch.no_grad():
                logits.append(steered.logits(model.prepare(noise)[:, 0], torch.tensor([[50257, 50362, 290, 262]])))
    assert torch.equal(outputs[0], outputs[1]) and torch.equal(logits[0], logits[1])
    assert not torch.equal(outputs[0], checkpoint.run(checkpoint.prepare(noise)))
    # transformers' spectrogram rounds otherwise
    torch.testing.assert_close(outputs[2], outputs[0], atol=5e-3, rtol=1e-3)
    torch.testing.assert_close(logits[2], logits[0], atol=5e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("options", "sites"),
    [
        ({"beam_size": 3, "temperature": 0.0}, ("encoder.1",)),
        ({"temperature": (0.0, 0.4), "compression_ratio_threshold": 0.5}, ("encoder.1", SITE)),
        ({"word_timestamps": True, "temperature": 0.0}, (SITE,)),
    ],
    ids=["beams", "fallback", "words"],
)
def test_shut_it_is_the_model_bit_for_bit(
    options: dict[str, Any],
    sites: tuple[str, ...],
    checkpoint: WhisperPackage,
    sae: SAE,
    gate: Gate,
    sounds: list[Path],
) -> None:
    """Every number of the segments, through beams, temperatures that encode again, and word times; decided before the
    edit by a pass of its own, or by the one that goes on."""
    steered = steer(checkpoint, sae)

    def heard(model: Any) -> list[tuple[Any, ...]]:
        torch.manual_seed(0)
        return whole(model.transcribe(sounds[0], sample_len=30, **options))

    plain = heard(checkpoint)
    for site in sites:
        with steered.edit(vector(), site=site, when=gate):
            assert heard(steered) == plain


@pytest.fixture(scope="module")
def minute(sounds: list[Path]) -> Tensor:
    """Speech, noise, a pause and noise, and speech again: two windows."""
    speech, other = (read_clip(path).resampled(16_000).mixed(1).waveform[0] for path in (sounds[0], sounds[1]))
    return torch.cat([speech, other.repeat(5), torch.zeros(8000), other.repeat(3), speech])


def test_windows_and_seconds(checkpoint: WhisperPackage, sae: SAE, gate: Gate, minute: Tensor) -> None:
    """Where the gate is shut frames are the model's own, where it is open those of the edit; by second within one
    window too."""
    steered, audio = steer(checkpoint, sae), minute[None, None]
    plain_TD = checkpoint.run(audio)[0]
    with steered.edit(vector(), site="encoder.norm"):
        always_TD = steered.run(audio)[0]
    kinds = []
    for scope in ("clip", "window", 3.0):
        one = Gate(gate.probe, gate.threshold, scope)  # type: ignore[arg-type]
        open_T = gate_logits(steered, one, minute) > one.threshold
        if scope == "window":
            open_T = open_T.repeat_interleave(1500)[: len(plain_TD)]
        if isinstance(scope, float):  # `run` has a frame more, since it fills up the sound and not the spectrogram
            open_T = torch.cat([open_T, open_T[-1:]])[: len(plain_TD)]
        with steered.edit(vector(), site="encoder.norm", when=one):
            found_TD = steered.run(audio)[0]
        if isinstance(scope, float):
            # a window's first and last seconds are pooled with what lies in that window
            inner_T = (torch.arange(len(plain_TD)) % 1500 > 75) & (torch.arange(len(plain_TD)) % 1500 < 1425)
            # `run` fills up the last window otherwise than a transcript, by which the logits are: not at a crossing
            share_T = torch.nn.functional.avg_pool1d(open_T[None].float(), 11, 1, 5, count_include_pad=False)[0]
            inner_T &= (share_T == 0) | (share_T == 1)
        else:
            inner_T = torch.ones(len(plain_TD), dtype=torch.bool)
        expected_TD = torch.where(open_T[:, None], always_TD, plain_TD)
        assert torch.equal(found_TD[inner_T], expected_TD[inner_T])
        kinds.append((bool(open_T.any()), bool(open_T.all())))
    assert kinds[2] == (True, False)


def test_long_sounds_are_written_alike_in_batches(
    checkpoint: WhisperPackage, sae: SAE, gate: Gate, minute: Tensor, sounds: list[Path]
) -> None:
    steered = steer(checkpoint, sae)
    for scope, site in (("clip", "encoder.0"), (3.0, SITE)):
        with steered.edit(vector(), site=site, when=Gate(gate.probe, gate.threshold, scope)):  # type: ignore[arg-type]
            alone = [str(steered.transcribe(one, **GREEDY)) for one in (minute, sounds[0])]
            together = [str(one) for one in steered.transcribe_all([minute, sounds[0]], **GREEDY)]
        assert together == alone


@pytest.fixture(autouse=True)
def nothing_stays(checkpoint: WhisperPackage) -> Iterator[None]:
    yield
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in checkpoint.module.modules())
