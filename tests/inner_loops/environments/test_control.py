"""Control worlds: motion beside gymnax's, rewards worked by hand, time limits, one program for many."""

from __future__ import annotations

from typing import Any

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inner_loops.environments.control.base import ControlState
from inner_loops.tasks.control_tasks import CartPoleGoalTasks, PendulumTasks, PointGoalTasks
from inner_loops.tasks.wrapped_tasks import WrappedTasks
from metalab.components import as_arrays
from metalab.config.build import build_tasks

TASKS = {
    "pendulum": PendulumTasks(max_steps=3),
    "cart": CartPoleGoalTasks(max_steps=3),
    "discrete cart": CartPoleGoalTasks(max_steps=3, discrete=True),
    "point": PointGoalTasks(max_steps=3),
}


def moved(tasks: Any, physics: list[float], action: Any) -> tuple[np.ndarray, float]:
    """The physics after one step from there, and its reward."""
    params = tasks.sample(jax.random.key(0)).params.env_params
    state = ControlState(jnp.asarray(physics), jnp.zeros((), jnp.int32))
    _, after, reward, *_ = tasks.environment.step_env(jax.random.key(1), state, jnp.asarray(action), params)
    return np.asarray(after.physics), float(reward)


@pytest.mark.parametrize(("theta", "omega", "torque"), [(0.3, -0.5, 1.2), (4.0, 7.9, 2.0), (-3.3, 1.0, -2.0)])
def test_the_pendulum_moves_as_gymnax_s_and_its_pay_is_the_exponential_of_a_quarter(theta, omega, torque):
    world, params = gymnax.make("Pendulum-v1")
    _, state = world.reset_env(jax.random.key(0), params)
    state = state.replace(theta=jnp.asarray(theta), theta_dot=jnp.asarray(omega))
    _, after, reward, *_ = world.step_env(jax.random.key(0), state, jnp.asarray([torque]), params)
    found, paid = moved(PendulumTasks(), [theta, omega], [torque])
    np.testing.assert_allclose(found, [after.theta, after.theta_dot], rtol=1e-5)
    assert paid == pytest.approx(float(np.exp(0.25 * reward)), rel=1e-4)


@pytest.mark.parametrize("physics", [[0.1, -0.4, 0.3, 1.0], [-0.5, 0.2, 2.8, -3.0]])
@pytest.mark.parametrize("push", [0, 1])
def test_the_cart_moves_as_cartpole_under_all_force(physics, push):
    world, params = gymnax.make("CartPole-v1")
    _, state = world.reset_env(jax.random.key(0), params)
    names = ("x", "x_dot", "theta", "theta_dot")
    state = state.replace(**dict(zip(names, map(jnp.asarray, physics), strict=True)))
    _, after, *_ = world.step_env(jax.random.key(0), state, push, params)
    expected = [getattr(after, name) for name in names]
    continuous, paid = moved(CartPoleGoalTasks(goal=0.5), physics, [2.0 * push - 1.0])
    np.testing.assert_allclose(continuous, expected, rtol=1e-5)
    discrete, same = moved(CartPoleGoalTasks(goal=0.5, discrete=True), physics, push)
    np.testing.assert_allclose(discrete, expected, rtol=1e-5)
    pays = 0.5 * (1.0 + np.cos(after.theta)) * np.exp(-((after.x - 0.5) ** 2))
    assert paid == pytest.approx(same) == pytest.approx(float(pays), rel=1e-5)


def test_the_track_ends():
    """From 2.39 with speed 1 the cart would come to 2.41: it stands at 2.4."""
    found, _ = moved(CartPoleGoalTasks(), [2.39, 1.0, 0.0, 0.0], [1.0])
    np.testing.assert_allclose(found[:2], [2.4, 0.0], rtol=1e-6)


def test_the_point_is_paid_by_its_distance():
    """v' = 0.8 (1, 0) + 0.04 (0, 1) = (0.8, 0.04); p' = clip((0.5, 0) + v') = (1.2, 0.04)."""
    found, paid = moved(PointGoalTasks(), [0.5, 0.0, 1.0, 0.0, 0.6, 0.12], [0.0, 3.0])
    np.testing.assert_allclose(found, [1.2, 0.04, 0.8, 0.04, 0.6, 0.12], rtol=1e-6)
    assert paid == pytest.approx(np.exp(-1.5 * np.hypot(0.6, 0.08)), rel=1e-5)


