"""Views of histories, InfoNCE against a loop, and its place in a step."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from loss_cases import random_case
from seqrec.data.batches import NO_TIME, Batch
from seqrec.data.sequences import PAD
from seqrec.distributed import Ranks
from seqrec.errors import ConfigError
from seqrec.experiments.config import RunConfig
from seqrec.losses import contrastive
from seqrec.losses.contrastive import ContrastiveConfig, ContrastiveLoss, info_nce
from seqrec.losses.softmax import SoftmaxConfig, SoftmaxLoss
from seqrec.models.base import ItemVectors
from seqrec.training.step import Step
from test_training_step import made, on_gpu, run
from training import same, trained

HISTORIES = [[7], [3, 5], list(range(10, 20)), list(range(30, 37))]
CAUSES = ("crop", "mask", "reorder")


def of(**settings: Any) -> ContrastiveLoss:
    return ContrastiveLoss(ContrastiveConfig(**settings))


def batch() -> Batch:
    """Each event one second after the one before it, and its item in the time and as its rating."""
    times = [[1000 * t + item for t, item in enumerate(row)] for row in HISTORIES]
    return Batch.of(HISTORIES, times=times, values=[[float(item) for item in row] for row in HISTORIES])


def rows(view: Batch) -> list[list[int]]:
    behind = ~view.valid
    assert not view.items[behind].any()
    assert view.times is not None
    assert (view.times[behind] == NO_TIME).all()
    assert view.values is not None
    assert view.values[behind].isnan().all()
    return [row[:length] for row, length in zip(view.items.tolist(), view.lengths.tolist(), strict=True)]


def altered(name: str, share: float, seed: int) -> Batch:
    torch.manual_seed(seed)
    return getattr(contrastive, name)(batch(), share).of(batch())


def same_events(view: Batch) -> None:
    """An event keeps its time and its rating, wherever it goes."""
    assert view.times is not None
    assert view.values is not None
    visible = view.valid & (view.items != PAD)
    assert torch.equal(view.times[visible] % 1000, view.items[visible])
    assert torch.equal(view.values[visible].long(), view.items[visible])
    assert torch.equal(view.values[view.valid].long(), view.times[view.valid] % 1000)


@pytest.mark.parametrize("share", [0.1, 0.6, 1.0])
def test_a_crop_is_a_run_of_events_and_starts_anywhere(share: float) -> None:
    starts = set()
    for seed in range(60):
        view = altered("crop", share, seed)
        same_events(view)
        for found, whole in zip(rows(view), HISTORIES, strict=True):
            assert len(found) == max(1, int(len(whole) * share))
            start = whole.index(found[0])
            assert found == whole[start : start + len(found)]
        starts.add(rows(view)[2][0] - 10)
    assert starts == set(range(10 - max(1, int(10 * share)) + 1))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_mask_hides_a_share_of_events_anywhere(share: float) -> None:
    hidden = set()
    for seed in range(60):
        view = altered("mask", share, seed)
        same_events(view)
        assert view.lengths.tolist() == [len(row) for row in HISTORIES]
        for found, whole in zip(rows(view), HISTORIES, strict=True):
            assert found.count(PAD) == int(len(whole) * share)
            assert all(item in (PAD, other) for item, other in zip(found, whole, strict=True))
        hidden |= {place for place, item in enumerate(rows(view)[2]) if item == PAD}
    assert hidden == (set(range(10)) if share else set())


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_reordering_shuffles_a_run_and_nothing_else(share: float) -> None:
    moved = set()
    for seed in range(100):
        view = altered("reorder", share, seed)
        same_events(view)
        for found, whole in zip(rows(view), HISTORIES, strict=True):
            assert sorted(found) == whole
            places = [place for place, item in enumerate(found) if item != whole[place]]
            assert not places or max(places) - min(places) < int(len(whole) * share)
        moved |= {place for place, item in enumerate(rows(view)[2]) if item != place + 10}
    assert moved == (set(range(10)) if share else set())


def test_two_views_differ_and_use_all_augmentations_and_nothing_else() -> None:
    kinds = dict.fromkeys(CAUSES, False)
    loss = of()
    torch.manual_seed(0)
    for _ in range(20):
        first, second = loss.views(batch())
        assert rows(first) != rows(second)
        for found in rows(first)[2:]:
            kinds["crop"] |= len(found) < 7
            kinds["mask"] |= PAD in found
            kinds["reorder"] |= PAD not in found and found != sorted(found)
    assert all(kinds.values())
    for _ in range(20):
        assert all(len(row) == 10 for row in [rows(of(augmentations=("mask",)).views(batch())[0])[2]])
    given = batch()
    assert of(augmentations=()).views(given) == (given,)


def test_views_follow_the_seed() -> None:
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append([rows(view) for view in of().views(batch())])
    assert found[0] == found[1] != found[2]


def slow_info_nce(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    views = [x / x.square().sum().sqrt() for x in (*first, *second)]
    B, losses = len(first), []
    for v, view in enumerate(views):
        scores = [(view * other).sum() / temperature for w, other in enumerate(views) if w != v]
        pair = (view * views[(v + B) % (2 * B)]).sum() / temperature
        losses.append(torch.stack(scores).exp().sum().log() - pair)
    return torch.stack(losses).mean()


@pytest.mark.parametrize("rows", [1, 2, 7])
def test_info_nce_is_that_of_a_loop(rows: int) -> None:
    first, second = (random_case(seed, rows, 1, 3, width=4)[0][:, 0].requires_grad_() for seed in (1, 2))
    found, expected = info_nce(first, second, 0.3), slow_info_nce(first, second, 0.3)
    torch.testing.assert_close(found, expected)
    for gradient, other in zip(
        torch.autograd.grad(found, (first, second)), torch.autograd.grad(expected, (first, second)), strict=True
    ):
        torch.testing.assert_close(gradient, other)


def test_the_loss_is_softmax_and_a_share_of_info_nce() -> None:
    h_BLD, targets, weight, _ = random_case(3, 3, 4, items=5)
    first, second = (random_case(seed, 3, 1, 3)[0][:, 0] for seed in (1, 2))
    vectors, given = ItemVectors(weight, None), Batch(targets, (targets != PAD).sum(1))
    settings = {"label_smoothing": 0.1, "next_but_one": 0.2}
    softmax = SoftmaxLoss(SoftmaxConfig(**settings))(h_BLD, targets, vectors, given)
    loss = of(weight=0.7, temperature=0.3, **settings)
    found = loss(h_BLD, targets, vectors, given, first, second)
    assert float(found) == pytest.approx(float(softmax + 0.7 * slow_info_nce(first, second, 0.3)), rel=1e-5)
    alone = loss(h_BLD, targets, vectors, given, second)  # the first view is the pass that is made anyway
    own = slow_info_nce(given.last(h_BLD), second, 0.3)
    assert float(alone) == pytest.approx(float(softmax + 0.7 * own), rel=1e-5)


@pytest.mark.parametrize("augmentations", [(), CAUSES])
@pytest.mark.parametrize("name", ["sasrec", "xlstm", "gru4rec"])
def test_steps_learn_by_it(name: str, augmentations: tuple[str, ...]) -> None:
    settings: Any = {"item_dropout": 0.1, "learning_rate": 0.01, "dropout": 0.2}
    told, _, weights = run(name, "cpu", of(augmentations=augmentations, weight=1.0), **settings)
    assert float(told[-4:, 0].mean()) < 0.9 * float(told[:2, 0].mean())
    again, _, same = run(name, "cpu", of(augmentations=augmentations, weight=1.0), **settings)
    assert torch.equal(told, again)
    assert all(torch.equal(value, same[key]) for key, value in weights.items())


@pytest.mark.parametrize("augmentations", [(), CAUSES])
def test_resumed_is_bit_for_bit_the_straight_run(augmentations: tuple[str, ...], tmp_path: Path) -> None:
    settings: Any = {"loss": of(augmentations=augmentations), "learning_rate": 0.01, "item_dropout": 0.1}
    straight = trained(tmp_path / "straight", epochs=4, **settings)
    before = trained(tmp_path / "resumed", epochs=2, **settings)
    resumed = trained(tmp_path / "resumed", epochs=4, **settings)
    assert same(resumed, straight)
    assert not same(before, straight)


def test_what_is_not_a_number_stays_so() -> None:
    h_BLD, targets, weight, _ = random_case(3, 2, 3, items=5)
    given, vectors = Batch(targets, (targets != PAD).sum(1)), ItemVectors(weight, None)
    states = torch.full((2, 3), math.nan)
    assert of()(h_BLD, targets, vectors, given, states, torch.ones(2, 3)).isnan()


def test_several_processes_refuse_it() -> None:
    with pytest.raises(ConfigError, match="without torchrun"):
        Step(made("sasrec"), of(), RunConfig.from_dict({}).training, None, Ranks(0, 2))  # type: ignore[arg-type]


@pytest.mark.parametrize("model", [{"name": "bert4rec"}, {"name": "xlstm", "bidirectional": True}])
def test_bidirectional_models_refuse_it(model: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"loss\.name: contrastive.*model\.bidirectional=false"):
        RunConfig.from_dict({"model": model, "loss": {"name": "contrastive"}})


def test_views_that_nothing_tells_apart_are_refused() -> None:
    settings = {"model": {"dropout": 0.0}, "loss": {"name": "contrastive", "augmentations": []}}
    with pytest.raises(ConfigError, match=r"loss\.augmentations.*model\.dropout"):
        RunConfig.from_dict(settings)
    RunConfig.from_dict({**settings, "model": {}})


@on_gpu
@pytest.mark.parametrize("augmentations", [(), CAUSES])
def test_recorded_steps_are_the_steps_themselves(augmentations: tuple[str, ...]) -> None:
    found = [
        run("sasrec", "cuda", of(augmentations=augmentations), dropout=0.3, item_dropout=0.1, compile=compile)
        for compile in ("off", "auto")
    ]
    assert found[1][1].recorder._recordings
    assert torch.equal(found[0][0], found[1][0])
