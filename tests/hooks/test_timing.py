from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hooks import AudioModel, Site, SiteError, attach, capture
from hooks.capture import Recorder
from hooks.timing import (
    Moment,
    Whole,
    at_time,
    current_time,
    frames_in,
    now,
    real_frames,
    rows_at,
    saying,
    sound_until,
)
from tests.hooks.tiny import clips, tiny_model

# --- where the chunk starts, and where its sound ends ---


def test_every_frame_that_holds_any_sound_counts() -> None:
    # 0.001 s of sound is in the first frame; 1.1 * 50 is a little more than 55 in floating point
    assert [frames_in(seconds, 50.0) for seconds in (0.0, 0.001, 0.02, 1.0, 1.001, 1.1)] == [0, 1, 1, 50, 51, 55]


def test_the_end_of_the_sound_is_in_seconds_of_the_recording() -> None:
    with sound_until(65.0):
        assert real_frames(1500, 50.0) == 1500
        with at_time(60.0):
            assert real_frames(1500, 50.0) == 250
            # a window that ends before the sound does
            assert real_frames(100, 50.0) == 100
        with at_time(70.0):
            assert real_frames(1500, 50.0) == 0


def test_nobody_said() -> None:
    assert real_frames(1500, 50.0) == 1500
    with at_time(10.0):
        assert real_frames(1500, 50.0) == 1500
    with sound_until(1.0):
        assert real_frames(7, None) == 7


def test_it_ends_with_the_block_also_after_an_error_and_is_not_seen_elsewhere() -> None:
    seen: list[int] = []
    with pytest.raises(ArithmeticError), sound_until(1.0):
        thread = threading.Thread(target=lambda: seen.append(real_frames(1500, 50.0)))
        thread.start()
        thread.join()
        seen.append(real_frames(1500, 50.0))
        raise ArithmeticError
    assert [*seen, real_frames(1500, 50.0)] == [1500, 50, 1500]


# --- rows that each have a time of their own ---

SITE = Site("s", "0", frame_rate=10.0)
TIMES = [(0.0, 0.3), (5.0, 9.0), (0.0, 0.3), (2.0, 2.1)]
"""Rows 0 and 2 have the same time; windows of 5 frames hold 3, 5, 3 and 1 of sound."""


@pytest.fixture
def model() -> nn.Module:
    return nn.Sequential(nn.Identity())


def counting(rows: int) -> Tensor:
    """Whole numbers [B, 5, 2], so that sums are exact."""
    return torch.arange(rows * 10.0).reshape(rows, 5, 2)


def add_time_to_sound(x_BTD: Tensor) -> Tensor:
    """Adds the start, in seconds, to the frames that hold sound."""
    new_BTD = x_BTD.clone()
    new_BTD[:, : real_frames(x_BTD.shape[1], 10.0)] += 100 + (current_time() or 0.0)
    return new_BTD


def expected(x_BTD: Tensor, each: int = 1) -> Tensor:
    new_BTD = x_BTD.clone()
    for row, (start_s, frames) in enumerate([(0.0, 3), (5.0, 5), (0.0, 3), (2.0, 1)]):
        new_BTD[row * each : (row + 1) * each, :frames] += 100 + start_s
    return new_BTD


def test_every_row_is_changed_in_its_own_time(model: nn.Module) -> None:
    x_BTD = counting(4)
    with attach(model, SITE, add_time_to_sound), rows_at(TIMES):
        assert torch.equal(model(x_BTD), expected(x_BTD))
        # what surrounds a call is not told one time for all
        assert current_time() is None and real_frames(5, 10.0) == 5
    assert torch.equal(x_BTD, counting(4))
    assert now().rows is None


def test_rows_of_equal_time_are_one_call_in_their_order(model: nn.Module) -> None:
    seen: list[tuple[float | None, int, list[list[float]]]] = []

    def note(x_BTD: Tensor) -> None:
        seen.append((current_time(), real_frames(5, 10.0), x_BTD[:, 0].tolist()))

    x_BTD = counting(4)
    with attach(model, SITE, note), rows_at(TIMES):
        assert model(x_BTD) is x_BTD
    assert seen == [(0.0, 3, [[0, 1], [20, 21]]), (5.0, 5, [[10, 11]]), (2.0, 1, [[30, 31]])]
    whole: list[Tensor] = []
    with attach(model, SITE, whole.append), rows_at([(1.0, 2.0)] * 4):
        model(x_BTD)
    assert len(whole) == 1 and whole[0] is x_BTD


