"""The comparison files in examples/ say what they mean: every setting in them is one that its model takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import REPOSITORY
from seqrec.experiments.compare.config import CompareConfig
from seqrec.experiments.config import RunConfig, settings_for
from seqrec.models import MODELS

FILES = sorted((REPOSITORY / "examples").glob("*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_setting_is_known(file: Path) -> None:
    comparison = CompareConfig.read(file)
    for data in comparison.data:
        for model in comparison.models:
            settings = settings_for(data.source, model.model, model.preset, model.settings)
            config = RunConfig.from_dict(settings)
            for key, values in comparison.vary.items():
                varied = settings_for(data.source, model.model, model.preset, {**comparison.settings, key: values[0]})
                assert RunConfig.from_dict(varied).model_name == config.model_name


def test_the_large_tables_have_every_model() -> None:
    named = {entry.model for entry in CompareConfig.read(REPOSITORY / "examples" / "ml-100k.yaml").models}
    assert named == set(MODELS) - {"ensemble"}
