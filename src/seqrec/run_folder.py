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
            todo = "it is finished" if folder.results() else "go on with it by --resume"
            raise RunFolderError(f"{path} holds a run already: {todo}. For another one choose another --out.")
        facts = {"format": FORMAT_VERSION, "config": config, "environment": environment, "data": data}
        write_json(folder.path / "run.json", facts)
        return folder

    def facts(self) -> dict[str, Any]:
        """`config`, `environment` and `data` as written when the run began.

        Raises:
            RunFolderError: no run is there, or one of another format version.
        """
        facts = self._read("run.json")
        if facts is None:
            raise RunFolderError(f"{self.path} is not a run folder: it has no run.json. See `seqrec runs list`.")
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
        """Final results, or None for a run that is not finished.

        Raises:
            RunFolderError: the file is damaged.
        """
        return self._read("results.json")

    def epochs(self) -> list[dict[str, Any]]:
        """What was recorded at the end of every epoch; a line that was being written when training died is not there.

        Raises:
            RunFolderError: the file is damaged.
        """
        if not self.history.exists():
            return []
        try:
            return [json.loads(line) for line in self._whole_lines()]
        except ValueError as error:
            raise RunFolderError(f"{self.history} is damaged ({error}). Restore it from a copy.") from error

    def cut_history(self, epochs: int) -> None:
        """Forget epochs after the first `epochs`: they are about to be trained again."""
        if self.history.exists():
            with atomic_file(self.history) as temporary:
                temporary.write_text("".join(self._whole_lines()[:epochs]), encoding="utf-8")

    def _whole_lines(self) -> list[str]:
        lines = self.history.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        return [line for line in lines if line.endswith("\n")]

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            value = read_json(self.path / name)
            if not isinstance(value, dict):
                raise ValueError("not an object")
            return value
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:
            raise RunFolderError(f"{self.path / name} is damaged ({error}). Restore it, or train again.") from error
