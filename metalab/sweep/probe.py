"""Probes: how much of the truth about its states a learner's representation tells a linear reader.

Learners are raised as in an evaluation; at the end of life each gives features of its states, the truth
about them and which of them count (``Probe``). A ridge regression fitted on one half of the lifetimes
predicts the other half's truth, and the other way round; R^2 is over both. A representation that means
something else in every lifetime tells nothing here, however rich it is.

A rule as it is initialised makes representations that tell something too, so what counts is the difference
to one with fresh meta-parameters, whose learners meet the same tasks with the same random numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax import Array

from metalab.protocols import Probe, PyTree
from metalab.sweep.evaluation import LaneSet, untrained_meta
from metalab.sweep.lives import raise_one, set_tasks, task_keys
from metalab.sweep.program import STREAMS, Compiler
from metalab.sweep.records import evaluation_frame

__all__ = ["cross_fitted_r2", "probe_frame", "probe_set"]

# The penalty on the squared weights beside the mean squared error, features and truth standardised.
# Fixed beforehand: large enough that collinear features (log-probabilities sum to one as probabilities)
# have finite weights, small enough to shrink an honest weight by one in a hundred.
PENALTY = 0.01


def probe_set(
    one: LaneSet, compiler: Compiler, meta: PyTree, keys: Array, fetch: Callable[[PyTree], PyTree]
) -> dict[str, np.ndarray]:
    """Probes the learners of a set under given and under fresh meta-parameters.

    Args:
        one: the set.
        compiler: of the sweep.
        meta: leaves ``[L, ...]``.
        keys: [L] lane keys.
        fetch: brings leaves ``[L, ...]`` to the host without padding lanes.

    Returns:
        ``[L]`` each: ``prediction_r2``, ``prediction_r2_untrained`` and their difference
        ``prediction_r2_gain``.
    """
    fresh = untrained_meta(compiler, one.inner, keys)
    where = one.where
    numbers = (jnp.asarray(STREAMS["final"], jnp.int32), jnp.asarray(where.seed, jnp.uint32))
    static = (where.count, where.updates, where.stride)
    scores = []
    for rule in (meta, fresh):
        lanes = (one.inner, one.tasks, rule, keys)
        found: Probe = fetch(compiler.run("probe", _probe_lane, lanes, shared=numbers, static=static))
        scores.append(np.asarray([cross_fitted_r2(*lane) for lane in zip(*found, strict=True)]))
    trained, untrained = scores
    return {
        "prediction_r2": trained,
        "prediction_r2_untrained": untrained,
        "prediction_r2_gain": trained - untrained,
    }


def probe_frame(
    one: LaneSet, scores: Mapping[str, np.ndarray], outer_steps: Sequence[int] | np.ndarray
) -> pd.DataFrame:
    """Scores ``[S]`` of ``probe_set`` as rows of the long table of evaluations: one a seed, at life's end."""
    curves = {metric: values[:, None, None] for metric, values in scores.items()}
    return evaluation_frame(one.where.name, curves, outer_steps, one.ages[-1:], one.steps_per_update)


def cross_fitted_r2(features: np.ndarray, targets: np.ndarray, visited: np.ndarray) -> float:
    """R^2 of ridge regression from lifetimes to other lifetimes.

    The first half of the lifetimes is predicted by a fit on the second, and the second by one on the first.
    Every state that counts is one row. Features are standardised by the rows of the fit.

    Args:
        features: [N, states, F].
        targets: [N, states].
        visited: [N, states] bool.

    Returns:
        1 - (squared error) / (squared distance of the truth from its mean); NaN where a half has no row
        or the truth does not vary. Rows that are not finite, those of learners that broke down, are left out.
    """
    sound = visited & np.isfinite(features).all(axis=-1) & np.isfinite(targets)
    half = len(features) // 2
    halves = [
        (features[part][sound[part]].astype(np.float64), targets[part][sound[part]].astype(np.float64))
        for part in (slice(None, half), slice(half, None))
    ]
    if any(len(truth) == 0 for _, truth in halves):
        return float("nan")
    errors = [truth - _ridge(fit, seen) for fit, (seen, truth) in zip(halves[::-1], halves, strict=True)]
    truth = np.concatenate([halves[0][1], halves[1][1]])
    spread = float(np.sum((truth - truth.mean()) ** 2))
    return 1.0 - float(np.sum(np.concatenate(errors) ** 2)) / spread if spread > 0 else float("nan")


def _ridge(fit: tuple[np.ndarray, np.ndarray], features: np.ndarray) -> np.ndarray:
    """[n] predictions at ``features`` [n, F] of the ridge regression fitted on ``fit``."""
    seen, truth = fit
    centre, scale = seen.mean(axis=0), seen.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    standard = (seen - centre) / scale
    gram = standard.T @ standard / len(truth) + PENALTY * np.eye(standard.shape[1])
    weights = np.linalg.solve(gram, standard.T @ (truth - truth.mean()) / len(truth))
    return truth.mean() + (features - centre) / scale @ weights


def _probe_lane(
    inner: Any,
    tasks: Any,
    meta: PyTree,
    key: Array,
    number: Array,
    seed: Array,
    count: int,
    updates: int,
    stride: int,
) -> Probe:
    """Probes of one lane's lifetimes, leaves ``[count, ...]``: the learners that the evaluation raised."""
    drawn = set_tasks(tasks, count, seed)
    keys = task_keys(jax.random.fold_in(key, number), 0, count)

    def live(task: PyTree, key: Array) -> Probe:
        grown, _ = raise_one(inner, meta, task, key, updates, stride)
        return inner.probe(jax.random.fold_in(key, STREAMS["final"]), meta, grown)

    return jax.vmap(live)(drawn, keys)
