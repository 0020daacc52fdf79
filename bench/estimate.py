"""What `seqrec estimate` says beforehand against what the run takes, on a CPU.

python bench/estimate.py
python bench/estimate.py --data ml-100k=PREPARED_FOLDER --only ml-100k
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from record import Row, record


@dataclass(frozen=True)
class Case:
    """One run: with its preset, and fewer epochs where all of them would take long."""

    data: str
    model: str
    preset: str | None = None
    epochs: int | None = None

    @property
    def name(self) -> str:
        """As it is written in the table."""
        preset = f".{self.preset}" if self.preset else ""
        return f"{self.data}/{self.model}{preset}" + (f", {self.epochs} epochs" if self.epochs else "")

    @property
    def settings(self) -> dict[str, Any]:
        """Beyond the preset."""
        return {"training.epochs": self.epochs} if self.epochs else {}


CASES = (
    Case("ml-100k", "xlstm", "quick"),
    Case("ml-100k", "sasrec", None, 10),
    Case("ml-latest-small", "xlstm", None, 4),
    Case("ml-100k", "ease"),
)
GOAL = "0.67 to 1.5"


def run(case: Case, source: str) -> None:
    """The run itself, in a process of its own."""
    import seqrec
    from seqrec.experiments.environment import process_peak_mib

    with tempfile.TemporaryDirectory() as folder:
        made = seqrec.train(
            source, case.model, preset=case.preset, settings=case.settings, out=Path(folder) / "run", device="cpu"
        )
        epochs = made.folder.epochs()
        found = {
            "epochs": len(epochs),
            "epoch": sum(epoch["speed"]["seconds"] for epoch in epochs) / max(len(epochs), 1),
            "memory": process_peak_mib(),
            "disk": sum(file.stat().st_size for file in made.path.rglob("*") if file.is_file()) / 2**20,
        }
    print("FOUND " + json.dumps(found))


def compare(number: int, source: str) -> list[Row]:
    """Estimate, run, and set them side by side."""
    from seqrec.experiments.estimate import estimate

    case = CASES[number]
    said = estimate(source, case.model, preset=case.preset, settings=case.settings, device="cpu")
    began = time.monotonic()
    command = [sys.executable, __file__, "--run", str(number), "--data", f"{case.data}={source}"]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    seconds = time.monotonic() - began
    found = json.loads(output.partition("FOUND ")[2])
    trained = found["epochs"] or None
    pairs = {
        "whole run": (said.seconds(trained), seconds, "s"),
        "peak memory of the process": (said.rehearsed.memory_mib, found["memory"], "MiB"),
        "folder of the run": (said.run_bytes(trained) / 2**20, found["disk"], "MiB"),
    }
    if trained:
        pairs = {"one epoch of training": (said.rehearsed.epoch_seconds, found["epoch"], "s"), **pairs}
    rows = [
        Row(f"{case.name}: {what}", f"{guess:.3g} for {real:.3g}, ratio {guess / real:.2f}", unit, GOAL)
        for what, (guess, real, unit) in pairs.items()
    ]
    return [*rows, Row(f"{case.name}: the estimate itself took", f"{said.took:.0f}", "s", "< 20")]


def main() -> None:
    """Every case, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", action="append", default=[], metavar="NAME=FOLDER", help="prepared already")
    parser.add_argument("--only", help="cases whose name begins so")
    parser.add_argument("--run", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    before = os.getloadavg()[0]
    folders = dict(given.split("=", 1) for given in asked.data)
    if asked.run is not None:
        run(CASES[asked.run], folders[CASES[asked.run].data])
        return
    table = [
        row
        for number, case in enumerate(CASES)
        if case.name.startswith(asked.only or "")
        for row in compare(number, folders.get(case.data, case.data))
    ]
    load = f"{before:.1f} before, {os.getloadavg()[0]:.1f} after"
    table.append(Row("load of the machine over a minute, this included", load, "processes"))
    protocol = (
        "Estimated before the run, then measured; whole processes, with imports, final scoring and all files. "
        "The whole run is that of the epochs which were trained: early stopping is not foreseen."
    )
    sys.argv[1:] = ["--only", asked.only] if asked.only else []
    record("estimate", table, protocol, device="cpu")


if __name__ == "__main__":
    main()
