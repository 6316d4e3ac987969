from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

pytest.importorskip("whisper", reason="the starter recogniser is an openai-whisper model (extra whisper)")
pytest.importorskip("jiwer", reason="word error rates (extra whisper)")

from hooks import open_model
from training import train_asr
from training.train_asr import (
    LETTERS,
    SHORT_S,
    WIDTH,
    Trainer,
    Vocabulary,
    blank_rest,
    build,
    greedy,
    log_mel,
    mask_parts,
    set_window,
    spelled,
)
from training.utterances import SAMPLE_RATE, Mixer, Piece

WORDS = ["one", "two", "coffee"]


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary(WORDS)


@pytest.fixture(scope="module")
def mixer() -> Mixer:
    rng = np.random.default_rng(0)
    waves = (0.1 * rng.standard_normal((3, SAMPLE_RATE // 2))).astype(np.float32)
    return Mixer([Piece("digits", "", word, wave) for word, wave in zip(WORDS, waves, strict=True)], [], [], seed=0)


def test_transcripts_are_whispers_own_tokens(vocabulary: Vocabulary) -> None:
    tokenizer = vocabulary.tokenizer
    (plain, _), (timed, answers) = vocabulary.rows("two coffee", None), vocabulary.rows("two coffee", 1.5)
    assert timed[1:] == answers[:-1]
    tokens = [int(vocabulary.ids[row]) for row in [*timed, answers[-1]]]
    assert tokens[0] == tokenizer.sot
    assert tokens[-1] == tokenizer.eot
    assert tokens[1] == tokenizer.timestamp_begin  # 0.00 s
    assert tokens[-2] == tokenizer.timestamp_begin + 75  # steps of 20 ms
    assert int(vocabulary.ids[plain[1]]) == tokenizer.no_timestamps
    assert vocabulary.text(plain) == vocabulary.text(timed) == " two coffee"
    read, answers = vocabulary.rows("", 2.0)
    assert [int(vocabulary.ids[row]) for row in read] == [tokenizer.sot, tokenizer.timestamp_begin]
    assert [int(vocabulary.ids[row]) for row in answers] == [tokenizer.no_speech, tokenizer.eot]
    assert vocabulary.others + len(vocabulary) - 1 == tokenizer.encoding.n_vocab


def test_a_longer_window_has_the_same_first_positions() -> None:
    model = build(10, seconds=2.0)
    before = model.encoder.positional_embedding.clone()
    set_window(model, 4.0)
    assert model.encoder.positional_embedding.shape == (200, WIDTH)
    assert torch.equal(model.encoder.positional_embedding[:100], before)


def test_features_do_not_depend_on_their_neighbours_in_the_batch() -> None:
    quiet, loud = 0.001 * np.ones(8000, np.float32), np.random.default_rng(0).standard_normal(8000).astype(np.float32)
    assert torch.equal(log_mel([quiet, loud], 1.0)[0], log_mel([quiet], 1.0)[0])
    assert log_mel([loud], SHORT_S).shape == (1, 80, 600)


def test_half_of_the_windows_end_as_in_whispers_own_transcribe() -> None:
    whisper = pytest.importorskip("whisper.audio", reason="extra whisper")
    wave = np.random.default_rng(0).standard_normal(SAMPLE_RATE).astype(np.float32)
    own_FT = whisper.log_mel_spectrogram(wave, padding=whisper.N_SAMPLES)[:, : len(wave) // whisper.HOP_LENGTH]
    own_FT = whisper.pad_or_trim(own_FT, 3000)
    mel_BFT = log_mel([wave] * 100, 30.0)
    blanked = blank_rest(mel_BFT, [wave] * 100, np.random.default_rng(0))
    as_package = (blanked == own_FT).all(2).all(1)
    as_silence = (blanked == mel_BFT).all(2).all(1)
    assert (as_package ^ as_silence).all()
    assert 35 < as_package.sum() < 65


def test_masking_leaves_most_and_the_given_tensor_as_it_is() -> None:
    mel_BFT = torch.randn(4, 80, 600)
    kept = mel_BFT.clone()
    masked = mask_parts(mel_BFT, np.random.default_rng(0))
    assert torch.equal(mel_BFT, kept)
    assert 0.5 < (masked == mel_BFT).float().mean() < 1


def test_an_untrained_model_knows_nothing_and_the_loss_says_so(
    mixer: Mixer, vocabulary: Vocabulary, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    trainer = Trainer(mixer, vocabulary, tmp_path, minutes=1.0, rate=1e-3)
    set_window(trainer.model, 2.0)
    terms = trainer.loss(*trainer.batch(4, 2.0))
    # all tokens alike, among them those that share a row: the log of Whisper's whole vocabulary
    assert terms["reading"].item() == pytest.approx(math.log(vocabulary.size), rel=0.15)
    assert terms["total"] > terms["reading"]


def test_silence_has_a_loss_too(mixer: Mixer, vocabulary: Vocabulary, tmp_path: Path) -> None:
    trainer = Trainer(mixer, vocabulary, tmp_path, minutes=1.0, rate=1e-3)
    set_window(trainer.model, 2.0)
    read, answers = (torch.tensor([rows, rows]) for rows in vocabulary.rows("", None))
    terms = trainer.loss(torch.zeros(2, 80, 200), read, answers, [torch.zeros(0, dtype=torch.long)] * 2)
    assert all(torch.isfinite(value) for value in terms.values())


def test_spelling_leaves_zero_to_the_blank() -> None:
    assert spelled("ab") == [1, 2]
    assert spelled(LETTERS) == list(range(1, len(LETTERS) + 1))


def test_spelling_teaches_the_encoder_and_is_not_exported(mixer: Mixer, vocabulary: Vocabulary, tmp_path: Path) -> None:
    torch.manual_seed(0)
    trainer = Trainer(mixer, vocabulary, tmp_path, minutes=1.0, rate=1e-3)
    set_window(trainer.model, 2.0)
    trainer.loss(*trainer.batch(2, 2.0))["spelling"].backward()
    touched = {name for name, weight in trainer.model.named_parameters() if weight.grad is not None}
    assert touched
    assert all(name.startswith(("encoder.", "letters.")) for name in touched)
    assert not [name for name in trainer.whisper_weights() if name.startswith("letters.")]


def test_a_batch_that_is_seen_again_is_learned(mixer: Mixer, vocabulary: Vocabulary, tmp_path: Path) -> None:
    torch.manual_seed(0)
    trainer = Trainer(mixer, vocabulary, tmp_path, minutes=1.0, rate=1e-3)
    trainer.warmup = 1
    set_window(trainer.model, 2.0)
    batch = trainer.batch(2, 2.0)
    before = trainer.loss(*batch)["total"].item()
    for _ in range(10):
        trainer.learn(trainer.loss(*batch)["total"])
    assert trainer.loss(*batch)["total"].item() < 0.6 * before


def test_training_logs_saves_and_exports(
    mixer: Mixer, vocabulary: Vocabulary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_asr, "STAGES", ((0.0, 2.0, 2), (0.3, 3.0, 2)))
    torch.manual_seed(0)
    trainer = Trainer(mixer, vocabulary, tmp_path, minutes=0.05, rate=1e-3)
    heard = [(log_mel([np.zeros(SAMPLE_RATE, np.float32)], SHORT_S)[0], "one")]
    trainer.train(heard, log_every=1, check_every=2)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert all(np.isfinite(row["total"]) for row in rows)
    assert any("wer" in row for row in rows)
    state = load_file(trainer.export())
    assert state["decoder.token_embedding.weight"].shape == (len(vocabulary), WIDTH)
    assert torch.equal(state["vocabulary"], vocabulary.ids.int())
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["n_vocab"], config["n_audio_ctx"]) == (vocabulary.size, 1500)

    opened = open_model(tmp_path)
    mel_BFT, rows_BL, _, _ = trainer.batch(1, 30.0)
    set_window(trainer.model, 30.0)
    trainer.model.load_state_dict(trainer.average)
    trainer.model.eval()
    with torch.no_grad():
        given = opened.module(mel_BFT, vocabulary.ids[rows_BL])[..., vocabulary.ids]
        expected = trainer.model(mel_BFT, rows_BL)[..., :-1]
    torch.testing.assert_close(given, expected, atol=0.02, rtol=0.01)  # weights in half precision

    again = Trainer(mixer, vocabulary, tmp_path, minutes=0.05, rate=1e-3)
    again.resume()
    assert again.step == trainer.step
    assert all(torch.equal(again.average[name], value) for name, value in trainer.average.items())


def test_greedy_decoding_stops_each_transcript_at_its_end(vocabulary: Vocabulary) -> None:
    torch.manual_seed(0)
    model = build(len(vocabulary), seconds=1.0).eval()
    end = vocabulary.row_of[vocabulary.tokenizer.eot]
    with torch.no_grad():
        # the end is all that this decoder can say
        model.decoder.token_embedding.weight.zero_()
        model.decoder.token_embedding.weight[end] = model.decoder.ln.bias.fill_(1.0)
    assert greedy(model, torch.randn(2, 80, 100), vocabulary) == ["", ""]
