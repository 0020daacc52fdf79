"""What ranks say to each other: sums, shares, and what happens when one of them stops."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from torch import nn

from ranks import on_ranks
from seqrec.distributed import ALONE, LARGE, RankError, Ranks, join
from seqrec.errors import ConfigError, DataError, ScoreError


def _collectives(ranks: Ranks) -> dict[str, Any]:
    own = torch.arange(2.0) + 10 * ranks.rank
    sizes = [3, 1, 2][: ranks.size]
    uneven = torch.full((sizes[ranks.rank], 2), float(ranks.rank))
    table = torch.arange(12.0).view(6, 2) if ranks.is_main else torch.empty(0, 2)
    return {
        "sum": ranks.sum(own.clone()),
        "maximum": ranks.maximum(own.clone()),
        "gather": ranks.gather(own),
        "sum_of_rows": ranks.sum_of_rows(torch.arange(2.0 * ranks.size) + ranks.rank),
        "uneven": ranks.gather_uneven(uneven, sizes),
        "to_main": ranks.rows_to_main(uneven, sizes),
        "of_main": ranks.rows_of_main(table, [1, 2, 3] if ranks.size == 3 else [6]),
        "broadcast": ranks.broadcast(own.clone()),
        "any": ranks.any(ranks.rank == ranks.size - 1, False),
        "each": ranks.each({"rank": ranks.rank}),
        "told": ranks.of_main(f"rank {ranks.rank}"),
    }


def test_what_three_ranks_exchange() -> None:
    found = on_ranks(3, _collectives)
    for rank, of in enumerate(found):
        assert of["sum"].tolist() == [30, 33]
        assert of["maximum"].tolist() == [20, 21]
        assert of["gather"].tolist() == [0, 1, 10, 11, 20, 21]
        assert of["sum_of_rows"].tolist() == [6 * rank + 3, 6 * rank + 6]
        assert of["uneven"][:, 0].tolist() == [0, 0, 0, 1, 2, 2]
        assert of["to_main"][:, 0].tolist() == ([0, 0, 0, 1, 2, 2] if rank == 0 else [])
        assert of["of_main"].tolist() == torch.arange(12.0).view(6, 2).split([1, 2, 3])[rank].tolist()
        assert of["broadcast"].tolist() == [0, 1]
        assert of["any"] == (True, False)
        assert of["each"] == [{"rank": 0}, {"rank": 1}, {"rank": 2}]
        assert of["told"] == "rank 0"


def test_alone_nothing_changes() -> None:
    found = _collectives(ALONE)
    assert found["sum"].tolist() == found["gather"].tolist() == found["broadcast"].tolist() == [0, 1]
    assert found["sum_of_rows"].tolist() == [0, 1]
    assert len(found["uneven"]) == 3
    assert len(found["of_main"]) == 6
    assert (found["any"], found["each"], found["told"]) == ((True, False), [{"rank": 0}], "rank 0")
    assert ALONE.seed(42) == 42


# --- shares of a batch


@pytest.mark.parametrize("rows", [1, 3, 4, 7, 8])
def test_shares_are_equal_and_hold_every_window_once(rows: int) -> None:
    batch = torch.stack([torch.arange(rows) + 5, torch.arange(rows) * 10, torch.full((rows,), 6)])
    shares = [Ranks(rank, 4).share(batch) for rank in range(4)]
    assert {share.shape for share in shares} == {(3, -(-rows // 4))}
    together = torch.cat(shares, 1)
    real = together[:, together[2] > 1]
    assert real[:, real[0].argsort()].equal(batch)
    assert together[2, together[2] < 2].eq(1).all()
    assert ALONE.share(batch) is batch


def test_parts_are_contiguous_and_about_equal() -> None:
    assert Ranks(0, 4).parts(10) == [2, 3, 2, 3]
    assert Ranks(0, 3).parts(3) == [1, 1, 1]
    assert ALONE.parts(7) == [7]


def test_seeds_differ_by_rank_and_by_seed() -> None:
    seeds = [Ranks(rank, 8).seed(seed) for rank in range(8) for seed in (1, 2, 42)]
    assert len(set(seeds)) == len(seeds)
    assert Ranks(3, 8).seed(42) == Ranks(3, 4).seed(42)


def test_added_windows_have_no_targets() -> None:
    targets, lengths = torch.tensor([[4, 5, 0], [6, 0, 0]]), torch.tensor([3, 1])
    own, count = Ranks(0, 2).own_targets(targets, lengths)
    assert own.tolist() == [[4, 5, 0], [0, 0, 0]]
    assert int(count) == 2
    own, count = Ranks(0, 2).own_targets(targets[1:], lengths[1:])
    assert (own == 1).all()
    assert int(count) == 0
    assert ALONE.own_targets(targets, lengths)[0].equal(targets)


# --- gradients


def _gradients(ranks: Ranks, sizes: list[int]) -> Any:
    """Of a mean over positions that are shared out unequally; a rank without any looks at one that counts nothing."""
    torch.manual_seed(0)
    layer, x, y = nn.Linear(5, 4).double(), torch.randn(9, 5).double(), torch.randn(9, 4).double()
    large = nn.Parameter(torch.ones(LARGE + 1, dtype=torch.float64))
    unused = nn.Parameter(torch.ones(3, dtype=torch.float64))
    start = sum(sizes[: ranks.rank])
    own = slice(start, start + max(1, sizes[ranks.rank]))
    mean = ((layer(x[own]) - y[own]) ** 2).sum(1).mean() * large.mean()
    part = ranks.part_of_mean(mean, torch.tensor(sizes[ranks.rank]))
    part.backward()
    loss = ranks.sum_gradients([*layer.parameters(), large, unused], part.detach())
    unused_gradient = torch.zeros(3) if unused.grad is None else unused.grad
    return loss, layer.weight.grad, layer.bias.grad, large.grad[-1], unused_gradient  # type: ignore[index]


def test_gradients_are_those_of_the_mean_over_all_positions() -> None:
    expected = _gradients(ALONE, [9])
    for found in on_ranks(3, _gradients, [7, 0, 2]):
        for one, other in zip(expected, found, strict=True):
            torch.testing.assert_close(other, one.to(other.dtype), rtol=1e-12, atol=1e-14)


# --- ranks that stop


def _fails_on_one(ranks: Ranks) -> None:
    with ranks.together():
        if ranks.rank == 1:
            raise ScoreError("no number")
    raise AssertionError("went on")


def test_an_error_on_one_rank_stops_all() -> None:
    first, second, third = on_ranks(3, _fails_on_one)
    assert isinstance(second, ScoreError)
    for other in (first, third):
        assert isinstance(other, RankError)
        assert str(other) == "Rank 1 stopped: ScoreError: no number"


def _dies(ranks: Ranks) -> None:
    if ranks.rank == 1:
        os._exit(9)
    ranks.sum(torch.zeros(1))


def test_a_rank_that_dies_is_an_error_on_the_others() -> None:
    first, second = on_ranks(2, _dies)
    assert second is None
    assert isinstance(first, RankError)
    assert "it stopped or died" in str(first)


def _other_data(ranks: Ranks) -> None:
    ranks.require_same("same", "seed")
    ranks.require_same("b" if ranks.rank == 1 else "a", "data set")


def test_ranks_with_other_data_are_refused() -> None:
    for error in on_ranks(2, _other_data):
        assert isinstance(error, DataError)
        assert str(error).startswith("Rank 1 has another data set than rank 0")


def _copies(ranks: Ranks) -> Any:
    torch.manual_seed(ranks.rank)
    model = nn.BatchNorm1d(4)
    nn.init.normal_(model.weight)
    ranks.copy_weights(model)
    return model.weight.detach()


def test_weights_are_those_of_rank_0() -> None:
    first, second = on_ranks(2, _copies)
    assert first.equal(second)


def _first(ranks: Ranks, folder: Any) -> str:
    def make() -> str:
        if (folder / "made").exists():
            return "found"
        (folder / "made").touch()
        return "made"

    return ranks.first_here(make)


def test_one_rank_of_a_machine_goes_first(tmp_path: Any) -> None:
    assert on_ranks(2, _first, tmp_path) == ["made", "found"]


# --- devices, and who is there


def test_a_process_that_torchrun_did_not_start_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    with join() as ranks:
        assert ranks is ALONE
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "nowhere"}.items():
        monkeypatch.setenv(name, value)
    with join("cuda:7") as ranks:
        assert ranks is ALONE


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ALONE.device("cuda:3") == "cuda:3"
    assert Ranks(1, 2, 1).device("cpu") == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert Ranks(5, 8, 1).device("auto") == Ranks(5, 8, 1).device("cuda") == "cuda:1"
    with pytest.raises(ConfigError, match="choose auto, cpu or cuda"):
        Ranks(1, 2, 1).device("cuda:0")
    with pytest.raises(ConfigError, match="2 GPUs and more processes"):
        Ranks(2, 4, 2).device("auto")
