"""The sLSTM mixer, after the first paper's own sLSTM block (Beck et al., 2024, figure 10): the convolution feeds the
input and forget gates, the cell input and output gate come straight from the input, and what each head gave last
comes back to its gates through a matrix of its own.

Shapes: B rows, L positions, D width, H heads, K = D / H.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqrec.kernels.fused import gated_head_norm
from seqrec.kernels.slstm import KERNELS, initial_state, slstm, slstm_prefill, slstm_step
from seqrec.models.xlstm.config import XLSTMConfig
from seqrec.models.xlstm.facts import Facts
from seqrec.models.xlstm.mixers import CellMixer, CellState, Rows


class SLSTMMixer(CellMixer):
    """Convolution -> input and forget gate; cell input and output gate straight from the input; cell; norm per head."""

    def __init__(self, config: XLSTMConfig) -> None:
        D, H = config.embedding_dim, config.num_heads
        super().__init__(config, D)
        asked = config.chunkwise_kernel, config.sequence_kernel, config.step_kernel
        self.kernels = [kernel if kernel in KERNELS else "auto" for kernel in asked]  # some are of the mLSTM alone
        self.input_forget = nn.Linear(D, 2 * D)
        self.cell_output = nn.Linear(D, 2 * D)
        # Small, so that gates start by what comes in.
        self.recurrent = nn.Parameter(torch.randn(4, H, D // H, D // H) * 0.1 * (D // H) ** -0.5)
        self.out = nn.Linear(D, D, bias=False)
        nn.init.normal_(self.input_forget.weight, std=0.02)
        with torch.no_grad():
            if config.gates == "constant":
                self.input_forget.weight.zero_().requires_grad_(False)
            self.input_forget.bias.copy_(
                torch.cat([torch.full((D,), config.input_bias), torch.linspace(*config.forget_bias, D)])
            )

    def forward(self, x_BLD: Tensor, rows: Rows) -> Tensor:
        return self._mix(slstm(self.project(x_BLD, rows), self.recurrent, kernel=self.kernels[0]))

    def project(self, x_BLD: Tensor, rows: Rows) -> Tensor:
        """(B, L, 4, H, K): input and forget gate, cell input and output gate, without what the recurrence adds."""
        return self._project(x_BLD, self.convolve(x_BLD), rows.facts)

    def initial_state(self, batch: int) -> CellState:
        like = self.out.weight
        cell = initial_state(batch, self.num_heads, self.width // self.num_heads, like)
        return CellState(cell, self.no_recent(batch, like))

    def prefill(self, x_BLD: Tensor, rows: Rows) -> tuple[Tensor, CellState]:
        h, cell = slstm_prefill(self.project(x_BLD, rows), self.recurrent, rows.lengths, kernel=self.kernels[1])
        return self._mix(h), CellState(cell, self.recent(x_BLD, rows.lengths))

    def step(self, x_BD: Tensor, state: CellState, facts: Facts) -> tuple[Tensor, CellState]:
        c_BD, recent = self.convolve_step(x_BD, state.recent)
        h, cell = slstm_step(self._project(x_BD, c_BD, facts), self.recurrent, state.cell, kernel=self.kernels[2])
        return self._mix(h.to(x_BD.dtype)), CellState(cell, recent)

    def inspect(self, x_BLD: Tensor, rows: Rows) -> dict[str, Tensor]:
        """A unit's c / n is a weighted mean of its cell inputs so far; shown is the mean weight over a head's units,
        and the mean of their gates."""
        x = self.project(x_BLD, rows)
        last = F.pad(slstm(x, self.recurrent, kernel=self.kernels[0]), (0, 0, 0, 0, 1, 0))[:, :-1]
        i, f = (
            (x[:, :, gate] + torch.einsum("blhk,hkj->blhj", last, self.recurrent[gate])).permute(0, 2, 3, 1)
            for gate in (0, 1)
        )
        decay = F.logsigmoid(f).cumsum(-1)
        weight = decay.unsqueeze(-1) - decay.unsqueeze(-2) + i.unsqueeze(-2)
        causal = torch.ones(weight.shape[-2:], dtype=torch.bool, device=weight.device).tril()
        attention = weight.masked_fill(~causal, -torch.inf).softmax(-1).mean(2)
        return {"attention": attention, "input_gate": i.mean(2), "forget_gate": torch.sigmoid(f).mean(2)}

    def _project(self, x: Tensor, c: Tensor, facts: Facts) -> Tensor:
        gates = torch.cat([self.input_forget(c), self.cell_output(x)], -1).unflatten(-1, (4, self.num_heads, -1))
        if (shift := self.forget_shift(facts)) is not None:
            gates = gates + F.pad(shift[..., None, :, None], (0, 0, 0, 0, 1, 2))
        return gates

    def _mix(self, h: Tensor) -> Tensor:
        return self.out(gated_head_norm(h, self.head_norm))
