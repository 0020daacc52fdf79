"""The mixture of logits: scores, chosen scores, losses in pieces and their gradients, its start, refusals; battery."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import seqrec
from conftest import COLUMNS, SMALL
from seqrec.data.batches import Batch
from seqrec.data.sequences import PAD
from seqrec.distributed import Ranks
from seqrec.errors import ConfigError
from seqrec.evaluation.evaluator import EvaluationConfig, Evaluator
from seqrec.losses.softmax import SoftmaxConfig, SoftmaxLoss
from seqrec.models import mixture
from seqrec.models.base import SequenceModelConfig
from seqrec.models.build import build_model, parse_model
from seqrec.models.layers import ItemTable
from seqrec.models.mixture import MixtureVectors
from seqrec.models.sasrec import SASRec
from seqrec.models.sharded import shard_items
from seqrec.models.xlstm import XLSTM
from seqrec.recommendation.recommender import Recommender
from seqrec.testing import ITEMS, check_model, synthetic_data

D, N, P, Q, C = 6, 9, 2, 3, 4
TINY: dict[str, Any] = {"embedding_dim": 16, "max_length": 32, "num_blocks": 1, "feedforward_factor": 1}
MIXED: dict[str, Any] = {"head": "mixture", "mixture_parts": (P, Q), "mixture_dim": C}


def table(**settings: Any) -> ItemTable:
    """A table with a mixture, in float64, with weights as if it had trained."""
    torch.manual_seed(0)
    made = ItemTable(SequenceModelConfig(embedding_dim=D, **{**MIXED, **settings}), N).double()
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(torch.randn_like(weight) * 0.5)
        made.weight[PAD] = 0
    return made


def vectors_of(made: ItemTable) -> MixtureVectors:
    vectors: Any = made.vectors()
    assert isinstance(vectors, MixtureVectors)
    return vectors


def states(*shape: int) -> Tensor:
    return torch.randn(*shape, D, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def slow_score(made: ItemTable, h_D: Tensor, item: int) -> float:
    """The formula of the module, number by number."""
    weights = {name: value.detach().numpy() for name, value in made.mixture.state_dict().items()}  # type: ignore[union-attr]
    h, x = h_D.detach().numpy(), made.weight[item].detach().numpy() * D**0.5

    def gate(name: str, of: np.ndarray) -> np.ndarray:
        wide = weights[f"{name}.widen.weight"] @ of + weights[f"{name}.widen.bias"]
        return weights[f"{name}.narrow.weight"] @ (wide / (1 + np.exp(-wide))) + weights[f"{name}.narrow.bias"]

    def unit_parts(name: str, of: np.ndarray) -> list[np.ndarray]:
        parts = (weights[f"{name}.weight"] @ of).reshape(-1, C)
        return [part / np.sqrt((part**2).sum()) for part in parts]

    products = np.array([f @ e for f in unit_parts("position", h) for e in unit_parts("item", x)])
    logits = gate("position_gate", h) + gate("item_gate", x) + gate("pair_gate", products)
    shares = np.exp(logits) / np.exp(logits).sum()
    return float((shares * products).sum() / made.temperature)


@pytest.fixture(params=[1 << 20, 1])
def piece(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Everything at once, and as little at a time as there is."""
    monkeypatch.setitem(mixture.PIECE, "cpu", request.param)
    return int(request.param)


def test_scores(piece: int) -> None:
    made, h = table(), states(2, 3)
    expected = [[[slow_score(made, h[b, t], item) for item in range(1, N + 1)] for t in range(3)] for b in range(2)]
    torch.testing.assert_close(vectors_of(made).score(h), torch.tensor(expected, dtype=torch.float64))


def test_scores_of_some_items() -> None:
    vectors, h, offsets = vectors_of(table()), states(4), torch.linspace(-1, 1, N, dtype=torch.float64)
    whole = vectors.score(h)
    some = torch.tensor([9, 1, 4, 4])
    for mine in (vectors, vectors.plain()):
        torch.testing.assert_close(mine.of(some).score(h), whole[:, some - 1])
        torch.testing.assert_close(mine.between(2, 7).score(h), whole[:, 2:7])
        assert mine.of(None) is mine
        moved = mine.plus(offsets)
        torch.testing.assert_close(moved.score(h), whole + offsets)
        torch.testing.assert_close(moved.plus(offsets).score(h), whole + 2 * offsets)
        torch.testing.assert_close(moved.of(some).score(h), (whole + offsets)[:, some - 1])
        torch.testing.assert_close(moved.between(2, 7).score(h), (whole + offsets)[:, 2:7])
        for items in (torch.tensor([[9], [1], [4], [4]]), torch.randint(1, N + 1, (4, 6))):  # few, and more than N
            torch.testing.assert_close(mine.scores_of(h, items), whole.gather(1, items - 1))
            torch.testing.assert_close(moved.scores_of(h, items), (whole + offsets).gather(1, items - 1))
    assert vectors.num_items == N


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_losses_in_pieces(piece: int, smoothing: float) -> None:
    made, h = table(), states(5).requires_grad_()
    targets = torch.tensor([3, PAD, 9, 1, 3])
    scores = vectors_of(made).score(h)
    log = scores.log_softmax(1)
    expected = torch.stack(
        [
            h.new_zeros(()) if target == PAD else -(1 - smoothing) * log[t, target - 1] - smoothing * log[t].mean()
            for t, target in enumerate(targets.tolist())
        ]
    )
    weights = torch.arange(1.0, 6.0, dtype=torch.float64)
    asked = [h, *made.parameters()]
    wanted = torch.autograd.grad(expected @ weights, asked)
    found = vectors_of(made).cross_entropy(h, targets, smoothing)
    torch.testing.assert_close(found, expected)
    for mine, slow in zip(torch.autograd.grad(found @ weights, asked), wanted, strict=True):
        torch.testing.assert_close(mine, slow)
    loss = SoftmaxLoss(SoftmaxConfig(label_smoothing=smoothing))
    mean = loss(h[None], targets[None], made.vectors(), Batch.of([[1]]))
    torch.testing.assert_close(mean.double(), expected.sum() / 4, rtol=1e-6, atol=1e-6)


