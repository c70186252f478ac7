"""Classic control as agents that learn in context meet it: paid at the fall alone, in other units, orders."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inner_loops.environments.grid_world import GridWorld
from inner_loops.environments.wrappers.observation_scale import ObservationScale
from inner_loops.environments.wrappers.permutations import ActionPermutation, ObservationPermutation
from inner_loops.environments.wrappers.terminal_reward import TerminalReward
from inner_loops.tasks.gymnax_tasks import GymnaxTasks
from inner_loops.tasks.wrapped_tasks import WrappedTasks

RANGES = (2.4, 2.0, 0.21, 2.0)
CARTPOLE = GymnaxTasks(name="CartPole-v1")


def played(tasks, actions: jax.Array):
    """First observation, and what every step gave, from the same beginning."""
    environment, world = tasks.environment, tasks.sample(jax.random.key(0)).params.env_params

    def body(state, xs):
        obs, state, reward, terminated, truncated, info = environment.step(xs[0], state, xs[1], world)
        return state, (obs, reward, terminated, truncated, info)

    obs, state = environment.reset(jax.random.key(1), world)
    keys = jax.random.split(jax.random.key(2), len(actions))
    return obs, jax.jit(lambda: jax.lax.scan(body, state, (keys, actions))[1])()


def test_only_a_fall_is_paid_and_counted():
    """Always to the right: the pole falls to the left again and again."""
    tasks = WrappedTasks(tasks=CARTPOLE, wrappers=(TerminalReward(), ObservationScale(ranges=RANGES)))
    actions = jnp.ones(40, jnp.int32)
    first, (obs, reward, terminated, truncated, info) = played(tasks, actions)
    # an environment in any wrapper begins with other keys than gymnax's own; this one changes nothing
    bare = WrappedTasks(tasks=CARTPOLE, wrappers=(ObservationPermutation(order=(0, 1, 2, 3)),))
    bare_first, (bare_obs, bare_reward, *bare_ends, _) = played(bare, actions)
    assert 3 <= terminated.sum() <= 5 and not truncated.any()
    np.testing.assert_array_equal(reward, -1.0 * terminated)
    np.testing.assert_array_equal(info["score"], reward)
    np.testing.assert_array_equal(info["tallies"]["failures"], terminated)
    assert tasks.environment.tallies == ("failures",)
    # the same play, in other units and otherwise paid
    np.testing.assert_allclose(first, bare_first / jnp.asarray(RANGES), rtol=1e-6)
    np.testing.assert_allclose(obs, bare_obs / jnp.asarray(RANGES), rtol=1e-6)
    np.testing.assert_array_equal(bare_reward, np.ones(40))
    np.testing.assert_array_equal((terminated, truncated), bare_ends)


@pytest.mark.slow
def test_an_order_can_be_given():
    """Wrappers are around the scaled world: its entries and actions in the order that is asked for."""
    scaled = (TerminalReward(reward=1.0, tally="goals"), ObservationScale(ranges=(2.0,)))
    order = ObservationPermutation(order=(2, 3, 0, 1))
    tasks = WrappedTasks(tasks=CARTPOLE, wrappers=(*scaled, order, ActionPermutation(order=(1, 0))))
    plain = WrappedTasks(tasks=CARTPOLE, wrappers=scaled)
    actions = jax.random.randint(jax.random.key(3), (30,), 0, 2, jnp.int32)
    _, (obs, reward, *_, info) = played(tasks, 1 - actions)
    _, (plain_obs, plain_reward, *_) = played(plain, actions)
    np.testing.assert_array_equal(obs, plain_obs[:, jnp.asarray([2, 3, 0, 1])])
    np.testing.assert_array_equal(reward, plain_reward)
    np.testing.assert_array_equal(info["tallies"]["goals"], reward)
    drawn = WrappedTasks(tasks=CARTPOLE, wrappers=(ObservationPermutation(),))
    orders = jax.vmap(drawn.sample)(jax.random.split(jax.random.key(0), 20)).params.env_params.own
    assert len(np.unique(np.asarray(orders), axis=0)) > 5
    # a drawn order and a given one are one program
    assert drawn.environment == WrappedTasks(tasks=CARTPOLE, wrappers=(order,)).environment


@pytest.mark.parametrize(
    ("draw", "said"),
    [
        (lambda: ObservationPermutation(order=(0, 0, 1, 2)), "must hold every whole number from 0 to 3 once"),
        (lambda: wrapped(ObservationPermutation(order=(1, 0))), "order has 2 entries, and there are 4"),
        (
            lambda: wrapped(ObservationScale(ranges=(1.0, 2.0))),
            "2 ranges given for an observation of 4 entries",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(draw, said):
    with pytest.raises(ValueError, match=said):
        draw()


def wrapped(wrapper):
    return WrappedTasks(tasks=CARTPOLE, wrappers=(wrapper,)).sample(jax.random.key(0))


def test_indices_have_no_units():
    scale = ObservationScale(ranges=(1.0,), environment=GridWorld())
    with pytest.raises(ValueError, match="are indices, not vectors"):
        scale.draw(jax.random.key(0))
