from __future__ import annotations

import time

from training.sae_plan import Budget, Criterion


def test_the_smallest_k_that_meets_the_criterion() -> None:
    def row(k: int, explained: float, dead: float) -> dict[str, float]:
        return {"k": k, "explained_variance": explained, "dead_in_training": dead}

    criterion = Criterion(0.85, 0.05)
    assert criterion.chosen([row(16, 0.8, 0.0), row(24, 0.86, 0.01), row(32, 0.9, 0.0)]) == 24
    assert criterion.chosen([row(16, 0.9, 0.3), row(24, 0.92, 0.1), row(32, 0.94, 0.2)]) == 24
    assert criterion.chosen([row(16, 0.5, 0.0), row(24, 0.6, 0.0)]) == 24


def test_steps_are_fewer_where_time_is_short() -> None:
    def steps(seconds: float, least: int = 600) -> int:
        budget = Budget(time.monotonic() + seconds, processes=2, most=2500, least=least)
        budget.expect(10)
        budget.note(0.01)
        return budget.steps()

    assert steps(1000) == 2500
    assert steps(72) == 1000  # 0.7 * 72 s in two processes, ten SAEs, 10 ms a step
    assert steps(1) == 600
    assert steps(1, least=0) == 2500
    assert Budget(0, processes=2, most=2500, least=600, settled=900).steps() == 900
