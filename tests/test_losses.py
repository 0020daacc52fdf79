"""Every registered loss: it trains models, waits for nothing, and is refused where it does not fit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from seqrec.config import Choice, Range
from seqrec.errors import ConfigError
from seqrec.experiments.config import RunConfig
from seqrec.losses import LOSSES
from seqrec.models.base import SequenceModel
from seqrec.models.build import build_model
from seqrec.models.gru4rec import GRU4Rec
from seqrec.registry import resolve
from seqrec.testing import ITEMS, synthetic_data
from test_training_step import on_gpu, run

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
@pytest.mark.parametrize("model", ["sasrec", "gru4rec"])
@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_every_loss_trains_models(name: str, model: str, similarity: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if similarity == "dot":
        config = build_model({"name": model}, ITEMS).Config
        monkeypatch.setitem(config.model_fields, "similarity", config.model_fields["similarity"])
        original = build_model
        monkeypatch.setattr(
            "test_training_step.build_model", lambda spec, items: original({**spec, "similarity": "dot"}, items)
        )
    told, _, _ = run(model, "cpu", of(name), dropout=0.1, item_dropout=0.1, learning_rate=0.01)
    assert torch.isfinite(told).all()
    assert float(told[-4:, 0].mean()) < 0.9 * float(told[:2, 0].mean())


@pytest.mark.parametrize("name", LOSSES)
def test_nothing_in_a_loss_looks_at_numbers(name: str) -> None:
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

    loss, model = of(name), build_model({"name": "sasrec", "embedding_dim": 8, "max_length": 12, "dropout": 0.1}, ITEMS)
    assert isinstance(model, SequenceModel)
    from seqrec.data.batches import Batch

    inputs, targets = model.training_batch(Batch.of([[1, 2, 3, 4], [5, 6, 7]]))
    h, vectors = model.encode(inputs), model.item_vectors()
    views = loss.views(inputs) if hasattr(loss, "views") else ()
    states: list[Tensor] = [model.last_state(view) for view in views]
    kernels = ("softmax", "sampled_softmax", "contrastive", "distillation")
    with pytest.MonkeyPatch.context() as patch:
        if name in kernels:  # on a CPU the kernels look for what counts; on a GPU they do not, and say so in their tests
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
