"""Several finished runs as one: an ensemble whose weights are chosen on the validation part.

Shapes: B cases at a time, N items, M members, W vectors of weights, C cases.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from seqrec.data.prepared import PreparedData
from seqrec.data.sequences import Cases
from seqrec.errors import ConfigError, DataError, RunFolderError, unknown_name
from seqrec.evaluation.evaluator import MOST_CASES, Evaluator
from seqrec.experiments.config import RunConfig
from seqrec.experiments.door import run_data
from seqrec.experiments.environment import choose_device
from seqrec.experiments.fit import judge, open_folder, require_same_data
from seqrec.experiments.run import Run
from seqrec.files import explained
from seqrec.kernels.ranking import exclude, target_ranks
from seqrec.models.base import Scorer
from seqrec.models.ensemble import FUSIONS, Ensemble, EnsembleConfig, comparable, fuse
from seqrec.run_folder import RunFolder
from seqrec.training.checkpoint import save_checkpoint

#: Weights are multiples of it.
STEP = 0.05
#: Rounds of the search at most, each of which scores the validation part once.
MOST_ROUNDS = 8
#: The cut-off of the NDCG that weights are chosen by.
CUTOFF = 10

Weights = tuple[float, ...]


def combine(runs: Sequence[Run | Path | str], out: Path | str, fusion: str = "zscore", device: str = "auto") -> Run:
    """An ensemble of finished runs, with weights chosen on validation NDCG@10 and the test part scored once.

    Args:
        runs: two or more different ones, or their folders, made on the same data and judged alike; the weights stay
            those that each run kept.
        out: the folder of the new run.
        fusion: `zscore` or `reciprocal_rank`, see `seqrec.models.ensemble`.
        device: `auto`, `cpu`, `cuda`, `cuda:1`.

    Returns:
        The new run, as complete as one that was trained. `results["training"]["members"]` says of each member what
        it weighs and what it reached alone.

    Raises:
        ConfigError: fewer than two runs, one run twice, runs that are judged differently, or no such fusion.
        DataError: runs were made on different data.
        RunFolderError: a run is not finished, or `out` holds another one.
    """
    if fusion not in FUSIONS:
        raise unknown_name("fusion", fusion, FUSIONS)
    where = choose_device(device)
    runs = different_runs(runs)
    evaluator = Evaluator(common_data(runs), runs[0].config.evaluation, where)
    refuse_finished(Path(out))
    specs = [run.config.to_dict()["model"] for run in runs]
    began = time.monotonic()
    members = [run.recommender(str(where)).scorer for run in runs]
    weights = choose_weights(members, evaluator, fusion)
    config = _config(runs[0], specs, fusion, weights)
    ensemble = Ensemble(EnsembleConfig.model_validate(config.model), evaluator.data.sequences.num_items)
    ensemble.members = members
    seconds = time.monotonic() - began
    with explained(Path(out)):
        folder = open_folder(config, evaluator.data, Path(out), where)
        save_checkpoint(folder.best, ensemble.state_dict())
        judge(ensemble, evaluator, folder, _facts(runs, weights, seconds))
    return Run(out)


def different_runs(runs: Sequence[Run | Path | str], what: str = "An ensemble") -> list[Run]:
    """Two runs or more, opened, none of them twice."""
    if len(runs) < 2:
        raise ConfigError(f"{what} is made of two runs or more (got {len(runs)}).")
    opened = [run if isinstance(run, Run) else Run(run) for run in runs]
    folders = [run.path.resolve() for run in opened]
    for run, folder in zip(opened, folders, strict=True):
        if folders.count(folder) > 1:
            raise ConfigError(f"{run.path} is named twice: a run adds nothing to itself. Name each run once.")
    return opened


def common_data(runs: Sequence[Run]) -> PreparedData:
    """The data that all runs were made on."""
    data = run_data(runs[0])
    protocol = runs[0].results["test"]["protocol"]
    for run in runs[1:]:
        try:
            require_same_data(run.facts["data"], data)
        except DataError as error:
            raise DataError(f"{run.path} does not go together with {runs[0].path}. {error}") from error
        if run.results["test"]["protocol"] != protocol:
            raise ConfigError(
                f"{run.path} is judged by other rules than {runs[0].path}: {run.results['test']['protocol']}; "
                f"against: {protocol}. Train them with the same evaluation settings."
            )
    return data


def refuse_finished(out: Path) -> None:
    """Now rather than when the weights are chosen."""
    if (out / "run.json").exists() and RunFolder(out).results() is not None:
        raise RunFolderError(f"{out} holds a run already: it is finished. For another one choose another --out.")


def _config(first: Run, members: list[Any], fusion: str, weights: Weights) -> RunConfig:
    model = {"name": "ensemble", "members": members, "fusion": fusion, "weights": weights}
    kept = first.config.to_dict()
    shared = {name: kept[name] for name in ("data", "evaluation", "seed")}
    return RunConfig.from_dict({**shared, "model": model})


def _facts(runs: Sequence[Run], weights: Weights, seconds: float) -> dict[str, Any]:
    """What takes the place of training: who is in it, what each one weighs and reached alone."""
    members = [
        {
            "run": str(run.path),
            "model": run.config.model_name,
            "seed": run.config.seed,
            "weight": weight,
            **{part: run.results[part]["metrics"][f"ndcg@{CUTOFF}"] for part in ("validation", "test")},
        }
        for run, weight in zip(runs, weights, strict=True)
    ]
    parameters = sum(run.results["training"]["parameters"] for run in runs)
    return {"seconds": seconds, "parameters": parameters, "epochs": 0, "members": members}


def choose_weights(members: Sequence[Scorer], evaluator: Evaluator, fusion: str) -> Weights:
    """Weights from 0 that add up to 1, by NDCG@10 on the validation part; nothing else is looked at.

    Two members: the best of all multiples of .05. More: from the best of equal weights and each member alone, one
    weight at a time is raised or lowered, the others keeping their proportions, while that gains anything.
    """
    if len(members) == 2:
        return _best(_validation_ndcg(members, evaluator, fusion, line((1.0, 0.0), 1)))
    alone = [tuple(float(m == other) for other in range(len(members))) for m in range(len(members))]
    candidates = [(1 / len(members),) * len(members), *alone]
    found: dict[Weights, float] = {}
    for _ in range(MOST_ROUNDS):
        fresh = [weights for weights in dict.fromkeys(candidates) if weights not in found]
        if not fresh:
            break
        before = _best(found) if found else None
        found |= _validation_ndcg(members, evaluator, fusion, fresh)
        best = _best(found)
        if best == before:
            break
        candidates = [weights for m in range(len(members)) for weights in line(best, m)]
    return _best(found)


def line(weights: Weights, member: int) -> list[Weights]:
    """Weights with that of one member set to 0, .05, ..., 1; the others share the rest in their proportions."""
    others = 1 - weights[member]
    found = []
    for number in range(round(1 / STEP) + 1):
        share = number * STEP
        rest = [(1 - share) / (len(weights) - 1) if others < STEP / 2 else w * (1 - share) / others for w in weights]
        found.append(tuple(round(share if m == member else rest[m], 6) for m in range(len(weights))))
    return found


def _best(found: Mapping[Weights, float]) -> Weights:
    """The highest; of equal ones the most even."""
    return max(found, key=lambda weights: (found[weights], -max(weights)))


@torch.inference_mode()
def _validation_ndcg(
    members: Sequence[Scorer], evaluator: Evaluator, fusion: str, candidates: Sequence[Weights]
) -> dict[Weights, float]:
    """NDCG@10 of each candidate on validation, as the evaluator would find it, from one pass over the cases."""
    cases = evaluator.data.cases("validation")
    cases = cases.take(np.argsort(cases.ends - evaluator.data.sequences.starts[cases.users], kind="stable"))
    items = evaluator.data.sequences.num_items
    per_case = items * 8 * (len(members) + 4)  # doubles: the members', their sum, and what ranking needs
    size = int(np.clip(evaluator.config.memory_mb * 2**20 // per_case, 1, MOST_CASES))
    blocks = [np.arange(start, min(start + size, len(cases))) for start in range(0, len(cases), size)]
    ranks_WC = np.concatenate([_ranks(members, evaluator, fusion, candidates, cases.take(b)) for b in blocks], axis=1)
    # A target that is itself left out stands at N + 1: a miss.
    gains_WC = np.where(ranks_WC <= min(CUTOFF, items), 1 / np.log2(ranks_WC + 1.0), 0.0)
    return dict(zip(candidates, gains_WC.mean(1).tolist(), strict=True))


def _ranks(
    members: Sequence[Scorer], evaluator: Evaluator, fusion: str, candidates: Sequence[Weights], cases: Cases
) -> np.ndarray:
    """Rank (W, B) of each target under each candidate; every member is asked once."""
    said_MBN = [comparable(member, evaluator.histories(member, cases), fusion) for member in members]
    targets_B = torch.from_numpy(evaluator.data.sequences.items[cases.positions].astype(np.int64)).to(evaluator.device)
    seen = evaluator.seen(cases) if evaluator.config.filter_seen else None
    ranks = []
    for weights in candidates:
        scores_BN = fuse((weight, said_BN) for weight, said_BN in zip(weights, said_MBN, strict=True) if weight)
        ranks.append(target_ranks(exclude(scores_BN, *seen) if seen else scores_BN, targets_B))
    return torch.stack(ranks).cpu().numpy()
