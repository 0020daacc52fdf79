"""A run in miniature, in a process of its own: what one step, one evaluation and one file cost.

`python -m seqrec.experiments.rehearsal` reads a configuration and a prepared folder as JSON from its input and writes
what it measured to its output; `seqrec.experiments.estimate` starts it and multiplies.

Shapes: a batch has B rows of L positions.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from seqrec.data.batches import EpochPlan, bucket, plan_epoch
from seqrec.data.prepared import PreparedData
from seqrec.data.sequences import Cases, Sequences
from seqrec.errors import SeqrecError
from seqrec.evaluation.evaluation import Evaluation
from seqrec.evaluation.evaluator import MOST_CASES, Evaluator
from seqrec.experiments.config import RunConfig
from seqrec.experiments.environment import choose_device
from seqrec.losses import LOSSES
from seqrec.models.base import Scorer, SequenceModel
from seqrec.models.build import build_model
from seqrec.registry import resolve
from seqrec.run_folder import RunFolder
from seqrec.training.checkpoint import save_checkpoint
from seqrec.training.tracking import tensorboard_if_installed
from seqrec.training.trainer import Trainer

#: Seconds that steps, or fits, are tried for; what is begun is finished.
BUDGET = 5.0
#: Steps of one shape that are timed at most, after one that is not.
STEPS = 12
#: Blocks of cases that are evaluated where there are more, and the seconds one may take for that.
BLOCKS, BLOCK_SECONDS = 4, 1.0
#: Shares of the users that a model without gradients is fitted on, one after the other while there is time.
SHARES = (0.05, 0.1, 0.2, 0.4, 1.0)
#: What only an epoch that ends in an evaluation writes down.
EVALUATED = ("validation", "best", "loss", "train_loss_by_length")

Shape = tuple[int, int]


@dataclass(frozen=True)
class Rehearsed:
    """What was measured. Seconds and bytes are of one; memory is the process's own peak.

    Attributes:
        start_seconds: from the start of the process to the first step: imports, data, model.
        epoch_seconds: training, without evaluation; for a model without gradients the whole fit.
        evaluation_seconds: over all validation cases, with all that follows an evaluation.
        case_seconds: one case of the final scoring, its measures and its line per user.
        saving_seconds: a checkpoint to resume from.
        epoch_bytes, evaluation_bytes, case_bytes: of history and TensorBoard, and what an evaluation adds; per-user.
        fitted_share: of the users, on which a model without gradients was fitted; the rest is a straight line.
    """

    parameters: int
    batch_size: int
    steps: int
    start_seconds: float
    epoch_seconds: float
    evaluation_seconds: float
    case_seconds: float
    saving_seconds: float
    weights_bytes: int
    checkpoint_bytes: int
    epoch_bytes: float
    evaluation_bytes: float
    case_bytes: float
    items_bytes: int
    memory_mib: float
    gpu_mib: float | None
    fitted_share: float | None


class _Timed(Evaluator):
    """Remembers its last evaluation and how long that took."""

    seconds = 0.0
    found: Evaluation

    def evaluate(self, scorer: Scorer, part: str) -> Evaluation:
        began = time.perf_counter()
        self.found = super().evaluate(scorer, part)
        self.seconds = time.perf_counter() - began
        return self.found


class _Rehearsal(Trainer):
    """A trainer that takes a few steps of each shape an epoch has."""

    def epoch(self) -> tuple[int, float]:
        """Steps of an epoch, and the seconds they take together."""
        began = time.perf_counter()
        train, length = self.evaluator.data.train, self.model.config.max_length
        plan = plan_epoch(train, length, self.batch_size, self.config.random_windows, [self.seed, 0])
        seconds = time.perf_counter() - began
        self._tokens = plan.num_targets
        shapes = [
            (len(users), _width(lengths, length)) for users, lengths in zip(plan.users, plan.lengths, strict=True)
        ]
        self.model.train()
        measured = self._measure(plan, shapes)
        return len(plan), seconds + sum(_nearest(measured, shape) for shape in shapes)

    def _measure(self, plan: EpochPlan, shapes: list[Shape]) -> dict[Shape, float]:
        """Seconds of a step by shape: the largest first, for its memory, then those that most of the work is in."""
        work = {shape: count * _cells(shape) for shape, count in Counter(shapes).items()}
        order = sorted(work, key=lambda shape: (_cells(shape) == max(map(_cells, work)), work[shape]), reverse=True)
        measured: dict[Shape, float] = {}
        ends = time.perf_counter() + BUDGET
        for shape in order:
            if measured and time.perf_counter() > ends:
                break
            chosen = [number for number, other in enumerate(shapes) if other == shape]
            numbers = [chosen[n % len(chosen)] for n in range(STEPS + 1)]
            measured[shape] = self._steps(numbers, plan, BUDGET / len(order))
        return measured

    def _steps(self, numbers: list[int], plan: EpochPlan, budget: float) -> float:
        """Mean seconds of a step, as an epoch is their sum; the first one warms up and does not count."""
        users, starts, lengths = ([part[n] for n in numbers] for part in (plan.users, plan.starts, plan.lengths))
        some = replace(plan, users=users, starts=starts, lengths=lengths)
        seconds: list[float] = []
        first = time.perf_counter()
        for number, batch in enumerate(some.batches(self._maker)):
            began = time.perf_counter()
            loss, norms = self._step(batch)
            self._collect([loss], [norms])  # waits for the device
            self.at.step += 1
            if number:
                seconds.append(time.perf_counter() - began)
            if seconds and time.perf_counter() - first > budget:
                break
        return mean(seconds)

    def written(self) -> tuple[dict[str, Any], float]:
        """The record of an epoch that ends in an evaluation, and the seconds that took."""
        began = time.perf_counter()
        self.at.epoch = self.config.epochs - 1
        record = self._finish_epoch()
        return record, time.perf_counter() - began

    def saved(self) -> float:
        """Seconds that a checkpoint to resume from takes."""
        began = time.perf_counter()
        self._save()
        return time.perf_counter() - began


def _width(lengths: Any, max_length: int) -> int:
    return min(bucket(int(lengths.max()) - 1), max_length)


def _cells(shape: Shape) -> int:
    return shape[0] * shape[1]


def _nearest(measured: dict[Shape, float], shape: Shape) -> float:
    """Seconds of a step; of a shape that was not tried, those of the nearest one, by the number of cells."""
    near = min(measured, key=lambda other: abs(_cells(other) - _cells(shape)))
    return measured[near] * _cells(shape) / _cells(near)


def rehearse(config: RunConfig, data: PreparedData, device: torch.device, began: float, path: Path) -> Rehearsed:
    """Measure in the folder `path`; `began` is when the process was started, as `time.time()` has it."""
    torch.manual_seed(config.seed)
    scorer = build_model(config.to_dict()["model"], data.sequences.num_items)
    folder = RunFolder(path)
    data.catalogue.save(folder.items)
    if isinstance(scorer, SequenceModel):
        return _trained(scorer, config, data, device, began, folder)
    return _fitted(config, data, device, began, folder)


def _trained(
    model: SequenceModel, config: RunConfig, data: PreparedData, device: torch.device, began: float, folder: RunFolder
) -> Rehearsed:
    loss = resolve("loss", config.loss_name, LOSSES)(config.loss)
    evaluator = _Timed(data, config.evaluation, device)
    trainer = _Rehearsal(model, loss, evaluator, config.training, folder, config.seed)
    start_seconds = time.time() - began
    steps, epoch_seconds = trainer.epoch()
    trainer.evaluator = evaluator = _some_cases(evaluator, model)
    record, finish_seconds = trainer.written()
    cases = len(data.cases("validation"))
    evaluation_seconds = evaluator.seconds * cases / len(evaluator.found.ranks)
    saving_seconds = trainer.saved()
    epoch_bytes, evaluation_bytes = _record_bytes(record, steps, folder)
    case_seconds, case_bytes = _per_case(evaluator, folder)
    return Rehearsed(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        batch_size=trainer.batch_size,
        steps=steps,
        start_seconds=start_seconds,
        epoch_seconds=epoch_seconds,
        evaluation_seconds=evaluation_seconds + finish_seconds - evaluator.seconds,
        case_seconds=case_seconds,
        saving_seconds=saving_seconds,
        weights_bytes=folder.best.stat().st_size,
        checkpoint_bytes=folder.last.stat().st_size,
        epoch_bytes=epoch_bytes,
        evaluation_bytes=evaluation_bytes,
        case_bytes=case_bytes,
        items_bytes=folder.items.stat().st_size,
        memory_mib=peak_memory(),
        gpu_mib=torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None,
        fitted_share=None,
    )


def _fitted(config: RunConfig, data: PreparedData, device: torch.device, began: float, folder: RunFolder) -> Rehearsed:
    start_seconds = time.time() - began
    scorer, share, fit_seconds, fit_memory = _fit_growing(config.to_dict()["model"], data)
    save_checkpoint(folder.best, scorer.state_dict())
    before = peak_memory()
    evaluator = _some_cases(_Timed(data, config.evaluation, device), scorer)
    evaluator.evaluate(scorer, "validation")
    case_seconds, case_bytes = _per_case(evaluator, folder)
    return Rehearsed(
        parameters=0,
        batch_size=0,
        steps=0,
        start_seconds=start_seconds,
        epoch_seconds=fit_seconds,
        evaluation_seconds=0.0,
        case_seconds=case_seconds,
        saving_seconds=0.0,
        weights_bytes=folder.best.stat().st_size,
        checkpoint_bytes=0,
        epoch_bytes=0.0,
        evaluation_bytes=0.0,
        case_bytes=case_bytes,
        items_bytes=folder.items.stat().st_size,
        memory_mib=fit_memory + peak_memory() - before,
        gpu_mib=None,
        fitted_share=share,
    )


def _fit_growing(spec: dict[str, Any], data: PreparedData) -> tuple[Scorer, float, float, float]:
    """The scorer fitted on the largest share of users there was time for, that share, and seconds and MiB for all."""
    ends = time.perf_counter() + BUDGET
    shares, seconds, memory = [0.0], [0.0], [peak_memory()]
    for share in SHARES:
        if len(shares) > 2 and time.perf_counter() + 2 * seconds[-1] > ends:
            break
        part, began = _some_users(data, share), time.perf_counter()
        scorer = build_model(spec, data.sequences.num_items).fit_data(part)
        shares.append(share)
        seconds.append(time.perf_counter() - began)
        memory.append(peak_memory())
    more = (1 - shares[-1]) / (shares[-1] - shares[-2])
    whole, peak = (values[-1] + max(0.0, values[-1] - values[-2]) * more for values in (seconds, memory))
    return scorer, shares[-1], whole, peak


def _some_users(data: PreparedData, share: float) -> PreparedData:
    """The histories of that share of the users, drawn at random, and no cases."""
    if share == 1:
        return data
    sequences = data.sequences
    users = np.random.default_rng(0).permutation(len(sequences))[: max(1, round(share * len(sequences)))]
    users.sort()
    lengths = sequences.lengths[users]
    ends = np.cumsum(lengths)
    moved = sequences.starts[users] - (ends - lengths)
    index = np.arange(int(ends[-1])) + np.repeat(moved, lengths)
    columns = {name: column[index] for name, column in sequences.columns().items()}
    some = Sequences(starts=ends - lengths, ends=ends, num_items=sequences.num_items, **columns)
    nobody = Cases(users[:0], users[:0])
    split = replace(data.split, train_ends=data.split.train_ends[users] - moved, validation=nobody, test=nobody)
    return replace(data, sequences=some, split=split)


def _some_cases(evaluator: Evaluator, scorer: Scorer) -> _Timed:
    """An evaluator of a few blocks of validation cases, of all history lengths; of one block where that takes long."""
    data = evaluator.data
    cases = data.cases("validation")
    cases = cases.take(np.argsort(cases.ends - data.sequences.starts[cases.users], kind="stable"))

    def of(blocks: int) -> _Timed:
        rooms = np.linspace(0, max(len(cases) - MOST_CASES, 0), blocks + 2).astype(np.int64)
        starts = rooms[1:-1] if blocks == 1 else np.linspace(0, rooms[-1], blocks).astype(np.int64)
        index = np.unique(np.concatenate([np.arange(start, min(start + MOST_CASES, len(cases))) for start in starts]))
        split = replace(data.split, validation=cases.take(index))
        return _Timed(replace(data, split=split), evaluator.config, evaluator.device)

    one = of(1)
    if len(cases) <= MOST_CASES:
        return one
    one.evaluate(scorer, "validation")
    return of(BLOCKS) if one.seconds < BLOCK_SECONDS else one


def _record_bytes(record: dict[str, Any], steps: int, folder: RunFolder) -> tuple[float, float]:
    """Bytes that an epoch adds to history and TensorBoard, and what one that ends in an evaluation adds to those."""
    tracker = tensorboard_if_installed(folder.tensorboard)
    if tracker is not None:
        tracker.started({"steps_done": 0, "parameters": 0})

    def told(of: dict[str, Any]) -> int:
        before = _size(folder.tensorboard)
        if tracker is not None:
            tracker.epoch_ended(of)
        return len(json.dumps(of)) + 1 + _size(folder.tensorboard) - before

    without = {**record, "losses": []}
    told(without)  # the start of the file
    bare = told({key: value for key, value in without.items() if key not in EVALUATED})
    whole = told(without)
    per_step = (told(record) - whole) / len(record["losses"])
    return bare + per_step * steps, whole - bare


def _per_case(evaluator: _Timed, folder: RunFolder) -> tuple[float, float]:
    """Seconds and bytes of one case in the final scoring."""
    found, began = evaluator.found, time.perf_counter()
    found.summary()
    path = folder.per_user("validation")
    try:
        found.write_per_user(path, evaluator.data.user_ids(), list(evaluator.data.catalogue.ids))
    except ImportError:  # the run will not write it either
        return (time.perf_counter() - began + evaluator.seconds) / len(found.ranks), 0.0
    return (time.perf_counter() - began + evaluator.seconds) / len(found.ranks), path.stat().st_size / len(found.ranks)


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def peak_memory() -> float:
    """Most memory that this process itself has held, in MiB."""
    for line in _status():
        if line.startswith("VmHWM:"):  # what getrusage says starts at the size of the process that started this one
            return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 1024)


def _status() -> Iterator[str]:
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            yield from file
    except OSError:
        return


def main() -> None:
    """See the top of the module. An error of ours is told by its name and message."""
    asked = json.load(sys.stdin)
    answer: dict[str, Any]
    with redirect_stdout(sys.stderr), TemporaryDirectory() as folder:
        try:
            config, data = RunConfig.from_dict(asked["config"]), PreparedData.load(Path(asked["data"]))
            found = rehearse(config, data, choose_device(asked["device"]), asked["began"], Path(folder))
            answer = {"found": asdict(found)}
        except SeqrecError as error:
            answer = {"error": type(error).__name__, "message": str(error)}
        except torch.OutOfMemoryError as error:
            answer = {"error": "TrainingError", "message": f"The GPU's memory is too small for one step: {error}"}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
