"""What the feature that tells a label best does to that label: `Effect`, measured by ablating it while the model runs.

A read-out of the label (class-balanced logistic regression on each clip's mean activation where the encoder ends) is
fitted on one half of the clips, without an edit. On the clips of the other half that have the label the feature is
ablated, and what is `lost` is how much of the distance between their logits and those of all other clips goes with it.
The `control` is another feature that fires on these clips, drawn at random. `words` are the clips whose transcript
has other words then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from evaluation.ablation import ConceptError, Pool, later_site, run
from evaluation.atlas import Atlas, Effect
from evaluation.atlas_build import halves
from evaluation.dataset import LabelledSound
from evaluation.report import Progress
from evaluation.transcripts import defaults, listen
from hooks import Site, attach
from hooks.model import Transcriber
from steer.edits import Ablate
from steer.probes import Probe, fit_probe, named_bins
from steer.steered import SteeredModel

CLIPS = 4
"""Of a label and a half at most so many are edited."""
FEWEST = 2
"""With the label in each half."""
C = 0.01
"""1 / strength of the penalty: there are more channels than clips."""


@torch.no_grad()
def with_effects(
    steered: SteeredModel, atlas: Atlas, sounds: Sequence[LabelledSound], seed: int = 0, progress: Progress = iter
) -> Atlas:
    """The atlas with the effects of the best feature of each label that has enough of its clips; `sounds` are those
    that it was built from, in the same order.

    A label costs 2 runs of the model, and a recogniser one transcript, for each of 2 x `CLIPS` clips at most.

    Raises:
        MissingExtraError: scikit-learn, for a recogniser also jiwer, is not installed.
    """
    site = steered.sites[atlas.site]
    try:
        later = later_site(steered, atlas.site, steered.model.prepare(sounds[0].source))
    except ConceptError:  # the SAE is at the last site: what it leaves there is read
        later = site
    plain_ND = np.stack([pooled(steered, later, one) for one in progress(list(sounds))])
    words: dict[int, tuple[str, ...]] = {}
    rng = np.random.default_rng(seed)
    concepts = list(atlas.concepts)
    wanted = [n for n, one in enumerate(concepts) if one.kind != "interval" and one.chance is not None]
    for number in progress(wanted):
        concept = concepts[number]
        has_N = np.array([sound.labels.get(concept.kind) == concept.value for sound in sounds])
        second_N = halves([frozenset("x" if one else "") for one in has_N], range(len(sounds))).numpy()
        if min(has_N[second_N].sum(), has_N[~second_N].sum()) < FEWEST:
            continue
        feature = int(atlas.auroc[number].argmax())
        lost, changed = np.zeros(3), []
        for half_N in (second_N, ~second_N):
            probe = read_out(plain_ND[~half_N], has_N[~half_N])
            others = float(logits(probe, plain_ND[half_N & ~has_N]).mean())
            chosen = np.flatnonzero(half_N & has_N)[:CLIPS]
            for index in chosen:
                control = drawn(atlas, int(index), feature, rng)
                runs = [plain_ND[index]]
                for one in (feature, control):
                    with steered.edit(Ablate([one]), site=atlas.site):
                        runs.append(pooled(steered, later, sounds[index]))
                lost += logits(probe, np.stack(runs)) - others
                if isinstance(steered.model, Transcriber):
                    changed.append(writes_other(steered, atlas.site, feature, sounds, int(index), words))
        share = None if not changed else float(np.mean(changed))
        # a read-out that tells nothing on the other half has nothing to lose
        effect = (
            Effect(feature, float(1 - lost[1] / lost[0]), float(1 - lost[2] / lost[0]), share) if lost[0] > 0 else None
        )
        concepts[number] = replace(concept, effect=effect)
    return replace(atlas, concepts=concepts)


def pooled(steered: SteeredModel, later: Site, sound: LabelledSound) -> np.ndarray:
    """Mean [D] over the frames of a sound of what passes."""
    pool = Pool(later)
    with attach(steered.model.module, later, pool):
        run(steered, steered.model.prepare(sound.source))
    return pool.take()


def read_out(x_ND: np.ndarray, has_N: np.ndarray) -> Probe:
    bins = named_bins("label", ("without", "with"))
    return fit_probe(torch.from_numpy(x_ND), torch.from_numpy(has_N).double(), bins, c=C, balanced=True)


def logits(probe: Probe, x_ND: np.ndarray) -> np.ndarray:
    """[N] for the label."""
    logits_NK: Tensor = torch.from_numpy(x_ND) @ probe.weights.T + probe.bias
    return (logits_NK[:, 1] - logits_NK[:, 0]).numpy()


def drawn(atlas: Atlas, clip: int, feature: int, rng: np.random.Generator) -> int:
    """Another feature that peaks in this clip, or in none of the known ones any that fires."""
    here_F = (atlas.peak_clip == clip).any(1) & (atlas.density > 0)
    live_F = here_F if int(here_F.sum()) > 1 else atlas.density > 0
    live = [one for one in live_F.nonzero()[:, 0].tolist() if one != feature]
    return int(rng.choice(live)) if live else feature


def writes_other(
    steered: SteeredModel,
    site: str,
    feature: int,
    sounds: Sequence[LabelledSound],
    index: int,
    words: dict[int, tuple[str, ...]],
) -> bool:
    """Whether a clip's transcript has other words without the feature; `words` are those with it, by clip."""
    assert isinstance(steered.model, Transcriber)
    options = defaults(steered.model)
    if index not in words:
        words[index] = listen(steered.model, [sounds[index]], options)[0].words
    with steered.edit(Ablate([feature]), site=site):
        return listen(steered.model, [sounds[index]], options)[0].words != words[index]
