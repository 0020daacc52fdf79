"""What tuning has cost, data set by data set and model by model: read from the logs that ship with the presets.

python bench/tuning.py
"""

from __future__ import annotations

import json
from collections import Counter
from importlib import resources
from pathlib import Path

from record import ROOT, put

HEAD = "| data | model | GPU-seconds | trials | finished | stopped early | best on validation |"


def main() -> None:
    """Renew the table in docs/results.md."""
    logs = sorted(Path(str(resources.files("seqrec"))).glob("presets/*/*.trials.json"))
    lines = [HEAD, "|---|---|---:|---:|---:|---:|---:|"]
    for log in logs:
        found = json.loads(log.read_text("utf-8"))
        states = Counter(trial["state"] for trial in found["trials"])
        best = max(trial["validation"] for trial in found["trials"] if trial["validation"] is not None)
        counts = f"{len(found['trials'])} | {states['finished']} | {states['stopped early']}"
        lines.append(f"| {found['data']} | {found['model']} | {found['gpu_seconds']:.0f} | {counts} | {best:.4f} |")
    put("tuning", lines, ROOT / "docs" / "results.md")
    print(*lines, sep="\n")


if __name__ == "__main__":
    main()
