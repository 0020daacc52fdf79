"""The study without workers: what is stopped when, what a restart knows, what is proposed twice."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seqrec.config import Choice, Range
from seqrec.errors import RunFolderError
from seqrec.experiments.tune.report import TrialRow, changed, ranked, rows_of, train_command
from seqrec.experiments.tune.study import Plan, Study, alone_in

pytest.importorskip("optuna")

SPACE: dict[str, Choice | Range] = {"model.dropout": Range(0.0, 0.5), "training.schedule": Choice("constant", "cosine")}
FIRST = {"model.dropout": 0.4, "training.schedule": "constant"}


def study(out: Path, space: Mapping[str, Any] = SPACE, epochs: int = 18, reduction: int = 3) -> Study:
    plan = Plan("data", {}, {}, "ndcg@10", epochs, reduction, seed=1)
    return Study(plan, dict(space), {key: FIRST[key] for key in space}, out)


def test_trial_0_is_what_there_is_and_is_never_stopped(tmp_path: Path) -> None:
    mine = study(tmp_path)
    first, second = mine.propose(), mine.propose()
    assert first is not None
    assert second is not None
    assert mine.settings(first) == FIRST
    assert mine.settings(second) != FIRST
    assert not any(mine.hear(second, epoch, 0.9) for epoch in range(1, 19))
    assert not any(mine.hear(first, epoch, 0.1) for epoch in range(1, 19))


def test_stopping_is_that_of_asynchronous_successive_halving(tmp_path: Path) -> None:
    """Against the rule written down again: at epochs 2 and 6 of 18, the best third of those that came there goes on."""
    random = np.random.default_rng(0)
    mine = study(tmp_path)
    seen: dict[int, list[float]] = {2: [], 6: [], 18: []}
    for number in range(14):
        trial = mine.propose()
        assert trial is not None
        best, values = 0.0, random.random(18).round(4)
        for epoch, value in enumerate(values, start=1):
            best = max(best, value)
            stop = False
            if epoch in seen:
                seen[epoch].append(best)
                better = sorted(seen[epoch], reverse=True)
                stop = best < better[max(1, len(better) // 3) - 1]
            assert mine.hear(trial, epoch, float(value)) == (stop and number > 0)
            if stop and number > 0:
                mine.end(trial, "stopped early", validation=best)
                break
        else:
            mine.end(trial, "finished", validation=best)
    states = [row.state for row in rows_of(mine)]
    assert states.count("stopped early") >= 5
    assert states.count("finished") >= 2


def test_a_restart_goes_on_with_what_ran(tmp_path: Path) -> None:
    mine = study(tmp_path)
    done, running = mine.propose(), mine.propose()
    assert done is not None
    assert running is not None
    mine.hear(running, 1, 0.3)
    mine.end(done, "finished", validation=0.2, epochs=18, best_epoch=4, seconds=1.25, parameters=10)
    (tmp_path / "journal.log.lock").symlink_to(tmp_path / "journal.log")  # its holder was killed
    whole = (tmp_path / "journal.log").read_bytes()
    (tmp_path / "journal.log").write_bytes(whole + b'{"op_code"')

    again = study(tmp_path)
    (other,) = again.interrupted()
    assert other.number == running.number
    assert again.settings(other) == mine.settings(running)
    assert not again.hear(other, 1, 0.1), "an epoch that was trained again is known already"
    first, second = rows_of(again)
    assert (first.state, first.validation, first.epochs, first.best_epoch) == ("finished", 0.2, 18, 4)
    assert (second.state, second.validation, second.epochs) == ("interrupted", 0.3, 1)
    again.end(other, "finished", validation=0.4)
    assert [row.state for row in rows_of(study(tmp_path))] == ["finished", "finished"]


def test_a_trial_that_was_killed_while_it_was_proposed_is_forgotten(tmp_path: Path) -> None:
    mine = study(tmp_path)
    mine._study.ask({})  # without its settings
    assert mine.interrupted() == []
    assert rows_of(mine) == []
    assert mine.propose() is not None


def test_nothing_is_proposed_twice(tmp_path: Path) -> None:
    mine = study(tmp_path, {"training.schedule": SPACE["training.schedule"]})
    found = []
    while (trial := mine.propose()) is not None:
        found.append(mine.settings(trial)["training.schedule"])
        mine.end(trial, "finished", validation=0.1)
    assert sorted(found) == ["constant", "cosine"]
    assert len(rows_of(mine)) == 2


def test_accidents_teach_the_sampler_nothing_and_misfits_do(tmp_path: Path) -> None:
    mine = study(tmp_path)
    for state in ("failed", "invalid"):
        trial = mine.propose()
        assert trial is not None
        mine.end(trial, state, error="why")
    assert [trial.state.name for trial in mine.trials()] == ["FAIL", "PRUNED"]
    assert [(row.state, row.error, row.validation) for row in rows_of(mine)] == [
        ("failed", "why", None),
        ("invalid", "why", None),
    ]


def test_a_restart_does_not_draw_the_same_again(tmp_path: Path) -> None:
    drawn = []
    for _ in range(4):
        trial = study(tmp_path).propose()
        assert trial is not None
        drawn.append(trial.params["model.dropout"])
    assert len(set(drawn)) == 4


def test_a_folder_keeps_one_plan(tmp_path: Path) -> None:
    plan = Plan("data", {}, {"a": (1, 2)}, "ndcg@10", 18, 3, 1)
    plan.keep(tmp_path)
    plan.keep(tmp_path)
    with pytest.raises(RunFolderError, match="other data, reduction"):
        Plan("other", {}, {"a": (1, 2)}, "ndcg@10", 18, 2, 1).keep(tmp_path)


@pytest.mark.parametrize("bytes_", [b"{", b"\xff\n"])
def test_a_journal_that_is_damaged_says_what_to_do(bytes_: bytes, tmp_path: Path) -> None:
    study(tmp_path).propose()
    lines = (tmp_path / "journal.log").read_bytes().splitlines(keepends=True)
    (tmp_path / "journal.log").write_bytes(b"".join([lines[0], bytes_, *lines[1:]]))
    with pytest.raises(RunFolderError, match=r"journal\.log is damaged .* another --out"):
        study(tmp_path)


def test_one_process_holds_a_folder(tmp_path: Path) -> None:
    with alone_in(tmp_path), pytest.raises(RunFolderError, match="another seqrec tune"), alone_in(tmp_path):
        pass
    with alone_in(tmp_path):
        pass


def test_the_best_come_first_without_those_that_failed() -> None:
    values = (("finished", 0.1), ("invalid", None), ("stopped early", 0.3), ("finished", 0.3), ("failed", 0.4))
    rows = [TrialRow(n, state, value, 1, None, 1.0, {"a": n}) for n, (state, value) in enumerate(values)]
    assert [row.number for row in ranked(rows)] == [2, 3, 0], "what failed in the end would fail again"
    assert changed({"a": 1, "b": 2}, {"a": 1, "b": 3}) == {"b": 2}


def test_the_command_that_trains_it() -> None:
    changes = {
        "training.betas": (0.9, 0.98),
        "training.batch_size": None,
        "loss.name": "softmax",
        "model.dropout": 1e-5,
    }
    assert train_command("my data", "lstm", "quick", changes) == (
        "seqrec train 'my data' lstm --preset quick --set 'training.betas=[0.9, 0.98]' --set training.batch_size=null "
        "--set loss.name=softmax --set model.dropout=1e-05 --seeds"
    )
