"""Errors have one root, an exit code each, and say what was probably meant."""

from __future__ import annotations

import inspect

import pytest

import seqrec.files
import seqrec.training.trainer
from seqrec import errors
from seqrec.errors import MissingExtraError, SeqrecError, nearest, unknown_name

CODES = {
    "SeqrecError": 1,
    "ConfigError": 2,
    "UnknownNameError": 2,
    "DataError": 3,
    "DownloadError": 3,
    "RunFolderError": 4,
    "CheckpointError": 4,
    "TrainingError": 5,
    "ScoreError": 5,
    "UnknownItemsError": 6,
    "MissingExtraError": 7,
}


def test_every_error_has_its_exit_code() -> None:
    found = {name: kind for name, kind in vars(errors).items() if getattr(kind, "__module__", "") == errors.__name__}
    found = {name: kind for name, kind in found.items() if inspect.isclass(kind)}
    assert {name: kind.exit_code for name, kind in found.items()} == CODES
    assert all(issubclass(kind, SeqrecError) for kind in found.values())
    assert seqrec.training.trainer.TrainingInterrupted.exit_code == 130
    assert seqrec.files.DiskError.exit_code == 1


def test_a_missing_extra_says_how_to_install_it() -> None:
    error = MissingExtraError("faiss", "index")
    assert str(error) == 'faiss is needed for this and not installed: pip install "seqrec[index]"'
    assert isinstance(error, ImportError)


@pytest.mark.parametrize(
    ("name", "guess"), [("xlsmt", "xlstm"), ("SASREC", None), ("sasrec2", "sasrec"), ("zzz", None)]
)
def test_nearest(name: str, guess: str | None) -> None:
    assert nearest(name, ["xlstm", "sasrec", "popularity"]) == guess


def test_unknown_names_of_an_empty_table() -> None:
    assert str(unknown_name("tracker", "x", [])) == "Unknown tracker 'x'. Known: none."


def test_of_many_names_those_most_alike_are_listed() -> None:
    known = ["ml-100k", "ml-1m", *(f"amazon-{number}" for number in range(100))]
    said = str(unknown_name("data set", "ml-100", known))
    assert "Did you mean 'ml-100k'?" in said
    assert "102 are known, such as ml-100k, " in said
    assert len(said) < 250
