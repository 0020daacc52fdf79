"""Ablations: which features a run has, and what switching them off shows, on data where one of them must matter."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import seqrec
from seqrec.errors import ConfigError, DataError, UnknownNameError
from seqrec.evaluation.significance import paired_test
from seqrec.experiments.ablate.features import Feature, chosen, features_of, switches_of
from seqrec.experiments.ablate.run import ablate
from seqrec.experiments.ablate.table import Ablation, AblationRow, Drop
from seqrec.experiments.ablate.write import to_html, to_markdown
from seqrec.experiments.compare.table import Test as PairTest
from seqrec.experiments.config import RunConfig, settings_for
from seqrec.experiments.seeds import Spread
from seqrec.losses import LOSSES
from seqrec.models import MODELS
from seqrec.registry import resolve

PLANTED = ["positions", "weight_decay", "schedule", "mixture"]
SEEDS = [1, 2]


def config(model: str = "sasrec", **changes: Any) -> RunConfig:
    return RunConfig.from_dict(
        settings_for("x", model, "none", {key.replace("__", "."): v for key, v in changes.items()})
    )


def by_name(run: RunConfig) -> dict[str, Feature]:
    return {feature.name: feature for feature in features_of(run)}


# --- what can be switched off


def test_a_feature_says_what_it_changes() -> None:
    found = by_name(config("xlstm", model__forget_bias=[3, 6]))
    assert found["conv"] == Feature("conv", {"model.conv_width": (4, 0)})
    assert found["conv"].off == {"model.conv_width": 0}
    assert found["conv"].words == "conv_width 4 to 0"
    assert found["forget_bias"].words == "forget_bias 3 and 6 to 0 and 0"
    assert found["gate_cap"].words == "gate_cap 15 to none"
    assert found["head_norm"].words == "head_norm on to off"
    assert found["cosine"].off == {"model.similarity": "dot"}
    assert {"smoothing", "ema", "windows", "weight_decay", "dropout"} <= found.keys()


def test_what_is_off_is_skipped() -> None:
    found = by_name(config("xlstm", model__conv_width=0, loss__label_smoothing=0.1))
    assert found["conv"].skipped == "it is off already"
    assert found["smoothing"].skipped == ""
    assert found["smoothing"].off == {"loss.label_smoothing": 0}


def test_what_is_not_there_is_skipped() -> None:
    assert by_name(config("sasrec"))["item_bias"].skipped == "it is there only with similarity dot"
    assert by_name(config("sasrec", model__similarity="dot"))["item_bias"].skipped == ""
    assert "output_gate" in by_name(config("xlstm"))
    assert by_name(config("xlstm", model__projection="pre"))["output_gate"].skipped != ""


def test_two_names_of_one_change_are_trained_once() -> None:
    alone, both = by_name(config()), by_name(config(training__item_dropout=0.1))
    assert alone["augmentation"].skipped == "here it is the same as windows"
    assert both["augmentation"].off == {"training.random_windows": False, "training.item_dropout": 0}


def test_what_other_settings_forbid_is_skipped() -> None:
    settings = {"loss__name": "contrastive", "loss__augmentations": []}
    assert by_name(config(**settings))["dropout"].skipped.startswith("the others do not allow it: loss.augmentations")


def test_names() -> None:
    run = config("xlstm")
    assert [feature.name for feature in chosen(run, ["ema", "conv"])] == ["ema", "conv"]
    with pytest.raises(UnknownNameError, match=r"feature of xlstm 'convolution'\. Did you mean 'conv'\?"):
        chosen(run, ["convolution"])
    with pytest.raises(ConfigError, match="twice"):
        chosen(run, ["ema", "ema"])
    with pytest.raises(ConfigError, match=r"nothing to switch off in this xlstm \(smoothing: it is off already\)"):
        chosen(run, ["smoothing"])
    with pytest.raises(ConfigError, match="nothing to switch off in this popularity"):
        chosen(config("popularity"))


def test_a_class_adds_to_what_it_is_built_on() -> None:
    assert {"conv", "feedforward", "cosine", "dropout"} <= switches_of(resolve("model", "xlstm", MODELS).Config).keys()
    assert {"contrast", "smoothing"} <= switches_of(resolve("loss", "contrastive", LOSSES).Config).keys()


# --- what is found, where what comes next depends on the event before the last


def write_order_log(path: Path, people: int = 150) -> Path:
    """Two interleaved walks: an event follows from the last but one, nine times out of ten."""
    random = np.random.default_rng(0)
    after = random.permutation(12)
    lines = ["uid,iid,ts"]
    for user in range(people):
        items = [int(item) for item in random.integers(0, 12, 2)]
        while len(items) < 20:
            items.append(int(after[items[-2]]) if random.random() < 0.9 else int(random.integers(12)))
        lines += [f"u{user},i{item},{time}" for time, item in enumerate(items)]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a small SASRec; its schedule never comes to its first step, and its weight decay is none to speak of."""
    folder = tmp_path_factory.mktemp("planted")
    model = {"embedding_dim": 16, "max_length": 6, "num_blocks": 1, "num_heads": 1, "dropout": 0.0}
    training = {"epochs": 20, "batch_size": 32, "learning_rate": 0.01, "warmup_steps": 0, "ema_decay": 0.9}
    training |= {"weight_decay": 1e-6, "schedule": "step", "step_epochs": 50}
    settings = {"model": model, "training": training, "evaluation": {"filter_seen": False}}
    columns = {"user": "uid", "item": "iid", "time": "ts", "time_unit": "order", "k_core": 0, "repeats": "keep"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEQREC_CACHE", str(folder / "cache"))
        log = write_order_log(folder / "log.csv")
        seqrec.train(log, "sasrec", settings=settings, seed=SEEDS[0], out=folder / "run", device="cpu", **columns)
    return folder / "run"


@pytest.fixture(scope="module")
def done(planted: Path) -> tuple[Ablation, Path, list[str]]:
    out, said = planted.parent / "out", list[str]()
    return ablate(planted, PLANTED, seeds=SEEDS, out=out, jobs=2, device="cpu", report=said.append), out, said


def test_what_must_matter_is_shown_to_help(done: tuple[Ablation, Path, list[str]]) -> None:
    found = done[0]
    assert found.failures == ()
    assert found.seeds == (1, 2)
    positions = next(row for row in found.rows if row.feature == "positions")
    assert positions is found.rows[0], "the largest drop comes first"
    assert positions.verdict == "helps"
    assert positions.changes == {"model.positions": (True, False)}
    for drop in (positions.validation, positions.test):
        assert drop.test.difference > 0.1
        assert drop.test.p_holm < 0.01
        assert drop.test.low > 0
        assert drop.agreeing == 2
    assert positions.test.without.mean == pytest.approx(found.test.mean - positions.test.test.difference)
    assert positions.validation.without.mean == pytest.approx(
        found.validation.mean - positions.validation.test.difference
    )


def test_what_does_not_matter_is_not(done: tuple[Ablation, Path, list[str]]) -> None:
    rows = {row.feature: row for row in done[0].rows}
    assert rows["weight_decay"].verdict in ("not shown", "changes nothing")
    assert rows["schedule"].verdict == "changes nothing"
    assert rows["schedule"].test.test.difference == 0
    assert rows["schedule"].test.by_seed == (0, 0)


def test_what_is_off_already_is_told_and_not_trained(done: tuple[Ablation, Path, list[str]]) -> None:
    found, out, _ = done
    assert found.skipped == {"mixture": "it is off already"}
    assert not list((out / "runs").glob("*mixture*"))


def test_drops_are_those_of_the_people(done: tuple[Ablation, Path, list[str]]) -> None:
    found, out, _ = done
    for part in ("validation", "test"):
        values = {}
        for label in ("the_run", "without_positions"):
            each = []
            for seed in SEEDS:
                (folder,) = (out / "runs").glob(f"*-{label}-{seed}")
                table = pq.read_table(folder / f"per_user.{part}.parquet").to_pydict()
                ranks = dict(zip(table["user"], table["rank"], strict=True))
                each.append([1 / np.log2(r + 1) if 0 < r <= 10 else 0 for _, r in sorted(ranks.items())])
            values[label] = np.array(each)
        drop = getattr(found.rows[0], part)
        by_seed = values["the_run"].mean(1) - values["without_positions"].mean(1)
        assert drop.by_seed == pytest.approx(tuple(by_seed))
        test = paired_test(values["the_run"].mean(0), values["without_positions"].mean(0))
        assert drop.test.difference == pytest.approx(test.difference)
        assert drop.test.p_holm <= 3 * test.p_permutation


def test_a_whole_run_stands_for_its_own_seed(done: tuple[Ablation, Path, list[str]], planted: Path) -> None:
    _, out, said = done
    assert f"{planted} stands for seed 1" in said
    assert not list((out / "jobs").glob("*the_run-1.json")), "not trained again"
    assert list((out / "jobs").glob("*the_run-2.json"))
    (copy,) = (out / "runs").glob("*the_run-1")
    assert (copy / "results.json").read_bytes() == (planted / "results.json").read_bytes()


def test_an_unfinished_ablation_goes_on(done: tuple[Ablation, Path, list[str]], planted: Path, tmp_path: Path) -> None:
    found, out, _ = done
    shutil.copytree(out, tmp_path / "out")
    (lost,) = (tmp_path / "out" / "runs").glob("*without_positions-2")
    shutil.rmtree(lost)
    said: list[str] = []
    again = ablate(planted, PLANTED, seeds=SEEDS, out=tmp_path / "out", device="cpu", report=said.append)
    assert again == found
    assert said[0] == "7 of 8 runs are there already"
    assert len(said) == 2


def test_other_epochs_are_another_run(done: tuple[Ablation, Path, list[str]], planted: Path) -> None:
    with pytest.raises(ConfigError, match="holds a run of other settings"):
        ablate(planted, ["positions"], seeds=SEEDS, out=done[1], device="cpu", epochs=1)


class Stopped(Exception):
    """Before anything is trained."""


def stop(*arguments: Any) -> None:
    raise Stopped


@pytest.mark.parametrize(
    ("without", "options", "stands"),
    [
        (None, {}, True),
        (None, {"seeds": [2, 3]}, False),
        (None, {"epochs": 1}, False),
        ("results.json", {}, False),
        ("per_user.validation.parquet", {}, False),
    ],
)
def test_only_a_whole_run_of_these_settings_stands_for_its_seed(
    planted: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    without: str | None,
    options: dict[str, Any],
    stands: bool,
) -> None:
    monkeypatch.setattr("seqrec.experiments.ablate.run.compare", stop)
    shutil.copytree(planted, tmp_path / "run")
    if without:
        (tmp_path / "run" / without).unlink()
    with pytest.raises(Stopped):
        ablate(tmp_path / "run", ["schedule"], out=tmp_path / "out", **{"seeds": [1, 2], **options})
    assert bool(list((tmp_path / "out").glob("runs/*the_run-1"))) == stands


def test_a_soup_stands_for_no_seed(planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seqrec.experiments.ablate.run.compare", stop)
    shutil.copytree(planted, tmp_path / "soup")
    results = json.loads((tmp_path / "soup" / "results.json").read_text())
    results["training"]["members"] = []
    (tmp_path / "soup" / "results.json").write_text(json.dumps(results))
    with pytest.raises(Stopped):
        ablate(tmp_path / "soup", ["schedule"], seeds=[1, 2], out=tmp_path / "out")
    assert not list((tmp_path / "out").glob("runs/*"))


def test_pages(done: tuple[Ablation, Path, list[str]]) -> None:
    found, out, _ = done
    facts = json.loads((out / "ablation.json").read_text())
    assert facts["rows"][0]["feature"] == "positions"
    assert facts["rows"][0]["changes"] == {"model.positions": [True, False]}
    assert facts["rows"][0]["test"]["test"]["p_holm"] == found.rows[0].test.test.p_holm
    markdown, html = (out / "ablation.md").read_text(), (out / "ablation.html").read_text()
    for page in (markdown, html):
        assert "positions on to off" in page
        assert "Shown to help: positions" in page
        assert "it is off already" in page
    assert "<svg" in html
    assert (out / "comparison.html").exists()
    assert "trained for at most 1 epochs" in to_markdown(replace(found, epochs=1))


# --- what is said of made-up drops


def drop(difference: float, verdict: Any, *by_seed: float) -> Drop:
    ends = (difference, difference - 0.01, difference + 0.01)
    test = PairTest("x", "x", "test", "a", "b", *ends, 0.01, 0.01, 0.02, 0.1, 90, 2, verdict)
    return Drop(Spread(0.1, 0.01), test, by_seed)


def test_a_verdict_needs_every_seed() -> None:
    assert drop(0.02, "better", 0.01, 0.03).verdict == "helps"
    assert drop(-0.02, "worse", -0.01, -0.03).verdict == "hurts"
    assert drop(0.02, "better", -0.01, 0.05).verdict == "not shown"
    assert drop(0.02, "better", 0.0, 0.04).verdict == "not shown"
    assert drop(0.02, "no difference shown", 0.01, 0.03).verdict == "not shown"


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"seeds": [1, 1]}, "seeds: a seed is there twice"),
        ({"seeds": [-1]}, r"seeds\.0: .*greater than or equal to 0"),
        ({"seeds": []}, "seeds: "),
        ({"epochs": 0}, "epochs"),
        ({"features": ["mixture"]}, "nothing to switch off in this sasrec"),
    ],
    ids=str,
)
def test_what_is_wrong_is_said_before_anything_is_made(
    planted: Path, tmp_path: Path, wrong: dict[str, Any], why: str
) -> None:
    with pytest.raises(ConfigError, match=why):
        ablate(planted, **{"features": ["positions"], "out": tmp_path / "out", **wrong})
    assert not (tmp_path / "out").exists()


