"""A configuration says which key is wrong, and what was probably meant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import pytest
from pydantic import Field, ValidationError, model_validator

from seqrec.config import Config
from seqrec.errors import ConfigError


class Inner(Config):
    depth: int = Field(1, ge=1)


class Outer(Config):
    width: int = Field(4, ge=1)
    inner: Inner = Inner()
    ratio: float = 0.5

    explained: ClassVar[Mapping[str, str]] = {"size": "it is taken from the data; leave this key out."}

    @model_validator(mode="after")
    def _fits(self) -> Outer:
        if self.width == 13:
            raise ValueError("a width of 13 brings bad luck")
        return self


def message(values: Mapping[str, object], where: str = "outer.") -> str:
    with pytest.raises(ConfigError) as error:
        Outer.parse(values, where)
    return str(error.value)


def test_values_are_checked_and_kept() -> None:
    found = Outer.parse({"width": 8, "inner": {"depth": 2}})
    assert (found.width, found.inner.depth, found.ratio) == (8, 2, 0.5)


def test_a_configuration_is_frozen() -> None:
    with pytest.raises(ValidationError):
        Outer().width = 5  # type: ignore[misc]


def test_an_unknown_key_names_the_nearest_and_all() -> None:
    assert message({"widht": 3}) == (
        "Unknown key outer.widht. Did you mean outer.width? Valid: inner, ratio, width."
    )  # fmt: skip


def test_a_key_that_resembles_nothing_gets_no_guess() -> None:
    assert message({"qqq": 3}) == "Unknown key outer.qqq. Valid: inner, ratio, width."


def test_a_nested_key_is_named_with_its_path() -> None:
    assert (
        message({"inner": {"dept": 3}}) == "Unknown key outer.inner.dept. Did you mean outer.inner.depth? Valid: depth."
    )


def test_an_explained_key_says_what_to_do() -> None:
    assert message({"size": 100}) == "outer.size: it is taken from the data; leave this key out."


def test_every_wrong_value_is_named_with_what_was_found() -> None:
    found = message({"width": 0, "inner": {"depth": "deep"}, "ratio": float("nan")}).splitlines()
    assert found[0].startswith("outer.width: ")
    assert found[0].endswith("(got 0).")
    assert found[1].startswith("outer.inner.depth: ")
    assert found[2].startswith("outer.ratio: ")


def test_a_rule_of_the_whole_configuration() -> None:
    assert message({"width": 13}) == "outer: a width of 13 brings bad luck."


def test_models_explain_keys_of_other_toolkits() -> None:
    from seqrec.models.sasrec import SASRecConfig

    with pytest.raises(ConfigError, match=r"model\.vocab_size: the catalogue size is taken from the data"):
        SASRecConfig.parse({"vocab_size": 100}, "model.")
