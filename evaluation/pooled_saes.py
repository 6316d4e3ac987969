"""SAEs of utterance vectors over a sweep of sparsities, and what is compared with them: the paper on singing's.

As `ssl-sae-singing.txt`, section 3.2: z = TopK(ReLU(W_e x + b_e)), x' = W_d z without a bias of the decoder, nothing
taken off the input, the decoder's rows of any length, no loss for dead features; k = floor((1 - sparsity) N); Adam at
1e-3, and the weights of the least error on clips that are not trained on.

An SAE of 2048 features overfits a few hundred vectors: train it on random stretches of clips (`pooled_crops`)
and look at errors on other clips.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch

from evaluation.config import EvaluationError
from evaluation.confounds import group_of
from evaluation.dataset import LabelledSound
from evaluation.folds import folds_of
from evaluation.nulls import Components, pca, random_sae, rotation
from hooks.model import AudioModel
from steer.sae import SAE
from steer.training import TrainConfig, train_saes

CROPS = 8
"""Random stretches of each clip that SAEs are trained on too."""
SPARSITIES = (75.0, 80.0, 85.0, 90.0, 95.0, 99.0)
"""In per cent."""
RATIO = Fraction(8, 3)
"""Features for each channel: 2048 for 768."""
STEPS, BATCH, PATIENCE = 2000, 256, 300
"""As many steps at most, unless the error has not fallen for `PATIENCE` of them."""
QUICK_STEPS, QUICK_SPARSITIES = 400, (90.0, 99.0)
PAPER_EPOCHS, PAPER_BATCH = 100, 32
RATE = 1e-3
DENSE, SAE_NAME, SECOND, RANDOM, PCA, ROTATED = "dense", "SAE", "SAE, other seed", "random SAE", "PCA", "rotated PCA"


def active_of(width: int, sparsity: float) -> int:
    """floor((1 - sparsity / 100) * width), as the number that is written: 90 % of 2048 leaves 204.

    Raises:
        EvaluationError: none or all would be left.
    """
    active = math.floor(width * (1 - Fraction(str(sparsity)) / 100))
    if not 0 < active < width:
        raise EvaluationError(f"a sparsity of {sparsity:g} % leaves {active} of {width} features")
    return active


def width_of(channels: int) -> int:
    """Features for as many channels."""
    return round(channels * RATIO)


def check_sparsities(
    model: AudioModel, sites: Sequence[str], sparsities: Sequence[float], width: int | None = None
) -> None:
    """Before anything is passed: raises EvaluationError for a sparsity that leaves no feature, or all."""
    for channels in {model.site(name).width for name in sites}:
        for sparsity in sparsities if width or channels else ():
            active_of(width or width_of(channels or 0), sparsity)


def divided_vectors(
    sounds: Sequence[LabelledSound],
    whole: Callable[[list[LabelledSound]], dict[str, np.ndarray]],
    crops: Callable[[list[LabelledSound]], dict[str, np.ndarray]] | None,
    seed: int,
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """{site: (vectors of four fifths of the clips and of their stretches, vectors of the other clips)}."""
    fold_N = folds_of([group_of(sound) for sound in sounds], seed=seed)
    train = [sound for sound, fold in zip(sounds, fold_N, strict=True) if fold]
    valid = [sound for sound, fold in zip(sounds, fold_N, strict=True) if not fold]
    # crops first: their passes give the vectors of whole clips too
    more = crops(train) if crops is not None else {}
    train_x, valid_x = whole(train), whole(valid)
    for site, x_NCD in more.items():
        train_x[site] = np.concatenate([train_x[site], x_NCD.reshape(-1, x_NCD.shape[2])])
    return {site: (train_x[site], valid_x[site]) for site in train_x}


@dataclass(frozen=True)
class Swept:
    """SAEs of one site by (sparsity in per cent, seed)."""

    site: str
    saes: Mapping[tuple[float, int], SAE]

    @property
    def width(self) -> int:
        return next(iter(self.saes.values())).d_sae


def train_sweep(
    x: Mapping[str, np.ndarray],
    valid: Mapping[str, np.ndarray],
    sparsities: Sequence[float] = SPARSITIES,
    *,
    width: int | None = None,
    seeds: int = 1,
    seed: int = 0,
    paper: bool = False,
    steps: int = STEPS,
) -> dict[str, Swept]:
    """{site: SAEs} of vectors [N, D], all on the same batches; `valid` [V, D] are vectors of other clips, at which the
    training stops.

    Raises:
        TrainingError: vectors that an SAE cannot be trained on.
        EvaluationError: a sparsity that leaves no feature, or all.
    """
    found = {}
    for site, x_ND in x.items():
        features = width or width_of(x_ND.shape[1])
        batch = min(PAPER_BATCH if paper else BATCH, len(x_ND))
        length = PAPER_EPOCHS * math.ceil(len(x_ND) / batch) if paper else steps
        places = [(sparsity, number) for number in range(seeds) for sparsity in sparsities]
        configs = [
            TrainConfig(
                "topk",
                k=active_of(features, sparsity),
                d_sae=features,
                steps=length,
                batch_size=batch,
                lr=RATE,
                decoder_bias=False,
                unit_norm=False,
                auxiliary=False,
                rescale=not paper,
                schedule="constant",
                # with the paper's settings it is the least error of all steps
                patience=length if paper else min(PATIENCE, length),
                seed=seed + number,
            )
            for sparsity, number in places
        ]
        data, validation = ({site: torch.from_numpy(one).float()} for one in (x_ND, valid[site]))
        saes = train_saes(data, configs, validation=validation, device="cpu", progress=False)
        found[site] = Swept(site, dict(zip(places, saes, strict=True)))
    return found


@dataclass(frozen=True)
class Representation:
    """Vectors [N, F] that stand for utterances, and the reconstruction [N, D] from them where there is one."""

    name: str
    sparsity: float | None
    active: int | None
    values: np.ndarray
    rebuilt: np.ndarray | None = None

    @property
    def dead(self) -> float | None:
        """Share of features that are 0 for all utterances."""
        return float((self.values == 0).all(0).mean()) if self.name in (SAE_NAME, SECOND, RANDOM) else None

    def error(self, x_ND: np.ndarray, weights_XN: np.ndarray) -> np.ndarray | None:
        """[X]: squared error / variance of the vectors, for each row of clip weights."""
        if self.rebuilt is None:
            return None
        error_N = np.square(x_ND - self.rebuilt).sum(1)
        # from the mean of all clips: from that of a resampling it would be smaller for a few clips
        spread_N = np.square(x_ND - x_ND.mean(0)).sum(1)
        return weights_XN @ error_N / np.maximum(weights_XN @ spread_N, 1e-300)


@torch.no_grad()
def coded(sae: SAE, x_ND: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features [N, F] and reconstruction [N, D] of vectors."""
    x = torch.from_numpy(np.asarray(x_ND)).float()
    f_NF = sae.encode(x)
    return f_NF.numpy().astype(np.float64), sae.decode(f_NF, x).numpy().astype(np.float64)


