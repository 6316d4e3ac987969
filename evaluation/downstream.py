"""What an SAE's reconstruction costs downstream: words of a recogniser, labels that can be read from an encoder.

The model runs with decode(encode(x)) in place of the activation x at one site. Padding stays as it is: SAEs are trained
without it, so what they would make of it says nothing.

- Of a recogniser it is the word error rate on held-out clips with a text (`evaluation.transcripts`).
- Of an encoder it is the accuracy of probes (`evaluation.probing`) on the embedding, each clip's mean over time: one
  for each label against the others of its kind, fitted on training clips to the model as it is. Like a recogniser's
  decoder they are not fitted again: what was only turned into another form is lost to them too.

Intervals are bootstraps over the held-out clips; a change is measured clip by clip against the model as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from evaluation.concept_sets import Sets
from evaluation.concepts import concepts_of, too_few
from evaluation.dataset import Dataset, LabelledSound
from evaluation.probing import ROUNDS, Answers, Weights, ask, interval, resampled
from evaluation.report import Interval, Progress, Report, Row, Share
from evaluation.transcripts import Heard, defaults, errors_in, listen, over_clips, ratio, rise_in_points, words_of
from hooks.errors import AudioSteerError, require
from hooks.model import AudioModel, Encoder, Transcriber
from steer.sae import EncodesAndDecodes
from steer.steered import SteeredModel


class DownstreamError(AudioSteerError):
    """A cost that cannot be measured: a model that neither writes words nor embeds, or no clips that tell."""


def clip_sets(
    model: AudioModel, dataset: Dataset, limit: int | None = None, held_out: Sequence[str] = ("valid",)
) -> Sets:
    """Clips to fit probes on (none for a recogniser) and those held out; at most `limit` of a subset and split.

    Of a recogniser they are the clips with a text; of an encoder those with a label, whose kind is their subset.

    Raises:
        DownstreamError: none, or another kind of model.
        AudioFileError: no clips of a split, or one that is not there.
        MissingExtraError: what measures them is not installed: better known now than behind a training.
    """
    if isinstance(model, Transcriber):
        require("jiwer", "whisper")
        spoken = [
            sound
            for split in held_out
            for sound in dataset.sounds(None, split, limit, ("text",))
            if words_of(sound.labels.get("text", ""))
        ]
        if not spoken:
            raise DownstreamError(
                f"{dataset.folder}: no clips of split {' or '.join(held_out)} have a text to count errors by"
            )
        return [], spoken
    if not isinstance(model, Encoder):
        raise DownstreamError(f"{model.name} is a {model.kind}: it neither writes words nor embeds")
    require("sklearn", "eval")

    def of(splits: Sequence[str]) -> list[LabelledSound]:
        sounds = [sound for split in splits for sound in dataset.sounds(None, split, limit, ("label",))]
        return [
            replace(sound, labels={sound.labels["subset"]: sound.labels["label"]})
            for sound in sounds
            if "label" in sound.labels
        ]

    sets = of(["train"]), of(held_out)
    labels_known(*sets)
    return sets


def evaluate(
    model: AudioModel,
    saes: Mapping[str, Sequence[EncodesAndDecodes]],
    train: Sequence[LabelledSound],
    held_out: Sequence[LabelledSound],
    *,
    options: Mapping[str, Any] | None = None,
    progress: Progress = iter,
) -> Report:
    """Run the held-out clips through the model as it is, and with the reconstruction of each SAE of {site: [one a
    seed]} by itself.

    `options` are added to those of the transcription. The clips have a label `text` for a recogniser; for an encoder
    every label counts, and only labels of enough clips in both sets. There is a row for the model as it is and for each
    SAE; changes are in points.

    Raises:
        DownstreamError: no clips, or a model that neither writes words nor embeds.
        SAEError, SiteError: an SAE that does not fit its site.
        AudioFileError: a clip that cannot be read.
        MissingExtraError: a library that measures is not installed.
    """
    if not held_out:
        raise DownstreamError("there are no clips to measure on")
    task: Words | Probes
    if isinstance(model, Transcriber):
        task = Words(model, held_out, {**defaults(model), **(options or {})}, progress)
    elif isinstance(model, Encoder):
        task = Probes(model, train, held_out, progress)
    else:
        raise DownstreamError(f"{model.name} is a {model.kind}: it neither writes words nor embeds")
    heads: list[Row] = [{"site": "as it is", "seed": None}]
    runs: list[Any] = [task.run()]
    for site, seeds in saes.items():
        for sae in seeds:
            with torch.no_grad(), SteeredModel(model, {site: sae}).edit(mode="reconstruct", padding=False):
                runs.append(task.run())
            heads.append({"site": site, "seed": seed_of(sae)})
    rows = [{**head, **row} for head, row in zip(heads, task.rows(runs), strict=True)]
    about = {"model": model.name, "clips to train on": len(train), "clips held out": len(held_out), **task.about}
    return Report(f"What the SAEs' reconstruction costs {model.name}", rows, about=about)


def seed_of(sae: EncodesAndDecodes) -> int | None:
    """The seed of an SAE that was trained here."""
    info = getattr(sae, "info", None)
    return info.extra.get("training", {}).get("seed") if info else None


class Words:
    """What a recogniser writes, and how many of its words are wrong."""

    def __init__(
        self, model: Transcriber, clips: Sequence[LabelledSound], options: Mapping[str, Any], progress: Progress
    ) -> None:
        self.model, self.clips, self.options, self.progress = model, clips, options, progress
        self.about = {"options": dict(options)}

    def run(self) -> list[Heard]:
        return listen(self.model, self.clips, self.options, self.progress)

    def rows(self, runs: Sequence[list[Heard]]) -> list[Row]:
        counted = [errors_in(self.clips, run) for run in runs]
        plain_M, lengths_M = counted[0]
        return [
            {
                "WER": over_clips(ratio, errors_M, lengths_M, kind=Share),
                "errors": f"{errors_M.sum():.0f} of {lengths_M.sum():.0f} words",
                "change": over_clips(rise_in_points, errors_M, plain_M, lengths_M, kind=Interval) if index else None,
            }
            for index, (errors_M, _) in enumerate(counted)
        ]


class Probes:
    """Mean embeddings of the held-out clips, and what probes read from them that know the model as it is."""

    def __init__(
        self, model: Encoder, train: Sequence[LabelledSound], held_out: Sequence[LabelledSound], progress: Progress
    ) -> None:
        self.model, self.held_out, self.progress = model, held_out, progress
        self.known = labels_known(train, held_out)
        self.train_ND = self._embeddings(train)
        self.about = {"labels": list(self.known)}

    def run(self) -> np.ndarray:
        """[M, D]"""
        return self._embeddings(self.held_out)

    @torch.no_grad()
    def _embeddings(self, clips: Sequence[LabelledSound]) -> np.ndarray:
        return np.stack(
            [self.model.embed(clip.source).float().mean(0).cpu().numpy() for clip in self.progress(list(clips))]
        )

    def rows(self, runs: Sequence[np.ndarray]) -> list[Row]:
        """Balanced accuracy, a mean over the labels of each kind and over all."""
        speakers = [""] * len(self.train_ND) + [clip.speaker for clip in self.held_out]
        weights = resampled(speakers, ROUNDS)
        accuracy_LRX = np.stack([self._accuracies(y_N, runs, weights.of(name)) for name, y_N in self.known.items()])
        kinds = [name.partition("=")[0] for name in self.known]
        plain_X = accuracy_LRX.mean(0)[0]

        def mean(index: int, chosen: Sequence[bool]) -> Share:
            return interval(accuracy_LRX[np.array(chosen), index].mean(0), len(self.held_out), Share)

        rows: list[Row] = []
        for index in range(len(runs)):
            row: Row = {kind: mean(index, [one == kind for one in kinds]) for kind in dict.fromkeys(kinds)}
            row["accuracy"] = mean(index, [True] * len(kinds))
            change_X = 100 * (accuracy_LRX.mean(0)[index] - plain_X)
            row["change"] = interval(change_X, len(self.held_out)) if index else None
            rows.append(row)
        return rows

    def _accuracies(self, y_N: np.ndarray, runs: Sequence[np.ndarray], weights: Weights) -> np.ndarray:
        """[R, X] of the probe of one label, fitted once and asked about all runs."""
        train, held_out = y_N[: len(self.train_ND)], y_N[len(self.train_ND) :]
        x_ND = np.concatenate([self.train_ND, *runs])
        said = ask(x_ND, np.concatenate([train, *[held_out] * len(runs)]), np.arange(len(x_ND)) < len(train))
        clips_M, is_M = np.flatnonzero(held_out >= 0) + len(train), held_out[held_out >= 0] == 1
        says_RM = said.says_M.reshape(len(runs), -1)
        answers = [Answers(clips_M, says_M, is_M) for says_M in says_RM]
        return np.stack([one.balanced_accuracy(weights, index == 0) for index, one in enumerate(answers)])


def labels_known(train: Sequence[LabelledSound], held_out: Sequence[LabelledSound]) -> dict[str, np.ndarray]:
    """As `concepts_of`, those of enough clips. Raises DownstreamError if there are none."""
    train_N = np.arange(len(train) + len(held_out)) < len(train)
    known = {name: y_N for name, y_N in concepts_of(train, held_out).items() if not too_few(y_N, train_N)}
    if not known:
        raise DownstreamError("no label has two clips with and two without it, both to train on and held out")
    return known
