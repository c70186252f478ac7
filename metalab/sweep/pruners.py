"""Pruners: when a point is given up, from what it and the other points have reported so far.

A report is the study's objective over the seeds at an outer step. ``median``, ``successive_halving`` and
``hyperband`` are Optuna's; ``wilcoxon`` compares seed by seed and is our own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    NopPruner,
    SuccessiveHalvingPruner,
)
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from metalab.errors import MetalabError
from metalab.spec import Pruner

__all__ = ["LOST", "Patient", "Wilcoxon", "make_pruner", "seeds_key"]

LOST = "lost"  # attribute of a trial: the step at which its objective over the seeds was no longer finite
_WORST = 1e300  # stands for a diverged seed: below every value, and differences of it are still finite


def make_pruner(settings: Pruner) -> BasePruner:
    """The pruner that a study asks for.

    Raises:
        MetalabError: the kind is not known.
    """
    match settings.kind:
        case "none":
            return NopPruner()
        case "median":
            inner: BasePruner = MedianPruner(n_startup_trials=0)
        case "successive_halving":
            inner = SuccessiveHalvingPruner(
                min_resource=settings.warmup_steps or "auto", reduction_factor=settings.reduction_factor
            )
        case "hyperband":
            inner = HyperbandPruner(
                min_resource=settings.warmup_steps or 1,
                max_resource=settings.outer_steps or "auto",
                reduction_factor=settings.reduction_factor,
            )
        case "wilcoxon":
            inner = Wilcoxon(settings.p_threshold)
        case _:
            known = "none, median, successive_halving, hyperband or wilcoxon"
            raise MetalabError(f"study.pruner.kind: got {settings.kind!r}, expected {known}")
    return Patient(inner, settings.startup_points, settings.warmup_steps)


class Patient(BasePruner):
    """Any pruner, overruled while too few points have finished or the point is too young.

    The other pruner is asked all the same: those that halve note at every rung who has come so far. A point
    whose objective over the seeds is not finite has nothing to compare and is pruned.
    """

    def __init__(self, inner: BasePruner, startup_points: int, warmup_steps: int) -> None:
        """Args are those of ``metalab.spec.Pruner``, and the pruner that is overruled."""
        self._inner, self._startup_points, self._warmup_steps = inner, startup_points, warmup_steps

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether the trial is to end now."""
        lost = trial.user_attrs.get(LOST)
        step = trial.last_step if lost is None else lost
        if step is None:
            return False
        verdict = lost is not None or self._inner.prune(study, trial)
        return verdict and step >= self._warmup_steps and self._enough(study)

    def _enough(self, study: Study) -> bool:
        finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        return len(finished) >= self._startup_points


class Wilcoxon(BasePruner):
    """Prunes a point that is worse than the best finished one, seed by seed, at the same outer step.

    One-sided Wilcoxon signed-rank test of the differences over the seeds: seeds mean the same in every point
    (the same births, the same tasks), so pairing them takes their luck out of the comparison. Optuna's own
    Wilcoxon pruner tests over the *steps* of a trial, as instances of a problem that come one after the
    other; here all seeds run at once, and the steps of one of them are anything but independent.

    Args:
        p_threshold: pruned where the test's p is below it and the mean of the differences is worse.
    """

    def __init__(self, p_threshold: float) -> None:
        self._p_threshold = p_threshold

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether the trial is worse; False while there is no finished point to compare with."""
        best = _best(study)
        key = seeds_key(trial.last_step or 0)
        if best is None or key not in best.user_attrs or key not in trial.user_attrs:
            return False
        sign = 1.0 if study.direction == StudyDirection.MAXIMIZE else -1.0
        own, other = (_filled(one.user_attrs[key], -sign * _WORST) for one in (trial, best))
        if own.shape != other.shape:  # the number of seeds was changed between the two
            return False
        gains = sign * (own - other)  # [S], positive where this trial is better
        return bool(np.mean(gains) < 0) and _p_worse(gains) < self._p_threshold


def seeds_key(step: int) -> str:
    """The attribute of a trial that holds its value for every seed at an outer step; None: not finite."""
    return f"seeds/{step}"


def _best(study: Study) -> FrozenTrial | None:
    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    sign = 1.0 if study.direction == StudyDirection.MAXIMIZE else -1.0
    return max(finished, key=lambda one: sign * float(one.value or 0.0), default=None)


def _filled(values: Sequence[float | None], worst: float) -> np.ndarray:
    return np.asarray([worst if value is None else value for value in values], np.float64)


def _p_worse(gains: np.ndarray) -> float:
    """p of the hypothesis that the gains are not below zero; 1 where all are zero."""
    from scipy import stats

    if not np.any(gains):
        return 1.0
    result: Any = stats.wilcoxon(gains, alternative="less")
    return float(result.pvalue)
