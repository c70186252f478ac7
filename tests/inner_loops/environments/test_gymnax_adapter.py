import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inner_loops.environments.gymnax_adapter import GymnaxEnvironment
from inner_loops.tasks.agent_task import AgentTaskDistribution
from inner_loops.tasks.gymnax_tasks import GymnaxTasks

CONTINUOUS = {  # name to the ends of the first entry, as gymnax documents them
    "Pendulum-v1": (1, -2.0, 2.0),
    "MountainCarContinuous-v0": (1, -1.0, 1.0),
    "Reacher-misc": (2, -1.0, 1.0),
    "PointRobot-misc": (2, -0.1, 0.1),
}
DISCRETE = (
    "CartPole-v1",
    "Acrobot-v1",
    "MountainCar-v0",
    "Asterix-MinAtar",
    "Breakout-MinAtar",
    "Freeway-MinAtar",
    "SpaceInvaders-MinAtar",
    "Catch-bsuite",
    "DeepSea-bsuite",
    "UmbrellaChain-bsuite",
    "FourRooms-misc",
    "FrozenLake-misc",
)


@pytest.mark.parametrize("name", DISCRETE)
def test_has_the_contracts_shapes(name):
    tasks = GymnaxTasks(name=name, lifetime=7)
    assert isinstance(tasks, AgentTaskDistribution)
    env = tasks.environment

    def life(key):
        task = tasks.sample(key)
        obs, state = env.reset(key, task.params.env_params)
        return obs, state, env.step(key, state, jnp.zeros((), jnp.int32), task.params.env_params)

    # under a trace from the first use on, as programs use it
    obs, state, (next_obs, next_state, reward, terminated, truncated, info) = jax.eval_shape(
        life, jax.random.key(0)
    )
    for seen in (obs, next_obs, info["final_observation"]):
        assert (seen.shape, seen.dtype) == (env.observation_shape, jnp.float32)
    for leaf, next_leaf in zip(jax.tree.leaves(state), jax.tree.leaves(next_state), strict=True):
        assert (leaf.shape, leaf.dtype) == (next_leaf.shape, next_leaf.dtype)
        assert not leaf.weak_type
        assert not next_leaf.weak_type
    assert (reward.dtype, terminated.dtype, truncated.dtype) == (jnp.float32, bool, bool)
    assert env.num_actions >= 2
    assert env.num_states is None


@pytest.mark.parametrize("name", sorted(CONTINUOUS))
def test_continuous_actions_have_the_contracts_shapes_and_bounds(name):
    env = GymnaxEnvironment(name=name)
    size, low, high = CONTINUOUS[name]
    params = env.default_params()
    bounds = jax.jit(env.action_bounds)(params)
    np.testing.assert_allclose(bounds, [[low] * size, [high] * size])
    assert env.action_size == size
    assert all(end.dtype == jnp.float32 for end in bounds)
    obs, state = jax.eval_shape(env.reset, jax.random.key(0), params)
    next_obs, next_state, reward, *_ = jax.eval_shape(env.step, jax.random.key(0), state, bounds[0], params)
    assert (obs.shape, next_obs.shape, reward.shape) == (env.observation_shape, env.observation_shape, ())
    for leaf, next_leaf in zip(jax.tree.leaves(state), jax.tree.leaves(next_state), strict=True):
        assert (leaf.shape, leaf.dtype, leaf.weak_type) == (next_leaf.shape, next_leaf.dtype, False)


def test_the_bounds_of_an_action_follow_the_parameters():
    env = GymnaxEnvironment(name="Pendulum-v1")
    params = env.default_params().replace(max_torque=jnp.asarray(3.0))
    np.testing.assert_allclose(jax.jit(env.action_bounds)(params), [[-3.0], [3.0]])


