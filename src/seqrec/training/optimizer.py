"""AdamW with decay on matrices only, linear warm-up, clipping that reports norms per block, averaged weights."""

from __future__ import annotations

import copy
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from seqrec.distributed import ALONE, Ranks
from seqrec.models.base import SequenceModel
from seqrec.training.config import TrainingConfig


def make_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter, 2019); parameters with fewer than two dimensions do not decay."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    on_gpu = all(parameter.is_cuda for parameter in parameters)
    # There the learning rate lies on the device: a recorded step reads it anew each time.
    rate = torch.tensor(config.learning_rate, device=parameters[0].device) if on_gpu else config.learning_rate
    return torch.optim.AdamW(groups, lr=rate, betas=config.betas, fused=True, capturable=on_gpu)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Of all groups, wherever it lies."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def scheduled_learning_rate(config: TrainingConfig, step: int, epoch: int) -> float:
    """Learning rate of step 0, 1, ... of the whole training, in epoch 0, 1, ...

    Rises over the warm-up; then stays, falls by a factor every few epochs, or falls in a line that would reach zero
    after the last one.
    """
    share = 1.0
    if config.schedule == "step":
        share = config.step_factor ** (epoch // config.step_epochs)
    elif config.schedule == "linear":
        share = 1 - epoch / config.epochs
    return config.learning_rate * min(1.0, (step + 1) / max(config.warmup_steps, 1)) * share


@dataclass(frozen=True)
class BlockNorms:
    """Parameters by block, for gradient norms that say where a gradient explodes.

    Attributes:
        sharded: number of the block whose rows lie on several ranks, or None.
    """

    names: list[str]
    parameters: list[list[nn.Parameter]]
    sharded: int | None = None
    ranks: Ranks = ALONE

    @classmethod
    def of(cls, model: nn.Module, held: Collection[nn.Parameter] = (), ranks: Ranks = ALONE) -> BlockNorms:
        """Blocks are the parts of the model by first name, and each entry of a list of parts by itself.

        Args:
            held: parameters of which this rank has some rows: all of one block, or none.
        """
        groups: dict[str, list[nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            parts = name.split(".")
            block = ".".join(parts[:2]) if len(parts) > 1 and parts[1].isdigit() else parts[0]
            groups.setdefault(block, []).append(parameter)
        sharded = [number for number, group in enumerate(groups.values()) if any(p is q for p in group for q in held)]
        return cls(list(groups), list(groups.values()), sharded[0] if sharded else None, ranks)

    def clip(self, limit: float) -> Tensor:
        """Scale all gradients down to a total norm of `limit`; the norms before that: total, then each block."""
        gradients = [[p.grad for p in group if p.grad is not None] for group in self.parameters]
        zero = self.parameters[0][0].new_zeros(())
        norms = [nn.utils.get_total_norm(group) if group else zero for group in gradients]
        if self.sharded is not None:
            norms[self.sharded] = self.ranks.sum(norms[self.sharded].square()).sqrt()
        total = torch.stack(norms).norm()
        nn.utils.clip_grads_with_norm_([p for group in self.parameters for p in group], limit, total)
        return torch.stack([total, *norms])


class AveragedModel:
    """A copy of the model whose weights follow it as an exponential moving average."""

    def __init__(self, model: SequenceModel, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self._weight = next(model.parameters()).new_zeros((), requires_grad=False)
        for part in self.model.modules():
            if isinstance(part, nn.RNNBase):
                part.flatten_parameters()  # a copy's weights lie apart, and cuDNN would gather them at every call

    def at_step(self, step: int) -> None:
        """Say which step comes next: the average is short in the first ones, so that it forgets initialisation."""
        self._weight.fill_(1 - min(self.decay, (1 + step) / (10 + step)))

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move towards `model`."""
        averages, current = ([p.detach() for p in m.parameters()] for m in (self.model, model))
        ahead = torch._foreach_sub(current, averages)
        torch._foreach_mul_(ahead, self._weight)
        torch._foreach_add_(averages, ahead)
        for average, buffer in zip(self.model.buffers(), model.buffers(), strict=True):
            average.copy_(buffer)
