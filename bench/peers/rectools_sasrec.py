"""RecTools' SASRec, an epoch at a time, run in RecTools' environment by `bench/peers_cpu.py`.

python rectools_sasrec.py EXPORT SCORES SETTINGS: trains on the training part of EXPORT, a folder of `seqrec data export
--for rectools`, with SETTINGS (JSON). After each epoch it writes the score of every item for every validation case to
SCORES (npy, float32), prints a line of JSON, and waits for a line that says `on` or `stop`; the clock stands still
meanwhile.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from pytorch_lightning import Callback, Trainer, seed_everything
from rectools import Columns
from rectools.dataset import Dataset, IdMap, Interactions
from rectools.metrics import NDCG
from rectools.models import SASRecModel
from rectools.models.nn.item_net import IdEmbeddingsItemNet


def main(export: str, scores: str, given: str) -> None:
    """Prepare, say what is asked, train until told to stop."""
    settings = json.loads(given)
    seed_everything(settings.pop("seed"), verbose=False)
    log = pd.read_parquet(Path(export) / "interactions.parquet")
    part = pd.read_parquet(Path(export) / "split.parquet")["part"]
    people, items = (IdMap.from_values(log[column].to_numpy()) for column in (Columns.User, Columns.Item))
    known = Dataset(people, items, Interactions.from_raw(log[part == "train"], people, items))
    asked = log[part == "validation"]
    clock = Clock(known, asked, scores)
    model = SASRecModel(
        loss="softmax",
        item_net_block_types=(IdEmbeddingsItemNet,),
        get_trainer_func=lambda: trainer(clock),
        **settings,
    )
    clock.model = model
    model.fit(known)


def trainer(clock: Callback) -> Trainer:
    """RecTools' own trainer, without an end and with a clock."""
    quiet = {
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "logger": False,
        "enable_checkpointing": False,
    }
    return Trainer(max_epochs=10**6, devices=1, callbacks=[clock], **quiet)


class Clock(Callback):
    """Counts the time of training alone; between epochs RecTools evaluates, and we look at its scores."""

    model: SASRecModel

    def __init__(self, known: Dataset, asked: pd.DataFrame, scores: str) -> None:
        self.known, self.asked, self.scores = known, asked, scores
        self.seconds = self.processor = 0.0

    def __deepcopy__(self, memo: object) -> "Clock":
        return self  # RecTools copies its trainer before every fit

    def on_train_start(self, trainer: Trainer, _: object) -> None:
        """Everything is built; wait for the word to begin."""
        found = self.model.data_preparator
        say(
            users=self.asked[Columns.User].astype(str).tolist(),
            targets=self.asked[Columns.Item].astype(str).tolist(),
            items=[str(item) for item in found.get_known_item_ids()],
            parameters=sum(parameter.numel() for parameter in self.model.torch_model.parameters()),
        )
        self.go_on(trainer)

    def on_train_epoch_end(self, trainer: Trainer, _: object) -> None:
        """Stop the clock, evaluate, write, wait."""
        self.seconds += time.perf_counter() - self.began
        self.processor += time.process_time() - self.before
        self.model.is_fitted = True
        began = time.perf_counter()
        own = self.own()
        evaluation = time.perf_counter() - began
        np.save(self.scores, self.all_scores())
        say(
            epoch=trainer.current_epoch + 1,
            seconds=self.seconds,
            processor=self.processor,
            evaluation=evaluation,
            own=own,
            peak=peak(),
        )
        self.model.torch_model.train()
        self.go_on(trainer)

    def go_on(self, trainer: Trainer) -> None:
        trainer.should_stop = sys.stdin.readline().strip() != "on"
        self.began, self.before = time.perf_counter(), time.process_time()

    def own(self) -> float:
        """RecTools' way to the same measure: lists of ten, seen items left out."""
        users = self.asked[Columns.User].unique()
        found = self.model.recommend(users, self.known, k=10, filter_viewed=True)
        return float(NDCG(10, divide_by_achievable=True).calc(found, self.asked))

    @torch.no_grad()
    def all_scores(self) -> np.ndarray:
        """(cases, items) in the order of both that was said."""
        users = self.asked[Columns.User].to_numpy()
        prepared = self.model.data_preparator
        shown = prepared.transform_dataset_u2i(self.known, users)
        loader = prepared.get_dataloader_recommend(shown, self.model.recommend_batch_size)
        people, items = self.model.lightning_model._get_user_item_embeddings(loader, "cpu")
        scores = people @ items[prepared.n_item_extra_tokens :].T
        return scores[shown.user_id_map.convert_to_internal(users)].numpy()


def say(**facts: object) -> None:
    print("FOUND", json.dumps(facts), flush=True)


def peak() -> float:
    """Most memory that this process has held, in MiB."""
    with open("/proc/self/status", encoding="utf-8") as lines:
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


main(*sys.argv[1:])
