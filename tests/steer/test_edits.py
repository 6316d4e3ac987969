import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from steer.edits import Ablate, ActivationEdit, AddDirection, Clamp, Edit, FeatureEdit, Scale, Shift
from steer.errors import EditError
from steer.values import Curve, Frames, PerRow, as_spans
from steer.vectors import ControlVector

F = torch.rand(2, 4, 3)
FRAMES = Frames.of(torch.zeros(2, 4, 9), frame_rate=2.0, start_s=10.0)


def test_frames_stand_for_their_centres() -> None:
    assert FRAMES.batch == 2
    assert FRAMES.time_T.tolist() == [10.25, 10.75, 11.25, 11.75]


def test_what_edits_do() -> None:
    assert not Ablate([1, 2, 3]).change(F, FRAMES).any()
    assert torch.equal(Clamp([1, 2, 3], 2.5).change(F, FRAMES), torch.full_like(F, 2.5))
    assert torch.equal(Scale([1, 2, 3], -2.0).change(F, FRAMES), F * -2)


def test_a_value_per_row_is_repeated_for_beams() -> None:
    value = PerRow(torch.tensor([1.0, 2.0]))
    assert FRAMES.value(value, F).flatten().tolist() == [1, 2]
    beams = Frames.of(torch.zeros(6, 4, 9), 2.0, 0.0)
    assert beams.value(value, F).flatten().tolist() == [1, 1, 1, 2, 2, 2]
    with pytest.raises(EditError, match="needs 2 numbers, got 3"):
        FRAMES.value(PerRow(torch.ones(3)), F)
    for bad in ([], [[1.0]], [math.nan], 1.0):
        with pytest.raises(EditError, match="PerRow takes a finite number for each row"):
            PerRow(bad)  # type: ignore[arg-type]
    assert PerRow([1.0, 2.0]) == value != PerRow([1.0, 3.0])  # type: ignore[arg-type]


def test_a_value_for_each_feature() -> None:
    each = torch.tensor([1.0, -2.0, 0.5])
    for given in (each, each.tolist(), each.numpy(), tuple(each.tolist())):
        assert torch.equal(Scale([1, 2, 3], given).change(F, FRAMES), F * each)
        assert torch.equal(Clamp([3, 1, 2], given).change(F, FRAMES), each.expand_as(F))
        assert Scale([1, 2, 3], given) == Scale([1, 2, 3], each)
    assert torch.equal(Scale([1, 2, 3], torch.tensor(2.0)).change(F, FRAMES), 2 * F)
    # what was a value per row is not taken for one per feature in silence
    for bad in (each[:2], torch.ones(3, 1), torch.ones(1), []):
        for make in (Clamp, Scale):
            with pytest.raises(EditError, match=r"one for each of the 3 features.*each row of the batch is PerRow"):
                make([1, 2, 3], bad)


def test_strengths_per_row_are_a_tensor_or_said_so() -> None:
    rows = torch.tensor([1.0, 2.0])
    assert Shift(torch.ones(3), rows) == Shift(torch.ones(3), PerRow(rows))
    assert AddDirection(torch.ones(9), rows) == AddDirection(torch.ones(9), PerRow(rows))
    assert torch.equal(Shift(torch.ones(3), rows).delta(F, FRAMES), Shift(torch.ones(3), PerRow(rows)).delta(F, FRAMES))


@pytest.mark.parametrize(
    "edit", [Ablate([7, 2]), Clamp([7, 2], [1.0, 3.0]), Scale([7, 2], [2.0, 0.5]), Shift(torch.arange(9.0), 2.0)]
)
def test_an_edit_among_a_few_features_is_that_of_them(edit: Edit) -> None:
    f, some = torch.rand(2, 4, 9), [2, 5, 7]
    among = edit.among(some)
    assert among is not None
    whole = edit.applied(f, FRAMES)
    assert torch.equal(among.applied(f[..., some], FRAMES), whole[..., some])
    assert not torch.equal(whole, f)
    assert sorted(edit.moved) == (whole != f).any(1).any(0).nonzero()[:, 0].tolist()
    own = list(edit.touched) or ...
    torch.testing.assert_close(edit.delta(f[..., own], FRAMES), (whole - f)[..., own])


