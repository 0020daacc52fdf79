"""Data sets by name.

`SOURCES` maps a name to the callable that loads it, as "module:callable"; modules are imported when asked for. To add
a data set, write one file here with

    def load(name: str, *, cache: Path, report: Callable[[str], None]) -> Interactions

which finds the raw files in `cache/raw/<name>/`, or downloads them there with `seqrec.data.download.fetch`, and
reads them; then add one line below. From outside the package, give `my_package.my_module:load` as the name.
A module whose raw file people can bring themselves also has `add(name, path, cache)`, for `seqrec data add`.
"""

from __future__ import annotations

from seqrec.data.sources.amazon_categories import names as amazon_names

#: Their terms have to be agreed to by a person.
BY_HAND = ("yelp", "retailrocket", "retailrocket-buys")
SOURCES: dict[str, str] = {
    "ml-100k": "seqrec.data.sources.movielens:load",
    "ml-latest-small": "seqrec.data.sources.movielens:load",
    "ml-1m": "seqrec.data.sources.movielens:load",
    "ml-10m": "seqrec.data.sources.movielens:load",
    "ml-20m": "seqrec.data.sources.movielens:load",
    "ml-25m": "seqrec.data.sources.movielens:load",
    "ml-32m": "seqrec.data.sources.movielens:load",
    "steam": "seqrec.data.sources.steam:load",
    "music4all": "seqrec.data.sources.music4all:load",
    "lastfm-1k": "seqrec.data.sources.lastfm:load",
    "yelp": "seqrec.data.sources.yelp:load",
    "retailrocket": "seqrec.data.sources.retailrocket:load",
    "retailrocket-buys": "seqrec.data.sources.retailrocket:load",
    **amazon_names(),
}
