"""`python -m seqrec.experiments.rehearsal`: a configuration and a prepared folder as JSON in, what was measured out."""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from seqrec.data.prepared import PreparedData
from seqrec.errors import SeqrecError
from seqrec.experiments.config import RunConfig
from seqrec.experiments.environment import choose_device
from seqrec.experiments.rehearsal.measure import rehearse


def main() -> None:
    """An error of ours is told by its name and message."""
    asked = json.load(sys.stdin)
    answer: dict[str, Any]
    with redirect_stdout(sys.stderr), TemporaryDirectory() as folder:
        try:
            config, data = RunConfig.from_dict(asked["config"]), PreparedData.load(Path(asked["data"]))
            found = rehearse(config, data, choose_device(asked["device"]), asked["began"], Path(folder))
            answer = {"found": asdict(found)}
        except SeqrecError as error:
            answer = {"error": type(error).__name__, "message": str(error)}
        except torch.OutOfMemoryError as error:
            answer = {"error": "TrainingError", "message": f"The GPU's memory is too small for one step: {error}"}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
