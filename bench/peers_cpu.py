"""SASRec on two cores, ML-100K: the time that seqrec, RecBole and RecTools take to the same validation NDCG@10.

python bench/peers_cpu.py --recbole PYTHON --rectools PYTHON
python bench/peers_cpu.py --recbole PYTHON --rectools PYTHON --trial 20      (seconds per run: nothing is recorded)

Each toolkit runs in a process and an environment of its own (`bench/peers/<toolkit>_sasrec.py`), on the same
leave-one-out split. After each epoch its clock stands still, and our evaluator judges its scores of all items.
A peer tries batch sizes for a while, then other settings with the best of them; what is best by then trains to its end.
Then we ask when ours was as good.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from record import ROOT, Row, record
from torch import Tensor

import seqrec
from seqrec.config import Config
from seqrec.data.batches import Batch
from seqrec.data.export import export
from seqrec.data.prepared import PreparedData
from seqrec.evaluation.evaluator import EvaluationConfig, Evaluator
from seqrec.models.base import Scorer

HERE = Path(__file__).parent / "peers"
#: RecBole's own width, blocks, heads and length; the others are set to them. The feed-forward layer is four times as
#: wide in RecBole, unless told otherwise, and always as wide as the rest in RecTools.
SHAPE = (64, 2, 2, 50)
#: Ours, chosen on validation by hand; without an end, which this script sets.
OURS = {
    "model.similarity": "dot",
    "model.dropout": 0.3,
    "model.feedforward_factor": 1,
    "training.batch_size": 16,
    "training.learning_rate": 0.003,
    "training.warmup_steps": 20,
    "training.ema_decay": 0.98,
    "training.item_dropout": 0.2,
}
ENDLESS = {"training.epochs": 10**6, "training.patience": 10**6}


@dataclass(frozen=True)
class Point:
    """After an epoch: seconds and processor seconds of training so far, of its own evaluation, MiB; both NDCG@10."""

    epoch: int
    seconds: float
    processor: float
    evaluation: float
    own: float
    peak: float
    ndcg: float


@dataclass
class Curve:
    """A run: its settings and its points. `start_up` are the seconds until training could begin."""

    settings: dict[str, Any]
    start_up: float = 0.0
    parameters: int = 0
    why: str = ""
    points: list[Point] = field(default_factory=list)

    @property
    def best(self) -> Point:
        return max(self.points, key=lambda point: point.ndcg)

    def reaching(self, level: float) -> Point | None:
        """The first point at least that good."""
        return next((point for point in self.points if point.ndcg >= level), None)

    def whole(self, at: Point) -> float:
        """Seconds until a point with start-up and an evaluation of its own after each epoch."""
        return self.start_up + at.seconds + sum(p.evaluation for p in self.points if p.epoch <= at.epoch)


@dataclass(frozen=True)
class Toolkit:
    """How a toolkit is run: what its settings are called and what it tries.

    Attributes:
        shape: settings for width, blocks, heads and length. batch: that for the size of a batch, and sizes.
        others: settings that are tried with the best size, beside its own defaults.
        search, most: seconds of training of a try and of the run that counts. patience: epochs without a better
            NDCG@10 that end a run.
        seeds: of the runs that count.
    """

    name: str
    shape: tuple[str, str, str, str]
    batch: tuple[str, tuple[int, ...]]
    others: tuple[Mapping[str, Any], ...]
    search: float
    most: float
    patience: int
    seeds: tuple[int, ...]

    @property
    def common(self) -> dict[str, Any]:
        return dict(zip(self.shape, SHAPE, strict=True))


class Given(Scorer):
    """Scores that lie in a matrix (users, items)."""

    Config = Config

    def __init__(self, scores_UN: Tensor) -> None:
        self.scores_UN = scores_UN

    def scores(self, batch: Batch, items: Tensor | None = None) -> Tensor:
        assert batch.users is not None
        return self.scores_UN[batch.users]

    def state_dict(self) -> dict[str, Tensor]:
        return {"scores": self.scores_UN}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.scores_UN = state["scores"]


class Judge:
    """Our evaluator over scores of another order of people and items."""

    def __init__(self, data: PreparedData, asked: Mapping[str, Any]) -> None:
        self.evaluator = Evaluator(data, EvaluationConfig())
        cases = data.cases("validation")
        numbers = {str(name): number for number, name in enumerate(data.user_ids())}
        columns = {name: number for number, name in enumerate(data.catalogue.ids)}
        self.rows = np.array([numbers[name] for name in asked["users"]])
        self.columns = np.array([columns[name] for name in asked["items"]])
        targets = dict(zip(cases.users.tolist(), data.sequences.items[cases.positions].tolist(), strict=True))
        given = {user: columns[name] + 1 for user, name in zip(self.rows.tolist(), asked["targets"], strict=True)}
        if given != targets:
            raise SystemExit("The toolkit was asked other questions than ours.")
        self.shape = len(numbers), len(columns)

    def ndcg(self, scores: Path) -> float:
        """Of a file of scores; what a toolkit does not know stands below all that it does."""
        found = np.load(scores)
        matrix_UN = np.full(self.shape, found.min() - 1, dtype=np.float32)
        matrix_UN[np.ix_(self.rows, self.columns)] = found
        return self.evaluator.evaluate(Given(torch.from_numpy(matrix_UN)), "validation").metrics["ndcg@10"]


def run(toolkit: Toolkit, command: list[str], data: PreparedData, tried: Mapping[str, Any], limit: float) -> Curve:
    """Train until it no longer gets better, or for `limit` seconds of training."""
    settings = {**toolkit.common, **tried}
    with tempfile.TemporaryDirectory() as place, tempfile.TemporaryFile("w+") as errors:
        scores = Path(place) / "scores.npy"
        began = time.perf_counter()
        process = subprocess.Popen(
            [*command, str(scores), json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        said = heard(process.stdout)
        asked = next(said, None)
        curve = Curve(dict(settings), time.perf_counter() - began)
        if asked is not None:
            curve.parameters, judge = asked["parameters"], Judge(data, asked)
            tell(process.stdin, "on")
            for facts in said:
                curve.points.append(Point(**facts, ndcg=judge.ndcg(scores)))
                curve.why = ended(toolkit, curve, limit)
                tell(process.stdin, "stop" if curve.why else "on")
                if curve.why:
                    break
        process.stdin.close()
        process.wait()
        if not curve.why:  # a process that died is no run that ended
            errors.seek(0)
            raise SystemExit(f"{toolkit.name} {dict(tried)} died:\n{errors.read()[-2000:]}")
    best, last = curve.best, curve.points[-1]
    print(
        f"{toolkit.name} {dict(tried)}: NDCG@10 {best.ndcg:.4f} after {best.seconds:.1f} s, epoch {best.epoch}; "
        f"{last.seconds / last.epoch:.2f} s and {last.processor / last.epoch:.2f} s of processor an epoch; {curve.why}",
        file=sys.stderr,
        flush=True,
    )
    return curve


def heard(lines: IO[str]) -> Iterator[dict[str, Any]]:
    """What a toolkit says; the rest of what it prints is dropped."""
    for line in lines:
        if line.startswith("FOUND "):
            yield json.loads(line.removeprefix("FOUND "))


def tell(file: IO[str], word: str) -> None:
    file.write(f"{word}\n")
    file.flush()


def ended(toolkit: Toolkit, curve: Curve, limit: float) -> str:
    """Why a run is over, or nothing."""
    after = sum(point.epoch > curve.best.epoch for point in curve.points)
    if after >= toolkit.patience:
        return f"no better for {after} epochs"
    return f"ended after {limit:.0f} s" if curve.points[-1].seconds >= limit else ""


#: RecBole's rows are prefixes of histories, RecTools' and ours are people: an epoch of RecBole has a hundred times the
#: tokens. Learning rate .001 and dropout (.5 and .2) are their own defaults.
RECBOLE = Toolkit(
    name="RecBole",
    shape=("hidden_size", "n_layers", "n_heads", "MAX_ITEM_LIST_LENGTH"),
    batch=("train_batch_size", (128, 256, 512, 2048)),
    others=(
        {"learning_rate": 0.003},
        {"hidden_dropout_prob": 0.2, "attn_dropout_prob": 0.2},
        {"inner_size": SHAPE[0]},
    ),
    search=100,
    most=1500,
    patience=5,
    seeds=(1,),
)
RECTOOLS = Toolkit(
    name="RecTools",
    shape=("n_factors", "n_blocks", "n_heads", "session_max_len"),
    batch=("batch_size", (16, 32, 64, 128)),
    others=({"lr": 0.003}, {"dropout_rate": 0.5}),
    search=60,
    most=900,
    patience=30,
    seeds=(1, 2),
)
SEQREC = Toolkit(
    name="seqrec",
    shape=("model.embedding_dim", "model.num_blocks", "model.num_heads", "model.max_length"),
    batch=("training.batch_size", ()),
    others=(),
    search=0,
    most=600,
    patience=40,
    seeds=(1, 2, 3),
)


def peer_curves(peer: Toolkit, python: str, data: PreparedData, trial: float | None) -> tuple[list[Curve], list[Curve]]:
    """The runs that count, and what was tried before."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / f"{data.name}-{peer.name.lower()}"
        export(data, peer.name.lower(), folder, max_length=SHAPE[-1])
        command = [python, "-W", "ignore", str(HERE / f"{peer.name.lower()}_sasrec.py"), str(folder)]
        name, sizes = peer.batch
        if trial:
            return [run(peer, command, data, {name: sizes[1], "seed": 1}, trial)], []
        tried = [run(peer, command, data, {name: size, "seed": 1}, peer.search) for size in sizes]
        best = {name: best_of(tried).settings[name]}
        tried += [run(peer, command, data, {**best, **other, "seed": 1}, peer.search) for other in peer.others]
        best = best_of(tried).settings
        return [run(peer, command, data, {**best, "seed": seed}, peer.most) for seed in peer.seeds], tried