def test_a_change_may_ask_for_the_ids_of_its_features_wherever_they_stand() -> None:
    class Numbered(FeatureEdit):
        def change(self, f_BTS: Tensor, frames: Frames) -> Tensor:
            return torch.tensor(self.features).to(f_BTS).expand_as(f_BTS)

    f, some = torch.rand(2, 4, 9), [7, 2, 5]
    edit = Numbered([2, 7])
    expected = f.clone()
    expected[..., 2], expected[..., 7] = 2, 7
    assert torch.equal(edit.applied(f, FRAMES), expected)
    assert torch.equal(edit.among(some).applied(f[..., some], FRAMES), expected[..., some])
    assert torch.equal(edit.among(some[:2]).applied(f[..., some[:2]], FRAMES), expected[..., some[:2]])


def test_an_edit_that_shifts_otherwise_needs_all_features() -> None:
    class Twice(Shift):
        def change(self, f_BTF: Tensor, frames: Frames) -> Tensor:
            return f_BTF.sum(-1, keepdim=True) + self.vector

    assert Twice(torch.ones(3)).among([1]) is None


def test_curves_are_straight_between_points_and_flat_outside() -> None:
    curve = Curve(((1.0, 10.0), (2.0, 20.0), (4.0, 0.0)))
    times = torch.tensor([0.0, 1.0, 1.5, 2.0, 3.0, 4.0, 9.0], dtype=torch.float64)
    assert curve.at(times).tolist() == [10, 10, 15, 20, 10, 0, 0]
    assert Curve(((5.0, 3.0),)).at(times).tolist() == [3.0] * 7
    scaled = Scale([0], Curve(((10.25, 0.0), (11.75, 3.0)))).change(torch.ones(2, 4, 1), FRAMES)
    torch.testing.assert_close(scaled[0, :, 0], torch.tensor([0.0, 1.0, 2.0, 3.0]))


@pytest.mark.parametrize(
    "points", [(), ((1.0, 0.0), (1.0, 2.0)), ((2.0, 0.0), (1.0, 0.0)), ((0.0, math.nan),), ((math.inf, 0.0),)]
)
def test_curves_that_are_none(points: tuple[tuple[float, float], ...]) -> None:
    with pytest.raises(EditError):
        Curve(points)


def test_spans_hold_their_start_and_not_their_end() -> None:
    inside = FRAMES.within([(10.25, 10.75), (11.7, 99.0)])
    assert inside.shape == (1, 4, 1)
    assert inside.flatten().tolist() == [True, False, False, True]


def test_one_span_or_several() -> None:
    assert as_spans((0, 1)) == ((0.0, 1.0),)
    assert as_spans([(0, 1), (2, 3.5)]) == ((0.0, 1.0), (2.0, 3.5))
    assert as_spans(None) is None
    for bad in ((1, 1), (2, 1), (-1, 1), (math.nan, 1), [(0, 1), (3, 2)], []):
        with pytest.raises(EditError):
            as_spans(bad)  # type: ignore[arg-type]


def test_features_are_whole_numbers_each_once() -> None:
    assert Ablate(torch.tensor([3, 1])).features == Ablate(np.array([3, 1])).features == (3, 1)
    for bad in ([], [1, 1], [2.7], 3, torch.tensor([0.5])):
        with pytest.raises(EditError):
            Ablate(bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [math.nan, math.inf, torch.tensor([1.0, math.nan])])
def test_values_are_finite(bad: float) -> None:
    for make in (lambda: Clamp([0], bad), lambda: Scale([0], bad), lambda: Shift(torch.ones(3), bad)):
        with pytest.raises(EditError, match="finite"):
            make()


def test_shift_takes_tensors_and_control_vectors() -> None:
    vector = torch.arange(3.0)
    assert torch.equal(Shift(ControlVector(vector)).vector, vector)  # type: ignore[arg-type]
    for bad in (torch.ones(2, 2), torch.tensor([1.0, math.nan])):
        with pytest.raises(EditError, match="one finite number per feature"):
            Shift(bad)


def test_timed_edits() -> None:
    curve = Curve(((0.0, 1.0),))
    assert not any(edit.timed for edit in (Ablate([1]), Clamp([1], 2.0), Shift(torch.ones(3), torch.ones(2))))
    assert all(edit.timed for edit in (Ablate([1], during=(0, 1)), Clamp([1], curve), Shift(torch.ones(3), curve)))


def test_edits_are_compared_by_their_values() -> None:
    vector = torch.arange(3.0)
    assert Shift(vector, 2.0) == Shift(vector.clone(), 2.0) != Shift(vector, 3.0)
    assert Shift(vector, torch.ones(2)) != Shift(vector, torch.ones(3))
    assert Clamp([1, 3], torch.ones(2)) == Clamp([1, 3], torch.ones(2)) != Clamp([2, 3], torch.ones(2))
    assert Scale([1, 3], torch.ones(2)) == Scale([1, 3], torch.ones(2)) != Clamp([1, 3], torch.ones(2))
    assert Ablate([1, 2]) == Ablate((1, 2)) != Ablate([1, 2], during=(0, 1))
    assert Shift(vector) in [Ablate([1]), Shift(vector)]
    assert len({Shift(vector), Shift(vector.clone()), Ablate([1])}) == 2


