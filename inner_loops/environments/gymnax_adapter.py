"""Any gymnax environment, by its registered name (Lange 2022, gymnax 1.0).

gymnax takes seconds to import, so it is imported when an environment is first used, not when it is named.

Observations become float32 (a discrete one becomes one-hot) and keep their shape: flattening is the
network's business. ``truncated`` is false where the episode terminated. Continuous actions are vectors
within finite bounds, which may depend on the parameters. Steps, resets and their keys are gymnax's; the
auto-reset is ours, so that wrappers and reset pools can stand between the two. What DeepSea counts across
episodes begins anew with each.
"""

from __future__ import annotations

import difflib
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from inner_loops.environments.base import Environment, Info
from metalab.components import component, static

__all__ = ["GymnaxEnvironment"]


@component
class GymnaxEnvironment(Environment[Any, Any]):
    """An environment of gymnax by name, with discrete or continuous actions."""

    name: str = static(default="CartPole-v1", doc="as gymnax registers it, for example Catch-bsuite")

    @property
    def num_actions(self) -> int:
        """The size of its discrete action space.

        Raises:
            ValueError: its actions are continuous.
        """
        environment, params = _made(self.name)
        space = environment.action_space(params)
        if not hasattr(space, "n"):
            raise ValueError(
                f"gymnax: {self.name!r} has continuous actions (of shape {tuple(space.shape)}), and discrete "
                "ones were asked for: choose a learner with continuous actions"
            )
        return int(space.n)

    @property
    def action_size(self) -> int | None:
        """Entries of its continuous action."""
        environment, params = _made(self.name)
        space = environment.action_space(params)
        return None if hasattr(space, "n") else int(space.shape[0])

    def action_bounds(self, params: Any) -> tuple[Array, Array]:
        """The ends of its continuous action space under these parameters."""
        if self.action_size is None:
            return super().action_bounds(params)
        space = _made(self.name)[0].action_space(params)
        low, high = (
            jnp.broadcast_to(jnp.asarray(end, jnp.float32), space.shape) for end in (space.low, space.high)
        )
        return low, high

    @property
    def num_states(self) -> int | None:
        """None: no table, and no exact return."""
        return None

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """As gymnax gives it; (n,) for one of n discrete observations."""
        environment, params = _made(self.name)
        space = environment.observation_space(params)
        return (int(space.n),) if hasattr(space, "n") else tuple(space.shape)

    def default_params(self) -> Any:
        """The default parameters, every leaf a strongly typed array."""
        return _strong(_made(self.name)[1])

    def reset(self, key: Array, params: Any) -> tuple[Array, Any]:
        """Starts an episode: gymnax's own with this key."""
        return self.reset_env(key, params)

    def reset_env(self, noise: Array, params: Any) -> tuple[Array, Any]:
        """The first observation and state of an episode; ``noise`` is a key."""
        obs, state = _made(self.name)[0].reset_env(noise, params)
        return self._observe(obs), _strong(state)

    def step_env(
        self, noise: Array, state: Any, action: Array, params: Any
    ) -> tuple[Array, Any, Array, Array, Array, Info]:
        """One transition without auto-reset; ``noise`` is a key; gymnax's info is left out."""
        environment = _made(self.name)[0]
        obs, state, reward, terminated, _ = environment.step_env(noise, state, action, params)
        terminated = jnp.asarray(terminated, bool)
        truncated = jnp.logical_and(environment.is_truncated(state, params), jnp.logical_not(terminated))
        reward = jnp.asarray(reward, jnp.float32)
        return self._observe(obs), _strong(state), reward, terminated, truncated, {}

    def _observe(self, obs: Array) -> Array:
        environment, params = _made(self.name)
        space = environment.observation_space(params)
        return jax.nn.one_hot(obs, space.n) if hasattr(space, "n") else jnp.asarray(obs, jnp.float32)


@functools.cache
def _made(name: str) -> tuple[Any, Any]:
    """The gymnax environment and its default parameters.

    Raises:
        ValueError: no such environment, or one whose actions are neither discrete nor a vector.
    """
    import gymnax

    if name not in gymnax.registered_envs:
        near = difflib.get_close_matches(name, gymnax.registered_envs, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(gymnax.registered_envs)}"
        raise ValueError(f"gymnax: no environment is called {name!r}; {hint}")
    # a name may first be used inside a trace, and what is cached here must outlive it
    with jax.ensure_compile_time_eval():
        environment, params = gymnax.make(name)
        space = environment.action_space(params)
    if not hasattr(space, "n") and len(getattr(space, "shape", ())) != 1:
        raise ValueError(
            f"gymnax: the actions of {name!r} are {space}; only discrete ones and vectors are supported"
        )
    return environment, params


def _strong(tree: Any) -> Any:
    """Strips weak types: a carry that changes its type is refused by ``scan``."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf)), tree)
