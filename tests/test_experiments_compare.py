"""Comparisons: planned before anything runs, resumed after a crash, and tested on the same people."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from conftest import COLUMNS, SMALL, write_small_log
from seqrec.errors import ConfigError, DataError, SeqrecError
from seqrec.evaluation.significance import paired_test
from seqrec.experiments.compare.config import CompareConfig
from seqrec.experiments.compare.judge import Judged, judge_row, require_same_targets
from seqrec.experiments.compare.plan import plan
from seqrec.experiments.compare.run import compare
from seqrec.experiments.compare.runner import ComparisonInterrupted
from seqrec.experiments.compare.table import Comparison
from seqrec.experiments.run import Run


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_log(tmp_path_factory.mktemp("log") / "log.csv")


def small(log: Path, **changes: Any) -> dict[str, Any]:
    """Three models and an ensemble; what has seeds has two, and one is there in two widths."""
    return {
        "name": "small",
        "data": [{"source": str(log), "label": "log", "settings": {**COLUMNS, "k_core": 0}}],
        "models": [
            "popularity",
            {"model": "markov", "vary": {"model.window": [5, 1]}},
            {"model": "sasrec", "label": "a SASRec", "settings": {"model.num_blocks": 1}},
        ],
        "settings": SMALL,
        "ensembles": [{"members": ["popularity", "a SASRec"]}],
        "seeds": [1, 2],
        **changes,
    }


def facts(found: Comparison | dict[str, Any]) -> dict[str, Any]:
    """All that two runs of the same comparison share: everything but what the clock and the memory say."""
    values = json.loads(json.dumps(found.to_dict() if isinstance(found, Comparison) else found))
    for row in values["rows"]:
        for measured in ("seconds", "seconds_per_epoch", "peak_memory_mib"):
            del row[measured]
    return values


@pytest.fixture(scope="module")
def done(log: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Comparison, Path]:
    out = tmp_path_factory.mktemp("compare")
    return compare(CompareConfig.parse(small(log)), out, jobs=2, device="cpu"), out


def test_every_model_is_a_row_over_its_seeds(done: tuple[Comparison, Path]) -> None:
    found, _ = done
    rows = {row.name: row for row in found.rows}
    assert set(rows) == {"popularity", "markov, window 5", "markov, window 1", "a SASRec", "popularity + a SASRec"}
    assert rows["a SASRec"].seeds == rows["popularity + a SASRec"].seeds == (1, 2)
    assert rows["popularity"].seeds == (1,), "no chance, no seeds"
    assert rows["a SASRec"].test["ndcg@10"].deviation > 0
    assert rows["a SASRec"].parameters
    assert found.failures == ()
    validation = [row.validation["ndcg@10"].mean for row in found.rows]
    assert validation == sorted(validation, reverse=True)
    assert "left out" in found.protocols["log, leave_one_out"]


def values(out: Path, *folders: str) -> np.ndarray:
    """NDCG@10 per person, averaged over runs, from what the runs kept."""
    import pyarrow.parquet as pq

    gains = []
    for name in folders:
        table = pq.read_table(out / "runs" / f"log-leave_one_out-{name}" / "per_user.test.parquet")
        rank = np.array(table["rank"])
        gains.append(np.where(rank <= 10, 1 / np.log2(rank + 1), 0.0)[np.argsort(table["user"].to_pylist())])
    return np.mean(gains, axis=0)


def test_the_tests_are_those_of_the_runs_own_values(done: tuple[Comparison, Path], log: Path) -> None:
    out = done[1]
    found = compare(CompareConfig.parse(small(log, reference="a SASRec")), out, device="cpu")
    mine, theirs = values(out, "a_SASRec-1", "a_SASRec-2"), values(out, "popularity-1")
    (test,) = [test for test in found.tests if test.second == "popularity"]
    expected = paired_test(mine, theirs)
    assert test.first == "a SASRec"
    assert test.difference == pytest.approx(expected.difference)
    assert test.p_permutation == pytest.approx(expected.p_permutation)
    (row,) = [row for row in found.rows if row.name == "a SASRec"]
    assert row.test["ndcg@10"].mean == pytest.approx(mine.mean())
    assert row.low <= mine.mean() <= row.high


def test_what_varies_is_tested_end_against_end(done: tuple[Comparison, Path]) -> None:
    (test,) = [test for test in done[0].tests if test.why == "model.window"]
    assert (test.first, test.second, test.family) == ("markov, window 5", "markov, window 1", 1)
    assert [test.family for test in done[0].tests if test.why == "reference"] == [4] * 4


def test_a_second_time_makes_nothing_anew(done: tuple[Comparison, Path], log: Path) -> None:
    found, out = done
    lines: list[str] = []
    before = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/results.json")}
    again = compare(CompareConfig.parse(small(log)), out, device="cpu", report=lines.append)
    assert again == found
    assert any("are there already" in line for line in lines)
    assert before == {path: path.stat().st_mtime_ns for path in out.glob("runs/*/results.json")}


def test_so_far(done: tuple[Comparison, Path], log: Path, tmp_path: Path) -> None:
    config = CompareConfig.parse(small(log))
    assert compare(config, tmp_path, device="cpu", so_far=True).rows == ()
    shutil.copytree(done[1] / "jobs", tmp_path / "jobs")
    names = [path.name for path in (done[1] / "runs").iterdir() if path.name != "log-leave_one_out-a_SASRec-2"]
    for name in names:
        shutil.copytree(done[1] / "runs" / name, tmp_path / "runs" / name)
    found = compare(config, tmp_path, device="cpu", so_far=True)
    seeds = {row.name: row.seeds for row in found.rows}
    assert seeds["a SASRec"] == (1,)
    assert seeds["popularity + a SASRec"] == (1, 2)
    assert found.failures == ()
    assert found.missing == ("log, leave_one_out: a SASRec lacks 1 of 2 runs",)
    assert "So far: 1 row waits" in (tmp_path / "comparison.md").read_text()


def test_all_pairs(done: tuple[Comparison, Path], log: Path) -> None:
    found = compare(CompareConfig.parse(small(log, tests="all")), done[1], device="cpu")
    pairs = [test for test in found.tests if test.why == "pair"]
    assert len(pairs) == pairs[0].family == 5 * 4 / 2


def test_killed_half_way_and_resumed_gives_the_same_table(
    done: tuple[Comparison, Path], log: Path, tmp_path: Path
) -> None:
    file, out = tmp_path / "small.yaml", tmp_path / "out"
    file.write_text(yaml.safe_dump(small(log)))
    command = [sys.executable, "-m", "seqrec", "compare", str(file), "--out", str(out), "--jobs", "2"]
    command += ["--device", "cpu"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while len(list(out.glob("runs/*/results.json"))) < 3:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert not (out / "comparison.json").exists()
    found = compare(CompareConfig.read(file), out, jobs=2, device="cpu")
    assert facts(found) == facts(done[0])


def test_ctrl_c_lets_every_run_save(log: Path, tmp_path: Path) -> None:
    """A terminal sends it to everything that was started from it."""
    config = small(log, models=["sasrec"], settings={**SMALL, "training.epochs": 100_000}, ensembles=[])
    file, out = tmp_path / "long.yaml", tmp_path / "out"
    file.write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "seqrec", "compare", str(file), "--out", str(out), "--device", "cpu"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    run = out / "runs" / "log-leave_one_out-sasrec-1"
    while not (run / "history.jsonl").exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate()[1]
    assert process.returncode == 130
    assert "goes on from it" in said
    assert (run / "last.safetensors").exists()
    assert "saved. Resume" in (out / "logs" / "log-leave_one_out-sasrec-1.txt").read_text()


CRASHES = """
from seqrec.models.popularity import Popularity
class Crashes(Popularity):
    def fit(self, train):
        import os, signal
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_run_that_dies_is_named_and_the_others_go_on(log: Path, tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "crashing.py").write_text(CRASHES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    config = small(
        log,
        models=["popularity", "markov", "crashing:Crashes"],
        settings={},
        ensembles=[{"members": ["markov", "Crashes"]}],
    )
    found = compare(CompareConfig.parse(config), tmp_path / "out", device="cpu")
    assert {row.name for row in found.rows} == {"popularity", "markov"}
    died, fused = found.failures
    assert "Crashes-1: it was killed by signal 9" in died
    assert "markov_+_Crashes-1: its member" in fused


def test_runs_of_other_settings_are_not_mixed_in(done: tuple[Comparison, Path], log: Path) -> None:
    other = small(log, settings={**SMALL, "training.epochs": 2})
    with pytest.raises(ConfigError, match="other settings"):
        compare(CompareConfig.parse(other), done[1], device="cpu")


def test_an_ensemble_of_other_runs_is_not_taken(done: tuple[Comparison, Path], log: Path) -> None:
    other = small(log, ensembles=[{"members": ["popularity", "a SASRec"], "fusion": "reciprocal_rank"}])
    with pytest.raises(ConfigError, match="other settings"):
        compare(other, done[1], device="cpu", so_far=True)


def test_an_out_that_is_a_file(log: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(ConfigError, match="no folder can be there"):
        compare(small(log), tmp_path / "out", device="cpu")


def test_several_cases_of_a_person(log: Path, tmp_path: Path) -> None:
    """The interval is around the number in the table, also where people have different numbers of cases."""
    config = small(log, models=["popularity", "markov"], ensembles=[], settings={})
    config["data"][0]["settings"] |= {"split": "temporal", "targets": "all"}
    found = compare(config, tmp_path, jobs=2, device="cpu")
    means = {row.name: row.test["ndcg@10"].mean for row in found.rows}
    (test,) = found.tests
    assert test.difference == pytest.approx(means[test.first] - means[test.second])
    assert all(row.low < means[row.name] < row.high for row in found.rows)
    assert test.users < len(values_of_cases(tmp_path))


def values_of_cases(out: Path) -> list[str]:
    import pyarrow.parquet as pq

    return pq.read_table(next(out.glob("runs/*markov*/per_user.test.parquet")))["user"].to_pylist()


def test_different_targets_are_refused(done: tuple[Comparison, Path], log: Path, tmp_path: Path) -> None:
    other = small(log, models=["popularity"], ensembles=[], settings={})
    other["data"][0]["settings"]["split"] = "ratio"
    compare(CompareConfig.parse(other), tmp_path, device="cpu")
    (row,) = plan(CompareConfig.parse(other))[0].rows
    judged: list[Judged] = []
    for folder in (done[1] / "runs/log-leave_one_out-popularity-1", tmp_path / "runs/log-ratio-popularity-1"):
        judged.append(judge_row(row, [Run(folder)], "ndcg@10", 1))
    require_same_targets(judged[:1] * 2)
    with pytest.raises(DataError, match="different targets"):
        require_same_targets(judged)


def test_interrupted_from_python(log: Path, tmp_path: Path) -> None:
    lines: list[str] = []

    def report(line: str) -> None:
        lines.append(line)
        if line.startswith("[1/"):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(ComparisonInterrupted, match="goes on from it"):
        compare(CompareConfig.parse(small(log)), tmp_path, device="cpu", report=report)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"models": []}, "models"),
        ({"models": ["sasrc"]}, "sasrec"),
        ({"modles": ["sasrec"]}, "Did you mean models"),
        ({"models": ["markov", "markov"]}, "'markov' is there twice"),
        ({"models": [{"model": "markov", "settings": {"model.windw": 2}}]}, "markov: .*model.window"),
        ({"ensembles": [{"members": ["markov", "popularty"]}]}, "Did you mean 'popularity'"),
        ({"ensembles": [{"members": ["markov"]}]}, "ensembles"),
        ({"ensembles": [{"members": ["markov", "a SASRec"]}]}, "do not vary in the same settings"),
        ({"ensembles": [{"members": ["popularity", "popularity"]}]}, "a member is there twice"),
        ({"reference": "bert"}, "reference"),
        ({"metric": "ndgc@10"}, "name@k"),
        ({"seeds": []}, "seeds"),
        ({"seeds": 3}, "seeds: a list is needed"),
        (
            {"models": [{"model": "markov", "labl": "x"}]},
            r"models.0.labl. Did you mean models.0.label\? Valid: label, ",
        ),
        ({"seeds": [1, 1]}, "a seed is there twice"),
        ({"models": ["popularity", {"model": "markov", "label": "A b"}, {"model": "markov", "label": "a_b"}]}, "share"),
        ({"data": [{"source": "LOG"}, {"source": "LOG"}]}, "share"),
        ({"vary": {"seed": [1, 2]}}, "seed is not a setting"),
        ({"vary": {"model.max_length": []}}, "vary.model.max_length"),
        ({"metric": "ndcg@7"}, "cut-off"),
        ({"predictions": [{"label": "theirs", "file": "no.parquet"}]}, "no.parquet"),
        ({"data": ["no-such-log.csv"]}, "no-such-log"),
        ({"splits": ["leave_one_out", "temporal"], "predictions": [{"label": "x", "file": "y"}]}, "one at a time"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_is_wrong_is_said_before_anything_runs(
    changes: dict[str, Any], words: str, log: Path, tmp_path: Path
) -> None:
    config = small(log, **{"ensembles": [], **changes})
    for entry in config["data"]:
        if isinstance(entry, dict):
            entry.update({"source": str(log), "settings": {**COLUMNS, "k_core": 0}} if entry["source"] == "LOG" else {})
    with pytest.raises(SeqrecError, match=words):
        compare(config, tmp_path / "out", device="cpu")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "text",
    ["- a\n- b\n", "a: [", "\x00", "", "models: [markov]\nmodels: [ease]\n"],
    ids=["a list", "not YAML", "rubbish", "empty", "a key twice"],
)
def test_files_that_are_no_comparison(text: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"bad\.yaml"):
        CompareConfig.read(file)
