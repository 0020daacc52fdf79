"""The selective scan on a GPU: one program walks all events of a row for a few channels, their states in registers.

Of all the states (B, L, D, N) those before every `S`-th event are written down. The backward pass walks from the last
such stretch to the first; it makes the states of one stretch again, into a scratch that stays in cache, and reads them
in reverse. Its equations are those of `native`. Numbers are float32 whatever inputs and outputs are.

Shapes: B rows, L positions, D channels, N numbers that a channel remembers, P the power of 2 from N, C channels of a
program, K stretches, S positions of a stretch, G programs of a row.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def walk(
    x, step, rate, write, read, y, between, last, L, D, N, xb, xl, sb, sl, wb, wl, rb, rl,
    C: tl.constexpr, P: tl.constexpr, S: tl.constexpr, KEEP: tl.constexpr,
):  # fmt: skip
    """y (B, L, D) and the last state (B, D, N), and if `KEEP` the states (B, K, D, N) before each stretch."""
    row, channel, number = tl.program_id(0).to(tl.int64), tl.program_id(1) * C + tl.arange(0, C), tl.arange(0, P)
    known, stored = channel < D, number < N
    inside = known[:, None] & stored[None, :]
    state_at = channel[:, None] * N + number[None, :]
    rate_CP = tl.load(rate + state_at, mask=inside, other=0.0)
    state_CP = tl.zeros((C, P), tl.float32)
    x += row * xb + channel
    step += row * sb + channel
    write += row * wb + number
    read += row * rb + number
    y += row * L * D + channel
    between += row * tl.cdiv(L, S) * D * N
    for begin in range(0, L, S):
        if KEEP:
            tl.store(between + state_at, state_CP, mask=inside)
            between += D * N
        for t in range(begin, min(begin + S, L)):
            x_C, step_C, write_P = load_event(x, step, write, t, xl, sl, wl, known, stored)
            read_P = tl.load(read + t * rl, mask=stored, other=0.0).to(tl.float32)
            state_CP = after(state_CP, x_C, step_C, rate_CP, write_P)
            tl.store(y + t * D, tl.sum(state_CP * read_P[None, :], 1), mask=known)
    tl.store(last + row * D * N + state_at, state_CP, mask=inside)


@triton.jit
def walk_back(
    x, step, rate, write, read, between, dy, scratch, dx, dstep, drate, dwrite, dread,
    L, D, N, xb, xl, sb, sl, wb, wl, rb, rl,
    C: tl.constexpr, P: tl.constexpr, S: tl.constexpr,
):  # fmt: skip
    """Gradients dx and dstep (B, L, D), and shares, to be summed, of drate (B, D, N) and of dwrite and dread
    (G, B, L, N). `scratch` is (B, G, S, C, P)."""
    row, channel, number = tl.program_id(0).to(tl.int64), tl.program_id(1) * C + tl.arange(0, C), tl.arange(0, P)
    known, stored = channel < D, number < N
    inside = known[:, None] & stored[None, :]
    state_at = channel[:, None] * N + number[None, :]
    scratch_at = tl.arange(0, C)[:, None] * P + number[None, :]
    rate_CP = tl.load(rate + state_at, mask=inside, other=0.0)
    x += row * xb + channel
    step += row * sb + channel
    write += row * wb + number
    read += row * rb + number
    dy, dx, dstep = dy + row * L * D + channel, dx + row * L * D + channel, dstep + row * L * D + channel
    share = tl.program_id(1) * tl.num_programs(0) + row
    dwrite, dread = dwrite + share * L * N + number, dread + share * L * N + number
    scratch += (row * tl.num_programs(1) + tl.program_id(1)) * S * C * P
    stretches = tl.cdiv(L, S)
    later_CP = tl.zeros((C, P), tl.float32)
    drate_CP = tl.zeros((C, P), tl.float32)
    for back in range(stretches):
        begin = (stretches - 1 - back) * S
        end = min(begin + S, L)
        before_at = between + (row * stretches + stretches - 1 - back) * D * N + state_at
        state_CP = tl.load(before_at, mask=inside, other=0.0)
        for t in range(begin, end):
            tl.store(scratch + (t - begin) * C * P + scratch_at, state_CP)
            x_C, step_C, write_P = load_event(x, step, write, t, xl, sl, wl, known, stored)
            state_CP = after(state_CP, x_C, step_C, rate_CP, write_P)
        tl.debug_barrier()  # what one thread wrote another one may read
        for t_back in range(end - begin):
            t = end - 1 - t_back
            x_C, step_C, write_P = load_event(x, step, write, t, xl, sl, wl, known, stored)
            read_P = tl.load(read + t * rl, mask=stored, other=0.0).to(tl.float32)
            dy_C = tl.load(dy + t * D, mask=known, other=0.0).to(tl.float32)
            before_CP = tl.load(scratch + (t - begin) * C * P + scratch_at)
            tl.store(dread + t * N, tl.sum(dy_C[:, None] * state_CP, 0), mask=stored)
            g_CP = dy_C[:, None] * read_P[None, :] + later_CP
            tl.store(dwrite + t * N, tl.sum(g_CP * (step_C * x_C)[:, None], 0), mask=stored)
            dtold_C = tl.sum(g_CP * write_P[None, :], 1)
            later_CP = g_CP * tl.exp(step_C[:, None] * rate_CP)
            moved_CP = later_CP * before_CP
            drate_CP += moved_CP * step_C[:, None]
            tl.store(dstep + t * D, tl.sum(moved_CP * rate_CP, 1) + dtold_C * x_C, mask=known)
            tl.store(dx + t * D, dtold_C * step_C, mask=known)
            state_CP = before_CP
        tl.debug_barrier()  # and writes again only when it has been read
    tl.store(drate + row * D * N + state_at, drate_CP, mask=inside)


@triton.jit
def load_event(x, step, write, t, xl, sl, wl, known, stored):
    """What position t tells (C,), how far it moves (C,) and where it writes (P,), in float32."""
    x_C = tl.load(x + t * xl, mask=known, other=0.0).to(tl.float32)
    step_C = tl.load(step + t * sl, mask=known, other=0.0).to(tl.float32)
    return x_C, step_C, tl.load(write + t * wl, mask=stored, other=0.0).to(tl.float32)


@triton.jit
def after(state_CP, x_C, step_C, rate_CP, write_P):
    """The state after an event."""
    return tl.exp(step_C[:, None] * rate_CP) * state_CP + (step_C * x_C)[:, None] * write_P[None, :]
