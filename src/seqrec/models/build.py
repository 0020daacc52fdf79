"""From `{"name": "xlstm", "embedding_dim": 64, ...}` to a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from seqrec.config import Config
from seqrec.models import MODELS
from seqrec.models.base import Scorer
from seqrec.registry import resolve


def parse_model(spec: Mapping[str, Any]) -> tuple[type[Scorer], Config]:
    """The model class that `spec["name"]` names, and its configuration from the other keys.

    Raises:
        ConfigError: no such model, or a key or value that it does not take.
    """
    settings = dict(spec)
    model: type[Scorer] = resolve("model", settings.pop("name"), MODELS)
    return model, model.Config.parse(settings, "model.")


def build_model(spec: Mapping[str, Any], num_items: int) -> Scorer:
    """An untrained model for a catalogue of `num_items`; weights are drawn from torch's global generator."""
    model, config = parse_model(spec)
    return model(config, num_items)  # type: ignore[call-arg]


def is_stochastic(spec: Mapping[str, Any]) -> bool:
    """Whether another seed gives another model; for an ensemble, whether it does for a member that counts.

    Raises:
        ConfigError: see `parse_model`.
    """
    from seqrec.models.ensemble import EnsembleConfig  # which builds its members by this module

    model, config = parse_model(spec)
    if not isinstance(config, EnsembleConfig):
        return model.stochastic
    weights = config.weights or (1.0,) * len(config.members)
    return any(weight and is_stochastic(member) for weight, member in zip(weights, config.members, strict=True))
