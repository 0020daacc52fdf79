"""The sLSTM kernels of `triton_recurrence` as a differentiable function.

Shapes: B rows, L positions, H heads, K width of a head.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable

from seqrec.kernels.slstm import triton_recurrence as kernels
from seqrec.kernels.slstm.state import Mean, SLSTMState, after_rows, initial_state, to_mean

#: Rows of one program; the least a matrix unit takes.
ROWS = 16
#: Least tokens of a program that sums the weights' gradient, and how many it reads at a time.
CHUNK, TOKENS = 1024, 32


def fused(
    x: Tensor, r: Tensor, state: SLSTMState | None = None, lengths: Tensor | None = None, starts: Tensor | None = None
) -> tuple[Tensor, SLSTMState]:
    """As `slstm_prefill`, on a GPU; x of 16 or 32 bits, K one of 16, 32, 64, 128. The state is float32."""
    B, L, _, H, K = x.shape
    state = state or initial_state(B, H, K, x)
    ends = torch.full((B,), L, device=x.device) if lengths is None else lengths
    starts = None if starts is None else starts.contiguous()
    before = Mean(*(part.float().contiguous() for part in to_mean(state)))
    x = x if x.stride(-1) == 1 and 0 not in x.stride() else x.contiguous()
    inputs = (x, r.to(x.dtype).contiguous(), *before)
    if torch.is_grad_enabled() and any(part.requires_grad for part in inputs):
        h, *last = _Recurrence.apply(*inputs, ends - 1, starts)  # type: ignore[no-untyped-call]
    else:
        h, last, _ = _forward(*inputs, ends - 1, starts, keep=False)
    return h, after_rows(Mean(*last), state, ends)


def _forward(
    x: Tensor, r: Tensor, hidden: Tensor, mean: Tensor, log_weight: Tensor, ends: Tensor, starts: Tensor | None,
    keep: bool,
) -> tuple[Tensor, Mean, tuple[Tensor, Tensor, Tensor]]:  # fmt: skip
    """h, the state after each row's end, and h, gates and means for the backward pass; scratch but for `keep`."""
    B, L, _, H, K = x.shape
    h = x.new_empty(B, L, H, K)
    gates = x.new_empty(B, L, 4, H, K) if keep else x
    means = mean.new_empty(B, L + 1, H, K) if keep else mean
    last = Mean(hidden.clone(), mean.clone(), log_weight.clone())
    kernels.walk[(triton.cdiv(B, ROWS), H)](
        x, r, x if starts is None else starts, ends, hidden, mean, log_weight, h, gates, means, *last,
        B, L, *x.stride()[:4], **_plan(x), HAS_STARTS=starts is not None, KEEP=keep,
    )  # fmt: skip
    return h, last, (h, gates, means)


class _Recurrence(torch.autograd.Function):
    """`_forward` with its gradient. The state of a row that has no end is no output and has none."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, r: Tensor, hidden: Tensor, mean: Tensor, log_weight: Tensor, ends: Tensor,
        starts: Tensor | None,
    ) -> Any:  # fmt: skip
        h, last, saved = _forward(x, r, hidden, mean, log_weight, ends, starts, keep=True)
        ctx.save_for_backward(r, hidden, ends, starts, *saved)
        ctx.like = torch.empty_like(x, device="meta")
        return h, *last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dh: Tensor, *dlast: Tensor) -> Any:
        r, hidden, ends, starts, h, gates, means = ctx.saved_tensors
        dx = torch.empty_like(ctx.like, device=dh.device)
        B, L, _, H, _ = dx.shape
        dstate = Mean(*(torch.empty_like(hidden) for _ in range(3)))
        kernels.walk_back[(triton.cdiv(B, ROWS), H)](
            r, r if starts is None else starts, ends, gates, means, dh.contiguous(),
            *(part.contiguous() for part in dlast), dx, *dstate,
            B, L, *dx.stride()[:4], **_plan(dx), HAS_STARTS=starts is not None,
        )  # fmt: skip
        dr = _weights_gradient(h, hidden, starts, dx) if ctx.needs_input_grad[1] else None
        return dx, dr, *dstate, None, None


def _weights_gradient(h: Tensor, hidden: Tensor, starts: Tensor | None, dx: Tensor) -> Tensor:
    """(4, H, K, K) in the type of `dx`: each program sums a share of the tokens, so that many run at once."""
    B, L, _, H, K = dx.shape
    chunk = max(CHUNK, triton.cdiv(B * L, 64))
    parts = hidden.new_empty(triton.cdiv(B * L, chunk), 4, H, K, K)
    kernels.weights_gradient[(parts.shape[0], 4 * H)](
        h, hidden, h if starts is None else starts, dx, parts, B * L, L, chunk, *dx.stride()[:4],
        H=H, K=K, C=TOKENS, HAS_STARTS=starts is not None, num_warps=4 if K <= 64 else 8,
    )  # fmt: skip
    return parts.sum(0).to(dx.dtype)


def _plan(x: Tensor) -> dict[str, Any]:
    """In 16 bits the weights of four gates fit into the registers of a program, and what is loaded ahead into its
    shared memory beside them; in 32 bits neither does."""
    H, K = x.shape[-2:]
    if x.element_size() == 4:
        return {"H": H, "K": K, "R": ROWS, "RESIDENT": False, "num_warps": max(4, K // 8), "num_stages": 1}
    wide = K > 64
    return {
        "H": H, "K": K, "R": ROWS, "RESIDENT": True, "num_warps": 8 if wide else 4, "num_stages": 2 if wide else 3
    }  # fmt: skip
