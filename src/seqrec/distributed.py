"""Processes that train one model together, as `torchrun` starts them; a process alone is a group of one.

Every rank holds a share of each batch and of the evaluation. What goes between ranks is here and nowhere else: sums on
the device (NCCL on GPUs, gloo on CPUs), and small things of the host (always gloo). Every rank has to call these in the
same order; for a group of one they do nothing.

Shapes: B rows, T rows of one rank, R ranks.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from seqrec.errors import ConfigError, DataError, SeqrecError

Value = TypeVar("Value")
#: How long ranks wait for each other. A rank that dies is noticed by its connection; one that prepares data or writes a
#: large checkpoint is waited for.
PATIENCE = timedelta(hours=12)
#: Gradients of so many numbers are summed where they lie; smaller ones are put into one message first.
LARGE = 1 << 20
#: What stands in messages about connections, by which gloo and NCCL are told from mistakes of ours.
BROKEN = ("connection", "gloo", "nccl", "socket", "timed out")
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


class RankError(SeqrecError):
    """Another rank stopped or died, and none can go on without it."""


@dataclass(frozen=True)
class Ranks:
    """Which of how many processes this is, and what they say to each other.

    Attributes:
        rank: 0 .. size - 1 over all machines.
        local: the same on this machine: the number of its GPU.
    """

    rank: int = 0
    size: int = 1
    local: int = 0

    @property
    def is_main(self) -> bool:
        """Whether this is the one rank that writes files and prints."""
        return self.rank == 0

    def device(self, name: str) -> str:
        """The device of this rank, where the user asked for `name`: each rank of a machine has a GPU of its own.

        Raises:
            ConfigError: one GPU is named for several ranks, or there are fewer GPUs than ranks.
        """
        if self.size == 1 or name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
            return name
        if name not in ("auto", "cuda"):
            raise ConfigError(f"--device {name}: with several processes choose auto, cpu or cuda.")
        if self.local >= torch.cuda.device_count():
            raise ConfigError(
                f"This machine has {torch.cuda.device_count()} GPUs and more processes than that. "
                "Lower --nproc-per-node, or choose --device cpu."
            )
        return f"cuda:{self.local}"

    def seed(self, seed: int) -> int:
        """What this rank draws dropout and masks from. Weights and batches come from `seed` itself on all ranks."""
        return seed if self.size == 1 else int(np.random.SeedSequence((seed, self.rank)).generate_state(1)[0])

    def parts(self, count: int) -> list[int]:
        """How many of `count` rows each rank has, where they are cut into contiguous parts of about equal size."""
        return [(rank + 1) * count // self.size - rank * count // self.size for rank in range(self.size)]

    # --- training

    def share(self, rows_3B: Tensor) -> Tensor:
        """This rank's windows (3, T) of a batch of windows (users, starts, lengths).

        All ranks get the same number. Where the batch does not suffice, a window of one event is added, which has no
        next item to learn from.
        """
        if self.size == 1:
            return rows_3B
        missing = -rows_3B.shape[1] % self.size
        if missing:
            rows_3B = nn.functional.pad(rows_3B, (0, missing))
            rows_3B[2, -missing:] = 1
        return rows_3B[:, self.rank :: self.size].contiguous()

    def own_targets(self, targets_BL: Tensor, lengths_B: Tensor) -> tuple[Tensor, Tensor | None]:
        """Targets without those in windows that `share` added, and how many they are: None where nobody else has any.

        Where none is left, item 1 is the target everywhere: a mean over nothing would be no number, and `part_of_mean`
        weighs this one with 0.

        Args:
            targets_BL: int64, 0 where there is no target.
            lengths_B: events of each window.
        """
        if self.size == 1:
            return targets_BL, None
        targets_BL = targets_BL.masked_fill(lengths_B[:, None] < 2, 0)
        count = (targets_BL != 0).sum()
        return targets_BL.masked_fill(count == 0, 1), count

    def part_of_mean(self, mean: Tensor, count: Tensor | None) -> Tensor:
        """What this rank adds to the mean over the positions of all ranks, from the `mean` over its own `count`."""
        if count is None:
            return mean
        count = count.to(mean.dtype)
        return mean * (count / self.sum(count.clone()))

    def sum_gradients(self, parameters: Iterable[nn.Parameter], told: Tensor) -> Tensor:
        """Put the sum over ranks into the gradient of each parameter; also the sum of the number `told`.

        Small gradients travel as one message, large ones where they lie. A parameter without a gradient on this rank
        gets zeros first: others may have one.
        """
        if self.size == 1:
            return told
        gradients = []
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            gradients.append(parameter.grad)
        small = [gradient for gradient in gradients if gradient.numel() < LARGE]
        for gradient in gradients:
            if gradient.numel() >= LARGE:
                self.sum(gradient)
        bucket = self.sum(torch.cat([told.reshape(1), *(gradient.flatten() for gradient in small)]))
        summed, *parts = bucket.split([1, *(gradient.numel() for gradient in small)])
        for gradient, part in zip(small, parts, strict=True):
            gradient.copy_(part.view_as(gradient))
        return summed[0]

    # --- tensors on the device, without gradients

    def sum(self, x: Tensor) -> Tensor:
        """The sum of `x` over ranks, in its place."""
        return self._reduced(x, dist.ReduceOp.SUM)

    def maximum(self, x: Tensor) -> Tensor:
        """The elementwise maximum of `x` over ranks, in its place."""
        return self._reduced(x, dist.ReduceOp.MAX)

    def gather(self, x: Tensor) -> Tensor:
        """Rows (R * T, ...) of all ranks in their order, from as many rows (T, ...) on each."""
        if self.size == 1:
            return x
        found = x.new_empty(self.size * len(x), *x.shape[1:])
        with _guarded():
            _all_gather(found, x.detach().contiguous())
        return found

    def sum_of_rows(self, x: Tensor) -> Tensor:
        """This rank's rows (T, ...) of the sum over ranks of `x` (R * T, ...): the transpose of `gather`."""
        if self.size == 1:
            return x
        found = x.new_empty(len(x) // self.size, *x.shape[1:])
        with _guarded():
            _reduce_scatter(found, x.detach().contiguous())
        return found

    def gather_uneven(self, x: Tensor, sizes: list[int]) -> Tensor:
        """As `gather`, where rank r has `sizes[r]` rows."""
        if self.size == 1:
            return x
        parts = self.gather(_padded(x, max(sizes))).split(max(sizes))
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    # --- tensors of the host

    def rows_to_main(self, x: Tensor, sizes: list[int]) -> Tensor:
        """As `gather_uneven`, on rank 0 alone; nothing (0, ...) elsewhere."""
        if self.size == 1:
            return x
        padded = _padded(x, max(sizes))
        parts = [torch.empty_like(padded) for _ in sizes] if self.is_main else None
        with _guarded():
            dist.gather(padded, parts, dst=0)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)]) if parts else x[:0]

    def rows_of_main(self, x: Tensor, sizes: list[int]) -> Tensor:
        """This rank's `sizes[rank]` rows of those that rank 0 has; elsewhere only the shape of a row is looked at."""
        if self.size == 1:
            return x
        found = x.new_empty(max(sizes), *x.shape[1:])
        parts = [_padded(part, max(sizes)) for part in x.split(sizes)] if self.is_main else None
        with _guarded():
            dist.scatter(found, parts, src=0)
        return found[: sizes[self.rank]].clone()

    def broadcast(self, x: Tensor) -> Tensor:
        """What rank 0 has in `x`, written into `x`."""
        if self.size > 1:
            with _guarded():
                dist.broadcast(x, src=0)
        return x

    # --- small things of the host

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """For each flag, whether it is set on any rank."""
        if self.size == 1:
            return flags
        return tuple(bool(flag) for flag in self.maximum(torch.tensor(flags, dtype=torch.int32)))

    def each(self, value: Value) -> list[Value]:
        """The value of every rank."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        with _guarded():
            dist.all_gather_object(found, value)
        return found

    def of_main(self, value: Value) -> Value:
        """The value that rank 0 has."""
        if self.size == 1:
            return value
        box: list[Any] = [value]
        with _guarded():
            dist.broadcast_object_list(box, src=0)
        return box[0]

    def require_same(self, value: object, what: str) -> None:
        """Refuse to go on where ranks differ.

        Raises:
            DataError: naming the first rank that has something else than rank 0.
        """
        others = [rank for rank, theirs in enumerate(self.each(value)) if theirs != self.of_main(value)]
        if others:
            raise DataError(f"Rank {others[0]} has another {what} than rank 0: copy what rank 0 has to every machine.")

    def copy_weights(self, module: nn.Module) -> None:
        """Give every rank the weights and buffers of rank 0."""
        for tensor in module.state_dict().values():
            self.broadcast(tensor)

    def first_here(self, make: Callable[[], Value]) -> Value:
        """What `make` returns, called by one rank of each machine first: the others find its files there."""
        found = None
        with self.together():
            if self.local == 0:
                found = make()
        with self.together():
            return make() if found is None else found

    @contextmanager
    def together(self) -> Iterator[None]:
        """An error inside, on any rank, is an error on all of them when they leave: none waits for one that stopped.

        Nothing inside may wait for other ranks.

        Raises:
            RankError: another rank failed; where several did, each has its own error.
        """
        if self.size == 1:
            yield
            return
        try:
            yield
        except BaseException as error:
            self.each(f"{type(error).__name__}: {error}")
            raise
        for rank, failure in enumerate(self.each("")):
            if failure:
                raise RankError(f"Rank {rank} stopped: {failure}")

    def _reduced(self, x: Tensor, how: dist.ReduceOp.RedOpType) -> Tensor:
        if self.size > 1:
            with _guarded():
                dist.all_reduce(x, how)
        return x


#: A process by itself.
ALONE = Ranks()


@contextmanager
def join(device: str = "auto") -> Iterator[Ranks]:
    """Meet the other processes that `torchrun` started with this one; by itself, a process is `ALONE`.

    Args:
        device: as the user said: `auto`, `cpu`, `cuda`.
    """
    told = [os.environ.get(name) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR")]
    if None in told or told[1] == "1":
        yield ALONE
        return
    ranks = Ranks(*(int(number or 0) for number in told[:3]))
    where = ranks.device(device)
    on_gpu = torch.device(where if where != "auto" else "cpu").type == "cuda"
    if on_gpu:
        torch.cuda.set_device(torch.device(where))
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=PATIENCE)
    ranks.sum(torch.zeros(1, device=where if on_gpu else "cpu"))  # NCCL connects now, and not in a step
    yield ranks
    dist.destroy_process_group()  # not after an error: it would wait for a rank that is gone


def _padded(x: Tensor, rows: int) -> Tensor:
    """With zeros behind, up to so many rows."""
    return x if len(x) == rows else torch.cat([x, x.new_zeros(rows - len(x), *x.shape[1:])])


@contextmanager
def _guarded() -> Iterator[None]:
    """What a library says when a connection breaks, in our words."""
    try:
        yield
    except RuntimeError as error:
        if not any(word in str(error).lower() for word in BROKEN):
            raise
        raise RankError(
            "The connection to another process broke: it stopped or died, and torchrun says which. Training goes on "
            f"from the last checkpoint with --resume, on any number of processes. ({str(error).splitlines()[0][:200]})"
        ) from error
