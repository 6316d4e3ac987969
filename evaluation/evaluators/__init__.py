"""All evaluators. An installed package adds one by an entry point in the group `audiosteer.evaluators`."""

from __future__ import annotations

from typing import Any

from evaluation.config import EvaluationError
from evaluation.evaluators.ablation import ABLATION
from evaluation.evaluators.acoustics import ACOUSTICS
from evaluation.evaluators.brain import BRAIN
from evaluation.evaluators.codec_index import CODEC_INDEX
from evaluation.evaluators.downstream import DOWNSTREAM
from evaluation.evaluators.factors import FACTORS
from evaluation.evaluators.false_alarms import FALSE_ALARMS
from evaluation.evaluators.gates import GATES
from evaluation.evaluators.layers import LAYERS
from evaluation.evaluators.reconstruction import RECONSTRUCTION
from evaluation.evaluators.residuals import RESIDUALS
from evaluation.evaluators.sae_grid import SAE_GRID
from evaluation.evaluators.sparse_probing import SPARSE_PROBING
from evaluation.evaluators.stability import STABILITY
from evaluation.evaluators.vectors import VECTORS
from evaluation.frame import Evaluator
from hooks.extensions import Registry

EVALUATORS: Registry[Evaluator[Any]] = Registry(
    "evaluator",
    EvaluationError,
    {
        one.name: one
        for one in (
            ACOUSTICS, RESIDUALS, RECONSTRUCTION, VECTORS, FALSE_ALARMS, GATES, ABLATION, SPARSE_PROBING, STABILITY,
            DOWNSTREAM, LAYERS, FACTORS, CODEC_INDEX, SAE_GRID, BRAIN,
        )
    },
)  # fmt: skip
"""{name: evaluator}, in the order in which `steer evaluate all` runs them."""

__all__ = ["EVALUATORS"]