def representations(x_ND: np.ndarray, fit_ND: np.ndarray, swept: Swept, seed: int = 0) -> list[Representation]:
    """The vectors themselves, and at each sparsity: SAEs of all seeds, an untrained one, and as many principal
    components of `fit_ND` (where it has as many), as they are and rotated."""
    x_ND = np.asarray(x_ND, dtype=np.float64)
    found = [Representation(DENSE, None, None, x_ND)]
    components = pca(fit_ND, fit_ND.shape[1])
    for (sparsity, number), sae in swept.saes.items():
        found.append(Representation(SECOND if number else SAE_NAME, sparsity, sae.k, *coded(sae, x_ND)))
        if number:
            continue
        assert sae.k is not None
        untrained = random_sae(sae, fit_ND.mean(0), seed)
        found.append(Representation(RANDOM, sparsity, sae.k, *coded(untrained, x_ND)))
        some = Components(components.mean, components.axes[: sae.k])
        z_NK = some(x_ND)
        rebuilt_ND = z_NK @ some.axes + some.mean
        found.append(Representation(PCA, sparsity, z_NK.shape[1], z_NK, rebuilt_ND))
        turned_NK = z_NK @ rotation(z_NK.shape[1], seed)
        found.append(Representation(ROTATED, sparsity, z_NK.shape[1], turned_NK, rebuilt_ND))
    return found
