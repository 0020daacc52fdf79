"""How sequential a log is: what a Markov chain loses when the histories it is shown are shuffled.

A log whose order is the order of pages in a shop's database, or of a form that people filled in at once, looks like
any other until somebody asks. The chain learns from the true order; at test time it is shown each history once as it
is and several times in random order. What it loses is what the order of a history tells about the next item.

Shapes: M cases, U users, N events of the cases' histories.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from seqrec.data.prepared import PreparedData
from seqrec.data.sequences import Cases, Ints, Sequences
from seqrec.evaluation.evaluator import EvaluationConfig, Evaluator
from seqrec.models.base import Scorer
from seqrec.models.build import build_model

#: Each seed is one random order of every history.
SEEDS = (0, 1, 2, 3, 4)
#: Cases asked at most; fewer in large logs, and so few that cases times items stays below WORK, but MIN_CASES.
MOST_CASES, MOST_CASES_OF_LARGE, MIN_CASES = 20_000, 5_000, 1_000
LARGE = 1_000_000
WORK = 60_000_000
#: Events the two models learn from at most; beyond, users are drawn.
MOST_TRAINING = 20_000_000
METRICS = ("ndcg@10", "recall@10")
#: Relative losses from which the order is called important, and decisive.
IMPORTANT, DECISIVE = 0.05, 0.3


@dataclass(frozen=True)
class Row:
    """Accuracy of one model on histories in one order; with several orders the mean and their standard deviation."""

    model: str
    histories: str
    ndcg: float
    recall: float
    ndcg_spread: float | None = None
    recall_spread: float | None = None


@dataclass(frozen=True)
class OrderEffect:
    """What the order of histories is worth to a Markov chain.

    Attributes:
        rows: Markov on the true order, Markov on shuffled histories, Popularity.
        loss: share of NDCG@10 lost by shuffling; None where the true order hits nothing.
        difference: NDCG@10 on the true order minus that on shuffled histories, mean over cases.
        error: its standard error over cases, each case paired with itself.
        verdict: one sentence.
        protocol: how it was measured, in words.
        cases, all_cases: how many were asked, and how many there are.
    """

    rows: tuple[Row, ...]
    loss: float | None
    difference: float
    error: float
    verdict: str
    protocol: str
    cases: int
    all_cases: int


def order_effect(data: PreparedData) -> OrderEffect:
    """Measure it on the validation part; the test part is not looked at.

    Raises:
        ScoreError: a score is not finite.
    """
    asked = sampled_cases(data)
    train, told = _training(data.train)
    filter_seen = data.facts.get("revisits") is not True
    config = EvaluationConfig(ks=(10,), filter_seen=filter_seen)
    markov, popularity = (build_model({"name": name}, train.num_items).fit(train) for name in ("markov", "popularity"))

    def measured(scorer: Scorer, seed: int | None = None) -> dict[str, npt.NDArray[np.float64]]:
        histories = asked if seed is None else shuffled(asked, seed)
        found = Evaluator(histories, config).evaluate(scorer, "validation")
        return {metric: found.per_case(metric) for metric in METRICS}

    true, popular = measured(markov), measured(popularity)
    random = [measured(markov, seed) for seed in SEEDS]
    paired_M = true["ndcg@10"] - np.mean([one["ndcg@10"] for one in random], axis=0)
    difference, error = float(paired_M.mean()), float(paired_M.std() / max(len(paired_M) - 1, 1) ** 0.5)
    ndcg = float(true["ndcg@10"].mean())
    loss = difference / ndcg if ndcg else None
    return OrderEffect(
        rows=(
            Row("Markov", "true order", ndcg, float(true["recall@10"].mean())),
            Row("Markov", f"shuffled, {len(SEEDS)} times", *_mean_and_spread(random)),
            Row("Popularity", "any order", *(float(popular[metric].mean()) for metric in METRICS)),
        ),
        loss=loss,
        difference=difference,
        error=error,
        verdict=_verdict(loss, difference, error),
        protocol=_protocol(asked, data, told, filter_seen),
        cases=len(asked.split.validation),
        all_cases=len(data.split.validation),
    )


def sampled_cases(data: PreparedData) -> PreparedData:
    """The validation cases that are asked, with nothing but their histories and targets: small, in memory."""
    cases, sequences = data.split.validation, data.sequences
    most = MOST_CASES if sequences.num_events <= LARGE else MOST_CASES_OF_LARGE
    most = min(most, max(WORK // sequences.num_items, MIN_CASES))
    if len(cases) > most:
        chosen = np.random.default_rng(0).choice(len(cases), most, replace=False)
        cases = cases.take(np.sort(chosen))
    starts = sequences.starts[cases.users]
    lengths = cases.ends - starts + 1
    ends = np.cumsum(lengths)
    index = np.arange(ends[-1]) - np.repeat(ends - lengths - starts, lengths)
    index[ends - 1] = cases.positions  # what is asked may stand later than right behind the history
    own = Sequences(np.asarray(sequences.items[index]), ends - lengths, ends, sequences.num_items)
    nothing = np.zeros(0, dtype=np.int64)
    split = replace(
        data.split, train_ends=ends - 1, validation=Cases(np.arange(len(cases)), ends - 1), test=Cases(nothing, nothing)
    )
    return replace(data, sequences=own, split=split)


def shuffled(asked: PreparedData, seed: int) -> PreparedData:
    """The same cases; what comes before each target in random order, the target where it was."""
    own = asked.sequences
    user_N = np.repeat(np.arange(len(own)), own.lengths)
    place_N = np.random.default_rng(seed).random(len(own.items))
    place_N[own.ends - 1] = 2.0  # behind everything that is drawn from 0 to 1
    return replace(asked, sequences=replace(own, items=own.items[np.lexsort((place_N, user_N))]))


def _training(train: Sequences) -> tuple[Sequences, str]:
    """What the models learn from, and that in words."""
    events = train.num_events
    if events <= MOST_TRAINING:
        return train, f"all {events:,} training events"
    order = np.random.default_rng(0).permutation(len(train))
    users: Ints = np.sort(order[np.cumsum(train.lengths[order]) <= MOST_TRAINING])
    part = replace(train, starts=train.starts[users], ends=train.ends[users])
    return part, f"the {part.num_events:,} training events of {len(users):,} users drawn from {len(train):,}"


def _mean_and_spread(random: list[dict[str, npt.NDArray[np.float64]]]) -> tuple[float, float, float, float]:
    ndcg, recall = ([float(one[metric].mean()) for one in random] for metric in METRICS)
    return float(np.mean(ndcg)), float(np.mean(recall)), float(np.std(ndcg, ddof=1)), float(np.std(recall, ddof=1))


def _verdict(loss: float | None, difference: float, error: float) -> str:
    if loss is None:
        return "A Markov chain finds no target even in the true order: this log gives no answer."
    if abs(difference) <= 2 * error:
        return "Shuffling changes nothing that can be told from chance: the order of a history says little here."
    if difference < 0:
        return f"Shuffled histories do better by {-loss:.0%}: the last items mislead. Is the time column the right one?"
    if loss < IMPORTANT:
        return f"Shuffling costs {loss:.1%}: the order of a history matters, a little."
    if loss < DECISIVE:
        return f"Shuffling costs {loss:.0%}: the order of a history matters."
    return f"Shuffling costs {loss:.0%}: this log is strongly sequential."


def _protocol(asked: PreparedData, data: PreparedData, told: str, filter_seen: bool) -> str:
    cases, of = len(asked.split.validation), len(data.split.validation)
    which = f"All {cases:,}" if cases == of else f"{cases:,} of {of:,}"
    seen = "left out" if filter_seen else "not left out"
    return (
        f"Split: {data.split.words}. A Markov chain over the last five items and a popularity model learn from {told}, "
        f"in their true order. {which} validation cases are asked, every item of the catalogue ranked, items of the "
        f"history {seen}, ties counting against the model: once with the history as it was, and {len(SEEDS)} times "
        f"with its items in random order (seeds {SEEDS[0]} to {SEEDS[-1]}), the target unchanged. The spread is the "
        "standard deviation over the random orders. A loss means that it matters which items came last, and in which "
        "order; the two are not told apart."
    )
