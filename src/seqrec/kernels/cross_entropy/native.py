"""The cross-entropy in torch, some positions at a time: exact in float64, and fast on a CPU.

A block of scores, (R, N), is all there ever is of the matrix. The gradient of a mean is known but for one factor as
soon as the scores are, so the forward pass computes it as well: three matrix products in all, none twice. Exponentials
stay unnormalised in the block; what they are divided by goes into the narrow side of each product.

Shapes: T positions, R positions of a block, N items, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from seqrec.kernels.cross_entropy.problem import SHORTEST, Options, Problem

#: Elements of a block of scores, per thread of a CPU, where it stays in the cache, and elsewhere; fewest positions.
BLOCK, BLOCK_ELSEWHERE, FEWEST = 1 << 18, 1 << 26, 64


class _Gradients(NamedTuple):
    """Of the mean loss, by the problem's tensors."""

    h: Tensor | None
    weight: Tensor | None
    bias: Tensor | None
    own: Tensor | None
    own_bias: Tensor | None


def cross_entropy(x: Problem, options: Options) -> Tensor:
    """The mean loss of the positions that count, 0 where none does; or the loss of each (T,)."""
    if torch.is_grad_enabled() and any(part is not None and part.requires_grad for part in x):
        return (_apply_each if options.each else _apply)(options, *x)
    return _run(x, options, learning=False)[0]


class _Native(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, options: Options, *parts: Any) -> Tensor:
        loss, found = _run(Problem(*parts), options, learning=True)
        assert found is not None
        ctx.save_for_backward(*found)
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        found = (None if part is None else (part * gradient).to(part.dtype) for part in ctx.saved_tensors)
        h, weight, bias, own, own_bias = found
        return None, h, weight, bias, None, own, own_bias, None


class _NativeEach(torch.autograd.Function):
    """Losses (T,). Gradients need what is passed back first: scores are computed again."""

    @staticmethod
    def forward(ctx: Any, options: Options, *parts: Any) -> Tensor:
        ctx.save_for_backward(*parts)
        ctx.options = options
        return _run(Problem(*parts), options, learning=False)[0]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        found = _run(Problem(*ctx.saved_tensors), ctx.options, learning=True, weights=gradient)[1]
        assert found is not None
        return None, found.h, found.weight, found.bias, None, found.own, found.own_bias, None


_apply: Callable[..., Tensor] = _Native.apply
_apply_each: Callable[..., Tensor] = _NativeEach.apply


def _run(
    x: Problem, options: Options, learning: bool, weights: Tensor | None = None
) -> tuple[Tensor, _Gradients | None]:
    """The mean loss and, if learning, its gradients. Of `each`: the losses (T,), and gradients of their sum with
    `weights` (T,)."""
    with torch.autocast(x.h.device.type, enabled=False):
        counted, kept = x.targets != options.ignore_index, None
        if x.h.device.type == "cpu":  # elsewhere it would mean waiting for the device
            kept = counted.nonzero()[:, 0]
            kept = None if len(kept) == len(counted) else kept
        if kept is not None:
            counted, weights = counted[kept], None if weights is None else weights[kept]
        blocks = _Blocks(_only(x, kept), options, counted, weights, learning)
        for start in range(0, len(blocks.x.h), blocks.rows):
            blocks.take(slice(start, start + blocks.rows))
        if options.each:
            loss = (
                blocks.losses if kept is None else blocks.losses.new_zeros(len(x.h)).index_copy(0, kept, blocks.losses)
            )
        else:
            loss = blocks.loss / blocks.count
        return loss, _original(x, kept, blocks.gradients(), options) if learning else None


def _only(x: Problem, kept: Tensor | None) -> Problem:
    """Positions `kept`, all if None."""
    if kept is None:
        return x
    own, own_bias = (None if part is None else part[kept] for part in (x.own, x.own_bias))
    return x._replace(h=x.h[kept], targets=x.targets[kept], own=own, own_bias=own_bias)


def _original(x: Problem, kept: Tensor | None, found: _Gradients, options: Options) -> _Gradients:
    """Gradients of all positions, zero where none is known, each of its tensor's type."""

    def spread(like: Tensor | None, part: Tensor | None) -> Tensor | None:
        if like is None or part is None or kept is None:
            return part
        return torch.zeros_like(like, dtype=part.dtype).index_copy_(0, kept, part)

    weight = found.weight
    if options.cosine and weight is not None:  # through the normalisation
        length_N1 = x.weight.to(weight.dtype).norm(dim=1, keepdim=True).clamp_(min=SHORTEST)
        unit_ND = x.weight / length_N1
        weight = weight.sub_(unit_ND.mul_((weight * unit_ND).sum(1, keepdim=True))).div_(length_N1)
    h, own, own_bias = spread(x.h, found.h), spread(x.own, found.own), spread(x.own_bias, found.own_bias)
    found = _Gradients(h, weight, found.bias, own, own_bias)
    types = zip(found, (x.h, x.weight, x.bias, x.own, x.own_bias), strict=True)
    return _Gradients(*(None if part is None or like is None else part.to(like.dtype) for part, like in types))


