"""The same model with each optimiser and each schedule, several trainings side by side on one device: validation only.

python bench/optimizers.py PREPARED_FOLDER --model xlstm --parallel 8
python bench/optimizers.py PREPARED_FOLDER --model sasrec --set model.embedding_dim=64 --only optimizers --epochs 20

A row is the best validation NDCG@10 of one training; the test part is never looked at. Each optimiser is tried with
three learning rates around the one that suits it, so that none loses by its default; schedules are tried with adamw.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from record import Row, record

#: The middle of three learning rates that are tried, and what else an optimiser needs to be itself.
OPTIMIZERS: dict[str, tuple[float, dict[str, Any]]] = {
    "adamw": (1e-3, {}),
    "adam": (1e-3, {"weight_decay": 0.0}),
    "rmsprop": (3e-4, {"weight_decay": 0.0}),
    "sgd": (0.3, {"weight_decay": 1e-5}),
    "muon": (1e-3, {}),
}
FACTORS = (1 / 3, 1.0, 3.0)
SCHEDULES: dict[str, dict[str, Any]] = {
    "constant": {},
    "step": {},
    "plateau": {},
    "linear": {},
    "cosine": {},
    "one_cycle": {},
    "wsd": {},
    "constant, no EMA": {"schedule": "constant", "ema_decay": 0.0},
    "constant, no EMA, mean of 5 best": {"schedule": "constant", "ema_decay": 0.0, "average_best": 5},
    "constant, mean of 5 best": {"schedule": "constant", "average_best": 5},
}
#: Schedules that say what happens until the last epoch are trained until then.
TO_THE_END = ("linear", "cosine", "one_cycle", "wsd")


def plan(only: str | None, epochs: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Names of rows and their settings."""
    for name, (rate, own) in OPTIMIZERS.items() if only != "schedules" else ():
        for factor in FACTORS:
            yield f"{name}, lr {rate * factor:.2g}", {"optimizer": name, "learning_rate": rate * factor, **own}
    for name, own in SCHEDULES.items() if only != "optimizers" else ():
        patience = {"patience": epochs} if name in TO_THE_END else {}
        yield f"schedule {name}", {"schedule": name, **patience, **own}


def one(job: dict[str, Any]) -> dict[str, Any]:
    """Train once, in a process of its own, and say how it went."""
    import torch

    from seqrec.data.prepared import PreparedData
    from seqrec.evaluation.evaluator import Evaluator
    from seqrec.experiments.config import RunConfig, settings_for
    from seqrec.experiments.environment import choose_device
    from seqrec.losses import LOSSES
    from seqrec.models.build import build_model
    from seqrec.registry import resolve
    from seqrec.run_folder import RunFolder
    from seqrec.training.trainer import Trainer

    data = PreparedData.load(Path(job["folder"]))
    config = RunConfig.from_dict(settings_for(data.name, job["model"], job["preset"], job["changes"]))
    device = choose_device(job["device"])
    torch.manual_seed(config.seed)
    model: Any = build_model(config.to_dict()["model"], data.sequences.num_items)
    if hasattr(model, "fit_data"):
        model.fit_data(data)
    loss = resolve("loss", config.loss_name, LOSSES)(config.loss)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model, loss, Evaluator(data, config.evaluation, device), config.training, RunFolder(folder), config.seed
        )
        began = time.perf_counter()
        try:
            end = trainer.train()
        except Exception as error:
            return {"name": job["name"], "value": 0.0, "error": str(error).splitlines()[0]}
        epochs = RunFolder(folder).epochs()
        recorder = trainer.step.recorder
        return {
            "name": job["name"],
            "value": end.best,
            "epoch": end.best_epoch,
            "epochs": end.epoch,
            "averaged": end.averaged,
            "seconds": time.perf_counter() - began,
            "step_ms": 1e3 * min(epoch["speed"]["seconds"] / len(epoch["losses"]) for epoch in epochs),
            "graphs": len(recorder._recordings) if recorder else 0,
        }


def row(found: dict[str, Any], goal: str) -> Row:
    """A line of the table."""
    if "error" in found:
        return Row(f"{found['name']}: {found['error'][:60]}", "failed", "")
    how = f"epoch {found['epoch']} of {found['epochs']}, {found['step_ms']:.1f} ms/step, {found['graphs']} graphs"
    return Row(f"{found['name']} ({how})", f"{found['value']:.4f}", "", goal)


def main() -> None:
    """Train all rows, `--parallel` at a time, and record the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="a prepared folder")
    parser.add_argument("--model", default="xlstm")
    parser.add_argument("--preset", help="a variant of the shipped settings; none for the defaults")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of all rows")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--only", choices=["optimizers", "schedules"])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--parallel", type=int, default=1, help="trainings side by side")
    parser.add_argument("--name", default="optimizers", help="of the file in bench/results")
    asked = parser.parse_args()

    from seqrec.cli.options import changes

    base = {"training.epochs": asked.epochs, **changes(asked.set)}
    same = {"folder": asked.data, "model": asked.model, "preset": asked.preset, "device": asked.device}
    jobs = [
        {**same, "name": name, "changes": base | {f"training.{key}": value for key, value in own.items()}}
        for name, own in plan(asked.only, asked.epochs)
    ]
    found: list[dict[str, Any]] = []
    with ProcessPoolExecutor(asked.parallel, mp_context=get_context("spawn")) as pool:
        for result in pool.map(one, jobs):
            found.append(result)
            print(json.dumps(result), file=sys.stderr, flush=True)
    protocol = (
        f"{asked.model} on {Path(asked.data).name}, at most {asked.epochs} epochs, one seed, {asked.parallel} at a "
        "time: best validation NDCG@10, whole catalogue ranked; the test part is not looked at. A standard error over "
        "people is about .008 on ML-100K and .004 on ML-1M."
    )
    best = max(result["value"] for result in found)
    table = [row(result, "best" if result["value"] == best else "") for result in found]
    record(asked.name, table, protocol, device=asked.device)


if __name__ == "__main__":
    main()
