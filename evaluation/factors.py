"""`steer evaluate factors`: how many dimensions of a layer, or of a sparse code of it, predict a voice attribute?

After `ssl-sae-singing.txt`, section 4: factors of clips (eGeMAPS) are predicted from utterance vectors by Lasso, from
the dense ones of a layer and from SAEs of rising sparsity. R2 measures whether a factor can be predicted
(informativeness), the spread of the weights how many dimensions that takes (`evaluation.dci`).

What differs from the paper: R2 is of clips that the regression was not fitted on; completeness is reported only for
factors with R2 of at least 0.2, with the effective number of dimensions, which does not depend on the size of the
dictionary; the ten best factors are chosen once, on the dense vectors of the layer. Each SAE is compared with one of
another seed, an untrained one of the same size, and as many principal components, unrotated and rotated: with fewer
active features a prediction uses fewer dimensions, trained or not. Duration alone and shuffled factors have rows too.
With `paper` there are columns by the paper's own definitions, which are inflated.

Intervals of R2 are of the paired Bayesian bootstrap over clips; those of the number of dimensions over the ten factors.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.confounds import group_of
from evaluation.dataset import LabelledSound
from evaluation.dci import (
    Fit,
    completeness,
    effective_dimensions,
    fit,
    in_sample_r2,
    knn_entropy,
    paper_completeness,
)
from evaluation.factor_sets import Factors
from evaluation.folds import folds_of
from evaluation.nulls import clip_weights
from evaluation.pooled_saes import DENSE, RANDOM, SAE_NAME, Representation, Swept, representations
from evaluation.probing import interval
from evaluation.report import Interval, Progress, Report, Row
from hooks.errors import require

TOP = 10
ENOUGH = 0.2
"""Held-out R2 from which on a factor has a completeness."""
DURATION, SHUFFLED = "duration alone", "shuffled factors"
PAPER_SPARSITY = 90.0
"""At which the paper shows entropy against completeness (in its text; its code takes 95 %)."""
OWN_ALPHA = (DENSE, SAE_NAME, RANDOM)
"""Where the penalty is chosen by cross-validation too."""


@dataclass(frozen=True)
class Predicted:
    """How well all factors are predicted from one representation."""

    one: Representation
    fit: Fit
    r2_XF: np.ndarray
    own_alpha_T: np.ndarray | None = None
    """R2 of the ten best factors with penalties of their own."""

    @property
    def informative(self) -> np.ndarray:
        """Which factors [F] have a completeness."""
        return self.r2_XF[0] >= ENOUGH

    @property
    def completeness(self) -> np.ndarray:
        """[F], NaN where there is none."""
        return np.where(self.informative, completeness(self.fit.weights_NF), np.nan)

    @property
    def dimensions(self) -> np.ndarray:
        """Effective number [F], NaN where there is none."""
        return np.where(self.informative, effective_dimensions(self.fit.weights_NF), np.nan)


def evaluate(
    model_name: str,
    x: Mapping[str, np.ndarray],
    fit_x: Mapping[str, np.ndarray],
    swept: Mapping[str, Swept],
    sounds: Sequence[LabelledSound],
    factors: Factors,
    durations_M: np.ndarray,
    *,
    own_alpha: bool = True,
    paper: bool = False,
    seed: int = 0,
    progress: Progress = iter,
) -> Report:
    """A row for each site, sparsity and representation. `clips` has a row for each of these and factor.

    `x` {site: [M, D]} are the vectors of the sounds, `fit_x` those that the SAEs in `swept` were trained on.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    factors = factors.varying()
    groups = [group_of(sound) for sound in sounds]
    fold_M = folds_of(groups, seed=seed)
    weights_XM = clip_weights(groups, seed)
    entropy_F = [knn_entropy(column) for column in factors.values.T]

    def predicted(one: Representation, values_MF: np.ndarray, top: np.ndarray | None = None) -> Predicted:
        found = fit(one.values, values_MF, fold_M)
        chosen = None
        if own_alpha and top is not None and one.name in OWN_ALPHA:
            chosen = fit(one.values, values_MF[:, top], fold_M, None, seed).r2()[0]
        return Predicted(one, found, found.r2(weights_XM), chosen)

    rows: list[Row] = []
    every: list[Row] = []
    families: dict[str, dict[str, list[float]]] = {}
    entropies: dict[str, dict[str, float | int | None]] = {}
    best: dict[str, list[str]] = {}
    rng = np.random.default_rng(seed)
    shuffled_MF = factors.values[rng.permutation(len(factors.values))]
    for site in x:
        dense, *others = representations(x[site], fit_x[site], swept[site], seed)
        reference = predicted(dense, factors.values)
        top = np.argsort(-reference.r2_XF[0])[:TOP]
        if own_alpha:
            reference = predicted(dense, factors.values, top)
        best[site] = [factors.names[number] for number in top]
        length = Representation(DURATION, None, 1, np.asarray(durations_M, dtype=np.float64)[:, None])
        results = [reference, predicted(length, factors.values)]
        results += [predicted(one, factors.values, top) for one in progress(others)]
        for result in results:
            rows.append(row_of(site, result, reference, top, paper))
            every += factor_rows(site, result, factors, entropy_F, top)
        noise = predicted(Representation(SHUFFLED, None, None, dense.values), shuffled_MF)
        rows.append(row_of(site, noise, reference, top, paper))
        sparse = [result for result in results if result.one.name == SAE_NAME]
        families[site] = family_counts(sparse, factors)
        shown = min(sparse, key=lambda result: abs((result.one.sparsity or 0) - PAPER_SPARSITY))
        entropies[site] = correlation(entropy_F, shown) | {"sparsity": shown.one.sparsity}
    about = {
        "model": model_name,
        "sites": list(x),
        "clips": len(sounds),
        "factors": len(factors.names),
        "informative": f"held-out R2 of {ENOUGH} and more",
        "best factors": best,
        "families": families,
        "entropy and completeness": entropies,
        "features": {site: one.width for site, one in swept.items()},
        "intervals": "95 %: of R2 over the clips, of dimensions over the ten factors",
        "notes": factors.notes,
    }
    title = f"The {len(top)} factors predicted best from dense vectors of {model_name}, {len(sounds)} clips"
    return Report(title, rows, every, about)


