"""RecBole's own preparation of a CSV, run in RecBole's environment by `bench/preparation.py`.

python recbole_prepare.py TABLE USER ITEM TIME: atomic file, 5-core, leave-one-out, SASRec's data with length 200.
"""

import sys
import tempfile
from pathlib import Path

from recbole.config import Config
from recbole.data import create_dataset, data_preparation


def main(table: str, *columns: str) -> None:
    """Prepare as RecBole does, up to its data loaders, and print how many test cases there are."""
    with tempfile.TemporaryDirectory() as folder:
        atomic = Path(folder) / "log" / "log.inter"
        atomic.parent.mkdir()
        with open(table, encoding="utf-8") as source, atomic.open("w", encoding="utf-8") as target:
            header = source.readline().rstrip("\n").split(",")
            places = [header.index(name) for name in columns]
            target.write("user_id:token\titem_id:token\ttimestamp:float\n")
            for line in source:
                cells = line.rstrip("\n").split(",")
                target.write("\t".join([cells[place] for place in places]) + "\n")
        settings = {
            "data_path": folder,
            "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
            "user_inter_num_interval": "[5,inf)",
            "item_inter_num_interval": "[5,inf)",
            "MAX_ITEM_LIST_LENGTH": 200,
            "train_neg_sample_args": None,
            "eval_args": {"split": {"LS": "valid_and_test"}, "group_by": "user", "order": "TO", "mode": "full"},
            "use_gpu": False,
            "state": "ERROR",
        }
        sys.argv = sys.argv[:1]  # RecBole reads the command line too
        config = Config(model="SASRec", dataset="log", config_dict=settings)
        _, _, test = data_preparation(config, create_dataset(config))
        print(f"FOUND {len(test.dataset)}")


main(*sys.argv[1:])
