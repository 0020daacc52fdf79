"""eSASRec: held against the formulas of LiGR blocks event by event, and learned as published."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from seqrec.data.batches import Batch
from seqrec.experiments.config import RunConfig
from seqrec.losses.sampled_softmax import SampledSoftmaxConfig
from seqrec.models.esasrec import ESASRec, ESASRecConfig

BATCH = Batch.of([[3], [1, 2, 9, 2, 5, 5], [4, 4]])


def model(**settings: Any) -> ESASRec:
    """In float64, with every weight moved."""
    torch.manual_seed(0)
    esasrec = ESASRec(ESASRecConfig(embedding_dim=8, max_length=6, num_blocks=2, **settings), 9).double().eval()
    with torch.no_grad():
        for parameter in esasrec.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return esasrec


def affine(weights: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    y = weights[f"{name}.weight"] @ x
    return y + weights[f"{name}.bias"] if f"{name}.bias" in weights else y


def normed(weights: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    apart = x - x.mean()
    return apart / math.sqrt(float(apart.square().mean()) + 1e-5) * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + (-x).exp())


def attention_by_hand(weights: dict[str, Tensor], name: str, rows: list[Tensor], heads: int) -> list[Tensor]:
    """What each event sees of itself and those before, head by head."""
    qkv = [affine(weights, f"{name}.qkv", row).chunk(3) for row in rows]
    found = []
    for i, (q, _, _) in enumerate(qkv):
        seen = []
        for head in range(heads):
            parts = [(k.chunk(heads)[head], v.chunk(heads)[head]) for _, k, v in qkv[: i + 1]]
            strengths = [math.exp(float(q.chunk(heads)[head] @ k) / math.sqrt(8 / heads)) for k, _ in parts]
            seen.append(sum(s / sum(strengths) * v for s, (_, v) in zip(strengths, parts, strict=True)))
        found.append(affine(weights, f"{name}.out", torch.cat(seen)))  # type: ignore[arg-type]
    return found


def block_by_hand(weights: dict[str, Tensor], name: str, rows: list[Tensor], heads: int) -> list[Tensor]:
    asked = [normed(weights, f"{name}.attention_norm", row) for row in rows]
    found = []
    for row, seen in zip(rows, attention_by_hand(weights, f"{name}.attention", asked, heads), strict=True):
        row = row + sigmoid(affine(weights, f"{name}.attention_gate", row)) * seen
        if f"{name}.feedforward.down.weight" in weights:
            wide = affine(weights, f"{name}.feedforward.gate_up", normed(weights, f"{name}.feedforward_norm", row))
            gate, up = wide.chunk(2)
            fed = affine(weights, f"{name}.feedforward.down", gate * sigmoid(gate) * up)
            row = row + sigmoid(affine(weights, f"{name}.feedforward_gate", row)) * fed
        found.append(row)
    return found


@pytest.mark.parametrize(
    "settings",
    [{}, {"num_heads": 1, "feedforward_factor": 0.5}, {"num_heads": 4, "positions": False}, {"feedforward_factor": 0}],
    ids=str,
)
def test_the_formulas_event_by_event(settings: dict[str, Any]) -> None:
    esasrec = model(**settings)
    weights = {name: value.detach() for name, value in esasrec.state_dict().items()}
    with torch.no_grad():
        h_BLD, last_BD = esasrec.encode(BATCH), esasrec.last_state(BATCH)
    for number, length in enumerate(BATCH.lengths.tolist()):
        rows = [weights["items.weight"][item] * math.sqrt(8) for item in BATCH.items[number, :length].tolist()]
        if esasrec.config.positions:
            rows = [row + weights["positions"][place] for place, row in enumerate(rows)]
        for block in range(2):
            rows = block_by_hand(weights, f"blocks.{block}", rows, esasrec.config.num_heads)
        torch.testing.assert_close(h_BLD[number, :length], torch.stack(rows), rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(last_BD[number], rows[-1], rtol=1e-10, atol=1e-10)


def test_scores_are_products_without_a_bias() -> None:
    esasrec = model()
    expected = esasrec.last_state(BATCH) @ esasrec.items.weight[1:].T
    torch.testing.assert_close(esasrec.scores(BATCH), expected)


def test_weights_shown_are_those_of_each_block() -> None:
    esasrec = model()
    found = esasrec.inspect(BATCH)
    assert sorted(found) == ["attention.0", "attention.1"]
    for weights in found.values():
        assert not weights.triu(1).any()
        torch.testing.assert_close(weights.sum(-1), torch.ones(3, 2, 6, dtype=torch.float64))
    x_BLD = esasrec.embed(BATCH)
    above, block = esasrec.blocks[1], esasrec.blocks[0]
    x_BLD, y_BLD = block(x_BLD, None)
    torch.testing.assert_close(
        found["attention.1"],
        above.attention.weights(above.attention_norm(x_BLD + y_BLD)),  # type: ignore[operator, union-attr]
    )


def test_dropout_reaches_every_branch() -> None:
    esasrec = model(dropout=0.9).train()
    torch.manual_seed(3)
    one, other = esasrec.encode(BATCH), esasrec.encode(BATCH)
    assert not torch.allclose(one, other)


def test_learned_with_sampled_softmax_unless_told_otherwise() -> None:
    config = RunConfig.from_dict({"model": {"name": "esasrec"}})
    assert config.loss_name == "sampled_softmax"
    assert config.loss == SampledSoftmaxConfig(num_negatives=256, sampling="uniform", logq=False)
    assert RunConfig.from_dict({"model": {"name": "esasrec"}, "loss": {"name": "softmax"}}).loss_name == "softmax"


def test_longer_histories_are_refused() -> None:
    with pytest.raises(ValueError, match="histories of 7 events; max_length is 6: cut them"):
        model().encode(Batch.of([[1] * 7]))
