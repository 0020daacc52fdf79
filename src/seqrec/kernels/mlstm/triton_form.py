"""The mLSTM on a GPU: which Triton kernels run on what, and their place in autograd.

Up to `ONE_CHUNK` positions a row is one chunk: each block of queries meets all earlier keys. Longer rows are cut in
chunks; inside one the same kernels run, and from chunk to chunk goes a state (`triton_chunks`).

Shapes: B rows, H heads, L positions, S positions in a block, K key width, V value width, N chunks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import triton
from torch import Tensor

from seqrec.kernels.mlstm import triton_backward, triton_forward
from seqrec.kernels.mlstm.state import CLOSED, MLSTMState, initial_state
from seqrec.kernels.mlstm.triton_chunks import Entries, Plan, enter, entry_gradients, parts, strides


def hidden_states(q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, starts: Tensor | None = None) -> Tensor:
    """As `seqrec.kernels.mlstm.mlstm`."""
    return _apply(q, k, v, i, f, None, None, None, _histories(starts), False)[0]


def prefill(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    state: MLSTMState | None = None,
    lengths: Tensor | None = None,
    starts: Tensor | None = None,
) -> tuple[Tensor, MLSTMState]:
    """As `seqrec.kernels.mlstm.mlstm_prefill`."""
    B, H, L, K = q.shape
    if lengths is not None:
        i, f = (gate.to(torch.promote_types(gate.dtype, torch.float32)) for gate in (i, f))
        behind = torch.arange(L, device=q.device) >= lengths[:, None]
        i, f = i.masked_fill(behind[:, None], CLOSED), f.masked_fill(behind[:, None], -CLOSED)
        starts = starts if starts is None else starts & ~behind
    memory, normaliser, log_scale = state or initial_state(B, H, K, v.shape[-1], q)
    h, *after = _apply(q, k, v, i, f, memory, normaliser, log_scale, _histories(starts), True)
    return h, MLSTMState(*after)


def _histories(starts: Tensor | None) -> Tensor | None:
    """Number (B, L) int32 of the history each position belongs to; 0 goes on with what came before the row."""
    return None if starts is None else starts.cumsum(1, dtype=torch.int32).contiguous()


class _Function(torch.autograd.Function):
    """h, and where asked for what the row leaves behind: memory, normaliser and log_scale."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        i: Tensor,
        f: Tensor,
        memory: Tensor | None,
        normaliser: Tensor | None,
        log_scale: Tensor | None,
        histories: Tensor | None,
        ends: bool,
    ) -> tuple[Tensor | None, ...]:
        (q, k), (v,), (i, f) = alike(q, k), alike(v), alike(i, f)
        K = q.shape[-1]
        plan = Plan.of(q, v.shape[-1])
        entered = Entries()
        if ends or plan.chunks > 1:
            entered = enter(k, v, i, f, memory, normaliser, log_scale, histories, plan)
        h, n, m = run_forward(q, k, v, i, f, entered, histories, plan)
        ctx.save_for_backward(q, k, v, i, f, h, n, m, *entered, histories)
        ctx.set_materialize_grads(False)
        ctx.plan = plan
        if not ends:
            return h, None, None, None
        assert entered.states is not None
        assert entered.log_scale is not None
        scale = entered.log_scale[:, :, -1].clone()  # not a view of what the backward pass reads
        ctx.mark_non_differentiable(scale)
        return h, *parts(entered.states[:, :, -1], K), scale

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(
        ctx: Any, dh: Tensor | None, dmemory: Tensor | None, dnormaliser: Tensor | None, _: None
    ) -> tuple[Tensor | None, ...]:
        q, k, v, i, f, h, n, m, *states, histories = ctx.saved_tensors
        K, plan, entered = q.shape[-1], ctx.plan, Entries(*states)
        dh = torch.zeros_like(h) if dh is None else dense(dh)
        left = ending = None
        if entered.states is not None:
            left, ending = entry_gradients(q, f, h, n, m, dh, dmemory, dnormaliser, entered, histories, plan)
        gradients = run_backward(q, k, v, i, f, h, n, m, dh, entered, left, ending, histories, plan)
        start = parts(left[:, :, 0], K) if left is not None and any(ctx.needs_input_grad[5:7]) else (None, None)
        return *gradients, *start, None, None, None


def run_forward(
    q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, entered: Entries, histories: Tensor | None, plan: Plan
) -> tuple[Tensor, Tensor, Tensor]:
    """h (B, H, L, V), a view of (B, L, H, V), and the normaliser and log scale (B, H, L) behind each position."""
    (B, H, L, K), V = q.shape, v.shape[-1]
    h = torch.empty(B, L, H, V, device=v.device, dtype=v.dtype).transpose(1, 2)
    n, m = (torch.empty(B, H, L, device=q.device) for _ in range(2))
    triton_forward.hidden_states[(plan.blocks * B * H,)](
        q, k, v, i, f, h, n, m, entered.states, entered.log_scale, histories,
        *strides(q, v, i), L, H, plan.blocks, plan.chunk_blocks, K**-0.5,
        K=K, V=V, S=plan.S, SHORT=plan.short,
        HAS_STATE=entered.states is not None, HAS_STARTS=histories is not None,
        num_warps=plan.warps, num_stages=plan.stages,
    )  # fmt: skip
    return h, n, m


def run_backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    h: Tensor,
    n: Tensor,
    m: Tensor,
    dh: Tensor,
    entered: Entries,
    left: Tensor | None,
    ending: Tensor | None,
    histories: Tensor | None,
    plan: Plan,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v (views of (B, L, H, .)), i and f. `dh` is `dense`; `left`, `ending`: `entry_gradients`."""
    (B, H, L, K), V = q.shape, v.shape[-1]
    dq, dk = (torch.empty(B, L, H, K, device=q.device, dtype=q.dtype).transpose(1, 2) for _ in range(2))
    dv = torch.empty_like(h)
    di, decay_gradient = (torch.empty(B, H, L, device=q.device) for _ in range(2))
    triton_backward.gradients[(plan.blocks * B * H,)](
        q, k, v, i, f, h, n, m, dh, dq, dk, dv, di, decay_gradient, entered.states, entered.log_scale, left,
        histories, *strides(q, v, i), L, H, plan.blocks, plan.chunk_blocks, K**-0.5,
        K=K, V=V, S=plan.S, SHORT=plan.short, HAS_STATE=left is not None, HAS_STARTS=histories is not None,
        num_warps=plan.warps, num_stages=plan.stages,
    )  # fmt: skip
    df = torch.empty(B, H, L, device=f.device, dtype=f.dtype)
    triton_backward.forget_gradients[(B * H,)](
        f, decay_gradient, ending, df, *strides(f), L, H,
        S=min(1024, triton.next_power_of_2(L)), HAS_ENDING=ending is not None, num_warps=1 if L <= 256 else 4,
    )  # fmt: skip
    return dq, dk, dv, di.to(i.dtype), df


def dense(dh: Tensor) -> Tensor:
    """(B, H, L, V) as a view of (B, L, H, V), which is what the kernels step through."""
    return dh.transpose(1, 2).contiguous().transpose(1, 2)


def alike(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors as they are, if their rows are dense and their strides the same; else copies."""
    dense = tensors[0].dim() == 3 or tensors[0].stride(-1) == 1
    if dense and all(x.stride() == tensors[0].stride() for x in tensors):
        return tensors
    return tuple(x.contiguous() for x in tensors)


_apply: Callable[..., Any] = _Function.apply
