"""seqrec tune on the command line, and the logs that ship with presets."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import yaml

import seqrec as package
from commands import seqrec
from seqrec.experiments.config import RunConfig, presets, settings_for
from seqrec.experiments.tune.report import TrialRow, ranked
from seqrec.experiments.tune.space import setting

pytest.importorskip("optuna")

LOGS = sorted((Path(package.__file__).parent / "presets").rglob("*.trials.json"))


def test_a_study_from_a_table_to_a_preset(small_log: Path, tmp_path: Path) -> None:
    words = ["tune", small_log, "lstm", "--user", "uid", "--item", "iid", "--time", "ts", "--trials", 2]
    words += ["--set", "training.epochs=2", "--set", "model.embedding_dim=8", "--set", "training.schedule=constant"]
    words += ["--search", "model.dropout=0.1,0.2", "--loss", "softmax", "--device", "cpu", "--reduction", 2]
    done = seqrec(*words, "--json", cwd=tmp_path)
    assert done.code == 0, done.err
    found = json.loads(done.out)
    folder = tmp_path / "tuning" / "log-lstm"
    assert [row["number"] for row in found["trials"]] == [0, 1]
    assert "training.schedule" not in found["space"]
    assert yaml.safe_load((folder / "best.yaml").read_text()) == found["best"]
    assert found["best"]["training"]["epochs"] == 2
    assert re.search(r"^trial 0  ndcg@10 \d\.\d{4}  best ", done.err, re.MULTILINE)
    assert "The best on validation, log, lstm" in done.err
    assert "2 trials in " in done.err
    assert "test" not in (done.err + done.out).replace(str(tmp_path), "").lower()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--search", "model.dropout"], "write it as KEY=1,2,3"),
        (["--out", Path(__file__) / "x"], "no folder can be there"),
        (["--gpus", "0,x"], "--gpus 0,x: write whole numbers with commas"),
        (["--set", "model.droput=1"], "Did you mean model.dropout?"),
    ],
)
def test_mistakes_are_found_before_anything_is_trained(words: list[str], message: str, tmp_path: Path) -> None:
    done = seqrec("tune", "ml-100k", "lstm", *words, cwd=tmp_path)
    assert done.code == 2
    assert message in done.err
    assert not (tmp_path / "tuning").exists()


@pytest.mark.parametrize("log", LOGS, ids=lambda log: f"{log.parent.name}-{log.name}")
def test_a_preset_is_the_best_trial_of_its_log(log: Path) -> None:
    require_best(log)


def require_best(log: Path) -> None:
    model, _, variant = log.name.removesuffix(".trials.json").partition(".")
    kept = json.loads(log.read_text("utf-8"))
    assert (kept["data"], kept["model"]) == (log.parent.name, model)
    config = RunConfig.from_dict(settings_for(log.parent.name, model, variant or None))
    best = ranked([TrialRow(**row) for row in kept["trials"]])[0].settings
    assert set(best) == set(kept["space"])
    assert {key: setting(config, key) for key in best} == best
    assert not re.search(r'"/|\\\\', log.read_text("utf-8")), "a path of one machine"


def test_a_log_whose_preset_is_another_is_noticed(tmp_path: Path) -> None:
    name = next(name for name, values in presets().items() if "." not in name and "model" in values)
    dataset, _, model = name.partition("/")
    config = RunConfig.from_dict(settings_for(dataset, model))
    key = f"model.{next(iter(presets()[name]['model']))}"
    first = TrialRow(0, "finished", 0.1, 1, 1, 1.0, {key: setting(config, key)})
    rows = [asdict(first)]
    log = tmp_path / dataset / f"{model}.trials.json"
    log.parent.mkdir()
    log.write_text(json.dumps({"data": dataset, "model": model, "space": {key: [1]}, "trials": rows}))
    require_best(log)
    rows.append(asdict(replace(first, number=1, validation=0.2, settings={key: "better"})))
    log.write_text(json.dumps({"data": dataset, "model": model, "space": {key: [1]}, "trials": rows}))
    with pytest.raises(AssertionError):
        require_best(log)
