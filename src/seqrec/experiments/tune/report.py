"""What a study leaves for people: its trials in one file, the best settings as a preset, a command to go on with."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from seqrec.experiments.config import RunConfig
from seqrec.experiments.tune.space import SEARCHED
from seqrec.files import atomic_file

if TYPE_CHECKING:
    from seqrec.experiments.tune.study import Study

#: Characters of an error that a log keeps.
ERROR = 200


@dataclass(frozen=True)
class TrialRow:
    """A trial in short.

    Attributes:
        settings: what was searched, by dotted key.
        validation: the best that was reached, None where nothing was evaluated.
        epochs: trained, of which `best_epoch` validated best.
        seconds: of training and validation, or until it failed.
        state: `finished`, `stopped early`, `failed`, `invalid` (settings that do not fit together) or `interrupted`.
    """

    number: int
    state: str
    validation: float | None
    epochs: int
    best_epoch: int | None
    seconds: float
    settings: dict[str, Any]
    error: str | None = None


@dataclass(frozen=True)
class Tuned:
    """What was found.

    Attributes:
        metric: what trials are compared by, on validation.
        first: what the searched settings are without tuning.
        gpu_seconds: used in all, over restarts: wall time by the number of GPUs, or wall time on a CPU.
        best: settings of the best trial as a preset says them.
        command: trains them with other seeds.
    """

    out: Path
    data: str
    model: str
    metric: str
    space: dict[str, Any]
    first: dict[str, Any]
    gpu_seconds: float
    gpus: int
    trials: list[TrialRow]
    best: dict[str, Any]
    command: str

    def ranked(self) -> list[TrialRow]:
        """Trials that have a validation and did not fail, the best first."""
        return ranked(self.trials)

    def write(self) -> None:
        """Write `trials.json` and `best.yaml` into the study's folder."""
        with atomic_file(self.out / "trials.json") as temporary:
            temporary.write_text(_a_trial_a_line(self.log()), encoding="utf-8")
        with atomic_file(self.out / "best.yaml") as temporary:
            temporary.write_text(yaml.safe_dump(self.best, sort_keys=False), encoding="utf-8")

    def log(self) -> dict[str, Any]:
        """The trials with nothing of the machine they ran on: what ships with a preset."""
        kept = ("data", "model", "metric", "space", "gpu_seconds", "gpus")
        return {key: getattr(self, key) for key in kept} | {"trials": [_compact(row) for row in self.trials]}


def ranked(rows: list[TrialRow]) -> list[TrialRow]:
    """Those that have a validation, the best first; of equals the earlier one. Not those that failed later: their
    settings would fail again."""
    judged = [row for row in rows if row.validation is not None and row.state != "failed"]
    return sorted(judged, key=lambda row: (-(row.validation or 0.0), row.number))


def rows_of(study: Study) -> list[TrialRow]:
    """The trials that ran or run, in order. What the sampler proposed a second time is left out."""
    return [_row(study, trial) for trial in study.trials() if trial.user_attrs.get("state") or _runs(trial)]


def _runs(trial: Any) -> bool:
    return trial.state.name == "RUNNING"


def _row(study: Study, trial: Any) -> TrialRow:
    facts, reached = trial.user_attrs, trial.intermediate_values
    return TrialRow(
        number=trial.number,
        state=facts.get("state", "interrupted"),
        validation=facts.get("validation", max(reached.values(), default=None)),
        epochs=facts.get("epochs", max(reached, default=0)),
        best_epoch=facts.get("best_epoch"),
        seconds=round(facts.get("seconds", 0.0), 1),
        settings=study.settings(trial),
        error=facts.get("error"),
    )


def _compact(row: TrialRow) -> dict[str, Any]:
    kept = asdict(row)
    error = kept.pop("error")
    return kept | ({"error": error.splitlines()[0][:ERROR]} if error else {})


def _a_trial_a_line(log: Mapping[str, Any]) -> str:
    head = json.dumps({key: value for key, value in log.items() if key != "trials"}, indent=2)
    rows = ",\n".join(f"    {json.dumps(row)}" for row in log["trials"])
    return head.removesuffix("\n}") + f',\n  "trials": [\n{rows}\n  ]\n}}\n'


def changed(settings: Mapping[str, Any], first: Mapping[str, Any]) -> dict[str, Any]:
    """Those settings that are not what they are without tuning."""
    return {key: value for key, value in settings.items() if value != first[key]}


def as_preset(config: RunConfig) -> dict[str, Any]:
    """What differs from the defaults of the model, its loss and training, nested, as presets say it."""
    plain, mine = RunConfig.from_dict({"model": {"name": config.model_name}}), config.to_dict()
    usual = plain.to_dict()
    if config.loss_name != plain.loss_name:
        # Without validation: what has no default is left out.
        usual["loss"] = {"name": plain.loss_name} | type(config.loss).model_construct().model_dump(mode="json")
    found = {
        part: {k: v for k, v in mine[part].items() if k not in usual[part] or v != usual[part][k]} for part in SEARCHED
    }
    return {section: values for section, values in found.items() if values}


def train_command(data: str, model: str, preset: str | None, changes: Mapping[str, Any]) -> str:
    """The command line that trains these settings with three seeds."""
    words = ["seqrec", "train", data, model, *(["--preset", preset] if preset else [])]
    for key, value in changes.items():
        words += ["--set", f"{key}={value if isinstance(value, str) else json.dumps(value)}"]
    return shlex.join([*words, "--seeds"])


def progress_line(found: Tuned, number: int) -> str:
    """A trial that ended, in one line."""
    row = next(row for row in found.trials if row.number == number)
    parts = [f"trial {number}", f"{found.metric} " + ("-" if row.validation is None else f"{row.validation:.4f}")]
    parts += [f"best {best.validation:.4f} ({best.number})" for best in found.ranked()[:1]]
    parts += [f"{row.seconds:.0f} s", f"{row.epochs} epochs", row.state]
    parts += [row.error.splitlines()[0]] if row.error else []
    return "  ".join(parts + words(changed(row.settings, found.first)))


def words(settings: Mapping[str, Any]) -> list[str]:
    """Settings as people read them."""
    return [f"{key}={value}" for key, value in settings.items()] or ["untuned"]
