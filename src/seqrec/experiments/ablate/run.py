"""A whole ablation: a comparison of the run with itself, one feature less at a time, and the drops that it shows."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from seqrec.data.prepared import PreparedData
from seqrec.errors import ConfigError
from seqrec.experiments.ablate.features import Feature, chosen
from seqrec.experiments.ablate.judge import drops
from seqrec.experiments.ablate.table import PARTS, Ablation
from seqrec.experiments.ablate.write import write_ablation
from seqrec.experiments.compare.config import CompareConfig, DataEntry, ModelEntry
from seqrec.experiments.compare.plan import Job, Part, Report, plan
from seqrec.experiments.compare.run import compare, make_folder
from seqrec.experiments.door import run_data, source_name
from seqrec.experiments.fit import is_of
from seqrec.experiments.run import Run
from seqrec.experiments.seeds import SEEDS
from seqrec.files import atomic_folder

#: How the run is called among those that lack something.
WHOLE = "the run"


def ablate(
    run: Run | Path | str,
    features: Sequence[str] | None = None,
    *,
    seeds: Sequence[int] = SEEDS,
    out: Path | str | None = None,
    jobs: int | None = None,
    device: str = "auto",
    epochs: int | None = None,
    report: Report = lambda line: None,
) -> Ablation:
    """Train the run again without each of its features, and test what each of them is worth.

    Args:
        run: a run or its folder. A finished one stands for its own seed.
        features: names, as `features_of` has them; all of them by itself.
        out: where runs and report go; `ablations/<folder of the run>` by itself.
        jobs, device: as for `compare`.
        epochs: instead of the run's own; all is then trained anew.
        report: is told of progress, line by line.

    Raises:
        UnknownNameError: no such feature.
        ConfigError: there is nothing to switch off, a setting is wrong, or a run of other settings is in the way.
        DataError: the data are gone or other ones, or the run itself could not be trained.
        ComparisonInterrupted: on Ctrl-C or SIGTERM; the same call goes on.
    """
    run = run if isinstance(run, Run) else Run(run)
    out = Path(out) if out else default_folder(run)
    asked = chosen(run.config, features)
    if (out / "run.json").exists():
        raise ConfigError(f"--out {out}: this is a run. Name another folder.")
    config = comparison(run, run_data(run), asked, seeds, epochs)
    (part,) = plan(config)
    make_folder(out)
    _adopt(run, part, out, report)
    found = compare(config, out, jobs, device, report)
    ablation = replace(drops(run, config, part, found, asked, out / "runs"), epochs=epochs)
    write_ablation(ablation, out)
    return ablation


def default_folder(run: Run) -> Path:
    """`ablations/<folder of the run>` under the current folder."""
    return Path("ablations") / run.path.resolve().name


def comparison(
    run: Run, data: PreparedData, features: Sequence[Feature], seeds: Sequence[int], epochs: int | None = None
) -> CompareConfig:
    """The comparison that the ablation is: the run's settings as they are, then each with one feature less."""
    name, settings = run.config.model_name, _flat(run.config.to_dict())
    if epochs is not None:
        if not run.config.trained:
            raise ConfigError(f"epochs: {name} is not trained by gradient.")
        settings["training.epochs"] = epochs
    switched = [feature for feature in features if not feature.skipped]
    models = [ModelEntry(model=name, label=WHOLE, preset="none", settings=settings)]
    models += [
        ModelEntry(model=name, label=f"without {feature.name}", preset="none", settings=settings | feature.off)
        for feature in switched
    ]
    entry = DataEntry(source=str(data.folder.resolve()), label=Path(source_name(data)).stem[:100])
    model = name.rpartition(":")[2]
    return CompareConfig.parse(
        {
            "name": f"Ablation of {model} on {entry.label}",
            "data": (entry,),
            "models": tuple(models),
            "seeds": tuple(seeds),
            "reference": WHOLE,
        }
    )


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """All that a run's settings say about model, loss, training and evaluation, by dotted key."""
    sections = ("model", "loss", "training", "evaluation")
    flat = {f"{section}.{key}": value for section in sections for key, value in config[section].items()}
    del flat["model.name"]
    return flat


def _adopt(run: Run, part: Part, out: Path, report: Report) -> None:
    """The run stands for its own seed where it is whole: it is copied, so that `out` can move."""
    whole = next(row for row in part.rows if row.label == WHOLE)
    for job in whole.jobs:
        target = out / "runs" / job.folder
        if not target.exists() and _stands_for(run, job):
            with atomic_folder(target) as folder:
                shutil.copytree(run.path, folder, dirs_exist_ok=True)
            report(f"{run.path} stands for seed {run.config.seed}")


def _stands_for(run: Run, job: Job) -> bool:
    """Whether it is what the job would make, with all that is judged. A soup has the settings of a member, and was
    made in another way."""
    folder, results = run.folder, run.folder.results()
    if job.config is None or results is None or "members" in results["training"] or not is_of(folder, job.config):
        return False
    return all(folder.per_user(part).exists() for part in PARTS)
