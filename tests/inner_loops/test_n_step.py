"""Transitions of several steps: hand-worked sums, ends inside the window, and filing across rollouts."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inner_loops.experience import Experience, file_steps, no_experience
from inner_loops.n_step import Step, n_step_transitions

GAMMA = 0.5


def record(rewards: list[float], terminated: tuple[int, ...] = (), truncated: tuple[int, ...] = ()) -> Step:
    """Steps whose observation is 10 times their number, and which reach 10 times the number plus 1."""
    count = len(rewards)
    index = jnp.arange(count)
    flag = lambda at: jnp.zeros(count, bool).at[jnp.asarray(at, int)].set(True)  # noqa: E731
    return Step(
        obs=10.0 * index,
        action=index,
        reward=jnp.asarray(rewards, jnp.float32),
        terminated=flag(terminated),
        truncated=flag(truncated),
        next_obs=10.0 * index + 1.0,
    )


def test_three_steps_of_an_episode_that_goes_on():
    """From t: r_t + r_{t+1} / 2 + r_{t+2} / 4, then the value of what step t + 2 reached, times 1/8."""
    made = n_step_transitions(record([1.0, 2.0, 4.0, 8.0]), GAMMA, 3)
    np.testing.assert_allclose(made.reward, [1 + 1 + 1, 2 + 2 + 2])
    np.testing.assert_allclose(made.discount, [0.125, 0.125])
    np.testing.assert_allclose(made.next_obs, [21.0, 31.0])
    np.testing.assert_allclose(made.obs, [0.0, 10.0])
    np.testing.assert_array_equal(made.action, [0, 1])


def test_an_end_inside_the_window_stops_the_sum_and_the_value():
    """Step 1 ends the episode: from 0 two rewards, from 1 one, neither with a value; from 2 all three."""
    made = n_step_transitions(record([1.0, 2.0, 4.0, 8.0, 16.0], terminated=(1,)), GAMMA, 3)
    np.testing.assert_allclose(made.reward, [1 + 1, 2, 4 + 4 + 4])
    np.testing.assert_allclose(made.discount, [0.0, 0.0, 0.125])
    np.testing.assert_allclose(made.next_obs[2], 41.0)


def test_a_time_limit_inside_the_window_stops_the_sum_but_not_the_value():
    """Step 1 is cut off: from 0 the value of what step 1 reached times 1/4, from 1 times 1/2."""
    made = n_step_transitions(record([1.0, 2.0, 4.0, 8.0, 16.0], truncated=(1,)), GAMMA, 3)
    np.testing.assert_allclose(made.reward, [1 + 1, 2, 4 + 4 + 4])
    np.testing.assert_allclose(made.discount, [0.25, 0.5, 0.125])
    np.testing.assert_allclose(made.next_obs, [11.0, 11.0, 41.0])


def test_what_follows_an_end_does_not_matter():
    """The second end, inside the window of step 0 but after the first, changes nothing of it."""
    one = n_step_transitions(record([1.0, 2.0, 4.0], truncated=(0,)), GAMMA, 3)
    two = n_step_transitions(record([1.0, 2.0, 4.0], truncated=(0,), terminated=(1,)), GAMMA, 3)
    chex.assert_trees_all_equal(one, two)
    np.testing.assert_allclose([one.reward[0], one.discount[0], one.next_obs[0]], [1.0, 0.5, 1.0])


def test_an_end_at_the_window_s_last_step():
    ended = n_step_transitions(record([1.0, 2.0], terminated=(1,)), GAMMA, 2)
    cut = n_step_transitions(record([1.0, 2.0], truncated=(1,)), GAMMA, 2)
    np.testing.assert_allclose([ended.reward[0], ended.discount[0]], [2.0, 0.0])
    np.testing.assert_allclose([cut.reward[0], cut.discount[0], cut.next_obs[0]], [2.0, 0.25, 11.0])


def test_one_step_is_the_step_itself():
    steps = record([1.0, 2.0, 4.0], terminated=(1,), truncated=(2,))
    made = n_step_transitions(steps, GAMMA, 1)
    chex.assert_trees_all_equal(
        (made.obs, made.action, made.reward, made.next_obs),
        (steps.obs, steps.action, steps.reward, steps.next_obs),
    )
    np.testing.assert_allclose(made.discount, [0.5, 0.0, 0.5])


def newborn(n: int, num_envs: int, capacity: int, stored: str = "float32") -> Experience:
    return no_experience(jnp.zeros(()), jnp.zeros((), jnp.int32), num_envs, capacity, n, stored)


@pytest.mark.parametrize("rollout", [pytest.param(1, marks=pytest.mark.slow), 2, 4])
def test_rollouts_of_any_length_file_the_same_transitions(rollout):
    """Twelve steps of two environments with an end and a cut: the ring of a single rollout of twelve."""
    one, two = record(list(range(12)), terminated=(4,)), record(list(range(12, 24)), truncated=(6,))
    whole = jax.tree.map(lambda *leaves: jnp.stack(leaves, axis=1), one, two)
    at_once = file_steps(newborn(3, 2, 24), whole, GAMMA)
    experience = newborn(3, 2, 24)
    for start in range(0, 12, rollout):
        part = jax.tree.map(lambda leaf, at=start: leaf[at : at + rollout], whole)
        experience = jax.jit(file_steps)(experience, part, GAMMA)
    chex.assert_trees_all_close(experience, at_once)
    # two steps are open in each environment, and the first two rows of each were nobody's
    assert int(experience.replay.size) == 2 * 12 - 2 * 2
    np.testing.assert_array_equal(experience.recent.action, [[10, 10], [11, 11]])


def test_transitions_of_parallel_environments_are_their_own():
    """Row 2 t + b of the ring is environment b's transition from step t - 1 (n = 2: one step was open)."""
    one, two = record([1.0, 2.0, 4.0]), record([10.0, 20.0, 40.0])
    both = jax.tree.map(lambda *leaves: jnp.stack(leaves, axis=1), one, two)
    data = file_steps(newborn(2, 2, 6), both, GAMMA).replay.data
    np.testing.assert_allclose(data.reward[2:], [1 + 1, 10 + 10, 2 + 2, 20 + 20])
    np.testing.assert_allclose(data.next_obs[2:], [11.0, 11.0, 21.0, 21.0])


def test_observations_are_kept_in_the_dtype_asked_for():
    experience = file_steps(newborn(2, 1, 4, stored="uint8"), record_of_bits(), GAMMA)
    assert experience.replay.data.obs.dtype == jnp.uint8
    np.testing.assert_array_equal(experience.replay.data.obs[1:], [0, 200, 255])
    indices = no_experience(jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32), 1, 4, 1, "uint8")
    assert indices.replay.data.obs.dtype == jnp.int32  # a state index may be larger than 255


def record_of_bits() -> Step:
    steps = record([0.0] * 4)._replace(obs=jnp.asarray([0.0, 200.0, 255.0, 7.0]))
    return jax.tree.map(lambda leaf: leaf[:, None], steps)


def test_jit_changes_nothing_and_vmapped_equals_single():
    steps = record([1.0, 2.0, 4.0, 8.0], terminated=(2,))
    plain = n_step_transitions(steps, GAMMA, 2)
    chex.assert_trees_all_close(jax.jit(n_step_transitions, static_argnums=2)(steps, GAMMA, 2), plain)
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), steps)
    both = jax.vmap(lambda one: n_step_transitions(one, GAMMA, 2))(stacked)
    chex.assert_trees_all_close(jax.tree.map(lambda leaf: leaf[1], both), plain)