def test_offsets_count_in_losses() -> None:
    vectors, h, offsets = vectors_of(table()), states(3), torch.linspace(-1, 1, N, dtype=torch.float64)
    targets = torch.tensor([1, 5, 9])
    expected = F.cross_entropy(vectors.score(h) + offsets, targets - 1, reduction="none")
    torch.testing.assert_close(vectors.plus(offsets).cross_entropy(h, targets), expected)


def test_at_first_all_pairs_count_the_same() -> None:
    torch.manual_seed(0)
    made = ItemTable(SequenceModelConfig(embedding_dim=D, temperature=0.5, **MIXED), N).double()
    h, head = states(4), vectors_of(made).head
    f = F.normalize(head.position(h).view(4, P, C), dim=-1).mean(1)
    e = F.normalize(head.item(made.weight[1:] * D**0.5).view(N, Q, C), dim=-1).mean(1)
    torch.testing.assert_close(vectors_of(made).score(h), f @ e.T / 0.5)


def test_scores_have_a_higher_rank_than_their_vectors() -> None:
    """What a product of two vectors cannot do, whatever they are."""
    made = table(mixture_parts=(2, 2), mixture_dim=1)
    h = states(40)
    assert torch.linalg.matrix_rank(h @ made.weight.T) == D
    assert torch.linalg.matrix_rank(vectors_of(made).score(h)) == N > D


def test_bfloat16_is_near_and_keeps_losses_in_float32() -> None:
    made, h, targets = table().float(), states(50).float(), torch.arange(50) % N + 1
    exact = vectors_of(made).cross_entropy(h, targets)
    with torch.autocast("cpu", torch.bfloat16):
        losses = vectors_of(made).cross_entropy(h.bfloat16(), targets)
    losses.mean().backward()
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses, exact, rtol=0.02, atol=0.3)
    assert all(weight.grad is not None and torch.isfinite(weight.grad).all() for weight in made.parameters())


def test_a_mixture_needs_no_bias_and_no_similarity() -> None:
    assert table(similarity="dot").bias is None
    h = states(3)
    assert table(similarity="dot").query(h) is table(similarity="cosine").query(h) is h
    assert "mixture" not in "".join(ItemTable(SequenceModelConfig(), N).state_dict())


def test_ranks_do_not_depend_on_blocks_of_items(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model: Any = build_model({"name": "sasrec", **TINY, **MIXED}, ITEMS).double()  # type: ignore[attr-defined]
    whole = Evaluator(synthetic_data(), EvaluationConfig()).evaluate(model, "test")
    monkeypatch.setattr(Evaluator, "_affordable", 200)
    blocks = Evaluator(synthetic_data(), EvaluationConfig()).evaluate(model, "test")
    assert np.array_equal(whole.ranks, blocks.ranks)
    assert np.array_equal(whole.lists, blocks.lists)


def test_a_run_recommends_from_its_folder(small_log: Path, tmp_path: Path) -> None:
    settings = {**SMALL, "model.head": "mixture", "model.mixture_parts": [2, 2], "model.mixture_dim": 8}
    run = seqrec.train(small_log, "sasrec", settings=settings, out=tmp_path / "run", device="cpu", **COLUMNS)
    assert len(Recommender.load(run.path).recommend(["i3", "i4"], 5)) == 5
    assert run.results["training"]["epochs"] == 3


@pytest.mark.parametrize("name", ["sasrec", "lrurec", "mamba4rec"])
def test_gates_are_equal_at_first_in_every_model(name: str) -> None:
    """Some models draw their layers' weights anew, and must leave the head alone."""
    model: Any = build_model({"name": name, **TINY, **MIXED}, ITEMS)
    for gate in (model.items.mixture.position_gate, model.items.mixture.item_gate, model.items.mixture.pair_gate):
        assert not gate.narrow.weight.any()
        assert not gate.narrow.bias.any()


def test_refusals() -> None:
    model: Any = build_model({"name": "sasrec", **TINY, **MIXED}, ITEMS)
    with pytest.raises(ConfigError, match=r"model\.head=mixture .*cannot be cut"):
        shard_items(model, Ranks(0, 2))
    with pytest.raises(ConfigError, match="neural_cf has a tower of its own"):
        parse_model({"name": "neural_cf", "head": "mixture"})
    with pytest.raises(ConfigError, match="mixture_parts"):
        parse_model({"name": "sasrec", "mixture_parts": [0, 2]})


@pytest.mark.parametrize("model", [SASRec, XLSTM])
def test_models_with_a_mixture_pass_the_battery(model: Any) -> None:
    check_model(model, **TINY, **MIXED)
