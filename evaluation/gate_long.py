"""Speech beside noise: gates that decide by the second, a shift that leaves the words beside it, and files of minutes.

The shift of `evaluation.gate_methods` has a window end where no word was written yet: beside speech it would take the
speech as well. So here a gate is fitted on stretches of `SECONDS` of files in which speech and other sounds follow each
other, and a shift behind it on windows of such files, under which the model shall write what it writes of the window
with all but the speech muted: nothing, where there is none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evaluation.conditions import RATE, long_files, made, rms, samples_of
from evaluation.dataset import LabelledSound
from evaluation.gate_fits import ALL, BY_SECOND, NOTHING, SHIFT, VAD, Study
from evaluation.gate_methods import BATCH, Decision, silenced
from evaluation.gate_methods import RATE as STEP_SIZE
from evaluation.gate_rows import EMPTY
from evaluation.report import Interval, Progress, Row, Share
from evaluation.steering_fit import Exercises, frozen
from evaluation.transcripts import Heard, drop, over_clips, ratio, rise_in_points, word_counts, words_of
from evaluation.vad_gate import OWN_THRESHOLD
from hooks import attach
from hooks.capture import Recorder
from hooks.clip import Clip
from hooks.errors import MissingExtraError, require
from steer.edits import AddDirection, Edit
from steer.gate_fit import Pooled, fit_gate, gate_logits
from steer.gates import Gate
from steer.pooling import LOGS, pooled
from steer.steered import SteeredModel

SECONDS = 2.0
"""Over which a gate decides in files of both kinds."""
OVERLAP_S = 0.2
"""A stretch counts as one with speech from here on, as one without where there is none at all."""
PAUSE_DB = 30.0
"""A stretch of a clip with speech that is softer than its loudest one by more is a pause, and counts as neither."""
WINDOWS_S, FILE_S = (8.0, 30.0), 180.0
"""Windows that a shift is fitted on are at least so long, with and without padding, and files that a gate is fitted and
measured on."""
FILES = 12
"""So many files are fitted on at most; a file is some 180 stretches."""
LABELLED = "only the labelled speech"
WRONG = 0.005
"""Share of the stretches with speech on which the gate may open in files of the validation split."""


# --- fitting ---


@torch.no_grad()
def stretches(
    steered: SteeredModel, files: Sequence[LabelledSound], site: str, progress: Progress
) -> tuple[Pooled, Tensor]:
    """Features of stretches of `SECONDS`, every half of it, and whether they are without speech; those that are neither
    are left out."""
    model, where, sae = steered.model, steered.model.site(site), steered.saes[site]
    assert where.frame_rate is not None
    length = 2 * round(SECONDS * where.frame_rate / 2) + 1
    values, silent = [], []
    for file in progress(list(files)):
        with Recorder(model.module, [where]) as recorder:
            model.pass_through(model.prepare(file.source))
            f_BTF = sae.encode(recorder.take()[site]).float()
        samples_N = samples_of(file)
        for start in range(0, f_BTF.shape[1] - length + 1, length // 2):
            stretch = (start / where.frame_rate, (start + length) / where.frame_rate)
            spoken_s = overlap(file, *stretch)
            if spoken_s == 0 or (spoken_s >= OVERLAP_S and not is_pause(file, samples_N, *stretch)):
                values.append(pooled(f_BTF[:, start : start + length], LOGS).cpu())
                silent.append(spoken_s == 0)
    examples = Pooled(torch.stack(values), torch.arange(len(values)), LOGS, site, model.name, scope=SECONDS)
    return examples, torch.tensor(silent)


def overlap(file: LabelledSound, start_s: float, end_s: float) -> float:
    """Seconds of a stretch in which there is speech."""
    return sum(max(0.0, min(end, end_s) - max(start, start_s)) for start, end, _ in file.intervals or ())


def is_pause(file: LabelledSound, samples_N: Tensor, start_s: float, end_s: float) -> bool:
    """Whether all speech clips that reach into a stretch are soft there, against their loudest 100 ms."""
    for first_s, last_s, _ in file.intervals or ():
        clip_N, here_N = (
            samples_N[round(a * RATE) : round(b * RATE)]
            for a, b in ((first_s, last_s), (max(first_s, start_s), min(last_s, end_s)))
        )
        if len(here_N) and loudest_db(here_N) > loudest_db(clip_N) - PAUSE_DB:
            return False
    return True


def loudest_db(samples_N: Tensor) -> float:
    """Level of the loudest 100 ms."""
    parts = samples_N.split(RATE // 10)
    return 20 * math.log10(max(float(rms(part_N)) for part_N in parts))


def fit_by_second(study: Study, silent: Sequence[LabelledSound], k: int, steps: int) -> AddDirection | None:
    """Fit the gate and the shift behind it, which become `BY_SECOND` of the study. The gate is fitted on stretches of
    files of the training split, its threshold chosen by those of the validation split. None, and nothing, where the
    clips are not enough for stretches of both kinds."""
    train = long_files(study.train.speech, silent, study.seed, FILE_S)[:FILES]
    valid = long_files(study.valid.speech, study.valid.silent, study.seed, FILE_S)
    examples, is_silent_N = stretches(study.steered, train, study.site, study.progress)
    others, truth_N = stretches(study.steered, valid, study.site, study.progress)
    if any(labels_N.all() or not labels_N.any() for labels_N in (is_silent_N, truth_N)):
        return None
    gate = fit_gate(examples, is_silent_N, k, held_out=(others, truth_N), wrong=WRONG)
    mixed = MixedShift(study, gate, study.texts.options)
    vector_D = study.kept.of(f"{BY_SECOND}, {k} features, {steps} steps", lambda: mixed.fit(silent, steps))
    edit = AddDirection(vector_D, when=gate)
    study.gates[BY_SECOND], study.edits[BY_SECOND] = gate, (edit,)
    return edit


def by_second(study: Study, sounds: Sequence[LabelledSound]) -> Decision:
    """On which sounds the gate opens at any second; on others nothing is edited."""
    gate, progress = study.gates[BY_SECOND], study.progress
    found = {
        sound.name: float(gate_logits(study.steered, gate, sound.source).max()) for sound in progress(list(sounds))
    }
    return Decision(found, gate.threshold)


@dataclass(frozen=True)
class Window:
    """Samples [N], at which frames a gate is open [T], and the tokens that the model shall write."""

    samples_N: Tensor
    open_T: Tensor
    tokens: list[int]


class MixedShift:
    """Fits the shift behind a gate that decides by the second."""

    def __init__(self, study: Study, gate: Gate, options: Mapping[str, Any]) -> None:
        self.study, self.gate = study, gate
        self.exercises = Exercises(study.steered, options)

    @torch.no_grad()
    def window(self, file: LabelledSound) -> Window:
        """What the model shall write of a window is what it writes of its speech alone."""
        steered, tokenizer = self.study.steered, self.exercises.tokenizer
        clip = Clip(samples_of(file)[None, : self.exercises.model.window], RATE)
        open_T = gate_logits(steered, self.gate, clip) > self.gate.threshold
        samples_N = clip.waveform[0]
        muted_N = torch.zeros_like(samples_N)
        for start, end, _ in file.intervals or ():
            spoken = slice(round(start * RATE), round(end * RATE))
            muted_N[spoken] = samples_N[spoken]
        words = self.exercises.written(muted_N) if muted_N.any() else []
        return Window(samples_N, open_T, [*(words or [tokenizer.timestamp_begin]), tokenizer.eot])

    def loss(self, window: Window, vector_D: Tensor) -> Tensor:
        """The negative log-likelihood of a window's tokens, in nats, with the vector where the gate is open."""
        site = self.study.steered.sites[self.study.site]
        prompt = [*self.exercises.tokenizer.sot_sequence]

        def change(x_BTD: Tensor) -> Tensor:
            # behind the end of the sound edits act as at its last frame
            last = window.open_T[-1:].expand(x_BTD.shape[1] - len(window.open_T))
            open_T = torch.cat([window.open_T, last]).to(x_BTD)
            return x_BTD + open_T[:, None] * vector_D.to(x_BTD)

        audio_BN = self.exercises.window(Clip(window.samples_N[None], RATE))
        with attach(self.study.steered.model.module, site, change):
            logits_LV = self.exercises.logits(audio_BN, [*prompt, *window.tokens[:-1]])
        return torch.nn.functional.cross_entropy(
            logits_LV[len(prompt) - 1 :], torch.tensor(window.tokens, device=logits_LV.device), reduction="sum"
        )

    def fit(self, silent: Sequence[LabelledSound], steps: int) -> Tensor:
        """The vector [D]."""
        study, rng = self.study, np.random.default_rng(self.study.seed)
        files = [
            file
            for number, seconds in enumerate(WINDOWS_S, 1)
            for file in long_files(study.train.speech, silent, study.seed + number, seconds)
        ]
        # windows without any speech, which a gate meets as well
        files += [replace(sound, source=Clip(samples_of(sound)[None], RATE), intervals=()) for sound in silent]
        mixed = len(files) - len(silent)
        share_N = np.r_[np.full(mixed, 0.75 / mixed), np.full(len(silent), 0.25 / len(silent))]
        windows: dict[int, Window] = {}
        vector_D = torch.zeros(study.steered.model.site(study.site).width or 0, requires_grad=True)
        optimizer = torch.optim.Adam([vector_D], lr=STEP_SIZE)
        with frozen(study.steered.model.module, *study.steered.saes.values()), torch.enable_grad():
            for _ in study.progress(list(range(steps))):
                optimizer.zero_grad()
                for index in rng.choice(len(files), size=BATCH, p=share_N).tolist():
                    if index not in windows:
                        windows[index] = self.window(files[index])
                    if windows[index].open_T.any():
                        (self.loss(windows[index], vector_D) / BATCH).backward()
                optimizer.step()
        return vector_D.detach().cpu()


