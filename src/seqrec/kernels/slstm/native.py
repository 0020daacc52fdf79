"""The sLSTM on a CPU: a loop of few operations per event over saved buffers, with a backward pass of its own.

With a = i / n, the share of the newest event in the weighted mean u = c / n of cell inputs, and l = log n, the
equations of Beck et al., 2024, are those of a gated mean, with no division and no running maximum:

    k = log sigmoid(f~) + l_{t-1}     a = sigmoid(i~ - k)             l_t = log(exp(i~) + exp(k))
    u_t = u_{t-1} + a (tanh(z~) - u_{t-1})                            h_t = sigmoid(o~) u_t

and so are their gradients, with d. the gradient of the loss in each quantity:

    di~ = a (dl + (1 - a) (tanh(z~) - u_{t-1}) du)     dl_{t-1} = dl - di~     df~ = dl_{t-1} (1 - sigmoid(f~))

Buffers put the head before the position, so that each event is one batched matrix product, and the gradient of the
recurrent weights is one over a block of them.

Shapes: B rows, L positions, H heads, K width of a head.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from seqrec.kernels.slstm.state import EMPTY, Mean, SLSTMState, after_rows, initial_state, to_mean

#: Numbers of the rows to which something happens, by position.
Rows = dict[int, Tensor]
#: Events whose gates' gradients are kept until the weights' gradient takes them: enough for a large matrix product.
BLOCK = 16


class Saved(NamedTuple):
    """What the backward pass reads: `gates` (H, L, B, 4, K) as a, f~, tanh(z~) and sigmoid(o~), and hidden states and
    means (H, L + 1, B, K) before each position and after the last."""

    gates: Tensor
    hiddens: Tensor
    means: Tensor


def native(
    x: Tensor, r: Tensor, state: SLSTMState | None = None, lengths: Tensor | None = None, starts: Tensor | None = None
) -> tuple[Tensor, SLSTMState]:
    """As `slstm_prefill`; numbers are float32, or float64 if `x` is."""
    B, L, _, H, K = x.shape
    state = state or initial_state(B, H, K, x)
    dtype = state.cell.dtype
    lengths = torch.full((B,), L, device=x.device) if lengths is None else lengths
    ends = _by_position(torch.arange(L, device=x.device).unsqueeze(1) == lengths - 1)
    resets = _by_position(starts.t()) if starts is not None else {}
    inputs = (x.to(dtype), r.to(dtype), *to_mean(state))
    with torch.autocast(x.device.type, enabled=False):
        if torch.is_grad_enabled() and any(part.requires_grad for part in inputs):
            h, *last = _Recurrence.apply(*inputs, ends, resets)  # type: ignore[no-untyped-call]
        else:
            h, last, _ = _forward(*inputs, ends, resets, keep=False)
    return h.to(x.dtype), after_rows(Mean(*last), state, lengths)


def _by_position(marks_LB: Tensor) -> Rows:
    position, row = marks_LB.nonzero(as_tuple=True)
    position, count = torch.unique_consecutive(position, return_counts=True)
    return dict(zip(position.tolist(), row.split(count.tolist()), strict=True))


def _forward(
    x: Tensor, r: Tensor, hidden: Tensor, mean: Tensor, log_weight: Tensor, ends: Rows, resets: Rows, keep: bool
) -> tuple[Tensor, Mean, Saved]:
    """h (B, L, H, K), the state after each row's end, and what the backward pass reads, or scratch without `keep`."""
    B, L, _, H, K = x.shape
    weights = _weights(r)
    h, gates = x.new_empty(B, L, H, K), x.new_empty(H, L if keep else 1, B, 4, K)
    hiddens, means = x.new_empty(2, H, L + 1 if keep else 1, B, K)
    hiddens[:, 0], means[:, 0] = hidden.transpose(0, 1), mean.transpose(0, 1)
    log_weight = log_weight.transpose(0, 1).clone(memory_format=torch.contiguous_format)
    last = Mean(hiddens[:, 0].clone(), means[:, 0].clone(), log_weight.clone())
    for t in range(L):
        now, new = (t, t + 1) if keep else (0, 0)
        if t in resets:
            hiddens[:, now].index_fill_(1, resets[t], 0)
            log_weight.index_fill_(1, resets[t], EMPTY)
        gate = gates[:, now]
        gate.copy_(x[:, t].permute(2, 0, 1, 3))
        gate.flatten(2).baddbmm_(hiddens[:, now], weights)
        i, f, z, _ = gate.unbind(2)
        kept = F.logsigmoid(f).add_(log_weight)
        torch.logaddexp(i, kept, out=log_weight)
        i.sub_(kept).sigmoid_()
        z.mul_(2)
        gate[:, :, 2:].sigmoid_()
        z.mul_(2).sub_(1)  # tanh; a sigmoid is several times faster
        torch.lerp(means[:, now], z, i, out=means[:, new])
        torch.mul(gate[:, :, 3], means[:, new], out=hiddens[:, new])
        h[:, t] = hiddens[:, new].transpose(0, 1)
        if t in ends:
            for part, value in zip(last, (hiddens[:, new], means[:, new], log_weight), strict=True):
                part[:, ends[t]] = value[:, ends[t]]
    return h, Mean(*(part.transpose(0, 1) for part in last)), Saved(gates, hiddens, means)


