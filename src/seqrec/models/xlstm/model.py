"""xLSTM for recommendation: blocks over the history, each a mixer along time and a feed-forward layer.

Beck et al., "xLSTM: Extended Long Short-Term Memory", 2024, has the two cells: mLSTM (matrix memory) and sLSTM (scalar
memory that its own output steers). The layout of blocks is after xLSTM-7B (Beck et al., 2025), with the causal
convolution of the first paper kept, which pays on short histories. A third kind of block is attention, for hybrids.

With cells alone, one event costs the same work however long the history is; with attention blocks, work per event
is bounded by `max_length`. See `step`.

Read backwards every second time, a stack of cells sees both sides of a gap, as in Alkin et al., "Vision-LSTM", 2024;
it then learns to fill gaps as BERT4Rec does.

Shapes: B rows, L positions, D width, H heads.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import cycle
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqrec.data.batches import NO_TIME, Batch
from seqrec.errors import ConfigError
from seqrec.models import cloze
from seqrec.models.base import ItemVectors, SequenceModel
from seqrec.models.layers import Dropout, ItemTable, SwiGLU, add_and_norm
from seqrec.models.xlstm.attention import AttentionMixer
from seqrec.models.xlstm.config import XLSTMConfig
from seqrec.models.xlstm.facts import Facts, elapsed, events_before
from seqrec.models.xlstm.mixers import CellMixer, Mixer, MixerState, Rows
from seqrec.models.xlstm.mlstm import MLSTMMixer
from seqrec.models.xlstm.slstm import SLSTMMixer

MIXERS: dict[str, type[Mixer]] = {"m": MLSTMMixer, "s": SLSTMMixer, "a": AttentionMixer}


class XLSTMState(NamedTuple):
    """What each block remembers, when the last event happened (B,), NO_TIME where nobody knows or asks, and how many
    there were (B,), which steps count only where a gate sees it."""

    blocks: tuple[MixerState, ...]
    last_time: Tensor
    events: Tensor


class XLSTM(SequenceModel):
    """Item vectors, then blocks, then a norm. Order is in the recurrence: there are no positions."""

    Config = XLSTMConfig
    config: XLSTMConfig
    reads_ratings = True

    def __init__(self, config: XLSTMConfig, num_items: int) -> None:
        super().__init__(config, num_items)
        self.bidirectional, self.uses_times = config.bidirectional, config.time_gate
        self.items = ItemTable(config, num_items)
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config, kind) for kind in config.kinds)
        if config.shared_conv:
            first, *others = (block.mixer for block in self._blocks() if isinstance(block.mixer, CellMixer))
            for mixer in others:
                mixer.share_convolution(first)
        self.norm = nn.RMSNorm(config.embedding_dim, eps=1e-6)
        if config.bidirectional:
            self.mask = nn.Parameter(torch.randn(config.embedding_dim) * 0.1)

    def training_batch(self, batch: Batch) -> tuple[Batch, Tensor]:
        """The next item everywhere; or, for a bidirectional model, gaps to fill."""
        if self.bidirectional:
            return cloze.gaps(batch, self.config, self.num_items + 1)
        return super().training_batch(batch)

    def encode(self, batch: Batch) -> Tensor:
        x_BLD, y_BLD = self.dropout(self.embed(batch)), None
        for block, rows in self._readings(batch):
            if rows.order is None:
                x_BLD, y_BLD = block(x_BLD, y_BLD, rows)
            else:  # what is turned is the sum
                x_BLD, y_BLD = block(rows.turn(self._add(x_BLD, y_BLD)), None, rows)
                x_BLD, y_BLD = rows.turn(self._add(x_BLD, y_BLD)), None
        return self._query(x_BLD, y_BLD)

    def last_state(self, batch: Batch) -> Tensor:
        """What the top block does to each event by itself, it does to the last one only."""
        if self.bidirectional:
            return super().last_state(batch)
        *below, (top, rows) = self._readings(batch)
        x_BLD, y_BLD = self.dropout(self.embed(batch)), None
        for block, _ in below:
            x_BLD, y_BLD = block(x_BLD, y_BLD, rows)
        return self._query(*top.last(x_BLD, y_BLD, rows))

    def query(self, batch: Batch) -> Tensor:
        return super().query(cloze.with_mask(batch, self.num_items + 1) if self.bidirectional else batch)

    def embed(self, batch: Batch) -> Tensor:
        """What enters the first block (B, L, D)."""
        if self.bidirectional:
            return cloze.embed(self.items, self.mask, batch, self.num_items + 1)
        return self.items(batch.items, batch.values)

    def item_vectors(self) -> ItemVectors:
        return self.items.vectors()

    def initial_state(self, batch: int) -> XLSTMState:
        """What `batch` empty histories leave behind."""
        self._require_causal()
        blocks = tuple(block.mixer.initial_state(batch) for block in self._blocks())
        last_time = torch.full((batch,), NO_TIME, device=self.items.weight.device)
        return XLSTMState(blocks, last_time, torch.zeros_like(last_time))

    def prefill(self, batch: Batch) -> tuple[Tensor, XLSTMState]:
        """Read whole histories, without dropout: hidden states after the last event (B, D), and the state there."""
        self._require_causal()
        x_BLD, states = self.items(batch.items, batch.values), []
        for block, rows in self._readings(batch):
            x_BLD, state = block.prefill(x_BLD, rows)
            states.append(state)
        last_time = torch.full_like(batch.lengths, NO_TIME)
        if self.uses_times and batch.times is not None:
            last_time = batch.last(batch.times)
        events = batch.lengths.clone()  # `put` writes into states, and the batch is not ours
        return self.items.query(self.norm(batch.last(x_BLD))), XLSTMState(tuple(states), last_time, events)

    def step(
        self, items_B: Tensor, state: XLSTMState, times_B: Tensor | None = None, values_B: Tensor | None = None
    ) -> tuple[Tensor, XLSTMState]:
        """Take one more event per row: hidden states (B, D), and the state after it.

        Args:
            times_B: (B,) int64 milliseconds, for a model with a time gate; None, or NO_TIME: not known.
            values_B: (B,) float32 ratings, for a model that reads them; None, or NaN: not known.
        """
        self._require_causal()
        x_BD, after, facts = self.items(items_B, values_B), [], Facts()
        last_time, events = state.last_time, state.events
        if self.uses_times:
            now_B = torch.full_like(last_time, NO_TIME) if times_B is None else times_B.to(last_time, copy=True)
            facts, last_time = facts._replace(time=elapsed(last_time, now_B)), now_B
        if self.config.position_gate:
            facts, events = facts._replace(place=events_before(events)), events + 1
        for block, before in zip(self._blocks(), state.blocks, strict=True):
            x_BD, block_state = block.step(x_BD, before, facts)
            after.append(block_state)
        return self.items.query(self.norm(x_BD)), XLSTMState(tuple(after), last_time, events)

    def inspect(self, batch: Batch) -> dict[str, Tensor]:
        """Per block: `attention.<block>` (B, H, L, L), what each position draws from each other one, and for cells
        `input_gate.<block>` and `forget_gate.<block>` (B, H, L) as log i and f.

        An mLSTM's rows need not sum to 1. An sLSTM's weights are of its cell inputs, means over the units of a head.
        A bidirectional model is shown with MASK at the end of the history, whose row a recommendation rests on.
        """
        batch = cloze.with_mask(batch, self.num_items + 1) if self.bidirectional else batch
        x_BLD, found = self.embed(batch), {}
        for number, (block, rows) in enumerate(self._readings(batch)):
            x_BLD = rows.turn(x_BLD)
            for name, shown in block.mixer.inspect(block.mixer_norm(x_BLD), rows).items():
                shown = rows.turn(shown, 2)
                found[f"{name}.{number}"] = rows.turn(shown, 3) if shown.dim() == 4 else shown
            x_BLD = rows.turn(self._add(*block(x_BLD, None, rows)))
        return found

    def _add(self, x: Tensor, y: Tensor | None) -> Tensor:
        """The stream (..., D) with what the block before would add to it."""
        return x if y is None else x + self.dropout(y)

    def _query(self, x: Tensor, y: Tensor | None) -> Tensor:
        """What items are compared with (..., D), from what the top block leaves and would add."""
        return self.items.query(add_and_norm(x, y, self.norm, self.dropout, x.dtype)[1])

    def _readings(self, batch: Batch) -> list[tuple[Block, Rows]]:
        """Each block with the rows as it reads them: a bidirectional model's cells go forth and back in turns."""
        batch = batch if self.uses_times else replace(batch, times=None)
        forwards = Rows.forwards(batch, self.config)
        if not self.bidirectional:
            return [(block, forwards) for block in self._blocks()]
        turns = cycle((forwards, Rows.backwards(batch, self.config)))
        return [(block, next(turns) if isinstance(block.mixer, CellMixer) else forwards) for block in self._blocks()]

    def _require_causal(self) -> None:
        if self.bidirectional:
            raise ConfigError(
                "A bidirectional xLSTM reads the whole history anew for every event: it has no state to go on from. "
                "Train with model.bidirectional=false for that."
            )

    def _blocks(self) -> list[Block]:
        return list(self.blocks)  # type: ignore[arg-type]


