"""What every component's configuration has in common: typed, frozen, and no key goes unnoticed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from seqrec.errors import ConfigError, nearest


class Config(BaseModel):
    """Base of all configurations. Immutable; an unknown key is an error that names the nearest valid one."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    #: Keys that other tools use, with what to do instead.
    explained: ClassVar[Mapping[str, str]] = {}

    @classmethod
    def parse(cls, values: Mapping[str, Any], where: str = "") -> Self:
        """Validate `values`; `where` is the prefix that the keys have for the user (`model.`, `training.`).

        Raises:
            ConfigError: an unknown key, a wrong type, or a value out of range, each named.
        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise ConfigError("\n".join(cls._explain(issue, where) for issue in error.errors())) from None

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
        if not key:  # about several settings together
            return f"{where.removesuffix('.') or cls.__name__}: {message}."
        return f"{where}{key}: {message} (got {issue['input']!r})."


def _fields_at(config: type[BaseModel], path: tuple[int | str, ...]) -> tuple[list[str], str]:
    """Field names of the configuration nested at `path`, and that path as a prefix."""
    prefix = ""
    for part in path:
        field = config.model_fields.get(str(part))
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            break
        config, prefix = field.annotation, f"{prefix}{part}."
    return list(config.model_fields), prefix