def test_no_folder_for_it(planted: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    before = sorted(planted.rglob("*"))
    for out, why in ((planted, "this is a run"), (tmp_path / "file" / "out", "no folder can be there")):
        with pytest.raises(ConfigError, match=why):
            ablate(planted, ["positions"], out=out)
    assert sorted(planted.rglob("*")) == before


def test_data_that_are_gone_and_data_that_are_others(planted: Path, tmp_path: Path) -> None:
    shutil.copytree(planted, tmp_path / "run")
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    facts["data"]["folder"] = str(tmp_path / "nowhere")
    facts["config"]["data"]["source"] = str(tmp_path / "log.csv")
    (tmp_path / "run" / "run.json").write_text(json.dumps(facts))
    with pytest.raises(DataError, match=r"The data of .*run is gone: .*nowhere; and its source, .* is not there"):
        ablate(tmp_path / "run", ["positions"], out=tmp_path / "out", device="cpu")
    write_order_log(tmp_path / "log.csv", people=140)
    with pytest.raises(DataError):
        ablate(tmp_path / "run", ["positions"], out=tmp_path / "out", device="cpu")
    assert not (tmp_path / "out").exists()


def test_pages_of_odd_names_and_of_nothing() -> None:
    line = AblationRow(
        "<b>|", {}, "x | y", drop(-0.02, "worse", -0.01, -0.03), drop(-0.02, "worse", -0.02, -0.02), "hurts"
    )
    facts = Ablation(
        "runs/<i>", "A & B", "ndcg@10", 0.05, (1, 2), Spread(0.1, 0), Spread(0.1, 0), (line,), {}, (), "how"
    )
    assert "Shown to hurt: &lt;b&gt;|" in to_html(facts)
    assert "<b>" not in to_html(facts)
    assert "\\<b\\>\\|" in to_markdown(facts)
    bare = replace(facts, rows=(), failures=("without conv: no memory",))
    assert "without conv: no memory" in to_html(bare)
    assert "without conv: no memory" in to_markdown(bare)
    assert "<svg" not in to_html(bare)