class NoFloat64(TorchDispatchMode):
    """What Apple's GPUs say to float64; the device "meta" stands for them."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.is_meta and result.dtype == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        return result


def test_times_need_no_float64_of_the_device() -> None:
    f_BTS = torch.zeros(2, 4, 3, device="meta")
    frames = Frames.of(f_BTS, 2.0, 10.0)
    with NoFloat64():
        for value in (frames.within([(10.25, 10.75)]), frames.value(Curve(((10.0, 1.0), (11.0, 2.0))), f_BTS)):
            assert value.is_meta and value.shape == (1, 4, 1)
        assert Scale([0], Curve(((10.0, 1.0),))).change(f_BTS, frames).dtype == torch.float32


def test_a_feature_of_too_many_digits() -> None:
    for feature in (2**63, -(2**63), 10**5000):
        with pytest.raises(EditError, match="no SAE has so many"):
            Ablate([feature])


# --- of the activation itself ---

X = torch.randn(2, 4, 9, generator=torch.Generator().manual_seed(6))
V = torch.linspace(-1, 1, 9)


def test_a_direction_is_added_to_every_frame() -> None:
    expected = X + 2 * V
    assert torch.equal(AddDirection(V, 2.0).applied(X, FRAMES), expected)
    assert torch.equal(AddDirection(ControlVector(V), torch.tensor([0.0, 2.0])).applied(X, FRAMES)[1], expected[1])
    curve = AddDirection(V, Curve(((10.25, 0.0), (11.75, 3.0)))).applied(X, FRAMES)
    torch.testing.assert_close(curve - X, torch.tensor([0.0, 1, 2, 3])[:, None] * V.expand(2, 4, 9), atol=1e-6, rtol=0)
    assert AddDirection(V, Curve(((0.0, 1.0),))).timed and not AddDirection(V).timed


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("keep_norm", [False, True])
def test_frames_to_which_nothing_is_added_stay_bit_for_bit(keep_norm: bool, dtype: torch.dtype) -> None:
    x = X.to(dtype)
    x[0, 0, 0] = -0.0
    for edit in (AddDirection(V, 0.0, keep_norm), AddDirection(0 * V, 1.0, keep_norm)):
        assert edit.applied(x, FRAMES).view(torch.uint8).equal(x.view(torch.uint8))
    edited = AddDirection(V, torch.tensor([0.0, 1.0]), keep_norm, during=(10.5, 11.5)).applied(x, FRAMES)
    assert edited.dtype == dtype
    changed = (edited != x).any(-1)
    assert changed.tolist() == [[False] * 4, [False, True, True, False]]


def test_a_frame_may_keep_its_length() -> None:
    edited = AddDirection(V, 5.0, keep_norm=True).applied(X, FRAMES)
    torch.testing.assert_close(edited.norm(dim=2), X.norm(dim=2))
    assert torch.nn.functional.cosine_similarity(edited, X + 5 * V, dim=2).min() > 0.99999
    assert torch.isfinite(AddDirection(V, keep_norm=True).applied(-V.expand(2, 4, 9), FRAMES)).all()


def test_gradients_reach_a_direction() -> None:
    vector = V.clone().requires_grad_()
    AddDirection(vector, 3.0).applied(X, FRAMES).sum().backward()
    torch.testing.assert_close(vector.grad, torch.full((9,), 3.0 * 8))


def test_directions_that_cannot_be() -> None:
    with pytest.raises(EditError, match="has 8 numbers, the activation is 9 wide"):
        AddDirection(V[1:]).applied(X, FRAMES)
    for bad in (torch.ones(2, 9), torch.tensor([math.nan])):
        with pytest.raises(EditError, match="one finite number"):
            AddDirection(bad)
    with pytest.raises(EditError, match="finite"):
        AddDirection(V, math.inf)


@pytest.mark.parametrize("base", [Edit, FeatureEdit, ActivationEdit])
def test_an_edit_that_does_not_say_its_change_fails_loudly(base: Any) -> None:
    class Misspelt(base):  # type: ignore[misc]
        def chnage(self, f_BTS: Tensor, frames: Frames) -> Tensor:
            return f_BTS

    with pytest.raises(TypeError, match="abstract class Misspelt.*change"):
        Misspelt([1]) if base is FeatureEdit else Misspelt()
