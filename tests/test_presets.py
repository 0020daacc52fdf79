"""Every shipped file of settings is valid, says only what differs, and is about a known data set and model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import seqrec
from seqrec.data.sources import SOURCES
from seqrec.errors import UnknownNameError
from seqrec.experiments.config import RunConfig, presets, settings_for
from seqrec.models import MODELS

SHIPPED = presets()


def flat(values: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(values, dict):
        return {prefix: values}
    return {key: value for name, inner in values.items() for key, value in flat(inner, f"{prefix}.{name}").items()}


def test_every_file_is_found() -> None:
    folder = Path(seqrec.__file__).parent / "presets"
    files = {str(path.relative_to(folder)).removesuffix(".yaml") for path in folder.rglob("*.yaml")}
    assert files == set(SHIPPED)
    assert len(files) >= 1


@pytest.mark.parametrize("name", SHIPPED)
def test_a_preset_is_valid_and_says_only_what_differs(name: str) -> None:
    dataset, _, rest = name.partition("/")
    model, _, variant = rest.partition(".")
    assert dataset in SOURCES or dataset == "default"
    assert model in MODELS
    config = RunConfig.from_dict(settings_for(dataset, model, "default" if dataset == "default" else variant or None))
    plain = {"data": {"source": dataset}, "model": {"name": model}}
    own_loss = RunConfig.from_dict({**plain, "loss": {"name": config.loss_name}})
    defaults, found = flat(own_loss.to_dict()), flat(config.to_dict())
    defaults[".loss.name"] = RunConfig.from_dict(plain).loss_name
    assert config.model_name == model
    for key in flat(SHIPPED[name]):
        assert found[key] != defaults[key], f"{name} sets {key} to its default"
    assert {key for key in found if found[key] != defaults[key]} == set(flat(SHIPPED[name]))


def test_an_unknown_variant_names_the_nearest() -> None:
    name = next(iter(SHIPPED))
    dataset, _, model = name.partition("/")
    model, _, variant = model.partition(".")
    with pytest.raises(UnknownNameError, match=f"Unknown preset .* Did you mean '{dataset}/{model}"):
        settings_for(dataset, model, f"{variant}x")


def test_changes_go_over_the_preset_and_leave_the_rest_of_it() -> None:
    name, values = next((name, values) for name, values in SHIPPED.items() if len(values.get("training", {})) > 1)
    dataset, _, rest = name.partition("/")
    model, _, variant = rest.partition(".")
    key, *others = values["training"]
    found = settings_for(dataset, model, variant or None, {f"training.{key}": "changed"})["training"]
    assert found == {**values["training"], key: "changed"}
    assert others
    assert presets()[name] == values
