"""A run's folder: which file is where, and of which version. Knows no configuration and no model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from seqrec.errors import RunFolderError
from seqrec.files import atomic_file, read_json, write_json

#: Raised when the files of a run change; runs of another version are refused, not misread.
FORMAT_VERSION = 1


class RunFolder:
    """Paths of one run, and its small JSON files."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.last = self.path / "last.safetensors"
        self.best = self.path / "best.safetensors"
        self.history = self.path / "history.jsonl"
        self.items = self.path / "items.json"
        self.tensorboard = self.path / "tensorboard"

    def per_user(self, part: str) -> Path:
        """Where the per-user results of `validation` or `test` are."""
        return self.path / f"per_user.{part}.parquet"

    @classmethod
    def create(
        cls, path: Path | str, config: dict[str, Any], environment: dict[str, Any], data: dict[str, Any]
    ) -> RunFolder:
        """Make the folder and write down what the run is.

        Raises:
            RunFolderError: there is a run in it already.
        """
        folder = cls(path)
        if (folder.path / "run.json").exists():
            raise RunFolderError(f"{path} holds a run already. Resume it with --resume, or choose another --out.")
        facts = {"format": FORMAT_VERSION, "config": config, "environment": environment, "data": data}
        write_json(folder.path / "run.json", facts)
        return folder

    def facts(self) -> dict[str, Any]:
        """`config`, `environment` and `data` as written when the run began.

        Raises:
            RunFolderError: no run is there, or one of another format version.
        """
        try:
            facts: dict[str, Any] = read_json(self.path / "run.json")
        except FileNotFoundError:
            raise RunFolderError(
                f"{self.path} is not a run folder: it has no run.json. See `seqrec runs list`."
            ) from None
        except ValueError as error:
            raise RunFolderError(f"{self.path / 'run.json'} is damaged ({error}). Train again.") from error
        if facts.get("format") != FORMAT_VERSION:
            raise RunFolderError(
                f"{self.path} is a run of format {facts.get('format')}; this seqrec reads format {FORMAT_VERSION}. "
                f"Use the seqrec that made it, or train again."
            )
        return facts

    def write_results(self, results: dict[str, Any]) -> None:
        """Store final results: their presence says that the run is finished."""
        write_json(self.path / "results.json", results)

    def results(self) -> dict[str, Any] | None:
        """Final results, or None for a run that is not finished."""
        path = self.path / "results.json"
        return read_json(path) if path.exists() else None

    def epochs(self) -> list[dict[str, Any]]:
        """What was recorded at the end of every epoch."""
        if not self.history.exists():
            return []
        return [json.loads(line) for line in self.history.read_text(encoding="utf-8").splitlines()]

    def cut_history(self, epochs: int) -> None:
        """Forget epochs after the first `epochs`: they are about to be trained again."""
        if self.history.exists():
            lines = self.history.read_text(encoding="utf-8").splitlines(keepends=True)[:epochs]
            with atomic_file(self.history) as temporary:
                temporary.write_text("".join(lines), encoding="utf-8")
