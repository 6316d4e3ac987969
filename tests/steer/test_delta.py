"""The change at a site against a reference of five lines, which knows nothing of picked columns and folded biases."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

from benchmarks.timing import peak_bytes
from steer.decoding import moved
from steer.delta import Mode, site_edit, steps_of
from steer.edits import Ablate, ActivationEdit, AddDirection, Clamp, Edit, FeatureEdit, Scale, Shift
from steer.errors import EditError
from steer.picked import PickedTopK
from steer.sae import SAE, rms_normalized
from steer.values import Curve, Frames, PerRow

B, T, D, F = 4, 11, 12, 40
RATE, START = 5.0, 1.0
X = torch.randn(B, T, D, generator=torch.Generator().manual_seed(1))
FRAMES = Frames.of(X, RATE, START)
V, W = torch.randn(2, F, generator=torch.Generator().manual_seed(2))
RAMP = Curve(((1.0, -1.0), (3.0, 2.0)))
ROWS = torch.tensor([0.0, 1.0, -2.0, 3.0])

EDITS: dict[str, list[Edit]] = {
    "ablate": [Ablate([3, 17])],
    "ablate all": [Ablate(range(F))],
    "clamp": [Clamp([5, 1], 2.0)],
    "clamp rows": [Clamp([5], PerRow(ROWS))],
    "scale": [Scale([4, 9, 30], 3.0)],
    "scale curve": [Scale([4], RAMP)],
    "shift": [Shift(V, 2.0)],
    "shift rows": [Shift(V, ROWS)],
    "clamp each": [Clamp([5, 1, 30], torch.tensor([2.0, -1.0, 0.5]))],
    "scale each": [Scale([4, 9, 30], [3.0, -1.0, 0.0])],
    "each, and others around": [Ablate([9]), Scale([30, 4, 9], [3.0, -1.0, 0.5]), Clamp([1, 4], [1.0, 2.0])],
    "shift curve": [Shift(V, RAMP)],
    "during": [Clamp([5, 1], 2.0, during=(1.3, 2.2))],
    "shift during": [Shift(V, 2.0, during=[(1.0, 1.4), (2.5, 2.9)])],
    "shift, then ablate": [Shift(V, 2.0), Ablate([3, 17])],
    "ablate, then shift": [Ablate([3, 17]), Shift(V, 2.0)],
    "two shifts around a scale": [Shift(V, 1.5), Scale([3, 8], -1.0), Shift(W, ROWS)],
    "the same feature again": [Scale([3], 2.0), Clamp([3, 4], 1.0), Scale([4, 3], RAMP)],
    "some with during": [Ablate([3, 5]), Shift(V, 1.0, during=(1.3, 2.2)), Scale([5, 6], 4.0, during=(2.0, 3.0))],
    "all with during": [
        Ablate([3], during=(1.0, 1.5)),
        Shift(V, RAMP, during=(1.3, 2.2)),
        Clamp([3], 1.0, during=(2, 3)),
    ],
}


def reference_features(sae: SAE, x_BTD: Tensor, edits: Sequence[Edit]) -> tuple[Tensor, Tensor]:
    """Features before and after the edits, all of them, one edit after another."""
    f = new = sae.encode(x_BTD)
    for edit in edits:
        if isinstance(edit, FeatureEdit):
            after = new.index_copy(-1, torch.tensor(edit.features), edit.change(new[..., list(edit.features)], FRAMES))
        else:
            assert isinstance(edit, Shift)
            after = new + FRAMES.value(edit.strength, new) * edit.vector
        new = after if edit.during is None else torch.where(FRAMES.within(edit.during), after, new)  # type: ignore[arg-type]
    return f, (torch.where((new != f).any(-1, keepdim=True), rms_normalized(new), f) if sae.rms_norm else new)


@pytest.mark.parametrize("name", EDITS)
def test_equals_the_full_path(any_sae: SAE, name: str) -> None:
    f, new = reference_features(any_sae, X, EDITS[name])
    expected = X + any_sae.decode(new) - any_sae.decode(f)
    # fp32 sums in another order, on values of up to about 10
    torch.testing.assert_close(site_edit(any_sae, EDITS[name])(X, FRAMES), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", EDITS)
def test_reconstruct_puts_the_edited_features_in_place(any_sae: SAE, name: str) -> None:
    _, new = reference_features(any_sae, X, EDITS[name])
    edited = site_edit(any_sae, EDITS[name], "reconstruct")(X, FRAMES)
    torch.testing.assert_close(edited, any_sae.decode(new), atol=1e-5, rtol=1e-5)


def test_reconstruct_without_edits(any_sae: SAE) -> None:
    assert torch.equal(site_edit(any_sae, [], "reconstruct")(X, FRAMES), any_sae(X))


def test_no_edits_change_nothing(any_sae: SAE) -> None:
    assert site_edit(any_sae, [])(X, FRAMES) is X


@pytest.mark.parametrize("activation", ["relu", "topk", "batchtopk", "jumprelu", "gated"])
def test_ablation_takes_away_exactly_what_the_feature_wrote(random_sae: Callable[..., SAE], activation: str) -> None:
    sae, features = random_sae(activation), [3, 17, 21]
    change = site_edit(sae, [Ablate(features)])(X, FRAMES) - X
    expected = -sae.encode(X)[..., features] @ sae.W_dec[features]
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(change, expected, atol=1e-5, rtol=0)  # x + change - x rounds


@pytest.mark.parametrize("name", ["during", "shift during", "all with during"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_frames_outside_every_span_stay_to_the_bit(any_sae: SAE, name: str, dtype: torch.dtype) -> None:
    x = X.to(dtype, copy=True)
    x[:, :, 0] = -0.0  # adding a change of 0 would take the sign away
    edited = site_edit(any_sae, EDITS[name])(x, FRAMES)
    inside = FRAMES.within([span for edit in EDITS[name] for span in edit.during])[0, :, 0]  # type: ignore[union-attr, misc]
    assert 0 < inside.sum() < T
    assert torch.equal(edited[:, ~inside], x[:, ~inside])
    assert torch.equal(edited[:, ~inside].signbit(), x[:, ~inside].signbit())
    assert not torch.equal(edited[:, inside], x[:, inside])


def test_each_row_with_its_own_strength_equals_the_single_run(any_sae: SAE) -> None:
    edits = [Scale([1, 2, 3], PerRow(ROWS)), Shift(V, ROWS), Clamp([9], PerRow(ROWS))]
    together = site_edit(any_sae, edits)(X, FRAMES)
    for row, strength in enumerate(ROWS.tolist()):
        alone = [Scale([1, 2, 3], strength), Shift(V, strength), Clamp([9], strength)]
        single = site_edit(any_sae, alone)(X[row : row + 1], Frames.of(X[:1], RATE, START))
        torch.testing.assert_close(together[row : row + 1], single, atol=1e-4, rtol=0)  # other matrix product kernels


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_sae_computes_in_its_own_dtype(any_sae: SAE, dtype: torch.dtype) -> None:
    x, edits = X.to(dtype), EDITS["two shifts around a scale"]
    edited = site_edit(any_sae, edits)(x, FRAMES)
    assert edited.dtype == dtype
    f, new = reference_features(any_sae, x, edits)
    expected = (x + any_sae.decode(new) - any_sae.decode(f)).to(dtype)
    # one rounding to the model's dtype, which can fall the other way
    torch.testing.assert_close(edited, expected, rtol=2 * torch.finfo(dtype).eps, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("edit", [Ablate([3]), Scale([3, 17], 3.0), Shift(V, 2.0)], ids=["ablate", "scale", "shift"])
def test_an_sae_of_fewer_digits_rounds_the_change_alone(any_sae: SAE, edit: Edit, dtype: torch.dtype) -> None:
    sae, x = any_sae.to(dtype), 1000 * X
    sae.b_enc[3] = -6e4  # feature 3 is silent
    if any_sae.activation == "gated":
        sae.b_mag[3] = -6e4
    edited = site_edit(sae, [edit])(x, FRAMES)
    assert edited.dtype == torch.float32
    change = edited - x
    if isinstance(edit, Ablate):
        assert torch.equal(edited, x)
        return
    f, new = reference_features(sae, x, [edit])
    expected = (new - f).double() @ sae.W_dec.double()
    atol = 8 * torch.finfo(dtype).eps * float(expected.abs().max())
    torch.testing.assert_close(change.double(), expected, rtol=0, atol=atol)


@pytest.mark.parametrize("dtypes", [(torch.float16, torch.bfloat16), (torch.bfloat16, torch.float16)])
def test_models_and_saes_of_either_half_precision(any_sae: SAE, dtypes: tuple[torch.dtype, torch.dtype]) -> None:
    x, sae = X.to(dtypes[0]), any_sae.to(dtypes[1])
    sae.b_enc[3] = -6e4
    if any_sae.activation == "gated":
        sae.b_mag[3] = -6e4
    assert torch.equal(site_edit(sae, [Ablate([3])])(x, FRAMES), x)


def test_a_shift_costs_no_encoding(random_sae: Callable[..., SAE]) -> None:
    sae = random_sae("topk")
    edit = site_edit(sae, [Shift(V, 2.0)])
    sae.W_enc.fill_(torch.nan)  # whoever encodes now gets NaN
    torch.testing.assert_close(edit(X, FRAMES), X + 2 * V @ sae.W_dec, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("activation", ["relu", "batchtopk", "jumprelu", "gated"])
def test_only_touched_columns_are_used(random_sae: Callable[..., SAE], activation: str) -> None:
    sae = random_sae(activation)
    expected = site_edit(sae, [Scale([3, 7], 2.0)])(X, FRAMES)
    others = [feature for feature in range(F) if feature not in (3, 7)]
    sae.W_enc[:, others], sae.W_dec[others] = torch.nan, torch.nan
    assert torch.equal(site_edit(sae, [Scale([3, 7], 2.0)])(X, FRAMES), expected)


@pytest.mark.parametrize("count", [1, 16, 17, 200])
@pytest.mark.parametrize("edit", [Ablate, lambda features: Clamp(features, 2.0)])
def test_topk_of_a_large_dictionary(count: int, edit: Callable[[list[int]], Edit]) -> None:
    """Up to 16 features are looked for by a bound first, more are encoded in full; both by chunks of rows."""
    torch.manual_seed(0)
    sae = SAE(48, 800, "topk", 8).requires_grad_(False)
    sae.b_dec.normal_(0, 0.1)
    x, features = torch.randn(3, 400, 48), torch.randperm(800)[:count].tolist()
    frames = Frames.of(x, RATE, START)
    f = sae.encode(x)
    new = f.index_copy(-1, torch.tensor(features), edit(features).change(f[..., features], frames))  # type: ignore[attr-defined]
    expected = x + (new - f) @ sae.W_dec
    edited = site_edit(sae, [edit(features)])(x, frames)
    # which feature is the k-th may be decided by rounding: in one of some 1,500 rows
    wrong = (edited - expected).abs().amax(-1) > 1e-4
    assert int(wrong.sum()) <= 1
    torch.testing.assert_close(edited[~wrong], expected[~wrong], atol=2e-5, rtol=0)
    assert (f[..., features] > 0).any()


def test_few_features_are_looked_for_only_where_they_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    sae = SAE(48, 800, "topk", 8).requires_grad_(False)
    x, encoded = torch.randn(1, 1200, 48), []
    whole = PickedTopK._encoded
    monkeypatch.setattr(PickedTopK, "_encoded", lambda self, x: encoded.append(len(x)) or whole(self, x))
    site_edit(sae, [Ablate([3])])(x, Frames.of(x, RATE, START))
    has_it = int((sae.encode(x)[..., 3] > 0).sum())
    assert has_it <= encoded[0] < 0.3 * 1200


def test_vectors_are_ranked_only_where_a_picked_feature_may_be_active(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    sae = SAE(48, 800, "topk", 8).requires_grad_(False)
    x, ranked, features = torch.randn(1, 1200, 48), [], list(range(20))
    whole = PickedTopK._kept
    monkeypatch.setattr(PickedTopK, "_kept", lambda self, pre: ranked.append(len(pre)) or whole(self, pre))
    site_edit(sae, [Ablate(features)])(x, Frames.of(x, RATE, START))
    has_one = int((sae.encode(x)[..., features] > 0).any(-1).sum())
    assert has_one <= sum(ranked) < 1.5 * has_one


@pytest.mark.parametrize("count", [1, 70])
def test_under_autocast_the_activation_itself_is_not_rounded(count: int) -> None:
    """Products are in bf16 there; what no feature is taken from stays to the bit."""
    torch.manual_seed(0)
    sae = SAE(48, 800, "relu").requires_grad_(False)
    x = torch.randn(2, 600, 48)
    sae.b_enc[:count] = -1e6
    with torch.autocast("cpu", torch.bfloat16):
        edited = site_edit(sae, [Ablate(list(range(count)))])(x, Frames.of(x, RATE, START))
    assert edited.dtype == torch.float32
    assert torch.equal(edited, x)


def test_under_autocast_an_edit_of_many_active_features_rounds_the_change_alone() -> None:
    torch.manual_seed(0)
    sae = SAE(48, 800, "relu").requires_grad_(False)
    x, features = torch.randn(2, 600, 48), list(range(800))
    sae.W_dec[:, 0] = 0  # nothing is added there
    with torch.autocast("cpu", torch.bfloat16):
        edited = site_edit(sae, [Scale(features, 2.0)])(x, Frames.of(x, RATE, START))
    assert torch.equal(edited[..., 0], x[..., 0])
    assert not torch.equal(edited, x)


@pytest.mark.parametrize("activation", ["relu", "topk"])
def test_no_gradient_into_the_sae(random_sae: Callable[..., SAE], activation: str) -> None:
    sae = random_sae(activation).requires_grad_(True)
    x = X.clone().requires_grad_(True)
    site_edit(sae, [Scale([3], 2.0), Shift(V)])(x, FRAMES).sum().backward()
    assert x.grad is not None
    assert sae.W_enc.grad is None
    assert sae.W_dec.grad is None


@pytest.mark.parametrize("mode", ["delta", "reconstruct"])
def test_gradients_reach_vectors_strengths_factors_and_values(any_sae: SAE, mode: Mode) -> None:
    def parameters() -> list[nn.Parameter]:
        values = (V, ROWS[:1], torch.tensor([3.0, 2.0]), torch.tensor([1.5, -1.0]))
        return [nn.Parameter(value.clone()) for value in values]

    def edits(vector: Tensor, strength: Tensor, factors: Tensor, values: Tensor) -> list[Edit]:
        shifts = [Shift(vector, strength + 2), Shift(vector, 0.5, during=(1.3, 2.2))]
        return [Scale([3, 17], factors), shifts[0], Clamp([17, 5], values), shifts[1]]

    ours, theirs = parameters(), parameters()
    weight = torch.randn(X.shape)
    edit = site_edit(any_sae, edits(*ours), mode)
    edited = edit(X, FRAMES)
    (edited * weight).sum().backward()
    f, new = reference_features(any_sae, X, edits(*theirs))
    expected = X + any_sae.decode(new) - any_sae.decode(f) if mode == "delta" else any_sae.decode(new)
    (expected * weight).sum().backward()
    torch.testing.assert_close(edited, expected, atol=1e-5, rtol=1e-5)
    for one, other in zip(ours, theirs, strict=True):
        assert other.grad is not None and other.grad.abs().max() > 0
        torch.testing.assert_close(one.grad, other.grad, atol=1e-4, rtol=1e-4)  # sums over all frames


def test_a_vector_that_is_trained_is_looked_at_each_time(random_sae: Callable[..., SAE]) -> None:
    sae, vector = random_sae("topk"), nn.Parameter(torch.zeros(F))
    edit = site_edit(sae, [Shift(vector), Scale([3], 2.0)])
    target = X + V @ sae.W_dec
    optimizer = torch.optim.SGD([vector], lr=0.1)
    losses = []
    for _ in range(5):
        loss = (edit(X, FRAMES) - target).square().mean()
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0]
    with torch.no_grad():
        vector.zero_()
        assert float((edit(X, FRAMES) - target).square().mean()) == losses[0]


class Foreign:
    """Someone else's SAE: all it can do is encode and decode."""

    def __init__(self, sae: SAE) -> None:
        self.sae_of_mine = sae

    def encode(self, x: Tensor) -> Tensor:
        return self.sae_of_mine.encode(x)

    def decode(self, f: Tensor) -> Tensor:
        return self.sae_of_mine.decode(f)


