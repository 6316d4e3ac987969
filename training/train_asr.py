"""Train the starter recogniser: `python -m training.train_asr AUDIO --out DIR --minutes 120`.

A small Whisper (arXiv 2212.04356; openai-whisper's own module) for English, on recordings and espeak-ng speech strung
together, in rooms and in noise. Whisper's vocabulary is kept, so that its own tools work, but only the tokens that
occur have embeddings of their own; all others share one row.

The encoder's positions are sinusoids: the training goes from windows that hold a word or two to the full 30 s that
`whisper.transcribe` uses. The learning rate follows the share of `--minutes` that has been used; a run that was stopped
goes on from its last checkpoint.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from hooks.errors import require
from training.timed import TimedTraining
from training.utterances import SAMPLE_RATE, Mixer, backgrounds, speech_pieces, spoken_pieces, vocabulary

WIDTH, HEADS, ENCODER_LAYERS, DECODER_LAYERS = 192, 3, 4, 2
SHORT_S, FULL_S = 6.0, 30.0
STAGES = ((0.0, 2.0, 32), (0.2, SHORT_S, 16), (0.55, FULL_S, 4))
"""From which share of the training on windows have so many seconds, and how many make a step: words come first."""
FRAME_RATE, HOP_SAMPLES = 50, 160
"""Of the encoder, and the samples that a frame of the log-mel features is behind the one before."""
LETTERS = "abcdefghijklmnopqrstuvwxyz' "
SPELLING = 0.3
"""Weight of the encoder's own spelling, see `Trainer.loss`."""


class Vocabulary:
    """The tokens of Whisper's English vocabulary that have a row of their own; the last row stands for all others."""

    def __init__(self, words: list[str]) -> None:
        self.tokenizer = require("whisper.tokenizer", "whisper").get_tokenizer(multilingual=False)
        self.size = self.tokenizer.encoding.n_vocab
        encode = self.tokenizer.encode
        used = {token for word in words for token in encode(" " + word)}
        used |= {self.tokenizer.sot, self.tokenizer.eot, self.tokenizer.no_timestamps, self.tokenizer.no_speech}
        used |= set(range(self.tokenizer.timestamp_begin, self.size))
        self.ids = torch.tensor(sorted(used))
        self.row_of = {int(token): row for row, token in enumerate(self.ids)}
        self.others = self.size - len(self.ids)

    def __len__(self) -> int:
        return len(self.ids) + 1

    def rows(self, text: str, end_s: float | None) -> tuple[list[int], list[int]]:
        """Rows of a transcript, as the decoder reads them and as it shall answer each: with the time of its end, or
        with the token for "no timestamps". Where nobody speaks it answers that, and then that this is the end."""
        tokenizer = self.tokenizer
        begin = tokenizer.timestamp_begin
        before, after = tokenizer.no_timestamps, []
        if end_s is not None:
            before, after = begin, [begin + round(end_s * FRAME_RATE)]
        if text:
            read = [tokenizer.sot, before, *tokenizer.encode(" " + text), *after]
            answers = [*read[1:], tokenizer.eot]
        else:
            read, answers = [tokenizer.sot, before], [tokenizer.no_speech, tokenizer.eot]
        return [self.row_of[token] for token in read], [self.row_of[token] for token in answers]

    def text(self, rows: list[int]) -> str:
        tokens = [int(self.ids[row]) for row in rows if row < len(self.ids)]
        return self.tokenizer.decode([token for token in tokens if token < self.tokenizer.eot])


def build(rows: int, seconds: float = SHORT_S) -> nn.Module:
    whisper = require("whisper.model", "whisper")
    frames = round(seconds * FRAME_RATE)
    dims = (80, frames, WIDTH, HEADS, ENCODER_LAYERS, rows, 448, WIDTH, HEADS, DECODER_LAYERS)
    model = whisper.Whisper(whisper.ModelDimensions(*dims))
    # sinusoids, and their number changes with the window: nothing for a checkpoint
    model.encoder.register_buffer("positional_embedding", model.encoder.positional_embedding, persistent=False)
    # the library leaves these to the checkpoint
    nn.init.normal_(model.decoder.positional_embedding, std=0.01)
    nn.init.normal_(model.decoder.token_embedding.weight, std=0.02)
    return model


def spelled(text: str) -> list[int]:
    """Letters as numbers; 0 is CTC's blank."""
    return [1 + LETTERS.index(letter) for letter in text]


