"""What teachers say: against a loop, in pieces, from runs, and who may not teach."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from loss_cases import random_case, same_with_gradients
from seqrec.data.batches import Batch
from seqrec.data.prepared import PreparedData
from seqrec.data.sequences import PAD
from seqrec.errors import ConfigError, DataError
from seqrec.experiments.config import RunConfig
from seqrec.experiments.fit import fit
from seqrec.experiments.losses import build_loss
from seqrec.experiments.run import Run
from seqrec.losses import pieces
from seqrec.losses.distillation import DistillationConfig, DistillationLoss
from seqrec.losses.softmax import SoftmaxConfig, SoftmaxLoss
from seqrec.models.base import ItemVectors, SequenceModel
from seqrec.models.build import build_model
from seqrec.testing import ITEMS, synthetic_data
from test_training_step import on_gpu, run

SMALL = {"embedding_dim": 8, "max_length": 12}


def teacher(name: str = "gru4rec", seed: int = 0, items: int = ITEMS, **settings: Any) -> SequenceModel:
    torch.manual_seed(seed)
    model = build_model({"name": name, **SMALL, **settings}, items)
    assert isinstance(model, SequenceModel)
    return model


def of(*teachers: SequenceModel, **settings: Any) -> DistillationLoss:
    loss = DistillationLoss(DistillationConfig(teachers=("somewhere",), **settings))
    loss.learn_from(teachers)
    return loss


def slow_divergence(scores: Tensor, told: list[Tensor], temperature: float) -> Tensor:
    """KL at one position, from scores (N,)."""
    logs = [(x / temperature) - (x / temperature).exp().sum().log() for x in told]
    agreed = torch.stack(logs).mean(0).exp()
    agreed = agreed / agreed.sum()
    said = (scores / temperature).exp() / (scores / temperature).exp().sum()
    return (agreed * (agreed / said).log()).sum()


@pytest.mark.parametrize("piece", [1, 1 << 27])
@pytest.mark.parametrize("teachers", [1, 3])
@pytest.mark.parametrize(("weight", "temperature"), [(0.3, 1.0), (0.3, 2.0), (1.0, 0.5)])
def test_loss_and_gradients_are_those_of_a_loop(
    piece: int, teachers: int, weight: float, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "NUMBERS", piece)
    models = [teacher("gru4rec", seed, items=6).double() for seed in range(teachers)]
    h_BLD, targets, table, bias = random_case(3, 3, 4, items=6)
    given = Batch(torch.randint(1, 7, (3, 4)).masked_fill(targets == PAD, PAD), (targets != PAD).sum(1))
    vectors, leaves = ItemVectors(table, bias), [part.requires_grad_() for part in (h_BLD, table, bias)]
    loss = of(*models, weight=weight, temperature=temperature, label_smoothing=0.1)
    found = loss(h_BLD, targets, vectors, given)
    told = [model.item_vectors().score(model.encode(given)).detach() for model in models]
    kept = (targets != PAD).nonzero().tolist()
    scores = vectors.score(h_BLD)
    terms = [slow_divergence(scores[b, t], [said[b, t] for said in told], temperature) for b, t in kept]
    softmax = SoftmaxLoss(SoftmaxConfig(label_smoothing=0.1))(h_BLD, targets, vectors, given)
    expected = (1 - weight) * softmax.double() + weight * temperature**2 * torch.stack(terms).mean()
    same_with_gradients(found, expected, leaves)


def test_who_says_what_the_teacher_says_loses_nothing() -> None:
    model = teacher(dropout=0.5).train()
    loss = of(model, weight=1.0)  # which switches dropout off
    given = Batch.of([[1, 2, 3], [4, 5]])
    found = loss(model.encode(given).requires_grad_(), given.items, model.item_vectors(), given)
    assert found.item() == pytest.approx(0, abs=1e-6)
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_edges() -> None:
    h_BLD, targets, weight, _ = random_case(3, 2, 3, items=ITEMS)
    given, vectors = Batch(targets, (targets != PAD).sum(1)), ItemVectors(weight, None)
    loss = of(teacher().double())
    leaves = [h_BLD.requires_grad_(), weight.requires_grad_()]
    nothing = loss(h_BLD, torch.zeros_like(targets), vectors, given)
    assert nothing.item() == 0
    assert not any(gradient.any() for gradient in torch.autograd.grad(nothing, leaves))
    assert torch.isfinite(loss(h_BLD * 1e4, targets, vectors, given))
    assert loss(h_BLD * math.nan, targets, vectors, given).isnan()
    with pytest.raises(ConfigError, match=r"loss\.teachers.*learn_from"):
        DistillationLoss(DistillationConfig(teachers=("x",)))(h_BLD, targets, vectors, given)


@pytest.mark.parametrize("name", ["sasrec", "xlstm", "gru4rec"])
def test_steps_learn_by_it_and_teachers_stay_as_they_are(name: str) -> None:
    model = teacher("lstm")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    told, _, _ = run(name, "cpu", of(model), dropout=0.1, item_dropout=0.1, learning_rate=0.01)
    assert float(told[-4:, 0].mean()) < 0.9 * float(told[:2, 0].mean())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


# --- from runs

SETTINGS: dict[str, Any] = {
    "model": {"name": "gru4rec", **SMALL},
    "training": {"epochs": 1, "batch_size": 16},
    "data": {"source": "synthetic"},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teacher")
    fit(RunConfig.from_dict(SETTINGS), prepared(folder), folder / "run")
    return folder / "run"


def prepared(folder: Path) -> PreparedData:
    """As if it lay in the folder."""
    data = replace(synthetic_data(), folder=folder)
    (folder / "users.json").write_text(json.dumps({"ids": [str(user) for user in range(len(data.sequences))]}))
    data.facts.update({"fingerprint": "a", "config": {}, "test_targets": "b"})
    return data


def changed(folder: Path, into: Path, model: dict[str, Any]) -> str:
    """A copy of the run that says it is of another model."""
    into.mkdir()
    for file in folder.iterdir():
        if file.is_file():
            (into / file.name).write_bytes(file.read_bytes())
    facts = json.loads((into / "run.json").read_text())
    facts["config"]["model"] = model
    (into / "run.json").write_text(json.dumps(facts))
    return str(into)


def test_a_run_teaches_another(trained: Path, tmp_path: Path) -> None:
    loss = {"name": "distillation", "teachers": [str(trained)], "weight": 0.5}
    found = fit(RunConfig.from_dict({**SETTINGS, "loss": loss}), prepared(tmp_path), tmp_path / "run")
    assert found.metrics["ndcg@10"] >= 0
    assert Run(tmp_path / "run").config.loss.teachers == (str(trained),)  # type: ignore[attr-defined]


def test_loading_a_teacher_draws_nothing(trained: Path) -> None:
    config = RunConfig.from_dict({**SETTINGS, "loss": {"name": "distillation", "teachers": [str(trained)]}})
    torch.manual_seed(3)
    loss = build_loss(config, teacher(), prepared(trained.parent))
    first = torch.rand(1)
    teacher()
    assert torch.equal(torch.rand(1), first)
    kept = loss._teachers[0].state_dict()
    weights = Run(trained).recommender().scorer.state_dict()
    assert all(torch.equal(kept[key], value) for key, value in weights.items())


def test_who_may_not_teach(trained: Path, tmp_path: Path) -> None:
    def build(path: str, student: SequenceModel, data: Any = None) -> None:
        config = RunConfig.from_dict({**SETTINGS, "loss": {"name": "distillation", "teachers": [path]}})
        build_loss(config, student, data or prepared(tmp_path))

    with pytest.raises(ConfigError, match=r"loss\.teachers: .* reads 12 events, and model\.max_length is 13"):
        build(str(trained), teacher(max_length=13))
    for name, settings in {"bert4rec": SMALL, "popularity": {}}.items():
        path = changed(trained, tmp_path / name, {"name": name, **settings})
        with pytest.raises(ConfigError, match=f"is of {name}, which does not say"):
            build(path, teacher())
    timed = changed(trained, tmp_path / "timed", {"name": "xlstm", **SMALL, "time_gate": True})
    with pytest.raises(ConfigError, match=r"loss\.teachers.*times.*model\.time_gate=false"):
        build(timed, teacher())
    rated = changed(trained, tmp_path / "rated", {"name": "gru4rec", **SMALL, "rating_input": True})
    with pytest.raises(ConfigError, match=r"loss\.teachers.*ratings.*model\.rating_input=true"):
        build(rated, teacher())
    other = prepared(tmp_path)
    other.facts["fingerprint"] = "another"
    with pytest.raises(DataError, match=r"loss\.teachers.*fingerprint"):
        build(str(trained), teacher(), other)


def test_a_bidirectional_model_cannot_learn_by_it() -> None:
    with pytest.raises(ConfigError, match=r"loss\.name: distillation.*model\.bidirectional=false"):
        RunConfig.from_dict({"model": {"name": "bert4rec"}, "loss": {"name": "distillation", "teachers": ["x"]}})
    with pytest.raises(ConfigError, match=r"loss\.teachers"):
        RunConfig.from_dict({"loss": {"name": "distillation"}})


@on_gpu
def test_recorded_steps_are_the_steps_themselves() -> None:
    found = [run("sasrec", "cuda", of(teacher()), item_dropout=0.1, compile=compile) for compile in ("off", "auto")]
    assert found[1][1].recorder._recordings
    assert torch.equal(found[0][0], found[1][0])