# --- measuring ---


def long_case(study: Study) -> list[Row]:
    """Files of three minutes of the test split: as they are, with a gate and a shift that decide by the second, with
    the shift of whole clips by window, with Silero's VAD, and their labelled speech alone, which is what a detector
    without errors would leave. Insertions count as invented words, deletions and substitutions as errors."""
    files = long_files(study.test.speech, study.test.silent, study.seed, FILE_S)
    runs = {NOTHING: study.texts.of(NOTHING, files, None, study.progress)}
    whole = replace(study.gates[ALL], scope="window")
    edits: dict[str, tuple[Edit, ...]] = {"gate by window, fitted shift": (study.edits[SHIFT][0].conditional(whole),)}
    if BY_SECOND in study.edits:
        edits[BY_SECOND] = study.edits[BY_SECOND]
    for name, some in edits.items():
        edit = partial(study.steered.edit, *some, site=study.site)
        runs[name] = study.texts.of(name, files, edit, study.progress)
    cuts = {LABELLED: labelled_speech(files)}
    with suppress(MissingExtraError):
        cuts[f"{VAD}, only its speech"] = speech_alone(files)
    for name, cut in cuts.items():
        heard = dict(zip(cut, study.texts.of(NOTHING, list(cut.values()), None, study.progress), strict=True))
        plain = zip(files, runs[NOTHING], strict=True)
        runs[name] = [heard.get(file.name, silenced(one)) for file, one in plain]
    return long_rows(files, runs)


