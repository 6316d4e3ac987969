"""Which clips train the SAEs of `codec-index`, which stop that, which fit its probes, and the vectors of all of them.

PAPER (arXiv 2603.18359): SAEs on split train, a half of split valid watches them, the other half fits the probes. A
valid split is often too small for that: by default half of the labelled train clips and all other speech train the SAEs
(with random stretches of clips over a second), and the other half fits the probes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from evaluation.codebooks import with_codebooks
from evaluation.codec_index import Vectors
from evaluation.concept_sets import DESCRIBED, has_speech
from evaluation.config import EvaluationError
from evaluation.confounds import GROUP, group_of
from evaluation.dataset import Dataset, LabelledSound
from evaluation.folds import folds_of
from evaluation.label_sets import LabelSets
from evaluation.passes import Kept
from evaluation.pooled import pooled_activations, pooled_crops
from evaluation.report import Progress
from hooks import read_clip
from hooks.model import Codec
from hooks.sound_info import audio_info

FIRST_S = 30.0
CROPS, LONG_S = 4, 1.0
"""Random stretches of each clip over so many seconds."""
FLOOR = 1e-5
FEWEST = 32


@dataclass(frozen=True)
class Roles:
    """Clips by what they are for; `probe_y` and `test_y` are the classes of those."""

    sae: list[LabelledSound]
    watched: list[LabelledSound]
    probe: list[LabelledSound]
    test: list[LabelledSound]
    probe_y: np.ndarray
    test_y: np.ndarray

    @property
    def every(self) -> list[LabelledSound]:
        return [*self.sae, *self.watched, *self.probe, *self.test]

    def about(self) -> dict[str, int]:
        return {
            "clips of the SAEs": len(self.sae),
            "clips that stop them": len(self.watched),
            "clips of the probes": len(self.probe),
            "clips held out": len(self.test),
        }


def divided(sets: LabelSets, others: Sequence[LabelledSound], most: int, seed: int) -> Roles:
    """Half of the train clips and others for the SAEs, of which a fifth (of the speakers) watches; at most `most` of
    the other half for the probes."""
    half_N = folds_of([""] * len(sets.train), sets.train_y, 2, seed)
    for_sae = [sound for sound, half in zip(sets.train, half_N, strict=True) if half]
    rows = np.flatnonzero(half_N == 0)
    rows = np.sort(np.random.default_rng(seed).permutation(rows)[:most])
    pool = [*for_sae, *others]
    fold_N = folds_of([group_of(sound) for sound in pool], seed=seed)
    sae, watched = (
        [sound for sound, fold in zip(pool, fold_N, strict=True) if bool(fold) == side] for side in (True, False)
    )
    if len(sae) < FEWEST:
        raise EvaluationError(
            f"--label {sets.label}: SAEs need {FEWEST} clips to train on, and there are {len(sae)} (half of those with "
            "the label and other speech, less a fifth); raise --clips, or add recordings"
        )
    return Roles(sae, watched, [sets.train[row] for row in rows], sets.held_out, sets.train_y[rows], sets.held_out_y)


def as_the_paper(train: LabelSets, valid: LabelSets, seed: int) -> Roles:
    """SAEs on all train clips, watched by half of the valid ones; probes on the other half."""
    half_N = folds_of([""] * len(valid.held_out), valid.held_out_y, 2, seed)
    watched, probe = (
        [sound for sound, half in zip(valid.held_out, half_N, strict=True) if half == side] for side in (1, 0)
    )
    return Roles(train.train, watched, probe, train.held_out, valid.held_out_y[half_N == 0], train.held_out_y)


def other_speech(dataset: Dataset, subsets: Sequence[str], limit: int | None) -> list[LabelledSound]:
    """Clips of split train of these subsets, without those that hold no speech."""
    there = [name for name in subsets if any(row.get("split", "train") == "train" for row in dataset.rows(name))]
    sounds = dataset.sounds(there, "train", limit, (*DESCRIBED, GROUP)) if there else []
    return [sound for sound in sounds if has_speech(sound.labels)]


def vectors_of(
    codec: Codec, site: str, roles: Roles, count: int | None, seed: int, kept: Kept, progress: Progress = iter
) -> Vectors:
    """The vectors [., D] at a site with the first `count` codebooks (None: all of them).

    Raises:
        EvaluationError: the codec has not as many codebooks, or a clip is too short.
        AudioFileError: a clip that cannot be read.
    """

    def whole(sounds: Sequence[LabelledSound]) -> np.ndarray:
        # of clips that are not longer what the pass of their stretches left is taken
        first_s = FIRST_S if any(seconds_of[sound.name] > FIRST_S for sound in sounds) else None
        return pooled_activations(codec, sounds, [place], first_s=first_s, kept=kept, progress=progress)[place]

    place = codec.site(site).name
    seconds_of = {sound.name: audio_info(sound.path).seconds for sound in roles.every}
    long = [sound for sound in roles.sae if seconds_of[sound.name] > LONG_S]
    with with_codebooks(codec, count):
        if long:
            crops_NCD = pooled_crops(codec, long, [place], CROPS, seed=seed, kept=kept, progress=progress)[place]
        sae_ND, watched_VD, probe_PD, test_MD = map(whole, (roles.sae, roles.watched, roles.probe, roles.test))
    if long:
        sae_ND = np.concatenate([sae_ND, crops_NCD.reshape(-1, crops_NCD.shape[2])])
    found = Vectors(
        sae_ND,
        watched_VD,
        probe_PD,
        test_MD,
        roles.probe_y,
        roles.test_y,
        [group_of(sound) for sound in roles.probe],
        [group_of(sound) for sound in roles.test],
    )
    centre_D = sae_ND.mean(0)
    sizes = [(seconds_and_level(some), np.linalg.norm(x_ND - centre_D, axis=1)) for some, x_ND in (
        (roles.probe, probe_PD), (roles.test, test_MD))]  # fmt: skip
    length = [np.stack([norm_N, about_N2[:, 0]], 1) for about_N2, norm_N in sizes]
    level = [about_N2[:, 1:] for about_N2, _ in sizes]
    return replace(found, beside={"length + duration": (length[0], length[1]), "level": (level[0], level[1])})


def seconds_and_level(sounds: Sequence[LabelledSound]) -> np.ndarray:
    """[N, 2]: duration in seconds and level in dB of full scale of the first 30 s of each clip."""
    found = []
    for sound in sounds:
        clip = read_clip(sound.path)
        waveform = clip.waveform[:, : round(FIRST_S * clip.sample_rate)]
        rms = float(waveform.square().mean().sqrt())
        found.append((waveform.shape[1] / clip.sample_rate, 20 * np.log10(max(rms, FLOOR))))
    return np.array(found)