@pytest.mark.parametrize("name", EDITS)
def test_foreign_saes_give_the_same(random_sae: Callable[..., SAE], name: str) -> None:
    sae = random_sae("jumprelu")
    ours, theirs = (site_edit(one, EDITS[name])(X, FRAMES) for one in (sae, Foreign(sae)))
    torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=1e-5)


class Forgetful:
    """Like SAELens's with `constant_norm_rescale`: it keeps the scale of what it encodes, until it decodes once."""

    class cfg:
        d_in, d_sae, normalize_activations = D, F, "constant_norm_rescale"

    def __init__(self, sae: SAE) -> None:
        self.inner = sae

    def encode(self, x: Tensor) -> Tensor:
        self.scale = x.norm(dim=-1, keepdim=True) / D**0.5
        return self.inner.encode(x / self.scale)

    def decode(self, f: Tensor) -> Tensor:
        out = self.inner.decode(f) * self.scale
        del self.scale
        return out


@pytest.mark.parametrize("name", ["ablate", "shift", "two shifts around a scale"])
@pytest.mark.parametrize("mode", ["delta", "reconstruct"])
def test_an_sae_that_forgets_its_scale_when_it_decodes(random_sae: Callable[..., SAE], name: str, mode: Mode) -> None:
    ours = random_sae("jumprelu", normalize="constant_norm_rescale")
    theirs = site_edit(Forgetful(random_sae("jumprelu")), EDITS[name], mode)
    expected = site_edit(ours, EDITS[name], mode)(X, FRAMES)
    torch.testing.assert_close(theirs(X, FRAMES), expected, atol=1e-5, rtol=1e-5)
    f = ours.encode(X)  # of many edits, as the evaluation of concepts makes them, and where no activation is given
    torch.testing.assert_close(theirs.of_features(f, X, FRAMES), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(moved(theirs.sae, f, 0 * f), f @ ours.W_dec, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("edit", [Ablate([40]), Clamp([-1], 1.0), Shift(torch.ones(39))])
def test_features_that_are_not_there(random_sae: Callable[..., SAE], edit: Edit) -> None:
    sae = random_sae("relu")
    with pytest.raises(EditError, match="features"):
        site_edit(sae, [edit])
    foreign = site_edit(Foreign(sae), [edit])
    with pytest.raises(EditError, match="features"):
        foreign(X, FRAMES)


def test_a_feature_edit_allocates_nothing_that_grows_with_the_dictionary(random_sae: Callable[..., SAE]) -> None:
    def peaks(d_sae: int) -> tuple[int, int]:
        sae = random_sae("batchtopk", d_in=32, d_sae=d_sae)
        x_BTD, some = torch.randn(1, 500, 32), [Clamp([3, 17], 2.0), Scale([17, 5], 3.0)]
        edit = site_edit(sae, some)
        return peak_bytes(lambda: site_edit(sae, some)), peak_bytes(lambda: edit(x_BTD, Frames.of(x_BTD, RATE, START)))

    putting_on, editing = peaks(1024)
    x_size = 4 * 500 * 32
    assert 0 < putting_on < 4 * 1024  # less than a number a feature
    assert 0 < editing < 1.5 * x_size
    assert peaks(16 * 1024) == (putting_on, editing)


@pytest.mark.parametrize("activation", ["relu", "batchtopk", "jumprelu", "gated"])
def test_touched_columns_are_gathered_once(random_sae: Callable[..., SAE], activation: str) -> None:
    sae = random_sae(activation)
    edit = site_edit(sae, [Scale([3, 7], 2.0)])
    expected = edit(X, FRAMES)
    for value in sae.parameters():
        value.fill_(torch.nan)  # whoever looks again gets NaN
    assert torch.equal(edit(X, FRAMES), expected)


@pytest.mark.parametrize("features", [[3, 17, 21], [21, 3, 17]])
def test_the_order_of_the_features_is_that_of_the_edit(random_sae: Callable[..., SAE], features: list[int]) -> None:
    sae = random_sae("relu")
    f, new = reference_features(sae, X, [Clamp(features, 2.0), Scale(features[:2], 3.0)])
    expected = X + sae.decode(new) - sae.decode(f)
    edited = site_edit(sae, [Clamp(features, 2.0), Scale(features[:2], 3.0)])(X, FRAMES)
    torch.testing.assert_close(edited, expected, atol=1e-5, rtol=1e-5)


def test_untimed_edits_ask_for_no_times(random_sae: Callable[..., SAE]) -> None:
    frames = Frames.of(X, RATE, START)
    site_edit(random_sae("relu"), [Ablate([3]), Clamp([4], PerRow(ROWS))])(X, frames)
    assert "time_T" not in vars(frames)
    site_edit(random_sae("relu"), [Ablate([3], during=(1.0, 2.0))])(X, frames)
    torch.testing.assert_close(vars(frames)["time_T"], START + (torch.arange(T, dtype=torch.float64) + 0.5) / RATE)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("edits", [[Ablate([3], during=(1.3, 2.2)), Scale([4, 3], PerRow(ROWS))]])
def test_an_edit_is_closer_to_fp64_than_the_dtype_can_tell(
    random_sae: Callable[..., SAE], edits: list[Edit], dtype: torch.dtype
) -> None:
    sae, x = random_sae("relu"), X.to(dtype)
    edited = site_edit(sae, edits)(x, FRAMES)
    f, new = reference_features(sae.double(), x.double(), edits)
    expected = x.double() + sae.decode(new) - sae.decode(f)
    torch.testing.assert_close(edited.double(), expected, rtol=torch.finfo(dtype).eps, atol=1e-5)


# --- with edits of the activation itself ---


def applied(sae: SAE | None, edits: Sequence[Edit], mode: Mode = "delta") -> Tensor:
    x_BTD = X
    for step in steps_of(sae, edits, mode):
        x_BTD = step(x_BTD, FRAMES)
    return x_BTD


def test_directions_and_features_are_edited_in_their_order(any_sae: SAE) -> None:
    v_D = torch.linspace(-1, 1, D)
    edits = [AddDirection(v_D), Ablate([3]), Scale([3, 5], 2.0), AddDirection(v_D, -1.0)]
    expected = site_edit(any_sae, [Ablate([3]), Scale([3, 5], 2.0)])(X + v_D, FRAMES) - v_D
    torch.testing.assert_close(applied(any_sae, edits), expected)
    assert len(steps_of(any_sae, edits)) == 3
    assert torch.equal(applied(None, edits[:1]), X + v_D)


def test_an_activation_is_reconstructed_once(random_sae: Callable[..., SAE]) -> None:
    sae, add = random_sae("relu"), AddDirection(torch.linspace(-1, 1, D))
    added = add.applied
    torch.testing.assert_close(applied(sae, [add], "reconstruct"), added(sae(X), FRAMES))
    first = site_edit(sae, [Ablate([3])], "reconstruct")(X, FRAMES)
    expected = site_edit(sae, [Ablate([4])])(added(first, FRAMES), FRAMES)
    torch.testing.assert_close(applied(sae, [Ablate([3]), add, Ablate([4])], "reconstruct"), expected)


def test_without_an_sae_there_is_nothing_else() -> None:
    for edits, mode in (([Ablate([3])], "delta"), ([], "reconstruct")):
        with pytest.raises(EditError, match="no SAE here"):
            steps_of(None, edits, mode)  # type: ignore[arg-type]


# --- with edits of one's own ---


class Softened(Edit):
    """Every feature at the square root of its value."""

    def change(self, f_BTF: Tensor, frames: Frames) -> Tensor:
        return f_BTF.clamp(min=0).sqrt()


class Halved(ActivationEdit):
    def change(self, x_BTD: Tensor, frames: Frames) -> Tensor:
        return x_BTD / 2


class Turned(Shift):
    def change(self, f_BTF: Tensor, frames: Frames) -> Tensor:
        return f_BTF - self.vector


def test_an_edit_of_all_features_needs_nothing_but_its_change(random_sae: Callable[..., SAE]) -> None:
    sae = random_sae("relu")
    f = sae.encode(X)
    torch.testing.assert_close(applied(sae, [Softened()]), X + moved(sae, f.sqrt(), f), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(applied(sae, [Turned(V)]), applied(sae, [Shift(-V)]), atol=1e-5, rtol=1e-5)
    timed = applied(sae, [Softened(during=(1.0, 1.6))])
    assert torch.equal(timed[:, 3:], X[:, 3:]) and not torch.equal(timed[:, :3], X[:, :3])


def test_an_edit_of_the_activation_needs_nothing_but_its_change() -> None:
    assert torch.equal(applied(None, [Halved()]), X / 2)
    timed = applied(None, [Halved(during=(1.0, 1.6))])
    assert torch.equal(timed[:, :3], X[:, :3] / 2) and torch.equal(timed[:, 3:], X[:, 3:])
