"""How fast a model trains on this machine, how much of the machine that uses, and where the time goes."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqrec.data.batches import BatchMaker, EpochPlan, plan_epoch
from seqrec.data.prepared import PreparedData
from seqrec.errors import ConfigError
from seqrec.experiments.benchmark.places import places
from seqrec.experiments.benchmark.products import flops, peak_flops, products_of, seconds_alone
from seqrec.experiments.config import RunConfig
from seqrec.experiments.environment import choose_device, environment, peak_memory_mib
from seqrec.experiments.losses import build_loss
from seqrec.losses.sampled_softmax import SampledSoftmaxConfig
from seqrec.models.base import SequenceModel
from seqrec.models.build import build_model
from seqrec.training.step import Step

#: Steps of each shape that are not timed: one sets up, one may be recorded. Then as many as are timed.
WARM_UP, TIMED = 2, 5
#: Seconds that an epoch may take to be run whole, instead of being added up from its steps.
WHOLE = 2.0
#: Rows and width of a batch.
Shape = tuple[int, int]


@dataclass(frozen=True)
class Benchmark:
    """Figures of training.

    Attributes:
        epoch_seconds: training alone, no evaluation.
        tokens_per_second: events with a next item to learn from; padding does not count.
        set_up_seconds: the first steps of every shape, in which libraries set up, kernels are compiled or read from
            their cache, and steps are recorded; beyond what such steps take later.
        step: rows and events of the batches that most of the time is spent on; the rest is about these.
        products_seconds: what the matrix products of such a step take one by one.
        utilisation: their operations over what the device does at best in the time of the step.
        places: share of the time by what it goes to.
    """

    device: str
    parameters: int
    steps: int
    epoch_seconds: float
    tokens_per_second: float
    set_up_seconds: float
    peak_memory_mib: float
    step: Shape
    step_seconds: float
    products_seconds: float
    tera_flops: float
    utilisation: float
    places: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


def benchmark(config: RunConfig, data: PreparedData, device: str = "auto") -> Benchmark:
    """Train a few steps of every shape that an epoch has, and throw the weights away.

    Raises:
        ConfigError: the model is not trained by gradient.
    """
    where = choose_device(device)
    torch.manual_seed(config.seed)
    model = build_model(config.to_dict()["model"], data.sequences.num_items)
    if not isinstance(model, SequenceModel):
        raise ConfigError(f"{config.model_name} is fitted, not trained step by step: see `seqrec estimate`.")
    model.fit_data(data)
    loss = build_loss(config, model, data)
    if hasattr(loss, "fit"):
        loss.fit(data.train)
    maker = BatchMaker(data.sequences, where)
    step = Step(model.to(where).train(), loss, config.training, maker)
    batch_size = config.training.histories_per_step(len(data.train))
    plan = plan_epoch(data.train, model.config.max_length, batch_size, config.training.random_windows, [config.seed, 0])
    counts = Counter(zip(np.diff(plan.cuts).tolist(), plan.widths, strict=True))
    examples = {(rows.shape[1], width): (rows, width) for rows, width in plan.batches(where)}
    set_up, seconds = 0.0, {}
    for shape, batch in examples.items():
        first, seconds[shape] = _timed(step, batch, where, config.training.learning_rate)
        set_up += first
    memory = peak_memory_mib(where)
    epoch = sum(seconds[shape] * count for shape, count in counts.items())
    if epoch < WHOLE:
        epoch = _whole(step, plan, where, config.training.learning_rate)
    main = max(counts, key=lambda shape: seconds[shape] * counts[shape])
    half = config.training.in_bfloat16(where.type)
    scored = config.loss.num_negatives if isinstance(config.loss, SampledSoftmaxConfig) else model.num_items
    window = maker.cut(*examples[main], model.uses_times, model.uses_values)
    work = products_of(model, window, half, scored)
    precision = torch.bfloat16 if half else torch.float32
    return Benchmark(
        device=environment(where)["device"],
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        steps=len(plan),
        epoch_seconds=epoch,
        tokens_per_second=plan.num_targets / epoch,
        set_up_seconds=set_up,
        peak_memory_mib=memory,
        step=(main[0], main[1] - 1),
        step_seconds=seconds[main],
        products_seconds=seconds_alone(work, where, precision),
        tera_flops=flops(work) / 1e12,
        utilisation=flops(work) / seconds[main] / peak_flops(where, precision),
        places=places(lambda: step.update(*examples[main]), where),
    )


def _timed(step: Step, batch: tuple[Tensor, int], device: torch.device, rate: float) -> tuple[float, float]:
    """Seconds that setting up for such steps took, and of one of them afterwards."""
    began = time.perf_counter()
    for number in range(WARM_UP):
        step(*batch, rate, number)
    _wait(device)
    warm = time.perf_counter()
    for number in range(TIMED):
        step(*batch, rate, number)
    _wait(device)
    one = (time.perf_counter() - warm) / TIMED
    return max(0.0, warm - began - WARM_UP * one), one


def _whole(step: Step, plan: EpochPlan, device: torch.device, rate: float) -> float:
    """Seconds of a whole epoch, the median of three: from the plan, which lies on the host, to what its steps told."""
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        torch.stack([step(*batch, rate, number) for number, batch in enumerate(plan.batches(device))]).cpu()
        seconds.append(time.perf_counter() - began)
    return sorted(seconds)[1]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
