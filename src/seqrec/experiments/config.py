"""The whole of a run in one object: made once, passed down, stored in the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, Self

import yaml

from seqrec.config import Config
from seqrec.data.config import DataConfig
from seqrec.errors import ConfigError, nearest, unknown_name
from seqrec.evaluation.evaluator import EvaluationConfig
from seqrec.losses import LOSSES
from seqrec.models.base import SequenceModel
from seqrec.models.build import parse_model
from seqrec.registry import resolve
from seqrec.training.config import TrainingConfig

SECTIONS = ("data", "model", "loss", "training", "evaluation", "seed")


@dataclass(frozen=True)
class RunConfig:
    """What is trained on what, and how.

    Attributes:
        model_name, loss_name: as registered, or `my_package.my_module:MyModel`.
        model, loss: the configurations that component takes.
        seed: of weights, order, windows and dropout.
    """

    data: DataConfig
    model_name: str
    model: Config
    loss_name: str
    loss: Config
    training: TrainingConfig
    evaluation: EvaluationConfig
    seed: int

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Validate nested settings: `{"model": {"name": "xlstm", ...}, "training": {...}, "seed": 42, ...}`.

        Raises:
            ConfigError: naming the key that is wrong, and the nearest valid one.
        """
        for key, value in values.items():
            _check_section(key, value)
        model = {"name": "xlstm"} | dict(values.get("model", {}))
        model_class, model_config = parse_model(model | {"name": str(model["name"])})
        loss = dict(values.get("loss", {}))
        # Options without a name are those of the model's own loss, over what it was published with.
        loss = loss if "name" in loss else {**model_class.default_loss, **loss}
        loss_name = str(loss.pop("name"))
        loss_class = resolve("loss", loss_name, LOSSES)
        loss_config = loss_class.Config.parse(loss, "loss.")
        seed = values.get("seed", 42)
        if not isinstance(seed, int) or seed < 0:
            raise ConfigError(f"seed: a whole number from 0 (got {seed!r}).")
        training = TrainingConfig.parse(values.get("training", {}), "training.")
        evaluation = EvaluationConfig.parse(values.get("evaluation", {}), "evaluation.")
        _check_cutoffs(training, evaluation)
        if issubclass(model_class, SequenceModel):
            _check_loss(loss_name, loss_class, loss_config, model_class, model_config, training)
        return cls(
            data=DataConfig.parse(values.get("data", {}), "data."),
            model_name=str(model["name"]),
            model=model_config,
            loss_name=loss_name,
            loss=loss_config,
            training=training,
            evaluation=evaluation,
            seed=seed,
        )

    @property
    def trained(self) -> bool:
        """Whether the model is trained by gradient; the others are fitted."""
        return issubclass(parse_model({"name": self.model_name})[0], SequenceModel)

    def to_dict(self) -> dict[str, Any]:
        """Every setting, defaults included, as `from_dict` takes it."""
        return {
            "data": self.data.model_dump(mode="json"),
            "model": {"name": self.model_name} | self.model.model_dump(mode="json"),
            "loss": {"name": self.loss_name} | self.loss.model_dump(mode="json"),
            "training": self.training.model_dump(mode="json"),
            "evaluation": self.evaluation.model_dump(mode="json"),
            "seed": self.seed,
        }


def _check_section(key: str, value: Any) -> None:
    if key not in SECTIONS:
        hint = f" Did you mean {nearest(key, SECTIONS)!r}?" if nearest(key, SECTIONS) else ""
        raise ConfigError(f"Unknown key {key}.{hint} Valid: {', '.join(SECTIONS)}.")
    if key != "seed" and not isinstance(value, Mapping):
        raise ConfigError(f"{key}: is a group of settings, written {key}.KEY=VALUE (got {value!r}).")


def _check_loss(
    name: str, loss: Any, config: Config, model: type[SequenceModel], model_config: Any, training: TrainingConfig
) -> None:
    """Refuse what does not fit together, before anything is trained."""
    if training.shard_items and not getattr(loss, "shards", False):
        raise ConfigError(
            f"training.shard_items: the loss {name} needs the whole item table. Leave it out, or take "
            "loss.name=softmax."
        )
    bidirectional = bool(getattr(model_config, "bidirectional", model.bidirectional))
    reason = config.misfit(model_config, bidirectional) if hasattr(config, "misfit") else None
    if reason:
        raise ConfigError(reason)


def _check_cutoffs(training: TrainingConfig, evaluation: EvaluationConfig) -> None:
    """Found out now rather than when training is over."""
    for k, why in ((int(training.metric.partition("@")[2]), "training.metric"), (10, "every table")):
        if k not in evaluation.ks:
            raise ConfigError(f"evaluation.ks: {why} needs the cut-off {k} (got {list(evaluation.ks)}).")


def presets() -> dict[str, dict[str, Any]]:
    """Shipped settings by name: `ml-1m/xlstm`, `ml-100k/xlstm.quick`."""
    root = resources.files("seqrec") / "presets"
    found = {}
    for folder in sorted(root.iterdir(), key=lambda entry: entry.name):
        for file in sorted(folder.iterdir(), key=lambda entry: entry.name) if folder.is_dir() else ():
            if file.name.endswith(".yaml"):
                found[f"{folder.name}/{file.name.removesuffix('.yaml')}"] = yaml.safe_load(file.read_text("utf-8"))
    return found


def _loss_name(settings: Mapping[str, Any]) -> str:
    """Of the settings, or what the model was published with."""
    given = settings.get("loss", {}).get("name")
    return str(given or parse_model({"name": settings["model"]["name"]})[0].default_loss["name"])


def settings_for(
    dataset: str, model: str, preset: str | None = None, changes: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Settings for a model on a data set: the preset for the pair if there is one, then `changes` over it.

    Args:
        preset: a variant such as `quick`, which must exist; `default` for the model's preset that is tuned to no data
            set; `none` for no preset; None for the pair's own, or none where it has none.
        changes: dotted keys, such as `{"model.embedding_dim": 256}`, or `{"model": {"embedding_dim": 256}}`. Where
            `loss.name` is another loss than the preset's, the preset's options of its loss are left out.

    Raises:
        UnknownNameError: there is no such variant.
        ConfigError: there is no such section.
    """
    shipped = presets()
    name = f"default/{model}" if preset == "default" else f"{dataset}/{model}" + (f".{preset}" if preset else "")
    if preset == "none":
        shipped = {}
    elif preset and name not in shipped:
        raise unknown_name("preset", name, shipped)
    settings: dict[str, Any] = {key: dict(value) for key, value in shipped.get(name, {}).items()}
    settings.setdefault("data", {})["source"] = dataset
    settings.setdefault("model", {})["name"] = model
    usual, nested = _loss_name(settings), (changes or {}).get("loss", {})
    asked = nested.get("name", usual) if isinstance(nested, Mapping) else usual
    if (changes or {}).get("loss.name", asked) != usual:
        settings.pop("loss", None)
    for key, value in (changes or {}).items():
        section, _, rest = key.partition(".")
        if rest:
            settings.setdefault(section, {})[rest] = value
        elif section == "seed":
            settings[section] = value
        else:
            _check_section(section, value)
            settings.setdefault(section, {}).update(value)
    return settings
