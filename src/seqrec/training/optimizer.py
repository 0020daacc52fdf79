"""Optimisers with decay on matrices only, clipping that reports norms per block, averaged weights."""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

from seqrec.distributed import ALONE, Ranks
from seqrec.errors import ConfigError
from seqrec.models.base import SequenceModel
from seqrec.training.config import TrainingConfig
from seqrec.training.muon import Muon

#: Rows and columns from which on Muon takes a matrix for one: gates with a row per head are vectors.
SHORTEST_SIDE = 16


def make_optimizers(model: nn.Module, config: TrainingConfig) -> list[Optimizer]:
    """What `training.optimizer` names; parameters with fewer than two dimensions do not decay.

    Each is of a kind that can be recorded as a CUDA graph with its learning rate on the device.

    Raises:
        ConfigError: Muon for a model without matrices in numbered blocks or recurrent layers.
    """
    if config.optimizer != "muon":
        return [_general(config.optimizer, [p for p in model.parameters() if p.requires_grad], config)]
    matrices = _inner_matrices(model)
    if not matrices:
        raise ConfigError(f"training.optimizer: {type(model).__name__} has no matrices inside blocks. Use adamw.")
    inner = set(matrices)
    rest = [parameter for parameter in model.parameters() if parameter.requires_grad and parameter not in inner]
    dtype = torch.bfloat16 if matrices[0].is_cuda else matrices[0].dtype
    return [Muon(matrices, _rate(matrices, config), config.weight_decay, dtype), _general("adamw", rest, config)]


def _general(name: str, parameters: list[nn.Parameter], config: TrainingConfig) -> Optimizer:
    """One of torch's.

    adamw (Loshchilov and Hutter, 2019) shrinks weights by the decay; adam, rmsprop and sgd add it to gradients.
    """
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    rate, on_gpu = _rate(parameters, config), _on_gpu(parameters)
    if name == "rmsprop":
        alpha, momentum = config.betas[1], config.momentum
        return RMSprop(groups, lr=rate, alpha=alpha, momentum=momentum, foreach=True, capturable=on_gpu)
    if name == "sgd":
        return SGD(groups, lr=rate, momentum=config.momentum, nesterov=config.momentum > 0, fused=True)
    kind = Adam if name == "adam" else AdamW
    return kind(groups, lr=rate, betas=config.betas, fused=True, capturable=on_gpu)


def _rate(parameters: list[nn.Parameter], config: TrainingConfig) -> float | Tensor:
    """On a GPU it lies on the device: a recorded step reads it anew each time."""
    if _on_gpu(parameters):
        return torch.tensor(config.learning_rate, device=parameters[0].device)
    return config.learning_rate


def _on_gpu(parameters: list[nn.Parameter]) -> bool:
    return all(parameter.is_cuda for parameter in parameters)


def _inner_matrices(model: nn.Module) -> list[nn.Parameter]:
    """Matrices of numbered blocks and recurrent layers; not item tables, positions, heads, gates of a few rows."""
    recurrent = {id(p) for part in model.modules() if isinstance(part, nn.RNNBase) for p in part.parameters()}
    return [
        parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
        and parameter.ndim == 2
        and min(parameter.shape) >= SHORTEST_SIDE
        and (_block(name) != name.split(".")[0] or id(parameter) in recurrent)
    ]


def set_learning_rate(optimizers: Sequence[Optimizer], rate: float) -> None:
    """Of all groups, wherever it lies."""
    for group in (group for optimizer in optimizers for group in optimizer.param_groups):
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


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
            groups.setdefault(_block(name), []).append(parameter)
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


def _block(name: str) -> str:
    """Which part of a model a parameter is in: by first name, or the entry of a list of parts (`blocks.0`)."""
    parts = name.split(".")
    return ".".join(parts[:2]) if len(parts) > 1 and parts[1].isdigit() else parts[0]


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
