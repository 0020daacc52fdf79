"""CONTRIBUTING.md works: its files are written beside a log, and its scripts are run there."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

import seqrec

TEXT = (Path(__file__).parent.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"<!-- (file|run): (\S+) -->\n```python\n(.*?)```\n", TEXT, re.DOTALL)
FILES = {name: code for kind, name, code in BLOCKS if kind == "file"}
SCRIPTS = {name: code for kind, name, code in BLOCKS if kind == "run"}


@pytest.fixture
def desk(small_log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files of the page and `log.csv`, in which Python finds modules."""
    for name, code in FILES.items():
        (tmp_path / name).write_text(code, encoding="utf-8")
        monkeypatch.delitem(sys.modules, Path(name).stem, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def run(name: str, desk: Path, capsys: pytest.CaptureFixture[str]) -> str:
    script = desk / f"run_{name}.py"
    script.write_text(SCRIPTS[name], encoding="utf-8")
    runpy.run_path(str(script), run_name="__main__")
    return capsys.readouterr().out.strip()


def test_every_block_of_the_page_is_known() -> None:
    assert list(FILES) == ["bag_model.py", "focal_loss.py", "first_place.py", "two_shops.py"]
    assert list(SCRIPTS) == ["model", "loss", "metric", "data"]
    assert TEXT.count("```python") == len(BLOCKS)


def test_a_model(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = run("model", desk, capsys)
    assert out.startswith("['finite_scores', 'padding_invariance', ")
    assert "resumes_bit_for_bit" in out
    assert "overfits_and_moves" in out


def test_a_loss(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ndcg = float(run("loss", desk, capsys))
    found = seqrec.Run(desk / "with_focal_loss")
    assert ndcg == found.metrics["ndcg@10"]
    assert 0 < ndcg < 1
    assert found.config.loss_name == "focal_loss:FocalLoss"
    assert found.facts["config"]["loss"]["gamma"] == 1.0


def test_a_metric(desk: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(seqrec.ACCURACY, "first_place", "")  # so that it is taken out again
    value = float(run("metric", desk, capsys))
    data = seqrec.load_data("log.csv", user="uid", item="iid", time="ts")
    assert value == seqrec.evaluate("markov", data).metrics["recall@1"] > 0


def test_a_data_set(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("data", desk, capsys) == "40 20"


def test_lines_for_the_tables_name_things_that_exist(desk: Path) -> None:
    [(name, target)] = re.findall(r'is `"(\w+)": "([\w.:]+)"`', TEXT)
    assert name not in seqrec.MODELS
    assert target.endswith(":Bag")
    for file in re.findall(r"`(src/seqrec/[\w/]+\.py)`", TEXT):
        assert (Path(__file__).parent.parent / file).exists()