@pytest.mark.parametrize("name", TASKS)
def test_time_limits_end_episodes_and_nothing_else_does(name):
    tasks = TASKS[name]
    environment, params = tasks.environment, tasks.sample(jax.random.key(0)).params.env_params
    action = (
        jnp.zeros((), jnp.int32) if environment.action_size is None else jnp.ones(environment.action_size)
    )

    def body(state: Any, key: jax.Array) -> tuple[Any, Any]:
        obs, state, reward, terminated, truncated, _ = environment.step(key, state, action, params)
        return state, (obs, reward, terminated, truncated)

    first, state = environment.reset(jax.random.key(0), params)
    obs, reward, terminated, truncated = jax.lax.scan(body, state, jax.random.split(jax.random.key(1), 7))[1]
    np.testing.assert_array_equal(np.flatnonzero(truncated), [2, 5])
    assert not np.any(terminated)
    assert obs.shape[1:] == first.shape == environment.observation_shape
    assert np.all((reward >= 0.0) & (reward <= 1.0))


@pytest.mark.slow
def test_worlds_that_differ_in_numbers_share_one_program():
    def constrained(start: float, threshold: float) -> WrappedTasks:
        cost = {"kind": "costs", "measures": ["observation.0"], "indicator": True}
        wrappers = [{**cost, "thresholds": [threshold], "limits": [0.1]}]
        world = {"kind": "cart_pole_goals", "start": start}
        return as_arrays(build_tasks({"kind": "wrapped_tasks", "tasks": world, "wrappers": wrappers}))

    both = [constrained(0.0, 0.7), constrained(-1.0, 0.5)]
    assert jax.tree.structure(both[0]) == jax.tree.structure(both[1])
    together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *both)
    params = jax.vmap(lambda one: one.sample(jax.random.key(0)).params.env_params)(together)
    np.testing.assert_allclose(params.inner.start, [0.0, -1.0])
    limits = jax.vmap(both[0].environment.cost_limits)(params)
    np.testing.assert_allclose(limits, [[0.1], [0.1]])
    states = jax.vmap(both[0].environment.reset, (None, 0))(jax.random.key(3), params)[1]
    cost = jax.vmap(both[0].environment.step_env, (None, 0, None, 0))(
        jax.random.key(0), states, jnp.zeros(1), params
    )[5]["cost"]
    np.testing.assert_array_equal(cost, [[0.0], [1.0]])


# World's name, what is measured, a threshold that some steps of a random policy exceed and some do not.
CLASSIC = {
    "torque": ("Pendulum-v1", "action.0", 1.0),
    "speed of the pendulum": ("Pendulum-v1", "observation.2", 1.0),
    "speed of the car": ("MountainCarContinuous-v0", "observation.1", 0.002),
    "place of the cart": ("CartPole-v1", "observation.0", 0.02),
    "place of the arm": ("Reacher-misc", "observation.0", 0.5),
    "place of the point": ("PointRobot-misc", "observation.0", 0.05),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSIC)
def test_gymnax_s_worlds_have_costs_whose_thresholds_are_numbers(name):
    world, measure, threshold = CLASSIC[name]
    cost = {"kind": "costs", "measures": [measure], "thresholds": [threshold], "indicator": True}
    tasks = build_tasks(
        {"kind": "wrapped_tasks", "tasks": {"kind": "gymnax_tasks", "name": world}, "wrappers": [cost]}
    )
    environment, params = tasks.environment, tasks.sample(jax.random.key(0)).params.env_params

    def body(state: Any, key: jax.Array) -> tuple[Any, jax.Array]:
        if environment.action_size is None:
            action = jax.random.randint(key, (), 0, environment.num_actions, jnp.int32)
        else:
            low, high = environment.action_bounds(params)
            action = jax.random.uniform(key, low.shape, minval=low, maxval=high)
        _, state, *_, info = environment.step(key, state, action, params)
        return state, info["cost"]

    state = environment.reset(jax.random.key(0), params)[1]
    costs = jax.lax.scan(body, state, jax.random.split(jax.random.key(1), 60))[1]
    assert costs.shape == (60, 1)
    assert set(np.unique(costs)) == {0.0, 1.0}
