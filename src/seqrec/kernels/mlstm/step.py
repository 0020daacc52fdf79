"""One event of the mLSTM: what a live session costs, however long its history is.

Shapes: B rows, H heads, K key width, V value width, N = B H memories.
"""

from __future__ import annotations

import math
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from seqrec.kernels.mlstm.state import MLSTMState

#: Bytes of float32 memory worked on at a time: little enough to stay in a core's cache from one operation to the next.
BLOCK_BYTES = 1 << 20
#: From how many sets of random bits `rounded` draws.
NOISES = 1 << 14


def step(q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, state: MLSTMState) -> tuple[Tensor, MLSTMState]:
    """One event per row. The state given stays as it is.

    Args:
        q, k: query and key (B, H, K). v: value (B, H, V).
        i, f: input and forget gate before their activation (B, H).
        state: float32 or float64. Its memory may be bfloat16: it is widened, computed on, and rounded again.

    Returns:
        h (B, H, V) in the dtype of `v`, and the state after the event in the dtypes of the one before.
    """
    dtype = state.log_scale.dtype
    q, i = q.to(dtype), i.to(dtype)
    kept = F.logsigmoid(f.to(dtype)) + state.log_scale
    m = torch.maximum(kept, i).detach()
    keep, key = torch.exp(kept - m).unsqueeze(-1), torch.exp(i - m).unsqueeze(-1) * k.to(dtype)
    normaliser = torch.addcmul(key, keep, state.normaliser)
    bound = torch.exp(0.5 * math.log(q.shape[-1]) - m)  # the paper's 1/sqrt(K) of the key cancels everywhere else
    scale = torch.maximum((q * normaliser).sum(-1).abs(), bound).unsqueeze(-1)
    parts = (q, keep, key, v.to(dtype), state.memory)
    recalled, memory = (_in_blocks if _worth_blocks(*parts) else _whole)(*parts)
    return (recalled / scale).to(v.dtype), MLSTMState(memory, normaliser, m)


def _worth_blocks(q: Tensor, keep: Tensor, key: Tensor, v: Tensor, memory: Tensor) -> bool:
    """On a CPU, with more memory than a block, and with nobody who wants to differentiate or trace what is done."""
    if torch.compiler.is_compiling() or q.device.type != "cpu" or memory.numel() * q.itemsize <= BLOCK_BYTES:
        return False
    return not (torch.is_grad_enabled() and any(x.requires_grad for x in (q, keep, key, v, memory)))


def _whole(q: Tensor, keep: Tensor, key: Tensor, v: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
    """What `q` finds in the memory after the event (B, H, V), and that memory."""
    (_, _, K, V) = memory.shape
    after = torch.addcmul(keep.unsqueeze(-1) * memory, key.unsqueeze(-1), v.unsqueeze(-2))
    recalled = torch.bmm(q.reshape(-1, 1, K), after.reshape(-1, K, V)).view(v.shape)
    return recalled, _narrowed(after, memory.dtype)


def _in_blocks(q: Tensor, keep: Tensor, key: Tensor, v: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
    """As `_whole`, a block of memories at a time, each read once and written once; all else happens in cache."""
    (B, H, K, V), size = memory.shape, max(1, BLOCK_BYTES // (memory[0, 0].numel() * q.itemsize))
    after = torch.empty_like(memory, memory_format=torch.contiguous_format)
    wide = q.new_empty(size, K, V) if memory.dtype != q.dtype else None
    recalled = q.new_empty(B * H, 1, V)
    whole = (
        (memory.reshape(-1, K, V), after.view(-1, K, V), recalled),
        (keep.reshape(-1, 1, 1), key.reshape(-1, K, 1), v.reshape(-1, 1, V), q.reshape(-1, 1, K)),
    )
    blocks = zip(*(part.split(size) for parts in whole for part in parts), strict=True)
    for before_N, after_N, recalled_N, keep_N, key_N, v_N, q_N in blocks:
        now = after_N if wide is None else wide[: len(after_N)]
        torch.mul(before_N, keep_N, out=now).addcmul_(key_N, v_N)
        torch.bmm(q_N, now, out=recalled_N)
        if wide is not None:
            after_N.copy_(_narrowed(now, memory.dtype))
    return recalled.view(B, H, V), after


def _narrowed(x: Tensor, dtype: torch.dtype) -> Tensor:
    """`x` (..., K, V), which may be overwritten, in `dtype`; to bfloat16 up or down at random, right on average.

    Rounded to the nearest, what an event adds to a sum of more than some 256 like it would be lost, every time: where
    one event repeats, the memory would stop at half of what it should be. The draws come from torch's generator.
    """
    if dtype != torch.bfloat16 or x.dtype != torch.float32 or x.requires_grad:
        return x.to(dtype)
    bits = x.view(torch.int32)
    if torch.compiler.is_compiling():
        bits += torch.randint(1 << 16, x.shape, dtype=torch.int32, device=x.device)
    else:  # drawing a number each would take longer than the step
        size, start = x.shape[-2:].numel(), int(torch.randint(NOISES, ()))
        bits += _noise(size, x.device)[start : start + size].view(x.shape[-2:])
    bits &= -(1 << 16)  # bfloat16 is the upper half
    return x.to(dtype)


@cache
def _noise(size: int, device: torch.device) -> Tensor:
    """16 random bits, `NOISES` more than one memory needs: each place to start gives others to every number."""
    generator = torch.Generator().manual_seed(0)
    bits = torch.randint(1 << 16, (size + NOISES,), dtype=torch.int32, generator=generator)
    return bits.to(device)
