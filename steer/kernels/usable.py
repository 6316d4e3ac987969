"""Whether Triton kernels compute here, or plain torch: the kernels need an NVIDIA or AMD GPU and a Triton that works.

They take fp32, bf16 and fp16, and sum in fp32. fp64, CPUs, `torch.compile` and tensors of a subclass take plain torch.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache

import torch
from torch import Tensor, nn

VARIABLE = "AUDIOSTEER_TRITON"
"""The environment variable that turns the kernels off for a process: 0."""
CAPABILITY = (8, 0)
"""The least compute capability of an NVIDIA GPU: earlier ones multiply no bfloat16."""
DTYPES = (torch.float32, torch.bfloat16, torch.float16)

devices = {"cuda"}
"""The devices whose tensors go to the kernels; tests add the CPU, for Triton's interpreter."""
turned_on: ContextVar[bool] = ContextVar("turned_on", default=True)


def suits(*tensors: Tensor | None) -> bool:
    """Whether the kernels take these tensors: all floating ones of a dtype that they know, on a device with Triton."""
    given = [one for one in tensors if one is not None]
    first = given[0]
    return (
        first.device.type in devices
        and turned_on.get()
        and os.environ.get(VARIABLE) != "0"
        and all(type(one) in (Tensor, nn.Parameter) and one.device == first.device for one in given)
        and all(one.dtype in DTYPES for one in given if one.is_floating_point())
        and not torch.compiler.is_compiling()
        and works(first.device)
    )


def names(device: torch.device) -> dict[str, str]:
    """What a checkpoint says of the kernels of a GPU, which round otherwise than torch's; of a CPU nothing."""
    if device.type not in devices:
        return {}
    takes = turned_on.get() and os.environ.get(VARIABLE) != "0" and works(device)
    if not takes:
        return {"kernels": "torch"}
    import triton

    return {"kernels": f"Triton {triton.__version__}"}


@contextmanager
def without() -> Iterator[None]:
    """Plain torch inside the with-block, in this thread or task."""
    token = turned_on.set(False)
    try:
        yield
    finally:
        turned_on.reset(token)


@cache
def works(device: torch.device) -> bool:
    """Whether Triton is installed, knows this device, and a kernel compiled there gives what torch gives.

    Tried once a process on small numbers: Triton needs a C compiler at run time, which not every machine has.
    """
    if device.type == "cuda" and torch.version.hip is None and torch.cuda.get_device_capability(device) < CAPABILITY:
        return False
    try:
        from steer.kernels.gpu.sums import decode
        from steer.kernels.gpu.topk import topk
    except ImportError:
        return False
    x_NF = torch.randn(3, 100, generator=torch.Generator().manual_seed(0)).to(device)
    try:
        values_NK, indices_NK = topk(x_NF, 5)
        sums_ND = decode(values_NK, indices_NK, x_NF.T[:, :3].contiguous())
        expected_ND = torch.zeros_like(x_NF).scatter(-1, indices_NK, values_NK) @ x_NF.T[:, :3]
        right = torch.equal(values_NK.sort().values, x_NF.topk(5).values.sort().values)
        right = right and torch.allclose(sums_ND, expected_ND, atol=1e-3)
        problem = "" if right else "they do not give what torch gives"
    except Exception as error:  # compilers fail in many ways
        problem = (
            f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}"
        )
    if problem:
        warnings.warn(f"the Triton kernels are not used on {device} ({problem}); plain torch is slower", stacklevel=2)
    return not problem
