"""What an evaluation found: ranks and lists per case, and everything that is counted from them.

Shapes: M cases, k places per list, N items.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from seqrec.data.sequences import Ints
from seqrec.evaluation import ACCURACY, CATALOGUE
from seqrec.evaluation.catalogue import BUCKETS, popularity_bucket
from seqrec.files import atomic_file
from seqrec.registry import resolve

#: Lower ends of the history lengths that accuracy is broken down by.
LENGTHS = (1, 10, 20, 50, 100, 200)
#: The cut-off of the breakdowns.
BREAKDOWN_AT = 10


def case_values(ranks: Ints, metric: str, num_items: int) -> npt.NDArray[np.float64]:
    """(M,) values of an accuracy measure such as `ndcg@10`, from ranks (M,) among `num_items`."""
    name, _, k = metric.partition("@")
    values = resolve("metric", name, ACCURACY)(ranks, int(k))
    # A target that was left out itself stands at N + 1: a miss, though k may go beyond the catalogue.
    return np.where(ranks > num_items, 0.0, values)


@dataclass(frozen=True)
class Evaluation:
    """Results of one scorer on one part of the data.

    Attributes:
        users, targets, ranks, history_lengths: (M,) int64, in the order of the cases.
        lists: (M, k) int64 items shown, best first; 0 where nothing was left to show.
        counts: (N,) int64 training counts.
        ks: cut-offs.
        protocol: one line that says how this was measured.
    """

    users: Ints
    targets: Ints
    ranks: Ints
    history_lengths: Ints
    lists: Ints
    counts: Ints
    ks: tuple[int, ...]
    protocol: str

    def per_case(self, metric: str) -> npt.NDArray[np.float64]:
        """(M,) float64 values of an accuracy measure such as `ndcg@10`."""
        return case_values(self.ranks, metric, len(self.counts))

    @cached_property
    def metrics(self) -> dict[str, float]:
        """Every registered measure at every cut-off, as `name@k`."""
        accuracy = {f"{name}@{k}": float(self.per_case(f"{name}@{k}").mean()) for name in ACCURACY for k in self.ks}
        catalogue = {
            f"{name}@{k}": resolve("metric", name, CATALOGUE)(self.lists[:, :k], self.counts)
            for name in CATALOGUE
            for k in self.ks
        }
        return accuracy | catalogue

    def by_popularity(self) -> dict[str, dict[str, float]]:
        """Head, mid and tail: share of the catalogue, of training events, of targets, of the lists, and accuracy."""
        bucket_N = popularity_bucket(self.counts)
        target_M = bucket_N[self.targets - 1]
        shown = self.lists[:, :BREAKDOWN_AT]
        shown_bucket = bucket_N[shown[shown > 0] - 1]
        return {
            name: {
                "items": float(np.mean(bucket_N == number)),
                "events": float(self.counts[bucket_N == number].sum() / max(self.counts.sum(), 1)),
                "shown": float(np.mean(shown_bucket == number)) if len(shown_bucket) else 0.0,
            }
            | self._accuracy(target_M == number)
            for number, name in enumerate(BUCKETS)
        }

    def by_length(self) -> dict[str, dict[str, float]]:
        """Accuracy by how many events the history has, for the lengths that occur."""
        bucket_M = np.digitize(self.history_lengths, LENGTHS) - 1
        names = [f"{low}-{high - 1}" for low, high in pairwise(LENGTHS)] + [f"{LENGTHS[-1]}+"]
        return {name: self._accuracy(bucket_M == number) for number, name in enumerate(names) if number in bucket_M}

    def summary(self) -> dict[str, Any]:
        """All of the above, for JSON."""
        return {
            "protocol": self.protocol,
            "cases": len(self.ranks),
            "metrics": self.metrics,
            "by_popularity": self.by_popularity(),
            "by_length": self.by_length(),
        }

    def write_per_user(self, path: Path, user_ids: list[str], item_ids: list[str]) -> None:
        """One Parquet row per case: user, target, rank, history length and the list shown, in ids of the source."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        names = np.array(["", *item_ids], dtype=object)
        columns = {
            "user": [user_ids[user] for user in self.users],
            "target": names[self.targets],
            "rank": self.ranks,
            "history_length": self.history_lengths,
            "recommended": list(names[self.lists]),
        }
        with atomic_file(path) as temporary:
            pq.write_table(pa.table(columns), temporary, compression="zstd")

    def _accuracy(self, mask: Any) -> dict[str, float]:
        """Accuracy over the cases in `mask`; none of it where there are no such cases."""
        found: dict[str, float] = {"cases": int(mask.sum()), "share": float(np.mean(mask))}
        if mask.any():
            for name in ("recall", "ndcg"):
                metric = f"{name}@{BREAKDOWN_AT}"
                found[metric] = float(self.per_case(metric)[mask].mean())
        return found
