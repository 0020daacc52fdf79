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
from seqrec.models.base import ItemVectors, SequenceModel
from seqrec.models.sharded import sharded_table
from seqrec.training.config import TrainingConfig
from seqrec.training.graphs import Recorder
from seqrec.training.optimizer import AveragedModel, BlockNorms, make_optimizer, set_learning_rate

Loss = Callable[[Tensor, Tensor, ItemVectors, Batch], Tensor]


class Step:
    """Updates a model, its optimiser and the average of its weights.

    Attributes:
        recorder: replays steps on a GPU; None where each one runs as it stands in `update`.
    """

    def __init__(
        self, model: SequenceModel, loss: Loss, config: TrainingConfig, maker: BatchMaker, ranks: Ranks = ALONE
    ) -> None:
        self.model = model
        self.config = config
        self.optimizer = make_optimizer(model, config)
        self.average = AveragedModel(model, config.ema_decay) if config.ema_decay else None
        table = sharded_table(model)
        held = set() if table is None else set(table.parameters())
        self._copied = [parameter for parameter in model.parameters() if parameter not in held]
        self._ranks = ranks
        self.norms = BlockNorms.of(model, held, ranks)
        self._loss = loss
        self._maker = maker
        self._device = maker.device
        on_gpu = self._device.type == "cuda"
        self._bfloat16 = config.in_bfloat16(self._device.type)
        self.recorder = Recorder(self.update) if on_gpu and config.compile != "off" else None

    def __call__(self, rows_3B: Tensor, width: int, learning_rate: float, number: int) -> Tensor:
        """Update number 0, 1, ... of the whole training.

        Args:
            rows_3B: int64 users, starts and lengths of windows, on the device.
            width: events the windows are padded to.

        Returns:
            (2 + G,) float32 on the device: the loss, the gradient's norm before clipping, and that of each block.
        """
        set_learning_rate(self.optimizer, learning_rate)
        if self.average is not None:
            self.average.at_step(number)
        return (self.recorder or self.update)(rows_3B, width)

    def update(self, rows_3B: Tensor, width: int) -> Tensor:
        """The step itself."""
        self.optimizer.zero_grad(set_to_none=True)
        mean, count = self.loss_of(rows_3B, width)
        part = self._ranks.part_of_mean(mean, count)
        part.backward()
        loss = self._ranks.sum_gradients(self._copied, part.detach())
        norms = self.norms.clip(self.config.clip_norm)
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.model)
        return torch.cat([loss[None], norms])

    def loss_of(self, rows_3B: Tensor, width: int) -> tuple[Tensor, Tensor | None]:
        """The mean loss of a batch, a float32 scalar, and how many positions it is a mean of; see `own_targets`."""
        inputs, targets_BL = self.model.training_batch(self._maker.cut(rows_3B, width, self.model.uses_times))
        targets_BL, count = self._ranks.own_targets(targets_BL, rows_3B[2])
        if self.config.item_dropout:
            hidden = torch.rand(inputs.items.shape, device=self._device) < self.config.item_dropout
            hidden &= inputs.items <= self.model.num_items  # a MASK is a question, not an event
            inputs = inputs.with_items(inputs.items.masked_fill(hidden, PAD))
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bfloat16):
            return self._loss(self.model.encode(inputs), targets_BL, self.model.item_vectors(), inputs), count
