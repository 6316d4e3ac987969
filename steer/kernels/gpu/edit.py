"""An edit of a few features as one kernel: encode them, change them, add what that changes to the activation.

A program takes 16 activations through all of it, so that an edit costs one launch, one read of the activations (the
second one is from the cache) and one write. Products of fp32 are of fp32 throughout, without TF32.

Checked by Triton's interpreter on the CPU and compiled for sm_80 and sm_90, but not yet run on a GPU.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from steer.kernels.gpu.launch import next_power, on

MOST = 64
"""The most features: what a program holds of them lies in registers."""
ROWS = 16
"""Activations of a program."""


@triton.jit
def edit_kernel(
    x_ptr,
    W_enc_ptr,
    bias_ptr,
    threshold_ptr,
    factor_ptr,
    offset_ptr,
    W_dec_ptr,
    out_ptr,
    rows,
    width,
    features,
    stride,
    FEATURES: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WIDENED: tl.constexpr,
):
    """Rows n of x: a feature f above its threshold (else 0) becomes factor * f + offset."""
    n = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    s = tl.arange(0, FEATURES)
    held_n = n < rows
    held_s = s < features
    kind = W_enc_ptr.dtype.element_ty
    pre = tl.zeros([ROWS, FEATURES], tl.float32)
    first = 0
    while first < width:
        d = first + tl.arange(0, COLUMNS)
        held_d = d < width
        x = tl.load(x_ptr + n[:, None] * stride + d[None, :], mask=held_n[:, None] & held_d[None, :], other=0.0)
        # [S, D] in memory: the columns of the encoder
        W = tl.load(W_enc_ptr + s[None, :] * width + d[:, None], mask=held_s[None, :] & held_d[:, None], other=0.0)
        x = x.to(kind)
        if WIDENED:
            x, W = x.to(tl.float32), W.to(tl.float32)
        pre = tl.dot(x, W, acc=pre, input_precision="ieee")
        first += COLUMNS
    pre += tl.load(bias_ptr + s, mask=held_s, other=0.0).to(tl.float32)[None, :]
    threshold = tl.load(threshold_ptr + s, mask=held_s, other=0.0).to(tl.float32)
    factor = tl.load(factor_ptr + s, mask=held_s, other=1.0).to(tl.float32)
    offset = tl.load(offset_ptr + s, mask=held_s, other=0.0).to(tl.float32)
    f = tl.where(pre > threshold[None, :], pre, 0.0)
    change = ((factor - 1.0)[None, :] * f + offset[None, :]).to(kind)
    if WIDENED:
        change = change.to(tl.float32)
    first = 0
    while first < width:
        d = first + tl.arange(0, COLUMNS)
        held = held_n[:, None] & (d < width)[None, :]
        W = tl.load(W_dec_ptr + s[:, None] * width + d[None, :], mask=held_s[:, None] & (d < width)[None, :], other=0.0)
        if WIDENED:
            W = W.to(tl.float32)
        moved = tl.dot(change, W, input_precision="ieee")
        x = tl.load(x_ptr + n[:, None] * stride + d[None, :], mask=held, other=0.0).to(tl.float32)
        tl.store(out_ptr + n[:, None] * width + d[None, :], (x + moved).to(out_ptr.dtype.element_ty), mask=held)
        first += COLUMNS


@torch.no_grad()
def edit(
    x_XD: Tensor,
    W_enc_SD: Tensor,
    bias_S: Tensor,
    threshold_S: Tensor,
    factor_S: Tensor,
    offset_S: Tensor,
    W_dec_SD: Tensor,
) -> Tensor:
    """x + (f' - f) W_dec [..., D] in the dtype of x, f' being factor * f + offset, and f the features [..., S].

    A feature is x W_enc + bias where that exceeds its threshold, and 0 elsewhere. All but x are of one dtype, and
    there are at most `MOST` features.
    """
    picked = [one.contiguous() for one in (W_enc_SD, bias_S, threshold_S, factor_S, offset_S, W_dec_SD)]
    x_ND = x_XD.reshape(-1, x_XD.shape[-1])
    x_ND = x_ND if x_ND.stride(1) == 1 else x_ND.contiguous()
    out_ND = torch.empty(x_ND.shape, dtype=x_ND.dtype, device=x_ND.device)
    if out_ND.numel():
        with on(x_ND):
            edit_kernel[(triton.cdiv(len(x_ND), ROWS),)](
                x_ND,
                *picked,
                out_ND,
                len(x_ND),
                x_ND.shape[1],
                len(bias_S),
                x_ND.stride(0),
                FEATURES=max(16, next_power(len(bias_S))),
                ROWS=ROWS,
                COLUMNS=64 if len(bias_S) <= 32 else 32,
                WIDENED=not x_ND.is_cuda,  # Triton's interpreter takes bfloat16 for whole numbers
                num_warps=4,
            )
    return out_ND.view(x_XD.shape)
