"""`steer evaluate codec-index`: how far a label survives in sparse codes of a codec's utterance vectors.

As `codec-accent-sae.txt` (arXiv 2603.18359): u is the mean over time of what the codec's decoder gets; an SAE without
biases but b_pre, z = TopK(W_enc (u - b_pre), k), with d_z = q d features and k = ceil(s d); a logistic regression with
an L1 penalty on z, on its positions and on its magnitudes; and delta F1 = F1(x) - F1(u), macro-averaged.

"Magnitude" is first of all the length of u - b_pre: level, channel and duration. So probes on length and duration alone
and on the level stand beside it, as do shuffled labels, an untrained SAE, principal components, half of the clips, and
probes whose penalty is chosen by cross-validation, since C = 1 is not the same for 128 and 20,480 features.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

import numpy as np
import torch

from evaluation.folds import folds_of
from evaluation.label_probe import Standard
from evaluation.nulls import Null, clip_weights, null_of, pca, random_sae, shuffled
from evaluation.pooled_saes import coded
from evaluation.probing import interval
from evaluation.report import Interval, Progress, Row
from evaluation.sparse_parts import Density, active_of, density_of, macro_f1, parts_of
from hooks.errors import require
from steer.sae import SAE
from steer.training import TrainConfig, measure, train_saes

QS, SS = (2, 5, 10, 20), (0.5, 0.25, 0.1, 0.05)
STRENGTHS = (0.03, 0.1, 0.3, 1.0, 3.0)
"""Values of C for cross-validation."""
MAX_ITER, TOLERANCE = 3000, 1e-2
STEPS, PATIENCE, RATE, BATCH, EPS = 5000, 500, 1e-3, 1024, 6.25e-10
PAPER_RATE, PAPER_EPOCHS, PAPER_LONGER = 1e-5, 200, 500
"""The paper's, which presume hundreds of thousands of clips; the longer ones for q <= 5 with s <= .1."""
EXPLAINED = 0.5
"""A result of an SAE that explains less of held-out vectors says little."""
MAIN_NULLS, NULLS = 20, 3
U, WHOLE = "u", "z"
FEW, CHANCE = "SAE explains under half", "not distinguishable from chance"


