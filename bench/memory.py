"""Peak memory of one training step of the xLSTM against the length of its histories, on a CPU.

python bench/memory.py

Forward, loss and backward of the same number of rows, each length in a process of its own: the most memory the process
held, less what it held after a step over short histories. Linear in length means the same bytes per token.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

from record import Row, record

LENGTHS, ROWS, ITEMS, WIDTH, BLOCKS, WARM = (200, 2_000, 20_000), 4, 500, 64, 2, 16
ALIKE = 1.2


def step(length: int) -> None:
    """One training step over rows of that length."""
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


def measure(length: int) -> float:
    """`used_mib` in a process of its own."""
    command = [sys.executable, __file__, "--length", str(length)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--length", type=int, help="measure this length alone, in this process, and print MiB")
    arguments = parser.parse_args()
    if arguments.length:
        print(used_mib(arguments.length))
        return
    used = {length: measure(length) for length in LENGTHS}
    per_token = {length: mib * 2**10 / (ROWS * (length - WARM)) for length, mib in used.items()}
    rows = []
    for length in LENGTHS:
        rows.append(Row(f"L {length}: memory of a training step", f"{used[length]:,.1f}", "MiB"))
        rows.append(Row(f"L {length}: per token", f"{per_token[length]:.1f}", "KiB"))
    spread = max(per_token.values()) / min(per_token.values())
    rows.append(Row("per token, most over least", f"{spread:.2f}", "x", f"<= {ALIKE}"))
    protocol = (
        f"Forward, loss and backward of {ROWS} rows of an xLSTM of width {WIDTH} with {BLOCKS} blocks and {ITEMS} "
        f"items, float32; peak of a fresh process less its peak after a step over {WARM} events."
    )
    record("memory", rows, protocol, device="cpu")
    sys.exit(spread > ALIKE)


if __name__ == "__main__":
    main()
