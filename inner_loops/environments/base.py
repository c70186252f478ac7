"""The environment interface: gymnax's six-value ``step`` with auto-reset, without importing gymnax.

An environment is a component whose fields are all static (it hashes by value); what differs from world to
world is ``params``, a pytree of arrays. Everything here is unbatched: the caller vmaps over environments,
lifetimes, seeds and points, so a step is a hot path. That is why

* an environment draws its whole randomness of a step, and of the reset that may follow it, in one call
  (``randomness``), which may be as small as one word;
* ``reset_env`` runs at every step under a select, and must be cheap.

**Deviation** from gymnax: ``step_env`` and ``reset_env`` take that drawn noise in place of a key, and
``truncated`` is never true together with ``terminated``.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import jax
import jax.numpy as jnp
from jax import Array

from metalab.trees import select

__all__ = ["Environment", "Info"]

Params = TypeVar("Params")
State = TypeVar("State")
Info = dict[str, Any]


class Environment(Generic[State, Params]):
    """What an agent lives in; subclasses give ``reset_env``, ``step_env`` and their shapes.

    Those with ``num_states`` also have ``exact_return(params, policy [num_states, A]) -> []``, the expected
    undiscounted score of an episode; those with ``optimum_known`` have ``optimal_return(params) -> []``, the
    best there is.
    """

    @property
    def num_actions(self) -> int:
        """A, the number of discrete actions; ValueError where actions are continuous."""
        raise NotImplementedError

    @property
    def action_size(self) -> int | None:
        """D, the entries of a continuous action; None where actions are discrete."""
        return None

    def action_bounds(self, params: Params) -> tuple[Array, Array]:
        """``low [D]`` and ``high [D]`` of a continuous action, float32 and finite.

        Raises:
            TypeError: actions are discrete.
        """
        del params
        raise TypeError(f"{self} has {self.num_actions} discrete actions, which have no bounds")

    @property
    def num_states(self) -> int | None:
        """Rows of a tabular agent's table; None where the observation is not a state index."""
        raise NotImplementedError

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """Shape of one observation; ``()`` where it is an int32 state index."""
        raise NotImplementedError

    @property
    def num_costs(self) -> int:
        """C, the entries of ``info["cost"]``; 0 where the world has no costs."""
        return 0

    def cost_limits(self, params: Params) -> Array:
        """[C] what the mean cost of a step may be."""
        del params
        return jnp.zeros((0,), jnp.float32)

    @property
    def tallies(self) -> tuple[str, ...]:
        """Names of what ``info["tallies"]`` holds, scalars of each step that add up over a life: regret."""
        return ()

    @property
    def optimum_known(self) -> bool:
        """Whether there is an ``optimal_return(params)`` to ask for."""
        return False

    def randomness(self, key: Array) -> tuple[Any, Any]:
        """All the noise of one step: what ``step_env`` and what ``reset_env`` want, independent draws."""
        step_key, reset_key = jax.random.split(key)
        return step_key, reset_key

    def reset_env(self, noise: Any, params: Params) -> tuple[Array, State]:
        """The first observation and state of an episode."""
        raise NotImplementedError

    def step_env(
        self, noise: Any, state: State, action: Array, params: Params
    ) -> tuple[Array, State, Array, Array, Array, Info]:
        """One transition without auto-reset: obs, state, reward, terminated, truncated, info."""
        raise NotImplementedError

    def action_mask(self, params: Params) -> Array:
        """[A] bool, the discrete actions that this world allows."""
        del params
        return jnp.ones((self.num_actions,), bool)

    def reset(self, key: Array, params: Params) -> tuple[Array, State]:
        """Starts an episode."""
        return self.reset_env(self.randomness(key)[1], params)

    def step(
        self, key: Array, state: State, action: Array, params: Params
    ) -> tuple[Array, State, Array, Array, Array, Info]:
        """One transition; after an episode's last, ``obs`` and ``state`` are the next episode's first.

        Args:
            key: PRNG key.
            state: before the action.
            action: [] int32, or [D] float32 where actions are continuous.
            params: the world.

        Returns:
            obs, state, reward [] float32, terminated [] bool, truncated [] bool (the time limit, where the
            episode has not terminated), and info: ``final_observation``, the observation before the reset,
            ``score``, the reward that counts for scoring (the reward itself unless the world says else), and
            ``tallies``, scalars by name where the world has any.
        """
        return self.step_with(self.randomness(key), state, action, params)

    def step_with(
        self, noise: tuple[Any, Any], state: State, action: Array, params: Params
    ) -> tuple[Array, State, Array, Array, Array, Info]:
        """``step`` with its ``randomness``, which a rollout draws for all its steps at once."""
        step_noise, reset_noise = noise
        obs, next_state, reward, terminated, truncated, info = self.step_env(
            step_noise, state, action, params
        )
        first_obs, first_state = self.reset_env(reset_noise, params)
        ended = jnp.logical_or(terminated, truncated)
        info = {"score": reward, **info, "final_observation": obs}
        return (
            jnp.where(ended, first_obs, obs),
            select(ended, first_state, next_state),
            reward,
            terminated,
            truncated,
            info,
        )
