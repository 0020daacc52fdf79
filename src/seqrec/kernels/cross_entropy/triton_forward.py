"""Forward passes of the cross-entropy on a GPU: log-sums over blocks of items, and what the positions pull back.

It is attention with the positions as queries and the items as keys and values: beside the log-sum of a position's
exponentials comes their mean of item vectors, which is the gradient of its hidden state. So the backward pass has the
item side to do only. Scores carry a factor log2(e) from the product on: exponentials are of base 2.

Shapes: T positions, N items, D width (filled up to a power of two), P parts that the items are cut into.
"""

from __future__ import annotations

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
#: Below every score there is, and finite, so that a difference of two is not NaN.
FLOOR = tl.constexpr(-1.0e30)
#: In `tl.dot`; float32 inputs are meant to stay float32 to the last digits.
PRECISION = tl.constexpr("tf32x3")


@triton.jit
def item_rows(weight, out, inverse, N, width, D: tl.constexpr, ROWS: tl.constexpr, COSINE: tl.constexpr):
    """Rows in the precision of the products, filled up with zeros; with COSINE of length one, and 1 / length (N,)."""
    n, d = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, D)
    at = n[:, None].to(tl.int64)
    inside = n[:, None] < N
    w_ND = tl.load(weight + at * width + d[None, :], mask=inside & (d[None, :] < width), other=0.0).to(tl.float32)
    if COSINE:
        inverse_N = 1.0 / tl.maximum(tl.sqrt(tl.sum(w_ND * w_ND, 1)), 1e-12)
        tl.store(inverse + n, inverse_N, mask=n < N)
        w_ND *= inverse_N[:, None]
    tl.store(out + at * D + d[None, :], w_ND.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _scores(h_TD, w_ND, bias, ids, n, N, target_T, HAS_BIAS: tl.constexpr, SHARED: tl.constexpr, EDGE: tl.constexpr):
    """(T, N) of base 2; SHARED: without the position's own target; EDGE: some of the items may not exist."""
    s_TN = tl.dot(h_TD, tl.trans(w_ND), input_precision=PRECISION) * LOG2E
    if HAS_BIAS:
        s_TN += (tl.load(bias + n, mask=n < N, other=0.0).to(tl.float32) * LOG2E)[None, :]
    if SHARED:
        s_TN = tl.where(tl.load(ids + n, mask=n < N, other=-1)[None, :] == target_T[:, None], float("-inf"), s_TN)
    if EDGE:
        s_TN = tl.where(n[None, :] < N, s_TN, float("-inf"))
    return s_TN


@triton.jit
def log_sums(
    h, w, bias, ids, targets, means, tops, totals, T, N, blocks, share,
    D: tl.constexpr, OWN: tl.constexpr, MET: tl.constexpr,
    HAS_BIAS: tl.constexpr, SHARED: tl.constexpr, GRADIENTS: tl.constexpr,
):  # fmt: skip
    """One program per OWN positions and `share` tiles of MET items. Writes largest score and sum of exponentials
    below it (P, T) and the sum of item vectors they weigh (P, T, D)."""
    block, part = tl.program_id(0) % blocks, (tl.program_id(0) // blocks).to(tl.int64)
    t, d = block * OWN + tl.arange(0, OWN), tl.arange(0, D)
    at = t[:, None].to(tl.int64) * D + d[None, :]
    h_TD = tl.load(h + at, mask=t[:, None] < T, other=0.0)
    target_T = tl.full((OWN,), -1, tl.int32)
    if SHARED:
        target_T = tl.load(targets + t, mask=t < T, other=-1).to(tl.int32)
    first = part * share
    last = tl.minimum(first + share, tl.cdiv(N, MET)) - 1

    # The last tile, which may reach over the edge, comes first: the others need no mask.
    n = (last * MET + tl.arange(0, MET)).to(tl.int32)
    w_ND = tl.load(w + n[:, None].to(tl.int64) * D + d[None, :], mask=n[:, None] < N, other=0.0)
    s_TN = _scores(h_TD, w_ND, bias, ids, n, N, target_T, HAS_BIAS, SHARED, True)
    top_T = tl.maximum(tl.max(s_TN, 1), FLOOR)
    p_TN = tl.exp2(s_TN - top_T[:, None])
    total_T = tl.sum(p_TN, 1)
    if GRADIENTS:
        mean_TD = tl.dot(p_TN.to(w_ND.dtype), w_ND, input_precision=PRECISION)

    rows = w + first * MET * D + tl.arange(0, MET)[:, None] * D + d[None, :]
    for tile in range(first.to(tl.int32), last.to(tl.int32)):
        w_ND = tl.load(rows)
        n = tile * MET + tl.arange(0, MET)
        s_TN = _scores(h_TD, w_ND, bias, ids, n, N, target_T, HAS_BIAS, SHARED, False)
        new_T = tl.maximum(top_T, tl.max(s_TN, 1))
        p_TN = tl.exp2(s_TN - new_T[:, None])
        old_T = tl.exp2(top_T - new_T)
        total_T = total_T * old_T + tl.sum(p_TN, 1)
        if GRADIENTS:
            mean_TD = tl.dot(p_TN.to(w_ND.dtype), w_ND, mean_TD * old_T[:, None], input_precision=PRECISION)
        top_T = new_T
        rows += MET * D

    tl.store(tops + part * T + t, top_T, mask=t < T)
    tl.store(totals + part * T + t, total_T, mask=t < T)
    if GRADIENTS:
        tl.store(means + part * T * D + at, mean_TD, mask=t[:, None] < T)


@triton.jit
def _merged(tops, totals, means, t, d, inside, T, parts, D: tl.constexpr, GRADIENTS: tl.constexpr):
    """What the parts found at positions t: largest score and total (ROWS,), and weighted sum of items (ROWS, D)."""
    top_T = tl.load(tops + t, mask=inside, other=0.0)
    total_T = tl.load(totals + t, mask=inside, other=1.0)
    entry_T = t.to(tl.int64)
    g_TD = tl.zeros((t.shape[0], D), tl.float32)
    if GRADIENTS:
        g_TD = tl.load(means + entry_T[:, None] * D + d[None, :], mask=inside[:, None], other=0.0)
    for _ in range(1, parts):
        entry_T += T
        next_T = tl.load(tops + entry_T, mask=inside, other=0.0)
        new_T = tl.maximum(top_T, next_T)
        old_T, fresh_T = tl.exp2(top_T - new_T), tl.exp2(next_T - new_T)
        total_T = total_T * old_T + tl.load(totals + entry_T, mask=inside, other=0.0) * fresh_T
        if GRADIENTS:
            next_TD = tl.load(means + entry_T[:, None] * D + d[None, :], mask=inside[:, None], other=0.0)
            g_TD = g_TD * old_T[:, None] + next_TD * fresh_T[:, None]
        top_T = new_T
    return top_T, total_T, g_TD


@triton.jit
def combine_log_sums(
    h, w, own, target_bias, targets, means, tops, totals, w_sum, bias_sum, dh, pull, log_sum, columns, sums, losses,
    T, N, parts, ignored, smoothing,
    D: tl.constexpr, ROWS: tl.constexpr,
    HAS_BIAS: tl.constexpr, SHARED: tl.constexpr, SMOOTHED: tl.constexpr, GRADIENTS: tl.constexpr, EACH: tl.constexpr,
):  # fmt: skip
    """One program per ROWS positions: what the parts found becomes one, and the target joins it.

    Writes the gradient `dh` (T, D) of a position's own loss; SHARED: the same of its target's score, `pull` (T,);
    `log_sum` (T,) of base 2 and `columns` (T,), the target, which are infinity and -1 where no loss is counted; and
    for the block the sum of losses and how many there are (T / ROWS, 2); EACH: the losses too, (T,). A target that
    does not exist makes NaN.

    Args:
        target_bias: HAS_BIAS: added to the targets' scores, (N,); SHARED: (T,).
    """
    t, d = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, D)
    inside = t < T
    at = t[:, None].to(tl.int64) * D + d[None, :]
    target_T = tl.load(targets + t, mask=inside, other=0)
    counted_T = inside & (target_T != ignored)
    top_T, total_T, g_TD = _merged(tops, totals, means, t, d, inside, T, parts, D, GRADIENTS)
    h_TD = tl.load(h + at, mask=inside[:, None], other=0.0).to(tl.float32)
    if SHARED:
        known_T, rows, row_T = counted_T, own, t.to(tl.int64)
    else:
        known_T, rows, row_T = counted_T & (target_T >= 0) & (target_T < N), w, target_T.to(tl.int64)
    w_TD = tl.load(rows + row_T[:, None] * D + d[None, :], mask=known_T[:, None], other=0.0).to(tl.float32)
    s_T = tl.sum(h_TD * w_TD, 1) * LOG2E
    if HAS_BIAS:
        s_T += tl.load(target_bias + row_T, mask=known_T, other=0.0).to(tl.float32) * LOG2E
    if SHARED:
        new_T = tl.maximum(top_T, s_T)
        old_T = tl.exp2(top_T - new_T)
        total_T = total_T * old_T + tl.exp2(s_T - new_T)
        top_T = new_T
        if GRADIENTS:
            g_TD *= old_T[:, None]
    log_sum_T = top_T + tl.log2(total_T)
    loss_T = (log_sum_T - (1.0 - smoothing) * s_T) / LOG2E
    weight_T = tl.full((ROWS,), 0.0, tl.float32) + (1.0 - smoothing)
    if SHARED:
        weight_T = 1.0 - tl.exp2(s_T - log_sum_T)
    if SMOOTHED:
        w_sum_D = tl.load(w_sum + d) / N
        loss_T -= smoothing * tl.sum(h_TD * w_sum_D[None, :], 1)
        if HAS_BIAS:
            loss_T -= smoothing * tl.load(bias_sum) / N
    loss_T = tl.where(known_T, loss_T, float("nan"))
    tl.store(sums + tl.program_id(0) * 2, tl.sum(tl.where(counted_T, loss_T, 0.0), 0))
    tl.store(sums + tl.program_id(0) * 2 + 1, tl.sum(tl.where(counted_T, 1.0, 0.0), 0))
    if EACH:
        tl.store(losses + t, tl.where(counted_T, loss_T, 0.0), mask=inside)
    tl.store(log_sum + t, tl.where(counted_T, log_sum_T, float("inf")), mask=inside)
    tl.store(columns + t, tl.where(counted_T, target_T, -1).to(tl.int32), mask=inside)
    if GRADIENTS:
        g_TD = g_TD / total_T[:, None] - weight_T[:, None] * w_TD
        if SMOOTHED:
            g_TD -= smoothing * w_sum_D[None, :]
        tl.store(dh + at, tl.where(counted_T[:, None], g_TD, 0.0), mask=inside[:, None])
    if SHARED:
        tl.store(pull + t, tl.where(counted_T, -weight_T, 0.0), mask=inside)
