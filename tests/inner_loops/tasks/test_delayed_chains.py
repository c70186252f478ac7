import jax
import numpy as np
import pytest

from inner_loops.environments.delayed_chain import information_floor
from inner_loops.tasks.agent_task import AgentTaskDistribution, sample_lifetime
from inner_loops.tasks.delayed_chains import DelayedChains


def test_samples_every_length_and_nothing_else():
    tasks = DelayedChains(lengths=(3, 7, 9), max_length=9, noise=1.0, lifetime=12)
    drawn = jax.vmap(tasks.sample)(jax.random.split(jax.random.key(0), 200))
    assert set(np.asarray(drawn.params.env_params.length).tolist()) == {3, 7, 9}
    assert np.all(drawn.params.env_params.noise == 1.0)
    assert np.all(drawn.lifetime == 12)
    assert np.all(drawn.params.kind == 0)
    assert drawn.params.hyper == {}


def test_set_cycles_through_the_lengths():
    drawn = DelayedChains(lengths=(3, 7, 9)).sample_set(jax.random.key(0), 7)
    np.testing.assert_array_equal(drawn.params.env_params.length, [3, 7, 9, 3, 7, 9, 3])
    assert drawn.lifetime.shape == (7,)


def test_the_floor_is_that_of_each_task_of_a_set():
    tasks = DelayedChains(lengths=(5, 40))
    floors = [float(information_floor(length, 16, 20)) for length in (5, 40, 5)]
    assert tasks.floor_steps(16, 20, 3) == floors
    assert floors[1] == 960.0


def test_is_a_component_of_numbers():
    tasks = DelayedChains()
    assert isinstance(tasks, AgentTaskDistribution)
    assert len(jax.tree.leaves(tasks)) == 3  # noise and the two lifetimes: points that share a program
    assert jax.tree.structure(tasks) == jax.tree.structure(DelayedChains(noise=1.0, lifetime=7))
    assert jax.tree.structure(tasks) != jax.tree.structure(DelayedChains(lengths=(4,)))
    assert hash(tasks.environment) == hash(DelayedChains(noise=1.0).environment)


def test_vmaps_over_points():
    points = jax.tree.map(lambda *x: np.stack(x), DelayedChains(noise=0.0), DelayedChains(noise=1.0))
    drawn = jax.vmap(lambda tasks: tasks.sample(jax.random.key(0)))(points)
    np.testing.assert_array_equal(drawn.params.env_params.noise, [0.0, 1.0])


def test_lengths_must_fit():
    with pytest.raises(ValueError, match="max_length=50"):
        DelayedChains(lengths=(5, 60))
    with pytest.raises(ValueError, match=r"lengths=\(\)"):
        DelayedChains(lengths=())


def test_log_uniform_lifetime():
    keys = jax.random.split(jax.random.key(0), 4000)
    drawn = np.asarray(jax.vmap(lambda key: sample_lifetime(key, 250, 10))(keys))
    assert drawn.min() == 10
    assert drawn.max() == 250
    assert abs(np.median(drawn) - 50) < 6  # sqrt(10 * 251) = 50.1
    assert int(sample_lifetime(keys[0], 250, 0)) == 250
