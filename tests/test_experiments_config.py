"""One object holds all settings; it survives JSON, and every wrong key is named."""

from __future__ import annotations

import json
from typing import Any

import pytest

from seqrec.errors import ConfigError, UnknownNameError
from seqrec.experiments.config import RunConfig, presets, settings_for
from seqrec.models import MODELS


def message(values: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as error:
        RunConfig.from_dict(values)
    return str(error.value)


def test_nothing_given_is_the_defaults() -> None:
    config = RunConfig.from_dict({})
    assert (config.model_name, config.loss_name, config.seed) == ("xlstm", "softmax", 42)
    assert config.data.source == "ml-100k"


@pytest.mark.parametrize("name", MODELS)
def test_settings_survive_json(name: str) -> None:
    config = RunConfig.from_dict({"model": {"name": name}, "seed": 7, "training": {"betas": [0.8, 0.9]}})
    assert RunConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"trainig": {}}, "Unknown key trainig. Did you mean 'training'? Valid: data, model, loss, "),
        ({"model": {"embeding_dim": 3}}, "Unknown key model.embeding_dim. Did you mean model.embedding_dim?"),
        ({"loss": {"smoothing": 0.1}}, "Did you mean loss.label_smoothing?"),
        ({"data": {"kcore": 5}}, "Did you mean data.k_core?"),
        ({"evaluation": {"filter": True}}, "Did you mean evaluation.filter_seen?"),
        ({"model": {"name": "xlstn"}}, "Unknown model 'xlstn'. Did you mean 'xlstm'?"),
        ({"loss": {"name": "sofmax"}}, "Unknown loss 'sofmax'. Did you mean 'softmax'?"),
        ({"model": {"embedding_dim": 5, "num_heads": 2}}, "embedding_dim 5 is not a multiple of num_heads 2"),
        ({"model": "sasrec"}, "model: is a group of settings, written model.KEY=VALUE (got 'sasrec')."),
        ({"seed": -1}, "seed: a whole number from 0 (got -1)."),
        ({"seed": "x"}, "seed: a whole number from 0 (got 'x')."),
        ({"evaluation": {"ks": [5]}}, "evaluation.ks: training.metric needs the cut-off 10 (got [5])."),
        ({"training": {"metric": "mrr@7"}}, "evaluation.ks: training.metric needs the cut-off 7"),
        ({"evaluation": {"ks": [0]}}, "evaluation.ks: cut-offs are whole numbers from 1"),
    ],
)
def test_what_is_refused(values: dict[str, Any], told: str) -> None:
    assert told in message(values)


def test_another_cut_off_chooses_the_epoch_when_it_is_measured() -> None:
    values = {"training": {"metric": "mrr@7"}, "evaluation": {"ks": [7, 10]}}
    assert RunConfig.from_dict(values).training.metric == "mrr@7"


def test_changes_come_dotted_or_nested() -> None:
    dotted = settings_for("log.csv", "sasrec", None, {"model.embedding_dim": 16, "seed": 3})
    nested = settings_for("log.csv", "sasrec", None, {"model": {"embedding_dim": 16}, "seed": 3})
    assert dotted == nested == {
        "data": {"source": "log.csv"}, "model": {"name": "sasrec", "embedding_dim": 16}, "seed": 3
    }  # fmt: skip


@pytest.mark.parametrize("changes", [{"loss.name": "bpr"}, {"loss": {"name": "bpr"}}])
def test_another_loss_leaves_the_options_of_the_preset_s_out(changes: dict[str, Any]) -> None:
    name = next(name for name, values in presets().items() if len(values.get("loss", {})) > 0)
    dataset, _, rest = name.partition("/")
    model, _, variant = rest.partition(".")
    assert settings_for(dataset, model, variant or None, changes)["loss"] == {"name": "bpr"}
    own = settings_for(dataset, model, variant or None, {"loss": {"weight": 1}})["loss"]
    assert own == {**presets()[name]["loss"], "weight": 1}


@pytest.mark.parametrize("key", ["epochs", "model"])
def test_a_change_of_what_is_no_setting(key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        settings_for("log.csv", "sasrec", None, {key: 3})


def test_an_unknown_variant() -> None:
    with pytest.raises(UnknownNameError, match=r"Unknown preset 'log\.csv/sasrec\.quick'"):
        settings_for("log.csv", "sasrec", "quick")
