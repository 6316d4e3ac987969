"""The kernels against the plain formulas, in sizes where their own ways are taken."""

import pytest
import torch
from torch import Tensor

from steer.kernels import NUMBERS, ROWS, chunks, decode, decode_dense, encode_topk, kth_at_least, topk
from steer.matmul import plain
from tests.tolerance import of_sums

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


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
    torch.testing.assert_close(values.sort(-1, descending=True).values, pre.topk(9).values, atol=of_sums(17), rtol=0)
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
    # sums are formed in float32 at least, and then rounded
    atol = of_sums(4, dtype=dtype if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(out.double(), expected, atol=atol, rtol=8 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5])
@pytest.mark.parametrize("rows", [300, 1100])
def test_decode_dense(each_backend: str, share: float, rows: int) -> None:
    f = random(rows, 400) * (torch.rand(rows, 400, generator=torch.Generator().manual_seed(1)) < share)
    f[7] = 0
    W, b = random(400, 48, seed=1), random(48, seed=2)
    torch.testing.assert_close(decode_dense(f, W, b), f @ W + b, atol=of_sums(400), rtol=0)
    torch.testing.assert_close(
        decode_dense(f.view(2, -1, 400), W, b).flatten(0, 1), f @ W + b, atol=of_sums(400), rtol=0
    )


def test_inactive_features_have_gradients_too() -> None:
    f = torch.zeros(600, 400, requires_grad=True)
    W = random(400, 48, seed=1)
    (grad,) = torch.autograd.grad(decode_dense(f, W, torch.zeros(48)).sum(), f)
    torch.testing.assert_close(grad[5], W.sum(1), atol=of_sums(48), rtol=0)
