"""GroupLens' layouts with their oddities, the cache, and the real files where they are."""

from __future__ import annotations

import os
import shutil
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pytest

from seqrec.data.sources import SOURCES, movielens
from seqrec.data.sources.movielens import add, load, read_zip
from seqrec.data.sources.movielens_titles import split_year
from seqrec.data.sources.movielens_wheel import WHEEL_SHA256
from seqrec.errors import DataError, DownloadError, UnknownNameError
from seqrec.files import sha256_file
from seqrec.registry import resolve

REAL = Path(os.environ.get("SEQREC_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))

GENRES = [
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
]  # fmt: skip


def flags(*genres: str) -> str:
    return "|".join("1" if genre in genres else "0" for genre in GENRES)


ML_100K = {
    "ml-100k/u.data": "196\t242\t3\t881250949\n186\t302\t3\t891717742\n196\t302\t1\t881250949\n",
    "ml-100k/u.genre": "".join(f"{genre}|{number}\n" for number, genre in enumerate(GENRES)) + "\n",
    "ml-100k/u.item": (
        f"242|Kolya (1996)|24-Jan-1997||http://example.org/?Kolya%20(1996)|{flags('Comedy')}\n"
        f'302|Land: "Après" (1995) (V)|01-Jan-1995|||{flags("Animation", "Drama")}\n'
        f"267|unknown||||{flags('unknown')}\n"
    ),
    "ml-100k/u.user": "196|49|M|writer|55105\n186|39|F|executive|T8H1N\n",
}
ML_1M = {
    "ml-1m/ratings.dat": "1::1193::5::978300760\n1::661::3::978302109\n2::1193::4::978298413\n",
    "ml-1m/movies.dat": (
        '661::Alien: The Return, Part 2: "Misérables" (1995)::Drama|Sci-Fi\n'
        "1193::One (1) Two (1975) ::Drama\n5::No year::(no genres listed)\n"
    ),
    "ml-1m/users.dat": "1::F::1::10::48067\n2::M::56::20::70072-1234\n3::M::25::0::02460\n",
    "ml-1m/README": "anything",
}
ML_10M = {
    "ml-10M100K/ratings.dat": "1::122::5::838985046\n1::231::3.5::838983392\n2::122::0.5::868244777\n",
    "ml-10M100K/movies.dat": (
        '122::Amélie :: "Le fabuleux destin", Part: I (2001)::Comedy|Romance\r\n'
        "231::千と千尋の神隠し (2006\u20132007)::Animation\n\n"
        "5::No year::(no genres listed)\n"
    ),
    "ml-10M100K/tags.dat": "15::4973::excellent!::1215184630\n",
}
LATEST = {
    "ml-latest-small/ratings.csv": "userId,movieId,rating,timestamp\n1,1,4.0,964982703\n1,3,4.5,964981247\n",
    "ml-latest-small/movies.csv": (
        "movieId,title,genres\n"
        '1,"Amélie, or ""Le fabuleux destin"", Part: I (2001) ",Comedy|Romance\n'
        "3,Death Note: Desu nôto (2006\u20132007),(no genres listed)\n"
        '4,"Babylon 5, the",Sci-Fi\n'
    ),
    "ml-latest-small/tags.csv": "userId,movieId,tag,timestamp\n",
}


def write(path: Path, members: dict[str, str]) -> Path:
    encoding = "latin-1" if any(name.endswith(("u.data", "users.dat")) for name in members) else "utf-8"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(name, text.encode(encoding))
    return path


def refusal(name: str, path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_zip(name, path)
    return str(caught.value)


@pytest.mark.parametrize(
    ("written", "title", "year"),
    [
        ("Toy Story (1995)", "Toy Story", 1995),
        ("Runaway Brain (1995)  ", "Runaway Brain", 1995),
        ("City of Lost Children, The (Cité, La) (1995)", "City of Lost Children, The (Cité, La)", 1995),
        ("2001: A Space Odyssey (1968)", "2001: A Space Odyssey", 1968),
        ("Death Note (2006\u20132007)", "Death Note", 2006),
        ("Fawlty Towers (1975-1979)", "Fawlty Towers", 1975),
        ("Big Bang Theory, The (2007-)", "Big Bang Theory, The", 2007),
        ("Land Before Time III (1995) (V)", "Land Before Time III", 1995),
        (" Babylon 5 ", "Babylon 5", None),
        ("1984", "1984", None),
        ("(1995) what", "(1995) what", None),
        ("", "", None),
    ],
)
def test_the_year_is_taken_off_the_title(written: str, title: str, year: int | None) -> None:
    assert split_year(written) == (title, year)


def test_ml_100k(tmp_path: Path) -> None:
    log = read_zip("ml-100k", write(tmp_path / "a.zip", ML_100K))
    assert (log.name, log.clock) == ("ml-100k", True)
    assert log.events.slice(1, 1).to_pylist() == [
        {"row": 1, "user": "186", "item": "302", "timestamp": 891717742000, "value": 3.0}
    ]
    assert log.items is not None
    assert log.items.to_pylist() == [
        {"id": "242", "title": "Kolya", "categories": ["Comedy"], "year": 1996},
        {"id": "302", "title": 'Land: "Après"', "categories": ["Animation", "Drama"], "year": 1995},
        {"id": "267", "title": "unknown", "categories": ["unknown"], "year": None},
    ]
    assert log.users is not None
    assert log.users.to_pylist()[1] == {
        "id": "186", "age": "39", "gender": "F", "occupation": "executive", "zip": "T8H1N",
    }  # fmt: skip


def test_ml_1m(tmp_path: Path) -> None:
    log = read_zip("ml-1m", write(tmp_path / "a.zip", ML_1M))
    assert (log.name, log.clock, len(log)) == ("ml-1m", True, 3)
    assert log.items is not None
    assert log.items.to_pylist() == [
        {
            "id": "661",
            "title": 'Alien: The Return, Part 2: "Misérables"',
            "categories": ["Drama", "Sci-Fi"],
            "year": 1995,
        },
        {"id": "1193", "title": "One (1) Two", "categories": ["Drama"], "year": 1975},
        {"id": "5", "title": "No year", "categories": [], "year": None},
    ]
    assert log.items.schema.field("year").type == pa.int32()
    assert log.items.schema.field("categories").type == pa.list_(pa.string())
    assert log.users is not None
    assert log.users.select(["id", "age", "gender", "occupation", "zip"]).to_pylist() == [
        {"id": "1", "age": "Under 18", "gender": "F", "occupation": "K-12 student", "zip": "48067"},
        {"id": "2", "age": "56+", "gender": "M", "occupation": "writer", "zip": "70072-1234"},
        {"id": "3", "age": "25-34", "gender": "M", "occupation": "other", "zip": "02460"},
    ]


def test_latest_small(tmp_path: Path) -> None:
    log = read_zip("ml-latest-small", write(tmp_path / "a.zip", LATEST))
    assert (log.name, log.clock, log.users) == ("ml-latest-small", True, None)
    assert log.events["value"].to_pylist() == [4.0, 4.5]
    assert log.items is not None
    assert log.items.to_pylist() == [
        {
            "id": "1",
            "title": 'Amélie, or "Le fabuleux destin", Part: I',
            "categories": ["Comedy", "Romance"],
            "year": 2001,
        },
        {"id": "3", "title": "Death Note: Desu nôto", "categories": [], "year": 2006},
        {"id": "4", "title": "Babylon 5, the", "categories": ["Sci-Fi"], "year": None},
    ]


def test_ml_10m(tmp_path: Path) -> None:
    log = read_zip("ml-10m", write(tmp_path / "a.zip", ML_10M))
    assert (log.name, log.clock, log.revisits, log.users) == ("ml-10m", True, False, None)
    assert log.events["value"].to_pylist() == [5.0, 3.5, 0.5]
    assert log.items is not None
    assert log.items.to_pylist() == [
        {
            "id": "122",
            "title": 'Amélie :: "Le fabuleux destin", Part: I',
            "categories": ["Comedy", "Romance"],
            "year": 2001,
        },
        {"id": "231", "title": "千と千尋の神隠し", "categories": ["Animation"], "year": 2006},
        {"id": "5", "title": "No year", "categories": [], "year": None},
    ]


@pytest.mark.parametrize("name", ["ml-20m", "ml-25m", "ml-32m"])
def test_the_large_ones_are_written_as_latest(tmp_path: Path, name: str) -> None:
    members = {f"{name}/{Path(member).name}": text.replace("\n", "\r\n") for member, text in LATEST.items()}
    members[f"{name}/movies.csv"] = "\ufeff" + members[f"{name}/movies.csv"]
    log = read_zip(name, write(tmp_path / "a.zip", members))
    assert (log.name, len(log), log.revisits) == (name, 2, False)
    assert log.items is not None
    assert log.items["title"].to_pylist()[0] == 'Amélie, or "Le fabuleux destin", Part: I'


def test_another_number_of_ratings_is_told_and_not_refused(tmp_path: Path) -> None:
    added = add("ml-10m", write(tmp_path / "mine.zip", ML_10M), tmp_path / "cache")
    assert added.official is False
    said: list[str] = []
    assert len(load("ml-10m", cache=tmp_path / "cache", report=said.append)) == 3
    assert said == [f"{added.path} holds 3 ratings; GroupLens counts 10,000,054 in ml-10m."]


def test_what_is_unpacked_lies_in_the_cache_and_goes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zip", ML_1M | {"copy/movies.dat": "1::Twice (1999)::Drama\n"})
    cache = tmp_path / "cache"
    with pytest.raises(DataError, match=r"movies\.dat should be in it once, is 2 times"):
        read_zip("ml-1m", path, cache)
    assert list((cache / "spool").iterdir()) == []


def test_what_is_not_utf_8_is_named(tmp_path: Path) -> None:
    for name, members, bad in (("ml-10m", ML_10M, "ml-10M100K/movies.dat"), ("ml-20m", LATEST, "ml-20m/movies.csv")):
        path = tmp_path / f"{name}.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for member, text in members.items():
                called = member.replace("ml-latest-small", name)
                archive.writestr(called, text.encode("latin-1", "replace" if called == bad else "ignore"))
        said = refusal(name, path)
        assert f"{path}: {bad}: " in said
        assert "not utf-8" in said


def test_a_line_of_films_without_colons_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zip", ML_10M | {"ml-10M100K/movies.dat": "122::Fine (2001)::Comedy\n\n231:No\n"})
    assert f"{path}: ml-10M100K/movies.dat, line 3, column 'item': no usable id" in refusal("ml-10m", path)


def test_a_folder_or_nothing_instead_of_a_zip(tmp_path: Path) -> None:
    assert f"{tmp_path} is a folder. Give the path of ml-1m.zip" in refusal("ml-1m", tmp_path)
    assert "cannot be read" in refusal("ml-1m", tmp_path / "none.zip")


def test_surrogate_times_and_other_members_and_folders(tmp_path: Path) -> None:
    members = {name.replace("ml-1m/", "copy/"): text for name, text in ML_1M.items()}
    members |= {"copy/README-SURROGATE-TIME.txt": "no clock", "__MACOSX/copy/._ratings.dat": "\x00"}
    log = read_zip("ml-1m", write(tmp_path / "a.zip", members))
    assert not log.clock
    assert len(log) == 3


def test_lines_that_cannot_be_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    bad = ML_1M | {"ml-1m/ratings.dat": ML_1M["ml-1m/ratings.dat"] + "2::::4::978298413\n"}
    assert f"{path}: ml-1m/ratings.dat, line 4, column 'item': no usable id" in refusal("ml-1m", write(path, bad))
    bad = ML_1M | {"ml-1m/ratings.dat": "1::2::3::4::5\n"}
    assert f"{path}: ml-1m/ratings.dat: CSV Error on Line: 1" in refusal("ml-1m", write(path, bad))
    bad = LATEST | {"ml-latest-small/ratings.csv": "userId,movieId,rating,timestamp\n1,1,4.0,yesterday\n"}
    assert "ratings.csv, line 2, column 'timestamp'" in refusal("ml-latest-small", write(path, bad))
    bad = {name: text for name, text in ML_100K.items() if name != "ml-100k/u.genre"}
    assert "u.genre should be in it once, is 0 times" in refusal("ml-100k", write(path, bad))
    assert "ratings.dat should be in it once" in refusal("ml-1m", write(path, LATEST))


def test_add_puts_a_zip_where_load_finds_it(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.zip", ML_1M)
    added = add("ml-1m", path, tmp_path / "cache")
    assert added.path == tmp_path / "cache" / "raw" / "ml-1m" / "ml-1m.zip"
    assert (added.rows, added.official, added.sha256) == (3, False, sha256_file(path))
    assert len(added.md5) == 32
    said: list[str] = []
    loader = resolve("data set", "ml-1m", SOURCES)
    assert len(loader("ml-1m", cache=tmp_path / "cache", report=said.append)) == 3
    assert said == []
    latest = write(tmp_path / "latest.zip", LATEST)
    assert add("ml-latest-small", latest, tmp_path / "cache").official is None
    assert add("ml-1m", added.path, tmp_path / "cache").rows == 3


def test_add_takes_nothing_that_cannot_be_read(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.zip", ML_1M)
    add("ml-1m", path, tmp_path / "cache")
    other = tmp_path / "cut.zip"
    other.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"cut\.zip is not a whole zip"):
        add("ml-1m", other, tmp_path / "cache")
    with pytest.raises(DataError, match=r"u\.data should be in it"):
        add("ml-100k", path, tmp_path / "cache")
    with pytest.raises(UnknownNameError, match="Did you mean 'ml-1m'"):
        add("ml-1", path, tmp_path / "cache")
    assert len(load("ml-1m", cache=tmp_path / "cache", report=print)) == 3
    assert not (tmp_path / "cache" / "raw" / "ml-100k").exists()


@pytest.mark.parametrize("name", ["ml-100k", "ml-1m"])
def test_no_source_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:1")  # a network on which nothing answers
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(variable, "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    said: list[str] = []
    with pytest.raises(DownloadError, match=f"seqrec data add {name} PATH") as caught:
        load(name, cache=tmp_path, report=said.append)
    assert said[0] == f"Downloading {name} from GroupLens"
    assert ("recbole" in str(caught.value)) == (name == "ml-100k")
    assert not list(tmp_path.rglob("*.zip*"))


def test_a_page_instead_of_a_zip_does_not_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served = tmp_path / "served"
    served.mkdir()
    (served / "ml-latest-small.zip").write_text("<html>Log in to this network</html>")
    handler = partial(QuietHandler, directory=str(served))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        monkeypatch.setattr(movielens, "URL", f"http://127.0.0.1:{server.server_address[1]}/{{}}.zip")
        with pytest.raises(DownloadError, match="not a whole zip"):
            load("ml-latest-small", cache=tmp_path, report=print)
        write(served / "ml-latest-small.zip", LATEST)
        assert len(load("ml-latest-small", cache=tmp_path, report=print)) == 2
        server.shutdown()
        thread.join()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


needs_real = pytest.mark.skipif(not (REAL / "ml-1m.zip").is_file(), reason="the real data are not here")


@needs_real
def test_the_real_ml_1m() -> None:
    log = read_zip("ml-1m", REAL / "ml-1m.zip")
    assert len(log) == 1_000_209
    assert (len(log.codes("user")[1]), len(log.codes("item")[1])) == (6040, 3706)
    assert log.items is not None
    assert log.items.num_rows == 3883
    by_id = {row["id"]: row for row in log.items.to_pylist()}
    assert by_id["1"] == {
        "id": "1", "title": "Toy Story", "categories": ["Animation", "Children's", "Comedy"], "year": 1995,
    }  # fmt: skip
    assert by_id["73"]["title"] == "Misérables, Les"
    assert all(row["year"] for row in by_id.values())
    assert log.users is not None
    assert log.users.num_rows == 6040
    with zipfile.ZipFile(REAL / "ml-1m.zip") as archive:
        assert log.clock != ("ml-1m/README-SURROGATE-TIME.txt" in archive.namelist())


@needs_real
def test_the_real_latest_small() -> None:
    log = read_zip("ml-latest-small", REAL / "ml-latest-small.zip")
    assert (len(log), len(log.codes("user")[1]), len(log.codes("item")[1])) == (100_836, 610, 9_724)
    assert log.clock
    assert log.items is not None
    by_id = {row["id"]: row for row in log.items.to_pylist()}
    assert len(by_id) == 9_742
    assert (by_id["171011"]["title"], by_id["171011"]["year"]) == ("Planet Earth II", 2016)
    assert (by_id["40697"]["title"], by_id["40697"]["year"]) == ("Babylon 5", None)
    assert by_id["11"]["title"] == "American President, The"


@needs_real
def test_ml_100k_as_the_wheel_has_it(tmp_path: Path) -> None:
    folder = tmp_path / "raw" / "ml-100k"
    folder.mkdir(parents=True)
    for name, digest in WHEEL_SHA256.items():
        shutil.copyfile(REAL / "ml-100k" / name, folder / name)
        assert sha256_file(folder / name) == digest
    log = load("ml-100k", cache=tmp_path, report=print)
    assert len(log) == 100_000
    assert log.items is not None
    assert log.users is not None
    assert log.users.column_names == ["id", "age", "gender", "occupation", "zip"]
    film = next(row for row in log.items.to_pylist() if row["id"] == "1412")
    assert (film["title"], film["year"]) == ("Land Before Time III: The Time of the Great Giving", 1995)
