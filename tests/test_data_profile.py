"""What is counted of a log, against counting by hand."""

from __future__ import annotations

from collections import Counter

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqrec.data.profile import Profile, date, gini, profile
from seqrec.data.sampling_steps import Log

ids = st.one_of(st.none(), st.sampled_from("abcd"))
logs = st.lists(st.tuples(ids, ids, st.one_of(st.none(), st.integers(-5, 5))), max_size=30)


def profile_of(users: list[str | None], items: list[str | None], times: list[int | None], exact: int = 100) -> Profile:
    connection = duckdb.connect()
    columns = {"user": pa.array(users, pa.string()), "item": pa.array(items, pa.string())}
    connection.register("log", pa.table({**columns, "timestamp": pa.array(times, pa.int64())}))
    return profile(connection, Log("log", clock=False), exact_pairs=exact)


@given(logs)
def test_as_counted_by_hand(log: list[tuple[str | None, str | None, int | None]]) -> None:
    users, items, times = ([event[k] for event in log] for k in range(3))
    found = profile_of(users, items, times)  # type: ignore[arg-type]
    per_user = Counter(user for user in users if user)
    there = [time for time in times if time is not None]
    pairs = {(user, item) for user, item, _ in log if user and item}
    assert found.rows == len(log)
    assert found.users == len(per_user)
    assert found.items == len({item for item in items if item})
    assert (found.first, found.last) == ((min(there), max(there)) if there else (None, None))
    assert found.events_per_user["max"] == max(per_user.values(), default=0)
    assert found.events_per_user["min"] == min(per_user.values(), default=0)
    assert found.events_per_user["mean"] * max(1, len(per_user)) == pytest.approx(sum(per_user.values()))
    assert found.repeated == (pytest.approx(1 - len(pairs) / len(log)) if log else 0)
    assert found.unusable == sum(value is None for column in (users, items, times) for value in column)


def test_density_and_gini() -> None:
    found = profile_of(["a", "a", "b", "b"], ["x", "x", "x", "y"], [1, 2, 3, 4])
    assert found.density == 1.0
    assert found.gini == pytest.approx(0.25)
    assert found.repeated == 0.25
    assert found.repeated_exact


@given(st.lists(st.integers(1, 100), min_size=1, max_size=20))
def test_gini_is_the_mean_difference_over_twice_the_mean(counts: list[int]) -> None:
    values = np.array(counts)
    expected = np.abs(values[:, None] - values).mean() / (2 * values.mean())
    assert gini(values) == pytest.approx(expected)
    assert gini(values * 3) == pytest.approx(expected)


def test_repeats_of_a_long_log_are_nearly_right() -> None:
    random = np.random.default_rng(0)
    users, items = (random.integers(0, n, 200_000).astype(str).tolist() for n in (500, 400))
    times = list(range(200_000))
    exact, estimated = (profile_of(users, items, times, exact) for exact in (10**6, 1000))
    assert exact.repeated_exact
    assert not estimated.repeated_exact
    assert estimated.repeated == pytest.approx(exact.repeated, abs=0.02)
    assert estimated.repeated == profile_of(users, items, times, 1000).repeated
    assert (estimated.rows, estimated.users, estimated.gini) == (exact.rows, exact.users, exact.gini)


def test_facts_have_dates_where_there_is_a_clock() -> None:
    assert date(1_584_709_191_000) == "2020-03-20 12:59:51"
    assert "first_date" not in profile_of(["a"], ["x"], [0]).facts()
