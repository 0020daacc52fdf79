"""How much every event of an mLSTM counts, chunk by chunk: the part of the native form that sees only the gates.

Within a history the weight of v_s in h_t is q_t.k_s exp(b_t - b_s + i_s) / sqrt(K), b being the running sum of log f.
With a_s = i_s - b_s and the peak M_t, the largest a_s up to t (or the log scale of the initial state, if that is
larger), the stabiliser is m_t = b_t + M_t and the weight over exp(m_t) is exp(a_s - M_t): no sum over a span is left in
it. A chunk is planned in one of two ways.

Split: M moves little, so all weights are exp(a_s - u) with one unit u for the chunk. h does not depend on the unit,
since the floor of the normaliser, exp(-b_t - u) sqrt(K), has the same. Values times exp(a_s - u) are all it takes.

Written out: M moves far (gates wide open or shut), so exp(a_s - M_t) is a matrix.

Everything is computed in float64, where differences of long sums are taken, and handed over in the dtype of the cell.

Shapes: B rows, H heads, L positions, S positions in a chunk, N chunks.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from seqrec.kernels.mlstm.state import CLOSED

#: How far M may move in a chunk that is split; also at most 1 per position, as gradients of gates that forget faster
#: are too small to be taken from differences.
REACH = 40.0


class Chunk(NamedTuple):
    """Factors of the events of one chunk. H is 1 where heads do not differ; None stands for ones.

    `written_out` decides how `weights` came about. The memory that enters a chunk is over exp(its unit).
    """

    at: slice
    written_out: bool
    gain: Tensor | None  # (B, H, S, 1): of values, within the chunk
    weights: Tensor | None  # (B, H, S, S): of scores; None: the lower triangle
    enter: Tensor | None  # (B, H, S, 1): of what is read from the memory
    leave: Tensor | None  # (B, H, S, 1): of values that go into the memory; None: as the memory, `keep`
    keep: Tensor  # (B, H, 1, 1): of the memory, from one unit to the next; 0 if another history follows
    floor: Tensor  # (B, H, S): the least size of the normaliser, times sqrt(K)

    def of(self, rows: slice, head: int) -> Chunk:
        """The factors of these rows in one head, without their dimension H."""
        parts = (x if x is None else x[rows, head if x.shape[1] > 1 else 0] for x in self[2:])
        return Chunk(self.at, self.written_out, *parts)  # type: ignore[arg-type]


class Plan(NamedTuple):
    """All chunks, and how the state passes into the first (`begin`, (B, H, 1, 1)) and out of the last."""

    chunks: list[Chunk]
    begin: Tensor
    log_scale: Tensor


class _Gates(NamedTuple):
    """a, b and M (B, H, L) float64; `history` (B, L) counts the starts up to each position."""

    a: Tensor
    b: Tensor
    peak: Tensor
    history: Tensor | None


def plan(
    i: Tensor,
    f: Tensor,
    log_scale: Tensor,
    starts: Tensor | None,
    inside: Tensor | None,
    size: int,
    width: int,
    dtype: torch.dtype,
) -> Plan:
    """Plan chunks of `size` positions.

    Args:
        i, f: gates before activation (B, H, L). log_scale: of the initial state (B, H).
        starts: (B, L) bool, a new history begins. inside: (B, L) bool, the position counts; None for all.
        width: of the keys, K. dtype: of the factors.
    """
    gates = _gates(i, f, log_scale.double(), starts, inside)
    spans = [slice(t, min(t + size, i.shape[2])) for t in range(0, i.shape[2], size)]
    low = torch.stack([gates.peak[..., at].amin(-1) for at in spans], -1)
    high = torch.stack([gates.peak[..., at].amax(-1) for at in spans], -1)
    split = _split(low, high, size)
    before = torch.stack([log_scale.double(), *(gates.peak[..., at.stop - 1] for at in spans)], -1)
    units = [(low[..., n] + high[..., n]) / 2 if split[n] else before[..., n] for n in range(len(spans))]
    units.append(before[..., -1])
    chunks = []
    for n, at in enumerate(spans):
        make = _split_chunk if split[n] else _written_chunk
        chunks.append(make(gates, math.log(width) / 2, at, units[n].unsqueeze(-1), units[n + 1].unsqueeze(-1), dtype))
    begin = log_scale.double() - units[0]
    if gates.history is not None:
        begin = begin.masked_fill(gates.history[:, :1] != 0, -torch.inf)
    return Plan(chunks, _exp(begin, dtype)[..., None, None], (gates.b[..., -1] + units[-1]).to(dtype))


def _gates(i: Tensor, f: Tensor, log_scale: Tensor, starts: Tensor | None, inside: Tensor | None) -> _Gates:
    i, log_f = i.double().contiguous(), F.logsigmoid(f.double().contiguous())
    if inside is not None:
        i, log_f = i.masked_fill(~inside[:, None], CLOSED), log_f.masked_fill(~inside[:, None], 0.0)
        starts = None if starts is None else starts & inside
    if starts is None:
        b = log_f.cumsum(-1)
        return _Gates(i - b, b, torch.maximum((i - b).cummax(-1).values, log_scale.unsqueeze(-1)), None)
    history = starts.cumsum(-1)
    b = log_f.masked_fill(starts[:, None], 0.0).cumsum(-1)
    a = i - b
    first = torch.where(history[:, None] == 0, torch.maximum(a, log_scale.unsqueeze(-1)), a)
    return _Gates(a, b, _peaks(first, history[:, None]), history)


def _peaks(a: Tensor, history: Tensor) -> Tensor:
    """Largest value so far of each history, by doubling the span that each position has seen."""
    seen = 1
    while seen < a.shape[-1]:
        mine = history[..., seen:] == history[..., :-seen]
        late = torch.where(mine, torch.maximum(a[..., seen:], a[..., :-seen]), a[..., seen:])
        a = torch.cat([a[..., :seen], late], -1)
        seen *= 2
    return a


def _split(low: Tensor, high: Tensor, size: int) -> list[bool]:
    """Which of the N chunks can be split, by their least and largest peaks (B, H, N)."""
    if torch.compiler.is_compiling():  # a traced graph cannot depend on the gates
        return [False] * low.shape[-1]
    return ((high - low).flatten(0, 1).amax(0) <= min(REACH, size)).tolist()


def _split_chunk(gates: _Gates, scale: float, at: slice, unit: Tensor, after: Tensor, dtype: torch.dtype) -> Chunk:
    gain, keep = _exp(gates.a[..., at] - unit, dtype).unsqueeze(-1), unit - after
    floor = _exp(scale - (gates.b[..., at] + unit), dtype)
    if gates.history is None:
        return Chunk(at, False, gain, None, None, None, _exp(keep, dtype).unsqueeze(-1), floor)
    visible, entered, left, passes = _masks(gates.history, at)
    leave = keep.masked_fill(~left[:, None], -torch.inf)
    return Chunk(
        at,
        False,
        gain,
        visible[:, None].to(dtype),
        entered[:, None, :, None].to(dtype),
        _exp(leave, dtype).unsqueeze(-1),
        _exp(keep.masked_fill(~passes[:, None], -torch.inf), dtype).unsqueeze(-1),
        floor,
    )


def _written_chunk(gates: _Gates, scale: float, at: slice, unit: Tensor, after: Tensor, dtype: torch.dtype) -> Chunk:
    a, peak = gates.a[..., at], gates.peak[..., at]
    weights, enter, leave, keep = _weights(a, peak, dtype), unit - peak, a - after, unit - after
    if gates.history is None:
        weights = weights.tril()
    else:
        visible, entered, left, passes = _masks(gates.history, at)
        weights = weights.masked_fill(~visible[:, None], 0.0)
        enter = enter.masked_fill(~entered[:, None], -torch.inf)
        leave = leave.masked_fill(~left[:, None], -torch.inf)
        keep = keep.masked_fill(~passes[:, None], -torch.inf)
    enter, leave, keep = (_exp(x, dtype).unsqueeze(-1) for x in (enter, leave, keep))
    return Chunk(at, True, None, weights, enter, leave, keep, _exp(scale - (gates.b[..., at] + peak), dtype))


def _masks(history: Tensor, at: slice) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Bool: which pairs (B, S, S) see each other, which positions (B, S) belong to the history that enters the chunk
    and to the one that enters the next, and whether these two (B, 1) are the same."""
    mine, entering = history[:, at], history[:, at.start, None]
    following = history[:, min(at.stop, history.shape[1] - 1), None]
    visible = (mine[:, :, None] == mine[:, None, :]).tril()
    return visible, mine == entering, mine == following, entering == following


def _weights(a: Tensor, peak: Tensor, dtype: torch.dtype) -> Tensor:
    """exp(a_s - M_t) (B, H, S, S). Both are split into what float32 holds and the rest, which costs less than float64
    and loses no digit of small differences of large numbers."""
    if dtype == torch.float64:
        return torch.exp((a.unsqueeze(-2) - peak.unsqueeze(-1)).clamp(max=0))  # what is above is masked later
    a_high, peak_high = a.to(dtype), peak.to(dtype)
    a_low, peak_low = (a - a_high).to(dtype), (peak - peak_high).to(dtype)
    weights = a_high.unsqueeze(-2) - peak_high.unsqueeze(-1)
    return weights.add_(a_low.unsqueeze(-2) - peak_low.unsqueeze(-1)).clamp_(max=0).exp_()


def _exp(x: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.exp(x).to(dtype)
