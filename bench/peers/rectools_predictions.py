"""A RecTools model's lists as a file that `seqrec evaluate --predictions` judges; run in RecTools' environment.

python rectools_predictions.py EXPORT FILE [REGULARIZATION] [K]: fits EASE on the training part of EXPORT, a folder
that `seqrec data export DATA --for rectools` wrote, and writes the K best unseen items of everybody who is asked for
in the test as RecTools gives them: user_id, item_id, score, rank. As with us, the weights never see the validation
event, and what is recommended from does.
"""

import hashlib
import sys
from pathlib import Path

import pandas as pd
from rectools import Columns
from rectools.dataset import Dataset, IdMap, Interactions
from rectools.models import EASEModel


def main(export: str, file: str, regularization: str = "500", k: str = "100") -> None:
    """Fit, recommend, write."""
    log = pd.read_parquet(Path(export) / "interactions.parquet")
    part = pd.read_parquet(Path(export) / "split.parquet")["part"]
    people, items = (IdMap.from_values(log[column].to_numpy()) for column in (Columns.User, Columns.Item))

    def known(rows: pd.Series) -> Dataset:  # the same numbers for the same items, whatever part is asked for
        return Dataset(people, items, Interactions.from_raw(log[rows], people, items))

    model = EASEModel(regularization=float(regularization)).fit(known(part == "train"))
    test = log[part == "test"]
    lines = sorted(f"{user}\t{item}\n" for user, item in zip(test[Columns.User], test[Columns.Item], strict=True))
    print("target hash", hashlib.sha256("".join(lines).encode()).hexdigest())
    asked = test[Columns.User].unique()
    found = model.recommend(asked, known(part != "test"), k=int(k), filter_viewed=True)
    found.to_parquet(file, index=False)
    print(f"{len(found):,} rows for {found[Columns.User].nunique():,} people")


main(*sys.argv[1:])
