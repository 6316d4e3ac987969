"""The kernels against the plain formulas, in sizes where their own ways are taken."""

import pytest
import torch
from torch import Tensor

from steer import kernels
from steer.kernels import (
    NUMBERS,
    ROWS,
    backend,
    chunks,
    decode,
    decode_dense,
    encode_topk,
    kth_at_least,
    linear,
    plain,
    probe,
    topk,
)

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=["oneDNN", "addmm"])
def each_backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "oneDNN" and not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        pytest.skip("this build of torch has no oneDNN")
    monkeypatch.setattr(kernels, "backend", lambda: request.param)
    return request.param


# --- x W + b ---


@pytest.mark.parametrize("shape", [(600, 96), (3, 200, 96), (96,), (0, 96), (2, 0, 96)])
@pytest.mark.parametrize("turned", [False, True])
def test_linear(each_backend: str, shape: tuple[int, ...], turned: bool) -> None:
    x, W, b = random(*shape), random(96, 512, seed=1), random(512, seed=2)
    W = W.T.contiguous().T if turned else W
    out = linear(x, W, b)
    expected = x.double() @ W.double() + b
    assert out.shape == (*shape[:-1], 512)
    # sums of 96 products of about 1 in fp32; TF32 or bf16 would be off by 1e-2
    torch.testing.assert_close(out.double(), expected, atol=3e-5, rtol=0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_linear_in_any_dtype(each_backend: str, dtype: torch.dtype) -> None:
    x, W, b = (t.to(dtype) for t in (random(600, 96), random(96, 512, seed=1), random(512, seed=2)))
    assert torch.equal(linear(x, W, b), plain(x, W, b)) or dtype == torch.float32
    assert linear(x, W, b).dtype == dtype


def test_linear_has_gradients(each_backend: str) -> None:
    inputs = [t.requires_grad_() for t in (random(600, 96), random(96, 512, seed=1), random(512, seed=2))]
    ours = torch.autograd.grad(linear(*inputs).square().sum(), inputs)
    theirs = torch.autograd.grad(plain(*inputs).square().sum(), inputs)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a, b)


def test_picked_columns_that_are_not_contiguous(each_backend: str) -> None:
    x, W = random(600, 96), random(96, 1024, seed=1)[:, ::2]
    torch.testing.assert_close(linear(x, W, torch.zeros(512)), x @ W, atol=1e-4, rtol=0)


def test_the_backend_is_found_once_and_nothing_global_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(kernels, "probe", lambda product: calls.append(product) or "addmm")
    backend.cache_clear()
    torch.manual_seed(1)
    before = torch.get_num_threads(), torch.get_float32_matmul_precision(), torch.get_rng_state()
    assert [backend(), backend()] == ["addmm", "addmm"]
    assert len(calls) == 1
    backend.cache_clear()
    monkeypatch.undo()
    assert backend() in ("oneDNN", "addmm")
    after = torch.get_num_threads(), torch.get_float32_matmul_precision(), torch.get_rng_state()
    assert before[:2] == after[:2]
    assert torch.equal(before[2], after[2])


def test_what_is_wrong_missing_or_slow_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(x: Tensor, W: Tensor, b: Tensor) -> Tensor:
        raise AttributeError("no such operator")

    def rough(x: Tensor, W: Tensor, b: Tensor) -> Tensor:
        return (x.bfloat16() @ W.bfloat16()).float() + b

    seconds = {missing: 1.0, rough: 1.0, plain: 2.0}
    monkeypatch.setattr(kernels, "took", lambda product, *inputs: seconds.get(product, 1.0))
    assert [probe(missing), probe(rough)] == ["addmm", "addmm"]
    exact = lambda x, W, b: plain(x, W, b)  # noqa: E731
    assert probe(exact) == "oneDNN"
    seconds[exact] = 1.9
    assert probe(exact) == "addmm"


# --- top-k ---


@pytest.mark.parametrize("shape", [(50, 1024), (3, 7, 1030), (2051,), (5, 4099), (4, 100), (0, 1024), (3, 5)])
@pytest.mark.parametrize("k", [1, 7, 32])
def test_topk_is_exact(shape: tuple[int, ...], k: int) -> None:
    x = random(*shape)
    values, indices = topk(x, k)
    expected = x.topk(min(k, shape[-1]), dim=-1)
    assert torch.equal(values.sort(dim=-1, descending=True).values, expected.values)
    assert torch.equal(indices.sort(-1).values, expected.indices.sort(-1).values)
    assert torch.equal(x.gather(-1, indices), values)