class Block(nn.Module):
    """x + mixer(norm(x)), then x + feedforward(norm(x)), with dropout on both branches.

    `forward` leaves the last sum to who comes next: see `add_and_norm`.
    An mLSTM inside a wider space (projection `pre`) has its feed-forward layer around it and none after.
    """

    def __init__(self, config: XLSTMConfig, kind: str) -> None:
        super().__init__()
        D = config.embedding_dim
        self.mixer_norm = nn.RMSNorm(D, eps=1e-6)
        self.mixer = MIXERS[kind](config)
        self.feedforward: SwiGLU | None = None
        self.weights: tuple[Tensor, ...] = ()  # of the feed-forward layer and the norm before it, at hand for `step`
        if config.feedforward_factor and (kind != "m" or config.projection == "post"):
            self.feedforward_norm = nn.RMSNorm(D, eps=1e-6)
            self.feedforward = SwiGLU(D, int(D * config.feedforward_factor))
            gate_up, down = self.feedforward.gate_up.weight, self.feedforward.down.weight
            self.weights = self.feedforward_norm.weight, gate_up, down
        self.dropout = Dropout(config.dropout)

    def forward(self, x_BLD: Tensor, y_BLD: Tensor | None, rows: Rows) -> tuple[Tensor, Tensor]:
        """From the stream and what the block before would add to it to the same after this block."""
        x_BLD, y_BLD = add_and_norm(x_BLD, y_BLD, self.mixer_norm, self.dropout)
        return self._feed(x_BLD, self.mixer(y_BLD, rows))

    def last(self, x_BLD: Tensor, y_BLD: Tensor | None, rows: Rows) -> tuple[Tensor, Tensor]:
        """What `forward` gives after the last event of each row, (B, D) both."""
        x_BLD, y_BLD = add_and_norm(x_BLD, y_BLD, self.mixer_norm, self.dropout)
        return self._feed(rows.last(x_BLD), rows.last(self.mixer(y_BLD, rows)))

    def prefill(self, x_BLD: Tensor, rows: Rows) -> tuple[Tensor, MixerState]:
        y_BLD, state = self.mixer.prefill(self.mixer_norm(x_BLD), rows)
        x_BLD = x_BLD + y_BLD
        return x_BLD if self.feedforward is None else x_BLD + self.feedforward(self.feedforward_norm(x_BLD)), state

    def step(self, x_BD: Tensor, state: MixerState, facts: Facts) -> tuple[Tensor, MixerState]:
        y_BD, state = self.mixer.step(self.mixer_norm(x_BD), state, facts)
        x_BD = x_BD + y_BD
        if not self.weights:
            return x_BD, state
        norm, gate_up, down = self.weights  # functions rather than modules: a single session pays for every call
        gate, up = F.linear(F.rms_norm(x_BD, x_BD.shape[-1:], norm, 1e-6), gate_up).chunk(2, -1)
        return x_BD + F.linear(F.silu(gate) * up, down), state

    def _feed(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The feed-forward layer, where there is one, as the two before."""
        if self.feedforward is None:
            return x, y
        x, y = add_and_norm(x, y, self.feedforward_norm, self.dropout)
        return x, self.feedforward(y)
