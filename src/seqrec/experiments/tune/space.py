"""What is searched: the spaces that stand beside the configurations, and what the user adds or takes away."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import yaml

from seqrec.config import Choice, Config, Range
from seqrec.errors import ConfigError, nearest
from seqrec.experiments.config import RunConfig

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

#: By dotted key.
Space = dict[str, Choice | Range]
#: Sections whose settings may be searched. The others say what is learned from and how it is judged.
SEARCHED = ("model", "loss", "training")
#: A range that spans this factor is searched on a logarithmic scale when it comes from the command line.
WIDE = 10


def space_of(config: type[Config]) -> Space:
    """The space of a class over those of the classes that it is built on."""
    merged: Space = {}
    for base in reversed(config.__mro__):
        merged |= vars(base).get("space", {})
    return merged


def run_space(config: RunConfig, searched: Mapping[str, Choice | Range], fixed: Collection[str]) -> Space:
    """What is searched around the settings `config`.

    Args:
        searched: by dotted key, instead of or beside what stands beside the configurations.
        fixed: keys that are not searched, unless they are in `searched` too.

    Every key's present value is in its space: a choice has it among its values, and a range reaches to it; a range of
    whole numbers becomes one of all numbers where the present one is not whole.

    Raises:
        ConfigError: a key that there is not, or that may not be searched; nothing to search.
    """
    found: Space = {}
    for section, part in (("model", config.model), ("loss", config.loss), ("training", config.training)):
        found |= {f"{section}.{key}": value for key, value in space_of(type(part)).items()}
    found = {key: value for key, value in found.items() if key not in fixed} | dict(searched)
    if not found:
        raise ConfigError("There is nothing to search. Name a setting, as --search model.dropout=0.1..0.5.")
    return {key: _reaching(key, value, setting(config, key)) for key, value in sorted(found.items())}


def setting(config: RunConfig, key: str) -> Any:
    """The present value of a dotted key that may be searched.

    Raises:
        ConfigError: there is no such key, or it may not be searched.
    """
    section, _, name = key.partition(".")
    if section not in SEARCHED or not name:
        raise ConfigError(f"{key} cannot be searched: only settings of {', '.join(SEARCHED)} can.")
    known = config.to_dict()[section]
    if name not in known:
        guess = nearest(name, known)
        raise ConfigError(f"Unknown key {key}." + (f" Did you mean {section}.{guess}?" if guess else ""))
    return known[name]


def _reaching(key: str, space: Choice | Range, present: Any) -> Choice | Range:
    if isinstance(space, Choice):
        known = [encoded(value) for value in space.values]
        return space if encoded(present) in known else Choice(present, *space.values)
    if isinstance(present, bool) or not isinstance(present, (int, float)):
        raise ConfigError(f"{key} is {present!r} now, which is in no range: give values, as --search {key}=1,2,3.")
    low, high = min(space.low, present), max(space.high, present)
    if present != int(present):  # a range of whole numbers would not hold it
        low, high = float(low), float(high)
    return Range(low, high, space.log and present > 0)


def encoded(value: Any) -> Any:
    """A value as a storage keeps it: lists and groups as JSON text, anything else as it is."""
    return json.dumps(value) if isinstance(value, (list, tuple, dict)) else value


def decoded(space: Space, stored: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by dotted key, from what a storage keeps."""
    return {key: _decoded(space[key], value) for key, value in stored.items()}


def _decoded(space: Choice | Range, value: Any) -> Any:
    if isinstance(space, Range):
        return min(max(_short(value), space.low), space.high)
    # True equals 1, and is not meant by it; 0 and 0.0 are one.
    same = (known for known in space.values if isinstance(known, bool) == isinstance(value, bool))
    return next(known for known in same if encoded(known) == value)


def _short(value: float) -> float:
    """A number that was drawn, in four digits; one that a person wrote is left as it is."""
    return value if isinstance(value, int) or float(f"{value:.12g}") == value else float(f"{value:.4g}")


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """The space in Optuna's words."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    made: dict[str, BaseDistribution] = {}
    for key, found in space.items():
        if isinstance(found, Choice):
            made[key] = CategoricalDistribution([encoded(value) for value in found.values])
        elif isinstance(found.low, int) and isinstance(found.high, int):
            made[key] = IntDistribution(found.low, found.high, log=found.log)
        else:
            made[key] = FloatDistribution(found.low, found.high, log=found.log)
    return made


def written(space: Space) -> dict[str, Any]:
    """The space as JSON: `[1, 2, 3]`, or `{"low": 1, "high": 10, "log": false}`."""
    return {
        key: list(found.values)
        if isinstance(found, Choice)
        else {"low": found.low, "high": found.high, "log": found.log}
        for key, found in space.items()
    }


def parse_search(texts: Collection[str]) -> Space:
    """`["model.dropout=0.1..0.5", "training.batch_size=32,64"]`.

    A range whose ends are whole numbers has whole numbers only; one that spans a factor of ten is logarithmic.

    Raises:
        ConfigError: it is written in another way.
    """
    found: Space = {}
    for text in texts:
        key, equals, what = text.partition("=")
        low, dots, high = what.partition("..")
        try:
            found[key] = _range(_value(low), _value(high)) if dots else Choice(*_values(what))
        except (ValueError, TypeError, yaml.YAMLError) as error:
            raise ConfigError(f"--search {text}: write it as KEY=1,2,3 or KEY=0.1..0.5 ({error}).") from None
        if not equals:
            raise ConfigError(f"--search {text}: write it as KEY=1,2,3 or KEY=0.1..0.5.")
    return found


def _range(low: Any, high: Any) -> Range:
    return Range(low, high, log=low > 0 and high >= WIDE * low)


def _values(text: str) -> list[Any]:
    listed = yaml.safe_load(f"[{text}]")
    return [_value(value) if isinstance(value, str) else value for value in listed]


def _value(text: str) -> Any:
    value = yaml.safe_load(text)
    try:
        return float(value) if isinstance(value, str) else value  # YAML 1.1 reads 1e-3 as a string
    except ValueError:
        return value
