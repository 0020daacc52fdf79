"""What has been tried, kept in a journal, and what to try next. One process writes it; validation is all it knows.

A study is a folder:

    study.json     what is searched, around which settings, on which data
    journal.log    every trial and every epoch as they happen (Optuna's journal)
    clock.json     GPU-seconds used so far
    trials/3/      the run of trial 3, its test too
    trials.json    all trials in short, best.yaml the best settings: see `report.py`
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from seqrec.errors import MissingExtraError, RunFolderError
from seqrec.experiments.compare.run import make_folder
from seqrec.experiments.tune.space import Space, decoded, distributions, encoded, written
from seqrec.experiments.tune.subject import Subject
from seqrec.files import read_json, write_json

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial, Trial

#: Times in a row that the sampler may propose what was tried already before a search counts as exhausted.
REPEATS = 50
#: Trials that are drawn at random before the sampler learns.
STARTUP = 6
#: Rungs of successive halving below the whole length of training.
RUNGS = 2


@dataclass(frozen=True)
class Plan:
    """What a study is: another one needs another folder.

    Attributes:
        data: fingerprint.
        settings: nested, as `RunConfig.from_dict` takes them, without `data`; trial 0 has them as they are.
        reduction: of the trials that come to a rung, one in so many goes on.
    """

    data: str
    settings: Mapping[str, Any]
    space: Mapping[str, Any]
    metric: str
    epochs: int
    reduction: int
    seed: int

    @classmethod
    def of(cls, subject: Subject, reduction: int) -> Self:
        """A study of `subject`."""
        base = subject.base
        return cls(
            data=subject.data.facts["fingerprint"],
            settings={key: value for key, value in subject.settings({}).items() if key != "data"},
            space=written(subject.space),
            metric=base.training.metric,
            epochs=base.training.epochs,
            reduction=reduction,
            seed=base.seed,
        )

    def keep(self, out: Path) -> None:
        """Write it down, or check that what is written is this.

        Raises:
            RunFolderError: the folder holds another study.
        """
        path, mine = out / "study.json", json.loads(json.dumps(vars(self)))
        if not path.exists():
            write_json(path, mine)
            return
        kept = read_json(path)
        if other := [key for key in mine if mine[key] != kept.get(key)]:
            raise RunFolderError(
                f"{out} holds a study with other {', '.join(other)}. Repeat its command, or choose another --out."
            )


@contextmanager
def alone_in(out: Path) -> Iterator[None]:
    """Hold the study's folder; whoever is killed lets go of it.

    Raises:
        ConfigError: no folder can be there.
        RunFolderError: another process holds it.
    """
    make_folder(out)
    with (out / "lock").open("w") as handle:
        try:
            import fcntl
        except ImportError:  # Windows: nothing to lock with
            yield
            return
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunFolderError(f"{out} is being worked on by another seqrec tune.") from None
        yield


class Study:
    """Proposes trials, learns from what comes of them, and says which to stop."""

    def __init__(self, plan: Plan, space: Space, first: Mapping[str, Any], out: Path) -> None:
        """Begin the study in the folder `out`, or go on with it.

        Args:
            first: of the searched keys, the values of trial 0.

        Raises:
            RunFolderError: the journal is damaged.
        """
        try:
            import optuna
        except ImportError as error:
            raise MissingExtraError("optuna", "tune") from error
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._space = space
        self._distributions = distributions(space)
        self._states = optuna.trial.TrialState
        journal = out / "journal.log"
        try:
            storage = optuna.storages.JournalStorage(JournalFileBackend(str(_mended(journal))))
        except (ValueError, LookupError) as error:
            raise RunFolderError(
                f"{journal} is damaged ({error}). Restore it from a copy, or tune again into another --out."
            ) from error
        self._study = optuna.create_study(
            storage=storage,
            study_name="seqrec",
            load_if_exists=True,
            direction="maximize",
            pruner=optuna.pruners.SuccessiveHalvingPruner(max(1, plan.epochs // plan.reduction**RUNGS), plan.reduction),
        )
        begun = len(self.trials())
        # What was drawn before a restart is not drawn again.
        self._study.sampler = optuna.samplers.TPESampler(
            seed=plan.seed + begun, multivariate=True, constant_liar=True, n_startup_trials=STARTUP
        )
        if not begun:
            self._study.enqueue_trial({key: encoded(first[key]) for key in space})

    def trials(self) -> list[FrozenTrial]:
        """All that were ever proposed, in order."""
        return self._study.get_trials(deepcopy=False)

    def interrupted(self) -> list[Trial]:
        """Trials that were running when the study stopped, to be gone on with."""
        from optuna.trial import Trial

        running = [trial for trial in self.trials() if trial.state == self._states.RUNNING]
        for trial in running:
            if set(trial.params) != set(self._space):  # killed while it was being proposed
                self._study.tell(trial.number, state=self._states.FAIL)
        return [Trial(self._study, trial._trial_id) for trial in running if set(trial.params) == set(self._space)]

    def propose(self) -> Trial | None:
        """A trial of settings that were not tried before; None where the sampler finds no more of them."""
        for _ in range(REPEATS):
            trial = self._study.ask(self._distributions)
            others = (other for other in self.trials() if other.number != trial.number)
            if not any(other.params == trial.params for other in others):
                return trial
            self._study.tell(trial, state=self._states.FAIL)
        return None

    def settings(self, trial: Trial | FrozenTrial) -> dict[str, Any]:
        """What is special about a trial, by dotted key."""
        return decoded(self._space, trial.params)

    def hear(self, trial: Trial, epoch: int, value: float) -> bool:
        """Take in the validation after an epoch; whether the trial is to be stopped. Trial 0 never is.

        What counts is the best so far. An epoch that was trained again after a restart is known already.
        """
        known = self.trials()[trial.number].intermediate_values
        if epoch in known:
            return False
        trial.report(max([value, *known.values()]), epoch)
        return trial.should_prune() and trial.number > 0

    def end(self, trial: Trial, state: str, **facts: Any) -> None:
        """A trial is over.

        Args:
            state: `finished`, `stopped early`, `failed` or `invalid`: settings that do not fit together.
            facts: what is known about it; `validation` where it has one.
        """
        for key, value in {"state": state, **facts}.items():
            trial.set_user_attr(key, value)
        if state == "finished":
            self._study.tell(trial, facts["validation"])
        else:  # the sampler learns from what it stopped, also from what does not fit, but not from accidents
            self._study.tell(trial, state=self._states.FAIL if state == "failed" else self._states.PRUNED)


def _mended(journal: Path) -> Path:
    """The journal without what a process that was killed had not written to its end, and without its lock."""
    journal.with_name(journal.name + ".lock").unlink(missing_ok=True)
    if journal.exists():
        written = journal.read_bytes()
        with journal.open("r+b") as file:
            file.truncate(written.rfind(b"\n") + 1)
    return journal