def row_of(site: str, result: Predicted, dense: Predicted, top: np.ndarray, paper: bool) -> Row:
    count = len(result.fit.f_MF)
    mean_X, dense_X = result.r2_XF[:, top].mean(1), dense.r2_XF[:, top].mean(1)
    same = result is dense
    row: Row = {
        "site": site,
        "vectors": result.one.name,
        "sparsity": None if result.one.sparsity is None else f"{result.one.sparsity:g} %",
        "active": result.one.active,
        "R2": interval(mean_X, count),
        "R2 to dense": None if same else interval(mean_X - dense_X, count),
        "R2, own penalty": None if result.own_alpha_T is None else float(result.own_alpha_T.mean()),
        "informative": int(result.informative.sum()),
        "completeness": over_factors(result.completeness[top]),
        "dimensions": over_factors(result.dimensions[top]),
        "dimensions to dense": None if same else over_factors(result.dimensions[top] - dense.dimensions[top]),
        "dead": result.one.dead,
    }
    if paper:
        row |= paper_values(result, same)
    return row


def over_factors(values_T: np.ndarray) -> Interval | None:
    """The mean of those that have a value, with its interval over factors; None where fewer than two have one."""
    known_K = values_T[~np.isnan(values_T)]
    if len(known_K) < 2:
        return None
    weights_XK = np.vstack([np.ones(len(known_K)), np.random.default_rng(0).exponential(size=(1000, len(known_K)))])
    return interval(weights_XK @ known_K / weights_XK.sum(1), len(known_K))


def paper_values(result: Predicted, dense: bool) -> Row:
    """By the paper's code: R2 in-sample, of the ten factors with the largest; completeness of the ten that are most
    complete, and of dense vectors of the ten of largest R2. Unpredictable factors count as complete."""
    r2_F = in_sample_r2(result.one.values, result.fit.f_MF)
    complete_F = paper_completeness(result.fit.weights_NF)
    best = np.argsort(-(r2_F if dense else complete_F))[:TOP]
    return {"paper's R2": float(np.sort(r2_F)[-TOP:].mean()), "paper's completeness": float(complete_F[best].mean())}


def factor_rows(
    site: str, result: Predicted, factors: Factors, entropy_F: Sequence[float | None], top: np.ndarray
) -> list[Row]:
    """A row for each factor, as the file factors.csv has it."""
    columns = result.r2_XF[0], result.completeness, result.dimensions
    return [
        {
            "site": site,
            "vectors": result.one.name,
            "sparsity": result.one.sparsity,
            "factor": name,
            "family": factors.families[number],
            "R2": round(float(columns[0][number]), 4),
            "completeness": rounded(columns[1][number]),
            "dimensions": rounded(columns[2][number]),
            "entropy": None if entropy_F[number] is None else round(float(entropy_F[number] or 0), 4),
            "best": bool(number in top),
        }
        for number, name in enumerate(factors.names)
    ]


def rounded(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 4)


def family_counts(sparse: Sequence[Predicted], factors: Factors) -> dict[str, list[float]]:
    """{family: [mean, deviation] over sparsities} of its number among the ten best-predicted factors."""
    counts = [Counter(factors.families[number] for number in np.argsort(-result.r2_XF[0])[:TOP]) for result in sparse]
    names = list(dict.fromkeys(factors.families))
    values = {name: [count[name] for count in counts] for name in names}
    return {name: [round(float(np.mean(some)), 3), round(float(np.std(some)), 3)] for name, some in values.items()}


def correlation(entropy_F: Sequence[float | None], result: Predicted) -> dict[str, float | int | None]:
    """Spearman's rank correlation of entropy and completeness over informative factors, and what noise reaches."""
    stats = require("scipy.stats", "eval")
    complete_F = result.completeness
    both = [(one, two) for one, two in zip(entropy_F, complete_F, strict=True) if one is not None and not np.isnan(two)]
    if len(both) < 5:
        return {"correlation": None, "factors": len(both), "noise": None}
    value = float(stats.spearmanr(*zip(*both, strict=True)).statistic)
    return {
        "correlation": round(value, 3),
        "factors": len(both),
        "noise": round(1.96 / float(np.sqrt(len(both) - 1)), 3),
    }
