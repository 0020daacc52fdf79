"""Models that fail in their own ways, for the tests of tuning. Workers find them by `tuning_models:NAME`."""

from __future__ import annotations

import os
import signal

import torch
from torch import Tensor

from seqrec.data.batches import Batch
from seqrec.models.lstm import LSTM, LSTMConfig


class OutOfMemory(LSTM):
    """Wants too much memory where its width is above 16."""

    def __init__(self, config: LSTMConfig, num_items: int) -> None:
        super().__init__(config, num_items)
        if config.embedding_dim > 16:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 80.00 GiB.\nAnd so on.")


class Killed(LSTM):
    """Its process is killed in training where its width is above 16."""

    def encode(self, batch: Batch) -> Tensor:
        if self.training and self.config.embedding_dim > 16:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().encode(batch)
