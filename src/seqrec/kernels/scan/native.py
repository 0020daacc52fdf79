"""Linear recurrences in torch, by blocks of positions, with backward passes of their own.

The recurrence that gradients obey is linear too, and runs from the last event to the first. With g the gradient of the
loss in h, all of later events included, and dh what y_t alone adds to it:

    g_t = dh_t + conj(a_{t+1}) g_{t+1}        db_t = g_t        da_t = conj(h_{t-1}) g_t

Products of a are taken as they are, never through logarithms or quotients: they fade to zero and nothing overflows.
Nothing waits for a device, so that a GPU can record either pass.

Shapes: B rows, L positions, D channels, N numbers that a channel remembers, C positions of a block, K blocks.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

#: Positions of a block of the selective scan, whose states (C, B, D, N) are in memory together.
BLOCK = 16


def linear_recurrence(a: Tensor, b: Tensor) -> Tensor:
    """h (B, L, D); see `seqrec.kernels.scan.linear_recurrence`."""
    return _Linear.apply(a, b)  # type: ignore[no-untyped-call]


class _Linear(torch.autograd.Function):
    """`_in_blocks` with its gradient, which is the same from the other end."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        h = _in_blocks(a, b)
        ctx.save_for_backward(a, h)
        return h

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dh: Tensor) -> tuple[Tensor | None, Tensor]:
        a, h = ctx.saved_tensors
        db = _in_blocks(a.conj().resolve_conj(), dh.flip(1)).flip(1)
        return (db[:, 1:] * h[:, :-1].conj()).sum((0, 1)), db


def _in_blocks(a: Tensor, b: Tensor) -> Tensor:
    """All blocks of about sqrt(L) positions at once as if each were the first, then what blocks hand on, block by
    block, then what each block was handed."""
    B, L, D = b.shape
    C = max(math.isqrt(L), 1)
    b_BKCD = F.pad(b, (0, 0, 0, -L % C)).view(B, -(-L // C), C, D)  # which a view of no rows cannot find out
    powers_CD = a.expand(C, D).cumprod(0)
    h_BKCD = torch.empty_like(b_BKCD)
    h_BKCD[:, :, 0] = b_BKCD[:, :, 0]
    for at in range(1, C):
        h_BKCD[:, :, at] = torch.addcmul(b_BKCD[:, :, at], a, h_BKCD[:, :, at - 1])
    handed_on = h_BKCD[:, 0, -1]
    for block in range(1, h_BKCD.shape[1]):
        h_BKCD[:, block].addcmul_(powers_CD, handed_on[:, None])
        handed_on = h_BKCD[:, block, -1]
    return h_BKCD.flatten(1, 2)[:, :L]


def selective_scan(x: Tensor, step: Tensor, rate: Tensor, write: Tensor, read: Tensor) -> tuple[Tensor, Tensor]:
    """y (B, L, D) and the last state (B, D, N); see `seqrec.kernels.scan.selective_scan`."""
    inputs = (x, step, rate, write, read)
    if torch.is_grad_enabled() and any(part.requires_grad for part in inputs):
        y, state = _Selective.apply(*inputs)  # type: ignore[no-untyped-call]
        return y, state
    y, state, _ = _forward(*inputs, keep=False)
    return y, state


class _Selective(torch.autograd.Function):
    """`_forward` with its gradient; of the states it keeps those between blocks, and makes the others again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: Tensor, rate: Tensor, write: Tensor, read: Tensor) -> tuple[Tensor, Tensor]:
        y, state, between = _forward(x, step, rate, write, read, keep=True)
        ctx.save_for_backward(x, step, rate, write, read, *between)
        ctx.mark_non_differentiable(state)
        return y, state

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, _: Tensor) -> tuple[Tensor, ...]:
        x, step, rate, write, read, *between = ctx.saved_tensors
        with torch.autocast(dy.device.type, enabled=False):
            return _backward(dy, x, step, rate, write, read, between)


def _forward(
    x: Tensor, step: Tensor, rate: Tensor, write: Tensor, read: Tensor, keep: bool
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """y, the state after the last event, and if `keep` those before each block."""
    state, between, y = x.new_zeros(len(x), *rate.shape), [], torch.empty_like(x)
    for begin in range(0, x.shape[1], BLOCK):
        part = slice(begin, begin + BLOCK)
        between += [state] if keep else []
        _, states = _states(state, x[:, part], step[:, part], rate, write[:, part])
        y[:, part] = (states @ read[:, part].transpose(0, 1)[..., None])[..., 0].transpose(0, 1)
        state = states[-1].clone()
    return y, state, between


def _states(before: Tensor, x: Tensor, step: Tensor, rate: Tensor, write: Tensor) -> tuple[Tensor, Tensor]:
    """Decays and states (C, B, D, N) of a block, from the state (B, D, N) before it."""
    step, x, write = (part.transpose(0, 1) for part in (step, x, write))
    decays = (step[..., None] * rate).exp_()
    states = (step * x)[..., None] * write[:, :, None]
    for decay, state in zip(decays, states, strict=True):
        before = state.addcmul_(decay, before)
    return decays, states


def _backward(
    dy: Tensor, x: Tensor, step: Tensor, rate: Tensor, write: Tensor, read: Tensor, between: list[Tensor]
) -> tuple[Tensor, ...]:
    """The gradients of what `selective_scan` takes, from that of y."""
    dx, dstep, dwrite, dread = (torch.empty_like(part) for part in (x, step, write, read))
    drate, later = torch.zeros_like(rate), torch.zeros_like(between[-1])
    for block, before in reversed(list(enumerate(between))):
        part = slice(block * BLOCK, (block + 1) * BLOCK)
        at = [given[:, part].transpose(0, 1) for given in (x, step, write, read, dy)]
        x_CBD, step_CBD, write_CBN, read_CBN, dy_CBD = at
        decays, states = _states(before, x[:, part], step[:, part], rate, write[:, part])
        dread[:, part] = (dy_CBD[:, :, None] @ states)[:, :, 0].transpose(0, 1)
        g = dy_CBD[..., None] * read_CBN[:, :, None]
        for decay, now in zip(reversed(decays.unbind(0)), reversed(g.unbind(0)), strict=True):
            later = now.add_(later) * decay
        dwrite[:, part] = ((step_CBD * x_CBD)[:, :, None] @ g)[:, :, 0].transpose(0, 1)
        dtold = (g @ write_CBN[..., None])[..., 0]
        g.mul_(decays)[0].mul_(before)
        g[1:].mul_(states[:-1])  # the gradient of step * rate
        drate += (g * step_CBD[..., None]).sum((0, 1))
        dstep[:, part] = torch.addcmul(torch.einsum("cbdn,dn->cbd", g, rate), dtold, x_CBD).transpose(0, 1)
        dx[:, part] = (dtold * step_CBD).transpose(0, 1)
    return dx, dstep, drate, dwrite, dread
