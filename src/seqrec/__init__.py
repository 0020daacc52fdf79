"""Sequential recommendation: from a log of who-did-what-when to a recommender that can be trusted.

import seqrec

run = seqrec.train("ml-100k", model="xlstm")
run.metrics["ndcg@10"]
run.recommender().recommend(["Toy Story", "Heat"])
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from seqrec.version import VERSION as __version__

if TYPE_CHECKING:
    from seqrec.data.load import load_data
    from seqrec.data.sources import SOURCES
    from seqrec.evaluation import ACCURACY, CATALOGUE
    from seqrec.experiments.ablate.run import ablate
    from seqrec.experiments.combine import combine
    from seqrec.experiments.compare.run import compare
    from seqrec.experiments.door import evaluate, train
    from seqrec.experiments.run import Run
    from seqrec.experiments.tune.run import tune
    from seqrec.losses import LOSSES
    from seqrec.models import MODELS
    from seqrec.models.base import Scorer, SequenceModel
    from seqrec.recommendation.recommender import Recommender

#: The public names and where they live. Imported when first used, so that `import seqrec` stays fast.
_PUBLIC = {
    "load_data": "seqrec.data.load",
    "train": "seqrec.experiments.door",
    "evaluate": "seqrec.experiments.door",
    "tune": "seqrec.experiments.tune.run",
    "ablate": "seqrec.experiments.ablate.run",
    "compare": "seqrec.experiments.compare.run",
    "combine": "seqrec.experiments.combine",
    "Run": "seqrec.experiments.run",
    "Recommender": "seqrec.recommendation.recommender",
    "SequenceModel": "seqrec.models.base",
    "Scorer": "seqrec.models.base",
    "SOURCES": "seqrec.data.sources",
    "MODELS": "seqrec.models",
    "LOSSES": "seqrec.losses",
    "ACCURACY": "seqrec.evaluation",
    "CATALOGUE": "seqrec.evaluation",
}

__all__ = [
    "ACCURACY",
    "CATALOGUE",
    "LOSSES",
    "MODELS",
    "SOURCES",
    "Recommender",
    "Run",
    "Scorer",
    "SequenceModel",
    "__version__",
    "ablate",
    "combine",
    "compare",
    "evaluate",
    "load_data",
    "train",
    "tune",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'seqrec' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return __all__