@pytest.mark.parametrize("count", [1024, 1030])
def test_topk_among_equals(count: int) -> None:
    """Of equal numbers any may be taken, each once."""
    for x in (torch.zeros(3, count), random(40, count).mul(2).round(), torch.full((2, count), -torch.inf)):
        values, indices = topk(x, 20)
        assert torch.equal(values.sort(-1, descending=True).values, x.topk(20).values)
        assert all(len(set(row)) == 20 for row in indices.tolist())
        assert torch.equal(x.gather(-1, indices), values)


@pytest.mark.parametrize("shape", [(50, 1024), (20, 1030), (30, 40), (4, 7), (0, 1024)])
@pytest.mark.parametrize("k", [1, 7, 32])
def test_a_bound_of_the_kth_largest(shape: tuple[int, ...], k: int) -> None:
    x = random(*shape)
    exact = x.topk(min(k, shape[-1])).values.amin(-1)
    assert (kth_at_least(x, k) <= exact).all()
    # not far below: no more than three times as many numbers reach it
    assert ((x >= kth_at_least(x, k)[:, None]).sum(-1) <= 3 * k).all()


def test_topk_has_gradients() -> None:
    x = random(6, 1024).requires_grad_()
    values, indices = topk(x, 5)
    (grad,) = torch.autograd.grad(values.sum(), x)
    assert torch.equal(grad, torch.zeros_like(x).scatter(-1, indices, 1.0))


@pytest.mark.parametrize("rows", [1, 511, 512, 1100])
@pytest.mark.parametrize("count", [600, 9000])
def test_encode_topk_by_chunks(each_backend: str, rows: int, count: int) -> None:
    x, W, b = random(rows, 16), random(16, count, seed=1), random(count, seed=2)
    values, indices = encode_topk(x, W, b, 9)
    pre = plain(x, W, b)
    torch.testing.assert_close(values.sort(-1, descending=True).values, pre.topk(9).values, atol=1e-5, rtol=0)
    # where another product's rounding decides, one of a row's features may be another
    same = (indices.sort(-1).values == pre.topk(9).indices.sort(-1).values).all(-1)
    assert int((~same).sum()) <= 1


def test_chunks_are_the_rows_in_order() -> None:
    x = random(1300, 2)
    assert [len(chunk) for chunk in chunks(x, 1)] == [ROWS, 1300 - ROWS]
    assert torch.equal(torch.cat(list(chunks(x, 2**14))), x)
    assert max(len(chunk) for chunk in chunks(x, 2**14)) == NUMBERS // 2**14
    assert [len(chunk) for chunk in chunks(x, NUMBERS + 1)] == [1] * len(x)
    assert [len(chunk) for chunk in chunks(x[:0], 1)] == [0]


# --- decoding ---


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("lead", [(), (5,), (2, 3), (0,), (2, 0)])
def test_decode(dtype: torch.dtype, lead: tuple[int, ...]) -> None:
    values, W = random(*lead, 4).to(dtype), random(50, 8, seed=1).to(dtype)
    indices = torch.randint(50, (*lead, 4), generator=torch.Generator().manual_seed(3))
    expected = (values.double().unsqueeze(-1) * W.double()[indices]).sum(-2)
    out = decode(values, indices, W)
    assert out.dtype == dtype
    torch.testing.assert_close(out.double(), expected, atol=1e-5, rtol=8 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5])
@pytest.mark.parametrize("rows", [300, 1100])
def test_decode_dense(each_backend: str, share: float, rows: int) -> None:
    f = random(rows, 400) * (torch.rand(rows, 400, generator=torch.Generator().manual_seed(1)) < share)
    f[7] = 0
    W, b = random(400, 48, seed=1), random(48, seed=2)
    torch.testing.assert_close(decode_dense(f, W, b), f @ W + b, atol=2e-4, rtol=0)
    torch.testing.assert_close(decode_dense(f.view(2, -1, 400), W, b).flatten(0, 1), f @ W + b, atol=2e-4, rtol=0)


def test_inactive_features_have_gradients_too() -> None:
    f = torch.zeros(600, 400, requires_grad=True)
    W = random(400, 48, seed=1)
    (grad,) = torch.autograd.grad(decode_dense(f, W, torch.zeros(48)).sum(), f)
    torch.testing.assert_close(grad[5], W.sum(1), atol=1e-4, rtol=0)
