"""What the learning rate is at every step: numbers that the host works out, and no state but what plateaus need."""

from __future__ import annotations

from math import cos, pi

from seqrec.training.config import TrainingConfig

#: One cycle (Smith and Topin, 2018) as torch has it: it begins at 1/25 of the top, rises over 30% of all steps, and
#: ends at 1/10,000 of where it began.
RISE, BEGINS, ENDS = 0.3, 1 / 25, 1 / 25 / 10_000


def scheduled_learning_rate(
    config: TrainingConfig, step: int, epoch: int, steps_per_epoch: int, fallen: float = 1.0
) -> float:
    """Learning rate of step 0, 1, ... of the whole training, in epoch 0, 1, ...

    It rises over the warm-up, and the schedule multiplies that: `step` and `linear` epoch by epoch, `plateau` after
    evaluations that gain nothing, `cosine` and `wsd` at every step after the warm-up. `one_cycle` has a rise of its
    own and no warm-up.

    Args:
        steps_per_epoch: steps of all `config.epochs` epochs are known by it.
        fallen: what plateaus have left of the learning rate; see `after_evaluation`.
    """
    warm_up = min(1.0, (step + 1) / max(config.warmup_steps, 1))
    last = config.epochs * steps_per_epoch
    if config.schedule == "one_cycle":
        return config.learning_rate * _one_cycle(step, last)
    share = 1.0
    if config.schedule == "step":
        share = config.step_factor ** (epoch // config.step_epochs)
    elif config.schedule == "plateau":
        share = fallen
    elif config.schedule == "linear":
        share = 1 - epoch / config.epochs
    elif config.schedule == "cosine":
        share = _cosine(_part(step, config.warmup_steps, last))
    elif config.schedule == "wsd":
        share = 1 - _part(step, last - max(1, round(config.decay_share * last)), last)
    return config.learning_rate * warm_up * share


def after_evaluation(config: TrainingConfig, fallen: float, waited: int, improved: bool) -> tuple[float, int]:
    """What is left of the learning rate on plateaus, and evaluations waited since it fell or the metric rose.

    Args:
        fallen, waited: what this gave after the evaluation before; 1 and 0 before the first one.
        improved: whether the validation metric is the best so far.
    """
    if config.schedule != "plateau" or improved:
        return fallen, 0
    if waited < config.plateau_patience:
        return fallen, waited + 1
    return fallen * config.step_factor, 0


def _part(step: int, first: int, last: int) -> float:
    """How far `step` is on the way from `first` to `last`, 0 to 1."""
    return min(1.0, max(0.0, (step - first) / max(last - first, 1)))


def _cosine(part: float) -> float:
    """Half a wave, from 1 down to 0."""
    return (1 + cos(pi * part)) / 2


def _one_cycle(step: int, steps: int) -> float:
    """Half a wave up to 1 and half a wave down; both ends and the top are steps."""
    top, last = RISE * steps - 1, steps - 1
    if step <= top:
        return 1 + (BEGINS - 1) * _cosine(_part_of(step, top))
    return ENDS + (1 - ENDS) * _cosine(min(1.0, _part_of(step - top, last - top)))


def _part_of(done: float, whole: float) -> float:
    return done / whole if whole > 0 else 1.0