@dataclass(frozen=True)
class Vectors:
    """Utterance vectors of one codec at one bit rate.

    `sae` [N, D] are trained on, `watched` [V, D] stop that; probes are fitted on `probe` [P, D] with classes `probe_y`
    and asked about `test` [M, D]. `beside` are other vectors of the same clips that a probe may know the label from,
    (of `probe`, of `test`) by name.
    """

    sae: np.ndarray
    watched: np.ndarray
    probe: np.ndarray
    test: np.ndarray
    probe_y: np.ndarray
    test_y: np.ndarray
    probe_groups: Sequence[str]
    test_groups: Sequence[str]
    beside: Mapping[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    @property
    def width(self) -> int:
        return self.sae.shape[1]


@dataclass(frozen=True)
class Settings:
    """The grid (`qs`: features as multiples of the width, `ss`: active ones as shares of it), SAEs of each
    configuration, fits with shuffled labels (`main_nulls` at the first q and the smallest s), and the training."""

    qs: Sequence[int] = QS
    ss: Sequence[float] = SS
    seeds: int = 3
    nulls: int = NULLS
    main_nulls: int = MAIN_NULLS
    steps: int = STEPS
    paper: bool = False
    seed: int = 0
    cross_validated: bool = True

    @property
    def configurations(self) -> list[tuple[int, float]]:
        return list(product(sorted(set(self.qs)), sorted(set(self.ss), reverse=True)))

    @property
    def main(self) -> tuple[int, float]:
        """That of the density (PAPER: q 2, s .05)."""
        return min(self.qs), min(self.ss)

    def nulls_of(self, place: tuple[int, float]) -> int:
        return self.main_nulls if place == self.main else self.nulls


@dataclass(frozen=True)
class Found:
    """Rows of the table, and how evenly features fire at the main configuration."""

    rows: list[Row]
    density: Density | None


# --- SAEs ---


def train(data: Vectors, settings: Settings) -> dict[tuple[int, float, int], SAE]:
    """{(q, s, seed): SAE}, all that take as many steps on the same batches.

    Raises:
        TrainingError: vectors that an SAE cannot be trained on.
    """
    by_steps: dict[int, list[tuple[int, float, int]]] = {}
    for (q, s), number in product(settings.configurations, range(settings.seeds)):
        by_steps.setdefault(steps_of(q, s, len(data.sae), settings), []).append((q, s, number))
    saes: dict[tuple[int, float, int], SAE] = {}
    vectors, watched = (torch.from_numpy(x_ND).float() for x_ND in (data.sae, data.watched))
    for steps, places in by_steps.items():
        configs = [config_of(data.width, len(data.sae), q, s, number, steps, settings) for q, s, number in places]
        found = train_saes(vectors, configs, validation=watched, progress=False, device="cpu")
        saes |= dict(zip(places, found, strict=True))
    return saes


def steps_of(q: int, s: float, vectors: int, settings: Settings) -> int:
    if not settings.paper:
        return settings.steps
    epochs = PAPER_LONGER if q <= 5 and s <= 0.1 else PAPER_EPOCHS
    return epochs * -(-vectors // min(BATCH, vectors))


def config_of(width: int, vectors: int, q: int, s: float, number: int, steps: int, settings: Settings) -> TrainConfig:
    return TrainConfig(
        "topk",
        k=active_of(width, s),
        d_sae=q * width,
        steps=steps,
        batch_size=min(BATCH, vectors),
        lr=PAPER_RATE if settings.paper else RATE,
        eps=EPS,
        latent_bias=False,
        auxiliary=False,
        rescale=not settings.paper,
        schedule="constant",
        patience=0 if settings.paper else max(1, min(PATIENCE, steps)),
        seed=settings.seed + number,
    )


# --- probes ---


@dataclass(frozen=True)
class Probes:
    """L1 logistic regressions on representations of the clips of `data`, asked about its test clips."""

    data: Vectors
    weights_XM: np.ndarray
    seed: int = 0

    def f1(self, x: tuple[np.ndarray, np.ndarray], c: float = 1.0, rows: np.ndarray | None = None) -> np.ndarray:
        """Macro-F1 [X] of a representation (of the clips to fit on, of those asked about), fitted on some `rows`."""
        known, y = (x[0], self.data.probe_y) if rows is None else (x[0][rows], self.data.probe_y[rows])
        return macro_f1(said_by(known, y, x[1], c), self.data.test_y, self.weights_XM)

    def null(self, x: tuple[np.ndarray, np.ndarray], count: int) -> Null | None:
        """With the labels of the clips to fit on permuted."""
        rng = np.random.default_rng(self.seed)
        draws = (shuffled(self.data.probe_y, self.data.probe_groups, rng) for _ in range(count))
        return null_of([float(macro_f1(said_by(x[0], y, x[1]), self.data.test_y)[0]) for y in draws])

    def strength(self, x_PF: np.ndarray) -> float:
        """C by cross-validation in groups."""
        y_P = self.data.probe_y
        fold_P = folds_of(self.data.probe_groups, y_P, seed=self.seed)
        said_SP = np.zeros((len(STRENGTHS), len(y_P)), dtype=int)
        for fold in np.unique(fold_P):
            asked = fold_P == fold
            for index, c in enumerate(STRENGTHS):
                said_SP[index, asked] = said_by(x_PF[~asked], y_P[~asked], x_PF[asked], c)
        return STRENGTHS[int(np.argmax([macro_f1(said_P, y_P)[0] for said_P in said_SP]))]


def said_by(x_PF: np.ndarray, y_P: np.ndarray, asked_MF: np.ndarray, c: float = 1.0) -> np.ndarray:
    """The classes [M] that a probe fitted on x, y gives to others.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    linear_model = require("sklearn.linear_model", "eval")
    standard = Standard(x_PF)
    if not standard.kept_D.any() or len(np.unique(y_P)) < 2:
        return np.full(len(asked_MF), np.bincount(y_P).argmax())
    probe = linear_model.LogisticRegression(
        solver="saga", l1_ratio=1.0, C=c, max_iter=MAX_ITER, tol=TOLERANCE, random_state=0
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", require("sklearn.exceptions", "eval").ConvergenceWarning)
        return probe.fit(standard(x_PF), y_P).predict(standard(asked_MF))


# --- the table ---


def evaluate(data: Vectors, settings: Settings, progress: Progress = iter) -> Found:
    """Rows for the vectors themselves, what else knows the label, and all parts of the codes of each configuration.

    Raises:
        TrainingError: vectors that an SAE cannot be trained on.
        MissingExtraError: scikit-learn is not installed.
    """
    saes = train(data, settings)
    return measured(data, saes, settings, progress)


def measured(
    data: Vectors, saes: Mapping[tuple[int, float, int], SAE], settings: Settings, progress: Progress = iter
) -> Found:
    """The same of SAEs that are there: {(q, s, number): SAE}."""
    probes = Probes(data, clip_weights(data.test_groups, settings.seed), settings.seed)
    u = data.probe, data.test
    reference_X = probes.f1(u)
    table = Table(probes, reference_X)
    rows = [table.row(U, reference_X, probes.null(u, settings.main_nulls))]
    half = np.random.default_rng(settings.seed).permutation(len(data.probe_y))[: len(data.probe_y) // 2]
    rows.append(table.row("u, half the clips", probes.f1(u, rows=half)))
    if settings.cross_validated:
        c = probes.strength(data.probe)
        rows.append(table.row(f"u, C {c:g} by cross-validation", probes.f1(u, c)))
    for name, x in data.beside.items():
        rows.append(table.row(name, probes.f1(x), probes.null(x, settings.nulls)))
    density = None
    for place in progress(sorted({(q, s) for q, s, _ in saes}, key=lambda one: (one[0], -one[1]))):
        some = [sae for (q, s, _), sae in sorted(saes.items()) if (q, s) == place]
        rows += table.of(place, some, settings)
        if place == settings.main:
            density = density_of(coded(some[0], data.test)[0] > 0, seed=settings.seed)
    return Found(rows, density)


@dataclass(frozen=True)
class Table:
    """Rows of results, each beside that of u on the same clips with the same weights."""

    probes: Probes
    reference_X: np.ndarray

    def row(
        self,
        on: str,
        f1_X: np.ndarray,
        null: Null | None = None,
        place: tuple[int, float] | None = None,
        sae: SAE | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> Row:
        count = len(self.probes.data.test_y)
        score: Interval = interval(f1_X, count)
        metrics = metrics or {}
        explained = metrics.get("explained_variance")
        remarks = [CHANCE] if null and null.reached_by(score) else []
        remarks += [FEW] if explained is not None and explained < EXPLAINED else []
        return {
            "q": place[0] if place else None,
            "s": place[1] if place else None,
            "k": sae.k if sae else None,
            "features": sae.d_sae if sae else None,
            "on": on,
            "F1": score,
            "delta F1": interval(f1_X - self.reference_X, count),
            "shuffled": null.mean if null else None,
            "shuffled, 95 %": null.p95 if null else None,
            "explained variance": explained,
            "dead share": metrics.get("dead_share"),
            "remark": "; ".join(remarks) or None,
        }

    def of(self, place: tuple[int, float], saes: Sequence[SAE], settings: Settings) -> list[Row]:
        """The rows of a configuration: the mean over its SAEs, an untrained one, and principal components."""
        data, first = self.probes.data, saes[0]
        assert first.k is not None
        count = settings.nulls_of(place)
        measures = [measure(sae, torch.from_numpy(data.test).float()) for sae in saes]
        metrics = {name: float(np.mean([one[name] for one in measures])) for name in measures[0]}
        codes = [self.codes(sae) for sae in saes]
        rows = []
        for name in codes[0]:
            f1_X = np.mean([self.probes.f1(one[name]) for one in codes], axis=0)
            rows.append(self.row(name, f1_X, self.probes.null(codes[0][name], count), place, first, metrics))
        if place == settings.main and settings.cross_validated:
            z = codes[0][WHOLE]
            c = self.probes.strength(z[0])
            rows.append(self.row(f"z, C {c:g} by cross-validation", self.probes.f1(z, c), None, place, first))
        untrained = random_sae(first, data.sae.mean(0), settings.seed)
        for name, x in self.codes(untrained).items():
            rows.append(self.row(f"random SAE: {name}", self.probes.f1(x), None, place, first))
        components = pca(data.sae, first.k)
        x = components(data.probe), components(data.test)
        return [*rows, self.row("PCA", self.probes.f1(x), None, place, first)]

    def codes(self, sae: SAE) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """{part of the code: (of the clips to fit on, of those asked about)}."""
        assert sae.k is not None
        of_probe, of_test = (
            parts_of(coded(sae, x_ND)[0], sae.k) for x_ND in (self.probes.data.probe, self.probes.data.test)
        )
        return {name: (of_probe[name], of_test[name]) for name in of_probe}
