"""Bandit algorithms: choices by hand and in distribution."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from inner_loops.agents.bandits import UCB1, Payouts, ThompsonSampling, Uniform
from inner_loops.agents.base import Percept, Sizes

SIZES = Sizes(1, 3)


def pulled(action: int, reward: float, mask: tuple[bool, ...] = (True, True, True)) -> Percept:
    return Percept(
        obs=jnp.ones(1),
        action=jax.nn.one_hot(action, 3),
        reward=jnp.asarray(reward),
        done=jnp.ones(()),
        obs_mask=jnp.ones(1, bool),
        action_mask=jnp.asarray(mask),
    )


def seen(pulls: list[float], paid: list[float], seed: int = 0) -> Payouts:
    return Payouts(jax.random.key_data(jax.random.key(seed)), jnp.asarray(pulls), jnp.asarray(paid))


def test_ucb1_by_hand():
    agent = UCB1()
    memory = agent.init_memory(jax.random.key(0), (), SIZES)
    memory, logits = agent.step((), memory, pulled(-1, 0.0))
    np.testing.assert_array_equal(logits, [0.0, 0.0, 0.0])  # nobody pulled yet: all alike
    memory, logits = agent.step((), memory, pulled(1, 1.0))
    np.testing.assert_array_equal(logits, [0.0, -np.inf, 0.0])  # unpulled arms come first
    # t = 10: bounds 2/4 + sqrt(2 ln 10 / 4) = 1.573, 1/1 + 2.146 = 3.146 and 3/5 + 0.960 = 1.560
    memory, logits = agent.step((), seen([4, 0, 5], [2, 0, 3]), pulled(1, 1.0))
    np.testing.assert_array_equal(logits, [-np.inf, 0.0, -np.inf])
    np.testing.assert_array_equal(memory.pulls, [4, 1, 5])
    # a fourth pull of the last arm in vain: 0.5 + sqrt(2 ln 13 / 4) = 1.632 against 1.5 and 0.5 + 0.925
    _, logits = agent.step((), seen([4, 0, 5], [2, 0, 3], 1), pulled(-1, 0.0, (True, False, True)))
    np.testing.assert_array_equal(logits, [0.0, -np.inf, -np.inf])


def test_thompson_draws_from_the_posterior_and_anew_at_every_step():
    """Of two arms with Beta(3, 2) and Beta(1, 1) the first is drawn higher with probability 3 / 5."""

    def one_step(seed: jax.Array) -> tuple[Payouts, jax.Array]:
        key = jax.random.key_data(jax.random.key(seed))
        memory = Payouts(key, jnp.asarray([2.0, 0.0, 9.0]), jnp.asarray([1.0, 0.0, 9.0]))
        after, logits = ThompsonSampling().step((), memory, pulled(0, 5.0, (True, True, False)))
        return after._replace(key=jnp.any(after.key != key)), logits

    after, logits = jax.jit(jax.vmap(one_step))(jnp.arange(4000))
    chosen = np.asarray(logits) == 0.0
    assert not chosen[:, 2].any() and (chosen.sum(axis=1) == 1).all()
    # E[X] of Beta(3, 2) is P(U < X) for a uniform U; standard error 0.0077
    assert abs(chosen[:, 0].mean() - 0.6) < 0.031
    assert after.key.all()
    np.testing.assert_array_equal(after.pulls[0], [3.0, 0.0, 9.0])
    np.testing.assert_array_equal(after.paid[0], [2.0, 0.0, 9.0])  # a reward of 5 is clipped to 1


def test_uniform_is_indifferent():
    assert not Uniform().step((), (), pulled(1, 1.0))[1].any()
