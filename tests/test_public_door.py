"""What is public is written down here, too: a name that appears or vanishes is a decision, not an accident."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import seqrec

PUBLIC = [
    "ACCURACY",
    "CATALOGUE",
    "LOSSES",
    "MODELS",
    "SOURCES",
    "Recommender",
    "Run",
    "Scorer",
    "SequenceModel",
    "__version__",
    "ablate",
    "combine",
    "compare",
    "evaluate",
    "load_data",
    "train",
    "tune",
]


def test_the_public_names() -> None:
    assert seqrec.__all__ == PUBLIC


def test_dir_agrees() -> None:
    assert sorted(dir(seqrec)) == sorted(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_there_and_is_where_it_was_made(name: str) -> None:
    found = getattr(seqrec, name)
    if name.isupper():
        assert all(":" in target for target in found.values())
        assert name in vars(importlib.import_module(seqrec._PUBLIC[name]))
    elif name != "__version__":
        assert found.__module__ == seqrec._PUBLIC[name]
        assert found.__doc__


def test_nothing_else_leaks(tmp_path: Path) -> None:
    code = "before = set(globals()); from seqrec import *; print(*sorted(set(globals()) - before - {'before'}))"
    found = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert found.stdout.split() == sorted(PUBLIC)


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="module 'seqrec' has no attribute 'trian'"):
        seqrec.trian  # noqa: B018


def test_the_version_is_that_of_the_package() -> None:
    from importlib.metadata import version

    assert seqrec.__version__ == version("seqrec")
