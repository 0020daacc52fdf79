"""A finished (or interrupted) run, read from its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from seqrec.errors import RunFolderError
from seqrec.experiments.config import RunConfig
from seqrec.recommendation.recommender import Recommender
from seqrec.run_folder import RunFolder


class Run:
    """What a training left behind: configuration, metrics, weights."""

    def __init__(self, path: Path | str) -> None:
        """Open the run in folder `path`.

        Raises:
            RunFolderError: there is no run, or one of another format version.
        """
        self.folder = RunFolder(path)
        self.facts = self.folder.facts()
        self.config = RunConfig.from_dict(self.facts["config"])

    @property
    def path(self) -> Path:
        """The run's folder."""
        return self.folder.path

    @property
    def results(self) -> dict[str, Any]:
        """`validation` and `test` summaries, and `training` facts.

        Raises:
            RunFolderError: the run is not finished.
        """
        results = self.folder.results()
        if results is None:
            raise RunFolderError(f"{self.path} is not finished. Go on with: seqrec train --resume {self.path}")
        return results

    @property
    def metrics(self) -> dict[str, float]:
        """Test measures by name, such as `ndcg@10`."""
        return dict(self.results["test"]["metrics"])

    @property
    def validation(self) -> dict[str, float]:
        """Validation measures by name."""
        return dict(self.results["validation"]["metrics"])

    def recommender(self, device: str = "cpu") -> Recommender:
        """The trained model, ready to recommend."""
        return Recommender.load(self.path, device)

    def __repr__(self) -> str:
        return (
            f"Run({str(self.path)!r}, {self.config.model_name} on {self.config.data.source}, seed {self.config.seed})"
        )
