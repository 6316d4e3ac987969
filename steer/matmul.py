"""x W + b, and which library multiplies on a CPU: torch's own (`addmm`) or oneDNN's fp32 linear layer (`oneDNN`).

The two round differently, so the choice is the same in every process of a machine: it is read from a rule (processor,
torch's CPU capability, torch's version), never from a clock. Training records it in its checkpoints.
"""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from steer.errors import SAEError

log = logging.getLogger(f"audiosteer.{__name__}")
VARIABLE = "AUDIOSTEER_MATMUL"
"""The environment variable that overrides the rule for a process: one of `BACKENDS`."""
BACKENDS = ("addmm", "oneDNN")
LARGE = 2**23
"""Multiplications from which oneDNN, or a look at how few features are active, is worth its overhead."""
FASTER = {("AuthenticAMD", "AVX512")}
"""(vendor, CPU capability) where oneDNN is used. Torch's x86 builds multiply by MKL, which took twice as long as oneDNN
on an AMD Zen 5 with AVX512. On Intel (Emerald Rapids) oneDNN took 0.8 to 1.1 times as long as MKL, by the size."""
VERSIONS = ((2, 11), (2, 15))
"""Versions of torch [from, to) whose private operator is known to take the arguments that `onednn` passes."""
TOLERANCE = 1e-5
"""The largest error of a product, as a share of its largest number: fp32 stays below 2e-6, TF32 and bf16 above 1e-4."""

chosen: ContextVar[str | None] = ContextVar("chosen", default=None)


def linear(x_XD: Tensor, W_DF: Tensor, b_F: Tensor | None) -> Tensor:
    """x W + b [..., F], by the library that `backend` names."""
    return (onednn if suits_onednn(x_XD, W_DF, b_F) and backend() == "oneDNN" else plain)(x_XD, W_DF, b_F)


def plain(x_XD: Tensor, W_DF: Tensor, b_F: Tensor | None) -> Tensor:
    return F.linear(x_XD, W_DF.T, b_F)


def onednn(x_XD: Tensor, W_DF: Tensor, b_F: Tensor | None) -> Tensor:
    """fp32 throughout."""
    return torch.ops.mkldnn._linear_pointwise(x_XD.contiguous(), W_DF.T, b_F, "none", [], "")


def suits_onednn(x_XD: Tensor, W_DF: Tensor, b_F: Tensor | None) -> bool:
    """Whether the product is one that the private operator does: large, fp32, on the CPU, without gradient."""
    if x_XD.numel() * W_DF.shape[1] < LARGE:
        return False
    given = [one for one in (x_XD, W_DF, b_F) if one is not None]
    return (
        all(type(one) in (Tensor, nn.Parameter) and one.is_cpu and one.dtype == torch.float32 for one in given)
        and (W_DF.is_contiguous() or W_DF.T.is_contiguous())
        and not (torch.is_grad_enabled() and any(one.requires_grad for one in given))
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
        and bool(torch.backends.mkldnn.enabled)
    )


# --- which library ---


def backend() -> str:
    """The library of this context: what `using` names, else what the environment names, else what the rule gives.

    Raises:
        SAEError: the environment names none of `BACKENDS`, or oneDNN where torch does not have it.
    """
    return chosen.get() or default()


@contextmanager
def using(name: str) -> Iterator[None]:
    """Multiply by this library inside the with-block, in this thread or task.

    Raises:
        SAEError: it is none of `BACKENDS`, or oneDNN where torch does not have it.
    """
    token = chosen.set(usable(name))
    try:
        yield
    finally:
        chosen.reset(token)


@cache
def default() -> str:
    """The library of this process, from the environment or the rule."""
    if named := os.environ.get(VARIABLE):
        return usable(named)
    follows = rule(vendor(), torch.backends.cpu.get_cpu_capability(), torch.__version__)
    library = follows if follows == "addmm" or precise() else "addmm"
    log.debug("large products by %s", library)
    return library


def rule(vendor: str, capability: str, version: str) -> str:
    """The library for a processor's vendor, the instructions that torch uses of it, and a version of torch."""
    numbers = tuple(int(number) for number in version.split(".")[:2])
    return "oneDNN" if (vendor, capability) in FASTER and VERSIONS[0] <= numbers < VERSIONS[1] else "addmm"


def usable(name: str) -> str:
    """The same; raises SAEError where there is no such library."""
    if name not in BACKENDS:
        raise SAEError(f"{name!r} is not a library for products ({VARIABLE}); there are {', '.join(BACKENDS)}")
    if name == "oneDNN" and not precise():
        raise SAEError("oneDNN: this build of torch does not have it, or it does not keep the precision of float32")
    return name


@cache
def precise() -> bool:
    """Whether torch has oneDNN's operator here, and it multiplies in fp32, tried once on a small product."""
    generator = torch.Generator().manual_seed(0)
    x_ND, W_FD, b_F = (torch.randn(*shape, generator=generator) for shape in ((64, 384), (512, 384), (512,)))
    exact_NF = plain(x_ND.double(), W_FD.T.double(), b_F.double())
    try:
        with torch.no_grad():
            error_NF = onednn(x_ND, W_FD.T, b_F) - exact_NF
    except (AttributeError, RuntimeError, NotImplementedError):  # a build of torch without it
        return False
    return float(error_NF.abs().max()) < TOLERANCE * float(exact_NF.abs().max())


def vendor() -> str:
    """The processor's maker as it names itself (`GenuineIntel`, `AuthenticAMD`), or what the system says of it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # on Windows: "AMD64 Family 25 Model 80 Stepping 0, AuthenticAMD"
        return platform.processor().rpartition(", ")[2] or platform.machine()
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("vendor_id")]
    return named[0] if named else platform.machine()


def arithmetic(device: torch.device) -> dict[str, str]:
    """All that decides how a computation on `device` rounds, in words: what a checkpoint records."""
    cpu = device.type == "cpu"
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {
        "product": backend(),
        "torch": str(torch.__version__),  # a plain string, which weights_only loads
        "processor": f"{vendor()} {torch.backends.cpu.get_cpu_capability()}" if cpu else name,
        "threads": str(torch.get_num_threads()) if cpu else "",
    }
