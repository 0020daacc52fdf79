"""Clone this repository to a new folder and time its two commands there.

python bench/fresh_clone.py
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

from record import ROOT, Row, record


def timed(command: list[str], folder: Path, environ: dict[str, str]) -> tuple[float, str]:
    """Seconds that a command takes, and what it printed."""
    began = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environ, check=True, stdout=subprocess.PIPE, text=True)
    return time.perf_counter() - began, done.stdout


def main() -> None:
    """Install, run, test; record the table."""
    with tempfile.TemporaryDirectory() as temporary:
        clone = Path(temporary) / "seqrec"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        # The clone has no data beside it; tests on real data use what is beside this checkout.
        real = os.environ.get("SEQREC_TEST_DATA", str(ROOT.parent / "shared" / "data"))
        environ = {**os.environ, "SEQREC_CACHE": f"{temporary}/cache", "SEQREC_TEST_DATA": real}
        environ.pop("VIRTUAL_ENV", None)
        install, _ = timed(["make", ".venv/.run"], clone, environ)
        run, output = timed(["make", "run"], clone, environ)
        print(output)
        (results,) = clone.glob("runs/*/results.json")
        metrics = json.loads(results.read_text())["test"]["metrics"]
        test, _ = timed(["make", "test"], clone, environ)
    rows = [
        Row("install for make run", f"{install:.0f}", "s", "< 240"),
        Row("make run, installed: data, training, test, recommendations", f"{run:.0f}", "s", "< 300"),
        Row("quick xLSTM: test NDCG@10", f"{metrics['ndcg@10']:.4f}", "", "> .1017 (EASE)"),
        Row("quick xLSTM: test Recall@10", f"{metrics['recall@10']:.4f}", ""),
        Row("make test, with the installation of what it needs", f"{test:.0f}", "s", "< 480"),
    ]
    record("fresh-clone", rows, "A clone in a new folder with an empty cache; one seed (42).", device="cpu")


if __name__ == "__main__":
    main()
