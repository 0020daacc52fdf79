"""One update of the weights, from where windows start to the new weights, with no look back at the host.

Shapes: B rows, L positions, G blocks whose gradient norms are told.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from seqrec.data.batches import Batch, BatchMaker
from seqrec.data.sequences import PAD
from seqrec.distributed import ALONE, Ranks
from seqrec.errors import ConfigError
from seqrec.models.base import SequenceModel
from seqrec.models.sharded import sharded_table
from seqrec.training.config import TrainingConfig
from seqrec.training.graphs import Recorder
from seqrec.training.optimizer import AveragedModel, BlockNorms, make_optimizers, set_learning_rate

#: From hidden states, targets, item vectors, the batch, and what is said of each of its views; see `seqrec.losses`.
Loss = Callable[..., Tensor]
#: Positions that a step looks at together on a CPU, where the loss allows it: what they need stays in the cache.
PIECE = 4_096


class Step:
    """Updates a model, its optimisers and the average of its weights.

    Attributes:
        recorder: replays steps on a GPU; None where each one runs as it stands in `update`.
    """

    def __init__(
        self, model: SequenceModel, loss: Loss, config: TrainingConfig, maker: BatchMaker, ranks: Ranks = ALONE
    ) -> None:
        self.model = model
        self.config = config
        self.optimizers = make_optimizers(model, config)
        self.average = AveragedModel(model, config.ema_decay) if config.ema_decay else None
        table = sharded_table(model)
        held = set() if table is None else set(table.parameters())
        self._copied = [parameter for parameter in model.parameters() if parameter not in held]
        self._ranks = ranks
        if ranks.size > 1 and hasattr(loss, "views"):
            raise ConfigError(
                "loss.name: this loss compares the histories of a batch with each other, and each of several processes "
                "sees its own part only. Start seqrec without torchrun, or take another loss."
            )
        self.norms = BlockNorms.of(model, held, ranks)
        self._loss = loss
        self._maker = maker
        self._device = maker.device
        on_gpu = self._device.type == "cuda"
        self._bfloat16 = config.in_bfloat16(self._device.type)
        # With several ranks a step has sums over all of them in the middle, and is not recorded.
        recorded = on_gpu and config.compile != "off" and ranks.size == 1
        self.recorder = Recorder() if recorded else None

    def __call__(self, rows_3B: Tensor, width: int, learning_rate: float, number: int) -> Tensor:
        """Update number 0, 1, ... of the whole training.

        Args:
            rows_3B: int64 users, starts and lengths of windows, on the device.
            width: events the windows are padded to.

        Returns:
            (2 + G,) float32 on the device: the loss, the gradient's norm before clipping, and that of each block.
        """
        set_learning_rate(self.optimizers, learning_rate)
        if self.average is not None:
            self.average.at_step(number)
        return self.recorder(self.update, rows_3B, width) if self.recorder else self.update(rows_3B, width)

    def update(self, rows_3B: Tensor, width: int) -> Tensor:
        """The step itself."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss = self._ranks.sum_gradients(self._copied, self._learn(rows_3B, width))
        norms = self.norms.clip(self.config.clip_norm)
        for optimizer in self.optimizers:
            optimizer.step()
        if self.average is not None:
            self.average.update(self.model)
        return torch.cat([loss[None], norms])

    def _learn(self, rows_3B: Tensor, width: int) -> Tensor:
        """Put the gradients of a batch into the parameters; what this rank adds to its mean loss, a float32 scalar."""
        inputs, targets_BL, count = self._asked(rows_3B, width)
        rows = max(1, PIECE // width)
        alone = self._device.type == "cpu" and self._ranks.size == 1
        if alone and rows < len(inputs) and getattr(self._loss, "separable", False):
            return self._learn_in_pieces(inputs, targets_BL, rows)
        part = self._ranks.part_of_mean(self._mean(inputs, targets_BL), count)
        part.backward()
        return part.detach()

    def _learn_in_pieces(self, inputs: Batch, targets_BL: Tensor, rows: int) -> Tensor:
        """The same, some rows at a time: sums of the same numbers with less memory, and sooner."""
        total, targets = torch.zeros(()), (targets_BL != PAD).sum()
        for some, targets_some in zip(inputs.split(rows), targets_BL.split(rows), strict=True):
            share = (targets_some != PAD).sum() / targets
            if share > 0:
                part = self._mean(some, targets_some) * share
                part.backward()
                total += part.detach()
        return total

    def _asked(self, rows_3B: Tensor, width: int) -> tuple[Batch, Tensor, Tensor | None]:
        """What the model is shown, what it is to answer (B, L), and how many answers that are; see `own_targets`."""
        batch = self._maker.cut(rows_3B, width, self.model.uses_times, self.model.uses_values)
        inputs, targets_BL = self.model.training_batch(batch)
        targets_BL, count = self._ranks.own_targets(targets_BL, rows_3B[2])
        if self.config.item_dropout:
            hidden = torch.rand(inputs.items.shape, device=self._device) < self.config.item_dropout
            hidden &= inputs.items <= self.model.num_items  # a MASK is a question, not an event
            inputs = inputs.with_items(inputs.items.masked_fill(hidden, PAD))
        return inputs, targets_BL, count

    def _mean(self, inputs: Batch, targets_BL: Tensor) -> Tensor:
        """The loss, a float32 scalar."""
        views = self._loss.views(inputs) if hasattr(self._loss, "views") else ()
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bfloat16):
            states_BD = [self.model.last_state(view) for view in views]
            return self._loss(self.model.encode(inputs), targets_BL, self.model.item_vectors(), inputs, *states_BD)