def best_of(curves: list[Curve]) -> Curve:
    return max(curves, key=lambda curve: curve.best.ndcg)


def our_curves(data: PreparedData, trial: float | None) -> list[Curve]:
    """Our runs."""
    command = [sys.executable, str(HERE / "seqrec_sasrec.py"), str(data.folder)]
    seeds = SEQREC.seeds[:1] if trial else SEQREC.seeds
    return [run(SEQREC, command, data, {**OURS, **ENDLESS, "seed": seed}, trial or SEQREC.most) for seed in seeds]


def facts(name: str, curves: list[Curve]) -> list[Row]:
    """What a toolkit takes, whatever it reaches."""
    points = [point for curve in curves for point in curve.points]
    last = [curve.points[-1] for curve in curves]
    epochs = sum(point.epoch for point in last)
    middle = statistics.median(point.evaluation for point in points)
    return [
        Row(f"{name}: start-up", f"{statistics.median(curve.start_up for curve in curves):.1f}", "s"),
        Row(f"{name}: an epoch", f"{sum(point.seconds for point in last) / epochs:.2f}", "s"),
        Row(f"{name}: an epoch, processor time", f"{sum(point.processor for point in last) / epochs:.2f}", "s"),
        Row(f"{name}: an evaluation of validation by itself", f"{middle:.2f}", "s"),
        Row(f"{name}: peak memory of the process", f"{max(point.peak for point in last):,.0f}", "MiB"),
        Row(f"{name}: weights", f"{curves[0].parameters:,}", ""),
    ]


