"""Every schedule against torch's of the same name or its closed form."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR, ReduceLROnPlateau, StepLR

from seqrec.training.config import TrainingConfig
from seqrec.training.schedule import after_evaluation, scheduled_learning_rate

STEPS = 7  # of an epoch
SCHEDULES = ("constant", "step", "plateau", "linear", "cosine", "one_cycle", "wsd")


def config(schedule: str, **settings: Any) -> TrainingConfig:
    return TrainingConfig(**{"learning_rate": 0.4, "warmup_steps": 0, "epochs": 10, "schedule": schedule, **settings})


def rates(settings: TrainingConfig, steps: int = STEPS) -> list[float]:
    """Of every step of all epochs."""
    last = settings.epochs * steps
    return [scheduled_learning_rate(settings, step, step // steps, steps) for step in range(last)]


def theirs(make: Any, steps: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.4)
    scheduler, found = make(optimizer), []
    for _ in range(steps):
        found.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return found


def test_the_learning_rate_rises_and_stays() -> None:
    settings = config("constant", warmup_steps=4, epochs=1)
    assert rates(settings) == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4, 0.4])
    assert rates(config("constant", epochs=1)) == [0.4] * STEPS


def test_steps_fall_where_those_of_torch_do() -> None:
    found = rates(config("step", step_epochs=3, step_factor=0.1))
    assert found[::STEPS] == pytest.approx(theirs(lambda o: StepLR(o, step_size=3, gamma=0.1), 10))


def test_a_fall_during_the_warm_up_lowers_what_it_rises_to() -> None:
    settings = config("step", warmup_steps=4, step_epochs=1, epochs=5)
    assert rates(settings, steps=1) == pytest.approx([0.1, 0.2 / 2, 0.3 / 4, 0.4 / 8, 0.4 / 16])


def test_the_line_falls_epoch_by_epoch_towards_zero() -> None:
    assert rates(config("linear", warmup_steps=2, epochs=4), steps=3)[::3] == pytest.approx([0.2, 0.3, 0.2, 0.1])


def test_cosine_is_that_of_torch_after_the_warm_up() -> None:
    expected = theirs(lambda o: CosineAnnealingLR(o, T_max=70), 70)
    assert rates(config("cosine")) == pytest.approx(expected, abs=1e-12)
    found = rates(config("cosine", warmup_steps=20))
    assert found[:20] == pytest.approx([0.4 * (step + 1) / 20 for step in range(20)])
    assert found[20:] == pytest.approx(theirs(lambda o: CosineAnnealingLR(o, T_max=50), 50), abs=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7, 50])
def test_one_cycle_is_that_of_torch(steps: int) -> None:
    total = 10 * steps
    expected = theirs(lambda o: OneCycleLR(o, 0.4, total_steps=total, cycle_momentum=False), total - 1)
    assert rates(config("one_cycle", warmup_steps=100), steps)[:-1] == pytest.approx(expected, abs=1e-12)
    assert rates(config("one_cycle"), steps)[-1] == pytest.approx(0.4 / 25 / 1e4)


def test_stable_then_decay() -> None:
    found = rates(config("wsd", decay_share=0.2, warmup_steps=7))
    assert found[:7] == pytest.approx([0.4 * (step + 1) / 7 for step in range(7)])
    assert found[7:57] == pytest.approx([0.4] * 50)
    assert found[56:] == pytest.approx([0.4 * (70 - step) / 14 for step in range(56, 70)])
    assert rates(config("wsd", decay_share=1.0)) == pytest.approx([0.4 * (1 - step / 70) for step in range(70)])
    assert rates(config("wsd", decay_share=1e-6, epochs=1), steps=3) == pytest.approx([0.4] * 3)


@given(values=st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4]), max_size=40), patience=st.integers(0, 3))
def test_plateaus_are_those_of_torch(values: list[float], patience: int) -> None:
    settings = config("plateau", plateau_patience=patience, step_factor=0.3)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.4)
    scheduler = ReduceLROnPlateau(optimizer, mode="max", factor=0.3, patience=patience, threshold=0, eps=0)
    best, fallen, waited = -math.inf, 1.0, 0
    for value in values:
        scheduler.step(value)
        fallen, waited = after_evaluation(settings, fallen, waited, value > best)
        best = max(best, value)
        assert scheduled_learning_rate(settings, 5, 0, STEPS, fallen) == pytest.approx(optimizer.param_groups[0]["lr"])


def test_other_schedules_do_not_look_at_plateaus() -> None:
    assert after_evaluation(config("cosine"), 1.0, 0, improved=False) == (1.0, 0)
    assert scheduled_learning_rate(config("cosine"), 0, 0, STEPS, fallen=0.1) == 0.4


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("steps", "epochs", "warmup"), [(1, 1, 0), (1, 1, 100), (3, 2, 5), (2, 50, 10)])
def test_no_schedule_leaves_its_range(schedule: str, steps: int, epochs: int, warmup: int) -> None:
    settings = config(schedule, epochs=epochs, warmup_steps=warmup)
    found = rates(settings, steps)
    assert all(0 < rate <= 0.4 * (1 + 1e-12) for rate in found)
    assert 0 <= scheduled_learning_rate(settings, steps * epochs + 3, epochs, steps) <= 0.4  # of more epochs than meant
