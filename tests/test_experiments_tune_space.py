"""What is searched: spaces beside configurations, the command line's, and how both come to a sampler and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from seqrec.config import Choice, Config, Range
from seqrec.errors import ConfigError
from seqrec.experiments.config import RunConfig
from seqrec.experiments.tune.space import decoded, encoded, parse_search, run_space, setting, space_of, written
from seqrec.losses import LOSSES
from seqrec.models import MODELS
from seqrec.registry import resolve
from seqrec.training.config import TrainingConfig

BASE = RunConfig.from_dict({"model": {"name": "lstm", "dropout": 0.3}})


class Above(Config):
    width: int = 8
    depth: int = 1
    space: ClassVar[Mapping[str, Any]] = {"width": Choice(8, 16), "depth": Choice(1, 2)}


class Below(Above):
    heads: int = 1
    space: ClassVar[Mapping[str, Any]] = {"width": Choice(4), "heads": Choice(1, 2)}


class Silent(Below):
    pass


def test_a_class_adds_to_the_spaces_of_those_it_is_built_on() -> None:
    assert space_of(Above) == {"width": Choice(8, 16), "depth": Choice(1, 2)}
    assert space_of(Below) == {"width": Choice(4), "depth": Choice(1, 2), "heads": Choice(1, 2)}
    assert space_of(Silent) == space_of(Below)
    assert space_of(Config) == {}


@pytest.mark.parametrize(
    "config",
    [resolve("model", name, MODELS).Config for name in MODELS]
    + [resolve("loss", name, LOSSES).Config for name in LOSSES]
    + [TrainingConfig],
)
def test_every_shipped_space_is_of_fields_and_takes_their_values(config: type[Config]) -> None:
    for key, space in space_of(config).items():
        assert key in config.model_fields, key
        ends = space.values if isinstance(space, Choice) else (space.low, space.high)
        for value in ends:
            assert not complaint(config, key, value).startswith(f"{key}:"), f"{key} cannot be {value}"


def complaint(config: type[Config], key: str, value: Any) -> str:
    """What is wrong with a value; one that does not fit with the defaults of other fields is not named first."""
    try:
        config.parse({key: value})
    except ConfigError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("text", "space"),
    [
        ("a.b=1,2,3", Choice(1, 2, 3)),
        ("a.b=1", Choice(1)),
        ("a.b=none, cosine", Choice("none", "cosine")),
        ("a.b=null,true,1e-3", Choice(None, True, 1e-3)),
        ("a.b=[1, 2],[3]", Choice([1, 2], [3])),
        ("a.b=0.1..0.5", Range(0.1, 0.5)),
        ("a.b=1e-4..1e-2", Range(1e-4, 1e-2, log=True)),
        ("a.b=2..8", Range(2, 8)),
        ("a.b=16..256", Range(16, 256, log=True)),
        ("a.b=0..5", Range(0, 5)),
        ("a.b=-1..1", Range(-1, 1)),
    ],
)
def test_spaces_on_the_command_line(text: str, space: Choice | Range) -> None:
    assert parse_search([text]) == {"a.b": space}
    assert isinstance(parse_search([text])["a.b"], type(space))


@pytest.mark.parametrize("text", ["a.b", "a.b=", "a.b=3..1", "a.b=1..1", "a.b=x..y", "a.b=[1,2", "a.b=1.."])
def test_what_is_no_space_is_an_error_that_says_how_to_write_it(text: str) -> None:
    with pytest.raises(ConfigError, match=r"write it as KEY=1,2,3 or KEY=0\.1\.\.0\.5"):
        parse_search([text])


def test_the_present_value_is_in_its_space() -> None:
    search = {
        "model.dropout": Range(0.4, 0.5),
        "training.ema_decay": Range(0.9, 0.99),
        "training.batch_size": Choice(32, 64),
        "model.embedding_dim": Choice(64, 128),
        "training.learning_rate": Range(1e-4, 1e-2, log=True),
    }
    found = run_space(BASE, search, ())
    assert found["model.dropout"] == Range(0.3, 0.5)
    assert found["training.ema_decay"] == Range(0.9, 0.999)
    assert found["training.batch_size"] == Choice(None, 32, 64)
    assert found["model.embedding_dim"] == Choice(64, 128)
    assert found["training.learning_rate"] == Range(1e-4, 1e-2, log=True)
    zero = run_space(BASE, {"training.item_dropout": Range(0.01, 0.3, log=True)}, ())
    assert zero["training.item_dropout"] == Range(0.0, 0.3), "no logarithm of zero"


def test_what_is_fixed_is_not_searched() -> None:
    shipped = run_space(BASE, {}, ())
    assert shipped
    first, *rest = shipped
    assert set(run_space(BASE, {}, [first])) == set(rest)
    with pytest.raises(ConfigError, match="nothing to search"):
        run_space(BASE, {}, list(shipped))
    both = run_space(BASE, {"model.dropout": Range(0.1, 0.9)}, list(shipped))
    assert set(both) == {"model.dropout"}, "what is named as both starts at its setting, and is searched"


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("model.droput", "Unknown key model.droput. Did you mean model.dropout?"),
        ("seed", "seed cannot be searched: only settings of model, loss, training can"),
        ("data.min_events", "data.min_events cannot be searched"),
        ("evaluation.filter_seen", "cannot be searched"),
    ],
)
def test_keys_that_cannot_be_searched(key: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run_space(BASE, {key: Choice(1, 2)}, ())


def test_a_range_needs_a_number_to_start_from() -> None:
    with pytest.raises(ConfigError, match=r"training\.batch_size is None now, which is in no range: give values"):
        run_space(BASE, {"training.batch_size": Range(16, 64)}, ())
    with pytest.raises(ConfigError, match="in no range"):
        run_space(BASE, {"training.random_windows": Range(0, 1)}, ())


def test_values_come_back_from_a_storage_as_they_were() -> None:
    values = (None, True, 1, 2.5, "x", (0.9, 0.98), [1, 2], {"a": 1})
    space = {"a": Choice(*values)}
    for value in values:
        back = decoded(space, {"a": encoded(value)})["a"]
        assert back == value
        assert type(back) is type(value)


def test_drawn_numbers_have_four_digits_and_written_ones_stay() -> None:
    space: dict[str, Choice | Range] = {"a": Range(0.0, 0.999), "b": Range(1, 9)}
    assert decoded(space, {"a": 0.12345678901234567, "b": 3}) == {"a": 0.1235, "b": 3}
    assert decoded(space, {"a": 0.998951234, "b": 3})["a"] == 0.998951234
    assert decoded(space, {"a": 0.99899999012345678, "b": 3})["a"] == 0.999, "never beyond the range"


def test_a_range_of_whole_numbers_reaches_to_a_value_that_is_not_whole() -> None:
    assert setting(BASE, "training.weight_decay") == 0.1
    space = run_space(BASE, {"training.weight_decay": Range(0, 1)}, ())["training.weight_decay"]
    assert isinstance(space, Range)
    assert [type(space.low), type(space.high)] == [float, float]
    whole = run_space(BASE, {"model.embedding_dim": Range(16, 32)}, ())["model.embedding_dim"]
    assert isinstance(whole, Range)
    assert [type(whole.low), type(whole.high)] == [int, int]


def test_a_space_in_json() -> None:
    assert written({"a": Choice(1, None), "b": Range(1, 2, log=True)}) == {
        "a": [1, None],
        "b": {"low": 1, "high": 2, "log": True},
    }


def test_bad_spaces_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Choice()
    for low, high, log in ((1, 1, False), (2, 1, False), (0, 1, True)):
        with pytest.raises(ValueError, match="from a lower to a higher"):
            Range(low, high, log)


def test_the_setting_of_a_key() -> None:
    assert setting(BASE, "model.dropout") == 0.3
    assert setting(BASE, "training.batch_size") is None


def test_a_present_value_may_be_written_in_another_way_than_the_choice() -> None:
    space = run_space(BASE, {"training.item_dropout": Choice(0, 0.1)}, ())
    assert decoded(space, {"training.item_dropout": 0.0}) == {"training.item_dropout": 0}
    assert decoded({"a.b": Choice(1, True)}, {"a.b": True})["a.b"] is True
