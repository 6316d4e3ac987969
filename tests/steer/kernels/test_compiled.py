"""What Triton's interpreter cannot tell: that every kernel compiles for a GPU, as it is launched, and in registers.

Triton compiles for a GPU that is not there. Launches are noted and not made.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

triton = pytest.importorskip("triton", reason="Triton comes with torch on Linux alone")
pytestmark = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") == "1" or not sys.platform.startswith("linux"),
    reason="kernels are compiled on Linux, where Triton does not interpret them",
)

TYPES = {
    torch.float32: "fp32",
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
    torch.int32: "i32",
    torch.int64: "i64",
}
Launch = tuple[Any, tuple[Any, ...], dict[str, Any]]


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> list[Launch]:
    noted: list[Launch] = []

    def note(kernel: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> None:
        noted.append((kernel, args, options))

    monkeypatch.setattr(triton.runtime.jit.JITFunction, "run", note)
    return noted


def compiled(launch: Launch, capability: int) -> Any:
    """The kernel as Triton's launcher specialises it: numbers by whether 16 divides them, 1 and None as constants."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel, args, options = launch
    warps = options.pop("num_warps")
    signature: dict[str, str] = {}
    constants: dict[tuple[int, ...], Any] = {}
    attributes: dict[tuple[int, ...], Any] = {}
    for place, name in enumerate(kernel.arg_names):
        value = options[name] if name in options else args[place]
        if isinstance(value, Tensor):
            signature[name] = f"*{TYPES[value.dtype]}"
        elif name in options or value is None or value == 1:
            signature[name], constants[place,] = "constexpr", value
            continue
        else:
            signature[name] = "i32"
        if isinstance(value, Tensor) or value % 16 == 0:
            attributes[place,] = [["tt.divisibility", 16]]
    options["num_warps"] = warps
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=attributes)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": warps})


def registers(made: Any, folder: Path) -> tuple[int, int]:
    """Registers of a thread, and bytes that did not fit into them."""
    (folder / "kernel.cubin").write_bytes(made.asm["cubin"])
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    told = subprocess.run([tool, "-res-usage", folder / "kernel.cubin"], capture_output=True, text=True, check=True)
    found = re.search(r"REG:(\d+) STACK:(\d+)", told.stdout)
    assert found is not None, told.stdout
    return int(found[1]), int(found[2])


def run_all(dtype: torch.dtype) -> None:
    """Every kernel once, as published sizes launch it."""
    from steer.kernels.gpu import batch, edit, sums, topk

    x_NF, W_FD = torch.zeros(8, 6144, dtype=dtype), torch.zeros(6144, 768, dtype=dtype)
    values_NK, indices_NK = topk.topk(x_NF, 32)
    sums.sums(indices_NK.flatten(), values_NK.flatten(), W_FD, k=32, bias_D=W_FD[0])
    starts_F = torch.zeros(6145, dtype=torch.long)
    long: dict[str, Any] = {"starts_N": starts_F, "shape": sums.LONG}
    sums.sums(indices_NK.flatten(), values_NK.flatten(), W_FD, **long)
    sums.dots(W_FD[:8], indices_NK.flatten(), W_FD, k=32)
    batch.largest(x_NF, 256)
    for count in (32, 64):
        numbers = [torch.zeros(count, dtype=dtype)] * 4
        edit.edit(W_FD[:64], W_FD[:count], *numbers, W_FD[:count])


def run_ones() -> None:
    """Numbers that are 1 are constants of a kernel, which makes it another one."""
    from steer.kernels.gpu import batch, edit, sums, topk

    x_NF, W_F1 = torch.zeros(8, 600), torch.zeros(600, 1)
    values_N1, indices_N1 = topk.topk(x_NF, 1)
    sums.sums(indices_N1.flatten(), values_N1.flatten(), W_F1, k=1)
    sums.sums(indices_N1.flatten(), values_N1.flatten(), W_F1, starts_N=torch.zeros(601, dtype=torch.long))
    sums.dots(W_F1[:8], indices_N1.flatten(), W_F1, k=1)
    batch.largest(torch.zeros(2, 1), 1)
    edit.edit(W_F1[:1], W_F1[:1], *[torch.zeros(1)] * 4, W_F1[:1])


@pytest.mark.parametrize(
    ("dtype", "capability"),
    [(torch.float32, 90), (torch.bfloat16, 90), (torch.float32, 80), (torch.bfloat16, 80)],
    ids=str,
)
def test_every_kernel_compiles_and_stays_in_registers(
    dtype: torch.dtype, capability: int, launches: list[Launch], tmp_path: Path
) -> None:
    run_all(dtype)
    if (dtype, capability) == (torch.float32, 90):
        run_ones()
    seen = set()
    for launch in launches:
        kernel, args, options = launch
        kind = (kernel.fn.__name__, *(None if isinstance(one, Tensor) else one for one in args), *options.values())
        if kind in seen:
            continue
        seen.add(kind)
        used, spilled = registers(compiled(launch, capability), tmp_path)
        assert spilled == 0 and used <= 255, (kind, used, spilled)
    names = {name for name, *_ in seen}
    assert names == {
        "maxima_kernel",
        "topk_kernel",
        "sums_kernel",
        "dots_kernel",
        "count_kernel",
        "sizes_kernel",
        "write_kernel",
        "edit_kernel",
    }
