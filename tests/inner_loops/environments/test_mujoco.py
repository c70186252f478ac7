"""Simulated bodies: stable under random actions, paid from 0 to 1, costs by threshold, one lane as many."""

from __future__ import annotations

import functools
import importlib.util
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inner_loops.d4pg import D4PG
from inner_loops.environments.mujoco import simulation
from inner_loops.environments.mujoco.trunk import free_trunk, planar_trunk
from inner_loops.tasks.mujoco_tasks import MujocoCartPoleTasks, MujocoWalkerTasks
from metalab.config.build import build_tasks
from metalab.contracts import check_inner
from metalab.errors import ConfigError

installed = pytest.mark.skipif(
    importlib.util.find_spec("mujoco") is None, reason="the extra `mujoco` is not installed"
)
STEPS, LANES = 200, 3
# Tasks, what is measured, thresholds that some steps of a random policy exceed and some do not.
BODIES = {
    "mujoco_cart_poles": ("observation.0", 0.1),
    "mujoco_walkers": ("observation.6:12", 13.0),
    "mujoco_quadrupeds": ("observation.0:12", 0.5),
    "mujoco_humanoids": ("observation.0:21", 1.5),
}


def constrained(kind: str, **settings: Any) -> Any:
    measure, threshold = BODIES[kind]
    cost = {"kind": "costs", "measures": [measure], "indicator": True}
    wrappers = [{**cost, "thresholds": [threshold], "limits": [0.1]}]
    return build_tasks({"kind": "wrapped_tasks", "tasks": {"kind": kind, **settings}, "wrappers": wrappers})


@functools.cache
def lives(kind: str) -> Any:
    """First observation, then observation, reward, ends and cost of every step; of all lanes, and of one."""
    tasks = constrained(kind, max_steps=STEPS)
    environment, params = tasks.environment, tasks.sample(jax.random.key(0)).params.env_params

    def live(key: jax.Array) -> Any:
        def body(state: Any, noise: jax.Array) -> Any:
            action = jax.random.uniform(noise, (environment.action_size,), minval=-1.0, maxval=1.0)
            _, state, reward, terminated, truncated, info = environment.step(noise, state, action, params)
            return state, (info["final_observation"], reward, terminated, truncated, info["cost"])

        first, state = environment.reset(key, params)
        return first, jax.lax.scan(body, state, jax.random.split(key, STEPS))[1]

    keys = jax.random.split(jax.random.key(1), LANES)
    return jax.jit(jax.vmap(live))(keys), jax.jit(live)(keys[1])


@installed
@pytest.mark.parametrize("kind", BODIES)
def test_a_body_is_stable_paid_up_to_1_and_cut_off_at_its_time_limit(kind):
    first, (obs, reward, terminated, truncated, cost) = lives(kind)[0]
    assert np.all(np.isfinite(obs)) and np.ptp(obs[:, -1], axis=0).max() > 0.0
    assert first.shape[1:] == obs.shape[2:] == constrained(kind).environment.observation_shape
    assert np.all((reward >= 0.0) & (reward <= 1.0)) and np.ptp(reward) > 0.0
    assert not np.any(terminated)
    assert np.all(np.flatnonzero(truncated) == STEPS - 1 + STEPS * np.arange(LANES))
    assert cost.shape == (LANES, STEPS, 1) and set(np.unique(cost)) == {0.0, 1.0}


