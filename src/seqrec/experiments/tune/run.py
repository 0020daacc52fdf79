"""Tuning. Read `tune` first, then `Tuning.run`: trials are proposed, trained by workers, and stopped or finished."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from seqrec.config import Choice, Range
from seqrec.errors import ConfigError, SeqrecError
from seqrec.experiments.tune.clock import Clock
from seqrec.experiments.tune.mps import shared_gpus
from seqrec.experiments.tune.pool import Pool, Worker, gpus_of
from seqrec.experiments.tune.report import (
    TrialRow,
    Tuned,
    as_preset,
    changed,
    progress_line,
    ranked,
    rows_of,
)
from seqrec.experiments.tune.space import written
from seqrec.experiments.tune.study import REPEATS, Plan, Study, alone_in
from seqrec.experiments.tune.subject import Subject
from seqrec.files import DiskError
from seqrec.training.interrupt import StopRequest

if TYPE_CHECKING:
    from optuna.trial import Trial

#: Seconds between looks at the clock while no worker says anything.
TICK = 0.2
#: Times that the process of a trial may die before it counts as failed; the first time it may have been bad luck.
DEATHS = 2
#: Workers of one GPU, where nobody says how many.
WORKERS_PER_GPU = 4


class TuningInterrupted(SeqrecError):
    """Somebody asked tuning to stop; what ran is saved."""

    exit_code = 130


class WorkerError(SeqrecError):
    """Processes that train cannot be started."""


class Limits(NamedTuple):
    """When a sitting ends: `trials` have been tried in all, or `budget` GPU-seconds are used."""

    trials: int
    budget: float | None


def tune(
    data: Any,
    model: str = "xlstm",
    *,
    out: Path | str | None = None,
    trials: int = 16,
    budget: float | None = None,
    search: Mapping[str, Choice | Range] | None = None,
    settings: Mapping[str, Any] | None = None,
    preset: str | None = None,
    workers: int | None = None,
    device: str = "auto",
    gpus: Sequence[int] = (),
    reduction: int = 3,
    report: Callable[[str], None] = lambda line: None,
    **columns: Any,
) -> Tuned:
    """Search settings for a model on validation, by a tree-structured Parzen estimator and successive halving.

    Trial 0 is the preset, or the defaults, with `settings`. The test of every trial stays in the trial's run; nothing
    here looks at it. The same call goes on with a study that was stopped or killed.

    Args:
        data: what `load_data` takes, or what it returned.
        out: the study's folder; `tuning/<data>-<model>` when None.
        trials: how many to try in all.
        budget: GPU-seconds after which no trial begins and those that run are stopped; None for no limit.
        search: by dotted key, beside or instead of the spaces that stand beside the configurations.
        settings: single settings by dotted key; they are not searched, unless `search` names them too.
        preset: as in `train`.
        workers: how many trials train at once; by itself 4 for each GPU, or 1 on a CPU.
        gpus: indices of the GPUs to use; all of them when empty.
        reduction: at a rung of successive halving one trial in so many goes on.
        report: is told of every trial that ends, in a line.
        columns: as in `load_data`.

    Raises:
        ConfigError: a setting or a space is wrong.
        RunFolderError: the folder is in use, or holds another study.
        TuningInterrupted: on Ctrl-C or SIGTERM.

    Sources: Bergstra et al. 2011 (the estimator); Li et al. 2020, "A System for Massively Parallel Hyperparameter
    Tuning" (asynchronous halving).
    """
    fixed = {**(settings or {}), **{f"data.{key}": value for key, value in columns.items()}}
    subject = Subject.of(data, model, preset, fixed, search or {}, report)
    folder = Path(out) if out else Path("tuning") / f"{subject.data.name}-{model.rpartition(':')[2].lower()}"
    on = gpus_of(device, gpus)
    size = min(workers or WORKERS_PER_GPU * len(on) or 1, trials)
    with alone_in(folder):
        plan = Plan.of(subject, reduction)
        plan.keep(folder)
        study = Study(plan, subject.space, subject.first, folder)
        with shared_gpus(size > len(on) > 0, report) as environment:
            pool = Pool(subject.data.folder, folder / "workers", on, size, environment)
            return Tuning(study, subject, pool, folder, Limits(trials, budget), report).run()


class Tuning:
    """One sitting of a study: from the first worker's start to the last one's end."""

    def __init__(
        self,
        study: Study,
        subject: Subject,
        pool: Pool,
        out: Path,
        limits: Limits,
        report: Callable[[str], None],
    ) -> None:
        self._study = study
        self._subject = subject
        self._pool = pool
        self._out = out
        self._limits = limits
        self._report = report
        self._clock = Clock(out / "clock.json", max(1, len(pool.gpus)))
        self._waiting = study.interrupted()
        self._deaths: dict[int, int] = {}
        #: Why trials were told to stop, by number.
        self._stopped: dict[int, str] = {}
        self._exhausted = False
        self._broken = self._invalid = 0

    def run(self) -> Tuned:
        """Train until a limit is reached, or nothing is left to try.

        Raises:
            TuningInterrupted: on Ctrl-C or SIGTERM, after what runs has been saved.
            WorkerError: processes that train cannot be started.
            DiskError: the disk is full; what ran goes on when there is room.
            ConfigError: trial 0 does not work, or hardly anything that the sampler proposes does.
        """
        saved = False
        with StopRequest() as stop:
            try:
                for place in range(self._pool.size if self._more() and not self._over() else 0):
                    self._pool.start(place)
                while not stop.asked and self._goes_on():
                    self._hear()
                saved = True
            finally:
                self._pool.close(save=saved)
                self._clock.write()
                found = self._write()
        if stop.asked:
            raise TuningInterrupted(f"Stopped; what ran is saved in {self._out}. The same command goes on with it.")
        return found

    def _goes_on(self) -> bool:
        """Give work to workers that have none; whether any has some."""
        over = self._over()
        for worker in self._pool.workers.values():
            if worker.idle and not over:
                self._give(worker)
        coming = any(worker.spent or not worker.begun for worker in self._pool.workers.values())
        return bool(self._pool.busy()) or (coming and not over and self._more())

    def _more(self) -> bool:
        return bool(self._waiting) or (not self._exhausted and len(self._counted()) < self._limits.trials)

    def _counted(self) -> list[TrialRow]:
        return [row for row in rows_of(self._study) if row.state != "invalid"]

    def _over(self) -> bool:
        """Whether the budget is used; trials that run are then told to stop."""
        self._clock.tick()
        if self._limits.budget is None or self._clock.used < self._limits.budget:
            return False
        for worker in self._pool.busy():
            assert worker.trial is not None
            if worker.trial.number not in self._stopped:
                self._stopped[worker.trial.number] = "budget"
                worker.send(stop="budget")
        return True

    def _give(self, worker: Worker) -> None:
        """Let a worker train the next trial, if there is one."""
        while (trial := self._next()) is not None:
            try:
                settings = self._subject.configure(self._study.settings(trial)).to_dict()
            except ConfigError as error:
                self._end(trial, "invalid", error=str(error))
                continue
            worker.trial, worker.began = trial, time.monotonic()
            out = str((self._out / "trials" / str(trial.number)).resolve())
            worker.send(trial=trial.number, settings=settings, out=out, device=self._pool.device)
            return

    def _next(self) -> Trial | None:
        if self._waiting:
            return self._waiting.pop(0)
        if not self._more():
            return None
        trial = self._study.propose()
        self._exhausted = trial is None
        return trial

    def _hear(self) -> None:
        """Take in what one worker says, if one says something soon."""
        try:
            place, message = self._pool.inbox.get(timeout=TICK)
        except queue.Empty:
            return
        worker = self._pool.workers[place]
        if message is None:
            self._replace(place, worker)
        elif "ready" in message:
            worker.begun = True
        elif worker.trial is not None and "epoch" in message:
            self._judge(worker, worker.trial, message["epoch"], message["value"])
        elif worker.trial is not None:
            self._take(worker, worker.trial, message)

    def _judge(self, worker: Worker, trial: Trial, epoch: int, value: float) -> None:
        if self._study.hear(trial, epoch, value):
            self._stopped.setdefault(trial.number, "halving")
        if trial.number in self._stopped:
            worker.send(stop=self._stopped[trial.number])
        else:
            worker.send(go=True)

    def _take(self, worker: Worker, trial: Trial, message: Mapping[str, Any]) -> None:
        """A trial has come to its end, or to that of the disk."""
        if message["end"] == "no room":
            raise DiskError(message["error"])
        worker.trial, worker.spent = None, message.get("spent", False)
        facts = {key: value for key, value in message.items() if key not in ("end", "spent", "value")}
        if "value" in message:
            facts["validation"] = message["value"]
        self._end(trial, message["end"], **facts)

    def _replace(self, place: int, worker: Worker) -> None:
        """A process ended: what it trained is gone on with by another one, once."""
        how, trial, worker.trial = worker.death(), worker.trial, None
        if trial is not None:
            self._deaths[trial.number] = self._deaths.get(trial.number, 0) + 1
            if self._deaths[trial.number] < DEATHS:
                self._waiting.insert(0, trial)
            else:
                seconds = time.monotonic() - worker.began
                self._end(trial, "failed", error=f"its process died twice ({how})", seconds=seconds)
        elif not worker.begun:
            self._broken += 1
            if self._broken > self._pool.size:
                raise WorkerError(f"Processes that train cannot be started ({how}): see {worker.log}.")
        if self._more():
            self._pool.start(place)
        else:
            del self._pool.workers[place]

    def _end(self, trial: Trial, state: str, **facts: Any) -> None:
        self._study.end(trial, state, **facts)
        found = self._write()
        self._report(progress_line(found, trial.number))
        self._invalid = self._invalid + 1 if state == "invalid" else 0
        if self._invalid and (trial.number == 0 or self._invalid == REPEATS):
            raise ConfigError(facts["error"])

    def _write(self) -> Tuned:
        """What was found by now, written into the study's folder."""
        subject, rows = self._subject, rows_of(self._study)
        best = next((changed(row.settings, subject.first) for row in ranked(rows)), {})
        found = Tuned(
            out=self._out,
            data=subject.data.name,
            model=subject.model,
            metric=subject.base.training.metric,
            space=written(subject.space),
            first=subject.first,
            gpu_seconds=round(self._clock.used, 1),
            gpus=len(self._pool.gpus),
            trials=rows,
            best=as_preset(subject.configure(best)),
            command=subject.command(best),
        )
        found.write()
        return found
