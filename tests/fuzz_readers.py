"""Fuzzing of every reader of raw data: a damaged input is read or refused with a SeqrecError, and nothing else.

python tests/fuzz_readers.py --minutes 10 --seed 1
python tests/fuzz_readers.py --replay FOLDER

Small valid files are damaged at random, before and after they are packed; one whose reading reaches lines of seqrec
that none reached before is damaged further. They are read, and prepared where that works, in a child process, which
is replaced when it dies. A defect is another exception, a warning, a crash, more than `SECONDS` or `MOST_MEMORY`, an
error of more than `LONGEST_ERROR` letters, or something left in the cache; its files are kept in `--out`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any

from fuzz_damage import damaged, packed
from fuzz_seeds import SEEDS, Files

SECONDS, MOST_MEMORY, LONGEST_ERROR = 20, 1_500 << 20, 5_000
#: Inputs after which a child is replaced, so that memory is that of few inputs.
LIFETIME = 500
MOST_KEPT = 200  # inputs of one reader that are damaged further
OUTCOMES = ("read", "refused", "defect")
Lines = set[tuple[str, int]]


def attempt(reader: str, folder: Path, cache: Path) -> tuple[str, str]:
    """What comes of reading `folder`: `read`, `refused` or `defect`, and the words for it."""
    from seqrec.data.config import DataConfig
    from seqrec.data.prepare import prepare
    from seqrec.errors import SeqrecError

    outcome = "refused", ""
    try:
        interactions = SEEDS[reader].read(folder, cache)
        outcome = "read", ""
        prepare(interactions, DataConfig(source=reader), cache / "prepared" / "log")
    except SeqrecError as error:
        if len(str(error)) > LONGEST_ERROR:
            return "defect", f"an error of {len(str(error)):,} letters: {str(error)[:300]}"
    except BaseException:
        return "defect", traceback.format_exc()
    finally:
        shutil.rmtree(cache / "prepared" / "log", ignore_errors=True)
    left = [
        str(file) for place in ("spool", "prepared") if (cache / place).is_dir() for file in (cache / place).iterdir()
    ]
    return ("defect", f"left in the cache: {left}") if left else outcome


def serve(pipe: Connection, cache: Path) -> None:
    """Read what the pipe names, in the child, and send what came of it and which lines were reached."""
    os.environ["SEQREC_CACHE"] = str(cache)
    warnings.simplefilter("error")
    reached: Lines = set()

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if "/seqrec/data/" not in frame.f_code.co_filename:
            return None
        reached.add((frame.f_code.co_filename, frame.f_lineno))
        return trace

    while True:
        reader, folder = pipe.recv()
        reached.clear()
        sys.settrace(trace)
        outcome = attempt(reader, folder, cache)
        sys.settrace(None)
        pipe.send((*outcome, reached))


class Child:
    """A process that reads; whoever takes too long or too much is ended."""

    def __init__(self, cache: Path) -> None:
        spawn = multiprocessing.get_context("spawn")
        self.pipe, theirs = spawn.Pipe()
        self.process = spawn.Process(target=serve, args=(theirs, cache), daemon=True)
        self.process.start()
        theirs.close()
        self.inputs = 0

    def attempt(self, reader: str, folder: Path) -> tuple[str, str, Lines]:
        # The first input of a child waits for its imports too.
        until = time.monotonic() + SECONDS + (0 if self.inputs else 40)
        self.inputs += 1
        try:
            self.pipe.send((reader, folder))
            while not self.pipe.poll(0.2):
                if time.monotonic() > until:
                    return "defect", f"it took more than {SECONDS} seconds", set()
                self._refuse_memory()
            answer: tuple[str, str, Lines] = self.pipe.recv()
            self._refuse_memory()
            return answer
        except MemoryError as error:
            return "defect", str(error), set()
        except (EOFError, ConnectionError):
            self.process.join(5)
            return "defect", f"the process died with {self.process.exitcode}", set()

    def _refuse_memory(self) -> None:
        status = Path(f"/proc/{self.process.pid}/status")
        lines = status.read_text().splitlines() if status.is_file() else []
        most = sum(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))
        if most > MOST_MEMORY:
            raise MemoryError(f"it took {most >> 20:,} MiB of memory")

    def end(self) -> None:
        self.process.kill()
        self.process.join()


@dataclass
class Fuzzer:
    """Damages inputs of each reader in turn and counts what comes of it."""

    random: random.Random
    work: Path
    out: Path
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    defects: dict[str, Path] = field(default_factory=dict)
    known: Lines = field(default_factory=set)

    def run(self, readers: list[str], seconds: float) -> None:
        until = time.monotonic() + seconds
        kept = {reader: [SEEDS[reader].files] for reader in readers}
        child = Child(self.work / "cache")
        first = {reader: SEEDS[reader].files for reader in readers}  # what is valid has to be read
        while time.monotonic() < until or first:
            reader = min(readers, key=lambda name: sum(self.outcomes[name, how] for how in OUTCOMES))
            valid = first.pop(reader, None)
            start = self.random.choice([SEEDS[reader].files, self.random.choice(kept[reader])])
            files = valid or damaged(start, self.random)
            written = self.write(reader, packed(files, SEEDS[reader].archive, None if valid else self.random))
            how, words, reached = child.attempt(reader, written)
            if valid and how == "refused":
                how, words = "defect", f"valid {reader} was refused"
            self.outcomes[reader, how] += 1
            if how == "defect":
                self.keep(reader, words, written)
            elif reached - self.known and len(kept[reader]) < MOST_KEPT:
                kept[reader].append(files)
            self.known |= reached
            if how == "defect" or child.inputs >= LIFETIME:
                child.end()
                shutil.rmtree(self.work / "cache", ignore_errors=True)
                child = Child(self.work / "cache")
        child.end()

    def write(self, reader: str, files: Files) -> Path:
        folder = self.work / "cache" / "raw" / reader  # where a data set with a name looks
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name, content in files.items():
            (folder / name).write_bytes(content)
        return folder

    def keep(self, reader: str, words: str, written: Path) -> None:
        """Save the input of a defect that was not seen before."""
        where = [line.strip() for line in words.splitlines() if "/seqrec/" in line][-1:]
        same = f"{reader}: {where or words[:40]} {words.strip().splitlines()[-1][:40]}"
        if same in self.defects:
            return
        self.defects[same] = self.out / f"{reader}-{len(self.defects) + 1}" / reader
        shutil.copytree(written, self.defects[same], dirs_exist_ok=True)
        (self.defects[same].parent / "defect.txt").write_text(words)
        print(f"DEFECT {self.defects[same].parent}\n{words[-1500:]}\n", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--readers", nargs="*", default=list(SEEDS), choices=list(SEEDS))
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()) / "seqrec-fuzz")
    parser.add_argument("--replay", type=Path, help="folder of a defect: read its files again")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        if given.replay:
            ((reader, files),) = [(folder.name, folder) for folder in given.replay.iterdir() if folder.is_dir()]
            child = Child(Path(work) / "cache")
            shutil.copytree(files, target := Path(work) / "cache" / "raw" / reader)
            print(*child.attempt(reader, target)[:2])
            return 0
        fuzzer = Fuzzer(random.Random(given.seed), Path(work), given.out)
        fuzzer.run(given.readers, given.minutes * 60)
    for reader in given.readers:
        read, refused, defect = (fuzzer.outcomes[reader, how] for how in OUTCOMES)
        total = read + refused + defect
        print(f"{reader:24} {total:7,} inputs: {read:6,} read, {refused:6,} refused, {defect:4,} defects")
    total = fuzzer.outcomes.total()
    print(f"{total:,} inputs, {len(fuzzer.defects)} different defects, {len(fuzzer.known):,} lines reached")
    return bool(fuzzer.defects)


if __name__ == "__main__":
    sys.exit(main())
