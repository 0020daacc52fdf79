"""What several tests need: the real data where it is, a cache of their own, a small log."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

# The same examples on every machine; a slow machine is no failure.
settings.register_profile("seqrec", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("seqrec")

REPOSITORY = Path(__file__).parent.parent


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
    random = np.random.default_rng(0)
    lines = ["uid,iid,ts"]
    for user in range(40):
        item, time = int(random.integers(1, 31)), 1_600_000_000
        for _ in range(int(random.integers(8, 25))):
            time += int(random.integers(1, 100_000))
            lines.append(f"u{user},i{item},{time}")
            item = item % 30 + 1 if random.random() < 0.7 else int(random.integers(1, 31))
    path = tmp_path / "log.csv"
    path.write_text("\n".join(lines) + "\n")
    return path
