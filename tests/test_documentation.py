"""What the pages show is what happens: their commands and their Python run here, in the order they are shown."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import seqrec as seqrec_package
from commands import seqrec
from conftest import REPOSITORY

BETWEEN = "----- next block -----"
PAGES = [
    "README.md",
    "docs/data.md",
    "docs/training.md",
    "docs/models.md",
    "docs/tuning.md",
    "docs/xlstm.md",
    "docs/predictions.md",
    "docs/experiments.md",
]
#: What is added to a command that trains by gradient: one epoch of a small model, few trials, one seed.
SMALL = ["--set", "training.epochs=1", "--set", "model.embedding_dim=32", "--set", "model.max_length=16"]
SHORT = {
    "train": [*SMALL, "--baselines", "none", "--examples", "0"],
    "tune": [*SMALL, "--set", "training.epochs=2", "--trials", "2", "--reduction", "2"],
    "ablate": ["--seeds", "42"],
}


@pytest.fixture
def workplace(tmp_path: Path, own_cache: Path, ml_100k_folder: Path, small_log: Path) -> Path:
    """A folder with log.csv and, in its cache, MovieLens-100K, so that nothing is downloaded."""
    raw = own_cache / "raw" / "ml-100k"
    raw.mkdir(parents=True)
    for file in ml_100k_folder.iterdir():
        shutil.copy(file, raw)
    return tmp_path


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def printed_by(command: list[str], folder: Path) -> str:
    """What a `seqrec ...` command prints; it has to succeed."""
    done = seqrec(*command[1:], cwd=folder)
    assert done.code == 0, f"{command}\n{done.out}\n{done.err}"
    return done.out


def seqrec_commands(page: str) -> list[list[str]]:
    blocks = re.findall(r"```bash\n(.*?)```", (REPOSITORY / page).read_text("utf-8"), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("seqrec ")]
    return [shlex.split(line, comments=True) for line in lines]


def shown_file(page: str, name: str) -> str:
    """The text of a file that a page shows."""
    found = re.search(rf"<!-- file: {name} -->\n```yaml\n(.*?)```", (REPOSITORY / page).read_text("utf-8"), re.DOTALL)
    assert found, f"{page} does not show {name}"
    return found[1]


def shortened(command: list[str]) -> list[str]:
    """The command as shown, with training by gradient cut short."""
    return command if {"markov", "ease", "--list"} & set(command) else [*command, *SHORT.get(command[1], [])]


def write_scores(path: Path) -> None:
    """A file such as another toolkit writes: scores of every item of MovieLens-100K for everybody."""
    data = seqrec_package.load_data("ml-100k")
    people, items = data.user_ids(), list(data.catalogue.ids)
    columns = {"user": np.repeat(people, len(items)), "item": items * len(people)}
    pq.write_table(pa.table({**columns, "score": np.random.default_rng(0).random(len(columns["user"]))}), path)


@pytest.mark.parametrize("page", PAGES)
def test_commands_run_as_shown(page: str, workplace: Path, request: pytest.FixtureRequest) -> None:
    commands = seqrec_commands(page)
    assert commands, f"{page} shows no command"
    (workplace / "baselines.yaml").write_text(shown_file("docs/experiments.md", "baselines.yaml"))
    for command in commands:
        if "ml-1m.zip" in command:
            shutil.copy(request.getfixturevalue("ml_1m_zip"), workplace / "ml-1m.zip")
        for name in ("ease.parquet", "sasrec.parquet", "lists.parquet"):
            if name in command:
                write_scores(workplace / name)
        assert printed_by(shortened(command), workplace).strip()


def test_the_two_commands_of_the_readme(workplace: Path) -> None:
    shown = re.search(r"```bash\n(make run.*?)```", (REPOSITORY / "README.md").read_text("utf-8"), re.DOTALL)
    assert shown
    targets = [line.split()[1] for line in shown[1].splitlines()]
    assert targets == ["run", "test"]
    planned = run(["make", "--no-print-directory", "-n", "run"], REPOSITORY)
    command = shlex.split(next(line for line in planned.splitlines() if "seqrec train" in line))
    output = printed_by([*command, *SMALL], workplace)
    for part in (
        "Data: ml-100k",
        "epoch   1",
        "tokens/s",
        "Protocol: ml-100k, 5-core, leave-one-out",
        "popularity",
        "markov",
        "EASE",
        "Saw next",
    ):
        assert part in output, f"make run does not print {part!r}"
    assert output.count("last saw") == 3
    assert "pytest" in run(["make", "-n", "test"], REPOSITORY)


@pytest.mark.parametrize(
    "page", ["docs/python.md", "docs/features.md", "docs/live.md", "docs/xlstm.md", "docs/tuning.md"]
)
def test_python_runs_as_shown(page: str, workplace: Path) -> None:
    text = (REPOSITORY / page).read_text("utf-8")
    blocks = re.findall(r"<!-- run: (.*?) -->\n```python\n(.*?)```", text, re.DOTALL)
    outputs = dict(re.findall(r"<!-- output: (.*?) -->\n```text\n(.*?)```", text, re.DOTALL))
    assert blocks
    assert set(outputs) <= {name for name, _ in blocks}
    code = f"print({BETWEEN!r})\n".join(code for _, code in blocks)
    printed = run([sys.executable, "-W", "ignore", "-c", code], workplace).split(BETWEEN)
    for (name, _), output in zip(blocks, printed, strict=True):
        assert output.strip()
        if name in outputs:
            assert output.strip() == outputs[name].strip() or name == "neural", f"{name} prints\n{output}"
            assert without_digits(output) == without_digits(outputs[name]), f"{name} prints\n{output}"


def without_digits(text: str) -> str:
    """Numbers depend on the processor; what stands around them does not."""
    return re.sub(r"\d+", "0", text).strip()
