"""Models that fail in their own ways, for the tests of tuning. Workers find them by `tuning_models:NAME`."""

from __future__ import annotations

import os
import signal

import torch
from torch import Tensor

from seqrec.data.batches import Batch
from seqrec.files import DiskError
from seqrec.models.lstm import LSTM, LSTMConfig


class OutOfMemory(LSTM):
    """Wants too much memory where its width is above 16."""

    def __init__(self, config: LSTMConfig, num_items: int) -> None:
        super().__init__(config, num_items)
        if config.embedding_dim > 16:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 80.00 GiB.\nAnd so on.")


class DiskFull(LSTM):
    """Finds no room in training while the file is there that TUNING_MODELS_FULL names."""

    def encode(self, batch: Batch) -> Tensor:
        if self.training and os.path.exists(os.environ["TUNING_MODELS_FULL"]):
            raise DiskError("The disk is full: last.safetensors was not written. Free some space and repeat.")
        return super().encode(batch)


class Killed(LSTM):
    """Its process is killed in training where its width is above 16."""

    def encode(self, batch: Batch) -> Tensor:
        if self.training and self.config.embedding_dim > 16:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().encode(batch)