def test_beams_lie_behind_each_other(model: nn.Module) -> None:
    x_BTD = counting(12)
    with attach(model, SITE, add_time_to_sound), rows_at(TIMES):
        assert torch.equal(model(x_BTD), expected(x_BTD, each=3))


def test_rows_that_a_change_leaves_alone_stay(model: nn.Module) -> None:
    x_BTD = counting(4)
    with attach(model, SITE, lambda x_BTD: -x_BTD if current_time() else None), rows_at(TIMES):
        changed_BTD = model(x_BTD)
    assert torch.equal(changed_BTD, x_BTD * torch.tensor([1.0, -1, 1, -1])[:, None, None])


def test_changes_follow_each_other_and_gradients_pass(model: nn.Module) -> None:
    x_BTD = counting(4).requires_grad_()
    with attach(model, SITE, add_time_to_sound), attach(model, SITE, lambda x_BTD: 2 * x_BTD), rows_at(TIMES):
        changed_BTD = model(x_BTD)
    assert torch.equal(changed_BTD, 2 * expected(counting(4)))
    (gradient_BTD,) = torch.autograd.grad(changed_BTD.sum(), x_BTD)
    assert torch.equal(gradient_BTD, torch.full((4, 5, 2), 2.0))


def test_channels_first_and_other_dtypes() -> None:
    model, x_BDT = nn.Sequential(nn.Identity()), counting(4).transpose(1, 2).contiguous().half()
    with attach(model, Site("s", "0", "BDT"), lambda x_BTD: add_time_to_sound(x_BTD.float())), rows_at(TIMES):
        changed_BDT = model(x_BDT)
    assert changed_BDT.dtype == torch.float16 and changed_BDT.is_contiguous()
    assert torch.equal(changed_BDT.transpose(1, 2).float(), expected(counting(4)))


def test_wrong_numbers_of_rows_are_errors(model: nn.Module) -> None:
    with attach(model, SITE, add_time_to_sound):
        for rows in (6, 2):
            wrong = f"site 's': {rows} rows, but rows_at tells the times of 4"
            with pytest.raises(SiteError, match=wrong), rows_at(TIMES):
                model(counting(rows))
        with pytest.raises(SiteError, match="one row at least"), rows_at([]):
            pass
        assert now().rows is None
    with (
        attach(model, SITE, lambda x_BTD: x_BTD[:, 1:] if current_time() else x_BTD),
        pytest.raises(SiteError, match=r"shape \[1, 4, 2\], the rows at 5 s \[1, 5, 2\]"),
        rows_at(TIMES),
    ):
        model(counting(4))


def test_a_recorder_takes_rows_of_equal_time_alone(model: nn.Module) -> None:
    x_BTD = counting(4)
    with Recorder(model, [SITE]) as recorder:
        with rows_at([(0.0, 0.3)] * 4):
            model(x_BTD)
        assert torch.equal(recorder.take()["s"], x_BTD[:, :3])
        with rows_at(TIMES), pytest.raises(SiteError, match="start or end at different seconds"):
            model(x_BTD)
        model(x_BTD)
        model(x_BTD[:3])
        with pytest.raises(SiteError, match="passed with 4, 3 rows"):
            recorder.take()


def test_it_ends_with_the_block_and_is_not_seen_elsewhere(model: nn.Module) -> None:
    x_BTD, seen = counting(4), []
    with attach(model, SITE, lambda x_BTD: seen.append(len(x_BTD))), at_time(7.0), sound_until(7.2):
        with pytest.raises(ArithmeticError), rows_at(TIMES):
            raise ArithmeticError
        model(x_BTD)
        assert (current_time(), real_frames(5, 10.0)) == (7.0, 2)
    assert seen == [4]
    found: list[object] = []
    with rows_at(TIMES):
        thread = threading.Thread(target=lambda: found.append(now().rows))
        thread.start()
        thread.join()
        assert now().rows is not None
    assert found == [None]


# --- recordings ---


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
