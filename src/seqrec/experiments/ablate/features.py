"""The features of a run: what stands beside its configurations as `switches`, and what each of them would change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from seqrec.config import Config, Switch
from seqrec.errors import ConfigError, unknown_name
from seqrec.experiments.config import RunConfig

Nested = Mapping[str, Any]


@dataclass(frozen=True)
class Feature:
    """Something that can be switched off.

    Attributes:
        changes: settings by dotted key, as they are and as they are without it.
        skipped: why it is not switched off here; empty where it is.
    """

    name: str
    changes: Mapping[str, tuple[Any, Any]]
    skipped: str = ""

    @property
    def off(self) -> dict[str, Any]:
        """The settings that switch it off."""
        return {key: after for key, (_, after) in self.changes.items()}

    @property
    def words(self) -> str:
        """`conv_width 4 to 0`."""
        parts = (f"{key.rpartition('.')[2]} {_said(old)} to {_said(new)}" for key, (old, new) in self.changes.items())
        return ", ".join(parts)


def features_of(config: RunConfig) -> list[Feature]:
    """Every feature of the model, its loss and its training, those that are off already too.

    One that changes what another one before it changes, and nothing else, is skipped.
    """
    found: list[Feature] = []
    for section, name, switch in _switches(config):
        feature = _feature(config, section, name, switch)
        twin = next((other.name for other in found if not other.skipped and other.off == feature.off), None)
        if twin is not None and not feature.skipped:
            feature = Feature(name, feature.changes, f"here it is the same as {twin}")
        found.append(feature)
    return found


def chosen(config: RunConfig, names: Sequence[str] | None = None) -> list[Feature]:
    """The features of these names, in this order; all of them where no names are given.

    Raises:
        UnknownNameError: there is none of that name; the message has the nearest one.
        ConfigError: a name twice, or none of them can be switched off.
    """
    known = {feature.name: feature for feature in features_of(config)}
    for name in names or ():
        if name not in known:
            raise unknown_name(f"feature of {config.model_name}", name, known)
    found = [known[name] for name in names or known]
    if len(set(names or ())) < len(names or ()):
        raise ConfigError("--features: one is there twice.")
    if all(feature.skipped for feature in found):
        why = "; ".join(f"{feature.name}: {feature.skipped}" for feature in found) or "it has no features that can be"
        raise ConfigError(f"There is nothing to switch off in this {config.model_name} ({why}).")
    return found


def _switches(config: RunConfig) -> Iterator[tuple[str, str, Switch]]:
    """(section, name, switch), those of the model first; what is not trained has neither loss nor training."""
    sections = {"model": config.model, "loss": config.loss, "training": config.training}
    for section, part in sections.items():
        if section == "model" or config.trained:
            yield from ((section, name, switch) for name, switch in switches_of(type(part)).items())


def switches_of(config: type[Config]) -> dict[str, Switch]:
    """Those of a class over those of the classes that it is built on, which stand last."""
    merged: dict[str, Switch] = {}
    for base in config.__mro__:
        merged |= {name: switch for name, switch in vars(base).get("switches", {}).items() if name not in merged}
    return merged


def _feature(config: RunConfig, section: str, name: str, switch: Switch) -> Feature:
    before: Nested = config.to_dict()
    for key, value in switch.where.items():
        if before[section][key] != value:
            return Feature(name, {}, f"it is there only with {key} {_said(value)}")
    try:
        after = RunConfig.from_dict({**before, section: {**before[section], **switch.off}}).to_dict()
    except ConfigError as error:
        changes = {f"{section}.{key}": (before[section][key], value) for key, value in switch.off.items()}
        return Feature(name, changes, f"the others do not allow it: {error}")
    there = before[section]
    changes = {f"{section}.{key}": (there[key], new) for key, new in after[section].items() if new != there[key]}
    return Feature(name, changes, "" if changes else "it is off already")


def _said(value: Any) -> str:
    """`4`, `on`, `none`, `3 and 6`: a value in a sentence."""
    if isinstance(value, list):
        return " and ".join(map(_said, value)) or "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, int | float):
        return f"{value:g}"
    return "none" if value is None else str(value)
