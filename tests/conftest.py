"""What several tests need: the real data where it is, a cache of their own, a small log."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

# Two threads of torch collapse where the second core is busy: `python -m pytest` is as `make test` is.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The same examples on every machine; a slow machine is no failure.
settings.register_profile("seqrec", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("seqrec")

REPOSITORY = Path(__file__).parent.parent
#: How the columns of the small log are called, and settings that train on it in a second.
COLUMNS = {"user": "uid", "item": "iid", "time": "ts"}
SMALL = {"model.embedding_dim": 16, "model.max_length": 32, "training.epochs": 3, "training.batch_size": 16}


def real_data() -> Path:
    """Where real data sets may be: SEQREC_TEST_DATA, or `../shared/data` beside the checkout."""
    return Path(os.environ.get("SEQREC_TEST_DATA", REPOSITORY.parent / "shared" / "data"))


@pytest.fixture(scope="session")
def ml_100k_folder() -> Path:
    folder = real_data() / "ml-100k"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    return folder


@pytest.fixture(scope="session")
def ml_1m_zip() -> Path:
    path = real_data() / "ml-1m.zip"
    if not path.is_file():
        pytest.skip(f"no {path}")
    return path


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test has its own cache, so none reads or writes the user's."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("SEQREC_CACHE", str(cache))
    return cache


@pytest.fixture
def small_log(tmp_path: Path) -> Path:
    """A CSV of 40 people and 30 items with clock times; item i is often followed by item i + 1."""
    return write_small_log(tmp_path / "log.csv")


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished run of a small SASRec on the small log. Tests read it and change nothing in it."""
    return _train(tmp_path_factory.mktemp("sasrec"), "sasrec", SMALL)


@pytest.fixture(scope="session")
def popularity_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished popularity run on the small log."""
    return _train(tmp_path_factory.mktemp("popularity"), "popularity", {})


def _train(folder: Path, model: str, settings: dict[str, object]) -> Path:
    import seqrec

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEQREC_CACHE", str(folder / "cache"))
        log = write_small_log(folder / "log.csv")
        seqrec.train(log, model, settings=settings, out=folder / "run", device="cpu", **COLUMNS)
    return folder / "run"


def write_small_log(path: Path) -> Path:
    """Write the small log to `path`."""
    random = np.random.default_rng(0)
    lines = ["uid,iid,ts"]
    for user in range(40):
        item, time = int(random.integers(1, 31)), 1_600_000_000
        for _ in range(int(random.integers(8, 25))):
            time += int(random.integers(1, 100_000))
            lines.append(f"u{user},i{item},{time}")
            item = item % 30 + 1 if random.random() < 0.7 else int(random.integers(1, 31))
    path.write_text("\n".join(lines) + "\n")
    return path
