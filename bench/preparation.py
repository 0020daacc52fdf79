"""From a CSV in the shape of MovieLens-20M to data that is ready for training: seqrec, RecBole and RecTools.

python bench/preparation.py --recbole PYTHON --rectools PYTHON
python bench/preparation.py --rows 200000        (a trial: nothing is recorded)

Each toolkit runs in a process of its own, the peers with the interpreter of their own environment
(`bench/peers/<toolkit>_prepare.py`); a peer without one is not measured.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from record import Row, record

HERE = Path(__file__).parent
COLUMNS = ("userId", "movieId", "timestamp")
#: What a toolkit may take.
SECONDS, BYTES = 600, 18 * 2**30
OUT_OF_MEMORY = ("MemoryError", "Unable to allocate", "can't allocate memory", "std::bad_alloc", "Cannot allocate")
#: In a fresh process: seconds of importing, and of loading (arrays are mapped, names are read).
LOAD = """
import sys, time; from pathlib import Path
began = time.perf_counter()
from seqrec.data.prepared import PreparedData
imported = time.perf_counter()
data = PreparedData.load(Path(sys.argv[1]))
print("FOUND", data.sequences.num_events, imported - began, time.perf_counter() - imported)
"""


@dataclass(frozen=True)
class Measured:
    """A finished process: wall seconds, peak resident MiB, what it printed, and why it failed (empty: it did not)."""

    seconds: float
    mebibytes: float
    output: str
    failure: str = ""


def measure(command: list[str], environ: dict[str, str] | None = None) -> Measured:
    """Run a command under both limits."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=out, stderr=err, env=environ, preexec_fn=_limit)
        late, peak = False, 0.0
        while process.poll() is None:
            peak = max(peak, _peak_mib(process.pid))
            if not late and time.perf_counter() - began > SECONDS:
                late = True
                process.kill()
            time.sleep(0.02)
        seconds = time.perf_counter() - began
        out.seek(0), err.seek(0)
        output, errors = out.read(), err.read()
    failure = "" if process.returncode == 0 else _reason(errors, process.returncode, late)
    return Measured(seconds, peak, output, failure)


def _peak_mib(pid: int) -> float:
    """Most memory that a process has held so far, in MiB, by its own count: what `wait4` tells begins at the size of
    this one. Looked at while it runs: 0 once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), 0.0)


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))


def _reason(errors: str, code: int, late: bool) -> str:
    if late:
        return f"over {SECONDS} s"
    if code == -9 or any(words in errors for words in OUT_OF_MEMORY):
        return "out of memory"
    return f"failed: {(errors.strip().splitlines() or [f'exit code {code}'])[-1][:80]}"


def seqrec_rows(table: Path, cache: str, events: int) -> list[Row]:
    """Preparing with `seqrec data prepare`, and loading what it made."""
    environ = {**os.environ, "SEQREC_CACHE": cache}
    user, item, moment = COLUMNS
    words = ["data", "prepare", str(table), "--user", user, "--item", item, "--time", moment, "--json"]
    done = measure([str(Path(sys.executable).with_name("seqrec")), *words], environ)
    if done.failure:
        raise SystemExit(f"seqrec: {done.failure}")
    facts = json.loads(done.output)
    loaded = [measure([sys.executable, "-c", LOAD, facts["folder"]]) for _ in range(3)]
    whole = min(run.seconds for run in loaded)
    kept, imported, load = min((run.output.split()[1:] for run in loaded), key=lambda found: float(found[2]))
    print(f"seqrec: {facts['test']['cases']:,} test cases, {float(imported):.2f} s to import", file=sys.stderr)
    name = f"seqrec: {events:,} rows of CSV to a prepared folder"
    return [
        Row(name, f"{done.seconds:.1f}", "s", "< 90"),
        Row(f"{name}: peak memory", f"{done.mebibytes / 1024:.2f}", "GiB", "< 3 GB"),
        Row(f"seqrec: load the prepared folder ({int(kept):,} events)", f"{float(load):.3f}", "s", "< 1"),
        Row("seqrec: the same as a whole process, Python and imports included", f"{whole:.2f}", "s", "< 1"),
    ]


def peer_rows(name: str, python: str | None, table: Path) -> list[Row]:
    """Preparing with a peer, in its own environment."""
    what = f"{name}: the same table to SASRec's data loaders"
    if python is None:
        return [Row(what, "not measured", "")]
    done = measure([python, "-W", "ignore", str(HERE / "peers" / f"{name.lower()}_prepare.py"), str(table), *COLUMNS])
    found = done.output.partition("FOUND ")[2].strip()
    print(f"{name}: {done.failure or f'{int(found):,} test cases'}, {done.seconds:.1f} s", file=sys.stderr)
    return [
        Row(what, done.failure or f"{done.seconds:.1f}", "" if done.failure else "s"),
        Row(f"{name}: peak memory{' until then' if done.failure else ''}", f"{done.mebibytes / 1024:.2f}", "GiB"),
    ]


def main() -> None:
    """Generate the log, measure every toolkit on it, record the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, help="a smaller log, as a trial")
    parser.add_argument("--recbole", metavar="PYTHON", help="interpreter of an environment with RecBole")
    parser.add_argument("--rectools", metavar="PYTHON", help="interpreter of an environment with RecTools")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        rows = [] if options.rows is None else ["--rows", str(options.rows)]
        subprocess.run([sys.executable, str(HERE / "generate.py"), "ml-20m", str(log), *rows], check=True)
        table = log / "ratings.csv"
        with table.open("rb") as file:
            events = sum(1 for _ in file) - 1
        found = seqrec_rows(table, str(Path(folder) / "cache"), events)
        found += peer_rows("RecBole", options.recbole, table) + peer_rows("RecTools", options.rectools, table)
    if options.rows is not None:
        print("\n".join(f"{row.metric:<75} {row.value:>14} {row.unit}" for row in found))
        return
    given = [f"--{peer} PYTHON" for peer in ("recbole", "rectools") if getattr(options, peer)]
    sys.argv = [sys.argv[0], *given]  # where the environments lie is nobody's business
    protocol = (
        "A generated log with the counts of MovieLens-20M; 5-core, leave-one-out, length 200; whole processes, from "
        f"the CSV on. Each may take {SECONDS} s and an address space of {BYTES // 2**30} GiB."
    )
    record("preparation", found, protocol, device="cpu")


if __name__ == "__main__":
    main()
