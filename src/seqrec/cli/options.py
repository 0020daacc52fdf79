"""Options that several verbs take."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any

import typer
import yaml

from seqrec.errors import ConfigError

Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output, everything else on standard error.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting, as model.embedding_dim=256.")
]
Preset = Annotated[
    str | None,
    typer.Option(help="A variant of the shipped settings; default: tuned to no data set; none: no preset."),
]
User = Annotated[str | None, typer.Option(help="Column of the person, for tables.")]
Item = Annotated[str | None, typer.Option(help="Column of the item.")]
Time = Annotated[str | None, typer.Option(help="Column of the time.")]
TimeUnit = Annotated[str | None, typer.Option(help="auto, s, ms, us, iso, or order (integers or file order).")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1.")]


def changes(settings: list[str] | None) -> dict[str, Any]:
    """`["a.b=1"]` as `{"a.b": 1}`; values are read as YAML.

    Raises:
        ConfigError: there is no `=` in a setting, or its value is not YAML.
    """
    found: dict[str, Any] = {}
    for setting in settings or []:
        key, equals, value = setting.partition("=")
        if not equals:
            raise ConfigError(f"--set {setting}: write it as KEY=VALUE, such as model.embedding_dim=256.")
        try:
            found[key] = _value(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {setting}: the value cannot be read ({error}).") from None
    return found


def numbers(option: str, text: str | None) -> list[int]:
    """`"0,1"` as `[0, 1]`; nothing where the option was not given.

    Raises:
        ConfigError: there is something else in it.
    """
    try:
        return [int(part) for part in text.split(",")] if text else []
    except ValueError:
        raise ConfigError(f"{option} {text}: write whole numbers with commas, as 0,1.") from None


def columns(user: str | None, item: str | None, time: str | None, time_unit: str | None) -> dict[str, Any]:
    """The column options that were given, as `load_data` takes them."""
    given = {"user": user, "item": item, "time": time, "time_unit": time_unit}
    return {name: value for name, value in given.items() if value is not None}


def _value(text: str) -> Any:
    try:
        value = float(text) if "e" in text.lower() else yaml.safe_load(text)
    except ValueError:
        value = yaml.safe_load(text)  # YAML 1.1 reads 1e-3 as a string; anything else it reads itself
    return text.strip() if isinstance(value, date) else value  # what settings call a date is ISO text
