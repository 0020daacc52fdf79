"""What is tuned: a model on a data set, and the settings around which is searched."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from seqrec.config import Choice, Range
from seqrec.data.prepared import PreparedData
from seqrec.errors import ConfigError
from seqrec.experiments.config import RunConfig, settings_for
from seqrec.experiments.door import prepare_run, source_name
from seqrec.experiments.tune.report import train_command
from seqrec.experiments.tune.space import Space, run_space, setting


@dataclass(frozen=True)
class Subject:
    """What `seqrec train` is told, and what is searched.

    Attributes:
        source: how settings name the data, and `named` how the user did: by the prepared folder where it was an object.
        fixed: settings by dotted key over the preset.
        base: the settings of trial 0.
    """

    source: str
    named: str
    model: str
    preset: str | None
    fixed: Mapping[str, Any]
    base: RunConfig
    data: PreparedData
    space: Space

    @classmethod
    def of(
        cls,
        data: Any,
        model: str,
        preset: str | None,
        fixed: Mapping[str, Any],
        search: Mapping[str, Choice | Range],
        report: Callable[[str], None],
    ) -> Self:
        """Prepare the data, and check the settings and the space.

        Raises:
            ConfigError: one of them is wrong, or the model is not trained by gradient.
        """
        base, prepared = prepare_run(data, model, preset, fixed, report)
        if not base.trained:
            raise ConfigError(f"{model} is fitted, not trained by gradient: there are no epochs to stop it after.")
        space = run_space(base, search, fixed)
        named = str(data if isinstance(data, str | Path) else prepared.folder)
        return cls(source_name(data), named, model, preset, fixed, base, prepared, space)

    def settings(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Nested settings, `changes` by dotted key in them."""
        return settings_for(self.source, self.model, self.preset, {**self.fixed, **changes})

    def configure(self, changes: Mapping[str, Any]) -> RunConfig:
        """The whole settings of a trial.

        Raises:
            ConfigError: the changes do not fit together.
        """
        return replace(
            RunConfig.from_dict(self.settings(changes)), data=self.base.data, evaluation=self.base.evaluation
        )

    @property
    def first(self) -> dict[str, Any]:
        """What is searched, as it is without tuning."""
        return {key: setting(self.base, key) for key in self.space}

    def command(self, changes: Mapping[str, Any]) -> str:
        """The command line that trains a trial with three seeds."""
        prepared = self.named == str(self.data.folder)  # columns and filters are settled there
        fixed = {key: value for key, value in self.fixed.items() if not (prepared and key.startswith("data."))}
        return train_command(self.named, self.model, self.preset, {**fixed, **changes})
