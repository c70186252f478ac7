"""Classical agents solve their environments: the sweep files' own settings, over 16 seeds with an interval.

Each test is one evaluation set of a sweep file: fresh agents, raised side by side, and their last episodes.
What is compared with the bar is the lower end of the 95 % interval of the mean.
"""

from __future__ import annotations

import jax
import numpy as np
import pytest

from analysis.statistics import t_interval
from metalab.components import as_arrays
from metalab.config import build_evaluation_sets, load, make_point
from metalab.devices import lane_mesh, place
from metalab.spec import EvaluationSet
from metalab.sweep.evaluation import LAST, evaluate_set

SEEDS = 16


def set_of(sweep: str, name: str) -> EvaluationSet:
    """An evaluation set of a sweep file, with the learner as the file has it."""
    spec = load(sweep)
    return build_evaluation_sets(spec, make_point(spec, 0, {}))[name]


def final_returns(where: EvaluationSet, seeds: int = SEEDS) -> np.ndarray:
    """[seeds] returns at the end of life, each the mean over the set's tasks and the last assessments."""
    inner = as_arrays(where.inner)
    keys = place(jax.random.split(jax.random.key(2), seeds), lane_mesh())
    lives = jax.jit(jax.vmap(lambda key: evaluate_set(inner, where, (), key)["return"]))
    return np.asarray(lives(keys))[..., -LAST:].mean(axis=(1, 2))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sweep", "name", "bar", "most_steps"),
    [
        ("ppo_cartpole", "cartpole", 475.0, 500_000),
        ("ppo_acrobot", "acrobot", -100.0, 500_000),
        ("dqn_catch", "catch", 0.95, 50_000),
        ("d4pg_pendulum", "pendulum", -200.0, 50_000),
    ],
)
def test_it_is_solved(sweep: str, name: str, bar: float, most_steps: int) -> None:
    where = set_of(sweep, name)
    assert where.threshold == bar
    assert where.updates * where.inner.steps_per_update <= most_steps  # pyright: ignore
    found = final_returns(where)
    assert t_interval(found).low >= bar, found


@pytest.mark.slow
def test_tabular_q_learning_comes_near_the_optimum() -> None:
    """The exact return of the exploring policy, as a share of the exact optimum of the same worlds.

    One action in twenty is drawn at random to the end of life.
    """
    where = set_of("q_learning_gridworld", "held_out")
    environment, tasks = where.tasks.environment, where.tasks  # pyright: ignore
    worlds = tasks.sample_set(jax.random.key(where.seed), where.count)  # pyright: ignore
    best = np.asarray(jax.jit(jax.vmap(environment.optimal_return))(worlds.params.env_params)).mean()
    found = final_returns(where)
    assert np.all(found <= best * (1.0 + 1e-4))
    assert t_interval(found).low >= 0.9 * best, (found, best)


@pytest.mark.long
def test_ppo_solves_breakout() -> None:
    """10,000,000 steps of each of four agents."""
    where = set_of("ppo_minatar", "breakout")
    assert where.threshold == 20.0
    found = final_returns(where, seeds=4)
    assert t_interval(found).low >= 20.0, found
