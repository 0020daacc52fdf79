"""The mLSTM in torch, a chunk at a time, with a backward pass of its own: exact in float64, and fast on a CPU.

`native_plan` turns gates into factors. What is left here is matrix products over blocks of rows that stay in the cache.
The normaliser is one more column of the values, all ones: [C n] is one memory, and numerator and normaliser of h are
one product. The backward pass reads the scores within chunks and the memories at their edges, which is what is stored
beside inputs and h: linear in the length.

Two facts save work in it. h does not change when q is scaled while the normaliser is above its floor, so q.dq is dh.h
where the floor holds and 0 elsewhere. The weight of an event is in its value only, so di is [v 1].d[v 1].

Shapes: B rows, H heads, L positions, K key width, V value width, W = V + 1, S positions in a chunk, R rows of a block.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from seqrec.kernels.mlstm.native_plan import Chunk, Plan, plan
from seqrec.kernels.mlstm.state import MLSTMState, initial_state

#: About the chunk size, and the length up to which one chunk is cheaper than two.
CHUNK, WHOLE = 40, 64
#: Elements of one tensor of a block, per thread: about ten of them are in use at a time.
BLOCK = 1 << 17


class _Inputs(NamedTuple):
    """`memory` (B, H, K, W) or None for an empty state; `log_scale` (B, H); `starts`, `inside` (B, L) bool or None."""

    q: Tensor
    k: Tensor
    v: Tensor
    i: Tensor
    f: Tensor
    memory: Tensor | None
    log_scale: Tensor
    starts: Tensor | None
    inside: Tensor | None


class _Run(NamedTuple):
    """What a forward pass leaves to the backward pass."""

    plan: Plan
    blocks: list[tuple[slice, int]]
    kept: list[list[tuple[Tensor, Tensor | None]]]  # per block and chunk: scores (R, S, S), entering memory (R, K, W)
    size: Tensor  # (B, H, L) what the numerator was divided by
    sign: Tensor  # (B, H, L) sign of the normaliser, 0 where the floor held


def native(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    state: MLSTMState | None = None,
    lengths: Tensor | None = None,
    starts: Tensor | None = None,
    *,
    chunk: int | None = None,
) -> tuple[Tensor, MLSTMState]:
    """h (B, H, L, V) and the state after each row's last event: see `mlstm_prefill`.

    Args:
        chunk: positions in a chunk; None to choose by the length. L makes it the parallel form.
    """
    if 0 in (q.shape[0], q.shape[2]):
        return v, state or initial_state(q.shape[0], q.shape[1], q.shape[-1], v.shape[-1], q)
    h, memory, log_scale = _run(q, k, v, i, f, state, lengths, starts, chunk, with_state=True)
    return h, MLSTMState(memory[..., :-1], memory[..., -1], log_scale)


def native_hidden(
    q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, starts: Tensor | None = None, *, chunk: int | None = None
) -> Tensor:
    """h (B, H, L, V) from an empty state, without the work for the state at the end: see `mlstm`."""
    if 0 in (q.shape[0], q.shape[2]):
        return v
    return _run(q, k, v, i, f, None, None, starts, chunk, with_state=False)[0]


def chunk_size(length: int) -> int:
    """About `CHUNK`; the last chunk of a row may be shorter."""
    return length if length <= WHOLE else -(-length // round(length / CHUNK))


def _run(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    state: MLSTMState | None,
    lengths: Tensor | None,
    starts: Tensor | None,
    chunk: int | None,
    with_state: bool,
) -> Any:
    inside = None if lengths is None else torch.arange(q.shape[2], device=q.device) < lengths[:, None]
    if state is None:
        memory, log_scale = None, q.new_zeros(q.shape[:2], dtype=torch.float64)
    else:
        memory, log_scale = torch.cat([state.memory, state.normaliser.unsqueeze(-1)], -1), state.log_scale.detach()
    x, heads = _Inputs(q, k, v, i, f, memory, log_scale, starts, inside), q.shape[:2]
    size = min(chunk or chunk_size(q.shape[2]), q.shape[2])
    if q.shape[0] * size * max(size, q.shape[-1]) < BLOCK:
        x = _heads_as_rows(x)
    learning = torch.is_grad_enabled() and any(part is not None and part.requires_grad for part in x)
    with torch.autocast(q.device.type, enabled=False):  # it would narrow the products, and nothing else
        if learning and not torch.compiler.is_compiling():  # a traced graph is differentiated as it is
            found = _Native.apply(size, with_state, *x)  # type: ignore[no-untyped-call]
        else:
            found = _forward(x, size, with_state, learning=False)[0]
    return [None if part is None else part.reshape(*heads, *part.shape[2:]) for part in found]


def _heads_as_rows(x: _Inputs) -> _Inputs:
    """One head of B H rows: fewer, larger products where rows are few."""
    per_head = (None if part is None else part.reshape(-1, 1, *part.shape[2:]) for part in x[:7])
    per_row = (None if part is None else part.repeat_interleave(x.q.shape[1], 0) for part in x[7:])
    return _Inputs(*per_head, *per_row)  # type: ignore[arg-type]


class _Native(torch.autograd.Function):
    """h, the memory at the end (None unless asked for) and its log scale."""

    @staticmethod
    def forward(ctx: Any, size: int, with_state: bool, *parts: Any) -> tuple[Tensor, Tensor | None, Tensor]:
        x = _Inputs(*parts)
        found, ctx.run = _forward(x, size, with_state, learning=True)
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(found[2])
        ctx.save_for_backward(*x, *found[:2])
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        *parts, h, memory = ctx.saved_tensors
        dh, dmemory, _ = grads
        with torch.autocast(h.device.type, enabled=False):
            gradients = _backward(_Inputs(*parts), ctx.run, h, memory, dh, dmemory)
        return (None, None, *gradients, None, None, None)


def _forward(
    x: _Inputs, positions: int, with_state: bool, learning: bool
) -> tuple[tuple[Tensor, Tensor | None, Tensor], _Run]:
    (B, H, L, K), W, dtype = x.q.shape, x.v.shape[-1] + 1, _dtype(x)
    found = plan(x.i, x.f, x.log_scale, x.starts, x.inside, positions, K, dtype)
    blocks, sizes = _blocks(B, H, positions * max(positions, K, W)), x.q.new_empty(B, H, L, dtype=dtype)
    run = _Run(found, blocks, [], sizes, torch.empty_like(sizes))
    h = torch.empty_like(x.v)
    last = x.q.new_empty(B, H, K, W, dtype=dtype) if with_state else None
    first = None if x.memory is None else x.memory.to(dtype) * found.begin
    for rows, head in run.blocks:
        memory = None if first is None else first[rows, head]
        kept: list[tuple[Tensor, Tensor | None]] = []
        for whole in found.chunks:
            c, at = whole.of(rows, head), (rows, head, whole.at)
            q, k, values = x.q[at].to(dtype), x.k[at].to(dtype), _values(x.v[at], c.gain, dtype)
            scores = _scores(c, q, k)
            out = _read(c, q, scores, values, memory)
            if learning:
                kept.append((scores, memory))
            if with_state or c.at.stop < L:
                memory = _write(c, k, values, memory)
            normaliser = out[..., -1]
            size = normaliser.abs()
            run.sign[at] = normaliser.sign().mul_(size > c.floor)
            run.size[at] = size = torch.maximum(size, c.floor)
            h[at] = out[..., :-1] / size.unsqueeze(-1)
        run.kept.append(kept)
        if last is not None and memory is not None:
            last[rows, head] = memory
    return (h, last, found.log_scale), run


def _values(v: Tensor, gain: Tensor | None, dtype: torch.dtype) -> Tensor:
    """[v 1] (R, S, W), times the gain of each event."""
    values = v.new_empty(*v.shape[:-1], v.shape[-1] + 1, dtype=dtype)
    values[..., :-1] = v
    values[..., -1] = 1
    return values if gain is None else values.mul_(gain)


def _scores(c: Chunk, q: Tensor, k: Tensor) -> Tensor:
    """q.k (R, S, S) times the weights, where these are not in the values."""
    scores = torch.bmm(q, k.mT)
    return scores.tril_() if c.weights is None else scores.mul_(c.weights)


def _read(c: Chunk, q: Tensor, scores: Tensor, values: Tensor, memory: Tensor | None) -> Tensor:
    """Numerator and normaliser of h (R, S, W), both times sqrt(K)."""
    out = torch.bmm(scores, values)
    if memory is None:
        return out
    return out.baddbmm_(q, memory) if c.enter is None else out.add_(torch.bmm(q, memory).mul_(c.enter))


def _write(c: Chunk, k: Tensor, values: Tensor, memory: Tensor | None) -> Tensor:
    """The memory (R, K, W) after the chunk."""
    if c.leave is None:
        added = torch.bmm(k.mT, values) if memory is None else torch.baddbmm(memory, k.mT, values)
        return added.mul_(c.keep)
    values = values * c.leave
    return torch.bmm(k.mT, values) if memory is None else (memory * c.keep).baddbmm_(k.mT, values)


def _backward(
    x: _Inputs, run: _Run, h: Tensor, memory: Tensor | None, dh: Tensor | None, dmemory: Tensor | None
) -> tuple[Tensor | None, ...]:
    """Gradients of q, k, v, i, f and the memory at the start."""
    dtype, dq, dk, dv = _dtype(x), *(torch.empty_like(part) for part in (x.q, x.k, x.v))
    di, df = x.q.new_empty(2, *x.i.shape, dtype=dtype)
    dfirst = None if x.memory is None else torch.empty_like(x.memory, dtype=dtype)
    dh = torch.zeros_like(h) if dh is None else dh
    after: Tensor | None
    # Last block first: some of it may still be in the cache.
    for (rows, head), kept in zip(reversed(run.blocks), reversed(run.kept), strict=True):
        after = None if dmemory is None or memory is None else dmemory[rows, head]
        crossing = _product(after, None if memory is None else memory[rows, head])
        for whole, (scores, before) in zip(reversed(run.plan.chunks), reversed(kept), strict=True):
            c, at = whole.of(rows, head), (rows, head, whole.at)
            q, k, values = x.q[at].to(dtype), x.k[at].to(dtype), _values(x.v[at], c.gain, dtype)
            dh_c, sign = dh[at], run.sign[at]
            pull = (dh_c.to(dtype) * h[at].to(dtype)).sum(-1)
            dout = _dout(dh_c, pull, run.size[at], sign)
            grads = _chunk_backward(c, q, k, values, scores, dout, before, after)
            dq[at], dk[at], dvalues = grads.q, grads.k, grads.values
            di[at] = dgate = values.mul_(dvalues).sum(-1)
            dv[at] = dvalues[..., :-1] if c.gain is None else dvalues[..., :-1].mul_(c.gain)
            passing = grads.log_f
            if passing is None:
                passing = _from_here(pull.mul_(sign == 0).sub_(dgate)).add_(crossing)
            df[at], crossing, after = passing, passing[..., :1], grads.memory
        if dfirst is not None and after is not None:
            dfirst[rows, head] = after
    df.mul_(torch.sigmoid(-x.f))
    if x.memory is None:
        df[..., 0] = 0  # there is nothing to forget
    for masked in (x.starts, None if x.inside is None else ~x.inside):
        df = df if masked is None else df.masked_fill_(masked[:, None], 0.0)
    dfirst = None if dfirst is None else dfirst * run.plan.begin
    return dq, dk, dv, di.to(x.i.dtype), df.to(x.f.dtype), dfirst


class _Grads(NamedTuple):
    q: Tensor
    k: Tensor
    values: Tensor
    memory: Tensor | None
    log_f: Tensor | None  # (R, S), where the weights are written out


def _chunk_backward(
    c: Chunk,
    q: Tensor,
    k: Tensor,
    values: Tensor,
    scores: Tensor,
    dout: Tensor,
    before: Tensor | None,
    after: Tensor | None,
) -> _Grads:
    """`before` is the memory that entered the chunk, `after` the gradient of the one that left it."""
    dscores, log_f = torch.bmm(dout, values.mT), None
    if c.written_out:
        log_f = _crossing(c, scores * dscores, q, k, values, dout, before, after)
    dscores = dscores.tril_() if c.weights is None else dscores.mul_(c.weights)
    dq, dk, dvalues = torch.bmm(dscores, k), torch.bmm(dscores.mT, q), torch.bmm(scores.mT, dout)
    if after is not None and c.leave is None:
        after = after * c.keep
        dk, dvalues = dk.baddbmm_(values, after.mT), dvalues.baddbmm_(k, after)
    elif after is not None and c.leave is not None:
        dk = dk.baddbmm_(values * c.leave, after.mT)
        dvalues = dvalues.add_(torch.bmm(k, after).mul_(c.leave))
        after = after * c.keep
    if before is None:
        return _Grads(dq, dk, dvalues, None, log_f)
    dread = dout if c.enter is None else dout * c.enter
    dmemory = torch.bmm(q.mT, dread) if after is None else after.baddbmm_(q.mT, dread)
    return _Grads(dq.baddbmm_(dread, before.mT), dk, dvalues, dmemory, log_f)


def _crossing(
    c: Chunk,
    pairs: Tensor,
    q: Tensor,
    k: Tensor,
    values: Tensor,
    dout: Tensor,
    before: Tensor | None,
    after: Tensor | None,
) -> Tensor:
    """Gradient of log f_r (R, S): all that passes from before r to r or later. As sums of what passes, not as
    differences of all that arrives and all that leaves: a gate that is shut lets through what rounding would bury.

    Args:
        pairs: (R, S, S) what passes from s to t within the chunk.
    """
    earlier = torch.ones_like(pairs[0]).triu_(1)
    passing = (pairs @ earlier).tril_().sum(-2)
    if before is not None and c.enter is not None:
        passing += _from_here((torch.bmm(dout * c.enter, before.mT) * q).sum(-1))
    if after is not None and c.leave is not None:
        passing += (torch.bmm(k, after).mul_(c.leave) * values).sum(-1) @ earlier
    return passing.add_(_product(after, None if before is None else before * c.keep))


def _dout(dh: Tensor, pull: Tensor, size: Tensor, sign: Tensor) -> Tensor:
    """Gradient of numerator and normaliser (R, S, W) from that of h (R, S, V); `pull` (R, S) is dh.h."""
    dout = size.new_empty(*dh.shape[:-1], dh.shape[-1] + 1)
    dout[..., :-1] = dh
    dout[..., -1] = pull.mul(sign).neg_()
    return dout.div_(size.unsqueeze(-1))


def _product(first: Tensor | None, second: Tensor | None) -> Tensor | float:
    """Inner products (R, 1) of memories."""
    return 0.0 if first is None or second is None else (first * second).sum((-1, -2)).unsqueeze(-1)


def _from_here(x: Tensor) -> Tensor:
    """(R, S): the sum of x from each position on."""
    return x @ x.new_ones(x.shape[-1], x.shape[-1]).tril_()


def _blocks(rows: int, heads: int, elements: int) -> list[tuple[slice, int]]:
    """Equal blocks of rows for each head, so that one tensor of a block has about `BLOCK` elements per thread."""
    if torch.compiler.is_compiling():
        return [(slice(0, rows), head) for head in range(heads)]
    count = -(-rows * elements // (BLOCK * torch.get_num_threads()))
    each = -(-rows // min(rows, count))
    return [(slice(row, min(row + each, rows)), head) for row in range(0, rows, each) for head in range(heads)]


def _dtype(x: _Inputs) -> torch.dtype:
    return torch.promote_types(x.q.dtype, torch.float32)
