from __future__ import annotations

import jax
import numpy as np

from metalab.components import as_arrays
from metalab.contracts import check_outer
from outer_loops.fixed import Fixed
from tests.toys import Chaser, CountingTargets, Targets


def run(fixed: Fixed, steps: int):
    @jax.jit
    def go(fixed: Fixed):
        def body(state, key):
            state, metrics = fixed.step(key, state, None)
            return state, (metrics, state)

        return jax.lax.scan(body, fixed.init(jax.random.key(0)), jax.random.split(jax.random.key(1), steps))

    return go(as_arrays(fixed))


def test_meta_parameters_never_move_and_learners_do() -> None:
    # In step, all 3 slots have lived 2, 4, then (reborn) 2 updates: at gain 0.5 the distance left is
    # 0.25, 0.0625, 0.25, and the score minus its square.
    fixed = Fixed(inner=Chaser(gain=0.5), tasks=Targets(lifetime=4), truncation=2, num_slots=3, stagger=False)
    state, (metrics, _) = run(fixed, 3)
    np.testing.assert_allclose(metrics["score"], [-(0.25**2), -(0.0625**2), -(0.25**2)], rtol=1e-5)
    np.testing.assert_allclose(metrics["loss"], -metrics["score"])
    np.testing.assert_array_equal(metrics["ended"], [0.0, 1.0, 0.0])
    assert float(fixed.meta_params(state)["gain"]) == 0.5


def test_a_learner_without_outer_loss_runs() -> None:
    fixed = Fixed(inner=Chaser(differentiable=False), tasks=Targets(), num_slots=2)
    _, (metrics, _) = run(fixed, 1)
    assert "loss" not in metrics
    assert np.all(np.isfinite(metrics["score"]))


def test_adaptive_tasks_hear_of_ended_lives_only() -> None:
    fixed = Fixed(inner=Chaser(), tasks=CountingTargets(lifetime=4), truncation=2, num_slots=3, stagger=False)
    _, (_, states) = run(fixed, 4)
    np.testing.assert_array_equal(states.memory["ended"], [0, 3, 3, 6])
    np.testing.assert_array_equal(states.memory["tickets"], [0.0, 6.0, 6.0, 12.0])


def test_it_keeps_the_contract() -> None:
    check_outer(Fixed(inner=Chaser(), tasks=Targets(), num_slots=2))
