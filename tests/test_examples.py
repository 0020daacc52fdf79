"""The comparison files in examples/ say what they mean: every setting in them is one that its model takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import REPOSITORY
from seqrec.experiments.compare.config import CompareConfig
from seqrec.experiments.config import RunConfig, presets, settings_for
from seqrec.models import MODELS
from seqrec.models.base import SequenceModel
from seqrec.models.build import parse_model

FILES = sorted((REPOSITORY / "examples").glob("*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_setting_is_known(file: Path) -> None:
    comparison = CompareConfig.read(file)
    for data in comparison.data:
        for model in comparison.models:
            trained = issubclass(parse_model({"name": model.model})[0], SequenceModel)
            changes = (comparison.settings if trained else {}) | model.settings
            name = Path(data.source).stem
            config = RunConfig.from_dict(settings_for(name, model.model, model.preset, changes))
            for key, values in comparison.vary.items():
                varied = settings_for(name, model.model, model.preset, {**comparison.settings, key: values[0]})
                assert RunConfig.from_dict(varied).model_name == config.model_name


def test_every_model_is_in_the_large_table_or_has_been_tuned() -> None:
    named = {entry.model for entry in CompareConfig.read(REPOSITORY / "examples" / "ml-100k.yaml").models}
    tuned = {name.partition("/")[2].partition(".")[0] for name in presets() if not name.startswith("default/")}
    assert named | tuned == set(MODELS) - {"ensemble"}
