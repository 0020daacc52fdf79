"""What a comparison file says: models x data sets x splits x seeds, and what varies."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BeforeValidator, Field, NonNegativeInt, field_validator

from seqrec.config import Config
from seqrec.errors import ConfigError, nearest
from seqrec.evaluation import ACCURACY
from seqrec.experiments.seeds import SEEDS


def _named(field: str) -> BeforeValidator:
    """A bare name stands for an entry with that field alone."""
    return BeforeValidator(lambda value: {field: value} if isinstance(value, str) else value)


def _free(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings that name neither the model nor the seed, which the comparison itself decides."""
    for key in ("seed", "model.name", "model", "data"):
        if key in settings:
            raise ValueError(f"{key} is not a setting of a model here: use `seeds`, `models` and `data`")
    return settings


#: How tables call something; it is part of a file's name too.
Label = Annotated[str, Field(min_length=1, max_length=100)]
Settings = Annotated[dict[str, Any], AfterValidator(_free)]
Vary = Annotated[dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]], AfterValidator(_free)]


class DataEntry(Config):
    """A data set."""

    source: str = Field(description="a data set's name, a table, or a prepared folder")
    label: Label | None = Field(None, description="how tables call it; the source's name by itself")
    settings: dict[str, Any] = Field({}, description="of the data, without `data.`: `{k_core: 10}`")


class ModelEntry(Config):
    """A model with settings."""

    model: str = Field(description="a registered name, or my_package.my_module:MyModel")
    label: Label | None = Field(None, description="how tables call it; the model's name by itself")
    preset: str | None = Field(None, description="a variant of the shipped settings, default or none")
    settings: Settings = Field({}, description="dotted settings: `{model.embedding_dim: 64}`")
    vary: Vary | None = Field(None, description="in place of the comparison's own `vary`")

    @property
    def name(self) -> str:
        """What tables call it."""
        return self.label or self.model.rpartition(":")[2]


class EnsembleEntry(Config):
    """Models of this comparison whose lists are fused; weights are fitted on validation, seed by seed."""

    label: Label | None = None
    members: tuple[str, ...] = Field(min_length=2, description="labels of different models of this comparison")
    fusion: Literal["zscore", "reciprocal_rank"] = "zscore"

    @property
    def name(self) -> str:
        """What tables call it."""
        return self.label or " + ".join(self.members)


class PredictionsEntry(Config):
    """Lists or scores that another toolkit made, for the one data set of the comparison."""

    label: Label
    file: str


class CompareConfig(Config):
    """A whole comparison."""

    name: str = Field("comparison", description="heads the report")
    data: tuple[Annotated[DataEntry, _named("source")], ...] = Field(min_length=1)
    splits: tuple[str, ...] = Field((), description="each data set's own settings where none is named")
    models: tuple[Annotated[ModelEntry, _named("model")], ...] = Field(min_length=1)
    settings: Settings = Field({}, description="dotted settings of all models that are trained by gradient")
    vary: Vary = Field({}, description="`{model.max_length: [32, 64, 128]}`: one row for each")
    ensembles: tuple[EnsembleEntry, ...] = ()
    predictions: tuple[PredictionsEntry, ...] = ()
    seeds: tuple[NonNegativeInt, ...] = Field(SEEDS, min_length=1)
    metric: str = Field("ndcg@10", description="what is tested")
    reference: str | None = Field(
        None,
        description="label that the others are tested against; by itself the single model that is best on validation",
    )
    tests: Literal["reference", "all"] = Field("reference", description="which pairs are tested")
    alpha: float = Field(0.05, gt=0, lt=1, description="family-wise error rate of the tests of one table")

    @field_validator("seeds")
    @classmethod
    def _different_seeds(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("a seed is there twice")
        return seeds

    @field_validator("metric")
    @classmethod
    def _known_metric(cls, metric: str) -> str:
        name, _, k = metric.partition("@")
        if name not in ACCURACY or not k.isdigit() or int(k) < 1:
            raise ValueError("a metric is written name@k, such as ndcg@10")
        return metric

    def model_post_init(self, context: Any) -> None:
        """Labels are unique, and what refers to a label finds it."""
        trained, fused = [entry.name for entry in self.models], [entry.name for entry in self.ensembles]
        labels = [*trained, *fused, *(entry.label for entry in self.predictions)]
        for label in labels:
            if labels.count(label) > 1:
                raise ConfigError(f"models: {label!r} is there twice. Give one of them another `label`.")
        for ensemble in self.ensembles:
            if len(set(ensemble.members)) < len(ensemble.members):
                raise ConfigError(f"ensembles, {ensemble.name}: a member is there twice.")
            for member in ensemble.members:
                _require(member, trained, "ensembles.members")
        if self.reference is not None:
            _require(self.reference, labels, "reference")
        if self.predictions and (len(self.data) > 1 or len(self.splits) > 1):
            raise ConfigError("predictions: a file belongs to one data set and one split; compare one at a time.")

    @classmethod
    def read(cls, path: Path) -> CompareConfig:
        """The comparison that a YAML file describes.

        Raises:
            ConfigError: the file cannot be read, or a key or value in it is wrong.
        """
        try:
            values = yaml.load(path.read_text(encoding="utf-8"), _NoKeyTwice)
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ConfigError(f"{path} cannot be read: {error}") from None
        if not isinstance(values, Mapping):
            raise ConfigError(
                f"{path}: a comparison is a mapping, such as `data: [ml-100k]` and `models: [xlstm, markov]`."
            )
        return cls.parse(values)


class _NoKeyTwice(yaml.SafeLoader):
    """YAML in which a key that is there twice is an error: the first would be lost without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.YAMLError(f"the key {key!r} is there twice, {node.start_mark}")
        return super().construct_mapping(node, deep)


def _require(name: str, among: list[str], where: str) -> None:
    if name not in among:
        guess = nearest(name, among)
        hint = f" Did you mean {guess!r}?" if guess else ""
        raise ConfigError(f"{where}: there is no {name!r} in this comparison.{hint} There are: {', '.join(among)}.")
