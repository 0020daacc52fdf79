"""RecTools' own preparation of a CSV, run in RecTools' environment by `bench/preparation.py`.

python rectools_prepare.py TABLE USER ITEM TIME: 5-core (in pandas: RecTools has none), leave-one-out, and SASRec's
data with length 200.
"""

import sys

import pandas as pd
from rectools import Columns
from rectools.dataset import Dataset
from rectools.model_selection import LastNSplitter
from rectools.models.nn.transformers.sasrec import SASRecDataPreparator


def main(table: str, user: str, item: str, time: str) -> None:
    """Prepare as RecTools does, up to its data loader for training, and print how many test cases there are."""
    names = {user: Columns.User, item: Columns.Item, time: Columns.Datetime}
    log = pd.read_csv(table, usecols=list(names)).rename(columns=names)
    log[Columns.Datetime] = pd.to_datetime(log[Columns.Datetime], unit="s")
    log[Columns.Weight] = 1.0
    while True:
        counts = [log.groupby(column)[column].transform("size") for column in (Columns.User, Columns.Item)]
        kept = (counts[0] >= 5) & (counts[1] >= 5)
        if kept.all():
            break
        log = log[kept]
    dataset = Dataset.construct(log.reset_index(drop=True))
    splitter = LastNSplitter(1, n_splits=2, filter_cold_users=False, filter_cold_items=False, filter_already_seen=False)
    (train, _, _), (_, test, _) = splitter.split(dataset.interactions)
    preparator = SASRecDataPreparator(session_max_len=200, batch_size=128, dataloader_num_workers=0)
    preparator.process_dataset_train(dataset.filter_interactions(train))
    preparator.get_dataloader_train()
    print(f"FOUND {len(test)}")


main(*sys.argv[1:])
