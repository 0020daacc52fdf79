"""Backward passes of the cross-entropy on a GPU: gradients of item vectors and biases, without atomics.

A program owns items and meets all positions, whose probabilities it computes again.

Shapes: T positions, N items, D width (filled up to a power of two), P parts that the positions are cut into.
"""

from __future__ import annotations

import triton
import triton.language as tl

from seqrec.kernels.cross_entropy.triton_forward import LOG2E, PRECISION


@triton.jit
def _meet(w_ND, h_TD, log_sum_T, column_T, bias_N, key_N, hit, HAS_BIAS: tl.constexpr, SHARED: tl.constexpr):
    """Gradients (N, T) of the scores: probabilities, less what the target has; SHARED: none where item is target."""
    s_NT = tl.dot(w_ND, tl.trans(h_TD), input_precision=PRECISION) * LOG2E
    if HAS_BIAS:
        s_NT += bias_N[:, None]
    p_NT = tl.exp2(s_NT - log_sum_T[None, :])
    same_NT = key_N[:, None] == column_T[None, :]
    if SHARED:
        return tl.where(same_NT, 0.0, p_NT)
    return tl.where(same_NT, p_NT - hit, p_NT)


@triton.jit
def item_gradients(
    h, w, bias, ids, log_sum, columns, weights, dw, dbias, T, N, blocks, share, hit,
    D: tl.constexpr, OWN: tl.constexpr, MET: tl.constexpr,
    HAS_BIAS: tl.constexpr, SHARED: tl.constexpr, EACH: tl.constexpr,
):  # fmt: skip
    """One program per OWN items and `share` tiles of MET positions. Writes sums over its positions (P, N, D), (P, N).

    Args:
        weights: EACH: (T,) float32, what each position's gradients are multiplied with.
        hit: share of a target that is on its own item.
    """
    block, part = tl.program_id(0) % blocks, (tl.program_id(0) // blocks).to(tl.int64)
    n, d = block * OWN + tl.arange(0, OWN), tl.arange(0, D)
    at = n[:, None].to(tl.int64) * D + d[None, :]
    w_ND = tl.load(w + at, mask=n[:, None] < N, other=0.0)
    key_N, bias_N = n, tl.full((OWN,), 0.0, tl.float32)
    if SHARED:
        key_N = tl.load(ids + n, mask=n < N, other=-2)
    if HAS_BIAS:
        bias_N = tl.load(bias + n, mask=n < N, other=0.0).to(tl.float32) * LOG2E
    dw_ND, dbias_N = tl.zeros((OWN, D), tl.float32), tl.zeros((OWN,), tl.float32)
    first = part.to(tl.int32) * share
    rows = h + first.to(tl.int64) * MET * D + tl.arange(0, MET)[:, None] * D + d[None, :]
    for tile in range(first, tl.minimum(first + share, tl.cdiv(T, MET))):
        t = tile * MET + tl.arange(0, MET)
        h_TD = tl.load(rows, mask=t[:, None] < T, other=0.0)
        log_sum_T = tl.load(log_sum + t, mask=t < T, other=float("inf"))
        column_T = tl.load(columns + t, mask=t < T, other=-1)
        p_NT = _meet(w_ND, h_TD, log_sum_T, column_T, bias_N, key_N, hit, HAS_BIAS, SHARED)
        if EACH:
            p_NT *= tl.load(weights + t, mask=t < T, other=0.0)[None, :]
        dw_ND = tl.dot(p_NT.to(h_TD.dtype), h_TD, dw_ND, input_precision=PRECISION)
        if HAS_BIAS:
            dbias_N += tl.sum(p_NT, 1)
        rows += MET * D
    tl.store(dw + part * N * D + at, dw_ND, mask=n[:, None] < N)
    if HAS_BIAS:
        tl.store(dbias + part * N + n, dbias_N, mask=n < N)


@triton.jit
def finish_item_gradients(
    sums, weight, inverse, h_sum, scale, dw, N, width, parts, smoothing,
    D: tl.constexpr, ROWS: tl.constexpr, COSINE: tl.constexpr, SMOOTHED: tl.constexpr,
):  # fmt: skip
    """One program per ROWS items: the parts (P, N, D) together, through the normalisation, times `scale`.

    `sums` may be `dw` itself where there is one part of that width.
    """
    n, d = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, D)
    inside, at = n[:, None] < N, n[:, None].to(tl.int64)
    g_ND = tl.load(sums + at * D + d[None, :], mask=inside, other=0.0)
    entry = at
    for _ in range(1, parts):
        entry += N
        g_ND += tl.load(sums + entry * D + d[None, :], mask=inside, other=0.0)
    if SMOOTHED:
        g_ND -= smoothing / N * tl.load(h_sum + d)[None, :]
    columns = inside & (d[None, :] < width)
    if COSINE:
        inverse_N = tl.load(inverse + n, mask=n < N, other=0.0)
        u_ND = tl.load(weight + at * width + d[None, :], mask=columns, other=0.0).to(tl.float32) * inverse_N[:, None]
        g_ND = (g_ND - u_ND * tl.sum(g_ND * u_ND, 1)[:, None]) * inverse_N[:, None]
    tl.store(dw + at * width + d[None, :], (g_ND * tl.load(scale)).to(dw.dtype.element_ty), mask=columns)
