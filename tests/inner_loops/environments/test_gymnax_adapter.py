import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inner_loops.environments.gymnax_adapter import GymnaxEnvironment
from inner_loops.tasks.agent_task import AgentTaskDistribution
from inner_loops.tasks.gymnax_tasks import GymnaxTasks

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
    with pytest.raises(ValueError, match="'Pendulum-v1' has continuous actions"):
        GymnaxEnvironment(name="Pendulum-v1").num_actions  # noqa: B018


def test_naming_one_does_not_import_gymnax():
    code = (
        "import sys; from inner_loops.tasks.gymnax_tasks import GymnaxTasks; "
        "GymnaxTasks(name='Catch-bsuite').environment; sys.exit('gymnax' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
