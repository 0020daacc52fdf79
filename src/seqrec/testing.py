"""The battery: what every model has to pass, ours and yours.

    from seqrec.testing import check_model
    check_model(MyModel, embedding_dim=16)

Shapes: B rows, L positions, D width, N items.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from seqrec.data.batches import NO_TIME, Batch
from seqrec.data.catalogue import catalogue
from seqrec.data.features import Dense, Features, MultiHot
from seqrec.data.prepared import PreparedData
from seqrec.data.sequences import PAD, Sequences
from seqrec.data.splits import leave_one_out
from seqrec.evaluation.evaluator import EvaluationConfig, Evaluator
from seqrec.losses.softmax import SoftmaxConfig, SoftmaxLoss
from seqrec.models.base import Recurrent, Scorer, SequenceModel
from seqrec.recommendation.recommender import Recommender
from seqrec.run_folder import RunFolder
from seqrec.training.config import TrainingConfig
from seqrec.training.trainer import Trainer

#: Size of the catalogue that models are checked on.
ITEMS = 40


def check_model(model: type[Scorer], **settings: Any) -> list[str]:
    """Run every check that applies to the model's level; names of those that passed.

    Args:
        settings: of the model's configuration; small ones keep this to seconds.

    Raises:
        AssertionError: naming the check that failed.
    """
    subject = _Subject(model, settings)
    checks: list[Callable[[_Subject], None]] = [finite_scores, padding_invariance, evaluation_invariance]
    made = subject.make()
    if isinstance(made, SequenceModel):
        checks += [hides_targets if made.bidirectional else causality]
        checks += [tells_no_times] if made.uses_times else []
        checks += [tells_no_ratings] if made.uses_values else []
        checks += [
            one_forward,
            same_last_state,
            overfits_and_moves,
            resumes_bit_for_bit,
            seeds_matter,
            compiles_and_exports,
        ]
        if isinstance(made, Recurrent) and not made.bidirectional:
            checks += [step_by_step]
    for check in checks:
        try:
            check(subject)
        except AssertionError as error:
            raise AssertionError(f"{model.__name__} fails {check.__name__}: {check.__doc__}\n{error}") from error
    return [check.__name__ for check in checks]


@dataclass(frozen=True)
class _Subject:
    model: type[Scorer]
    settings: dict[str, Any]

    def make(self, seed: int = 0, **changes: Any) -> Any:
        """A fresh model, fitted if fitting is what it does, in evaluation mode."""
        torch.manual_seed(seed)
        scorer = self.model(self.model.Config(**{**self.settings, **changes}), ITEMS)  # type: ignore[call-arg]
        scorer.fit_data(synthetic_data())
        return scorer.eval() if isinstance(scorer, nn.Module) else scorer


def synthetic_data(users: int = 60, seed: int = 0) -> PreparedData:
    """Random histories over `ITEMS` items, in memory, in which item i is often followed by item i + 1."""
    random = np.random.default_rng(seed)
    histories = []
    for _ in range(users):
        items = [int(random.integers(1, ITEMS + 1))]
        for _ in range(int(random.integers(4, 20))):
            follows = random.random() < 0.7
            items.append(items[-1] % ITEMS + 1 if follows else int(random.integers(1, ITEMS + 1)))
        histories.append(items)
    sequences = Sequences.of(histories, ITEMS)
    values = np.where(sequences.items % 7 == 0, np.nan, sequences.items % 5 + 1).astype(np.float32)
    sequences = replace(sequences, times=np.arange(len(sequences.items)) * 3_600_000, values=values)
    names = catalogue([str(item) for item in range(1, ITEMS + 1)])
    known = Features({"categories": _groups_of_four(), "title": Dense(_titles(random), np.ones(ITEMS, dtype=bool))})
    return _InMemory(Path(), sequences, leave_one_out(sequences), names, {"name": "synthetic"}, known)


@dataclass(frozen=True)
class _InMemory(PreparedData):
    """A prepared data set without a folder."""

    known: Features

    def features(self) -> Features:
        return self.known


def _groups_of_four() -> MultiHot:
    """One word per item; four items in a row share it."""
    codes = np.arange(ITEMS, dtype=np.int32) // 4 + 1
    return MultiHot(np.arange(ITEMS + 1), codes, [f"group {code}" for code in range(1, ITEMS // 4 + 1)])


def _titles(random: np.random.Generator) -> np.ndarray:
    """(ITEMS, 8) float32 unit vectors, as hashed titles are."""
    vectors = random.standard_normal((ITEMS, 8))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def finite_scores(subject: _Subject) -> None:
    """Every item has a finite score, chosen items get the same one, and 1 and n can be recommended."""
    scorer, batch = subject.make(), _batch()
    scores = scorer.scores(batch)
    assert scores.shape == (len(batch), ITEMS), f"scores are {tuple(scores.shape)}, not ({len(batch)}, {ITEMS})"
    assert bool(torch.isfinite(scores).all()), "some scores are not finite"
    some = torch.tensor([ITEMS, 1, 7])
    torch.testing.assert_close(scorer.scores(batch, some), scores[:, some - 1])
    names = synthetic_data().catalogue
    everything = {item.item for item in Recommender(scorer, names, filter_seen=False).recommend(["3", "4"], ITEMS + 5)}
    assert everything == set(names.ids), "recommendations are not exactly the items 1..n"


def padding_invariance(subject: _Subject) -> None:
    """More padding, and other rows in the batch, change no score, in evaluation and in training mode."""
    for training in (False, True):
        scorer = subject.make(dropout=0.0) if issubclass(subject.model, SequenceModel) else subject.make()
        if isinstance(scorer, nn.Module):
            scorer.train(training)
        batch = _batch()
        wide = batch.with_items(nn.functional.pad(batch.items, (0, 6), value=PAD))
        expected = scorer.scores(batch)
        torch.testing.assert_close(scorer.scores(wide), expected, rtol=1e-4, atol=1e-5)
        alone = torch.cat([scorer.scores(_row(batch, row)) for row in range(len(batch))])
        torch.testing.assert_close(alone, expected, rtol=1e-4, atol=1e-5)


def evaluation_invariance(subject: _Subject) -> None:
    """Ranks do not depend on how many cases are scored at a time; exactly so in float64."""
    scorer = subject.make()
    if isinstance(scorer, nn.Module):
        scorer.double()
    ranks = []
    for at_a_time in (1, 7, 256):
        evaluator = Evaluator(synthetic_data(), EvaluationConfig())
        evaluator.most_cases = at_a_time
        ranks.append(evaluator.evaluate(scorer, "test").ranks)
    assert all(np.array_equal(ranks[0], others) for others in ranks[1:])


def causality(subject: _Subject) -> None:
    """Changing an item never moves the hidden state of an earlier position."""
    model = subject.make()
    batch = Batch.of([list(range(1, 13))])
    before = model.encode(batch)
    for position in range(1, 12):
        changed = batch.items.clone()
        changed[0, position] = ITEMS
        after = model.encode(batch.with_items(changed))
        torch.testing.assert_close(after[:, :position], before[:, :position], rtol=1e-5, atol=1e-6)
        assert not torch.allclose(after[:, position], before[:, position]), f"item {position} changes nothing"


def hides_targets(subject: _Subject) -> None:
    """What a bidirectional model has to guess changes nothing it computes, nor does what stands after a history."""
    model = subject.make()
    batch = Batch.of([list(range(1, 13)), list(range(20, 32))])
    inputs, targets = _seeded_training_batch(model, batch)
    before = model.encode(inputs)
    others = torch.where(targets != PAD, ITEMS, batch.items)
    changed, changed_targets = _seeded_training_batch(model, batch.with_items(others))
    assert torch.equal(changed_targets != PAD, targets != PAD), "what is masked depends on the items"
    torch.testing.assert_close(model.encode(changed), before, rtol=1e-5, atol=1e-6)
    for position in (targets[0] == PAD).nonzero()[:, 0].tolist():
        seen = inputs.items.clone()
        seen[0, position] = ITEMS
        after = model.encode(inputs.with_items(seen))
        assert not torch.allclose(after[0], before[0]), f"item {position} changes nothing"
    cut = Batch(batch.items, torch.tensor([5, 12]))
    later = torch.where(cut.valid, batch.items, ITEMS)
    torch.testing.assert_close(model.scores(cut.with_items(later)), model.scores(cut), rtol=1e-5, atol=1e-6)


def tells_no_times(subject: _Subject) -> None:
    """When an event happened matters there and to no earlier position; when a target happens matters nowhere."""
    model, batch = _stirred(subject.make()), _timed(Batch.of([list(range(1, 13))]))
    assert batch.times is not None
    inputs, targets = _seeded_training_batch(model, batch)
    before = model.encode(inputs)
    for position in range(1, 12):
        moved = batch.times + 86_400_000 * (torch.arange(12) == position)
        after = model.encode(_seeded_training_batch(model, replace(batch, times=moved))[0])
        if model.bidirectional:
            assert targets[0, position] == PAD or torch.equal(after, before), f"the time of target {position} is told"
            continue
        torch.testing.assert_close(after[:, :position], before[:, :position], rtol=1e-5, atol=1e-6)
        unmoved = position < 11 and torch.equal(after[:, position], before[:, position])
        assert not unmoved, f"time {position} changes nothing"


def tells_no_ratings(subject: _Subject) -> None:
    """How an event was rated matters there and to no earlier position; how a target was rated matters nowhere."""
    model, batch = _stirred(subject.make()), _timed(Batch.of([list(range(1, 13))]))
    assert batch.values is not None
    inputs, targets = _seeded_training_batch(model, batch)
    before = model.encode(inputs)
    for position in range(12):
        is_target = bool(targets[0, position] != PAD) if model.bidirectional else position == 11
        for rating in (5.0, torch.nan) if position % 5 < 4 else (5.0,):
            others = torch.where(torch.arange(12) == position, rating, batch.values)
            after = model.encode(_seeded_training_batch(model, replace(batch, values=others))[0])
            if is_target:
                assert torch.equal(after, before), f"the rating of target {position} is told"
                continue
            assert not torch.allclose(after, before), f"rating {position} changes nothing"
            if not model.bidirectional:
                torch.testing.assert_close(after[:, :position], before[:, :position], rtol=1e-5, atol=1e-6)


def one_forward(subject: _Subject) -> None:
    """One pass gives a hidden state to every position, and a target to every one, or to the masked ones; no row per
    prefix."""
    model, batch = subject.make(), _batch()
    inputs, targets = model.training_batch(batch)
    assert inputs.items.shape[0] == len(batch), "training makes more rows than there are histories"
    h = model.encode(inputs)
    assert h.shape[:2] == targets.shape == inputs.items.shape
    if not model.bidirectional:
        assert (targets != PAD).sum() == (batch.lengths - 1).sum(), "some next items are not trained on"
        return
    masked = targets != PAD
    assert torch.equal(targets[masked], batch.items[masked]), "some targets are not the items that were there"
    assert (inputs.items[masked] != batch.items[masked]).all(), "some targets are not masked"
    assert masked.any(1).all(), "a row has no target"
    assert not masked.all(1)[batch.lengths > 1].any(), "a row has nothing but targets"


def same_last_state(subject: _Subject) -> None:
    """A shortcut to the state after the last event comes to what all positions do, in float64."""
    model, batch = subject.make().double(), _timed(_batch())
    with torch.no_grad():
        torch.testing.assert_close(model.last_state(batch), batch.last(model.encode(batch)))


def overfits_and_moves(subject: _Subject) -> None:
    """Learns 64 histories by heart (HR@1 over 0.95), and every parameter that is learned moves on the way."""
    random = np.random.default_rng(1)
    batch = Batch.of([random.permutation(np.arange(1, ITEMS + 1))[:8].tolist() for _ in range(64)])
    model, batch = subject.make(dropout=0.0, embedding_dim=64), _timed(batch)
    start = {name: value.detach().clone() for name, value in model.named_parameters() if value.requires_grad}
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    loss = SoftmaxLoss(SoftmaxConfig())
    model.train()
    for _ in range(250):
        inputs, targets = model.training_batch(batch)  # each time, since some draw what they learn from
        optimizer.zero_grad()
        loss(model.encode(inputs), targets, model.item_vectors(), inputs).backward()
        optimizer.step()
    model.eval()
    histories = _timed(Batch(batch.items[:, :-1], batch.lengths - 1))
    hits = (model.scores(histories).argmax(1) + 1 == batch.last(batch.items)).float().mean().item()
    assert hits > 0.95, f"HR@1 on what it was trained on is {hits:.3f}"
    now = dict(model.named_parameters())
    still = [name for name, value in start.items() if torch.equal(value, now[name])]
    assert not still, f"training does not move {still}"


def resumes_bit_for_bit(subject: _Subject) -> None:
    """Four epochs at once give the bits of two epochs, a checkpoint, and two more."""
    with tempfile.TemporaryDirectory() as folder:
        straight = _train(subject, Path(folder) / "straight", epochs=4)
        _train(subject, Path(folder) / "halves", epochs=2)
        torch.rand(17)  # the state of the random generator comes from the checkpoint, not from here
        resumed = _train(subject, Path(folder) / "halves", epochs=4)
    for name, value in straight.items():
        assert torch.equal(value, resumed[name]), f"{name} differs"


def seeds_matter(subject: _Subject) -> None:
    """The same seed gives the same bits; another seed gives others."""
    with tempfile.TemporaryDirectory() as folder:
        first, second, third = (
            _train(subject, Path(folder) / str(number), epochs=1, seed=seed) for number, seed in enumerate((5, 5, 6))
        )
    assert all(torch.equal(value, second[name]) for name, value in first.items()), "the same seed, other weights"
    assert any(not torch.equal(value, third[name]) for name, value in first.items()), "the seed changes nothing"


def compiles_and_exports(subject: _Subject) -> None:
    """The traced and the exported model give the scores of the eager one."""
    model, batch = subject.make(), _batch()
    if model.uses_times or model.uses_values:
        batch = _timed(batch)
    expected = model.scores(batch)
    torch.compiler.reset()  # or the ninth model whose `scores` is this very function would be refused
    traced: Any = torch.compile(model.scores, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(traced(batch), expected, rtol=1e-4, atol=1e-5)
    inputs = (batch.items, batch.lengths, batch.times, batch.values)
    exported = torch.export.export(_Scores(model), inputs).module()
    torch.testing.assert_close(exported(*inputs), expected, rtol=1e-4, atol=1e-5)


def step_by_step(subject: _Subject) -> None:
    """One event at a time gives the hidden states of the whole history, from nothing and from a prefilled state."""
    model, batch = _stirred(subject.make()), _timed(_batch())
    whole = batch.last(model.encode(batch))
    prefilled, state = model.prefill(batch)
    torch.testing.assert_close(prefilled, whole, rtol=1e-4, atol=1e-5)
    rows = zip(batch.items.tolist(), batch.lengths.tolist(), strict=True)
    after = _timed(Batch.of([[*row[:length], 5] for row, length in rows]))
    stepped, _ = _step(model, after, after.lengths - 1, state)
    torch.testing.assert_close(stepped, after.last(model.encode(after)), rtol=1e-4, atol=1e-5)
    state, first = model.initial_state(1), _timed(_row(after, 0))
    for position in range(int(first.lengths)):
        h, state = _step(model, first, torch.tensor([position]), state)
    torch.testing.assert_close(h[0], stepped[0], rtol=1e-4, atol=1e-5)


class _Scores(nn.Module):
    def __init__(self, model: SequenceModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, items: Tensor, lengths: Tensor, times: Tensor | None, values: Tensor | None) -> Tensor:
        return self.model.scores(Batch(items, lengths, times=times, values=values))


def _seeded_training_batch(model: SequenceModel, batch: Batch) -> tuple[Batch, Tensor]:
    torch.manual_seed(1)
    return model.training_batch(batch)


def _step(model: Any, batch: Batch, positions_B: Tensor, state: Any) -> tuple[Tensor, Any]:
    """One step with the events at `positions_B` (B,) of the rows; models are told the times and ratings they use."""
    at = torch.arange(len(batch)), positions_B
    assert batch.times is not None
    assert batch.values is not None
    told = {"times_B": batch.times[at]} if model.uses_times else {}
    told |= {"values_B": batch.values[at]} if model.uses_values else {}
    return model.step(batch.items[at], state, **told)


def _stirred(model: Any) -> Any:
    """The model with every weight moved: some start at zero, and would hide what hangs on them."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