def against(peer: Toolkit, theirs: list[Curve], ours: list[Curve], goal: float) -> list[Row]:
    """When each run of the peer was at its best, and at 95% of that, and when ours was: the least of the ratios."""
    rows = [
        Row(f"{peer.name}: settings that it got farthest with", words(peer, theirs[0].settings), ""),
        Row(f"{peer.name}: its best validation NDCG@10", ", ".join(f"{curve.best.ndcg:.4f}" for curve in theirs), ""),
        Row(f"{peer.name}: epoch of it, and why training ended", f"{theirs[0].best.epoch}, {theirs[0].why}", ""),
    ]
    for share in (1.0, 0.95):
        what = "its best" if share == 1 else f"{share:.0%} of its best"
        levels = [share * curve.best.ndcg for curve in theirs]
        at = [when(curve, level) for curve, level in zip(theirs, levels, strict=True)]
        here = [[when(curve, level) for curve in ours] for level in levels]
        middle = [tuple(statistics.median(part) for part in zip(*runs, strict=True)) for runs in here]
        training, whole = (min(a[part] / b[part] for a, b in zip(at, middle, strict=True)) for part in (0, 1))
        seconds = "; ".join(", ".join(f"{run[0]:.1f}" for run in runs) for runs in here)
        rows += [
            Row(f"{peer.name}: training until {what}", ", ".join(f"{found[0]:.1f}" for found in at), "s"),
            Row(f"seqrec: training until {what}, by seed", seconds, "s"),
            Row(f"{peer.name} over seqrec, until {what}", f"{training:.1f}", "times", f">= {goal:.0f}"),
            Row("the same with start-up and own evaluations", f"{whole:.1f}", "times"),
        ]
    return rows


