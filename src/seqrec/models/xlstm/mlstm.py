"""The mLSTM mixer. With a projection (`post`) it works in the width of the stack, after xLSTM-7B (Beck et al., 2025);
with `pre` in a wider space, after the first paper's own mLSTM block (Beck et al., 2024, figure 11), with full
instead of block-diagonal projections.

Shapes: B rows, L positions, D width of the stack, P width inside, H heads, V = P / H value width, K key width,
G groups of heads that share keys and values.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqrec.kernels.fused import ACTIVATIONS, capped_gates, gated_head_norm, split
from seqrec.kernels.mlstm import effective_attention, initial_state, mlstm, mlstm_prefill, mlstm_step
from seqrec.models.xlstm.config import XLSTMConfig
from seqrec.models.xlstm.facts import Facts
from seqrec.models.xlstm.mixers import CellMixer, CellState, Rows


class Projected(NamedTuple):
    """Queries and keys (B, H, L, K), values (B, H, L, V), input and forget gate before activation (B, H, L), output
    gate (B, L, P) where there is one, and what entered the convolution (B, L, P)."""

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
        self.groups = config.key_value_heads or H
        self.key_width = max(1, round(P / H * config.key_factor))
        self.parts = H * self.key_width, self.groups * self.key_width  # of queries, and of keys
        self.query_key = nn.Linear(P, sum(self.parts), bias=False)
        self.value_output = nn.Linear(P, self.groups * (P // H) + (P if gated else 0), bias=False)
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
            if config.gates == "constant":
                self.gates.weight.zero_().requires_grad_(False)
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
        q, k = self._queries_keys(self.query_key(c_BLP))
        v_BLP, gate = self._values(x_BLP, outer)
        i, f = capped_gates(self._shifted(self.gates(c_BLP), rows.facts), self.gate_cap)
        v = self._shared(v_BLP.unflatten(-1, (self.groups, -1)))
        return Projected(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), i, f, gate, x_BLP)

    def initial_state(self, batch: int) -> CellState:
        V, like = self.width // self.num_heads, self.out.weight
        return CellState(initial_state(batch, self.num_heads, self.key_width, V, like), self.no_recent(batch, like))

    def prefill(self, x_BLD: Tensor, rows: Rows) -> tuple[Tensor, CellState]:
        q, k, v, i, f, gate, x_BLP = self.project(x_BLD, rows)
        h, cell = mlstm_prefill(q, k, v, i, f, rows.lengths, kernel=self.kernels[1])
        return self._mix(h.transpose(1, 2), gate), CellState(cell, self.recent(x_BLP, rows.lengths))

    def step(self, x_BD: Tensor, state: CellState, facts: Facts) -> tuple[Tensor, CellState]:
        """The same for one event, in few calls: a single session pays for them rather than for the arithmetic."""
        w, x_BP, gate = self.weights, x_BD, None
        if w.up is not None:
            x_BP, gate = F.linear(x_BD, w.up).chunk(2, -1)
        c_BP, recent = self.convolve_step(x_BP, state.recent)
        q, k = self._queries_keys(F.linear(c_BP, w.query_key))
        v_BP = F.linear(x_BP, w.value_output)
        if w.up is None and self.activation is not None:
            v_BP, gate = v_BP.split((v_BP.shape[-1] - self.width, self.width), -1)
        gates = self._shifted(F.linear(c_BP, w.gates, w.gates_bias), facts)
        i, f = capped_gates(gates.unsqueeze(1), self.gate_cap)
        v = self._shared(v_BP.unflatten(-1, (self.groups, -1)))
        h, cell = mlstm_step(q, k, v, i.squeeze(-1), f.squeeze(-1), state.cell, kernel=self.kernels[2])
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
        if self.groups == self.num_heads:
            values, gate = split(values, 2, -1)
        else:
            values, gate = values.split((values.shape[-1] - self.width, self.width), -1)
        return values, gate

    def _queries_keys(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(..., H, K) both, from what their projection gives."""
        if self.groups == self.num_heads:
            q, k = split(x, 2, self.num_heads, -1)
            return q, k
        q, k = x.split(self.parts, -1)
        return q.unflatten(-1, (self.num_heads, -1)), self._shared(k.unflatten(-1, (self.groups, -1)))

    def _shared(self, x: Tensor) -> Tensor:
        """(..., H, K) from what each group of heads has (..., G, K)."""
        times = self.num_heads // self.groups
        return x if times == 1 else x.repeat_interleave(times, -2)

    def _shifted(self, gates: Tensor, facts: Facts) -> Tensor:
        """Input and forget gates before activation (..., 2 H), with what facts add."""
        if (shift := self.forget_shift(facts)) is None:
            return gates
        return gates.to(torch.promote_types(gates.dtype, torch.float32)) + F.pad(shift, (self.num_heads, 0))

    def _mix(self, h: Tensor, gate: Tensor | None) -> Tensor:
        return self.out(gated_head_norm(h, self.head_norm, gate, self.activation))