def test_pendulum_is_cut_off_and_never_ends():
    """200 steps of no torque: the last one is truncated, its own observation beside the next episode's."""
    env = GymnaxEnvironment(name="Pendulum-v1")
    params = env.default_params()

    def body(state, key):
        obs, state, _, terminated, truncated, info = env.step(key, state, jnp.zeros(1), params)
        return state, (obs, terminated, truncated, info["final_observation"])

    state = env.reset(jax.random.key(0), params)[1]
    keys = jax.random.split(jax.random.key(1), 200)
    obs, terminated, truncated, final = jax.jit(lambda s: jax.lax.scan(body, s, keys)[1])(state)
    assert not np.any(terminated)
    np.testing.assert_array_equal(np.flatnonzero(truncated), [199])
    np.testing.assert_array_equal(obs[:-1], final[:-1])
    assert np.any(obs[-1] != final[-1])


@pytest.mark.parametrize("name", ["CartPole-v1", "Breakout-MinAtar", "Catch-bsuite", "Pendulum-v1"])
def test_steps_and_resets_are_gymnaxs_own_key_for_key(name):
    """Thirty steps, ends of episodes among them but for Pendulum's: all but its one-hot form is equal."""
    import gymnax

    env, (plain, params) = GymnaxEnvironment(name=name), gymnax.make(name)
    size = env.action_size
    actions = jnp.zeros((30,), jnp.int32) if size is None else jnp.ones((30, size))

    def walked(reset, step, params):
        def body(state, xs):
            obs, state, *rest = step(xs[0], state, xs[1], params)
            return state, (obs, *rest[:3], rest[3]["final_observation"])

        obs, state = reset(jax.random.key(0), params)
        keys = jax.random.split(jax.random.key(1), 30)
        return obs, jax.lax.scan(body, state, (keys, actions))[1]

    ours = jax.jit(lambda: walked(env.reset, env.step, env.default_params()))()
    theirs = jax.jit(lambda: walked(plain.reset, plain.step, params))()
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    assert np.any(ours[1][2] | ours[1][3]) or name == "Pendulum-v1"


def test_catch_is_gymnaxs_catch_with_auto_reset():
    tasks = GymnaxTasks(name="Catch-bsuite")
    env = tasks.environment
    params = tasks.sample(jax.random.key(0)).params.env_params

    @jax.jit
    def run(key):
        def body(carry, key):
            obs, state, reward, terminated, truncated, info = env.step(
                key, carry, jnp.asarray(1, jnp.int32), params
            )
            return state, (obs, reward, terminated | truncated, info)

        return jax.lax.scan(body, env.reset(key, params)[1], jax.random.split(key, 18))[1]

    obs, reward, ended, info = jax.vmap(run)(jax.random.split(jax.random.key(1), 4))
    # the ball falls nine rows: an episode is nine steps
    np.testing.assert_array_equal(ended, np.tile(np.arange(1, 19) % 9 == 0, (4, 1)))
    assert np.all(np.abs(np.asarray(reward)[np.asarray(ended)]) == 1.0)
    assert np.all(np.asarray(reward)[~np.asarray(ended)] == 0.0)
    np.testing.assert_array_equal(info["score"], reward)
    final = np.asarray(info["final_observation"])[np.asarray(ended)]
    first = np.asarray(obs)[np.asarray(ended)]
    assert np.all(final[:, 0].sum(axis=-1) == 0.0)  # no ball in the top row before the reset
    assert np.all(first[:, 0].sum(axis=-1) == 1.0)  # one after it
    kept = ~np.asarray(ended)
    np.testing.assert_array_equal(np.asarray(obs)[kept], np.asarray(info["final_observation"])[kept])


def test_refusals_name_the_remedy():
    with pytest.raises(ValueError, match="'CartPole'; did you mean 'CartPole-v1'"):
        GymnaxEnvironment(name="CartPole").num_actions  # noqa: B018
    with pytest.raises(ValueError, match=r"'Pendulum-v1' has continuous actions.*choose a learner"):
        GymnaxEnvironment(name="Pendulum-v1").num_actions  # noqa: B018
    catch = GymnaxEnvironment(name="Catch-bsuite")
    with pytest.raises(TypeError, match="3 discrete actions, which have no bounds"):
        catch.action_bounds(catch.default_params())


def test_naming_one_does_not_import_gymnax():
    code = (
        "import sys; from inner_loops.tasks.gymnax_tasks import GymnaxTasks; "
        "GymnaxTasks(name='Catch-bsuite').environment; sys.exit('gymnax' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
