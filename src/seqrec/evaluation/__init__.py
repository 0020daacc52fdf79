"""Measures by name. One of your own: one function in one file and one line here.

ACCURACY: function(ranks (M,) int64, k) -> (M,) float64, one value per case.
CATALOGUE: function(lists (M, k) int64, counts (N,) int64) -> float, over all lists together.
"""

ACCURACY: dict[str, str] = {
    "recall": "seqrec.evaluation.accuracy:recall",
    "hit_rate": "seqrec.evaluation.accuracy:recall",
    "precision": "seqrec.evaluation.accuracy:precision",
    "mrr": "seqrec.evaluation.accuracy:mrr",
    "ndcg": "seqrec.evaluation.accuracy:ndcg",
    "map": "seqrec.evaluation.accuracy:mrr",
}

CATALOGUE: dict[str, str] = {
    "coverage": "seqrec.evaluation.catalogue:coverage",
    "gini": "seqrec.evaluation.catalogue:gini",
    "mean_popularity": "seqrec.evaluation.catalogue:mean_popularity",
}
