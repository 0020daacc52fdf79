"""The mLSTM on a GPU as one operation, which torch.compile takes as it is instead of looking into it.

Hidden states of whole rows from an empty state; everything else is `triton_form`.

Shapes: B rows, H heads, L positions, K key width, V value width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from seqrec.kernels.mlstm.triton_chunks import Entries, Plan, enter, entry_gradients
from seqrec.kernels.mlstm.triton_form import alike, run_backward, run_forward


def hidden_states(q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, starts: Tensor | None = None) -> Tensor:
    """As `seqrec.kernels.mlstm.mlstm`."""
    histories = None if starts is None else starts.cumsum(1, dtype=torch.int32).contiguous()
    h: Tensor = _forward(q, k, v, i, f, histories)[0]
    return h.transpose(1, 2)


@torch.library.custom_op("seqrec::mlstm_forward", mutates_args=())
def _forward(
    q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, histories: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """h (B, L, H, V), normaliser and log scale (B, H, L)."""
    (q, k), (v,), (i, f) = alike(q, k), alike(v), alike(i, f)
    plan = Plan.of(q.shape[2], q.shape[-1], v.shape[-1])
    h, n, m = run_forward(q, k, v, i, f, _entered(k, v, i, f, histories, plan), histories, plan)
    return h.transpose(1, 2), n, m


@_forward.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, histories: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    (B, H, L, _), V = q.shape, v.shape[-1]
    n, m = (q.new_empty(B, H, L, dtype=torch.float32) for _ in range(2))
    return v.new_empty(B, L, H, V), n, m


@torch.library.custom_op("seqrec::mlstm_backward", mutates_args=())
def _backward(
    dh: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    h: Tensor,
    n: Tensor,
    m: Tensor,
    histories: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v as (B, L, H, .), and of i and f (B, H, L)."""
    (q, k), (v,), (i, f) = alike(q, k), alike(v), alike(i, f)
    plan = Plan.of(q.shape[2], q.shape[-1], v.shape[-1])
    h, dh = h.transpose(1, 2), dh.contiguous().transpose(1, 2)
    entered, left, ending = _entered(k, v, i, f, histories, plan), None, None
    if entered.states is not None:
        left, ending = entry_gradients(q, f, h, n, m, dh, None, None, entered, histories, plan)
    dq, dk, dv, di, df = run_backward(q, k, v, i, f, h, n, m, dh, entered, left, ending, histories, plan)
    return dq.transpose(1, 2), dk.transpose(1, 2), dv.transpose(1, 2), di, df


@_backward.register_fake
def _(
    dh: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    h: Tensor,
    n: Tensor,
    m: Tensor,
    histories: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    (B, H, L, K), V = q.shape, v.shape[-1]
    dq, dk, dv = q.new_empty(B, L, H, K), k.new_empty(B, L, H, K), v.new_empty(B, L, H, V)
    return dq, dk, dv, i.new_empty(B, H, L), f.new_empty(B, H, L)


def _entered(k: Tensor, v: Tensor, i: Tensor, f: Tensor, histories: Tensor | None, plan: Plan) -> Entries:
    """States between chunks; made again for the backward pass, which costs less than to keep them."""
    return Entries() if plan.chunks == 1 else enter(k, v, i, f, None, None, None, histories, plan)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    *tensors, histories = inputs
    ctx.save_for_backward(*tensors, *output, histories)


def _gradients(ctx: Any, dh: Tensor, _n: Tensor, _m: Tensor) -> tuple[Tensor | None, ...]:
    *tensors, histories = ctx.saved_tensors
    dq, dk, dv, di, df = _backward(dh, *tensors, histories)
    return dq.transpose(1, 2), dk.transpose(1, 2), dv.transpose(1, 2), di, df, None


_forward.register_autograd(_gradients, setup_context=_keep)
