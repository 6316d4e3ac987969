"""What a recogniser writes of sounds with and without speech, and the counts that are made of it.

Words are what is left by Whisper's English normaliser, whichever library the model is from: it drops brackets and
fillers such as "um", and joins spoken digits into numbers. Any word in a sound without speech is a false alarm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, TypeVar

import numpy as np
import torch

from evaluation.concept_sets import has_speech
from evaluation.dataset import Dataset, LabelledSound, is_impulse_response
from evaluation.intervals import all_or_none, draws_of
from evaluation.report import Interval, Progress, Share
from hooks.errors import AudioSteerError, require
from hooks.families.whisper import WhisperPackage
from hooks.model import AudioModel, Transcriber

TRAIN_CLIPS = 250
"""Of a subset at least so many are learned from: a clip costs one pass there."""
SPEECH_BELOW = 0.5
"""AudioSAE (arXiv 2602.05027) counts a sound as taken for speech where `no_speech_prob` is below this."""

Kind = TypeVar("Kind", bound=Interval)


class FalseAlarmError(AudioSteerError):
    """False alarms that cannot be measured: no clips of a kind, a model without words, an SAE that does not fit."""


@dataclass(frozen=True)
class Clips:
    """Sounds without speech, sounds with it (whose label `text` is what is said, as far as that is known), and the name
    of their split.

    Raises:
        FalseAlarmError: there are none of a kind.
    """

    silent: Sequence[LabelledSound]
    speech: Sequence[LabelledSound]
    split: str

    def __post_init__(self) -> None:
        for kind, sounds in (("without speech", self.silent), ("with speech and its text", self.speech)):
            if not sounds:
                raise FalseAlarmError(f"split {self.split!r} has no clips {kind}; each split needs both kinds")

    @property
    def all(self) -> list[LabelledSound]:
        return [*self.silent, *self.speech]

    @property
    def transcribed(self) -> Clips:
        """Without speech whose text is not known."""
        return Clips(self.silent, [sound for sound in self.speech if "text" in sound.labels], self.split)


def clips_of(
    dataset: Dataset,
    split: str,
    limit: int | None = None,
    silent: Sequence[str] = (),
    speech: Sequence[str] = (),
    untranscribed: bool = False,
) -> Clips:
    """Clips of a split, at most `limit` a subset: all of the subsets `silent` but room impulse responses, and those of
    `speech` that have a text, or with `untranscribed` all of these. By default it is known from the manifests which
    clips have speech (`has_speech`).

    Raises:
        FalseAlarmError: none of a kind.
        AudioFileError: no clips of that split at all, or one that is missing.
    """
    sounds = dataset.sounds(None, split, limit, ("text", "label", "speech"))

    def is_silent(sound: LabelledSound) -> bool:
        without = sound.subset in silent if silent else has_speech(sound.labels) is False
        return without and not is_impulse_response(sound.labels)

    def is_speech(sound: LabelledSound) -> bool:
        spoken = bool(sound.subset in speech if speech else has_speech(sound.labels))
        return spoken and (untranscribed or "text" in sound.labels)

    return Clips([one for one in sounds if is_silent(one)], [one for one in sounds if is_speech(one)], split)


def clip_sets(
    dataset: Dataset,
    limit: int,
    silent: Sequence[str] = (),
    speech: Sequence[str] = (),
    train_limit: int = TRAIN_CLIPS,
) -> tuple[Clips, Clips, Clips]:
    """Clips to learn from (at most `limit` or `train_limit` a subset), to choose by and to test on (at most `limit`).

    Raises:
        FalseAlarmError, AudioFileError: as `clips_of`.
    """
    train = clips_of(dataset, "train", max(limit, train_limit), silent, speech)
    return train, clips_of(dataset, "valid", limit, silent, speech), clips_of(dataset, "test", limit, silent, speech)


@dataclass(frozen=True)
class Heard:
    """What was written of a sound, its words, the lowest `no_speech_prob` of its windows and the mean log-probability
    of the first one's tokens, where the library gives them, and the sound's length."""

    text: str
    words: tuple[str, ...]
    no_speech_prob: float | None
    seconds: float
    logprob: float | None = None


@cache
def normalizer() -> Callable[[str], str]:
    """Raises MissingExtraError if openai-whisper is not installed."""
    return require("whisper.normalizers", "whisper").EnglishTextNormalizer()


def words_of(text: str) -> tuple[str, ...]:
    # the normaliser leaves the full stops of "..."
    return tuple(word for word in normalizer()(text).split() if any(map(str.isalnum, word)))


def defaults(model: AudioModel) -> dict[str, Any]:
    """Options for English, greedy, each window by itself; openai-whisper without its own guards against silence."""
    if isinstance(model, WhisperPackage):
        guards = {"no_speech_threshold": None, "logprob_threshold": None}
        return {"language": "en", "temperature": 0.0, "condition_on_previous_text": False, **guards}
    # models for English alone refuse to be told so
    is_multilingual = getattr(getattr(model.module, "generation_config", None), "is_multilingual", False)
    return {"language": "en"} if is_multilingual else {}


@torch.no_grad()
def listen(
    model: Transcriber, sounds: Sequence[LabelledSound], options: Mapping[str, Any], progress: Progress = iter
) -> list[Heard]:
    """Transcribe sound after sound; one is in memory at a time.

    Raises:
        AudioFileError: a sound that cannot be read.
    """
    assert model.sample_rate is not None
    heard = []
    for sound in progress(list(sounds)):
        audio_N = model.prepare(sound.source)[0, 0].cpu()
        transcript = model.transcribe(audio_N, **options)
        told = [segment["no_speech_prob"] for segment in transcript.segments if "no_speech_prob" in segment]
        lowest = min(told) if told else None
        logprob = transcript.segments[0].get("avg_logprob") if transcript.segments else None
        seconds = len(audio_N) / model.sample_rate
        heard.append(Heard(str(transcript), words_of(transcript), lowest, seconds, logprob))
    return heard


def word_errors(reference: Sequence[str], words: Sequence[str]) -> int:
    """Substitutions, deletions and insertions. Raises MissingExtraError if jiwer is not installed."""
    return sum(word_counts(reference, words))


def word_counts(reference: Sequence[str], words: Sequence[str]) -> tuple[int, int, int]:
    """The numbers of words that are substituted, deleted and inserted."""
    if not reference or not words:  # jiwer takes no empty reference
        return 0, len(reference), len(words)
    counts = require("jiwer", "whisper").process_words(" ".join(reference), " ".join(words))
    return counts.substitutions, counts.deletions, counts.insertions


@dataclass(frozen=True)
class Score:
    """A method's counts on the N clips without speech and the M with; of several draws [draws, N] and [draws, M].

    `taken_N` says which were taken for speech by `no_speech_prob`, and is None where the library does not tell it.
    `speakers_N` and `speakers_M` say who speaks in a clip ("": not known).
    """

    alarms_N: np.ndarray
    words_N: np.ndarray
    minutes_N: np.ndarray
    errors_M: np.ndarray
    lengths_M: np.ndarray
    taken_N: np.ndarray | None = None
    speakers_N: tuple[str, ...] = ()
    speakers_M: tuple[str, ...] = ()

    @classmethod
    def of(cls, clips: Clips, heard: Sequence[Heard]) -> Score:
        """Of what was heard in `clips.all`."""
        silent, speech = heard[: len(clips.silent)], heard[len(clips.silent) :]
        told = [one.no_speech_prob for one in silent]
        return cls(
            np.array([float(bool(one.words)) for one in silent]),
            np.array([float(len(one.words)) for one in silent]),
            np.array([one.seconds / 60 for one in silent]),
            *errors_in(clips.speech, speech),
            None if None in told else np.array([float(p < SPEECH_BELOW) for p in told if p is not None]),
            tuple(sound.speaker for sound in clips.silent),
            tuple(sound.speaker for sound in clips.speech),
        )

    @property
    def wer(self) -> float:
        return float(self.errors_M.sum() / self.lengths_M.sum())

    def only(self, chosen_M: np.ndarray) -> Score:
        """With these clips with speech alone."""
        speakers_M = tuple(speaker for speaker, chosen in zip(self.speakers_M, chosen_M, strict=False) if chosen)
        errors_M, lengths_M = self.errors_M[..., chosen_M], self.lengths_M[..., chosen_M]
        return replace(self, errors_M=errors_M, lengths_M=lengths_M, speakers_M=speakers_M)

    @classmethod
    def drawn(cls, scores: Sequence[Score]) -> Score:
        """Of several draws, clips in the same order."""
        taken = [one.taken_N for one in scores if one.taken_N is not None]
        stacked: dict[str, Any] = {name: np.stack([getattr(one, name) for one in scores]) for name in COUNTS}
        return replace(scores[0], **stacked, taken_N=np.stack(taken) if len(taken) == len(scores) else None)


COUNTS = ("alarms_N", "words_N", "minutes_N", "errors_M", "lengths_M")


def errors_in(sounds: Sequence[LabelledSound], heard: Sequence[Heard]) -> tuple[np.ndarray, np.ndarray]:
    """Word errors [M] and words said [M]."""
    said = [words_of(sound.labels["text"]) for sound in sounds]
    errors = [word_errors(words, one.words) for words, one in zip(said, heard, strict=True)]
    return np.array(errors, dtype=float), np.array([len(words) for words in said], dtype=float)


def alarm_rate(heard: Sequence[Heard]) -> float:
    """Share of sounds without speech in which any word was heard."""
    return sum(bool(one.words) for one in heard) / len(heard)


def over_clips(
    statistic: Callable[..., Any],
    *columns: np.ndarray,
    kind: type[Kind],
    speakers: Sequence[str] = (),
    trials: int | None = None,
    seed: int = 0,
    rounds: int = 2000,
) -> Kind:
    """Percentile bootstrap (95 %) of a statistic of several counts of the same clips, each [N], or [draws, N].

    `statistic` takes them as [..., N] and forms sums over the last axis alone. Speakers, where they are known, and
    clips are resampled (`evaluation.intervals.draws_of`), and so are the draws, of which means are taken. Rounds in
    which the statistic is not defined (no false alarm to compare with) are left out. A share of 0 or 100 % that is the
    same in all rounds gets the exact interval of so many `trials`, by default as many as clips.
    """
    rng = np.random.default_rng(seed)
    # one column may be of several draws and another of one
    data_DN = np.broadcast_arrays(*(np.atleast_2d(column) for column in columns))
    draws, clips = data_DN[0].shape
    weight_RN = draws_of(speakers or [""] * clips, rounds, rng)
    weight_RD = rng.multinomial(draws, np.full(draws, 1 / draws), size=rounds) / draws
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(statistic(*(one_DN.mean(0) for one_DN in data_DN)))
        values_R = np.asarray(statistic(*(weight_RN * (weight_RD @ one_DN) for one_DN in data_DN)))
    values_R = values_R[np.isfinite(values_R)]
    low, high = np.percentile(values_R, [2.5, 97.5]) if len(values_R) else (value, value)
    if issubclass(kind, Share) and low == high == value and value in (0, 1):
        exact = all_or_none(value, clips if trials is None else trials)
        low, high = exact.low, exact.high
    return kind(value, float(low), float(high), clips)


def ratio(tops: np.ndarray, bottoms: np.ndarray) -> Any:
    """Sum over sum."""
    return tops.sum(-1) / bottoms.sum(-1)


def drop(edited: np.ndarray, plain: np.ndarray) -> Any:
    """Which share is gone."""
    return 1 - ratio(edited, plain)


def rise_in_points(edited: np.ndarray, plain: np.ndarray, lengths: np.ndarray) -> Any:
    """By how many per cent more a ratio to `lengths` is."""
    return 100 * ratio(edited - plain, lengths)
