"""Small valid files of every layout of raw data, and what reads them, for `fuzz_readers`."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from seqrec.data.interactions import Interactions
from seqrec.data.sources import amazon, music4all, steam
from seqrec.data.sources.lastfm import PLAYS, PROFILES, read_lastfm
from seqrec.data.sources.movielens import read_zip
from seqrec.data.sources.recbole import read_recbole
from seqrec.data.sources.retailrocket import read_retailrocket
from seqrec.data.sources.table import read_table
from seqrec.data.sources.yelp import BUSINESSES, REVIEWS, USERS, read_yelp

Files = dict[str, bytes]


@dataclass(frozen=True)
class Seed:
    """A valid input.

    Attributes:
        read: reads the folder with the files; also given the cache.
        files: name -> content before it is packed, as `.gz` and `.bz2` are.
        archive: name of the archive that holds the files; empty where they lie in the folder.
    """

    read: Callable[[Path, Path], Interactions]
    files: Files
    archive: str = ""


#: Three people and four items, as user, item, second and rating.
EVENTS = [
    (f"u{u}", f"i{(u * step + step) % 4}", 1_400_000_000 + 7 * step - u, step % 5 + 1)
    for u in range(3)
    for step in range(5)
]


def text(lines: str) -> bytes:
    return lines.encode()


def table(delimiter: str = ",", head: str = "user,item,ts,rating") -> bytes:
    rows = [delimiter.join(map(str, event)) for event in EVENTS]
    return text("\n".join([head.replace(",", delimiter), *rows]) + "\n")


def parquet(**columns: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def a_table(name: str, content: bytes, **options: Any) -> Seed:
    return Seed(lambda folder, _: read_table(folder / name, **options), {name: content})


def named(load: Callable[..., Interactions], name: str, files: Files) -> Seed:
    """A data set that is read from its folder in the cache."""
    return Seed(lambda folder, cache: load(name, cache=cache, report=lambda line: None), files)


def movielens(name: str, files: Mapping[str, str | bytes], encoding: str = "utf-8") -> Seed:
    encoded = {file: data if isinstance(data, bytes) else data.encode(encoding) for file, data in files.items()}
    return Seed(lambda folder, cache: read_zip(name, folder / "ml.zip", cache), encoded, "ml.zip")


def objects(line: str, style: Callable[[str], str] = str) -> bytes:
    """A line for every event; `U`, `I`, `T` and `R` stand for its user, item, second and rating."""
    filled = []
    for user, item, second, rating in EVENTS:
        values = {"<U>": user, "<I>": item, "<T>": str(second), "<R>": str(rating)}
        full = line
        for key, value in values.items():
            full = full.replace(key, value)
        filled.append(style(full))
    return text("\n".join(filled) + "\n")


REVIEW = (
    '{"reviewerID": "<U>", "asin": "<I>", "reviewText": "It\\u00e9 \\"x\\"", "overall": <R>.0, "unixReviewTime": <T>}'
)
NEW = '{"user_id": "<U>", "parent_asin": "<I>", "rating": <R>.0, "timestamp": <T>000, "images": [{"a": null}]}'
META = '{"asin": "<I>", "title": "A &amp; b", "price": 12.5, "brand": "X", "categories": [["Beauty", "Hair"], ["B"]]}'
META_18 = '{"asin": "<I>", "title": "A", "price": "$1,299.00", "brand": "by X", "category": ["Software", "A &amp; B"]}'
META_23 = (
    '{"parent_asin": "<I>", "title": "A", "price": "8.99", "store": "S", "categories": [], "main_category": "All"}'
)
GAME = "{u'id': u'<I>', u'title': u'L &amp; \\u2122 \\'x\\'', u'genres': [u'Action'], u'tags': [u'A'], u'price': 4.99, u'release_date': u'2018-01-04', u'developer': u\"K's\"}"  # noqa: E501
PLAYED = "{u'username': u'<U> \\xe9\\ud83d\\ude00', u'hours': <R>.5, u'product_id': u'<I>', u'date': u'2017-12-1<R>', u'text': u\"it's\", u'early_access': False, u'n': None}"  # noqa: E501
MUSIC = objects("<U>\t<I>\t2019-02-2<R> 12:28:00").replace(b"u0", b"user_id\ttrack_id\ttimestamp\nu0", 1)
COLUMNS = {
    name: list(column) for name, column in zip(("user", "item", "ts", "rating"), zip(*EVENTS, strict=True), strict=True)
}
INTER = table("\t", "user_id:token,item_id:token,timestamp:float,rating:float")
ITEM = text(
    'item_id:token\tmovie_title:token_seq\tyear:token\tclass:token_seq\ni0\tToy "Story\t1995\tA B\ni1\tX\t1995.5\t\n'
)
SHOP: Files = {
    "events.csv": text("timestamp,visitorid,event,itemid,transactionid\n") + objects("<T>000,<U>,view,<I>,"),
    "item_properties_part1.csv": text(
        "timestamp,itemid,property,value\n143,i0,categoryid,13\n144,i1,888,n277.200 11\n"
    ),
    "category_tree.csv": text("categoryid,parentid\n13,21\n21,9\n9,\n5,6\n6,5\n"),
}
YELP: Files = {
    BUSINESSES: objects(
        '{"business_id": "<I>", "name": "T\\"s", "city": "P", "state": "PA", "categories": "A, B & C,  D"}'
    ),
    REVIEWS: objects(
        '{"user_id": "<U>", "business_id": "<I>", "stars": <R>.0, "text": "x\\ny", "date": "2018-07-0<R> 22:09:11"}'
    ),
    USERS: objects('{"user_id": "<U>", "yelping_since": "2009-01-25 04:35:42", "friends": "a, b"}'),
}
FILMS = "i0::Heat: (1995)::A|B\ni1::Amélie :: x (2001)::C\n"
FILMS_CSV = text('movieId,title,genres\ni0,"Amélie, or ""x"" (2001) ",A|B\ni1,Y (1999-2000),(no genres listed)\n')
LOVED = objects('<U>\t2009-05-0<R>T23:08:57Z\tf1b1\tDeep <I>\t\tSong "<I>')
AMAZON_14 = {
    "reviews_Beauty_5.json.gz": objects(REVIEW),
    "meta_Beauty.json": objects(META, lambda line: line.replace('"', "'")),
}

SEEDS: dict[str, Seed] = {
    "csv": a_table("log.csv", table()),
    "csv-quoted": a_table("log.csv", table().replace(b"i1", b'"i, ""1"""')),
    "csv-iso": a_table("log.csv", re.sub(rb"1\d{7}(\d\d)", rb"2014-05-13T16:53:00.\1Z", table())),
    "csv-order": a_table("log.csv", table(), time_unit="order", value="rating"),
    "tsv": a_table("log.tsv", table("\t")),
    "semicolons": a_table("log.txt", table(";")),
    "colons": a_table("log.txt", table("::")),
    "csv-gz": a_table("log.csv.gz", table()),
    "parquet": a_table("log.parquet", parquet(**COLUMNS)),
    "parquet-parts": Seed(lambda folder, _: read_table(folder), {f"{k}.parquet": parquet(**COLUMNS) for k in range(2)}),
    "recbole": Seed(
        lambda folder, _: read_recbole(folder),
        {"a.inter": INTER, "a.item": ITEM, "a.user": text("user_id:token\tage:float\nu0\t3\nu1\t\n")},
    ),
    "recbole-parts": Seed(
        lambda folder, _: read_recbole(folder), {f"a.{part}.inter": INTER for part in ("train", "valid")}
    ),
    "ml-100k": movielens(
        "ml-100k",
        {
            "u.data": objects("<U>\t<I>\t<R>\t<T>"),
            "u.genre": "unknown|0\nAction|1\n\n",
            "u.item": 'i0|Kolya (1996)|24-Jan-1997||http://x|0|1\ni1|Après "x" (1995) (V)||||1|1\n',
            "u.user": "u0|49|M|writer|55105\nu1|39|F|executive|T8H1N\n",
        },
        "latin-1",
    ),
    "ml-1m": movielens(
        "ml-1m",
        {
            "ratings.dat": objects("<U>::<I>::<R>::<T>"),
            "movies.dat": FILMS,
            "users.dat": "u0::F::1::10::48067\nu1::M::56::20::70072-1234\n",
        },
        "latin-1",
    ),
    "ml-10m": movielens("ml-10m", {"ratings.dat": objects("<U>::<I>::<R>::<T>"), "movies.dat": FILMS}),
    "ml-20m": movielens(
        "ml-20m", {"ratings.csv": table(",", "userId,movieId,timestamp,rating"), "movies.csv": FILMS_CSV}
    ),
    "amazon-2014-beauty": named(amazon.load, "amazon-2014-beauty", AMAZON_14),
    "amazon-2018-software": named(
        amazon.load,
        "amazon-2018-software",
        {"Software.csv": objects("<I>,<U>,<R>.0,<T>"), "meta_Software.json.gz": objects(META_18)},
    ),
    "amazon-2023-all-beauty": named(
        amazon.load,
        "amazon-2023-all-beauty",
        {"All_Beauty.jsonl": objects(NEW), "meta_All_Beauty.jsonl": objects(META_23)},
    ),
    "steam": named(steam.load, "steam", {"steam_reviews.json": objects(PLAYED), "steam_games.json.gz": objects(GAME)}),
    "music4all": named(
        music4all.load,
        "music4all",
        {
            "userid_trackid_timestamp.tsv.bz2": MUSIC,
            "id_information.csv": text('id\tartist\tsong\talbum\ni0\tS &amp; G\t"The ""B"""\tB\ni1\tB\t"H"\tD\n'),
            "id_metadata.csv": text("id\trelease\ni0\t1970\ni1\t1977-10-14\n"),
            "id_genres.csv": text("id\tgenres\ni0\tfolk,rock\n"),
        },
    ),
    "yelp-tar": Seed(lambda folder, cache: read_yelp(folder / "a.tar", cache), YELP, "a.tar"),
    "yelp-folder": Seed(read_yelp, YELP),
    "lastfm": Seed(
        lambda folder, cache: read_lastfm(folder / "a.tar.gz", cache),
        {PLAYS: LOVED, PROFILES: text("#id\tgender\tage\tcountry\tregistered\nu0\tm\t\tJapan\tAug 13, 2006\n")},
        "a.tar.gz",
    ),
    "retailrocket": Seed(
        lambda folder, cache: read_retailrocket("retailrocket", folder / "a.zip", cache), SHOP, "a.zip"
    ),
}
