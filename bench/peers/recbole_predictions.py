"""A RecBole model's scores as a file that `seqrec evaluate --predictions` judges; run in RecBole's environment.

python recbole_predictions.py EXPORT FILE [MODEL] [EPOCHS] [WIDTH] [K]: trains on EXPORT, a folder that
`seqrec data export DATA --for recbole` wrote, keeps the epoch that validates best, and writes the K best items of
every test case as columns user, item, score. RecBole ranks seen items for sequential models, so K is large: enough
is left when they are left out.
"""

import hashlib
import sys
from pathlib import Path

import pandas as pd
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, get_trainer, init_seed


def main(export: str, file: str, model: str = "SASRec", epochs: str = "30", width: str = "64", k: str = "800") -> None:
    """Train, rank every item for every test case, write the best."""
    folder = Path(export).resolve()
    settings = {
        "data_path": str(folder.parent),
        "train_neg_sample_args": None,
        "epochs": int(epochs),
        "hidden_size": int(width),
        "train_batch_size": 1024,
        "eval_batch_size": 256,
        "stopping_step": 5,
        "valid_metric": "NDCG@10",
        "topk": [10],
        "metrics": ["Recall", "NDCG"],
        "checkpoint_dir": str(Path(file).resolve().parent),
        "show_progress": False,
        "use_gpu": False,
    }
    sys.argv = sys.argv[:1]  # RecBole reads the command line too
    config = Config(model, folder.name, config_file_list=[str(folder / "recbole.yaml")], config_dict=settings)
    init_seed(config["seed"], config["reproducibility"])
    dataset = create_dataset(config)
    train, valid, test = data_preparation(config, dataset)
    cases = test.dataset.inter_feat
    tokens = [dataset.id2token(field, cases[field].numpy()) for field in (dataset.uid_field, dataset.iid_field)]
    lines = sorted(f"{user}\t{item}\n" for user, item in zip(*tokens, strict=True))
    print("target hash", hashlib.sha256("".join(lines).encode()).hexdigest())
    network = get_model(model)(config, train.dataset)
    trainer = get_trainer(config["MODEL_TYPE"], model)(config, network)
    _, best = trainer.fit(train, valid, saved=True, verbose=False)
    kept = torch.load(trainer.saved_model_file, weights_only=False)  # RecBole's own file, with its configuration in it
    network.load_state_dict(kept["state_dict"])
    frame = best_items(network.eval(), dataset, test, int(k))
    frame.to_parquet(file, index=False)
    print(f"validation {dict(best)}, {len(frame):,} rows for {frame['user'].nunique():,} people")


@torch.no_grad()
def best_items(network: torch.nn.Module, dataset: object, test: object, k: int) -> pd.DataFrame:
    """One row per test case and item, best first, in the ids of the source."""
    parts = []
    for interaction, *_ in test:
        scores = network.full_sort_predict(interaction).view(len(interaction), -1)
        scores[:, 0] = -torch.inf  # RecBole's padding
        best = scores.topk(min(k, scores.shape[1] - 1), dim=1)
        users = interaction[dataset.uid_field].repeat_interleave(best.values.shape[1])
        columns = {
            "user": dataset.id2token(dataset.uid_field, users.numpy()),
            "item": dataset.id2token(dataset.iid_field, best.indices.flatten().numpy()),
            "score": best.values.flatten().numpy(),
        }
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts)


main(*sys.argv[1:])
