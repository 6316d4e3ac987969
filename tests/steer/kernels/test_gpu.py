"""The Triton kernels against plain torch: on a GPU, or on the CPU by Triton's interpreter (`TRITON_INTERPRET=1`).

`test_interpreter.py` runs them in the second way, in a process of its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from steer import kernels
from steer.delta import PickedEdit, site_edit
from steer.edits import Ablate, Clamp, Edit, Scale, Shift
from steer.kernels import plain, usable
from steer.passes import ChosenPass, run_pass
from steer.sae import SAE
from steer.sparse_step import Pairs, Slots, batch_topk_pairs, topk_pairs
from steer.trainee import TrainConfig, Trainee
from steer.values import Curve, Frames, PerRow

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
DTYPES = [torch.float32, torch.bfloat16, torch.float16]

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not INTERPRETED and not torch.cuda.is_available(),
        reason="no GPU is here; test_interpreter.py runs these tests on the CPU",
    ),
]
real_gpu = pytest.mark.skipif(INTERPRETED, reason="about a GPU's own behaviour")


@pytest.fixture(autouse=True)
def kernels_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small sizes too go to the kernels, and with the interpreter those of the CPU."""
    monkeypatch.setattr(kernels, "LARGE", 0)
    monkeypatch.setattr(usable, "devices", {DEVICE.type})
    assert usable.works(DEVICE)


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)


def close(one: Tensor, other: Tensor, dtype: torch.dtype = torch.float32) -> None:
    """1e-5 in fp32 and 1e-2 in less, as a share of the largest number."""
    share = 1e-5 if dtype == torch.float32 else 1e-2
    assert one.shape == other.shape
    if one.numel():
        apart, largest = (x.detach().double().abs().max() for x in (one - other, other))
        assert float(apart) <= share * max(1.0, float(largest))


# --- top-k ---


def check_topk(x: Tensor, k: int) -> None:
    values, indices = kernels.topk(x, k)
    expected = x.topk(min(k, x.shape[-1])).values
    assert values.dtype == x.dtype and indices.dtype == torch.long
    assert torch.equal(values.sort(-1, descending=True).values.nan_to_num(9e9), expected.nan_to_num(9e9))
    assert torch.equal(x.gather(-1, indices).nan_to_num(9e9), values.nan_to_num(9e9))
    # each place once
    assert (indices.sort(-1).values.diff() > 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("shape", "k"),
    [((5, 1024), 7), ((2, 3, 1030), 32), ((700,), 1), ((3, 37), 37), ((2, 5), 9), ((0, 64), 3), ((2, 4099), 50)],
)
def test_topk_is_exact(shape: tuple[int, ...], k: int, dtype: torch.dtype) -> None:
    check_topk(random(*shape, dtype=dtype), k)


@pytest.mark.parametrize(("count", "k"), [(2**18, 512), (2**18, 1), (2**17 + 5, 33), (16_383, 512), (600, 512)])
def test_topk_of_long_rows(count: int, k: int) -> None:
    check_topk(random(1, count, dtype=torch.bfloat16), k)


@pytest.mark.parametrize("count", [300, 2000])
def test_topk_of_equal_infinite_and_missing_numbers(count: int) -> None:
    check_topk(torch.zeros(2, count, device=DEVICE), 20)
    check_topk(torch.full((2, count), -torch.inf, device=DEVICE), 20)
    check_topk(random(3, count).mul(2).round(), 20)
    x = random(5, count)
    x[1, ::7], x[2, ::3], x[3, 5] = torch.inf, -torch.inf, torch.nan
    x[4] = -torch.rand(count, device=DEVICE).neg_() * 0.0  # zeros of both signs
    check_topk(x, 20)
    # NaN of either sign is the largest, as in torch
    x = random(1, count)
    x[0, 3] = torch.tensor(-1, dtype=torch.int32).view(torch.float32)
    assert 3 in kernels.topk(x, 1)[1].tolist()[0]


def test_topk_of_numbers_that_do_not_lie_together() -> None:
    x = random(2000, 12)
    check_topk(x.T, 9)
    check_topk(random(8, 2000)[::2, 5:1900], 9)
    check_topk(random(3, 2, 2000).transpose(0, 1), 9)


