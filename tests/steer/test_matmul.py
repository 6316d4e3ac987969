"""x W + b by both libraries, and that the choice between them is the same in every process."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from steer import matmul
from steer.errors import SAEError
from steer.matmul import VARIABLE, arithmetic, backend, default, linear, onednn, plain, precise, rule, using
from tests.tolerance import of_sums

ROOT = Path(__file__).parents[2]
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# --- x W + b ---


@pytest.mark.parametrize("shape", [(600, 96), (3, 200, 96), (96,), (0, 96), (2, 0, 96)])
@pytest.mark.parametrize("turned", [False, True])
def test_linear(each_backend: str, shape: tuple[int, ...], turned: bool) -> None:
    x, W, b = random(*shape), random(96, 512, seed=1), random(512, seed=2)
    W = W.T.contiguous().T if turned else W
    out = linear(x, W, b)
    expected = x.double() @ W.double() + b
    assert out.shape == (*shape[:-1], 512)
    # TF32 or bf16 would be off by 1e-2
    torch.testing.assert_close(out.double(), expected, atol=of_sums(96), rtol=0)


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
    torch.testing.assert_close(linear(x, W, torch.zeros(512)), x @ W, atol=of_sums(96), rtol=0)


# --- which library ---

SAY = """
import sys, torch; torch.set_num_threads(1)
from steer.matmul import backend, linear
g = torch.Generator().manual_seed(0)
x, W = torch.randn(600, 384, generator=g), torch.randn(384, 512, generator=g)
print(backend(), linear(x, W, None).view(torch.int32).sum().item())
"""


@pytest.fixture
def fresh() -> Iterator[None]:
    """The choice of this process is made again, before the test and after it."""
    default.cache_clear()
    yield
    default.cache_clear()


def test_every_process_chooses_and_rounds_alike(fresh: None) -> None:
    """Two at once, so that they take time from each other: a choice by the clock may then fall otherwise."""
    command = [sys.executable, "-c", SAY]
    processes = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = {process.communicate()[0] for process in processes}
    assert len(said) == 1
    assert said.pop().split()[0] == backend()


@pytest.mark.parametrize(
    ("vendor", "capability", "version", "expected"),
    [
        ("AuthenticAMD", "AVX512", "2.11.0+cu130", "oneDNN"),
        ("AuthenticAMD", "AVX512", "2.14.1", "oneDNN"),
        ("AuthenticAMD", "AVX512", "2.10.2", "addmm"),
        ("AuthenticAMD", "AVX512", "2.15.0a0+git123", "addmm"),
        ("AuthenticAMD", "AVX2", "2.11.0", "addmm"),
        ("GenuineIntel", "AVX512", "2.11.0", "addmm"),
        ("aarch64", "DEFAULT", "2.11.0", "addmm"),
        ("arm64", "NO AVX", "2.11.0", "addmm"),
    ],
)
def test_the_rule(vendor: str, capability: str, version: str, expected: str) -> None:
    assert rule(vendor, capability, version) == expected


def test_the_choice_follows_the_rule(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(matmul, "vendor", lambda: "AuthenticAMD")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr(torch, "__version__", "2.11.0")
    monkeypatch.setattr(matmul, "precise", lambda: True)
    assert backend() == "oneDNN"
    default.cache_clear()
    monkeypatch.setattr(matmul, "precise", lambda: False)
    assert backend() == "addmm"


def test_no_clock_and_no_global_state(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    for clock in ("perf_counter", "monotonic", "time", "process_time"):
        monkeypatch.setattr(time, clock, lambda: pytest.fail("a clock was read"))
    precise.cache_clear()
    torch.manual_seed(1)
    before = torch.get_num_threads(), torch.get_float32_matmul_precision(), torch.get_rng_state()
    precise()
    backend()
    after = torch.get_num_threads(), torch.get_float32_matmul_precision(), torch.get_rng_state()
    assert before[:2] == after[:2]
    assert torch.equal(before[2], after[2])


def test_the_environment_overrides_the_rule(fresh: None, monkeypatch: pytest.MonkeyPatch, has_onednn: None) -> None:
    for name in ("oneDNN", "addmm"):
        monkeypatch.setenv(VARIABLE, name)
        default.cache_clear()
        assert backend() == name
        assert arithmetic(torch.device("cpu"))["product"] == name
    monkeypatch.setenv(VARIABLE, "mkl")
    default.cache_clear()
    with pytest.raises(SAEError, match="'mkl' is not a library .*AUDIOSTEER_MATMUL.*addmm, oneDNN"):
        backend()


def test_using_holds_in_the_block(has_onednn: None) -> None:
    before = backend()
    with using("oneDNN"):
        assert backend() == "oneDNN"
        with using("addmm"):
            assert backend() == "addmm"
        assert backend() == "oneDNN"
    assert backend() == before
    with pytest.raises(SAEError, match="'blis' is not a library"), using("blis"):
        pass


@pytest.mark.parametrize("how", ["missing", "rough"])
def test_onednn_that_is_missing_or_rough_is_not_used(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    def missing(x: Tensor, W: Tensor, b: Tensor) -> Tensor:
        raise AttributeError("no such operator")

    def rough(x: Tensor, W: Tensor, b: Tensor) -> Tensor:
        return (x.bfloat16() @ W.bfloat16()).float() + b

    precise.cache_clear()
    monkeypatch.setattr(matmul, "onednn", plain)
    assert precise()
    precise.cache_clear()
    monkeypatch.setattr(matmul, "onednn", {"missing": missing, "rough": rough}[how])
    assert not precise()
    with pytest.raises(SAEError, match="oneDNN: this build of torch does not have it"), using("oneDNN"):
        pass
    precise.cache_clear()


def test_the_named_library_multiplies(has_onednn: None, monkeypatch: pytest.MonkeyPatch) -> None:
    x, W, b = random(600, 96), random(96, 512, seed=1), random(512, seed=2)
    seen = []
    monkeypatch.setattr(matmul, "onednn", lambda *inputs: seen.append("oneDNN") or onednn(*inputs))
    with using("oneDNN"):
        linear(x, W, b)
    assert seen == ["oneDNN"]
    with using("addmm"):
        linear(x, W, b)
    assert seen == ["oneDNN"]
