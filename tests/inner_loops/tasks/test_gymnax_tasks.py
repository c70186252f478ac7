"""Parameters of gymnax worlds from the sweep file, and what a memory chain pays."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inner_loops.tasks.gymnax_tasks import GymnaxTasks
from metalab.components import as_arrays
from metalab.config.build import build_tasks, to_config
from metalab.errors import ConfigError


def chain(memory_length: int) -> GymnaxTasks:
    return GymnaxTasks(name="MemoryChain-bsuite", env_params={"memory_length": memory_length})


def played(tasks: GymnaxTasks, key: jax.Array, steps: int) -> tuple[jax.Array, ...]:
    """[steps] rewards for one action that is always taken, whether it is the context, and ends."""
    env, params = tasks.environment, tasks.sample(key).params.env_params
    action = jax.random.randint(key, (), 0, 2, jnp.int32)

    def body(state, key):
        fits = state.context[0] == action
        _, state, reward, terminated, truncated, _ = env.step(key, state, action, params)
        return state, (reward, fits, terminated, truncated)

    return jax.lax.scan(body, env.reset(key, params)[1], jax.random.split(key, steps))[1]


@pytest.mark.parametrize("length", [3, 8])
def test_a_memory_chain_pays_its_last_step_for_the_context_of_its_first(length):
    """An episode is memory_length + 1 steps; perfect play has return 1, its opposite -1, random play 0."""
    keys = jax.random.split(jax.random.key(0), 400)
    run = jax.jit(jax.vmap(lambda key: played(chain(length), key, 2 * (length + 1))))
    reward, fits, terminated, truncated = (np.asarray(leaf) for leaf in run(keys))
    last = np.arange(1, 2 * (length + 1) + 1) % (length + 1) == 0
    np.testing.assert_array_equal(terminated, np.broadcast_to(last, terminated.shape))
    assert not truncated.any()
    assert np.all(reward[:, ~last] == 0.0)
    np.testing.assert_array_equal(reward[:, last], np.where(fits, 1.0, -1.0)[:, last])
    assert abs(reward[:, last].mean()) < 4.0 / np.sqrt(800)  # four standard errors of a fair coin


def test_worlds_that_differ_in_a_parameter_share_one_program():
    tasks = [as_arrays(chain(length)) for length in (3, 30)]
    assert jax.tree.structure(tasks[0]) == jax.tree.structure(tasks[1])
    together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *tasks)
    params = jax.vmap(lambda one: one.sample(jax.random.key(0)).params.env_params)(together)
    np.testing.assert_array_equal(params.memory_length, [3, 30])
    default = GymnaxTasks(name="MemoryChain-bsuite").sample(jax.random.key(0)).params.env_params
    assert params.memory_length.dtype == default.memory_length.dtype == jnp.int32
    np.testing.assert_array_equal(params.max_steps_in_episode, [default.max_steps_in_episode] * 2)
    # Lanes are stacked on the host, and whole numbers stay whole there.
    lanes = as_arrays(jax.tree.map(np.asarray, together))
    assert lanes.env_params["memory_length"].dtype == lanes.lifetime.dtype == jnp.int32


def test_parameters_come_from_the_file_and_go_back():
    config = {"kind": "gymnax_tasks", "name": "Pendulum-v1", "env_params": {"max_torque": 3, "m": 0.5}}
    tasks = build_tasks(config)
    params = tasks.sample(jax.random.key(0)).params.env_params
    assert float(params.max_torque) == 3.0 and float(params.m) == 0.5
    np.testing.assert_allclose(tasks.environment.action_bounds(params)[1], [3.0])
    assert build_tasks(to_config(tasks, "tasks")) == tasks


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"memory": 3}, r"'MemoryChain-bsuite' has no parameter 'memory'; known: .*memory_length"),
        ({"memory_length": 2.5}, r"'memory_length' of 'MemoryChain-bsuite' is a whole number, got 2.5"),
        ({"memory_length": [3, 4]}, r"'memory_length' .* has shape \(\), got \(2,\)"),
    ],
)
def test_refusals_name_the_parameter(given, said):
    with pytest.raises(ValueError, match=said):
        GymnaxTasks(name="MemoryChain-bsuite", env_params=given).sample(jax.random.key(0))


def test_a_parameter_is_no_text():
    with pytest.raises(ConfigError, match=r"env_params.memory_length: expected a number .*got 'long'"):
        build_tasks({"kind": "gymnax_tasks", "env_params": {"memory_length": "long"}})
