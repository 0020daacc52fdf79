"""Names to components: registered ones, and those of other packages."""

from __future__ import annotations

from pathlib import Path

import pytest

from seqrec.errors import ConfigError, UnknownNameError
from seqrec.registry import resolve

TABLE = {"path": "pathlib:Path", "joined": "os.path:join", "gone": "seqrec.gone:Gone"}


def test_registered_names_and_module_attribute() -> None:
    assert resolve("thing", "path", TABLE) is Path
    assert resolve("thing", "pathlib:PurePath", TABLE).__name__ == "PurePath"


def test_unknown_names_come_with_the_nearest_and_all() -> None:
    with pytest.raises(UnknownNameError) as error:
        resolve("thing", "joint", TABLE)
    assert str(error.value) == "Unknown thing 'joint'. Did you mean 'joined'? Known: gone, joined, path."
    assert isinstance(error.value, ConfigError)


@pytest.mark.parametrize("name", ["nowhere:Thing", "nowhere.deep.down:Thing", "json.nowhere:Thing", "gone"])
def test_a_module_that_is_not_there(name: str) -> None:
    with pytest.raises(UnknownNameError, match="there is no module"):
        resolve("thing", name, TABLE)


@pytest.mark.parametrize("name", ["json:Nothing", "json:", "json:a.b"])
def test_an_attribute_that_is_not_there(name: str) -> None:
    with pytest.raises(UnknownNameError, match="'json' has no "):
        resolve("thing", name, TABLE)


@pytest.mark.parametrize("name", [":Thing", ".relative:Thing", ":"])
def test_what_is_not_a_module(name: str) -> None:
    with pytest.raises(UnknownNameError, match=r"my_package\.my_module:Attribute"):
        resolve("thing", name, TABLE)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("import a_package_that_is_not_there", ModuleNotFoundError),
        ("from json import nothing", ImportError),
        ("import json; json.nothing", AttributeError),
        ("1 / 0", ZeroDivisionError),
        ("def f(:", SyntaxError),
    ],
)
def test_a_module_that_is_broken_shows_its_own_error(
    code: str, error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"broken_{error.__name__.lower()}"
    (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(error) as found:
        resolve("thing", f"{name}:Thing", TABLE)
    assert not isinstance(found.value, UnknownNameError)
