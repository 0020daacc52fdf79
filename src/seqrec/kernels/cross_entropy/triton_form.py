"""The cross-entropy on a GPU: which Triton kernels run on what, and their place in autograd.

Nothing waits for the GPU. Products are of the precision of `dtype`, sums are float32.

Shapes: T positions, N items, D width, K candidates.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
import triton
from torch import Tensor

from seqrec.kernels.cross_entropy import triton_backward, triton_forward
from seqrec.kernels.cross_entropy.problem import Options, Problem
from seqrec.kernels.cross_entropy.triton_plan import parts, tiles

#: Positions or items that a program takes where there is no product to compute.
ROWS = 16


class _Given(NamedTuple):
    """The problem as the kernels take it: in one precision, dense, filled up to a width that is a power of two."""

    h: Tensor
    w: Tensor
    inverse: Tensor | None  # (N,) 1 / length of each row of the original, for cosine
    bias: Tensor | None
    own: Tensor | None
    own_bias: Tensor | None
    targets: Tensor
    ids: Tensor | None


class _Found(NamedTuple):
    """What the forward pass leaves: `log_sum` (T,), `columns` (T,) int32, and the sum of losses and their number.

    Of `each`: the losses (T,) too.
    """

    dh: Tensor | None  # (T, D) of each position's own loss
    pull: Tensor | None  # (T,) the same of the targets' scores
    log_sum: Tensor
    columns: Tensor
    totals: Tensor
    losses: Tensor | None

    def told(self) -> Tensor:
        """The losses where there is one for each position, else their mean."""
        return self.totals[0] / self.totals[1].clamp(min=1) if self.losses is None else self.losses


def cross_entropy(x: Problem, options: Options) -> Tensor:
    """The mean loss of the positions that count, 0 where none does; or the loss of each (T,)."""
    if torch.is_grad_enabled() and any(part is not None and part.requires_grad for part in x):
        return _apply(options, *x)
    return _forward(_given(x, options), options, gradients=False).told()


class _Function(torch.autograd.Function):
    """The loss. Gradients of h are ready after the forward pass but for a factor, or one for each position."""

    @staticmethod
    def forward(ctx: Any, options: Options, *parts: Any) -> Tensor:
        problem = Problem(*parts)
        problem = problem._replace(weight=problem.weight.contiguous())
        x = _given(problem, options)
        found = _forward(x, options, gradients=True)
        ctx.save_for_backward(*problem, *x, *found)
        ctx.options = options
        return found.told()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        saved, at = ctx.saved_tensors, len(Problem._fields)
        problem, x = Problem(*saved[:at]), _Given(*saved[at : at + len(_Given._fields)])
        found = _Found(*saved[at + len(x) :])
        h, weight, own, needs = problem.h, problem.weight, problem.own, ctx.needs_input_grad
        each = ctx.options.each
        scale = gradient.float().contiguous() if each else gradient / found.totals[1].clamp(min=1)
        dweight = dbias = down = down_bias = None
        if needs[2] or needs[3]:
            dweight, dbias = _backward(x, weight, found, scale, ctx.options)
        if own is not None and found.pull is not None:
            pull = found.pull * scale
            down = (pull[:, None] * h).to(own.dtype)
            down_bias = None if problem.own_bias is None else pull.to(problem.own_bias.dtype)
        assert found.dh is not None
        dh = torch.mul(found.dh[:, : h.shape[1]], scale[:, None] if each else scale).to(h.dtype)
        return None, dh, dweight, dbias, None, down, down_bias, None


def _given(x: Problem, options: Options) -> _Given:
    w, inverse = _table(x.weight.contiguous(), options)
    own = None if x.own is None else _rows(x.own, w)
    ids = None if x.ids is None else x.ids.to(torch.int32).contiguous()
    bias, own_bias = (None if part is None else part.contiguous() for part in (x.bias, x.own_bias))
    return _Given(_rows(x.h, w), w, inverse, bias, own, own_bias, x.targets.contiguous(), ids)


def _table(weight: Tensor, options: Options) -> tuple[Tensor, Tensor | None]:
    """Item vectors in the precision of the products, (N, D) with D a power of two, and 1 / their lengths."""
    N, width = weight.shape
    D = max(16, triton.next_power_of_2(width))
    if weight.dtype == options.dtype and width == D and not options.cosine:
        return weight, None
    w = weight.new_empty(N, D, dtype=options.dtype)
    inverse = weight.new_empty(N, dtype=torch.float32) if options.cosine else None
    triton_forward.item_rows[(triton.cdiv(N, ROWS),)](
        weight, w, inverse, N, width, D=D, ROWS=ROWS, COSINE=options.cosine, num_warps=4
    )
    return w, inverse


def _rows(x: Tensor, w: Tensor) -> Tensor:
    """Of the precision and the width of `w`, dense."""
    x, missing = x.to(w.dtype), w.shape[1] - x.shape[1]
    return F.pad(x, (0, missing)) if missing else x.contiguous()  # padding by nothing would copy


def _forward(x: _Given, options: Options, gradients: bool) -> _Found:
    (T, D), N, shared = x.h.shape, len(x.w), x.ids is not None
    cut = tiles(x.h).forward
    count, share = parts(T, N, cut, x.h)
    tops, totals = x.h.new_empty(2, count, T, dtype=torch.float32)
    means = x.h.new_empty(count, T, D, dtype=torch.float32) if gradients else None
    blocks = triton.cdiv(T, cut.own)
    flags = {"SHARED": shared, "GRADIENTS": gradients}
    triton_forward.log_sums[(blocks * count,)](
        x.h, x.w, x.bias, x.ids, x.targets, means, tops, totals, T, N, blocks, share,
        D=D, OWN=cut.own, MET=cut.met, HAS_BIAS=x.bias is not None, **flags,
        num_warps=cut.warps, num_stages=cut.stages,
    )  # fmt: skip
    smoothed, target_bias = options.label_smoothing > 0, x.own_bias if shared else x.bias
    w_sum = x.w.sum(0, dtype=torch.float32) if smoothed else None
    bias_sum = x.bias.sum(dtype=torch.float32) if smoothed and x.bias is not None else None
    dh = x.h.new_empty(T, D, dtype=torch.float32) if gradients else None
    pull = tops.new_empty(T) if shared else None
    log_sum, columns = tops.new_empty(T), tops.new_empty(T, dtype=torch.int32)
    sums = tops.new_empty(triton.cdiv(T, ROWS), 2)
    losses = tops.new_empty(T) if options.each else None
    triton_forward.combine_log_sums[(triton.cdiv(T, ROWS),)](
        x.h, x.w, x.own, target_bias, x.targets, means, tops, totals, w_sum, bias_sum, dh, pull, log_sum, columns,
        sums, losses, T, N, count, options.ignore_index, options.label_smoothing,
        D=D, ROWS=ROWS, HAS_BIAS=target_bias is not None, SMOOTHED=smoothed, EACH=options.each, **flags, num_warps=4,
    )  # fmt: skip
    return _Found(dh, pull, log_sum, columns, sums.sum(0), losses)


def _backward(
    x: _Given, weight: Tensor, found: _Found, scale: Tensor, options: Options
) -> tuple[Tensor, Tensor | None]:
    """Gradients of item vectors and biases; `scale` is a scalar, or (T,) for `each`."""
    (T, D), N, width, smoothing = x.h.shape, len(x.w), weight.shape[1], options.label_smoothing
    cut = tiles(x.h).backward
    number, share = parts(N, T, cut, x.h)
    weights = scale if options.each else None
    scale = torch.ones_like(found.totals[1]) if options.each else scale
    dweight = torch.empty_like(weight)
    in_place = number == 1 and width == D and weight.dtype == torch.float32
    sums = dweight if in_place else weight.new_empty(number, N, D, dtype=torch.float32)
    bias_sums = None if x.bias is None else sums.new_empty(number, N)
    blocks = triton.cdiv(N, cut.own)
    triton_backward.item_gradients[(blocks * number,)](
        x.h, x.w, x.bias, x.ids, found.log_sum, found.columns, weights, sums, bias_sums, T, N, blocks, share,
        1.0 - smoothing,
        D=D, OWN=cut.own, MET=cut.met, HAS_BIAS=x.bias is not None, SHARED=x.ids is not None, EACH=options.each,
        num_warps=cut.warps, num_stages=cut.stages,
    )  # fmt: skip
    counted = found.columns >= 0 if weights is None else weights.masked_fill(found.columns < 0, 0)
    h_sum = (x.h.float() * counted[:, None]).sum(0) if smoothing else None
    triton_backward.finish_item_gradients[(triton.cdiv(N, ROWS),)](
        sums, weight, x.inverse, h_sum, scale, dweight, N, width, number, smoothing,
        D=D, ROWS=ROWS, COSINE=options.cosine, SMOOTHED=smoothing > 0, num_warps=4,
    )  # fmt: skip
    if x.bias is None or bias_sums is None:
        return dweight, None
    number_counted = found.totals[1] if weights is None else counted.sum()
    return dweight, ((bias_sums.sum(0) - smoothing / N * number_counted) * scale).to(x.bias.dtype)


_apply: Callable[..., Any] = _Function.apply
