"""Generated logs in the shape of real ones: the same counts of rows, users and items, the same skew; all made up.

python bench/generate.py music4all OUT_FOLDER
python bench/generate.py ml-20m OUT_FOLDER --rows 2000000

`music4all` (Music4All-Onion's listening events) is a folder of Parquet parts: user_id, track_id, timestamp. A user's
plays stand together, newest first, users in no order; about four plays in five repeat one of the user's tracks.
`ml-20m` (MovieLens-20M) is `ratings.csv`: userId, movieId, rating, timestamp, by user and film; no pair occurs twice.
With `--rows`, users and items shrink with it. The same arguments give the same log; its counts are checked in the end.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq

Ints = npt.NDArray[np.int64]
PART, GROUP = 1 << 23, 1 << 20
YEAR = 31_557_600


@dataclass(frozen=True)
class Shape:
    """Counts of a log, and how events spread over users: log-normal between `least` and `most`, after `light` users
    of fewer than five events."""

    rows: int
    users: int
    items: int
    least: int
    most: int
    sigma: float
    light: float = 0.0

    def scaled(self, rows: int) -> Shape:
        """The same with fewer rows."""
        share = rows / self.rows
        users, items = max(50, round(self.users * share)), max(200, round(self.items * share**0.5))
        most = max(self.least, min(rows // 10, self.most * items // self.items))
        return replace(self, rows=rows, users=users, items=items, most=most)


SHAPES = {
    "music4all": Shape(252_984_396, 119_140, 56_512, least=1, most=243_384, sigma=1.8, light=0.23),
    "ml-20m": Shape(20_000_263, 138_493, 26_744, least=20, most=9_254, sigma=1.25),
}


def events_per_user(shape: Shape, random: np.random.Generator) -> Ints:
    """Counts (U,) in no order, which sum to `shape.rows`."""
    light = 1 + np.arange(round(shape.users * shape.light)) % 4
    heavy = shape.users - len(light)
    normal = NormalDist()
    spread = np.exp(shape.sigma * np.array([normal.inv_cdf((k + 0.5) / heavy) for k in range(heavy)]))
    low, high = 0.0, float(shape.most)
    least = max(shape.least, 5)
    for _ in range(100):
        middle = (low + high) / 2
        counts = np.clip(np.rint(middle * spread), least, shape.most).astype(np.int64)
        low, high = (middle, high) if counts.sum() + light.sum() < shape.rows else (low, middle)
    counts = np.clip(np.rint(low * spread), least, shape.most).astype(np.int64)
    if len(light):
        light[0] = shape.least
    counts[0], counts[-1] = (counts[0] if len(light) else shape.least), shape.most
    lacking = shape.rows - int(counts.sum() + light.sum())
    room = np.flatnonzero((counts > least + 1) & (counts < shape.most - 1))
    step = 1 if lacking > 0 else -1
    for start in range(0, abs(lacking), len(room)):
        counts[room[: abs(lacking) - start]] += step
    return random.permutation(np.concatenate([light, counts]))


def blocks(counts: Ints, size: int) -> Iterator[tuple[Ints, Ints]]:
    """User (n,) and number within the user (n,) of every event, some `size` at a time."""
    ends = np.cumsum(counts)
    for first in range(0, int(ends[-1]), size):
        rows = np.arange(first, min(first + size, int(ends[-1])))
        users = np.searchsorted(ends, rows, side="right")
        yield users, rows - (ends - counts)[users]


def mixed(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.float64]:
    """Uniform numbers in [0, 1) that depend on `values` only: splitmix64's finaliser."""
    x = values * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    return (x >> np.uint64(11)).astype(np.float64) / 2**53


