"""What is typed at the keyboard: output, exit codes, speed of the first answer."""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from commands import Finished, seqrec
from conftest import SMALL, write_small_log

COLUMNS = ("--user", "uid", "--item", "iid", "--time", "ts")
SETTINGS = tuple(word for key, value in SMALL.items() for word in ("--set", f"{key}={value}"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the small log in it, and a run of each kind once somebody asked for one."""
    folder = tmp_path_factory.mktemp("cli")
    write_small_log(folder / "log.csv")
    return folder


@pytest.fixture(scope="module")
def trained(folder: Path) -> Finished:
    """`seqrec train` into `run`, as text."""
    return seqrec("train", "log.csv", "sasrec", *COLUMNS, *SETTINGS, "--out", "run", cwd=folder)


@pytest.fixture
def run(trained: Finished) -> str:
    """The folder that `trained` made."""
    assert trained.code == 0, trained.err
    return "run"


def json_of(finished: Finished) -> Any:
    """The one JSON document that is all of standard output."""
    assert finished.code == 0, finished.err
    return json.loads(finished.out)


def python(code: str, cwd: Path) -> str:
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, check=True).stdout


def seqrec_script() -> str:
    return str(Path(sys.executable).with_name("seqrec"))


# --- the first answer is fast


def test_help_is_fast(tmp_path: Path) -> None:
    seconds = []
    for _ in range(3):
        began = time.monotonic()
        found = subprocess.run([seqrec_script(), "--help"], cwd=tmp_path, capture_output=True, text=True, check=True)
        seconds.append(time.monotonic() - began)
    assert "train" in found.stdout
    assert statistics.median(seconds) < 1.0


@pytest.mark.parametrize("module", ["seqrec", "seqrec.cli"])
def test_importing_leaves_heavy_packages_alone(module: str, tmp_path: Path) -> None:
    heavy = {"torch", "numpy", "pyarrow", "duckdb", "pandas", "tensorboard"}
    code = f"import sys, {module}; print(*sorted({heavy} & set(sys.modules)))"
    assert python(code, tmp_path).strip() == ""


@pytest.mark.parametrize(
    "verb", ["train", "evaluate", "recommend", "compare", "ensemble", "estimate", "doctor", "data prepare", "runs show"]
)
def test_help_of_every_verb_works_without_torch(verb: str, tmp_path: Path) -> None:
    code = (
        "import sys, typer.testing, seqrec.cli\n"
        f"found = typer.testing.CliRunner().invoke(seqrec.cli.app, {[*verb.split(), '--help']})\n"
        "assert found.exit_code == 0, found.output\n"
        "print('torch' in sys.modules, '--json' in found.output)"
    )
    assert python(code, tmp_path).split() == ["False", "True"]


def test_version(tmp_path: Path) -> None:
    import seqrec as package

    assert seqrec("--version", cwd=tmp_path).out.strip() == package.__version__


# --- train


def test_train_reports_and_keeps_a_run(trained: Finished, folder: Path) -> None:
    assert trained.code == 0, trained.err
    assert (folder / "run" / "results.json").exists()
    for told in ("Data: log", "epoch   3", "popularity", "markov", "NDCG@10", "Saw next:", "seqrec recommend run"):
        assert told in trained.out


def test_piped_output_has_no_escape_codes_and_no_live_display(trained: Finished) -> None:
    assert "\x1b" not in trained.out + trained.err
    assert "\r" not in trained.out + trained.err
    assert max(map(len, trained.out.splitlines())) <= 120


def test_train_json_is_the_results(folder: Path, trained: Finished) -> None:
    found = json_of(seqrec("train", "log.csv", "sasrec", *COLUMNS, *SETTINGS, "--out", "as_json", "--json", cwd=folder))
    [run] = found["runs"]
    assert found["over_seeds"]["ndcg@10"] == {"mean": run["test"]["metrics"]["ndcg@10"], "deviation": 0.0}
    assert run["run"] == "as_json"
    assert run["seed"] == 42
    assert run["test"] == json.loads((folder / "run" / "results.json").read_text())["test"]


def test_several_seeds_are_summarised_with_their_deviation(folder: Path) -> None:
    settings = (*COLUMNS, *SETTINGS, "--set", "training.epochs=1", "--baselines", "none", "--examples", "0")
    found = seqrec("train", "log.csv", "sasrec", *settings, "--seed", "1", "--seed", "2", cwd=folder)
    assert found.code == 0, found.err
    values = []
    for path in sorted((folder / "runs").glob("log-sasrec-[12]-*")):
        values.append(json.loads((path / "results.json").read_text())["test"]["metrics"]["ndcg@10"])
    assert len(values) == 2
    expected = f"ndcg@10 over 2 seeds: {statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}"
    assert expected in found.out


def test_seeds_are_three_known_ones(folder: Path) -> None:
    found = seqrec(
        "train", "log.csv", "popularity", *COLUMNS, "--seeds", "--baselines", "none", "--json", cwd=folder
    )  # fmt: skip
    assert [run["seed"] for run in json_of(found)["runs"]] == [42, 123, 2023]
    assert "ndcg@10 over 3 seeds" in found.err
    assert "± 0.0000" in found.err


# --- evaluate, recommend, runs


def test_evaluate_repeats_the_number_of_the_run(folder: Path, run: str) -> None:
    found = json_of(seqrec("evaluate", run, "--json", cwd=folder))
    kept = json.loads((folder / run / "results.json").read_text())
    assert found == kept["test"]
    assert json_of(seqrec("evaluate", run, "--part", "validation", "--json", cwd=folder)) == kept["validation"]


def test_evaluate_a_baseline(folder: Path) -> None:
    found = seqrec("evaluate", "markov", "log.csv", *COLUMNS, cwd=folder)
    assert found.code == 0, found.err
    assert "NDCG" in found.out
    assert "every item of the catalogue ranked" in found.out


def test_recommend(folder: Path, run: str) -> None:
    assert "i9" in seqrec("recommend", run, "i6", "i7", "i8", "-k", "29", cwd=folder).out
    found = json_of(seqrec("recommend", run, "i6", "i7", "-k", "3", "--json", cwd=folder))
    assert len(found) == 3
    assert set(found[0]) == {"item", "title", "categories", "year", "score", "probability"}


def test_recommend_names_unknown_items_on_stderr_only(folder: Path, run: str) -> None:
    found = seqrec("recommend", run, "i6", "nonsense", "--json", cwd=folder)
    assert len(json_of(found)) == 10
    assert found.err.startswith("warning: Not in the catalogue, left out: 'nonsense'")


def test_runs_list_and_show(folder: Path, run: str) -> None:
    listed = json_of(seqrec("runs", "list", ".", "--json", cwd=folder))
    [mine] = [row for row in listed if row["run"] == run]
    assert (mine["model"], mine["seed"], mine["epochs"]) == ("sasrec", 42, 3)
    shown = json_of(seqrec("runs", "show", run, "--json", cwd=folder))
    assert set(shown) == {"format", "config", "environment", "data", "results", "epochs"}
    assert "gradient norm" in seqrec("runs", "show", run, cwd=folder).out
    assert "sasrec" in seqrec("runs", "list", ".", cwd=folder).out


def test_runs_list_of_nothing_says_how_to_begin(tmp_path: Path) -> None:
    assert "seqrec train" in seqrec("runs", "list", cwd=tmp_path).out
    assert json_of(seqrec("runs", "list", "--json", cwd=tmp_path)) == []


def test_runs_list_goes_past_a_damaged_run(folder: Path, run: str, tmp_path: Path) -> None:
    for name, text in (("broken", "{"), ("old", '{"format": 0}')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(text)
    (tmp_path / "fine").symlink_to(folder / run)
    found = seqrec("runs", "list", ".", "--json", cwd=tmp_path)
    assert [row["run"] for row in json_of(found)] == ["fine"]
    assert found.err.count("warning: ") == 2


# --- doctor and data


def test_doctor(tmp_path: Path) -> None:
    found = json_of(seqrec("doctor", "--json", cwd=tmp_path))
    assert found["problems"] == []
    assert found["cache"] == str(tmp_path / "cache")
    assert "Everything needed is here." in seqrec("doctor", cwd=tmp_path).out


def test_data_prepare_describe_and_list(folder: Path) -> None:
    prepared = seqrec("data", "prepare", "log.csv", *COLUMNS, cwd=folder)
    assert prepared.code == 0, prepared.err
    path = Path(prepared.out.split()[-1])
    assert (path / "facts.json").exists()
    described = json_of(seqrec("data", "describe", str(path), "--json", cwd=folder))
    assert described["users"] == 40
    assert described["folder"] == str(path)
    again = json_of(seqrec("data", "prepare", "log.csv", *COLUMNS, "--json", cwd=folder))
    assert described.pop("report")["order"]["cases"] == again["validation"]["cases"]
    assert again == described
    assert {"name": "ml-100k", "here": False} in json_of(seqrec("data", "list", "--json", cwd=folder))


def test_data_settings_are_typed_with_or_without_their_section(folder: Path) -> None:
    for key in ("k_core", "data.k_core"):
        found = json_of(seqrec("data", "prepare", "log.csv", *COLUMNS, "--set", f"{key}=0", "--json", cwd=folder))
        assert found["k_core"] == 0


# --- what goes wrong: one message on standard error and an exit code


TRAIN = ("train", "log.csv", "sasrec", *COLUMNS)


@pytest.mark.parametrize(
    ("code", "told", "command"),
    [
        (2, "Did you mean 'sasrec'", ("train", "log.csv", "sasrek", *COLUMNS)),
        (2, "no module 'nowhere'", ("train", "log.csv", "nowhere:Model", *COLUMNS)),
        (2, "Did you mean training.epochs?", (*TRAIN, "--set", "training.epoch=3")),
        (2, "Did you mean 'training'?", (*TRAIN, "--set", "trainin.epochs=3")),
        (2, "model.embedding_dim", (*TRAIN, "--set", "model.embedding_dim=wide")),
        (2, "KEY=VALUE", (*TRAIN, "--set", "training.epochs")),
        (2, "training.betas=[1", (*TRAIN, "--set", "training.betas=[1")),
        (2, "model.KEY=VALUE", (*TRAIN, "--set", "model=xlstm")),
        (2, "Unknown model '3'", (*TRAIN, "--set", "model.name=3")),
        (2, "needs the cut-off 10", (*TRAIN, "--set", "evaluation.ks=[5]")),
        (2, "Unknown preset", (*TRAIN, "--preset", "quickly")),
        (2, "--out names one folder", (*TRAIN, "--seeds", "--out", "x")),
        (2, "Did you mean 'popularity'", ("evaluate", "popularty", "log.csv", *COLUMNS)),
        (2, "validation or test", ("evaluate", "run", "--part", "train")),
        (2, "Did you mean 'ml-100k'", ("data", "prepare", "ml-100")),
        (3, "empty.csv", ("train", "empty.csv", "sasrec", *COLUMNS)),
        (3, "nobody", ("data", "prepare", "log.csv", "--user", "nobody")),
        (4, "not a run folder", ("recommend", "nothing_here", "i1")),
        (4, "not a run folder", ("runs", "show", "nothing_here")),
        (4, "not a run folder", ("train", "--resume", "nothing_here")),
        (4, "holds a run already", (*TRAIN, *SETTINGS, "--out", "run")),
        (4, "is finished", ("train", "--resume", "run")),
        (2, "leave out training.compile", ("train", "--resume", "run", "--compile", "off")),
        (6, "none of these is in the catalogue: 'what'", ("recommend", "run", "what")),
    ],
)
def test_an_error_is_one_message_and_an_exit_code(
    code: int, told: str, command: tuple[str, ...], folder: Path, run: str
) -> None:
    (folder / "empty.csv").write_text("uid,iid,ts\n")
    found = seqrec(*command, cwd=folder)
    assert found.code == code, found
    assert told in found.err
    assert found.err.startswith("error: ")
    assert found.err.count("error: ") == 1
    assert "Traceback" not in found.err


def test_misspelt_runs_are_not_taken_for_baselines_on_downloaded_data(tmp_path: Path) -> None:
    found = seqrec("evaluate", "runs/misspelt", cwd=tmp_path)
    assert found.code == 2, found
    assert "runs/misspelt" in found.err
    assert not (tmp_path / "cache").exists()


def test_words_in_brackets_are_shown_as_they_are(tmp_path: Path) -> None:
    """Titles are not markup: `[rec]` would vanish and `[/rec]` would be an error."""
    lines = ["uid,iid,ts"] + [
        f"u{user},{item},{1_600_000_000 + time}" for user in range(9) for time, item in enumerate(TITLES)
    ]
    (tmp_path / "films.csv").write_text("\n".join(lines) + "\n")
    found = seqrec("train", "films.csv", "popularity", *COLUMNS, "--out", "run", cwd=tmp_path)
    assert found.code == 0, found.err
    shown = seqrec("recommend", "run", "[rec]", cwd=tmp_path)
    assert shown.code == 0, shown.err
    for title in TITLES[1:]:
        assert title in shown.out
    assert "User u" in found.out
    assert re.search(r"last saw: .*\[rec\]", found.out)


TITLES = ["[rec]", "[/rec] again", ":smile: [bold]loud", "plain", "Se7en", "[link=x]here"]


def test_the_installed_script_is_the_same_door(tmp_path: Path) -> None:
    environment = {**os.environ, "SEQREC_CACHE": str(tmp_path / "cache")}
    found = subprocess.run(
        [seqrec_script(), "data", "prepare", "ml-100"], cwd=tmp_path, capture_output=True, text=True, env=environment
    )
    assert found.returncode == 2
    assert found.stdout == ""
    assert found.stderr.startswith("error: Unknown data set or file 'ml-100'. Did you mean 'ml-100k'?")
