"""RecBole's SASRec, an epoch at a time, run in RecBole's environment by `bench/peers_cpu.py`.

python recbole_sasrec.py EXPORT SCORES SETTINGS: trains on EXPORT, a folder of `seqrec data export --for recbole`, with
SETTINGS (JSON). After each epoch it writes the score of every item for every validation case to SCORES (npy, float32),
prints a line of JSON, and waits for a line that says `on` or `stop`; the clock stands still meanwhile.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, get_trainer, init_seed

FIXED = {
    "loss_type": "CE",
    "train_neg_sample_args": None,
    "eval_batch_size": 256,
    "valid_metric": "NDCG@10",
    "topk": [10],
    "metrics": ["Recall", "NDCG"],
    "show_progress": False,
    "use_gpu": False,
    "state": "ERROR",
}


def main(export: str, scores: str, given: str) -> None:
    """Prepare, say what is asked, train until told to stop."""
    folder, settings = Path(export).resolve(), json.loads(given)
    scores = str(Path(scores).resolve())
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)  # RecBole writes its logs where it stands
        places = {"data_path": str(folder.parent), "checkpoint_dir": place}
        sys.argv = sys.argv[:1]  # RecBole reads the command line too
        files = [str(folder / "recbole.yaml")]
        config = Config("SASRec", folder.name, files, {**FIXED, **places, "epochs": 10**6, **settings})
        init_seed(config["seed"], config["reproducibility"])
        dataset = create_dataset(config)
        train, valid, _ = data_preparation(config, dataset)
        network = get_model("SASRec")(config, train.dataset)
        trainer = get_trainer(config["MODEL_TYPE"], "SASRec")(config, network)
        cases = valid.dataset.inter_feat
        users, targets = (dataset.id2token(f, cases[f].numpy()) for f in (dataset.uid_field, dataset.iid_field))
        items = dataset.id2token(dataset.iid_field, np.arange(1, dataset.item_num))  # 0 is its padding
        say(users=users.tolist(), targets=targets.tolist(), items=items.tolist(), parameters=parameters(network))
        epochs(trainer, train, valid, network, scores)


def epochs(trainer, train, valid, network, scores: str) -> None:
    """RecBole's own loop with the parts that its `fit` has, and a clock."""
    trainer.eval_collector.data_collect(train)
    epoch, seconds, processor = 0, 0.0, 0.0
    while heard():
        began, before = time.perf_counter(), time.process_time()
        trainer._train_epoch(train, epoch)
        seconds, processor, epoch = clocked(began, seconds), processor + time.process_time() - before, epoch + 1
        began = time.perf_counter()
        _, own = trainer._valid_epoch(valid)
        evaluation = time.perf_counter() - began
        np.save(scores, all_scores(network, valid))
        say(epoch=epoch, seconds=seconds, processor=processor, evaluation=evaluation, own=own["ndcg@10"], peak=peak())


def clocked(began: float, before: float) -> float:
    """Seconds of training so far."""
    return before + time.perf_counter() - began


@torch.no_grad()
def all_scores(network: torch.nn.Module, valid) -> np.ndarray:
    """(cases, items) in the order of both that was said."""
    network.eval()
    return np.concatenate([network.full_sort_predict(found).numpy()[:, 1:] for found, *_ in valid])


def parameters(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def heard() -> bool:
    return sys.stdin.readline().strip() == "on"


def say(**facts: object) -> None:
    print("FOUND", json.dumps(facts), flush=True)


def peak() -> float:
    """Most memory that this process has held, in MiB."""
    with open("/proc/self/status", encoding="utf-8") as lines:
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


main(*sys.argv[1:])