def plays(shape: Shape, folder: Path) -> None:
    """Music: everybody has a stock of tracks that grows more slowly than the plays, and favourites in it."""
    random = np.random.default_rng(4)
    counts = events_per_user(shape, random)
    width = len(str(shape.users))
    names = pa.array([f"user_{code:0{width}d}" for code in random.permutation(shape.users)])
    tracks = pa.array([_track(code) for code in random.permutation(shape.items)])
    stock = np.ceil(1.25 * counts**0.85)
    newest = np.int64(1_584_709_191) - (random.random(shape.users) ** 2 * 8 * YEAR).astype(np.int64)
    span = (newest - 1_108_000_000) * random.random(shape.users) ** 0.5
    folder.mkdir(parents=True)
    for part, (users, place) in enumerate(blocks(counts, PART)):
        slot = (stock[users] * random.random(len(users), np.float32) ** 1.5).astype(np.uint64)
        track = (shape.items * mixed((users.astype(np.uint64) << np.uint64(24)) + slot) ** 3).astype(np.int32)
        age = span[users] * (place + random.random(len(users), np.float32)) / counts[users]
        seconds = newest[users] - age.astype(np.int64)
        lowest = int(users[0])
        known = names.slice(lowest, int(users[-1]) - lowest + 1)
        columns = {
            "user_id": pa.DictionaryArray.from_arrays(pa.array((users - lowest).astype(np.int32)), known),
            "track_id": pa.DictionaryArray.from_arrays(pa.array(track), tracks),
            "timestamp": pa.array(seconds * 1000).cast(pa.timestamp("ms")),
        }
        path = folder / f"part-{part:05d}.parquet"
        pq.write_table(pa.table(columns), path, compression="zstd", row_group_size=GROUP)


def ratings(shape: Shape, folder: Path) -> None:
    """Films: rated once each, popular ones by most; timestamps within the days in which a user was there."""
    random = np.random.default_rng(20)
    counts = events_per_user(shape, random)
    films = np.sort(random.choice(5 * shape.items, shape.items, replace=False) + 1)[random.permutation(shape.items)]
    starts = 789_652_004 + (random.random(shape.users) * 20 * YEAR).astype(np.int64)
    stay = (86_400 * (0.02 + 3 * random.random(shape.users) ** 6 * counts**0.5)).astype(np.int64)
    folder.mkdir(parents=True)
    large = 1 << 20
    carried = -1
    with (folder / "ratings.csv").open("wb") as file:
        file.write(b"userId,movieId,rating,timestamp\n")
        for users, place in blocks(counts, 1 << 21):
            even = (place + random.random(len(users))) / counts[users]
            ranks = np.minimum((shape.items * even**2.2).astype(np.int64), shape.items - counts[users] + place)
            # Ranks grow strictly within a user: where two fall together, the later one moves on.
            apart = users * large + ranks - place
            apart[0] = max(int(apart[0]), carried)
            apart = np.maximum.accumulate(apart)
            carried = int(apart[-1])
            film = films[apart + place - users * large]
            columns = {
                "userId": users + 1,
                "movieId": film,
                "rating": np.clip(np.rint(2 * (3.5 + random.normal(size=len(users)))), 1, 10) / 2,
                "timestamp": starts[users] + (stay[users] * random.random(len(users))).astype(np.int64),
            }
            order = np.lexsort((film, users))
            table = pa.table({name: values[order] for name, values in columns.items()})
            csv.write_csv(table, file, csv.WriteOptions(include_header=False))


def check(folder: Path, shape: Shape, names: tuple[str, str]) -> dict[str, Any]:
    """Count what was written; SystemExit where the counts are not the shape's."""
    import duckdb

    csv_file = folder / "ratings.csv"
    relation = f"read_csv('{csv_file}')" if csv_file.exists() else f"read_parquet('{folder}/*.parquet')"
    user, item = names
    distinct = f"SELECT count(DISTINCT {item}) FROM {relation}"
    per_user = f"SELECT count(*) AS n FROM {relation} GROUP BY {user}"
    query = f"SELECT sum(n)::BIGINT, count(*), ({distinct}), min(n), max(n) FROM ({per_user})"
    found = duckdb.connect().execute(query).fetchone()
    wanted = (shape.rows, shape.users, shape.items, shape.least, shape.most)
    if found != wanted:
        raise SystemExit(f"{folder} has {found} (rows, users, items, least and most per user), not {wanted}.")
    return dict(zip(("rows", "users", "items", "least", "most"), wanted, strict=True))


def _track(code: int) -> str:
    """Sixteen letters and digits."""
    value = int(mixed(np.array([code + 1], np.uint64))[0] * 2**53) * 62**6 + int(code)
    letters = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    return "".join(letters[value // 62**k % 62] for k in range(16))


def main() -> None:
    """Generate, check, say what it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rows", type=int)
    arguments = parser.parse_args()
    shape = SHAPES[arguments.shape]
    if arguments.rows:
        shape = shape.scaled(arguments.rows)
    began = time.perf_counter()
    if arguments.shape == "music4all":
        plays(shape, arguments.out)
        found = check(arguments.out, shape, ("user_id", "track_id"))
    else:
        ratings(shape, arguments.out)
        found = check(arguments.out, shape, ("userId", "movieId"))
    print(f"{arguments.out}: {found}, {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
