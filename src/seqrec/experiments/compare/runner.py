"""Runs side by side, each in a process of its own, so that a crash is the end of one run only."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from seqrec.data.prepared import PreparedData
from seqrec.errors import ConfigError, SeqrecError
from seqrec.experiments.compare.plan import Job, Report
from seqrec.experiments.environment import choose_device
from seqrec.experiments.fit import is_of, require_same_data
from seqrec.files import explained, read_json, write_json
from seqrec.run_folder import RunFolder
from seqrec.training.interrupt import StopRequest

#: Runs at a time on one GPU, unless asked otherwise: small models leave most of it idle.
ON_ONE_GPU = 4


class ComparisonInterrupted(SeqrecError):
    """Somebody asked the comparison to stop; every run keeps what it has."""

    exit_code = 130


@dataclass
class _Started:
    job: Job
    device: str
    process: subprocess.Popen[bytes]
    since: float


class Runner:
    """Makes the runs of a comparison in one folder: `runs/`, with their jobs and logs beside them."""

    def __init__(self, out: Path, jobs: int | None, device: str, report: Report) -> None:
        self.out = out
        self.report = report
        self.devices = _devices(device, jobs)
        self.failures: dict[str, str] = {}

    def folder(self, name: str) -> Path:
        """Where the run of that name is."""
        return self.out / "runs" / name

    def beside(self, name: str) -> int:
        """How many runs could go on at a time when that one was made: what its times were measured under."""
        path = self.out / "jobs" / f"{name}.json"
        return int(read_json(path)["beside"]) if path.exists() else 1

    def finished(self, job: Job) -> bool:
        """Whether the run is there, whole, and the one that is asked for.

        Raises:
            ConfigError: a run of other settings is in its place.
            DataError: it was made on other data.
        """
        folder = RunFolder(self.folder(job.folder))
        if not (folder.path / "run.json").exists():
            return False
        facts, results = folder.facts(), folder.results()
        same = is_of(folder, job.config) if job.config else self._fuses(job, facts["config"], results)
        if not same:
            raise ConfigError(
                f"{folder.path} holds a run of other settings. Give the comparison another --out, or delete that run."
            )
        require_same_data(facts["data"], PreparedData.load(job.data))
        return results is not None

    def _fuses(self, job: Job, config: Mapping[str, Any], results: Mapping[str, Any] | None) -> bool:
        """Whether the ensemble that is there is that of the job's members, as they are now where they are there."""
        if config["model"]["name"] != "ensemble" or config["model"]["fusion"] != job.fusion:
            return False
        if results is None:
            return True
        kept = {Path(member["run"]).name: member["validation"] for member in results["training"]["members"]}
        now = {name: RunFolder(self.folder(name)).results() for name in job.members}
        return list(kept) == list(now) and all(
            found is None or found["validation"]["metrics"]["ndcg@10"] == kept[name] for name, found in now.items()
        )

    def run(self, jobs: Sequence[Job]) -> None:
        """Make every run that is not there yet; what fails is in `failures`.

        Raises:
            ComparisonInterrupted: on Ctrl-C or SIGTERM, after all runs have saved where they are.
            ConfigError: a run of other settings is in the way.
        """
        waiting = [job for job in jobs if not self.finished(job)]
        if len(waiting) < len(jobs):
            self.report(f"{len(jobs) - len(waiting)} of {len(jobs)} runs are there already")
        started: list[_Started] = []
        try:
            with StopRequest() as stop:
                self._side_by_side(waiting, started, stop)
        finally:  # whatever happened here, nothing goes on behind the user's back
            for run in started:
                run.process.terminate()
            for run in started:
                run.process.wait()

    def _side_by_side(self, waiting: list[Job], started: list[_Started], stop: StopRequest) -> None:
        total = len(waiting)
        while waiting or started:
            if stop.asked:
                raise ComparisonInterrupted(
                    f"Stopped; {self.out} keeps what is there. The same command goes on from it."
                )
            while waiting and len(started) < len(self.devices):
                started.append(self._start(waiting.pop(0), [run.device for run in started]))
            time.sleep(0.05)
            for run in [run for run in started if run.process.poll() is not None]:
                started.remove(run)
                self._ended(run, total - len(waiting) - len(started), total)

    def _start(self, job: Job, busy: list[str]) -> _Started:
        device = min(self.devices, key=lambda name: busy.count(name) / self.devices.count(name))
        path, log = self.out / "jobs" / f"{job.folder}.json", self.out / "logs" / f"{job.folder}.txt"
        log.parent.mkdir(parents=True, exist_ok=True)
        facts = {
            "config": job.config.to_dict() if job.config else None,
            "members": [str(self.folder(name)) for name in job.members],
            "fusion": job.fusion,
            "data": str(job.data),
            "out": str(self.folder(job.folder)),
            "device": device,
            "beside": len(self.devices),
            "parent": os.getpid(),
        }
        write_json(path, facts)
        command = [sys.executable, "-m", "seqrec.experiments.compare.child", str(path)]
        threads = str(max(1, (os.cpu_count() or 1) // len(self.devices)))
        environment = {"OMP_NUM_THREADS": threads, **os.environ}
        with explained(log), log.open("wb") as file:
            # A session of its own: Ctrl-C reaches this process alone, which then asks each run to save and stop.
            process = subprocess.Popen(
                command, stdout=file, stderr=subprocess.STDOUT, env=environment, start_new_session=True
            )
        return _Started(job, device, process, time.monotonic())

    def _ended(self, run: _Started, number: int, total: int) -> None:
        seconds = time.monotonic() - run.since
        if run.process.returncode == 0:
            self.report(f"[{number}/{total}] {run.job.folder}, {seconds:.0f} s")
            return
        log = self.out / "logs" / f"{run.job.folder}.txt"
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        why = lines[-1].removeprefix("error: ") if lines else f"it ended with code {run.process.returncode}"
        if run.process.returncode < 0:
            signal, at_a_time = -run.process.returncode, len(self.devices)
            why = f"it was killed by signal {signal}; is there enough memory for {at_a_time} runs at a time?"
        self.failures[run.job.folder] = why
        self.report(f"[{number}/{total}] {run.job.folder} failed: {why} See {log}.")


def _devices(device: str, jobs: int | None) -> list[str]:
    """The device of each run that may go on at a time."""
    if device == "auto" and torch.cuda.is_available():
        gpus = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
        count = jobs or ON_ONE_GPU * len(gpus)
        return [gpus[number % len(gpus)] for number in range(count)]
    name = str(choose_device(device))  # refused now rather than by every run
    return [name] * (jobs or (1 if name == "cpu" else ON_ONE_GPU))
