"""Every registered loss: it trains models, waits for nothing, and is refused where it does not fit."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from seqrec.config import Choice, Range
from seqrec.data.batches import Batch, BatchMaker, plan_epoch
from seqrec.errors import ConfigError
from seqrec.experiments.config import RunConfig
from seqrec.losses import LOSSES, pieces
from seqrec.models.base import SequenceModel
from seqrec.models.build import build_model
from seqrec.models.gru4rec import GRU4Rec
from seqrec.registry import resolve
from seqrec.testing import ITEMS, synthetic_data
from seqrec.training.config import TrainingConfig
from seqrec.training.step import Step
from test_training_step import on_gpu, run
from training import same, trained

#: What has no default, or is off by default.
SETTINGS: dict[str, dict[str, Any]] = {
    "distillation": {"teachers": ("somewhere",)},
    "softmax": {"focal": 1.0, "popularity_weight": 0.3, "adjustment": 0.3, "next_but_one": 0.2},
    "sampled_softmax": {"sampling": "mixed", "num_negatives": 20},
    "bce": {"num_negatives": 4, "sampling": "popularity"},
    "bpr": {"num_negatives": 4},
}


def of(name: str) -> Any:
    found = resolve("loss", name, LOSSES)
    loss = found(found.Config.parse(SETTINGS.get(name, {}), "loss."))
    if hasattr(loss, "fit"):
        loss.fit(synthetic_data().train)
    if hasattr(loss, "learn_from"):
        torch.manual_seed(0)
        teacher = build_model({"name": "gru4rec", "embedding_dim": 8, "max_length": 12}, ITEMS)
        assert isinstance(teacher, SequenceModel)
        loss.learn_from([teacher])
    return loss


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("model", ["sasrec", "xlstm"])
@pytest.mark.parametrize("scoring", [{"similarity": "cosine"}, {"similarity": "dot"}, {"head": "mixture"}])
def test_every_loss_trains_models(name: str, model: str, scoring: dict[str, Any]) -> None:
    falls(name, {"name": model, **scoring})


@pytest.mark.parametrize("name", LOSSES)
def test_a_bidirectional_model_learns_by_it_or_hears_why_not(name: str) -> None:
    refused = {"contrastive": r"loss\.name: contrastive", "distillation": r"loss\.name: distillation"}
    refused["softmax"] = r"loss\.next_but_one"
    settings: dict[str, Any] = {"model": {"name": "bert4rec"}, "loss": {"name": name, **SETTINGS.get(name, {})}}
    if name in refused:
        with pytest.raises(ConfigError, match=refused[name] + r".* or .*model\.bidirectional=false"):
            RunConfig.from_dict(settings)
    else:
        RunConfig.from_dict(settings)
        falls(name, {"name": "bert4rec"})


def falls(name: str, spec: dict[str, Any]) -> None:
    """Assert that the loss does in a few steps on toy data."""
    torch.manual_seed(3)
    made = build_model({"embedding_dim": 16, "max_length": 12, "dropout": 0.1, **spec}, ITEMS)
    assert isinstance(made, SequenceModel)
    config, sequences = TrainingConfig(learning_rate=0.01, item_dropout=0.1), synthetic_data().train
    step = Step(made.train(), of(name), config, BatchMaker(sequences, torch.device("cpu")))
    told: list[float] = []
    for epoch in range(6):
        for rows, width in plan_epoch(sequences, 12, 16, True, [7, epoch]).batches(torch.device("cpu")):
            told.append(float(step(rows, width, 0.01, len(told))[0]))
    assert math.isfinite(sum(told))
    assert sum(told[-4:]) / 4 < 0.9 * sum(told[:4]) / 4


@pytest.mark.parametrize("name", sorted(set(LOSSES) - {"contrastive", "sampled_softmax"}))  # which have files of tests
def test_resumed_is_bit_for_bit_the_straight_run(name: str, tmp_path: Path) -> None:
    settings: Any = {"learning_rate": 0.01, "item_dropout": 0.1}
    straight = trained(tmp_path / "straight", loss=of(name), epochs=3, **settings)
    before = trained(tmp_path / "resumed", loss=of(name), epochs=1, **settings)
    resumed = trained(tmp_path / "resumed", loss=of(name), epochs=3, **settings)
    assert same(resumed, straight)
    assert not same(before, straight)


@pytest.mark.parametrize("name", ["bce", "bpr_max", "distillation", "sampled_softmax"])
def test_a_mixture_in_pieces_is_the_whole(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(3)
    model = build_model({"name": "sasrec", "embedding_dim": 8, "max_length": 12, "head": "mixture"}, ITEMS)
    assert isinstance(model, SequenceModel)
    inputs, targets = model.eval().training_batch(Batch.of([[1, 2, 3, 4], [5, 6, 7]]))
    loss, found = of(name), []
    for numbers in (pieces.NUMBERS, 1):
        monkeypatch.setattr(pieces, "NUMBERS", numbers)
        torch.manual_seed(4)
        told = loss(model.encode(inputs), targets, model.item_vectors(), inputs)
        learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
        found.append((told, *torch.autograd.grad(told, learned, materialize_grads=True)))
    for whole, in_parts in zip(*found, strict=True):
        torch.testing.assert_close(in_parts, whole, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("head", ["product", "mixture"])
def test_nothing_in_a_loss_looks_at_numbers(name: str, head: str) -> None:
    """On a GPU each of these would wait for the device, and no step could be recorded."""
    asked = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            if func.overloadpacket._qualified_op_name.split("::")[1] in (
                "_local_scalar_dense",
                "nonzero",
                "masked_select",
                "item",
                "unique",
                "multinomial",
            ):
                asked.append(func)
            indices = args[1] if func.overloadpacket in (torch.ops.aten.index, torch.ops.aten.index_put) else ()
            asked.extend(func for index in indices if index is not None and index.dtype == torch.bool)
            return func(*args, **(kwargs or {}))

    spec = {"name": "sasrec", "embedding_dim": 8, "max_length": 12, "dropout": 0.1, "head": head}
    loss, model = of(name), build_model(spec, ITEMS)
    assert isinstance(model, SequenceModel)
    inputs, targets = model.training_batch(Batch.of([[1, 2, 3, 4], [5, 6, 7]]))
    h, vectors = model.encode(inputs), model.item_vectors()
    views = loss.views(inputs) if hasattr(loss, "views") else ()
    states: list[Tensor] = [model.last_state(view) for view in views]
    kernels = ("softmax", "sampled_softmax", "contrastive", "distillation")
    with pytest.MonkeyPatch.context() as patch:
        if name in kernels:  # they look for what counts on a CPU; their tests say that on a GPU they do not
            patch.setattr("torch.compiler.is_compiling", lambda: True)
        with Watch():
            if views:
                loss.views(inputs)
            loss(h, targets, vectors, inputs, *states).backward()
    assert not asked


@pytest.mark.parametrize("name", LOSSES)
def test_spaces_are_of_valid_settings(name: str) -> None:
    config = resolve("loss", name, LOSSES).Config
    assert config.space
    for key, choices in config.space.items():
        assert isinstance(choices, (Choice, Range))
        ends = choices.values if isinstance(choices, Choice) else (choices.low, choices.high)
        for end in ends:
            config.parse({**SETTINGS.get(name, {}), key: end})


@pytest.mark.parametrize("name", sorted(set(LOSSES) - {"softmax"}))
def test_a_table_in_parts_is_for_softmax(name: str) -> None:
    settings: dict[str, Any] = {"loss": {"name": name, **SETTINGS.get(name, {})}, "training": {"shard_items": True}}
    with pytest.raises(ConfigError, match=rf"training\.shard_items: the loss {name} .*loss\.name=softmax"):
        RunConfig.from_dict(settings)
    RunConfig.from_dict({**settings, "loss": {"name": "softmax", **SETTINGS["softmax"]}})


def test_models_that_are_fitted_have_no_loss_to_refuse() -> None:
    RunConfig.from_dict({"model": {"name": "popularity"}, "loss": {"name": "contrastive"}})


def test_a_model_names_the_loss_it_was_published_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GRU4Rec, "default_loss", {"name": "bpr_max", "num_negatives": 64})
    model = {"name": "gru4rec"}

    def loss(**settings: Any) -> Any:
        config = RunConfig.from_dict({"model": model, "loss": settings})
        assert RunConfig.from_dict(config.to_dict()).to_dict() == config.to_dict()
        return config.to_dict()["loss"]

    assert RunConfig.from_dict({"model": model}).loss_name == "bpr_max"
    assert (loss()["name"], loss()["num_negatives"], loss()["regularisation"]) == ("bpr_max", 64, 1.0)
    assert (loss(regularisation=0.5)["num_negatives"], loss(regularisation=0.5)["regularisation"]) == (64, 0.5)
    assert loss(name="bpr_max")["num_negatives"] == 128
    assert loss(name="softmax") == RunConfig.from_dict({}).to_dict()["loss"]
    with pytest.raises(ConfigError, match="label_smoothing"):
        loss(label_smoothing=0.1)


@on_gpu
@pytest.mark.parametrize("name", LOSSES)
def test_steps_can_be_recorded(name: str) -> None:
    told, _, _ = run("sasrec", "cuda", of(name), dropout=0.3, item_dropout=0.1, compile="off")
    recorded, step, _ = run("sasrec", "cuda", of(name), dropout=0.3, item_dropout=0.1)
    assert step.recorder._recordings
    assert torch.equal(told, recorded)