class _Blocks:
    """Sums over blocks of positions. Products are of the type `options.dtype`, all else of `options.exact`."""

    def __init__(self, x: Problem, options: Options, counted: Tensor, weights: Tensor | None, learning: bool) -> None:
        self.x, self.options, self.learning = x, options, learning
        exact, (N, D) = options.exact, x.weight.shape
        block = BLOCK * torch.get_num_threads() if x.h.device.type == "cpu" else BLOCK_ELSEWHERE
        self.rows = max(FEWEST, block // N)
        self.counted = counted.to(exact)
        if options.each:  # gradients are of the sum
            self.losses, self.count = self.counted.new_empty(len(counted)), self.counted.new_ones(())
        else:
            self.count = self.counted.sum().clamp(min=1)
        self.weights = self.counted if weights is None else weights.to(exact).masked_fill(~counted, 0)
        weight = x.weight.to(exact)
        if options.cosine:
            weight = weight / weight.norm(dim=1, keepdim=True).clamp_(min=SHORTEST)
        self.w = weight.to(options.dtype)
        self.bias = None if x.bias is None else x.bias.to(exact)
        self.smoothing = options.label_smoothing / N
        self.w_sum = weight.sum(0) if options.label_smoothing else None
        self.loss = weight.new_zeros(())
        if learning:
            self.dh = x.h.new_empty(x.h.shape, dtype=exact)
            self.dw = weight.new_zeros(N, D)
            self.dbias = None if self.bias is None else weight.new_zeros(N)
            self.pull = None if x.own is None else weight.new_empty(len(x.h))

    def take(self, at: slice) -> None:
        """Add the positions `at`."""
        x, smoothing = self.x, self.options.label_smoothing
        h_RD, target_R1 = x.h[at].to(self.w.dtype), x.targets[at, None]
        counted_R1 = self.counted[at, None]
        target_R1 = torch.where(counted_R1 > 0, target_R1, 0)
        s_RN = self._product(h_RD, self.w.T)
        if self.bias is not None:
            s_RN += self.bias
        own_R1 = s_RN.gather(1, target_R1) if x.own is None else self._own(h_RD, at)
        if x.ids is not None:
            s_RN.masked_fill_(x.ids == target_R1, -torch.inf)
        top_R1 = s_RN.amax(1, keepdim=True)
        if x.own is not None:
            top_R1 = top_R1.maximum(own_R1)
        p_RN = s_RN.sub_(top_R1).exp_()
        total_R1 = p_RN.sum(1, keepdim=True)
        if x.own is not None:
            total_R1 += (own_R1 - top_R1).exp_()
        log_sum_R1 = total_R1.log().add_(top_R1)
        loss_R1 = log_sum_R1 - own_R1 * (1 - smoothing)
        if self.w_sum is not None:
            bias_sum = 0 if self.bias is None else self.bias.sum()
            loss_R1 -= self.smoothing * ((h_RD.to(self.w_sum.dtype) @ self.w_sum)[:, None] + bias_sum)
        loss_R1 = loss_R1.masked_fill_(counted_R1 == 0, 0)
        if self.options.each:
            self.losses[at] = loss_R1[:, 0]
        else:
            self.loss += loss_R1.sum()
        if self.learning:
            self._learn(at, h_RD, target_R1, p_RN, total_R1, (own_R1 - log_sum_R1).exp_())

    def _product(self, a: Tensor, b: Tensor) -> Tensor:
        """a b with all the digits of its sums."""
        if a.is_cuda and a.dtype != self.options.exact:
            return torch.mm(a, b, out_dtype=self.options.exact)
        return torch.mm(a, b).to(self.options.exact)

    def _own(self, h_RD: Tensor, at: slice) -> Tensor:
        """Scores (R, 1) of the targets, where they are given."""
        assert self.x.own is not None
        own_R1 = (h_RD * self.x.own[at].to(h_RD.dtype)).sum(1, keepdim=True, dtype=self.options.exact)
        return own_R1 if self.x.own_bias is None else own_R1 + self.x.own_bias[at, None]

    def _learn(
        self, at: slice, h_RD: Tensor, target_R1: Tensor, p_RN: Tensor, total_R1: Tensor, chance_R1: Tensor
    ) -> None:
        """Gradients, from the exponentials (R, N), their sums and the target's probability."""
        x, exact = self.x, self.options.exact
        weight_R1 = self.weights[at, None] / self.count
        scale_R1 = weight_R1 / total_R1
        if x.own is None:
            p_RN.scatter_add_(1, target_R1, total_R1 * (self.options.label_smoothing - 1))
        p_RN = p_RN.to(self.w.dtype)
        dh_RD = self._product(p_RN, self.w).mul_(scale_R1)
        if self.w_sum is not None:
            dh_RD -= self.smoothing * weight_R1 * self.w_sum
        scaled_RD = (h_RD * scale_R1).to(self.w.dtype)
        if self.w.dtype == exact:
            self.dw.addmm_(p_RN.T, scaled_RD)
        else:
            self.dw += self._product(p_RN.T, scaled_RD)
        if self.dbias is not None:
            self.dbias += torch.mv(p_RN.T.to(exact), scale_R1[:, 0])
        if self.pull is not None and x.own is not None:
            pull_R1 = (chance_R1 - 1) * weight_R1
            self.pull[at] = pull_R1[:, 0]
            dh_RD += pull_R1 * x.own[at]
        self.dh[at] = dh_RD

    def gradients(self) -> _Gradients:
        """All of them, of the positions given."""
        x = self.x
        if self.options.label_smoothing:
            self.dw -= self.smoothing / self.count * (self.weights @ x.h.to(self.dw.dtype))
            if self.dbias is not None:
                self.dbias -= self.smoothing * (self.weights.sum() / self.count)
        own = None if self.pull is None else self.pull[:, None] * x.h
        return _Gradients(self.dh, self.dw, self.dbias, own, None if x.own_bias is None else self.pull)
