"""Evaluation: fresh learners raised with frozen meta-parameters on a fixed set of tasks.

A set's tasks come from its own seed alone, so every point, seed and checkpoint meets the same ones; what
the learners draw depends on the seed of the lane.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax import Array

from metalab.errors import MetalabError
from metalab.protocols import Assessable, InnerLoop, PyTree, Task
from metalab.spec import EvaluationSet
from metalab.sweep.lives import raise_in_blocks, raise_one, set_tasks, task_keys
from metalab.sweep.program import STREAMS, Compiler, lanes_of, stream
from metalab.sweep.records import evaluation_frame

__all__ = [
    "LaneSet",
    "assessed_updates",
    "curves_frame",
    "evaluate_set",
    "final_score",
    "life_score",
    "score_sets",
    "scores_of",
    "untrained_meta",
]

LAST = 3  # assessments at the end of life whose mean is its final return


def assessed_updates(inner: InnerLoop, where: EvaluationSet) -> np.ndarray:
    """The ages, in inner updates, at which a learner of the set is assessed; [points] int.

    An ``Assessable`` learner is first assessed at birth; another one can only be judged after a stretch.

    Raises:
        MetalabError: the updates of a lifetime are not whole strides.
    """
    if where.stride < 1 or where.updates % where.stride:
        raise MetalabError(
            f"evaluation set {where.name!r}: updates ({where.updates}) must be a multiple of stride "
            f"({where.stride})"
        )
    ages = np.arange(0, where.updates + 1, where.stride)
    return ages if isinstance(inner, Assessable) else ages[1:]


def evaluate_set(inner: InnerLoop, where: EvaluationSet, meta: PyTree, key: Array) -> dict[str, Array]:
    """Raises one learner per task of the set and assesses it along its life.

    Args:
        inner: the learner's loop; ``where.inner`` unless the caller maps over many.
        where: the set.
        meta: frozen meta-parameters.
        key: the learners' randomness; the tasks do not depend on it.

    Returns:
        Metrics ``[count, points]``, ``return`` among them; the points are ``assessed_updates``.
    """
    assessed_updates(inner, where)

    def live(task: Task, key: Array) -> dict[str, Array]:
        return raise_one(inner, meta, task, key, where.updates, where.stride)[1]

    return jax.vmap(live)(set_tasks(where.tasks, where.count, where.seed), task_keys(key, 0, where.count))


@dataclasses.dataclass(frozen=True)
class LaneSet:
    """One evaluation set as the points of a pack have it, its inner loops and tasks stacked as lanes.

    Attributes:
        where: the set as the first point has it; its sizes, seed and threshold are everyone's.
        inner, tasks: leaves ``[L, ...]``.
        ages: [points] inner updates at each assessment.
        steps_per_update: environment steps of one inner update.
    """

    where: EvaluationSet
    inner: PyTree
    tasks: PyTree
    ages: np.ndarray
    steps_per_update: int

    @classmethod
    def of(cls, sets: Sequence[EvaluationSet], num_seeds: int, spread: Callable[[PyTree], PyTree]) -> LaneSet:
        """Stacks one set per point; ``spread`` pads the lanes and puts them on the devices.

        Raises:
            MetalabError: points of one program disagree on the set's size.
        """
        first = sets[0]
        if len({(one.count, one.updates, one.stride, one.seed) for one in sets}) > 1:
            raise MetalabError(
                f"evaluation set {first.name!r}: count, updates, stride or seed differ between points; "
                "a set is the same for all points of a sweep"
            )
        return cls(
            where=first,
            inner=spread(lanes_of([one.inner for one in sets], num_seeds)),
            tasks=spread(lanes_of([one.tasks for one in sets], num_seeds)),
            ages=assessed_updates(first.inner, first),
            steps_per_update=int(getattr(first.inner, "steps_per_update", 1)),
        )

    def run(self, compiler: Compiler, meta: PyTree, keys: Array, stream_name: str) -> dict[str, np.ndarray]:
        """``evaluate_set`` on the lanes: metrics ``[L, count, points]`` on the host.

        Args:
            compiler: of the sweep.
            meta: leaves ``[L, ...]``.
            keys: [L] lane keys.
            stream_name: ``selection`` or ``final``: what selects must not be what is reported.
        """
        number = STREAMS[stream_name]
        return raise_in_blocks(compiler, self.where, self.inner, self.tasks, meta, keys, number)

    def scores(self, returns: np.ndarray) -> dict[str, float]:
        """``scores_of`` one lane's returns ``[count, points]``."""
        return scores_of(returns, self.ages * self.steps_per_update, self.where.threshold)


