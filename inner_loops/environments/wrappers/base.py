"""What every environment wrapper is: an environment around another one.

A wrapper changes what passes between agent and world (observations, actions, the step's info) and hands the
rest through: rewards, scores, ends of episodes, the randomness of the world, exact returns where they stay
right. It wraps ``reset_env`` and ``step_env``, below the auto-reset, so its own state begins anew with every
episode and the final observation is wrapped like any other.

What differs from world to world (a permutation, a matrix, a probability) is not in the wrapper but in its
``WrappedParams``, drawn by ``draw``: worlds differ without another program. A wrapper's numbers are settings
of that draw alone; the environment that an agent holds has none (``bare``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, TypeVar

from jax import Array

from inner_loops.environments.base import Environment, Info
from metalab.components import component, part, specs

__all__ = ["WrappedParams", "Wrapper"]

Self = TypeVar("Self", bound="Wrapper")


class WrappedParams(NamedTuple):
    """Parameters of a wrapped environment.

    Attributes:
        inner: of the environment inside.
        own: what the wrapper drew; () where it needs nothing.
    """

    inner: Any
    own: Any


@component
class Wrapper(Environment[Any, WrappedParams]):
    """Changes nothing; subclasses change one thing."""

    environment: Any = part(None, doc="what is wrapped; in wrapped_tasks: silent", group="environment")

    # Whether a policy's expected returns can be computed inside, with `_policy_inside`.
    keeps_returns: ClassVar[bool] = True

    def draw(self, key: Array) -> Any:
        """What this wrapper's worlds differ in, drawn for one of them."""
        del key
        return ()

    def wrapped_params(self, key: Array, inner: Any) -> WrappedParams:
        """Parameters around those of the environment inside."""
        return WrappedParams(inner, self.draw(key))

    def bare(self: Self, environment: Any) -> Self:
        """This wrapper around ``environment``, without the numbers that only ``draw`` reads."""
        numbers = {name: None for name, spec in specs(self).items() if spec.kind == "number"}
        return dataclasses.replace(self, environment=environment, **numbers)

    @property
    def inside(self) -> Environment:
        """The environment that is wrapped.

        Raises:
            ValueError: there is none.
        """
        if self.environment is None:
            raise ValueError(
                f"{type(self).__name__} wraps nothing: give it an environment, or name it under the "
                "wrappers of wrapped_tasks"
            )
        return self.environment

    @property
    def num_actions(self) -> int:
        """See ``Environment``."""
        return self.inside.num_actions

    @property
    def action_size(self) -> int | None:
        """See ``Environment``."""
        return self.inside.action_size

    def action_bounds(self, params: WrappedParams) -> tuple[Array, Array]:
        """See ``Environment``."""
        return self.inside.action_bounds(params.inner)

    def action_mask(self, params: WrappedParams) -> Array:
        """See ``Environment``."""
        return self.inside.action_mask(params.inner)

    @property
    def num_states(self) -> int | None:
        """See ``Environment``."""
        return self.inside.num_states

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """See ``Environment``."""
        return self.inside.observation_shape

    @property
    def num_costs(self) -> int:
        """See ``Environment``."""
        return self.inside.num_costs

    def cost_limits(self, params: WrappedParams) -> Array:
        """See ``Environment``."""
        return self.inside.cost_limits(params.inner)

    @property
    def tallies(self) -> tuple[str, ...]:
        """See ``Environment``."""
        return self.inside.tallies

    @property
    def optimum_known(self) -> bool:
        """Whether the optimum inside is known, and is the optimum out here."""
        return self.keeps_returns and self.inside.optimum_known

    def optimal_return(self, params: WrappedParams) -> Array:
        """[] the best expected return of an episode."""
        return self.inside.optimal_return(params.inner)  # pyright: ignore[reportAttributeAccessIssue]

    @property
    def exact_return(self) -> Callable[[WrappedParams, Array], Array] | None:
        """``exact_return(params, policy [num_states, A]) -> []``; None where the inside has none."""
        found = getattr(self.inside, "exact_return", None)
        if found is None or not self.keeps_returns:
            return None
        return lambda params, policy: found(params.inner, self._policy_inside(policy, params.own))

    @property
    def exact_values(self) -> Callable[[WrappedParams, Array, Array], Array] | None:
        """``exact_values(params, policy, discount) -> [num_states]``; None where the inside has none."""
        found = getattr(self.inside, "exact_values", None)
        if found is None or not self.keeps_returns:
            return None

        def values(params: WrappedParams, policy: Array, discount: Array) -> Array:
            inside = found(params.inner, self._policy_inside(policy, params.own), discount)
            return self._values_outside(inside, params.own)

        return values

    def randomness(self, key: Array) -> tuple[Any, Any]:
        """See ``Environment``."""
        return self.inside.randomness(key)

    def reset_env(self, noise: Any, params: WrappedParams) -> tuple[Array, Any]:
        """The first observation and state of an episode.

        Raises:
            TypeError: the parameters are not a wrapped environment's.
        """
        if not isinstance(params, WrappedParams):
            raise TypeError(
                f"{type(self).__name__}: got the parameters of another environment "
                f"({type(params).__name__}); the worlds of a wrapped environment come from wrapped_tasks"
            )
        obs, state = self.inside.reset_env(noise, params.inner)
        return self._observed(obs, params.own), state

    def step_env(
        self, noise: Any, state: Any, action: Array, params: WrappedParams
    ) -> tuple[Array, Any, Array, Array, Array, Info]:
        """One transition without auto-reset: obs, state, reward, terminated, truncated, info."""
        taken = self._acted(action, params)
        obs, state, reward, terminated, truncated, info = self.inside.step_env(
            noise, state, taken, params.inner
        )
        return self._observed(obs, params.own), state, reward, terminated, truncated, info

    def _observed(self, obs: Array, own: Any) -> Array:
        """What the agent sees of an observation inside."""
        del own
        return obs

    def _acted(self, action: Array, params: WrappedParams) -> Array:
        """What the agent's action is inside."""
        del params
        return action

    def _policy_inside(self, policy: Array, own: Any) -> Array:
        """The agent's tabular policy [num_states, A], by the states and actions inside."""
        del own
        return policy

    def _values_outside(self, values: Array, own: Any) -> Array:
        """Values [num_states] of the states inside, by the states that the agent sees."""
        del own
        return values
