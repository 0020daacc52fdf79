"""What every benchmark writes: rows into `bench/results/<name>.json`, and their table into a page of `docs`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from seqrec.experiments.environment import choose_device, environment

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Row:
    """One figure. `goal` is what it was meant to reach, such as `>= 0.108`."""

    metric: str
    value: str
    unit: str
    goal: str = ""


def record(name: str, rows: list[Row], protocol: str, page: str = "benchmarks.md", device: str = "auto") -> None:
    """Store rows with the machine, the protocol, the command and the commit; then renew the table in the docs."""
    facts = environment(choose_device(device))
    result = {
        "rows": [asdict(row) for row in rows],
        "protocol": protocol,
        "machine": {key: facts[key] for key in ("processor", "cores", "threads", "device", "python", "torch")},
        "command": " ".join(["python", f"bench/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
        "commit": commit(),
    }
    path = Path(os.environ.get("SEQREC_BENCH_RESULTS", ROOT / "bench" / "results")) / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    render(name, result, ROOT / "docs" / page)
    for row in rows:
        print(f"{row.metric:<60} {row.value:>24} {row.unit:<8} {row.goal}")


def render(name: str, result: dict[str, Any], page: Path) -> None:
    """Put the table of a result between the page's `<!-- name -->` and `<!-- /name -->`."""
    lines = ["| what | value | unit | goal |", "|---|---|---|---|"]
    lines += [f"| {row['metric']} | {row['value']} | {row['unit']} | {row['goal']} |" for row in result["rows"]]
    machine = result["machine"]
    where = machine["device"] if machine["device"] != "CPU" else f"{machine['processor']}, {machine['threads']} threads"
    lines += ["", f"{result['protocol']} Machine: {where}; torch {machine['torch']}; commit {result['commit']}."]
    lines += [f"Command: `{result['command']}`."]
    put(name, lines, page)


def put(name: str, lines: list[str], page: Path) -> None:
    """Replace what stands between the marks of that name; a page without them stays as it is."""
    if not page.exists():
        return
    inside = "\n".join(lines).replace("\\", "\\\\")
    text = page.read_text(encoding="utf-8")
    marked = re.sub(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", rf"\g<1>{inside}\n\g<2>", text, flags=re.DOTALL)
    page.write_text(marked, encoding="utf-8")


def render_all() -> None:
    """Renew every table from the stored results."""
    for path in sorted((ROOT / "bench" / "results").glob("*.json")):
        if path.stem.startswith("comparison-"):
            continue  # bench/compare.py writes those
        for page in sorted((ROOT / "docs").glob("*.md")):
            render(path.stem, json.loads(path.read_text(encoding="utf-8")), page)


def commit() -> str:
    """The commit that is checked out."""
    if "SEQREC_COMMIT" in os.environ:
        return os.environ["SEQREC_COMMIT"]
    asked = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return asked.stdout.strip() or "unknown"


if __name__ == "__main__":
    render_all()
