"""How rows are cut on a GPU, and what goes from one chunk of a long row to the next.

Each chunk's own share of the state is computed on its own; then one pass over the shares adds up what gets through.
The gradient goes the same way back.

Shapes: B rows, H heads, L positions, S positions in a block, K key width, V value width, N chunks.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
from torch import Tensor

from seqrec.kernels.mlstm import triton_backward, triton_forward

#: Rows up to this length are not cut; longer ones into chunks of `CHUNK` positions (measured on an H100).
ONE_CHUNK, CHUNK = 256, 128
#: A last block of so few positions is one of so few.
SHORT = 16
#: How many numbers of a state one program carries from chunk to chunk.
PART = 512


class Plan(NamedTuple):
    """How a row is divided: into blocks of S positions, the last of `short` unless that is 0, and these into chunks;
    and how a program runs."""

    S: int
    short: int
    blocks: int
    chunk_blocks: int
    chunks: int
    warps: int
    stages: int

    @classmethod
    def of(cls, q: Tensor, V: int) -> Plan:
        """The division for queries (B, H, L, K). Blocks, warps and stages: the fastest on an H100, forward and
        backward; but few kinds of blocks, for each one is compiled, and blocks of float32 that compile fast."""
        (L, K), half = q.shape[2:], q.dtype != torch.float32
        S = 64 if half else 32
        blocks = triton.cdiv(L, S)
        short = SHORT if half and 0 < L % S <= SHORT else 0
        chunk_blocks = blocks if L <= ONE_CHUNK else CHUNK // S
        chunks = triton.cdiv(blocks, chunk_blocks)
        stages = 2 if chunks > 1 and max(K, V) <= 64 else 1
        return cls(S, short, blocks, chunk_blocks, chunks, warps=4, stages=stages)


class Entries(NamedTuple):
    """What each chunk is entered with, and last what the row ends with.

    Attributes:
        states: (B, H, N+1, K V + K) float32, memory and behind it normaliser, times exp(-`log_scale`).
        log_scale: (B, H, N+1) float32.
        decay: (B, H, N) float32, log of what a chunk lets through.
    """

    states: Tensor | None = None
    log_scale: Tensor | None = None
    decay: Tensor | None = None


def strides(*tensors: Tensor) -> tuple[int, ...]:
    """The first three strides of each."""
    return tuple(stride for x in tensors for stride in x.stride()[:3])


def enter(
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    memory: Tensor | None,
    normaliser: Tensor | None,
    log_scale: Tensor | None,
    histories: Tensor | None,
    plan: Plan,
) -> Entries:
    """What a row's chunks are entered with, when the row is entered with the given state (None: nothing)."""
    (B, H, L, K), V, N = k.shape, v.shape[-1], plan.chunks
    states = torch.empty(B, H, N + 1, K * V + K, device=k.device)
    scales = torch.empty(B, H, N + 1, device=k.device)
    local_scales, decays = torch.empty(2, B, H, N, device=k.device)
    triton_forward.chunk_states[(N * B * H,)](
        k, v, i, f, states, local_scales, decays, histories,
        *strides(k, v, i), L, H, N, plan.chunk_blocks,
        K=K, V=V, S=plan.S, HAS_STARTS=histories is not None, num_warps=plan.warps, num_stages=plan.stages,
    )  # fmt: skip
    _fill(states[:, :, 0], K, memory, normaliser)
    scales[:, :, 0] = 0 if log_scale is None else log_scale
    size = states.shape[-1]
    triton_forward.carry[(B * H, triton.cdiv(size, PART))](
        states, scales, local_scales, decays, histories, L, H, N, plan.chunk_blocks * plan.S,
        SIZE=size, S=PART, HAS_STARTS=histories is not None,
    )  # fmt: skip
    return Entries(states, scales, decays)


def entry_gradients(
    q: Tensor,
    f: Tensor,
    h: Tensor,
    n: Tensor,
    m: Tensor,
    dh: Tensor,
    dmemory: Tensor | None,
    dnormaliser: Tensor | None,
    entered: Entries,
    histories: Tensor | None,
    plan: Plan,
) -> tuple[Tensor, Tensor | None]:
    """Gradients of `entered.states`, and of the log of all that the row ends with (B, H).

    Args:
        dmemory, dnormaliser: gradients of what the row ends with; None where it is not used.
    """
    (B, H, L, K), V, N = q.shape, h.shape[-1], plan.chunks
    assert entered.states is not None
    found, size = torch.empty_like(entered.states), entered.states.shape[-1]
    triton_backward.chunk_gradients[(N * B * H,)](
        q, f, h, n, m, dh, found, entered.log_scale, histories,
        *strides(q, f), L, H, N, plan.chunk_blocks, K**-0.5,
        K=K, V=V, S=plan.S, HAS_STARTS=histories is not None, num_warps=plan.warps, num_stages=plan.stages,
    )  # fmt: skip
    _fill(found[:, :, N], K, dmemory, dnormaliser)
    ending = None
    if dmemory is not None or dnormaliser is not None:
        ending = (found[:, :, N] * entered.states[:, :, N]).sum(-1)
    triton_backward.carry_gradients[(B * H, triton.cdiv(size, PART))](
        found, entered.log_scale, entered.decay, histories, L, H, N, plan.chunk_blocks * plan.S,
        SIZE=size, S=PART, HAS_STARTS=histories is not None,
    )  # fmt: skip
    return found, ending


def parts(state: Tensor, K: int) -> tuple[Tensor, Tensor]:
    """Memory (B, H, K, V) and normaliser (B, H, K) of one entry (B, H, K V + K), as tensors of their own."""
    memory, normaliser = state[..., :-K].unflatten(-1, (K, -1)), state[..., -K:]
    return memory.clone(memory_format=torch.contiguous_format), normaliser.clone(memory_format=torch.contiguous_format)


def _fill(state: Tensor, K: int, memory: Tensor | None, normaliser: Tensor | None) -> None:
    """Put memory and normaliser into one entry; zero where there is none."""
    state.zero_()
    if memory is not None:
        state[..., :-K] = memory.flatten(2)
    if normaliser is not None:
        state[..., -K:] = normaliser
