"""xLSTM for recommendation: blocks of mLSTM and feed-forward layers over the history.

Beck et al., "xLSTM: Extended Long Short-Term Memory", 2024 (the mLSTM); block layout after xLSTM-7B
(Beck et al., 2025) with the causal convolution of the first paper kept, which pays on short histories.
One event costs the same work however long the history is: see `step`.

Shapes: B rows, L positions, D width, H heads, K head width, W convolution width.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from seqrec.data.batches import Batch
from seqrec.kernels.mlstm import MLSTMState, effective_attention, initial_state, mlstm, mlstm_prefill, mlstm_step
from seqrec.models.base import ItemVectors, SequenceModel
from seqrec.models.layers import ItemTable, StackConfig, SwiGLU

#: Width of the causal convolution that feeds queries, keys and gates.
CONVOLUTION = 4
#: Gate activations saturate smoothly at this value, so that exp(input gate) stays in range.
GATE_CAP = 15.0


class XLSTMConfig(StackConfig):
    """Which form of the cell runs where."""

    chunkwise_kernel: Literal["auto", "parallel", "chunkwise"] = Field("auto", description="form used in training")
    sequence_kernel: Literal["auto", "chunkwise", "step"] = Field("auto", description="form that reads a history")
    step_kernel: Literal["auto", "step"] = Field("auto", description="form that takes one event")


class BlockState(NamedTuple):
    """What one block remembers: the cell, and the inputs (B, W-1, D) the convolution still needs."""

    cell: MLSTMState
    recent: Tensor


class XLSTM(SequenceModel):
    """Item vectors, then xLSTM blocks, then a norm. Order is in the recurrence: there are no positions."""

    Config = XLSTMConfig

    def __init__(self, config: XLSTMConfig, num_items: int) -> None:
        super().__init__(config, num_items)
        self.items = ItemTable(config, num_items)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_blocks))
        self.norm = nn.RMSNorm(config.embedding_dim, eps=1e-6)

    def encode(self, batch: Batch) -> Tensor:
        x_BLD = self.dropout(self.items(batch.items))
        for block in self.blocks:
            x_BLD = block(x_BLD)
        return self.items.query(self.norm(x_BLD))

    def item_vectors(self) -> ItemVectors:
        return self.items.vectors()

    def initial_state(self, batch: int) -> list[BlockState]:
        """What `batch` empty histories leave behind."""
        return [block.mixer.initial_state(batch, self.items.weight) for block in self._blocks()]

    def prefill(self, batch: Batch) -> tuple[Tensor, list[BlockState]]:
        """Read whole histories: hidden states after the last event (B, D), and the state there."""
        if self.config.sequence_kernel == "step":  # type: ignore[attr-defined]
            return self._prefill_by_steps(batch)
        x_BLD, states = self.items(batch.items), []
        for block in self._blocks():
            x_BLD, state = block.prefill(x_BLD, batch)
            states.append(state)
        return self.items.query(self.norm(batch.last(x_BLD))), states

    def step(self, items_B: Tensor, state: list[BlockState]) -> tuple[Tensor, list[BlockState]]:
        """Take one more event per row: hidden states (B, D), and the state after it."""
        x_BD, after = self.items(items_B), []
        for block, before in zip(self._blocks(), state, strict=True):
            x_BD, block_state = block.step(x_BD, before)
            after.append(block_state)
        return self.items.query(self.norm(x_BD)), after

    def inspect(self, batch: Batch) -> dict[str, Tensor]:
        """Per block: `attention.<block>` (B, H, L, L), what each position draws from each earlier value (rows need
        not sum to 1), and `input_gate.<block>`, `forget_gate.<block>` (B, H, L) as log i and f."""
        x_BLD, found = self.items(batch.items), {}
        for number, block in enumerate(self._blocks()):
            q, k, _, i, f, _ = block.mixer.project(block.mixer_norm(x_BLD))
            found[f"attention.{number}"] = effective_attention(q, k, i, f)
            found[f"input_gate.{number}"], found[f"forget_gate.{number}"] = i, torch.sigmoid(f)
            x_BLD = block(x_BLD)
        return found

    def _prefill_by_steps(self, batch: Batch) -> tuple[Tensor, list[BlockState]]:
        rows = [self.initial_state(1) for _ in range(len(batch))]
        hidden = []
        for row, length in enumerate(batch.lengths.tolist()):
            for position in range(length):
                h_BD, rows[row] = self.step(batch.items[row : row + 1, position], rows[row])
            hidden.append(h_BD)
        return torch.cat(hidden), [_stack(states) for states in zip(*rows, strict=True)]

    def _blocks(self) -> list[Block]:
        return list(self.blocks)  # type: ignore[arg-type]


class Block(nn.Module):
    """x + mixer(norm(x)), then x + feedforward(norm(x)), with dropout on both branches."""

    def __init__(self, config: XLSTMConfig) -> None:
        super().__init__()
        self.mixer_norm = nn.RMSNorm(config.embedding_dim, eps=1e-6)
        self.mixer = MLSTMMixer(config)
        self.feedforward_norm = nn.RMSNorm(config.embedding_dim, eps=1e-6)
        self.feedforward = SwiGLU(config.embedding_dim, int(config.embedding_dim * config.feedforward_factor))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_BLD: Tensor) -> Tensor:
        return self._feed(x_BLD + self.dropout(self.mixer(self.mixer_norm(x_BLD))))

    def prefill(self, x_BLD: Tensor, batch: Batch) -> tuple[Tensor, BlockState]:
        y_BLD, state = self.mixer.prefill(self.mixer_norm(x_BLD), batch)
        return self._feed(x_BLD + y_BLD), state

    def step(self, x_BD: Tensor, state: BlockState) -> tuple[Tensor, BlockState]:
        y_BD, state = self.mixer.step(self.mixer_norm(x_BD), state)
        return self._feed(x_BD + y_BD), state

    def _feed(self, x: Tensor) -> Tensor:
        return x + self.dropout(self.feedforward(self.feedforward_norm(x)))


class MLSTMMixer(nn.Module):
    """Convolution -> queries, keys, gates; values straight from the input; cell; norm per head; output gate."""

    def __init__(self, config: XLSTMConfig) -> None:
        super().__init__()
        D, H = config.embedding_dim, config.num_heads
        self.num_heads = H
        self.kernel = config.chunkwise_kernel
        self.conv_kernel = nn.Parameter(torch.randn(D, 1, CONVOLUTION) * CONVOLUTION**-0.5)
        self.conv_bias = nn.Parameter(torch.zeros(D))
        self.query_key = nn.Linear(D, 2 * D, bias=False)
        self.value_output = nn.Linear(D, 2 * D, bias=False)
        self.gates = nn.Linear(D, 2 * H)
        self.head_norm = nn.Parameter(torch.ones(D))
        self.out = nn.Linear(D, D, bias=False)
        nn.init.normal_(self.gates.weight, std=0.02)
        with torch.no_grad():
            # Heads start with memories of about 20 to 400 events (sigmoid of 3 to 6), and open input gates.
            self.gates.bias.copy_(torch.cat([torch.zeros(H), torch.linspace(3.0, 6.0, H)]))

    def forward(self, x_BLD: Tensor) -> Tensor:
        q, k, v, i, f, gate = self.project(x_BLD)
        return self._mix(mlstm(q, k, v, i, f, kernel=self.kernel).transpose(1, 2), gate)

    def project(self, x_BLD: Tensor, recent: Tensor | None = None) -> tuple[Tensor, ...]:
        """q, k, v (B, H, L, K), input and forget gate before activation (B, H, L), output gate (B, L, D)."""
        padded = F.pad(x_BLD, (0, 0, CONVOLUTION - 1, 0)) if recent is None else torch.cat([recent, x_BLD], 1)
        c_BLD = F.silu(F.conv1d(padded.mT, self.conv_kernel, self.conv_bias, groups=padded.shape[-1])).mT
        q, k = self._heads(self.query_key(c_BLD))
        v, gate = self.value_output(x_BLD).chunk(2, -1)
        i, f = (GATE_CAP * torch.tanh(_precise(self.gates(c_BLD)) / GATE_CAP)).mT.chunk(2, 1)
        return q, k, self._heads(v)[0], i, f, gate

    def initial_state(self, batch: int, like: Tensor) -> BlockState:
        D = like.shape[-1]
        cell = initial_state(batch, self.num_heads, D // self.num_heads, D // self.num_heads, like)
        return BlockState(cell, like.new_zeros(batch, CONVOLUTION - 1, D))

    def prefill(self, x_BLD: Tensor, batch: Batch) -> tuple[Tensor, BlockState]:
        q, k, v, i, f, gate = self.project(x_BLD)
        h, cell = mlstm_prefill(q, k, v, i, f, batch.lengths)
        window = batch.lengths[:, None] + torch.arange(CONVOLUTION - 1, device=x_BLD.device)
        padded = F.pad(x_BLD, (0, 0, CONVOLUTION - 1, 0))
        recent = padded.gather(1, window[..., None].expand(-1, -1, x_BLD.shape[-1]))
        return self._mix(h.transpose(1, 2), gate), BlockState(cell, recent)

    def step(self, x_BD: Tensor, state: BlockState) -> tuple[Tensor, BlockState]:
        q, k, v, i, f, gate = self.project(x_BD[:, None], state.recent)
        h, cell = mlstm_step(q[:, :, 0], k[:, :, 0], v[:, :, 0], i[..., 0], f[..., 0], state.cell)
        recent = torch.cat([state.recent[:, 1:], x_BD[:, None]], 1)
        return self._mix(h[:, None], gate)[:, 0], BlockState(cell, recent)

    def _heads(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, L, n D) as n tensors (B, H, L, K)."""
        parts = x.unflatten(-1, (-1, self.num_heads, self.head_norm.shape[0] // self.num_heads))
        return parts.permute(2, 0, 3, 1, 4).unbind(0)

    def _mix(self, h_BLHK: Tensor, gate_BLD: Tensor) -> Tensor:
        normed = F.rms_norm(_precise(h_BLHK), h_BLHK.shape[-1:], eps=1e-6).flatten(-2).to(gate_BLD.dtype)
        return self.out(normed * self.head_norm * torch.sigmoid(gate_BLD))


def _precise(x: Tensor) -> Tensor:
    """In float32 at least: half precision is too coarse for gates and norms."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _stack(states: tuple[BlockState, ...]) -> BlockState:
    cells = MLSTMState(*(torch.cat(parts) for parts in zip(*(state.cell for state in states), strict=True)))
    return BlockState(cells, torch.cat([state.recent for state in states]))
