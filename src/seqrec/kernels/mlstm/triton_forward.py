"""Forward passes of the mLSTM on a GPU: hidden states of a block of positions, and states at the ends of chunks.

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
    weights_to_end,
)


@triton.jit(do_not_specialize=["ib", "ih", "L", "H", "blocks", "chunk_blocks"])
def hidden_states(
    q, k, v, i, f, h, n, m, entries, log_scale, histories,
    qb, qh, ql, vb, vh, vl, ib, ih, il, L, H, blocks, chunk_blocks, scale,
    K: tl.constexpr, V: tl.constexpr, S: tl.constexpr, SHORT: tl.constexpr,
    HAS_STATE: tl.constexpr, HAS_STARTS: tl.constexpr,
):  # fmt: skip
    """One program per block of queries; writes h, and normaliser n and log scale m (B, H, L) of each. The last block
    of a row has SHORT positions in place of S, unless that is 0."""
    block, row = tl.program_id(0) % blocks, (tl.program_id(0) // blocks).to(tl.int64)
    b, head = row // H, row % H
    q, k, v = q + b * qb + head * qh, k + b * qb + head * qh, v + b * vb + head * vh
    i, f, h = i + b * ib + head * ih, f + b * ib + head * ih, h + (b * L * H + head) * V
    n, m = n + row * L, m + row * L
    state = row * (tl.cdiv(blocks, chunk_blocks) + 1) + block // chunk_blocks
    if HAS_STARTS:
        histories += b * L
    first = block // chunk_blocks * chunk_blocks
    if SHORT == 0:  # noqa: SIM114 - Triton looks into one branch only
        _block(q, k, v, i, f, h, n, m, entries, log_scale, histories, ql, vl, il, L, H, block, first, state, scale,
               K, V, S, S, HAS_STATE, HAS_STARTS)  # fmt: skip
    elif block < blocks - 1:
        _block(q, k, v, i, f, h, n, m, entries, log_scale, histories, ql, vl, il, L, H, block, first, state, scale,
               K, V, S, S, HAS_STATE, HAS_STARTS)  # fmt: skip
    else:
        _block(q, k, v, i, f, h, n, m, entries, log_scale, histories, ql, vl, il, L, H, block, first, state, scale,
               K, V, S, SHORT, HAS_STATE, HAS_STARTS)  # fmt: skip


@triton.jit
def _block(
    q, k, v, i, f, h, n, m, entries, log_scale, histories, ql, vl, il, L, H, block, first, state, scale,
    K: tl.constexpr, V: tl.constexpr, S: tl.constexpr, OWN: tl.constexpr,
    HAS_STATE: tl.constexpr, HAS_STARTS: tl.constexpr,
):  # fmt: skip
    """OWN queries meet their own keys first, then earlier blocks of S back to the start of the chunk, then what the
    chunk was entered with."""
    columns_K, columns_V = tl.arange(0, K), tl.arange(0, V)
    t = block * S + tl.arange(0, OWN)
    q_SK = load_rows(q, t, columns_K, ql, L)
    v_SV = load_rows(v, t, columns_V, vl, L)
    i_S, log_f_S = load_gates(i, f, t, il, L)
    history_S = load_history(histories, t, L, HAS_STARTS)
    decay_S, weight_SS = inner_weights(i_S, log_f_S, t, history_S, HAS_STARTS)
    m_S = tl.maximum(tl.max(weight_SS, 1), FLOOR)
    scores_SS = tl.dot(q_SK, tl.trans(load_rows(k, t, columns_K, ql, L)), input_precision=PRECISION) * scale
    scores_SS *= tl.exp(weight_SS - m_S[:, None])
    n_S = tl.sum(scores_SS, 1)
    h_SV = tl.dot(scores_SS.to(v_SV.dtype), v_SV, input_precision=PRECISION)
    if HAS_STARTS:
        own = tl.load(histories + block * S)
        decay_S = tl.where(history_S == own, decay_S, float("-inf"))  # only the first history began before this block

    gap = 0.0
    for back in range(block - first):
        s = (block - 1 - back) * S + tl.arange(0, S)
        earlier_SK = load_rows(k, s, columns_K, ql, L)
        earlier_SV = load_rows(v, s, columns_V, vl, L)
        weight_S, total = weights_to_end(*load_gates(i, f, s, il, L))
        if HAS_STARTS:
            weight_S = tl.where(load_history(histories, s, L, HAS_STARTS) == own, weight_S, float("-inf"))
        top = tl.maximum(tl.max(weight_S, 0), FLOOR)
        new_S = tl.maximum(m_S, decay_S + (gap + top))
        old_S, fresh_S = tl.exp(m_S - new_S), tl.exp(decay_S + (gap + top) - new_S)
        earlier_SS = (
            tl.dot(q_SK, tl.trans(earlier_SK), input_precision=PRECISION) * (scale * tl.exp(weight_S - top))[None, :]
        )
        n_S = n_S * old_S + tl.sum(earlier_SS, 1) * fresh_S
        fresh_SV = tl.dot(earlier_SS.to(earlier_SV.dtype), earlier_SV, input_precision=PRECISION)
        h_SV = h_SV * old_S[:, None] + fresh_SV * fresh_S[:, None]
        m_S = new_S
        gap += total

    if HAS_STATE:
        h_SV, n_S, m_S = _recall(
            entries, log_scale, histories, q_SK, h_SV, n_S, m_S, decay_S, history_S, gap, first * S, state, scale,
            K, V, HAS_STARTS)  # fmt: skip

    store_rows(h, t, columns_V, H * V, L, h_SV / tl.maximum(tl.abs(n_S), tl.exp(-m_S))[:, None])
    tl.store(n + t, n_S, mask=t < L)
    tl.store(m + t, m_S, mask=t < L)


@triton.jit
def _recall(
    entries, log_scale, histories, q_SK, h_SV, n_S, m_S, decay_S, history_S, gap, start, state, scale,
    K: tl.constexpr, V: tl.constexpr, HAS_STARTS: tl.constexpr,
):  # fmt: skip
    """h, n and m of a block with what its chunk, which begins at `start`, was entered with."""
    columns_K, columns_V = tl.arange(0, K), tl.arange(0, V)
    memory_KV, normaliser_K = load_state(entries, state, columns_K, columns_V, K, V)
    if HAS_STARTS:
        before = 0
        if start > 0:
            before = tl.load(histories + start - 1)
        decay_S = tl.where(history_S == before, decay_S, float("-inf"))
    carried_S = decay_S + (gap + tl.load(log_scale + state))
    new_S = tl.maximum(m_S, carried_S)
    old_S, fresh_S = tl.exp(m_S - new_S), tl.exp(carried_S - new_S) * scale
    n_S = n_S * old_S + tl.sum(q_SK.to(tl.float32) * normaliser_K[None, :], 1) * fresh_S
    fresh_SV = tl.dot(q_SK, memory_KV.to(q_SK.dtype), input_precision=PRECISION)
    h_SV = h_SV * old_S[:, None] + fresh_SV * fresh_S[:, None]
    m_S = new_S
    return h_SV, n_S, m_S


@triton.jit(do_not_specialize=["ib", "ih", "L", "H", "chunks"])
def chunk_states(
    k, v, i, f, entries, local_scale, decay, histories,
    kb, kh, kl, vb, vh, vl, ib, ih, il, L, H, chunks, chunk_blocks,
    K: tl.constexpr, V: tl.constexpr, S: tl.constexpr, HAS_STARTS: tl.constexpr,
):  # fmt: skip
    """One program per chunk: what it alone leaves behind, and by how much what it was entered with fades. Writes
    all but the first of `entries` (B, H, N+1, K V + K), and log scale and decay (B, H, N)."""
    chunk, row = tl.program_id(0) % chunks, (tl.program_id(0) // chunks).to(tl.int64)
    b, head = row // H, row % H
    k, v = k + b * kb + head * kh, v + b * vb + head * vh
    i, f = i + b * ib + head * ih, f + b * ib + head * ih
    columns_K, columns_V = tl.arange(0, K), tl.arange(0, V)
    first, last = chunk * chunk_blocks, tl.minimum((chunk + 1) * chunk_blocks, tl.cdiv(L, S))
    if HAS_STARTS:
        histories += b * L
        own = tl.load(histories + tl.minimum(last * S, L) - 1)

    memory_KV = tl.zeros((K, V), tl.float32)
    normaliser_K = tl.zeros((K,), tl.float32)
    m, gap = tl.full((), FLOOR, tl.float32), 0.0
    for back in range(last - first):
        s = (last - 1 - back) * S + tl.arange(0, S)
        i_S, log_f_S = load_gates(i, f, s, il, L)
        weight_S, total = weights_to_end(i_S, log_f_S)
        weight_S += gap
        if HAS_STARTS:
            weight_S = tl.where(load_history(histories, s, L, HAS_STARTS) == own, weight_S, float("-inf"))
        new = tl.maximum(m, tl.max(weight_S, 0))
        k_SK = load_rows(k, s, columns_K, kl, L)
        v_SV = load_rows(v, s, columns_V, vl, L)
        k_SK = (k_SK * tl.exp(weight_S - new)[:, None]).to(v_SV.dtype)
        old = tl.exp(m - new)
        memory_KV = memory_KV * old + tl.dot(tl.trans(k_SK), v_SV, input_precision=PRECISION)
        normaliser_K = normaliser_K * old + tl.sum(k_SK.to(tl.float32), 0)
        m = new
        gap += total

    state = row * (chunks + 1) + chunk + 1
    store_state(entries, state, columns_K, columns_V, memory_KV, normaliser_K, K, V)
    tl.store(local_scale + row * chunks + chunk, m)
    tl.store(decay + row * chunks + chunk, gap)


@triton.jit(do_not_specialize=["L", "H", "chunks"])
def carry(entries, log_scale, local_scale, decay, histories, L, H, chunks, chunk_length,
          SIZE: tl.constexpr, S: tl.constexpr, HAS_STARTS: tl.constexpr):  # fmt: skip
    """One program per row, head and S numbers of the state. Of `entries` the first is what the row is entered with;
    each later one, what a chunk leaves behind by itself, becomes what the next is entered with: it and what got
    through the chunk, at a common `log_scale` (B, H, N+1), of which the first is given."""
    row, part_S = tl.program_id(0).to(tl.int64), tl.program_id(1) * S + tl.arange(0, S)
    entries += row * (chunks + 1) * SIZE + part_S
    log_scale, local_scale, decay = log_scale + row * (chunks + 1), local_scale + row * chunks, decay + row * chunks
    inside = part_S < SIZE
    state_S = tl.load(entries, mask=inside)
    m = tl.load(log_scale)
    own = 0
    for chunk in range(chunks):
        kept, local = m + tl.load(decay + chunk), tl.load(local_scale + chunk)
        if HAS_STARTS:
            end = tl.load(histories + row // H * L + tl.minimum((chunk + 1) * chunk_length, L) - 1)
            kept = tl.where(end == own, kept, float("-inf"))
            own = end
        m = tl.maximum(kept, local)
        entries += SIZE
        state_S = state_S * tl.exp(kept - m) + tl.load(entries, mask=inside) * tl.exp(local - m)
        tl.store(entries, state_S, mask=inside)
        if tl.program_id(1) == 0:
            tl.store(log_scale + chunk + 1, m)
