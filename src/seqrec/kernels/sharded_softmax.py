"""Cross-entropy over a catalogue whose vectors lie on several ranks, each with a contiguous part of the rows.

Every rank compares the hidden states of all ranks with its own items. Of the scores only three numbers per position
travel: their largest, the sum of their exponentials, and the target's (a fourth, their sum, for label smoothing). From
the same numbers each rank has the exact gradient of its rows; gradients of hidden states are summed over ranks. The
(positions x items) matrix is made in blocks of items and never kept.

Vocabulary-parallel cross-entropy after Shoeybi et al., "Megatron-LM", 2019; running maxima after Milakov and
Gimelshein, "Online normalizer calculation for softmax", 2018.

Shapes: T positions of one rank, A positions of all ranks, D width, S items of this rank, C items of a block.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from seqrec.distributed import Ranks

#: Numbers in a block of scores, at most: 256 MiB of float32.
MOST_SCORES = 1 << 26
#: What stands at a position without a target.
NO_TARGET = 0


class Shard(NamedTuple):
    """Which part of the catalogue is here: items low + 1, low + 2, ... of `num_items`."""

    low: int
    num_items: int
    ranks: Ranks


def sharded_cross_entropy(
    h_TD: Tensor, rows_SD: Tensor, offsets_S: Tensor | None, targets_T: Tensor, shard: Shard, smoothing: float = 0.0
) -> Tensor:
    """(T,) float32 (float64 of float64) losses of this rank's positions, 0 where there is no target.

    All ranks call it, and its backward, together and with the same T.

    Args:
        h_TD: hidden states; products are taken in their dtype.
        rows_SD, offsets_S: this rank's vectors and what is added to the scores of its items, or None.
        targets_T: int64 items 1..num_items, or NO_TARGET.
        smoothing: share of the target spread over all items.
    """
    return _CrossEntropy.apply(h_TD, rows_SD, offsets_S, targets_T, shard, smoothing)  # type: ignore[no-untyped-call]


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        h_TD: Tensor,
        rows_SD: Tensor,
        offsets_S: Tensor | None,
        targets_T: Tensor,
        shard: Shard,
        smoothing: float,
    ) -> Tensor:
        ranks = shard.ranks
        with torch.autocast(h_TD.device.type, enabled=False):
            h_AD, targets_A = ranks.gather(h_TD), ranks.gather(targets_T)
            columns_A = targets_A - 1 - shard.low
            largest_A, sums_3A = _reduce(h_AD, rows_SD, offsets_S, columns_A)
            common_A = ranks.maximum(largest_A.clone())
            sums_3A[0] *= (largest_A - common_A).exp()
            exponentials_A, target_A, total_A = ranks.sum(sums_3A)
        lse_A = common_A + exponentials_A.log()
        loss_A = lse_A - (1 - smoothing) * target_A - smoothing / shard.num_items * total_A
        ctx.save_for_backward(h_AD, rows_SD, offsets_S, targets_A, lse_A)
        ctx.shard, ctx.smoothing = shard, smoothing
        own_T = loss_A.view(ranks.size, -1)[ranks.rank]
        return own_T.masked_fill(targets_T == NO_TARGET, 0)

    @staticmethod
    def backward(ctx: Any, gradient_T: Tensor) -> tuple[Tensor | None, ...]:
        h_AD, rows_SD, offsets_S, targets_A, lse_A = ctx.saved_tensors
        shard, smoothing = ctx.shard, ctx.smoothing
        gradient_A = shard.ranks.gather(gradient_T).masked_fill(targets_A == NO_TARGET, 0)
        columns_A = targets_A - 1 - shard.low
        by_row, by_offset = torch.empty_like(rows_SD), None if offsets_S is None else torch.empty_like(offsets_S)
        by_h_AD = torch.zeros_like(h_AD, dtype=lse_A.dtype)
        for start, scores_AC, rows_CD in _blocks(h_AD, rows_SD, offsets_S):
            pull_AC = (scores_AC - lse_A[:, None]).exp() - smoothing / shard.num_items
            inside_A, index_A = _inside(columns_A - start, scores_AC.shape[1])
            pull_AC.scatter_add_(1, index_A[:, None], inside_A[:, None].to(pull_AC.dtype) * (smoothing - 1))
            pull_AC *= gradient_A[:, None]
            if by_offset is not None:
                by_offset[start : start + len(rows_CD)] = pull_AC.sum(0)
            pull_AC = pull_AC.to(h_AD.dtype)
            by_row[start : start + len(rows_CD)] = pull_AC.T @ h_AD
            by_h_AD += pull_AC @ rows_CD
        return shard.ranks.sum_of_rows(by_h_AD).to(h_AD.dtype), by_row, by_offset, None, None, None


def _reduce(h_AD: Tensor, rows_SD: Tensor, offsets_S: Tensor | None, columns_A: Tensor) -> tuple[Tensor, Tensor]:
    """Largest score (A,) among this rank's items; and (3, A): sum of exponentials under that, the target's score where
    it is here (0 elsewhere), sum of scores."""
    dtype = torch.promote_types(h_AD.dtype, torch.float32)
    largest_A = h_AD.new_full((len(h_AD),), -torch.inf, dtype=dtype)
    sums_3A = h_AD.new_zeros(3, len(h_AD), dtype=dtype)
    for start, scores_AC, _ in _blocks(h_AD, rows_SD, offsets_S):
        before_A, largest_A = largest_A, torch.maximum(largest_A, scores_AC.amax(1))
        inside_A, index_A = _inside(columns_A - start, scores_AC.shape[1])
        sums_3A[1] += scores_AC.gather(1, index_A[:, None])[:, 0] * inside_A
        sums_3A[2] += scores_AC.sum(1)
        sums_3A[0] *= (before_A - largest_A).exp()
        sums_3A[0] += (scores_AC - largest_A[:, None]).exp().sum(1)
    return largest_A, sums_3A


def _blocks(h_AD: Tensor, rows_SD: Tensor, offsets_S: Tensor | None) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Where a block of items starts, its scores (A, C) in float32 or float64, and its vectors (C, D)."""
    size = max(1, MOST_SCORES // max(len(h_AD), 1))
    for start in range(0, len(rows_SD), size):
        rows_CD = rows_SD[start : start + size].to(h_AD.dtype)
        scores_AC = (h_AD @ rows_CD.T).to(torch.promote_types(h_AD.dtype, torch.float32))
        if offsets_S is not None:
            scores_AC += offsets_S[start : start + size]
        yield start, scores_AC, rows_CD


def _inside(columns_A: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Whether each column is one of a block's, as 0 or 1 of int64; and a column that is, in any case."""
    index_A = columns_A.clamp(0, size - 1)
    return (index_A == columns_A).long(), index_A
