"""Backward passes of the mLSTM on a GPU. Scores are computed again, so what is kept is linear in length.

With P_ts = q_t.k_s w_ts, denominator d_t = max(|n_t|, exp(-m_t)) and everything upstream of it:
dP_ts = dh_t.v_s / d_t + dn_t; dq, dk, dv follow from P and dP; and since the log of a gate multiplies every P it
touches, the gradient of log i_s is k_s.dk_s and that of the decay up to t is q_t.dq_t - k_t.dk_t.

Shapes: B rows, H heads, L positions, S positions in a block, K key width, V value width, N chunks.
"""

from __future__ import annotations

import triton
import triton.language as tl

from seqrec.kernels.mlstm.triton_common import (
    FLOOR,
    PRECISION,
    inner_weights,
    load_gates,
    load_history,
    load_rows,
    load_state,
    store_rows,
    store_state,
    upstream,
    weights_to_end,
)


@triton.jit(do_not_specialize=["ib", "ih", "L", "H", "blocks", "chunk_blocks"])
def gradients(
    q, k, v, i, f, h, n, m, dh, dq, dk, dv, di, decay_gradient, entries, log_scale, entry_gradients, histories,
    qb, qh, ql, vb, vh, vl, ib, ih, il, L, H, blocks, chunk_blocks, scale,
    K: tl.constexpr, V: tl.constexpr, S: tl.constexpr, SHORT: tl.constexpr,
    HAS_STATE: tl.constexpr, HAS_STARTS: tl.constexpr,
):  # fmt: skip
    """One program per block of positions. The last block of a row has SHORT positions in place of S, unless that
    is 0."""
    block, row = tl.program_id(0) % blocks, (tl.program_id(0) // blocks).to(tl.int64)
    b, head = row // H, row % H
    q, k, v = q + b * qb + head * qh, k + b * qb + head * qh, v + b * vb + head * vh
    i, f = i + b * ib + head * ih, f + b * ib + head * ih
    h, dh, dv = h + (b * L * H + head) * V, dh + (b * L * H + head) * V, dv + (b * L * H + head) * V
    dq, dk = dq + (b * L * H + head) * K, dk + (b * L * H + head) * K
    n, m, di, decay_gradient = n + row * L, m + row * L, di + row * L, decay_gradient + row * L
    state = row * (tl.cdiv(blocks, chunk_blocks) + 1) + block // chunk_blocks
    if HAS_STARTS:
        histories += b * L
    if SHORT == 0:  # noqa: SIM114 - Triton looks into one branch only
        _block(q, k, v, i, f, h, n, m, dh, dq, dk, dv, di, decay_gradient, entries, log_scale, entry_gradients,
               histories, ql, vl, il, L, H, block, blocks, chunk_blocks, state, scale,
               K, V, S, S, SHORT, HAS_STATE, HAS_STARTS)  # fmt: skip
    elif block < blocks - 1:
        _block(q, k, v, i, f, h, n, m, dh, dq, dk, dv, di, decay_gradient, entries, log_scale, entry_gradients,
               histories, ql, vl, il, L, H, block, blocks, chunk_blocks, state, scale,
               K, V, S, S, SHORT, HAS_STATE, HAS_STARTS)  # fmt: skip
    else:
        _block(q, k, v, i, f, h, n, m, dh, dq, dk, dv, di, decay_gradient, entries, log_scale, entry_gradients,
               histories, ql, vl, il, L, H, block, blocks, chunk_blocks, state, scale,
               K, V, S, SHORT, SHORT, HAS_STATE, HAS_STARTS)  # fmt: skip


@triton.jit
def _block(
    q, k, v, i, f, h, n, m, dh, dq, dk, dv, di, decay_gradient, entries, log_scale, entry_gradients, histories,
    ql, vl, il, L, H, block, blocks, chunk_blocks, state, scale,
    K: tl.constexpr, V: tl.constexpr, S: tl.constexpr, OWN: tl.constexpr, SHORT: tl.constexpr,
    HAS_STATE: tl.constexpr, HAS_STARTS: tl.constexpr,
):  # fmt: skip
    """OWN positions in two roles: their queries meet all earlier keys of the chunk, their keys all later queries.
    However far right a block stands, it meets as many others; and no two programs write to one place."""
    columns_K, columns_V = tl.arange(0, K), tl.arange(0, V)
    t = block * S + tl.arange(0, OWN)
    first, last = block // chunk_blocks * chunk_blocks, tl.minimum((block // chunk_blocks + 1) * chunk_blocks, blocks)

    q_SK = load_rows(q, t, columns_K, ql, L)
    k_SK = load_rows(k, t, columns_K, ql, L)
    v_SV = load_rows(v, t, columns_V, vl, L)
    i_S, log_f_S = load_gates(i, f, t, il, L)
    history_S = load_history(histories, t, L, HAS_STARTS)
    g_SV, dn_S, m_S = upstream(dh, h, n, m, t, columns_V, H * V, L)
    g_SV = g_SV.to(v_SV.dtype)

    # The block meets itself: keys along the first dimension, queries along the second.
    decay_S, weight_SS = inner_weights(i_S, log_f_S, t, history_S, HAS_STARTS)
    weight_SS = tl.exp(tl.trans(weight_SS - m_S[:, None]))
    scores_SS = tl.dot(k_SK, tl.trans(q_SK), input_precision=PRECISION) * scale * weight_SS
    dv_SV = tl.dot(scores_SS.to(g_SV.dtype), g_SV, input_precision=PRECISION)
    dscores_SS = (tl.dot(v_SV, tl.trans(g_SV), input_precision=PRECISION) + dn_S[None, :]) * weight_SS
    narrow_SS = (dscores_SS * scale).to(q_SK.dtype)
    dk_SK = tl.dot(narrow_SS, q_SK, input_precision=PRECISION)
    dq_SK = tl.dot(tl.trans(narrow_SS), k_SK, input_precision=PRECISION)

    dq_SK = _meet_earlier(
        k, v, i, f, entries, log_scale, histories, g_SV, dn_S, m_S, decay_S, history_S, dq_SK,
        ql, vl, il, L, block, first, state, scale, K, V, S, HAS_STATE, HAS_STARTS)  # fmt: skip
    store_rows(dq, t, columns_K, H * K, L, dq_SK)
    along_S = tl.sum(dq_SK * q_SK.to(tl.float32), 1)

    total = tl.sum(log_f_S, 0)
    dk_SK, dv_SV = _meet_all_later(
        q, i, f, h, n, m, dh, entry_gradients, log_scale, histories, k_SK, v_SV, total - decay_S + i_S, history_S,
        dk_SK, dv_SV, ql, il, L, H, block, blocks, last, state + 1, scale,
        K, V, S, SHORT, HAS_STATE, HAS_STARTS)  # fmt: skip
    store_rows(dk, t, columns_K, H * K, L, dk_SK)
    store_rows(dv, t, columns_V, H * V, L, dv_SV)
    di_S = tl.sum(dk_SK * k_SK.to(tl.float32), 1)
    tl.store(di + t, di_S, mask=t < L)
    tl.store(decay_gradient + t, along_S - di_S, mask=t < L)


@triton.jit
def _meet_earlier(
    k, v, i, f, entries, log_scale, histories, g_SV, dn_S, m_S, decay_S, history_S, dq_SK,
    ql, vl, il, L, block, first, state, scale,
    K: tl.constexpr, V: tl.constexpr, S: tl.constexpr, HAS_STATE: tl.constexpr, HAS_STARTS: tl.constexpr,
):  # fmt: skip
    """The gradient of a block's queries, with what earlier blocks of the chunk and what entered it add."""
    columns_K, columns_V = tl.arange(0, K), tl.arange(0, V)
    queries_S = decay_S
    if HAS_STARTS:
        own = tl.load(histories + block * S)
        queries_S = tl.where(history_S == own, decay_S, float("-inf"))
    gap = 0.0
    for back in range(block - first):
        s = (block - 1 - back) * S + tl.arange(0, S)
        weight_S, total = weights_to_end(*load_gates(i, f, s, il, L))
        if HAS_STARTS:
            weight_S = tl.where(load_history(histories, s, L, HAS_STARTS) == own, weight_S, float("-inf"))
        top = tl.maximum(tl.max(weight_S, 0), FLOOR)
        row_S, column_S = tl.exp(queries_S + (gap + top) - m_S) * scale, tl.exp(weight_S - top)
        earlier_SV, earlier_SK = load_rows(v, s, columns_V, vl, L), load_rows(k, s, columns_K, ql, L)
        earlier_SS = tl.dot(g_SV, tl.trans(earlier_SV), input_precision=PRECISION) + dn_S[:, None]
        earlier_SS = (earlier_SS * column_S[None, :]).to(earlier_SK.dtype)
        dq_SK += tl.dot(earlier_SS, earlier_SK, input_precision=PRECISION) * row_S[:, None]
        gap += total
    if HAS_STATE:
        memory_KV, normaliser_K = load_state(entries, state, columns_K, columns_V, K, V)
        if HAS_STARTS:
            before = 0
            if first > 0:
                before = tl.load(histories + first * S - 1)
            queries_S = tl.where(history_S == before, queries_S, float("-inf"))
        row_S = tl.exp(queries_S + (gap + tl.load(log_scale + state)) - m_S) * scale
        recalled_SK = tl.dot(g_SV, tl.trans(memory_KV).to(g_SV.dtype), input_precision=PRECISION)
        dq_SK += (recalled_SK + dn_S[:, None] * normaliser_K[None, :]) * row_S[:, None]
    return dq_SK


@triton.jit
def _meet_all_later(
    q, i, f, h, n, m, dh, entry_gradients, log_scale, histories, k_SK, v_SV, weight_S, history_S, dk_SK, dv_SV,
    ql, il, L, H, block, blocks, last, state, scale,
    K: tl.constexpr, V: tl.constexpr, S: tl.constexpr, SHORT: tl.constexpr,
    HAS_STATE: tl.constexpr, HAS_STARTS: tl.constexpr,
):  # fmt: skip
    """Gradients of a block's keys and values, with what later blocks of the chunk and what leaves it add.

    weight_S is the log weight of each position at the end of the block."""
    columns_K, columns_V = tl.arange(0, K), tl.arange(0, V)
    own = 0
    if HAS_STARTS:
        own = tl.load(histories + tl.minimum((block + 1) * S, L) - 1)
        weight_S = tl.where(history_S == own, weight_S, float("-inf"))
    top = tl.maximum(tl.max(weight_S, 0), FLOOR)
    column_S = tl.exp(weight_S - top)
    gap = 0.0
    whole = last
    if SHORT > 0:
        whole = tl.minimum(last, blocks - 1)
    for ahead in range(block + 1, whole):
        dk_SK, dv_SV, gap = _meet_later(
            q, i, f, h, n, m, dh, histories, k_SK, v_SV, dk_SK, dv_SV, column_S, gap, top, own, ahead * S,
            ql, il, L, H, scale, K, V, S, HAS_STARTS)  # fmt: skip
    if SHORT > 0:  # noqa: SIM102
        if (last == blocks) & (block < blocks - 1):
            dk_SK, dv_SV, gap = _meet_later(
                q, i, f, h, n, m, dh, histories, k_SK, v_SV, dk_SK, dv_SV, column_S, gap, top, own, whole * S,
                ql, il, L, H, scale, K, V, SHORT, HAS_STARTS)  # fmt: skip
    if HAS_STATE:
        memory_KV, normaliser_K = load_state(entry_gradients, state, columns_K, columns_V, K, V)
        passes = gap + top - tl.load(log_scale + state)
        if HAS_STARTS:
            end = tl.load(histories + tl.minimum(last * S, L) - 1)
            passes = tl.where(own == end, passes, float("-inf"))  # before exp: 0 times infinity is NaN
        column_S *= tl.exp(passes)
        narrow_KV = memory_KV.to(k_SK.dtype)
        dv_SV += tl.dot(k_SK, narrow_KV, input_precision=PRECISION) * column_S[:, None]
        recalled_SK = tl.dot(v_SV, tl.trans(narrow_KV), input_precision=PRECISION) + normaliser_K[None, :]
        dk_SK += recalled_SK * column_S[:, None]
    return dk_SK, dv_SV


@triton.jit
def _meet_later(
    q, i, f, h, n, m, dh, histories, k_SK, v_SV, dk_SK, dv_SV, column_S, gap, top, own, start,
    ql, il, L, H, scale, K: tl.constexpr, V: tl.constexpr, S: tl.constexpr, HAS_STARTS: tl.constexpr,
):  # fmt: skip
    """What S queries from `start` on add to the gradients of earlier keys and values; and the decay up to their end."""
    columns_K, columns_V = tl.arange(0, K), tl.arange(0, V)
    s = start + tl.arange(0, S)
    _, log_f_S = load_gates(i, f, s, il, L)
    decay_S = tl.cumsum(log_f_S, 0)
    if HAS_STARTS:
        decay_S = tl.where(load_history(histories, s, L, HAS_STARTS) == own, decay_S, float("-inf"))
    later_SV, dn_S, m_S = upstream(dh, h, n, m, s, columns_V, H * V, L)
    later_SV = later_SV.to(v_SV.dtype)
    later_SK = load_rows(q, s, columns_K, ql, L)
    weight_SS = column_S[:, None] * (tl.exp(decay_S + (gap + top) - m_S) * scale)[None, :]
    scores_SS = tl.dot(k_SK, tl.trans(later_SK), input_precision=PRECISION) * weight_SS
    dv_SV += tl.dot(scores_SS.to(later_SV.dtype), later_SV, input_precision=PRECISION)
    dscores_SS = (tl.dot(v_SV, tl.trans(later_SV), input_precision=PRECISION) + dn_S[None, :]) * weight_SS
    dk_SK += tl.dot(dscores_SS.to(later_SK.dtype), later_SK, input_precision=PRECISION)
    return dk_SK, dv_SV, gap + tl.sum(log_f_S, 0)


@triton.jit(do_not_specialize=["fb", "fh", "L", "H", "chunks"])
def chunk_gradients(
    q, f, h, n, m, dh, entry_gradients, log_scale, histories,
    qb, qh, ql, fb, fh, fl, L, H, chunks, chunk_blocks, scale,
    K: tl.constexpr, V: tl.constexpr, S: tl.constexpr, HAS_STARTS: tl.constexpr,
):  # fmt: skip
    """One program per chunk: the gradient of what it is entered with, from its own hidden states alone, times
    exp(log_scale). Writes all but the last of `entry_gradients` (B, H, N+1, K V + K)."""
    chunk, row = tl.program_id(0) % chunks, (tl.program_id(0) // chunks).to(tl.int64)
    b, head = row // H, row % H
    q, f, h, dh = (
        q + b * qb + head * qh,
        f + b * fb + head * fh,
        h + (b * L * H + head) * V,
        dh + (b * L * H + head) * V,
    )
    n, m = n + row * L, m + row * L
    columns_K, columns_V = tl.arange(0, K), tl.arange(0, V)
    first, last = chunk * chunk_blocks, tl.minimum((chunk + 1) * chunk_blocks, tl.cdiv(L, S))
    before = 0
    if HAS_STARTS:
        histories += b * L
        if chunk > 0:
            before = tl.load(histories + first * S - 1)
    state = row * (chunks + 1) + chunk

    memory_KV = tl.zeros((K, V), tl.float32)
    normaliser_K = tl.zeros((K,), tl.float32)
    gap = tl.load(log_scale + state)
    for block in range(first, last):
        t = block * S + tl.arange(0, S)
        _, log_f_S = load_gates(f, f, t, fl, L)
        decay_S = tl.cumsum(log_f_S, 0)
        if HAS_STARTS:
            decay_S = tl.where(load_history(histories, t, L, HAS_STARTS) == before, decay_S, float("-inf"))
        g_SV, dn_S, m_S = upstream(dh, h, n, m, t, columns_V, H * V, L)
        q_SK = load_rows(q, t, columns_K, ql, L)
        q_SK = (q_SK * (tl.exp(decay_S + gap - m_S) * scale)[:, None]).to(q_SK.dtype)
        memory_KV += tl.dot(tl.trans(q_SK), g_SV.to(q_SK.dtype), input_precision=PRECISION)
        normaliser_K += tl.sum(q_SK.to(tl.float32) * dn_S[:, None], 0)
        gap += tl.sum(log_f_S, 0)
    store_state(entry_gradients, state, columns_K, columns_V, memory_KV, normaliser_K, K, V)


@triton.jit(do_not_specialize=["L", "H", "chunks"])
def carry_gradients(entry_gradients, log_scale, decay, histories, L, H, chunks, chunk_length,
                    SIZE: tl.constexpr, S: tl.constexpr, HAS_STARTS: tl.constexpr):  # fmt: skip
    """The way back of `triton_forward.carry`: adds to the gradient of each entry, from its own chunk alone so far,
    that from all later ones and from the last entry, which is given."""
    row, part_S = tl.program_id(0).to(tl.int64), tl.program_id(1) * S + tl.arange(0, S)
    entry_gradients += row * (chunks + 1) * SIZE + part_S
    log_scale, decay = log_scale + row * (chunks + 1), decay + row * chunks
    inside = part_S < SIZE
    entry_S = tl.load(entry_gradients + chunks * SIZE, mask=inside)
    after = tl.load(log_scale + chunks)
    for back in range(chunks):
        chunk = chunks - 1 - back
        before = tl.load(log_scale + chunk)
        through = tl.exp(tl.load(decay + chunk) + before - after)
        if HAS_STARTS:
            end = tl.load(histories + row // H * L + tl.minimum((chunk + 1) * chunk_length, L) - 1)
            own = 0
            if chunk > 0:
                own = tl.load(histories + row // H * L + chunk * chunk_length - 1)
            through = tl.where(end == own, through, 0.0)
        entry_S = entry_S * through + tl.load(entry_gradients + chunk * SIZE, mask=inside)
        tl.store(entry_gradients + chunk * SIZE, entry_S, mask=inside)
        after = before


@triton.jit(do_not_specialize=["fb", "fh", "L", "H"])
def forget_gradients(f, decay_gradient, ending, df, fb, fh, fl, L, H, S: tl.constexpr, HAS_ENDING: tl.constexpr):
    """One program per row and head, from its end to its start: df (B, H, L), before activation. What a forget gate
    does to one decay it does to all later ones, and to the state at the end: `ending` (B, H)."""
    row = tl.program_id(0).to(tl.int64)
    f += row // H * fb + row % H * fh
    decay_gradient, df = decay_gradient + row * L, df + row * L
    later = 0.0
    if HAS_ENDING:
        later = tl.load(ending + row)
    for back in range(tl.cdiv(L, S)):
        t = (tl.cdiv(L, S) - 1 - back) * S + tl.arange(0, S)
        own_S = tl.load(decay_gradient + t, mask=t < L, other=0.0)
        f_S = tl.load(f + t * fl, mask=t < L, other=0.0).to(tl.float32)
        closing_S = 1.0 / (1.0 + tl.exp(f_S))
        df_S = (tl.cumsum(own_S, 0, reverse=True) + later) * closing_S
        tl.store(df + t, df_S.to(df.dtype.element_ty), mask=t < L)
        later += tl.sum(own_S, 0)
