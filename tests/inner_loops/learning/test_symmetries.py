"""What a symmetric learning agent has learned holds where arms, observations and actions stand elsewhere.

Settings and evaluation sets are those of the sweep files; the meta-parameters are those at the end of
training. What is compared are means over the lives of a set, one for each meta-seed.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

from metalab.components import as_arrays
from metalab.config import build_evaluation_sets, load, make_point
from metalab.devices import lane_mesh, place
from metalab.spec import EvaluationSet
from metalab.sweep.evaluation import evaluate_set
from metalab.sweep.space import parse_space

pytestmark = pytest.mark.slow

META_SEEDS = 4
SYMLA, META_RNN = 0, 1  # points of the sweep files


def trained(outer: Any, steps: int) -> Any:
    """Meta-parameters ``[META_SEEDS, ...]`` after ``steps`` generations."""
    loop = as_arrays(outer)

    def one_seed(key: jax.Array) -> Any:
        init_key, train_key = jax.random.split(key)
        keys = jax.random.split(train_key, steps)
        state = jax.lax.scan(
            lambda state, key: (loop.step(key, state, None)[0], None), loop.init(init_key), keys
        )[0]
        return loop.meta_params(state)

    return jax.jit(jax.vmap(one_seed))(placed(jax.random.key(0)))


def placed(key: jax.Array) -> jax.Array:
    """[META_SEEDS] keys, spread over the devices."""
    return place(jax.random.split(key, META_SEEDS), lane_mesh())


def measured(where: EvaluationSet, metas: Any, metric: str) -> np.ndarray:
    """[META_SEEDS] mean of a metric at the end of the set's lives."""
    inner = as_arrays(where.inner)
    one = jax.jit(jax.vmap(lambda meta, key: evaluate_set(inner, where, meta, key)[metric]))
    return np.asarray(one(metas, placed(jax.random.key(1))))[..., -1].mean(axis=1)


def results(
    sweep: str, number: int, metric: str, sets: list[str], steps: int | None = None
) -> dict[str, np.ndarray]:
    """What a point of a sweep file measures on each set, with its meta-parameters after ``steps``."""
    spec = load(sweep)
    point = make_point(spec, number, parse_space(spec.search).point(number))
    metas = trained(point.outer, steps or spec.budget.outer_steps)
    found = build_evaluation_sets(spec, point)
    return {name: measured(found[name], metas, metric) for name in sets}


def test_regret_does_not_ask_which_arm_is_the_better_one() -> None:
    sets = ["as_trained", "flipped"]
    symla = results("symla_bandit", SYMLA, "regret", sets)
    meta_rnn = results("symla_bandit", META_RNN, "regret", sets)
    assert (symla["flipped"] <= 4.0).all(), symla
    assert (symla["flipped"] <= 1.3 * symla["as_trained"]).all(), symla
    # It pulls the first arm, which is never the better one here: half a point lost a pull, 50 in all.
    assert (meta_rnn["as_trained"] < 1.0).all() and (meta_rnn["flipped"] >= 30.0).all(), meta_rnn
