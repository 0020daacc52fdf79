"""Every switch that stands beside a configuration: it names real settings, and what it leaves can be trained."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from seqrec.config import Config, Switch
from seqrec.data.batches import BatchMaker, plan_epoch
from seqrec.experiments.ablate.features import features_of, switches_of
from seqrec.experiments.config import RunConfig
from seqrec.losses import LOSSES
from seqrec.models import MODELS
from seqrec.models.base import SequenceModel
from seqrec.models.build import build_model
from seqrec.registry import resolve
from seqrec.testing import ITEMS, synthetic_data
from seqrec.training.config import TrainingConfig
from seqrec.training.step import Step

SMALL = {"embedding_dim": 16, "max_length": 6, "num_blocks": 2}
#: Everything that is registered, by (section, name).
PARTS: dict[tuple[str, str], type[Config]] = {
    **{("model", name): resolve("model", name, MODELS).Config for name in MODELS},
    **{("loss", name): resolve("loss", name, LOSSES).Config for name in LOSSES},
    ("training", ""): TrainingConfig,
}
SWITCHES = [(*where, name) for where, found in PARTS.items() for name in switches_of(found)]


def switch_of(section: str, name: str, feature: str) -> Switch:
    return switches_of(PARTS[section, name])[feature]


def without(section: str, name: str, feature: str) -> RunConfig:
    """A small run of the part, in which the feature could be there, and is off."""
    switch = switch_of(section, name, feature)
    model = name if section == "model" else "sasrec"
    known = resolve("model", model, MODELS).Config.model_fields
    settings: dict[str, Any] = {"model": {key: value for key, value in SMALL.items() if key in known}}
    settings["model"]["name"] = model
    if section == "loss":
        settings["loss"] = {"name": name} | ({"teachers": ["a run"]} if name == "distillation" else {})
    settings.setdefault(section, {}).update({**switch.where, **switch.off})
    return RunConfig.from_dict(settings)


def test_names_tell_what_is_meant() -> None:
    names: dict[str, set[str]] = {"model": set(), "loss": set(), "training": set()}
    for section, name, feature in SWITCHES:
        switch = switch_of(section, name, feature)
        assert switch.off, (name, feature)
        assert {*switch.off, *switch.where} <= PARTS[section, name].model_fields.keys(), (name, feature)
        names[section].add(feature)
    assert not names["model"] & names["loss"]
    assert not (names["model"] | names["loss"]) & names["training"]


@pytest.mark.parametrize("feature", sorted({feature for *_, feature in SWITCHES}))
def test_what_is_off_is_off_and_can_be_trained(feature: str) -> None:
    for section, name in [(section, name) for section, name, other in SWITCHES if other == feature]:
        config = without(section, name, feature)
        (found,) = [found for found in features_of(config) if found.name == feature]
        assert found.skipped, (name, "a switch that leaves something to switch off")
        told = one_step(config)
        assert told.isfinite().all(), (name, told)


def one_step(config: RunConfig) -> torch.Tensor:
    """What a step tells: the loss, and norms of gradients."""
    torch.manual_seed(1)
    model = build_model({"name": config.model_name, **config.model.model_dump()}, ITEMS)
    assert isinstance(model, SequenceModel)
    loss, train = resolve("loss", config.loss_name, LOSSES)(config.loss), synthetic_data().train
    if hasattr(loss, "fit"):
        loss.fit(train)
    if hasattr(loss, "learn_from"):
        loss.learn_from([build_model({"name": "sasrec", **SMALL}, ITEMS)])
    step = Step(model.train(), loss, config.training, BatchMaker(train, torch.device("cpu")))
    rows, width = next(iter(plan_epoch(train, 6, 16, True, [7, 0]).batches(torch.device("cpu"))))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    told = step(rows, width, config.training.learning_rate, 0)
    assert any(not torch.equal(value, before[key]) for key, value in model.state_dict().items())
    return told