@installed
@pytest.mark.parametrize("kind", BODIES)
def test_a_lane_alone_is_the_same(kind):
    """To rounding, which contacts and a swinging pole enlarge: the first steps are compared."""
    (first, (obs, reward, *_)), (alone, (its_obs, its_reward, *_)) = lives(kind)
    np.testing.assert_allclose(first[1], alone, rtol=1e-6)
    np.testing.assert_allclose(obs[1, :5], its_obs[:5], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(reward[1, :5], its_reward[:5], rtol=1e-3, atol=1e-3)


@installed
@pytest.mark.parametrize("kind", BODIES)
def test_a_learner_of_continuous_actions_keeps_the_contract(kind):
    tasks = constrained(kind)
    check_inner(D4PG(environment=tasks.environment, num_envs=2, rollout_length=2), tasks)


@installed
def test_a_free_cart_moves_by_newton_s_law():
    """A push of 10 N on 1.1 kg, the pole hanging straight: after one step of 0.01 s the cart moves forward.

    The pole, a capsule of length l = 1 between its caps, mass m and inertia I about its end, gives way: with
    the cart's mass M and the pole's centre at h = 0.5, ``(M + m) a + m h cos(theta) w = F`` and
    ``m h cos(theta) a + I w = 0`` at theta = pi.
    """
    mass, pole, half, radius = 1.0, 0.1, 0.5, 0.045
    cylinder, ball = np.pi * radius**2 * 1.0, 4.0 / 3.0 * np.pi * radius**3
    rod, caps = pole * cylinder / (cylinder + ball), pole * ball / (cylinder + ball)
    about_middle = rod * (radius**2 / 4 + 1.0 / 12)
    about_middle += caps * (2 * radius**2 / 5 + half**2 + 3 * 2 * half * radius / 8)
    inertia = about_middle + pole * half**2
    lhs = np.asarray([[mass + pole, -pole * half], [-pole * half, inertia]])
    expected = 0.01 * np.linalg.solve(lhs, [10.0, 0.0])
    hanging = jnp.asarray([0.0, jnp.pi, 0.0, 0.0], jnp.float32)
    after = jax.jit(lambda: simulation.simulated("cart_pole", hanging, jnp.ones(1), 1))()
    np.testing.assert_allclose(after[2:], expected, rtol=2e-3)


@pytest.mark.parametrize(
    ("height", "pitch", "speed", "pay"),
    [(0.95, 0.0, 1.0, 0.6), (2.0, 0.0, 3.0, 1.0), (0.725, np.pi / 2, -1.0, 0.05), (0.4, 0.0, 2.0, 0.0)],
)
@installed
def test_a_walk_is_paid_by_height_uprightness_and_speed(height, pitch, speed, pay):
    """From 0.95 m on and at half the speed (1 + 4 / 2) / 5; half way up from 0.5 m, lying: 1 / 4 / 5."""
    tasks = MujocoWalkerTasks(speed=2.0)
    params = tasks.sample(jax.random.key(0)).params.env_params
    physics = jnp.zeros(18).at[jnp.asarray([1, 2, 9])].set(jnp.asarray([height, pitch, speed]))
    assert float(tasks.environment._pay(physics, params)) == pytest.approx(pay, abs=1e-6)


def test_trunks_are_read_from_the_leading_positions_and_speeds():
    """A turn of 60 degrees about x leaves cos 60 = 1/2 of the vertical; one about z leaves it all."""
    speeds = jnp.arange(1.0, 8.0)
    for axis, cosine in ((0, 0.5), (1, 0.5), (2, 1.0)):
        turn = np.zeros(4)
        turn[[0, 1 + axis]] = np.cos(np.pi / 6), np.sin(np.pi / 6)
        trunk = free_trunk(jnp.asarray([9.0, 9.0, 0.7, *turn, 5.0]), speeds)
        np.testing.assert_allclose(
            [trunk.height, trunk.upright, trunk.forward], [0.7, cosine, 1.0], rtol=1e-6
        )
        np.testing.assert_allclose(trunk.seen, [0.7, *turn, 1, 2, 3, 4, 5, 6], rtol=1e-6)
    planar = planar_trunk(jnp.asarray([9.0, 0.8, np.pi / 3, 5.0]), speeds)
    np.testing.assert_allclose([planar.height, planar.upright, planar.forward], [0.8, 0.5, 1.0], rtol=1e-6)
    np.testing.assert_allclose(planar.seen, [0.8, 0.5, np.sqrt(0.75), 1, 2, 3], rtol=1e-6)


def test_without_the_library_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "mujoco", None)
    for cached in (simulation.loaded, simulation._library):
        cached.cache_clear()
    with pytest.raises(ConfigError, match=r"environment: needs MuJoCo MJX: pip install 'metalab\[mujoco\]'"):
        _ = MujocoCartPoleTasks().environment
