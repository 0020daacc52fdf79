"""A machine with a GPU and no network needs numpy, torch, pydantic, pyyaml and safetensors, and a prepared folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import seqrec

CODE = """
import sys
for name in ("duckdb", "pyarrow", "typer", "rich", "tensorboard", "pandas", "polars"):
    sys.modules[name] = None  # what is not installed
import seqrec
settings = {"training.epochs": 2, "model.embedding_dim": 8}
run = seqrec.train(sys.argv[1], "xlstm", settings=settings, out=sys.argv[2])
print(run.metrics["ndcg@10"], run.recommender().recommend(["i3"], 1)[0].item)
"""


def test_training_needs_five_packages_only(small_log: Path, tmp_path: Path) -> None:
    data = seqrec.load_data(small_log, user="uid", item="iid", time="ts")
    command = [sys.executable, "-c", CODE, str(data.folder), str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    ndcg, item = done.stdout.splitlines()[-1].split()
    assert 0 <= float(ndcg) <= 1
    assert item.startswith("i")
    assert "pyarrow is not installed" in done.stderr
    assert "TensorBoard: it is not installed" in done.stderr
