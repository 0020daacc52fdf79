"""The mLSTM mixer. With a projection (`post`) it works in the width of the stack, after xLSTM-7B (Beck et al., 2025);
with `pre` in a wider space, after the first paper's own mLSTM block (Beck et al., 2024, figure 11), with full
instead of block-diagonal projections.

Shapes: B rows, L positions, D width of the stack, P width inside, H heads, K = P / H, E facts about elapsed time.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqrec.kernels.fused import ACTIVATIONS, capped_gates, gated_head_norm, split
from seqrec.kernels.mlstm import effective_attention, initial_state, mlstm, mlstm_prefill, mlstm_step
from seqrec.models.xlstm.config import XLSTMConfig
from seqrec.models.xlstm.mixers import CellMixer, CellState, Rows


class Projected(NamedTuple):
    """Queries, keys and values (B, H, L, K), input and forget gate before activation (B, H, L), output gate (B, L, P)
    where there is one, and what entered the convolution (B, L, P)."""

    q: Tensor
    k: Tensor
    v: Tensor
    i: Tensor
    f: Tensor
    gate: Tensor | None
    x: Tensor


class Weights(NamedTuple):
    """A mixer's parameters at hand: for a single event, looking them up in modules would cost as much as their use."""

    up: Tensor | None
    query_key: Tensor
    value_output: Tensor
    gates: Tensor
    gates_bias: Tensor
    head_norm: Tensor | None
    out: Tensor


class MLSTMMixer(CellMixer):
    """Convolution -> queries, keys, gates; values straight from the input; cell; norm per head; output gate."""

    def __init__(self, config: XLSTMConfig) -> None:
        D, P, H = config.embedding_dim, config.inner_dim, config.num_heads
        super().__init__(config, P)
        self.kernels = config.chunkwise_kernel, config.sequence_kernel, config.step_kernel
        self.gate_cap = config.gate_cap
        self.up = nn.Linear(D, 2 * P, bias=False) if config.projection == "pre" else None
        gate = "silu" if self.up is not None else config.output_gate
        self.activation = gate if gate in ACTIVATIONS else None
        gated = self.up is None and self.activation is not None
        self.query_key = nn.Linear(P, 2 * P, bias=False)
        self.value_output = nn.Linear(P, 2 * P if gated else P, bias=False)
        self.gates = nn.Linear(P, 2 * H)
        self.out = nn.Linear(P, D, bias=False)
        self.weights = Weights(
            up=None if self.up is None else self.up.weight,
            query_key=self.query_key.weight,
            value_output=self.value_output.weight,
            gates=self.gates.weight,
            gates_bias=self.gates.bias,
            head_norm=self.head_norm,
            out=self.out.weight,
        )
        nn.init.normal_(self.gates.weight, std=0.02)
        with torch.no_grad():
            # By default heads start with memories of about 20 to 400 events (sigmoid of 3 to 6), input gates open.
            self.gates.bias.copy_(
                torch.cat([torch.full((H,), config.input_bias), torch.linspace(*config.forget_bias, H)])
            )

    def forward(self, x_BLD: Tensor, rows: Rows) -> Tensor:
        q, k, v, i, f, gate, _ = self.project(x_BLD, rows)
        return self._mix(mlstm(q, k, v, i, f, kernel=self.kernels[0]).transpose(1, 2), gate)

    def project(self, x_BLD: Tensor, rows: Rows) -> Projected:
        """All that the cell and the way out of it need."""
        x_BLP, outer = self._widen(x_BLD)
        c_BLP = self.convolve(x_BLP)
        q, k = (part.transpose(1, 2) for part in split(self.query_key(c_BLP), 2, self.num_heads, -1))
        v_BLP, gate = self._values(x_BLP, outer)
        i, f = capped_gates(self._shifted(self.gates(c_BLP), rows.elapsed), self.gate_cap)
        return Projected(q, k, v_BLP.unflatten(-1, (self.num_heads, -1)).transpose(1, 2), i, f, gate, x_BLP)

    def initial_state(self, batch: int) -> CellState:
        K, like = self.width // self.num_heads, self.out.weight
        return CellState(initial_state(batch, self.num_heads, K, K, like), self.no_recent(batch, like))

    def prefill(self, x_BLD: Tensor, rows: Rows) -> tuple[Tensor, CellState]:
        q, k, v, i, f, gate, x_BLP = self.project(x_BLD, rows)
        h, cell = mlstm_prefill(q, k, v, i, f, rows.lengths, kernel=self.kernels[1])
        return self._mix(h.transpose(1, 2), gate), CellState(cell, self.recent(x_BLP, rows.lengths))

    def step(self, x_BD: Tensor, state: CellState, elapsed_BE: Tensor | None) -> tuple[Tensor, CellState]:
        """The same for one event, in few calls: a single session pays for them rather than for the arithmetic."""
        w, x_BP, gate = self.weights, x_BD, None
        if w.up is not None:
            x_BP, gate = F.linear(x_BD, w.up).chunk(2, -1)
        c_BP, recent = self.convolve_step(x_BP, state.recent)
        q, k = F.linear(c_BP, w.query_key).view(x_BD.shape[0], 2, self.num_heads, -1).unbind(1)
        v_BP = F.linear(x_BP, w.value_output)
        if w.up is None and self.activation is not None:
            v_BP, gate = v_BP.chunk(2, -1)
        gates = self._shifted(F.linear(c_BP, w.gates, w.gates_bias), elapsed_BE)
        i, f = capped_gates(gates.unsqueeze(1), self.gate_cap)
        h, cell = mlstm_step(q, k, v_BP.view(q.shape), i.squeeze(-1), f.squeeze(-1), state.cell, kernel=self.kernels[2])
        return F.linear(gated_head_norm(h, w.head_norm, gate, self.activation), w.out), CellState(cell, recent)

    def inspect(self, x_BLD: Tensor, rows: Rows) -> dict[str, Tensor]:
        q, k, _, i, f, _, _ = self.project(x_BLD, rows)
        return {"attention": effective_attention(q, k, i, f), "input_gate": i, "forget_gate": torch.sigmoid(f)}

    def _widen(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """What the cell works on (..., P), and its output gate where that comes from outside."""
        if self.up is None:
            return x, None
        inner, gate = split(self.up(x), 2, -1)
        return inner, gate

    def _values(self, x: Tensor, outer: Tensor | None) -> tuple[Tensor, Tensor | None]:
        values = self.value_output(x)
        if outer is not None or self.activation is None:
            return values, outer
        values, gate = split(values, 2, -1)
        return values, gate

    def _shifted(self, gates: Tensor, elapsed: Tensor | None) -> Tensor:
        """Input and forget gates before activation (..., 2 H), with what elapsed time adds."""
        if (shift := self.forget_shift(elapsed)) is None:
            return gates
        return gates.to(torch.promote_types(gates.dtype, torch.float32)) + F.pad(shift, (self.num_heads, 0))

    def _mix(self, h: Tensor, gate: Tensor | None) -> Tensor:
        return self.out(gated_head_norm(h, self.head_norm, gate, self.activation))