def labelled_speech(files: Sequence[LabelledSound]) -> dict[str, LabelledSound]:
    """The labelled speech of files, joined, by their names."""
    found = {}
    for file in files:
        samples_N = samples_of(file)
        parts = [samples_N[round(a * RATE) : round(b * RATE)] for a, b, _ in file.intervals or ()]
        if parts:
            found[file.name] = made(file, LABELLED, torch.cat(parts))
    return found


def speech_alone(files: Sequence[LabelledSound]) -> dict[str, LabelledSound]:
    """What Silero's VAD finds of files, joined, by the settings of faster-whisper; by the names of those in which it
    finds speech."""
    library = require("silero_vad", "eval")
    vad, found = library.load_silero_vad(), {}
    settings = {"threshold": OWN_THRESHOLD, "min_speech_duration_ms": 0, "min_silence_duration_ms": 2000}
    for file in files:
        samples_N = samples_of(file)
        stamps = library.get_speech_timestamps(samples_N, vad, sampling_rate=RATE, speech_pad_ms=400, **settings)
        parts = [samples_N[one["start"] : one["end"]] for one in stamps]
        if parts:
            found[file.name] = made(file, "speech by Silero", torch.cat(parts))
    return found


def long_rows(files: Sequence[LabelledSound], runs: Mapping[str, Sequence[Heard]]) -> list[Row]:
    said = [words_of(sound.labels["text"]) for sound in files]
    counts = {
        name: np.array([word_counts(words, one.words) for words, one in zip(said, heard, strict=True)], dtype=float)
        for name, heard in runs.items()
    }
    plain_F3, lengths_F = counts[NOTHING], np.array([len(words) for words in said], dtype=float)
    minutes_F = np.array([one.seconds / 60 for one in runs[NOTHING]])
    rows = []
    for name, counts_F3 in counts.items():
        errors_F, before_F = counts_F3[:, :2].sum(1), plain_F3[:, :2].sum(1)
        found: Row = {**EMPTY, "case": f"{len(files)} files of three minutes", "method": name}
        found["words/min"] = over_clips(ratio, counts_F3[:, 2], minutes_F, kind=Interval)
        found["WER"] = over_clips(ratio, errors_F, lengths_F, kind=Share)
        if name != NOTHING:
            found["gone"] = over_clips(drop, counts_F3[:, 2], plain_F3[:, 2], kind=Share)
            found["WER change"] = over_clips(rise_in_points, errors_F, before_F, lengths_F, kind=Interval)
        rows.append(found)
    return rows
