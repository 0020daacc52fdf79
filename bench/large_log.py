"""A log of Music4All's shape: a sample of it, and the whole of it as sequences; seconds, and the process' peak memory.

python bench/generate.py music4all LOG        (once; not counted)
python bench/large_log.py LOG
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from record import Row, record

from seqrec.experiments.environment import process_peak_mib


def take_sample(log: str, out: str) -> dict[str, Any]:
    """The recipe, with the summary before and after."""
    from seqrec.data.sampling import RECIPES, sample

    found = sample(log, out, RECIPES["music4all"])
    return {"before": found.before.facts(), "after": found.after.facts()}


def prepare_whole(log: str, out: str) -> dict[str, Any]:
    """All of it: 5-core, ordered, leave-one-out."""
    import seqrec

    return dict(seqrec.load_data(log).facts)


def measure(part: str, *paths: str) -> None:
    """In a process of its own, so that the peak memory is this part's."""
    began = time.perf_counter()
    facts = {"sample": take_sample, "whole": prepare_whole}[part](*paths)
    seconds = time.perf_counter() - began
    print("FOUND " + json.dumps({"seconds": seconds, "peak": process_peak_mib() / 2**10, **facts}))


def rows(sampled: dict[str, Any], whole: dict[str, Any]) -> list[Row]:
    """The table."""
    before, after = sampled["before"], sampled["after"]
    return [
        Row("the log: rows, users, tracks", f"{before['rows']:,}, {before['users']:,}, {before['items']:,}", ""),
        Row("sample by the recipe, with the summary before and after", f"{sampled['seconds']:.0f}", "s", "< 360"),
        Row("sample: peak memory", f"{sampled['peak']:.1f}", "GiB", "< 6 GB"),
        Row("sample: rows, users", f"{after['rows']:,}, {after['users']:,}", ""),
        Row("the whole log to sequences", f"{whole['seconds']:.0f}", "s", "< 1500"),
        Row("the whole log: peak memory", f"{whole['peak']:.1f}", "GiB", "< 10 GB"),
        Row("the whole log: events, users kept", f"{whole['events']:,}, {whole['users']:,}", ""),
    ]


def main() -> None:
    """Measure both and record the table."""
    if sys.argv[1] == "--part":
        measure(*sys.argv[2:])
        return
    log = Path(sys.argv[1])
    size = sum(part.stat().st_size for part in log.glob("*.parquet")) / 2**30
    found = {}
    for part in ("sample", "whole"):
        with tempfile.TemporaryDirectory() as folder:
            environ = {**os.environ, "SEQREC_CACHE": f"{folder}/cache"}
            command = [sys.executable, __file__, "--part", part, str(log), f"{folder}/out"]
            output = subprocess.run(command, env=environ, check=True, stdout=subprocess.PIPE, text=True).stdout
        found[part] = json.loads(output.partition("FOUND ")[2])
    sys.argv[1] = "LOG"
    protocol = (
        f"A generated log with the counts of Music4All-Onion, {size:.1f} GiB of Parquet (`bench/generate.py`; the "
        "time to make it is not counted). Recipe: min_events=5, cap=1000, users=0.05. Sequences: 5-core, leave-one-out."
    )
    record("large-logs", rows(found["sample"], found["whole"]), protocol, device="cpu")


if __name__ == "__main__":
    main()
