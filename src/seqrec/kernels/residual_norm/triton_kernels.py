"""The residual norm and its gradients on a GPU, whole rows at a time.

Whether a number of the branch stays is decided by Philox (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2,
3", 2011) from the seed and where the number stands, so both passes come to the same and nothing is stored.

Shapes: T rows, D width, P width filled up to a power of two, R rows at a time, G programs.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _kept(seed, row_R, threshold, P: tl.constexpr):
    """(R, P) bool. A call of Philox is good for four neighbours."""
    quarter_RQ = row_R[:, None] * 0 + tl.arange(0, P // 4)[None, :]
    row_RQ, zero_RQ = quarter_RQ * 0 + row_R[:, None], quarter_RQ * 0
    a, b, c, d = tl.philox(tl.load(seed), quarter_RQ, row_RQ, zero_RQ, zero_RQ)
    bits_RP = tl.reshape(tl.join(tl.join(a, b), tl.join(c, d)), (row_R.shape[0], P))
    return (bits_RP >> 8).to(tl.int32) >= threshold


@triton.jit(do_not_specialize=["T", "threshold"])
def residual_norm_forward(
    x, branch, weight, bias, seed, stream, normed, mean, scale, T, eps, threshold, kept_scale,
    D: tl.constexpr, P: tl.constexpr, R: tl.constexpr,
    HAS_BRANCH: tl.constexpr, DROPS: tl.constexpr, CENTRED: tl.constexpr,
):  # fmt: skip
    """One program per R rows. Writes the stream where there is a branch, its norm, and for the backward pass 1 / root
    mean square (T,) and, if CENTRED, the mean (T,)."""
    row_R, column_P = tl.program_id(0) * R + tl.arange(0, R), tl.arange(0, P)
    there_RP = (row_R < T)[:, None] & (column_P < D)[None, :]
    at_RP = row_R.to(tl.int64)[:, None] * D + column_P[None, :]
    x_RP = tl.load(x + at_RP, mask=there_RP, other=0.0).to(tl.float32)
    if HAS_BRANCH:
        branch_RP = tl.load(branch + at_RP, mask=there_RP, other=0.0).to(tl.float32)
        if DROPS:
            branch_RP = tl.where(_kept(seed, row_R, threshold, P), branch_RP * kept_scale, 0.0)
        stream_RP = (x_RP + branch_RP).to(stream.dtype.element_ty)
        tl.store(stream + at_RP, stream_RP, mask=there_RP)
        x_RP = stream_RP.to(tl.float32)
    if CENTRED:
        mean_R = tl.sum(x_RP, 1) / D
        tl.store(mean + row_R, mean_R, mask=row_R < T)
        x_RP = tl.where((column_P < D)[None, :], x_RP - mean_R[:, None], 0.0)
    scale_R = tl.rsqrt(tl.sum(x_RP * x_RP, 1) / D + eps)
    tl.store(scale + row_R, scale_R, mask=row_R < T)
    weight_P = tl.load(weight + column_P, mask=column_P < D, other=0.0).to(tl.float32)
    y_RP = x_RP * scale_R[:, None] * weight_P[None, :]
    if CENTRED:
        y_RP += tl.load(bias + column_P, mask=column_P < D, other=0.0).to(tl.float32)[None, :]
    tl.store(normed + at_RP, y_RP.to(normed.dtype.element_ty), mask=there_RP)


@triton.jit(do_not_specialize=["T", "threshold"])
def residual_norm_backward(
    stream, weight, seed, mean, scale, dstream, dnormed, dx, dbranch, sums, T, threshold, kept_scale,
    D: tl.constexpr, P: tl.constexpr, R: tl.constexpr,
    HAS_DSTREAM: tl.constexpr, HAS_BRANCH: tl.constexpr, DROPS: tl.constexpr, CENTRED: tl.constexpr,
):  # fmt: skip
    """G programs, each with every G-th block of R rows. Writes the gradients of x and branch, and sums (1 or 2, G, D),
    a program's share of the gradients of weight and bias."""
    column_P = tl.arange(0, P)
    weight_P = tl.load(weight + column_P, mask=column_P < D, other=0.0).to(tl.float32)
    dweight_RP = tl.zeros((R, P), tl.float32)
    dbias_RP = tl.zeros((R, P), tl.float32)
    for block in range(tl.program_id(0), tl.cdiv(T, R), tl.num_programs(0)):
        row_R = block * R + tl.arange(0, R)
        there_RP = (row_R < T)[:, None] & (column_P < D)[None, :]
        at_RP = row_R.to(tl.int64)[:, None] * D + column_P[None, :]
        x_RP = tl.load(stream + at_RP, mask=there_RP, other=0.0).to(tl.float32)
        dy_RP = tl.load(dnormed + at_RP, mask=there_RP, other=0.0).to(tl.float32)
        scale_R = tl.load(scale + row_R, mask=row_R < T, other=0.0)
        if CENTRED:
            x_RP -= tl.load(mean + row_R, mask=row_R < T, other=0.0)[:, None]
            dbias_RP += dy_RP
        x_RP *= scale_R[:, None]
        dweight_RP += dy_RP * x_RP
        dy_RP *= weight_P[None, :]
        d_RP = dy_RP - x_RP * (tl.sum(dy_RP * x_RP, 1) / D)[:, None]
        if CENTRED:
            d_RP -= (tl.sum(dy_RP, 1) / D)[:, None]
        d_RP *= scale_R[:, None]
        if HAS_DSTREAM:
            d_RP += tl.load(dstream + at_RP, mask=there_RP, other=0.0).to(tl.float32)
        tl.store(dx + at_RP, d_RP.to(dx.dtype.element_ty), mask=there_RP)
        if HAS_BRANCH:
            if DROPS:
                d_RP = tl.where(_kept(seed, row_R, threshold, P), d_RP * kept_scale, 0.0)
            tl.store(dbranch + at_RP, d_RP.to(dbranch.dtype.element_ty), mask=there_RP)
    sums += tl.program_id(0) * D + column_P
    tl.store(sums, tl.sum(dweight_RP, 0), mask=column_P < D)
    if CENTRED:
        tl.store(sums + tl.num_programs(0) * D, tl.sum(dbias_RP, 0), mask=column_P < D)
