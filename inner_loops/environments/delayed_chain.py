"""Delayed chain MDPs: the first action alone decides a reward that comes ``length`` steps later.

Oh et al. 2020 (arXiv 2007.08794), appendix A, after the umbrella chain of bsuite (Osband et al. 2020).
Their five rows are one environment here: ``short`` and ``long`` differ in the lengths that tasks draw,
``*_noisy`` in ``noise``, ``distractor`` in ``observation``.

An episode is exactly ``length`` steps, t = 0 .. length - 1. The first observation reveals which of the two
actions is good in this episode; it puts the agent on chain 1, the other one on chain 0; later actions do
nothing. The last step pays +1 on chain 1 and -1 on chain 0, and terminates. The first and the last step
are free of noise: the middle ones (0 < t < length - 1) pay ``+-noise`` at random, whatever the agent does.
(An episode of one step is decided and paid at once.)

The state index does not alias the chains: ``good_action`` at t = 0, ``2 + 2 (t - 1) + chain`` afterwards.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from inner_loops.environments.base import Environment, Info
from metalab.components import component, static

__all__ = ["DelayedChain", "DelayedChainParams", "DelayedChainState", "information_floor"]

_DISTRACTORS = 20  # noise bits of the distractor observation, bits 1..20 of a word of noise


class DelayedChainParams(NamedTuple):
    """One chain.

    Attributes:
        length: [] int32, steps of an episode, at least 1 and at most the environment's ``max_length``.
        noise: [] float32, size of the middle states' random reward; 0: none.
    """

    length: Array
    noise: Array


class DelayedChainState(NamedTuple):
    """Where an episode is.

    Attributes:
        time: [] int32, steps taken.
        good_action: [] int32, 0 or 1, this episode's good first action.
        chain: [] int32, 1 if the first action was good; 0 before the first action.
    """

    time: Array
    good_action: Array
    chain: Array


@component
class DelayedChain(Environment[DelayedChainState, DelayedChainParams]):
    """Delayed chain MDP: the first action decides a reward many steps later (Oh et al. 2020)."""

    max_length: int = static(default=50, doc="longest chain that the state table has room for", at_least=1)
    observation: str = static(
        default="index",
        doc="state index, or 22 bits of which 20 are noise",
        choices=("index", "distractor"),
    )

    @property
    def num_actions(self) -> int:
        """2."""
        return 2

    @property
    def num_states(self) -> int | None:
        """Two first states and two chains; the terminal observation has an index too."""
        return 2 + 2 * self.max_length if self.observation == "index" else None

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """``()``, or 22 bits: a0 is the good action, the agent has chosen well, 20 of noise."""
        return () if self.observation == "index" else (2 + _DISTRACTORS,)

    @property
    def optimum_known(self) -> bool:
        """True."""
        return True

    def randomness(self, key: Array) -> tuple[Array, Array]:
        """Two words: bit 0 is the coin of the step (of the reset), bits 1..20 the distractors."""
        bits = jax.random.bits(key, (2,), jnp.uint32)
        return bits[0], bits[1]

    def reset_env(self, noise: Array, params: DelayedChainParams) -> tuple[Array, DelayedChainState]:
        """Draws the good action."""
        del params
        zero = jnp.zeros((), jnp.int32)
        state = DelayedChainState(zero, _coin(noise), zero)
        return self._observe(noise, state), state

    def step_env(
        self, noise: Array, state: DelayedChainState, action: Array, params: DelayedChainParams
    ) -> tuple[Array, DelayedChainState, Array, Array, Array, Info]:
        """The first action chooses the chain; later ones do nothing."""
        first = state.time == 0
        last = state.time >= params.length - 1
        chain = jnp.where(first, (action == state.good_action).astype(jnp.int32), state.chain)
        new_state = DelayedChainState(state.time + 1, state.good_action, chain)
        score = jnp.where(last, _sign(chain), 0.0)
        middle = jnp.logical_not(jnp.logical_or(first, last))
        reward = score + jnp.where(middle, params.noise * _sign(_coin(noise)), 0.0)
        obs = self._observe(noise, new_state)
        return obs, new_state, reward, last, jnp.zeros((), bool), {"score": score}

    def exact_return(self, params: DelayedChainParams, policy: Array) -> Array:
        """Expected terminal reward: twice the probability of a good first action, minus one.

        Args:
            params: the chain.
            policy: [num_states, 2] action probabilities.

        Raises:
            ValueError: the observation is not a state index, so there is no table to read.
        """
        del params
        self._require_table()
        return policy[0, 0] + policy[1, 1] - 1.0  # 2 * (mean of the two) - 1

    def exact_values(self, params: DelayedChainParams, policy: Array, discount: Array) -> Array:
        """Expected discounted score to come from each state, in closed form; terminal states have none.

        Args:
            params: the chain.
            policy: [num_states, 2] action probabilities; only the first states' matter.
            discount: [] gamma.

        Returns:
            [num_states]; states that the chain does not reach are 0.

        Raises:
            ValueError: the observation is not a state index, so there is no table to read.
        """
        self._require_table()
        first = 2.0 * jnp.stack([policy[0, 0], policy[1, 1]]) - 1.0
        index = jnp.arange(2 + 2 * self.max_length)
        time, chain = index // 2, index % 2
        outcome = jnp.where(time == 0, first[chain], _sign(chain))
        steps_left = params.length - 1 - time
        return jnp.where(steps_left >= 0, outcome * discount ** jnp.maximum(steps_left, 0), 0.0)

    def optimal_return(self, params: DelayedChainParams) -> Array:
        """1: the first observation says which action is good."""
        del params
        return jnp.ones(())

    def _require_table(self) -> None:
        if self.observation != "index":
            raise ValueError(
                f"delayed_chain: observation={self.observation!r} has no exact return of a table; "
                "use observation='index'"
            )

    def _observe(self, noise: Array, state: DelayedChainState) -> Array:
        first = state.time == 0
        if self.observation == "index":
            return jnp.where(first, state.good_action, 2 * state.time + state.chain)  # 2 + 2 (t - 1) + chain
        signal = jnp.stack([state.good_action == 0, state.chain == 1])
        distractors = (noise >> jnp.arange(1, 1 + _DISTRACTORS, dtype=jnp.uint32)) & 1
        return jnp.concatenate([signal, distractors.astype(bool)]).astype(jnp.float32)


def information_floor(length: int, num_envs: int, rollout_length: int) -> int:
    """Fewest environment steps after which any rule can have credited the first action.

    For a learner that makes one backward pass per batch and whose environments run in phase from birth.
    A batch covers the next ``rollout_length`` states of the chain (several episodes if it is short). Its
    backward pass gives a state its value if the episode ends inside the batch, or if an earlier batch gave
    the state at the batch's end its value (a bootstrap). The batch that gives the first state its value is
    the first one whose update can credit the first action. The noise of rewards is not in the count, so the
    floor holds for noisy chains too, and is loose there.

    Args:
        length: steps of an episode.
        num_envs: B.
        rollout_length: T.

    Returns:
        Batches times T times B.

    Raises:
        ValueError: an argument is below 1.
    """
    if min(length, num_envs, rollout_length) < 1:
        raise ValueError(
            f"information_floor: length={length}, num_envs={num_envs}, rollout_length={rollout_length} "
            "must all be at least 1"
        )
    known: set[int] = set()
    start = batches = 0
    while 0 not in known:
        batches += 1
        steps = [(start + step) % length for step in range(rollout_length)]
        start = (start + rollout_length) % length
        credited = start in known
        for position in reversed(steps):
            credited = credited or position == length - 1
            if credited:
                known.add(position)
    return batches * num_envs * rollout_length


def _coin(noise: Array) -> Array:
    return (noise & 1).astype(jnp.int32)


def _sign(bit: Array) -> Array:
    return 2.0 * bit.astype(jnp.float32) - 1.0
