"""What the Triton kernels of the mLSTM share.

Two ideas make them cheap and exact. Decays are summed block by block from where they are needed, so that differences
are taken of sums over one block only, however long a row is. And between two blocks the log weight of a pair is a
number of the later position plus one of the earlier, so exponentials are taken of vectors, and of a matrix only where
a block meets itself.

Shapes: B rows, H heads, L positions, S positions in a block, K key width, V value width, N chunks.
"""

from __future__ import annotations

import triton
import triton.language as tl

#: Below every log weight there is, and finite, so that a difference of two is not NaN.
FLOOR = tl.constexpr(-1.0e30)
#: In `tl.dot`; float32 inputs are meant to stay float32.
PRECISION = tl.constexpr("tf32x3")


@triton.jit
def load_gates(i, f, t, stride, end):
    """Log of input and forget gates (S,) at positions t; from `end` on nothing comes in and nothing is forgotten."""
    inside = t < end
    i_S = tl.load(i + t * stride, mask=inside, other=float("-inf")).to(tl.float32)
    f_S = tl.load(f + t * stride, mask=inside, other=0.0).to(tl.float32)
    log_f_S = tl.minimum(f_S, 0.0) - tl.log(1.0 + tl.exp(-tl.abs(f_S)))
    return i_S, tl.where(inside, log_f_S, 0.0)


@triton.jit
def load_rows(x, t, columns, stride, end):
    """Rows t (S, columns) of a matrix; zero from `end` on."""
    return tl.load(x + t[:, None] * stride + columns[None, :], mask=t[:, None] < end, other=0.0)


@triton.jit
def store_rows(x, t, columns, stride, end, value):
    tl.store(x + t[:, None] * stride + columns[None, :], value.to(x.dtype.element_ty), mask=t[:, None] < end)


@triton.jit
def load_state(entries, number, columns_K, columns_V, K: tl.constexpr, V: tl.constexpr):
    """Memory (K, V) and normaliser (K,) of one entry, which lie one behind the other."""
    entries += number * (K * V + K)
    return tl.load(entries + columns_K[:, None] * V + columns_V[None, :]), tl.load(entries + K * V + columns_K)


@triton.jit
def store_state(entries, number, columns_K, columns_V, memory_KV, normaliser_K, K: tl.constexpr, V: tl.constexpr):
    entries += number * (K * V + K)
    tl.store(entries + columns_K[:, None] * V + columns_V[None, :], memory_KV)
    tl.store(entries + K * V + columns_K, normaliser_K)


@triton.jit
def weights_to_end(i_S, log_f_S):
    """Log weight (S,) of each position at the end of its block, and the decay of the whole block."""
    total = tl.sum(log_f_S, 0)
    return total - tl.cumsum(log_f_S, 0) + i_S, total


@triton.jit
def inner_weights(i_S, log_f_S, t, history_S, HAS_STARTS: tl.constexpr):
    """Decay from the block's start (S,), and log weights (later S, earlier S) inside the block, -inf where unseen."""
    decay_S = tl.cumsum(log_f_S, 0)
    visible = t[:, None] >= t[None, :]
    if HAS_STARTS:
        visible = visible & (history_S[:, None] == history_S[None, :])
    return decay_S, tl.where(visible, decay_S[:, None] - decay_S[None, :] + i_S[None, :], float("-inf"))


@triton.jit
def load_history(histories, t, end, HAS_STARTS: tl.constexpr):
    """Number (S,) of the history each position belongs to."""
    if HAS_STARTS:
        return tl.load(histories + t, mask=t < end, other=-1)
    else:  # noqa: RET505 - Triton looks into one branch only
        return t * 0


@triton.jit
def upstream(dh, h, n, m, t, columns, stride, L):
    """Per position of a block: dh over its denominator (S, V), the gradient of its normaliser (S,), and log scale m."""
    m_S = tl.load(m + t, mask=t < L, other=float("inf"))
    n_S = tl.load(n + t, mask=t < L, other=1.0)
    dh_SV = load_rows(dh, t, columns, stride, L).to(tl.float32)
    h_SV = load_rows(h, t, columns, stride, L).to(tl.float32)
    bound_S = tl.exp(-m_S)
    scale_S = 1.0 / tl.maximum(tl.abs(n_S), bound_S)
    dn_S = -tl.sum(dh_SV * h_SV, 1) * scale_S
    dn_S = tl.where(tl.abs(n_S) > bound_S, tl.where(n_S > 0, dn_S, -dn_S), 0.0)
    return dh_SV * scale_S[:, None], dn_S, m_S