class _Recurrence(torch.autograd.Function):
    """`_forward` with its gradient. The state of a row that has no end is no output and has none."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, r: Tensor, h: Tensor, u: Tensor, w: Tensor, ends: Rows, resets: Rows) -> Any:
        out, last, saved = _forward(x, r, h, u, w, ends, resets, keep=True)
        ctx.save_for_backward(r, *saved)
        ctx.ends, ctx.resets = ends, resets
        return out, *last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dh: Tensor, *dlast: Tensor) -> Any:
        with torch.autocast(dh.device.type, enabled=False):
            r, *saved = ctx.saved_tensors
            return *_backward(dh, Mean(*dlast), r, Saved(*saved), ctx.ends, ctx.resets), None, None


def _backward(dh: Tensor, dlast: Mean, r: Tensor, saved: Saved, ends: Rows, resets: Rows) -> tuple[Tensor, ...]:
    """The gradients of x, r and the state, from those of what `_forward` returns."""
    gates, hiddens, means = saved
    H, L, B, _, K = gates.shape
    weights = _weights(r).transpose(1, 2)
    dx, dgates = dh.new_empty(B, L, 4, H, K), dh.new_empty(H, min(BLOCK, L), B, 4, K)
    dweights, state = dh.new_zeros(H, K, 4 * K), dh.new_zeros(3, H, B, K)
    dhidden, dmean, dlog = state
    for t in reversed(range(L)):
        if t in ends:
            for total, part in zip(state, dlast, strict=True):
                total.index_add_(1, ends[t], part[ends[t]].transpose(0, 1))
        dhidden += dh[:, t].transpose(0, 1)
        dgate = dgates[:, t % BLOCK]
        _backward_step(gates[:, t], means[:, t], means[:, t + 1], dgate, dhidden, dmean, dlog)
        dx[:, t] = dgate.permute(1, 2, 0, 3)
        torch.bmm(dgate.flatten(2), weights, out=dhidden)
        if t in resets:
            dhidden.index_fill_(1, resets[t], 0)
        if t % BLOCK == 0:
            before = hiddens[:, t : min(t + BLOCK, L)]
            taken = dgates[:, : before.shape[1]].flatten(1, 2).flatten(2)
            dweights.baddbmm_(before.flatten(1, 2).transpose(1, 2), taken)
    dr = dweights.view(H, K, 4, K).permute(2, 0, 1, 3)
    return dx, dr, *(part.transpose(0, 1) for part in state)


def _backward_step(
    gate: Tensor, before: Tensor, mean: Tensor, dgate: Tensor, dhidden: Tensor, dmean: Tensor, dlog: Tensor
) -> None:
    """Fill the gates' gradient, and turn those of mean and log weight after an event into those before it."""
    a, f, z, o = gate.unbind(2)
    di, df, dz, do = dgate.unbind(2)
    torch.ops.aten.sigmoid_backward(dhidden * mean, o, grad_input=do)
    dmean.addcmul_(dhidden, o)
    taken = dmean * a
    torch.ops.aten.tanh_backward(taken, z, grad_input=dz)
    torch.ops.aten.sigmoid_backward((z - before).mul_(dmean), a, grad_input=di)
    di.addcmul_(a, dlog)
    dlog -= di
    torch.neg(f, out=df).sigmoid_().mul_(dlog)
    dmean -= taken


def _weights(r: Tensor) -> Tensor:
    """(H, K, 4 K): one product per head for the four gates."""
    return r.permute(1, 2, 0, 3).flatten(2)