def _timed(batch: Batch) -> Batch:
    """With times: the gap before an event of a row is longer than the one before that. With ratings from 1 to 4; every
    fifth is not known."""
    places_L, hidden = torch.arange(batch.items.shape[1]), ~batch.valid
    values_BL = (batch.items % 4 + 1).float().masked_fill(hidden | (places_L % 5 == 4), torch.nan)
    return replace(batch, times=(places_L**3 * 3_600_000).masked_fill(hidden, NO_TIME), values=values_BL)


def _batch() -> Batch:
    return Batch.of([[3, 4, 5, 6, 7], [9], [20, 1, 40, 2, 8, 30, 31], [40, 39]])


def _row(batch: Batch, row: int) -> Batch:
    length = int(batch.lengths[row])
    return Batch(batch.items[row : row + 1, :length], batch.lengths[row : row + 1])


def _train(subject: _Subject, folder: Path, epochs: int, seed: int = 3) -> dict[str, Tensor]:
    """Weights after training into `folder`, from its checkpoint where it has one."""
    folder.mkdir(exist_ok=True)
    model = subject.make(seed, dropout=0.2)
    config = TrainingConfig(epochs=epochs, batch_size=16, item_dropout=0.1, patience=50, warmup_steps=3)
    evaluator = Evaluator(synthetic_data(), EvaluationConfig())
    Trainer(model, SoftmaxLoss(SoftmaxConfig()), evaluator, config, RunFolder(folder), seed).train()
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
