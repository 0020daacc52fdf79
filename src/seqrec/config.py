"""What every component's configuration has in common: typed, frozen, and no key goes unnoticed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from seqrec.errors import ConfigError, nearest


@dataclass(frozen=True, init=False)
class Choice:
    """One of these values: `Choice("rmsnorm", "layernorm")`. Numbers are best given in order."""

    values: tuple[Any, ...]

    def __init__(self, *values: Any) -> None:
        if not values:
            raise ValueError("a choice needs at least one value")
        object.__setattr__(self, "values", values)


@dataclass(frozen=True)
class Range:
    """Any number between two, both included; whole numbers where both are `int`.

    Attributes:
        log: whether 1 to 2 is searched as densely as 10 to 20, as suits learning rates.
    """

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(f"a range goes from a lower to a higher number, above 0 where it is logarithmic: {self}")


@dataclass(frozen=True)
class Switch:
    """How a named feature is turned off: `Switch({"conv_width": 0})`.

    Attributes:
        off: settings of the same configuration.
        where: settings under which the feature is there at all.
    """

    off: Mapping[str, Any]
    where: Mapping[str, Any] = field(default_factory=dict)


class Config(BaseModel):
    """Base of all configurations. Immutable; an unknown key is an error that names the nearest valid one."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    #: Keys that other tools use, with what to do instead.
    explained: ClassVar[Mapping[str, str]] = {}

    #: What `seqrec tune` searches, by field. A class adds to those of the classes it is built on.
    space: ClassVar[Mapping[str, Choice | Range]] = {}

    #: What `seqrec ablate` switches off, by the name of the feature; added to in the same way.
    switches: ClassVar[Mapping[str, Switch]] = {}

    @classmethod
    def parse(cls, values: Mapping[str, Any], where: str = "") -> Self:
        """Validate `values`; `where` is the prefix that the keys have for the user (`model.`, `training.`).

        Raises:
            ConfigError: an unknown key, a wrong type, or a value out of range, each named.
        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            issues = error.errors()
            deeper = [issue["loc"] for issue in issues]
            # A list whose entries are wrong counts as too short as well.
            told = [x for x in issues if x["type"] != "too_short" or not any(len(y) > len(x["loc"]) for y in deeper)]
            raise ConfigError("\n".join(cls._explain(issue, where) for issue in told)) from None

    @classmethod
    def _explain(cls, issue: Any, where: str) -> str:
        key = ".".join(str(part) for part in issue["loc"])
        if issue["type"] == "extra_forbidden":
            if key in cls.explained:
                return f"{where}{key}: {cls.explained[key]}"
            fields, prefix = _fields_at(cls, issue["loc"][:-1])
            guess = nearest(str(issue["loc"][-1]), fields)
            hint = f" Did you mean {where}{prefix}{guess}?" if guess else ""
            return f"Unknown key {where}{key}.{hint} Valid: {', '.join(sorted(fields))}."
        message = issue["msg"].removeprefix("Value error, ")
        if issue["type"] == "missing":
            return f"{where}{key}: is needed."
        if issue["type"] == "tuple_type":
            return f"{where}{key}: a list is needed, written [first, second] (got {issue['input']!r})."
        if not key:  # about several settings together
            return f"{where.removesuffix('.') or cls.__name__}: {message}."
        return f"{where}{key}: {message} (got {issue['input']!r})."


def _fields_at(config: type[BaseModel], path: tuple[int | str, ...]) -> tuple[list[str], str]:
    """Field names of the configuration nested at `path`, and that path as a prefix."""
    prefix, inside = "", None
    for part in path:
        if isinstance(part, str):
            field = config.model_fields.get(part)
            inside = _model_in(field.annotation) if field else None
        if inside is None:
            break
        config, prefix = inside, f"{prefix}{part}."
    return list(config.model_fields), prefix


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The configuration that a field is, or is a list of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part)) is not None), None)