def set_window(model: Any, seconds: float) -> None:
    """Let the encoder take windows of another length: its positions are sinusoids."""
    sinusoids = require("whisper.model", "whisper").sinusoids
    frames = round(seconds * FRAME_RATE)
    model.encoder.positional_embedding = sinusoids(frames, WIDTH)
    model.dims = replace(model.dims, n_audio_ctx=frames)


def log_mel(waveforms: list[np.ndarray], seconds: float) -> Tensor:
    """Whisper's log-mel features [B, 80, frames]; each sound is scaled by its own maximum and followed by silence."""
    audio = require("whisper.audio", "whisper")
    count = int(seconds * SAMPLE_RATE)
    padded = [np.pad(wave[:count], (0, count - len(wave[:count]))) for wave in waveforms]
    return torch.stack([audio.log_mel_spectrogram(torch.from_numpy(wave)) for wave in padded])


def blank_rest(mel_BFT: Tensor, waveforms: list[np.ndarray], rng: np.random.Generator) -> Tensor:
    """In half of the examples zeros follow the sound: `whisper.transcribe` pads the features and not the sound, which
    transformers does."""
    mel_BFT = mel_BFT.clone()
    for mel_FT, wave in zip(mel_BFT, waveforms, strict=True):
        if rng.uniform() < 0.5:
            mel_FT[:, len(wave) // HOP_SAMPLES :] = 0
    return mel_BFT


def mask_parts(mel_BFT: Tensor, rng: np.random.Generator) -> Tensor:
    """SpecAugment (arXiv 1904.08779): a stripe of frequencies and one of time go missing from most examples."""
    mel_BFT = mel_BFT.clone()
    for mel_FT in mel_BFT:
        for axis, widest in ((0, 12), (1, 40)):
            width = rng.integers(widest)
            start = rng.integers(mel_FT.shape[axis] - width)
            mel_FT.narrow(axis, start, width).fill_(mel_FT.mean())
    return mel_BFT


@torch.no_grad()
def greedy(model: Any, mel_BFT: Tensor, vocabulary: Vocabulary, longest: int = 60) -> list[str]:
    """Transcripts without timestamps, the most likely token each time."""
    features = model.encoder(mel_BFT)
    start = [vocabulary.row_of[token] for token in (vocabulary.tokenizer.sot, vocabulary.tokenizer.no_timestamps)]
    end = vocabulary.row_of[vocabulary.tokenizer.eot]
    rows_BL = torch.tensor([start] * len(mel_BFT))
    while rows_BL.shape[1] < longest and not (rows_BL == end).any(1).all():
        best_B = model.decoder(rows_BL, features)[:, -1].argmax(-1)
        best_B[(rows_BL == end).any(1)] = end
        rows_BL = torch.cat([rows_BL, best_B[:, None]], dim=1)
    return [vocabulary.text(rows[len(start) :]) for rows in rows_BL.tolist()]


class Trainer(TimedTraining):
    model: Any

    def __init__(self, mixer: Mixer, vocabulary: Vocabulary, folder: Path, minutes: float, rate: float) -> None:
        model = build(len(vocabulary))
        model.letters = nn.Linear(WIDTH, 1 + len(LETTERS))  # for the training only
        super().__init__(model, folder, minutes, rate, warmup=500, betas=(0.9, 0.98), weight_decay=0.05, clip=1.0)
        self.mixer, self.vocabulary = mixer, vocabulary

    def batch(self, size: int, seconds: float) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
        """(log-mel [B, 80, frames], rows that are read and rows to answer [B, L] padded with -1, letters of each)."""
        waves, read, answers, letters = [], [], [], []
        for _ in range(size):
            wave, text = self.mixer.draw(seconds)
            timed = self.mixer.rng.uniform() < 0.5
            rows = self.vocabulary.rows(text, len(wave) / SAMPLE_RATE if timed else None)
            read.append(torch.tensor(rows[0]))
            answers.append(torch.tensor(rows[1]))
            waves.append(wave)
            letters.append(torch.tensor(spelled(text), dtype=torch.long))
        read_BL, answers_BL = (pad_sequence(each, batch_first=True, padding_value=-1) for each in (read, answers))
        mel_BFT = mask_parts(log_mel(waves, seconds), self.mixer.rng)
        return blank_rest(mel_BFT, waves, self.mixer.rng), read_BL, answers_BL, letters

    def loss(self, mel_BFT: Tensor, read_BL: Tensor, answers_BL: Tensor, letters: list[Tensor]) -> dict[str, Tensor]:
        """Mean cross entropy of the next token, and the encoder's own spelling of the text by CTC, nats.

        The spelling teaches the encoder long before the decoder knows where to listen (Watanabe et al. 2017, "Hybrid
        CTC/attention architecture for end-to-end speech recognition"); its layer is thrown away afterwards.
        """
        with torch.autocast("cpu", torch.bfloat16):
            features_BTD = self.model.encoder(mel_BFT)
            logits_BLV = self.model.decoder(read_BL.clamp(min=0), features_BTD).float()
            letters_BTC = self.model.letters(features_BTD).float()
        # the last row counts as often as there are tokens behind it
        logits_BLV = torch.cat([logits_BLV[..., :-1], logits_BLV[..., -1:] + math.log(self.vocabulary.others)], dim=-1)
        reading = nn.functional.cross_entropy(
            logits_BLV.transpose(1, 2), answers_BL, ignore_index=-1, label_smoothing=0.05
        )
        spelling = nn.functional.ctc_loss(
            letters_BTC.log_softmax(-1).transpose(0, 1),
            torch.cat(letters),
            torch.full((len(letters),), letters_BTC.shape[1]),
            torch.tensor([len(each) for each in letters]),
            zero_infinity=True,
        )
        return {"total": reading + SPELLING * spelling, "reading": reading, "spelling": spelling}

    def train(self, heard: list[tuple[Tensor, str]], log_every: int = 50, check_every: int = 1000) -> None:
        def terms() -> dict[str, Tensor]:
            _, seconds, size = [stage for stage in STAGES if stage[0] <= self.used][-1]
            set_window(self.model, seconds)
            return self.loss(*self.batch(size, seconds))

        def check() -> dict[str, float]:
            return {"wer": round(self.word_error_rate(heard), 4)}

        self.resume()
        self.run(terms, check, log_every, check_every)

    def word_error_rate(self, heard: list[tuple[Tensor, str]]) -> float:
        """Of the averaged weights, on log-mels [80, frames] of short windows with their texts."""
        jiwer = require("jiwer", "whisper")
        model = build(len(self.vocabulary))
        model.load_state_dict(self.whisper_weights())
        model.eval()
        texts = [greedy(model, mel_FT[None], self.vocabulary)[0] for mel_FT, _ in heard]
        return float(jiwer.wer([text for _, text in heard], [text.strip() for text in texts]))

    def whisper_weights(self) -> dict[str, Tensor]:
        """The averaged weights, without what only the training needs."""
        return {name: value for name, value in self.average.items() if not name.startswith("letters.")}

    def export(self) -> Path:
        """The averaged weights in fp16 as the package ships them: rows of used tokens, and their ids."""
        state = {name: value.half().contiguous() for name, value in self.whisper_weights().items()}
        state["vocabulary"] = self.vocabulary.ids.int()
        path = self.folder / "model.safetensors"
        save_file(state, path)
        dims = {**asdict(self.model.dims), "n_vocab": self.vocabulary.size, "n_audio_ctx": round(FULL_S * FRAME_RATE)}
        (self.folder / "config.json").write_text(
            json.dumps({"architecture": "whisper_compact", **dims}, indent=2) + "\n"
        )
        return path


def main(
    audio: Annotated[Path, typer.Argument(help="folder of subsets, each with a manifest.csv")],
    out: Annotated[Path, typer.Option(help="where checkpoints and the result go")],
    minutes: Annotated[float, typer.Option(help="training time on this machine")] = 120.0,
    rate: Annotated[float, typer.Option(help="highest learning rate")] = 1e-3,
    synthetic: Annotated[int, typer.Option(help="utterances by espeak-ng")] = 6000,
    threads: Annotated[int, typer.Option(help="CPU threads")] = 2,
    seed: int = 0,
) -> None:
    """Train the starter recogniser (or go on where a stopped run was)."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    torch.set_float32_matmul_precision("medium")
    out.mkdir(parents=True, exist_ok=True)
    pieces = speech_pieces(audio, out, synthetic, seed)
    mixer = Mixer(pieces, *backgrounds(audio), seed + int(time.time()))
    valid = [piece for piece in spoken_pieces(audio, "valid") if len(piece.waveform) < SHORT_S * SAMPLE_RATE][::4]
    heard = [(log_mel([piece.waveform], SHORT_S)[0], piece.text) for piece in valid]
    trainer = Trainer(mixer, Vocabulary(vocabulary(audio)), out, minutes, rate)
    trainer.train(heard)
    print(trainer.export())


if __name__ == "__main__":
    typer.run(main)
