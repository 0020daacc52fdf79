"""The sLSTM on a GPU: one program walks all events of a block of rows and one head, its state in registers.

The arithmetic is that of `native`, whose docstring has the equations. State and gates are float32; products with the
recurrent weights take the hidden state, and the gates' gradients, in the type of those weights.

Shapes: B rows, L positions, H heads, K width of a head, R rows of a block, C tokens of a block.
"""

from __future__ import annotations

import triton
import triton.language as tl

from seqrec.kernels.slstm.state import EMPTY as EMPTY_LOG

EMPTY = tl.constexpr(EMPTY_LOG)
#: In `tl.dot`; float32 inputs are meant to stay float32.
PRECISION = tl.constexpr("ieee")


@triton.jit
def mix(vector_RK, weights_KK, at, RESIDENT: tl.constexpr):
    """The product in float32 of a vector and recurrent weights, which lie `at` if they are not `RESIDENT`."""
    if not RESIDENT:
        weights_KK = tl.load(at)
    return tl.dot(vector_RK.to(weights_KK.dtype), weights_KK, input_precision=PRECISION)


@triton.jit
def sigmoid(x):
    """Without an overflow at either end."""
    small = tl.exp(-tl.abs(x))
    return tl.where(x >= 0, 1.0, small) / (1.0 + small)


@triton.jit
def load_weights(at, stride, RESIDENT: tl.constexpr):
    """The four gates' recurrent weights of one head if they are `RESIDENT`, and where each lies."""
    i, f, z, o = at, at + stride, at + 2 * stride, at + 3 * stride
    if RESIDENT:
        return tl.load(i), tl.load(f), tl.load(z), tl.load(o), i, f, z, o
    else:  # noqa: RET505, the compiler needs it
        return 0, 0, 0, 0, i, f, z, o


@triton.jit
def load_gates(at, stride, mask):
    """The four gates of one position (R, K), in float32."""
    first = tl.load(at, mask=mask, other=0.0).to(tl.float32)
    second = tl.load(at + stride, mask=mask, other=0.0).to(tl.float32)
    third = tl.load(at + 2 * stride, mask=mask, other=0.0).to(tl.float32)
    fourth = tl.load(at + 3 * stride, mask=mask, other=0.0).to(tl.float32)
    return first, second, third, fourth


@triton.jit
def store_gates(at, stride, first, second, third, fourth, mask):
    """The reverse of `load_gates`."""
    tl.store(at, first, mask=mask)
    tl.store(at + stride, second, mask=mask)
    tl.store(at + 2 * stride, third, mask=mask)
    tl.store(at + 3 * stride, fourth, mask=mask)


@triton.jit
def walk(
    x, r, starts, ends, hidden, mean, log_weight, h, gates, means, last_hidden, last_mean, last_log_weight,
    B, L, xb, xl, xg, xh,
    H: tl.constexpr, K: tl.constexpr, R: tl.constexpr, HAS_STARTS: tl.constexpr, KEEP: tl.constexpr,
    RESIDENT: tl.constexpr,
):  # fmt: skip
    """h (B, L, H, K), the state (B, H, K) after position `ends` of each row, and if `KEEP` what `walk_back` reads:
    gates (B, L, 4, H, K) as a, 1 - sigmoid(f~), tanh(z~), sigmoid(o~), and means (B, L + 1, H, K), the first those
    before any event.

    `RESIDENT`: weights stay in registers; else they are read again, from cache, for every event.
    """
    head = tl.program_id(1)
    row, column = (tl.program_id(0) * R + tl.arange(0, R)).to(tl.int64), tl.arange(0, K)
    inside = (row < B)[:, None]
    state_at = (row[:, None] * H + head) * K + column
    hidden_RK = tl.load(hidden + state_at, mask=inside, other=0.0)
    mean_RK = tl.load(mean + state_at, mask=inside, other=0.0)
    log_RK = tl.load(log_weight + state_at, mask=inside, other=0.0)
    end_R = tl.load(ends + row, mask=row < B, other=-1)
    r += head * K * K + column[:, None] * K + column
    x += row[:, None] * xb + head * xh + column
    at = (row[:, None] * L * H + head) * K + column
    gates += (row[:, None] * L * 4 * H + head) * K + column
    if KEEP:
        means += (row[:, None] * (L + 1) * H + head) * K + column
        tl.store(means, mean_RK, mask=inside)
    ri, rf, rz, ro, i_at, f_at, z_at, o_at = load_weights(r, H * K * K, RESIDENT)
    for t in range(L):
        xi, xf, xz, xo = load_gates(x + t * xl, xg, inside)
        if HAS_STARTS:
            again = (tl.load(starts + row * L + t, mask=row < B, other=0) != 0)[:, None]
            hidden_RK = tl.where(again, 0.0, hidden_RK)
            log_RK = tl.where(again, EMPTY, log_RK)
        i = xi + mix(hidden_RK, ri, i_at, RESIDENT)
        f = xf + mix(hidden_RK, rf, f_at, RESIDENT)
        z = 2 * sigmoid(2 * (xz + mix(hidden_RK, rz, z_at, RESIDENT))) - 1
        o = sigmoid(xo + mix(hidden_RK, ro, o_at, RESIDENT))
        small = tl.exp(-tl.abs(f))
        kept = tl.minimum(f, 0.0) - tl.log(1.0 + small) + log_RK
        forgotten = tl.where(f >= 0, small, 1.0) / (1.0 + small)
        smaller = tl.exp(-tl.abs(i - kept))
        log_RK = tl.maximum(i, kept) + tl.log(1.0 + smaller)
        a = tl.where(i >= kept, 1.0, smaller) / (1.0 + smaller)
        mean_RK += a * (z - mean_RK)
        hidden_RK = o * mean_RK
        tl.store(h + at, hidden_RK, mask=inside)
        if KEEP:
            store_gates(gates, H * K, a, forgotten, z, o, inside)
            means += H * K
            tl.store(means, mean_RK, mask=inside)
        ended = inside & (end_R == t)[:, None]
        tl.store(last_hidden + state_at, hidden_RK, mask=ended)
        tl.store(last_mean + state_at, mean_RK, mask=ended)
        tl.store(last_log_weight + state_at, log_RK, mask=ended)
        at += H * K
        gates += 4 * H * K


