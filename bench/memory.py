"""Peak memory of training on a CPU: against the length of histories and the size of batches, and in ML-1M's shape.

python bench/memory.py

Each figure comes out of a process of its own: the most memory that it held, and for memory by token less what it held
after steps over short histories. Linear means that bytes per token do not grow.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

from record import Row, record

LENGTHS, ROWS, ITEMS, WIDTH, BLOCKS, WARM = (200, 2_000, 20_000), 4, 500, 64, 2, 16
ALIKE = 1.2
#: ML-1M: users, items, width, and sizes (rows, length) of a batch; the last of each is what training has.
USERS, CATALOGUE, WIDE = 6_040, 3_416, 256
GROWING = {"rows": ((32, 200), (64, 200), (128, 200)), "length": ((128, 50), (128, 100), (128, 200))}
MODELS, LIMIT = ("xlstm", "sasrec"), 2e9 / 2**20


def step(length: int) -> None:
    """Forward, loss and backward of an xLSTM over rows of that length."""
    import torch

    from seqrec.data.batches import Batch
    from seqrec.losses.softmax import SoftmaxConfig, SoftmaxLoss
    from seqrec.models.xlstm import XLSTM, XLSTMConfig

    torch.manual_seed(0)
    config = XLSTMConfig(embedding_dim=WIDTH, num_blocks=BLOCKS, max_length=max(LENGTHS))
    model = XLSTM(config, ITEMS).train()
    items = torch.randint(1, ITEMS + 1, (ROWS, length + 1))
    inputs, targets = model.training_batch(Batch(items, torch.full((ROWS,), length + 1)))
    loss = SoftmaxLoss(SoftmaxConfig())
    loss(model.encode(inputs), targets, model.item_vectors(), inputs).backward()


def used_mib(length: int) -> float:
    """What the step over `length` events takes beyond the step over a few, in this process."""
    from seqrec.experiments.environment import process_peak_mib

    step(WARM)
    before = process_peak_mib()
    step(length)
    return process_peak_mib() - before


def train(name: str, rows: int, length: int) -> tuple[float, float]:
    """Peak MiB of this process after steps of training over short histories, and then over `rows` of `length` events.

    Steps are those of the trainer: the optimiser's moments, clipping and the average of weights are there.
    """
    import numpy as np
    import torch

    from seqrec.data.batches import BatchMaker
    from seqrec.data.sequences import Sequences
    from seqrec.experiments.environment import process_peak_mib
    from seqrec.losses.softmax import SoftmaxConfig, SoftmaxLoss
    from seqrec.models.base import SequenceModel
    from seqrec.models.build import build_model
    from seqrec.training.config import TrainingConfig
    from seqrec.training.step import Step

    torch.manual_seed(0)
    ends = np.arange(1, USERS + 1) * (length + 1)
    items = np.random.default_rng(0).integers(1, CATALOGUE + 1, ends[-1], np.int32)
    maker = BatchMaker(Sequences(items, ends - length - 1, ends, CATALOGUE), torch.device("cpu"))
    model = build_model({"name": name, "embedding_dim": WIDE, "num_blocks": BLOCKS, "max_length": length}, CATALOGUE)
    assert isinstance(model, SequenceModel)
    update = Step(model.train(), SoftmaxLoss(SoftmaxConfig()), TrainingConfig(), maker)
    peaks = []
    for events in (WARM, length):
        for number in range(2):
            users = np.arange(number * rows, (number + 1) * rows) % USERS
            plan = np.stack([users, users * (length + 1), np.full(rows, events + 1)])
            update(torch.from_numpy(plan), events + 1, 1e-3, number)
        peaks.append(process_peak_mib())
    return peaks[0], peaks[1]


def measure(*words: str | int) -> list[float]:
    """What this file prints in a process of its own."""
    command = [sys.executable, __file__, *map(str, words)]
    return [float(word) for word in subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()]


def by_length() -> list[Row]:
    """Memory of a step of the xLSTM, over lengths."""
    used = {length: measure("--length", length)[0] for length in LENGTHS}
    per_token = {length: mib * 2**10 / (ROWS * (length - WARM)) for length, mib in used.items()}
    rows = []
    for length in LENGTHS:
        rows.append(Row(f"L {length}: memory of a training step", f"{used[length]:,.1f}", "MiB"))
        rows.append(Row(f"L {length}: per token", f"{per_token[length]:.1f}", "KiB"))
    spread = max(per_token.values()) / min(per_token.values())
    return [*rows, Row("per token, most over least", f"{spread:.2f}", "x", f"<= {ALIKE}")]


def in_shape(name: str) -> list[Row]:
    """Memory of training on ML-1M, over sizes of batches: it may grow less than the number of tokens."""
    sizes = list(dict.fromkeys(size for growing in GROWING.values() for size in growing))
    found = {size: measure("--model", name, "--rows", size[0], "--length", size[1]) for size in sizes}
    per_token = {(r, le): (peak - warm) * 2**10 / (r * (le - WARM)) for (r, le), (warm, peak) in found.items()}
    table = []
    for (rows, length), (_, peak) in sorted(found.items()):
        goal = f"< {LIMIT:,.0f} (2 GB)" if (rows, length) == GROWING["rows"][-1] else ""
        what = f"{name}, {rows} x {length}"
        table.append(Row(f"{what}: peak memory of the whole process", f"{peak:,.0f}", "MiB", goal))
        table.append(Row(f"{what}: per token", f"{per_token[rows, length]:.1f}", "KiB"))
    for what, growing in GROWING.items():
        times = per_token[growing[-1]] / per_token[growing[0]]
        table.append(Row(f"{name}: per token, four times the {what} over once", f"{times:.2f}", "x", f"<= {ALIKE}"))
    return table


def main() -> None:
    """Measure everything, record the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--length", type=int, help="measure this length alone, in this process, and print MiB")
    parser.add_argument("--model", choices=MODELS, help="training in ML-1M's shape, in this process")
    parser.add_argument("--rows", type=int, help="of a batch")
    arguments = parser.parse_args()
    if arguments.model:
        print(*train(arguments.model, arguments.rows, arguments.length))
        return
    if arguments.length:
        print(used_mib(arguments.length))
        return
    table = by_length()
    for name in MODELS:
        table += in_shape(name)
    protocol = (
        f"First rows: forward, loss and backward of {ROWS} histories of an xLSTM of width {WIDTH} with {BLOCKS} blocks "
        f"and {ITEMS} items, float32; peak of a fresh process less its peak after a step over {WARM} events. Below: "
        f"steps of the trainer in ML-1M's shape, {USERS:,} users, {CATALOGUE:,} items, width {WIDE}, {BLOCKS} blocks, "
        "default dropout, every history as long as the model reads; the whole process with Python and torch, VmHWM; "
        f"per token less the peak after steps over {WARM} events."
    )
    record("memory", table, protocol, device="cpu")
    sys.exit(any(float(row.value) > ALIKE for row in table if row.goal == f"<= {ALIKE}"))


if __name__ == "__main__":
    main()
