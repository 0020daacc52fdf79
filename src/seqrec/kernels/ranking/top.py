"""Which items stand first, ties by number, without sorting whole rows.

Shapes: B cases, N items (column j is item j + 1), k places, G groups of W neighbouring columns,
C columns that are sorted.
"""

from __future__ import annotations

from math import log2

import torch
from torch import Tensor

#: Below all that `_order` gives.
LAST = torch.iinfo(torch.int64).min


def top_items(scores_BN: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Items (B, k) int64 and their scores (B, k), best first; item 0 stands where nothing is left to show.

    Of items with equal scores (in float32) the one with the smaller number stands first, on every device.

    Columns are grouped by W neighbours. An item among the first k lies in one of the k groups whose best items stand
    first, for each of these k items would stand before it otherwise. So one pass over the scores finds the best of
    each group, and only k groups are sorted item by item.
    """
    N, k_here = scores_BN.shape[1], min(k, scores_BN.shape[1])
    columns_BC = _candidates(scores_BN, k_here)
    behind_BC = columns_BC >= N
    columns_BC = columns_BC.clamp(max=N - 1)
    order_BC = _order(scores_BN.gather(1, columns_BC), columns_BC).masked_fill_(behind_BC, LAST)
    columns_Bk = columns_BC.gather(1, order_BC.topk(k_here, dim=1).indices)
    scores_Bk = scores_BN.gather(1, columns_Bk)
    items_Bk = torch.where(scores_Bk > -torch.inf, columns_Bk + 1, 0)
    missing = k - k_here
    if missing > 0:
        items_Bk = torch.nn.functional.pad(items_Bk, (0, missing))
        scores_Bk = torch.nn.functional.pad(scores_Bk, (0, missing), value=-torch.inf)
    return items_Bk, scores_Bk


def _candidates(scores_BN: Tensor, k: int) -> Tensor:
    """Columns (B, C) among which the first k stand: those of k groups. The last group may reach behind column N - 1."""
    (B, N), device = scores_BN.shape, scores_BN.device
    width = 2 ** round(log2(N / k) / 2)  # makes groups, and columns in k groups, about equally many
    if k * width >= N:
        return torch.arange(N, device=device).expand(B, N)
    best_BG = _best_of_groups(scores_BN, width)
    order_BG = _order(best_BG, torch.arange(best_BG.shape[1], device=device))
    groups_Bk = order_BG.topk(k, dim=1, sorted=False).indices
    return (groups_Bk[:, :, None] * width + torch.arange(width, device=device)).flatten(1)


def _best_of_groups(scores_BN: Tensor, width: int) -> Tensor:
    """Largest score (B, G) of each `width` neighbouring columns; the last group may be smaller."""
    whole = scores_BN.shape[1] // width * width
    best_BG = scores_BN[:, :whole].unflatten(1, (-1, width)).amax(2)
    rest_Bn = scores_BN[:, whole:]
    return torch.cat([best_BG, rest_Bn.amax(1, keepdim=True)], 1) if rest_Bn.shape[1] else best_BG


def _order(scores_BC: Tensor, columns: Tensor) -> Tensor:
    """Integers (B, C) in the order of the scores in float32, ties by column: topk alone breaks ties as it likes."""
    bits = (scores_BC.float() + 0.0).view(torch.int32)  # + 0.0 makes -0.0 equal to 0.0
    ascending = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).long()
    return ascending * 2**31 - columns


def merge(lists: tuple[Tensor, Tensor], more: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """The first k of two lists that `top_items` gave, where all items of `more` have larger numbers."""
    items, scores = (torch.cat(both, 1) for both in zip(lists, more, strict=True))
    places_Bk, scores_Bk = top_items(scores, lists[0].shape[1])  # of equals the one further left, the smaller number
    return torch.where(places_Bk > 0, items.gather(1, (places_Bk - 1).clamp(min=0)), 0), scores_Bk