@triton.jit
def walk_back(
    r, starts, ends, gates, means, dh, dlast_hidden, dlast_mean, dlast_log_weight,
    dx, dhidden, dmean, dlog_weight,
    B, L, xb, xl, xg, xh,
    H: tl.constexpr, K: tl.constexpr, R: tl.constexpr, HAS_STARTS: tl.constexpr, RESIDENT: tl.constexpr,
):  # fmt: skip
    """The gradient of the gates dx, and of the state before the first position."""
    head = tl.program_id(1)
    row, column = (tl.program_id(0) * R + tl.arange(0, R)).to(tl.int64), tl.arange(0, K)
    inside = (row < B)[:, None]
    state_at = (row[:, None] * H + head) * K + column
    end_R = tl.load(ends + row, mask=row < B, other=-1)
    r += head * K * K + column[None, :] * K + column[:, None]
    dx += row[:, None] * xb + head * xh + column
    at = ((row[:, None] * L + L - 1) * H + head) * K + column
    gates += ((row[:, None] * L + L - 1) * 4 * H + head) * K + column
    means += ((row[:, None] * (L + 1) + L) * H + head) * K + column
    ri, rf, rz, ro, i_at, f_at, z_at, o_at = load_weights(r, H * K * K, RESIDENT)
    dhidden_RK = tl.zeros((R, K), tl.float32)
    dmean_RK = tl.zeros((R, K), tl.float32)
    dlog_RK = tl.zeros((R, K), tl.float32)
    mean_RK = tl.load(means, mask=inside, other=0.0)
    for back in range(L):
        t = L - 1 - back
        a, forgotten, z, o = load_gates(gates, H * K, inside)
        means -= H * K
        before_RK = tl.load(means, mask=inside, other=0.0)
        ended = inside & (end_R == t)[:, None]
        dhidden_RK += tl.load(dlast_hidden + state_at, mask=ended, other=0.0)
        dmean_RK += tl.load(dlast_mean + state_at, mask=ended, other=0.0)
        dlog_RK += tl.load(dlast_log_weight + state_at, mask=ended, other=0.0)
        dhidden_RK += tl.load(dh + at, mask=inside, other=0.0).to(tl.float32)

        do = dhidden_RK * mean_RK * o * (1 - o)
        dmean_RK += dhidden_RK * o
        dz = dmean_RK * a * (1 - z * z)
        di = a * (dlog_RK + (1 - a) * (z - before_RK) * dmean_RK)
        dlog_RK -= di
        df = dlog_RK * forgotten
        dmean_RK -= dmean_RK * a
        store_gates(dx + t * xl, xg, di, df, dz, do, inside)
        dhidden_RK = mix(di, ri, i_at, RESIDENT) + mix(df, rf, f_at, RESIDENT)
        dhidden_RK += mix(dz, rz, z_at, RESIDENT) + mix(do, ro, o_at, RESIDENT)
        if HAS_STARTS:
            again = (tl.load(starts + row * L + t, mask=row < B, other=0) != 0)[:, None]
            dhidden_RK = tl.where(again, 0.0, dhidden_RK)
        mean_RK = before_RK
        at -= H * K
        gates -= 4 * H * K
    tl.store(dhidden + state_at, dhidden_RK, mask=inside)
    tl.store(dmean + state_at, dmean_RK, mask=inside)
    tl.store(dlog_weight + state_at, dlog_RK, mask=inside)


@triton.jit
def weights_gradient(
    h, hidden, starts, dx, parts, tokens, L, chunk, xb, xl, xg, xh,
    H: tl.constexpr, K: tl.constexpr, C: tl.constexpr, HAS_STARTS: tl.constexpr,
):  # fmt: skip
    """Into parts (chunks, 4, H, K, K) the sum over a chunk of tokens of hidden state before times gates' gradient."""
    gate, head = tl.program_id(1) // H, tl.program_id(1) % H
    column = tl.arange(0, K)
    first = tl.program_id(0).to(tl.int64) * chunk
    total_KK = tl.zeros((K, K), tl.float32)
    for begin in range(0, chunk, C):
        token = first + begin + tl.arange(0, C)
        inside = (token < tokens) & (begin + tl.arange(0, C) < chunk)
        row, t = token // L, token % L
        known = inside
        if HAS_STARTS:
            known = inside & (tl.load(starts + token, mask=inside, other=1) == 0)
        at = ((token - 1) * H + head) * K
        before_CK = tl.load(h + at[:, None] + column, mask=(known & (t > 0))[:, None], other=0.0)
        state_at = (row * H + head) * K
        first_CK = tl.load(hidden + state_at[:, None] + column, mask=(known & (t == 0))[:, None], other=0.0)
        before_CK += first_CK.to(before_CK.dtype)
        dx_at = row * xb + t * xl + gate * xg + head * xh
        dx_CK = tl.load(dx + dx_at[:, None] + column, mask=inside[:, None], other=0.0)
        total_KK += tl.dot(tl.trans(before_CK), dx_CK, input_precision=PRECISION)
    parts += (tl.program_id(0) * 4 * H + tl.program_id(1)).to(tl.int64) * K * K
    tl.store(parts + column[:, None] * K + column, total_KK)
