"""Data flows one way: a package imports only from packages above it."""

from __future__ import annotations

import ast
from pathlib import Path

import seqrec

ROOT = Path(seqrec.__file__).parent
#: Top to bottom. A package may import from its own and from earlier ones.
LAYERS = [
    "version",
    "errors",
    "distributed",
    "files",
    "registry",
    "config",
    "run_folder",
    "kernels",
    "data",
    "models",
    "losses",
    "evaluation",
    "training",
    "recommendation",
    "experiments",
    "analysis",
    "testing",
    "cli",
    "__main__",
]


def layer(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


def imports() -> list[tuple[str, str]]:
    """Pairs (importing layer, imported layer) of every import anywhere in the package."""
    found = []
    for path in ROOT.rglob("*.py"):
        here = path.relative_to(ROOT).with_suffix("").parts[0]
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                found += [(here, layer(alias.name)) for alias in node.names if alias.name.startswith("seqrec.")]
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("seqrec"):
                assert node.level == 0, f"{path}: relative import"
                found += [(here, layer(node.module or ""))]
    return found


def test_every_package_has_its_layer() -> None:
    present = {path.stem for path in ROOT.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert present - {"__init__"} == set(LAYERS)


def test_no_import_goes_down() -> None:
    pairs = imports()
    assert len(pairs) > 100, "the walk found too few imports to be believed"
    back = {
        pair
        for pair in pairs
        if pair[0] not in ("__init__", "__main__") and LAYERS.index(pair[1]) > LAYERS.index(pair[0])
    }
    assert not back


def test_no_long_files() -> None:
    assert not [path for path in ROOT.rglob("*.py") if len(path.read_text("utf-8").splitlines()) > 400]
