"""Which recording a row of a batch is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hooks import AudioModel, Site, at_time, attach, capture, rows_at
from hooks.timing import Moment, now, saying
from hooks.whole import Whole
from tests.hooks.tiny import clips, tiny_model


def moments(model: AudioModel, run: Any) -> list[Moment]:
    """What is known at the site `fine` while something runs."""
    seen: list[Moment] = []
    with attach(model.module, model.sites["fine"], lambda x_BTD: seen.append(now())):
        run()
    return seen


def test_rows_of_run_are_whole_recordings() -> None:
    model = tiny_model()
    audio_BCN = torch.rand(3, 1, 4000)
    (moment,) = moments(model, lambda: model.run(audio_BCN))
    assert [(one.start_s, one.end_s) for one in moment.wholes or ()] == [(0.0, 0.5)] * 3
    assert now().wholes is None
    for row, whole in enumerate(moment.wholes or ()):
        assert torch.equal(whole.again(), model.run(audio_BCN[row : row + 1]))


def test_what_somebody_says_is_left() -> None:
    model, whole = tiny_model(), Whole()

    def run() -> None:
        with at_time(3.0):
            model.run(torch.rand(1, 1, 4000))
        with saying(wholes=(whole,)):
            model.run(torch.rand(1, 1, 4000))

    timed, named = moments(model, run)
    assert timed.wholes is None and timed.start_s == 3.0
    assert named.wholes == (whole,)


def test_a_model_of_ones_own_says_it_too() -> None:
    class Louder(AudioModel):
        def _run(self, audio_BCN: Tensor) -> Tensor:
            return self.module(2 * audio_BCN)

    module, sites = nn.Sequential(nn.Identity()), [Site("fine", "0", "BDT")]
    model = Louder(module, sites, sample_rate=1000)
    (moment,) = moments(model, lambda: model.run(torch.ones(1, 1, 10)))
    assert moment.wholes is not None and torch.equal(moment.wholes[0].again(), 2 * torch.ones(1, 1, 10))
    # without a rate nobody knows how long it is
    without = Louder(module, sites)
    (moment,) = moments(without, lambda: without.run(torch.ones(1, 1, 10)))
    assert moment.wholes is None


@pytest.mark.parametrize(("max_s", "expected"), [(1.0, [[0.5]]), (0.25, [[None], [None]]), (0.3, [[None], [None]])])
def test_a_stretch_of_a_longer_sound_is_not_a_whole(max_s: float, expected: list[list[float | None]]) -> None:
    model = tiny_model()
    seen = moments(model, lambda: list(capture(model, clips(1), ["coarse"], max_s)))
    assert [[one.end_s for one in moment.wholes or ()] for moment in seen] == expected


def test_groups_of_rows_have_theirs() -> None:
    model = tiny_model()
    wholes = [Whole(), Whole(), Whole()]
    seen: list[tuple[Any, ...]] = []
    with (
        attach(model.module, model.sites["fine"], lambda x_BTD: seen.append((now().start_s, now().wholes))),
        rows_at([(0.0, 1.0), (5.0, 6.0), (0.0, 1.0)], wholes),
    ):
        model.module(torch.rand(3, 1, 400))
    assert seen == [(0.0, (wholes[0], wholes[2])), (5.0, (wholes[1],))]