def when(curve: Curve, level: float) -> tuple[float, float]:
    """Seconds of training, and of everything, until a level; infinite where it was not reached."""
    point = curve.reaching(level)
    return (point.seconds, curve.whole(point)) if point else (math.inf, math.inf)


def words(toolkit: Toolkit, settings: Mapping[str, Any]) -> str:
    """Settings that are not those of the shape."""
    return ", ".join(f"{key} {value}" for key, value in settings.items() if key not in (*toolkit.shape, "seed"))


def main() -> None:
    """Run every toolkit, compare, record the table and the curves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recbole", metavar="PYTHON", help="interpreter of an environment with RecBole")
    parser.add_argument("--rectools", metavar="PYTHON", help="interpreter of an environment with RecTools")
    parser.add_argument("--trial", type=float, metavar="SECONDS", help="one short run each; nothing is recorded")
    options = parser.parse_args()
    data = seqrec.load_data("ml-100k")
    ours = our_curves(data, options.trial)
    curves = {"seqrec": ours}
    table = [Row("seqrec: its best validation NDCG@10, by seed", ", ".join(f"{c.best.ndcg:.4f}" for c in ours), "")]
    table += facts("seqrec", ours)
    for peer, goal in ((RECBOLE, 10), (RECTOOLS, 3)):
        python = getattr(options, peer.name.lower())
        if python is None:
            continue
        counted, tried = peer_curves(peer, python, data, options.trial)
        curves |= {peer.name: counted, f"{peer.name}, tried": tried}
        table += against(peer, counted, ours, goal) + facts(peer.name, counted)
    if options.trial:
        print("\n".join(f"{row.metric:<62} {row.value:>40} {row.unit} {row.goal}" for row in table))
        return
    given = [f"--{peer} PYTHON" for peer in ("recbole", "rectools") if getattr(options, peer)]
    sys.argv = [sys.argv[0], *given]  # where the environments lie is nobody's business
    record("peers-cpu", table, protocol(), device="cpu")
    keep(curves)


def protocol() -> str:
    """How it was measured."""
    width, blocks, heads, length = SHAPE
    return (
        f"SASRec of width {width}, {blocks} blocks, {heads} heads, length {length} (RecBole's own), softmax over all "
        "items; ML-100K, 5-core, leave-one-out. NDCG@10 of the validation part, every item ranked, seen items left "
        "out, judged by us after each epoch while the toolkit waits. Seconds are those of its training alone. The "
        f"peers tried {tries(RECBOLE)} (RecBole) and {tries(RECTOOLS)} (RecTools), each for {RECBOLE.search:.0f} and "
        f"{RECTOOLS.search:.0f} s of training, and what was best by then went on for {RECBOLE.most / 60:.0f} and "
        f"{RECTOOLS.most / 60:.0f} minutes at most; the rest are their defaults. Ours were chosen by hand, on "
        f"validation: {words(SEQREC, OURS)}. Ratios: a peer's run against the median of ours by seed, the least."
    )


def tries(peer: Toolkit) -> str:
    """What a peer may choose from."""
    name, sizes = peer.batch
    return f"{name} {'/'.join(map(str, sizes))}, then " + " or ".join(words(peer, other) for other in peer.others)


def keep(curves: Mapping[str, list[Curve]]) -> None:
    """Put the curves beside the rows of the result."""
    path = Path(os.environ.get("SEQREC_BENCH_RESULTS", ROOT / "bench" / "results")) / "peers-cpu.json"
    result = json.loads(path.read_text(encoding="utf-8"))
    result["curves"] = {name: [asdict(curve) for curve in found] for name, found in curves.items()}
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