def test_topk_has_gradients() -> None:
    x = random(3, 1024).requires_grad_()
    values, indices = kernels.topk(x, 5)
    (grad,) = torch.autograd.grad(values.sum(), x)
    assert torch.equal(grad, torch.zeros_like(x).scatter(-1, indices, 1.0))


@pytest.mark.parametrize("seed", range(3))
def test_topk_of_random_shapes(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows, count, k = (int(torch.randint(1, most, (), generator=generator)) for most in (4, 3000, 200))
    check_topk(random(rows, count, seed=seed).exp(), min(k, count))


# --- sums of few rows ---


@pytest.mark.parametrize(
    ("dtype", "lead"),
    [*((torch.float32, lead) for lead in [(), (2, 3), (0,), (2, 0)]), (torch.bfloat16, (5,)), (torch.float16, (5,))],
)
@pytest.mark.parametrize(("k", "width"), [(4, 8), (17, 300), (1, 1)])
def test_decode(dtype: torch.dtype, lead: tuple[int, ...], k: int, width: int) -> None:
    values, W, b = random(*lead, k, dtype=dtype), random(50, width, seed=1, dtype=dtype), random(width, dtype=dtype)
    indices = torch.randint(50, (*lead, k), generator=torch.Generator().manual_seed(3)).to(DEVICE)
    expected = (values.double().unsqueeze(-1) * W.double()[indices]).sum(-2)
    out = kernels.decode(values, indices, W)
    assert out.dtype == dtype
    close(out, expected, dtype)
    close(kernels.decode(values, indices, W, b), expected + b.double(), dtype)
    # what does not lie together
    wide = torch.stack([W, W], dim=-1)[..., 1]
    assert torch.equal(kernels.decode(values, indices, wide), out)


def test_gradients_of_decode() -> None:
    indices = torch.randint(40, (2, 9, 7), generator=torch.Generator().manual_seed(3)).to(DEVICE)
    indices[..., 0] = 3  # a feature that is active everywhere
    given = [random(2, 9, 7), random(40, 130, seed=1), random(130, seed=2)]
    for one in given:
        one.requires_grad_()
    grad = random(2, 9, 130, seed=4)
    values, W, b = given
    ours = torch.autograd.grad(kernels.decode(values, indices, W, b), given, grad)
    theirs = torch.autograd.grad(plain.decode(values.double(), indices, W.double(), b.double()), given, grad.double())
    for one, other in zip(ours, theirs, strict=True):
        close(one, other)
    assert torch.equal(ours[1], torch.autograd.grad(kernels.decode(values, indices, W, b), W, grad)[0])


# --- the largest of a batch ---


def check_largest(x: Tensor, count: int) -> None:
    from steer.kernels.gpu.batch import largest

    values, rows, columns, starts = largest(x, count)
    positive = x.nan_to_num(0, torch.inf, 0).clamp(min=0).flatten()
    expected = positive.topk(min(count, len(positive))).values
    expected = expected[expected > 0]
    found = int(starts[-1])
    assert found == len(expected) and len(values) == count
    assert torch.equal(values[:found].sort(descending=True).values, expected)
    assert not values[found:].any()
    assert torch.equal(x[rows[:found], columns[:found]], values[:found])
    # in the order of the rows, and of the columns in each: each place once
    assert ((rows[:found] * x.shape[1] + columns[:found]).diff() > 0).all()
    assert torch.equal(torch.searchsorted(rows[:found].contiguous(), torch.arange(len(x) + 1, device=DEVICE)), starts)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_largest_of_a_batch(dtype: torch.dtype) -> None:
    check_largest(random(4, 2100, dtype=dtype), 90)
    check_largest(random(9, 60, dtype=dtype).mul(2).round(), 50)  # many are equal
    check_largest(random(6, 50, dtype=dtype) - 1.5, 200)  # fewer are positive


def test_the_largest_of_special_batches() -> None:
    check_largest(-torch.rand(4, 50, device=DEVICE), 7)
    check_largest(torch.ones(5, 40, device=DEVICE), 33)
    check_largest(torch.zeros(0, 5, device=DEVICE), 3)
    check_largest(torch.full((3, 5), torch.inf, device=DEVICE), 4)
    check_largest(random(30, 8).T, 30)
    x = random(8, 40)
    x[3, 4], x[2, 2], x[1, 1] = torch.inf, torch.nan, -torch.inf
    check_largest(x, 30)


@pytest.mark.parametrize("loud", [50.0, 0.01])
def test_the_largest_where_the_sample_tells_nothing_of_the_rest(loud: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steer.kernels.gpu.batch.SAMPLE", 8)
    x = random(24, 40)
    x[::3] *= loud  # these rows are the sample
    check_largest(x, 96)


# --- edits ---


EDITS: dict[str, list[Edit]] = {
    "ablate": [Ablate([3, 17, 4])],
    "clamp": [Clamp([0, 39], 2.5)],
    "scale": [Scale([5], -3)],
    "chain": [Scale([5, 6], 2.0), Clamp([6, 7], 1.0), Scale([7], 0.5), Ablate([8])],
    "many": [Ablate(range(40))],
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("activation", ["relu", "jumprelu"])
@pytest.mark.parametrize("name", EDITS)
def test_an_edit_is_that_of_torch(name: str, activation: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    sae = SAE(24, 40, activation).requires_grad_(False)
    sae.b_enc.normal_(0, 0.3)
    sae.b_dec.normal_()
    if activation == "jumprelu":
        sae.threshold.uniform_(-0.2, 0.6)
    sae.to(DEVICE, dtype)
    for model_dtype in {dtype, torch.float32}:
        x = random(2, 19, 24, dtype=model_dtype)
        frames = Frames.of(x, 50.0, 0.0)
        edit = site_edit(sae, EDITS[name])
        assert isinstance(edit, PickedEdit) and edit.fused is not None and edit.fused.takes(x)
        with usable.without():
            expected = site_edit(sae.double(), EDITS[name])(x.double(), frames)
        sae.to(dtype)
        out = edit(x, frames)
        assert out.dtype == model_dtype
        if activation == "jumprelu" and dtype != torch.float32:
            # the bias that b_dec gives is rounded, which may take a feature across its threshold
            other = (out - expected).abs().amax(-1) > 1e-2 * expected.abs().max()
            assert int(other.sum()) <= 2
            out, expected = out[~other], expected[~other]
        close(out, expected, dtype)
        assert edit(x[:, :0], frames).shape == (2, 0, 24)
        assert torch.equal(edit(x.transpose(0, 1), frames), edit(x, frames).transpose(0, 1))


def test_edits_that_need_more_are_made_by_torch() -> None:
    sae = SAE(8, 20, "relu").requires_grad_(False).to(DEVICE)
    frames = Frames(3, 5, 50.0, 0.0, DEVICE)
    x = random(3, 5, 8)
    several = [
        Clamp([1], Curve(((0.0, 1.0), (1.0, 2.0)))),
        Clamp([1], PerRow(torch.tensor([1.0, 2.0, 3.0]))),
        Clamp([1, 2], torch.tensor([1.0, 2.0])),
        Ablate([1], during=(0.0, 0.05)),
        Shift(torch.ones(20)),
    ]
    for edit in several:
        picked = site_edit(sae, [edit])
        assert isinstance(picked, PickedEdit) and picked.fused is None
        assert not torch.equal(picked(x, frames), x)
    picked = site_edit(sae, [Ablate([1])])
    assert isinstance(picked, PickedEdit) and picked.fused is not None
    assert not picked.fused.takes(x.requires_grad_())
    assert picked(x, frames).requires_grad
    for other in (SAE(8, 20, "gated"), SAE(8, 20, "relu", normalize="layer_norm"), SAE(8, 20, "relu").double()):
        picked = site_edit(other.to(DEVICE), [Ablate([1])])
        assert isinstance(picked, PickedEdit) and picked.fused is None


def test_an_edit_follows_its_sae_to_another_dtype() -> None:
    sae = SAE(8, 20, "relu").requires_grad_(False).to(DEVICE)
    edit, x = site_edit(sae, [Ablate([1])]), random(1, 5, 8)
    before = edit(x, Frames.of(x, 50.0, 0.0))
    sae.double()
    close(edit(x.double(), Frames.of(x, 50.0, 0.0)), before)
    assert isinstance(edit, PickedEdit) and edit.fused is None


# --- training ---


def an_sae(activation: str, **options: bool) -> SAE:
    torch.manual_seed(0)
    sae = SAE(6, 24, activation, 4, **options)
    with torch.no_grad():
        sae.b_enc.normal_(-0.5, 0.3)
        sae.b_dec.normal_()
    return sae.to(DEVICE)


def gradients(sae: SAE, run: ChosenPass, loss: Callable[[ChosenPass], Tensor]) -> list[Tensor]:
    parameters = [value for value in sae.parameters() if value.requires_grad]
    return list(torch.autograd.grad(loss(run), parameters, allow_unused=True))


@pytest.mark.parametrize("activation", ["topk", "batchtopk"])
@pytest.mark.parametrize("options", [{}, {"center": False}, {"rms_norm": True}])
def test_a_pass_by_slots_is_that_by_pairs(activation: str, options: dict[str, bool]) -> None:
    sae, x = an_sae(activation, **options), random(11, 6)
    if activation == "batchtopk":
        sae.threshold.requires_grad_(False)

    def loss(run: ChosenPass) -> Tensor:
        nested = torch.stack([run.error_of(y_ND) for y_ND in run.nested([5, 24])])
        return run.error + nested.sum() + 0.1 * run.l1

    ours = run_pass(sae, x)
    with usable.without():
        theirs = run_pass(sae, x)
    assert isinstance(ours, ChosenPass) and isinstance(theirs, ChosenPass)
    assert type(ours.pairs) is Slots and type(theirs.pairs) is Pairs
    assert torch.equal(ours.count_F, theirs.count_F) and torch.equal(ours.least, theirs.least)
    close(ours.y_ND, theirs.y_ND)
    close(ours.l0, theirs.l0)
    close(ours.l1, theirs.l1)
    for one, other in zip(gradients(sae, ours, loss), gradients(sae, theirs, loss), strict=True):
        close(one, other)


@pytest.mark.parametrize("batch", [False, True])
def test_nothing_active(batch: bool) -> None:
    sae, x = an_sae("batchtopk" if batch else "topk"), random(5, 6)
    with torch.no_grad():
        sae.b_enc.fill_(-1000)
    run = run_pass(sae, x)
    assert isinstance(run, ChosenPass)
    assert not run.count_F.any() and float(run.least) == torch.inf and float(run.l0) == 0
    assert torch.equal(run.y_ND, sae.b_dec.expand_as(run.y_ND))
    run.y_ND.sum().backward()
    assert sae.W_enc.grad is not None and not sae.W_enc.grad.any() and not sae.b_enc.grad.any()


def test_pairs_are_the_same_features() -> None:
    encoder, x = an_sae("topk").encoder(), random(11, 6)
    for choose in (topk_pairs, batch_topk_pairs):
        slots, values_P = choose(encoder, x, 4)
        with usable.without():
            pairs, expected_P = choose(encoder, x, 4)
        found = values_P > 0
        places = slots.rows_P[found] * 24 + slots.features_P[found]
        expected = pairs.rows_P * 24 + pairs.features_P
        assert torch.equal(places.sort().values, expected.sort().values)
        assert torch.equal(values_P[found].sort().values, expected_P.sort().values)


@pytest.mark.parametrize("activation", ["topk", "batchtopk"])
def test_training_has_the_losses_of_torch(activation: str) -> None:
    """With dead features and their auxiliary loss."""
    torch.manual_seed(1)
    data = (torch.randn(40, 4) @ torch.randn(4, 4)).to(DEVICE)
    config = TrainConfig(activation, k=1, expansion=4, steps=5, dead_after=10, lr=1e-3)

    def losses() -> list[list[float]]:
        trainee = Trainee("", config, data.cpu(), DEVICE)
        return [[float(one) for one in trainee.step(data[8 * n : 8 * n + 8], n).values()] for n in range(5)]

    ours = losses()
    with usable.without():
        theirs = losses()
    assert max(line[3] for line in ours) > 0  # some are dead
    torch.testing.assert_close(torch.tensor(ours), torch.tensor(theirs), rtol=1e-3, atol=1e-3)


def test_an_sae_encodes_and_decodes_as_torch() -> None:
    sae, x = an_sae("topk").requires_grad_(False), random(2, 5, 6)
    with usable.without():
        expected = sae(x)
    close(sae(x), expected)


def test_what_the_kernels_do_not_take(monkeypatch: pytest.MonkeyPatch) -> None:
    x = random(2, 40)
    assert usable.suits(x)
    assert not usable.suits(x.double()) and not usable.suits(x, None, x.double())
    with usable.without():
        assert not usable.suits(x)
    monkeypatch.setenv(usable.VARIABLE, "0")
    assert not usable.suits(x)
    monkeypatch.delenv(usable.VARIABLE)
    # a k or a row beyond what they know is torch's
    values, _ = kernels.topk(random(1, 2000), 600)
    assert torch.equal(values.sort(descending=True).values, random(1, 2000).topk(600).values)


def test_kernels_that_fail_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> None:
        raise RuntimeError("no C compiler")

    assert usable.names(DEVICE)["kernels"].startswith("Triton") and usable.names(torch.device("meta")) == {}
    usable.works.cache_clear()
    monkeypatch.setattr("steer.kernels.gpu.topk.topk", broken)
    with pytest.warns(UserWarning, match="no C compiler"):
        check_topk(random(3, 100), 5)
    assert usable.names(DEVICE) == {"kernels": "torch"}
    usable.works.cache_clear()


# --- a GPU's own ---


@real_gpu
def test_no_step_and_no_edit_waits_for_the_gpu() -> None:
    x = torch.randn(256, 64, device=DEVICE)
    trainees = [Trainee("", TrainConfig(name, k=8), x.cpu(), DEVICE) for name in ("topk", "batchtopk")]
    sae = SAE(64, 512, "relu").requires_grad_(False).to(DEVICE)
    topk = SAE(64, 512, "topk", 8).requires_grad_(False).to(DEVICE)
    edits = [site_edit(sae, EDITS["chain"]), site_edit(sae, [Clamp([1, 2], torch.tensor([1.0, 2.0]))])]
    edits += [site_edit(topk, EDITS["ablate"]), site_edit(sae, [Ablate([1], during=(0.0, 0.1))])]
    frames = Frames.of(x[None], 50.0, 0.0)
    try:
        for _ in range(2):
            for trainee in trainees:
                trainee.step(x, 0)
            for edit in edits:
                edit(x[None], frames)
            # the first time compiles
            torch.cuda.set_sync_debug_mode("error")
    finally:
        torch.cuda.set_sync_debug_mode("default")


@real_gpu
def test_edits_leave_no_memory_behind() -> None:
    x = torch.randn(1, 200, 64, device=DEVICE)
    edit = site_edit(SAE(64, 512, "relu").requires_grad_(False).to(DEVICE), EDITS["ablate"])
    edit(x, Frames.of(x, 50.0, 0.0))
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    for _ in range(10_000):
        edit(x, Frames.of(x, 50.0, 0.0))
    assert torch.cuda.memory_allocated() == before


@real_gpu
def test_published_sizes() -> None:
    x = torch.randn(4096, 768, device=DEVICE, dtype=torch.bfloat16)
    sae = SAE(768, 6144, "topk", 32).requires_grad_(False).to(DEVICE, torch.bfloat16)
    with usable.without():
        values, indices = sae.encode_sparse(x)
        expected = sae.decode_sparse(values, indices)
    close(sae.decode_sparse(values, indices), expected, torch.bfloat16)
    # of equal numbers others may be taken
    assert torch.equal(sae.encode_sparse(x)[0].sort(-1).values, values.sort(-1).values)
    check_topk(torch.randn(4096, 6144, device=DEVICE), 32)
    check_topk(torch.randn(512, 24_576, device=DEVICE, dtype=torch.bfloat16), 50)
    check_largest(torch.randn(4096, 6144, device=DEVICE), 32 * 4096)