def score_sets(
    sets: Mapping[str, LaneSet], curves: Mapping[str, Mapping[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Scores one point's final evaluation: the returns, and what else the learners report of themselves.

    Args:
        sets: by name.
        curves: by set name, then metric: ``[S, count, points]``.

    Returns:
        ``final/<set>/<metric>`` to values ``[S]``. Of a metric beside the return (the regret of a life) it
        is the mean over the tasks at the end of life; exposed values, whose names have a path, are left out.
    """
    finals: dict[str, np.ndarray] = {}
    for name, found in curves.items():
        scores = [sets[name].scores(returns) for returns in found["return"]]
        for metric in scores[0]:
            finals[f"final/{name}/{metric}"] = np.asarray([score[metric] for score in scores])
        others = [metric for metric in found if metric != "return" and "/" not in metric]
        finals |= {f"final/{name}/{metric}": found[metric][..., -1].mean(axis=-1) for metric in others}
    return finals


def curves_frame(
    sets: Mapping[str, LaneSet],
    curves: Mapping[str, Mapping[str, np.ndarray]],
    outer_steps: Sequence[int] | np.ndarray,
) -> pd.DataFrame:
    """One point's final evaluation as the long table of ``records.evaluation_frame``."""
    frames = [
        evaluation_frame(name, found, outer_steps, sets[name].ages, sets[name].steps_per_update)
        for name, found in curves.items()
    ]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def untrained_meta(compiler: Compiler, inner: InnerLoop, keys: Array) -> PyTree:
    """Meta-parameters ``[L, ...]`` as they are initialised, for lanes of learners and their keys ``[L]``."""
    return compiler.run("init_meta", _init_meta, (inner, keys), quick=True)


def _init_meta(inner: InnerLoop, key: Array) -> PyTree:
    return inner.init_meta(stream(key, "birth"))


def final_score(returns: Array | np.ndarray, ages: np.ndarray) -> Array:
    """The mean over the tasks of the mean of the last assessments: ``[..., count, points] -> [...]``.

    ``ages`` [points] tells whether the first assessment was at birth, which is no part of life's end.
    """
    points = returns.shape[-1] - int(ages[0] == 0 and len(ages) > 1)
    return jnp.mean(returns[..., -min(LAST, points) :], axis=(-1, -2))


def life_score(returns: Array | np.ndarray, ages: np.ndarray) -> Array:
    """The mean over the tasks of the mean over life, birth left out: ``[..., count, points] -> [...]``."""
    lived = int(ages[0] == 0 and len(ages) > 1)
    return jnp.mean(returns[..., lived:], axis=(-1, -2))


def scores_of(returns: np.ndarray, env_steps: np.ndarray, threshold: float | None) -> dict[str, float]:
    """Scores one lane's returns: means over the set's tasks.

    Args:
        returns: [count, points].
        env_steps: [points] environment steps lived at each assessment.
        threshold: return that counts as solved; None: not asked.

    Returns:
        ``return`` (end of life), ``mean_return`` (over life, birth left out) and, with a threshold,
        ``steps_to_threshold`` and ``success``. A lifetime is solved from the first assessment after which
        its return never falls below the threshold again; one that never is counts with its whole length
        and one more stride.
    """
    life = returns[:, 1:] if env_steps[0] == 0 and returns.shape[1] > 1 else returns
    metrics = {
        "return": float(np.mean(life[:, -LAST:])),
        "mean_return": float(np.mean(life)),
    }
    if threshold is not None:
        metrics |= _time_to(returns, env_steps, threshold)
    return metrics


def _time_to(returns: np.ndarray, env_steps: np.ndarray, threshold: float) -> dict[str, float]:
    # NaN compares false: a learner that broke down has not solved its task.
    holds = np.logical_and.accumulate(returns[:, ::-1] >= threshold, axis=1)[:, ::-1]
    solved = holds[:, -1]
    stride = env_steps[-1] - env_steps[-2] if len(env_steps) > 1 else env_steps[-1]
    steps = np.where(solved, env_steps[np.argmax(holds, axis=1)], env_steps[-1] + stride)
    return {"steps_to_threshold": float(np.mean(steps)), "success": float(np.mean(solved))}
