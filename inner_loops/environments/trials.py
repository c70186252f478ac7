"""Trials: episodes in one of many worlds, one after the other, as one long episode (RL^2).

Duan et al. 2016 (arXiv:1611.02779): an agent that remembers is to learn how to find a new world out, so it is
paid for all episodes of a trial alike, and its memory ends with the trial. Every trial draws a world. What is
observed is the world's observation (a state index one-hot, or its ``factors`` one-hot each), the action
before it one-hot, the reward of that action, and whether an episode begins: 1 at a trial's first step too,
where action and reward are 0.

A step's score is its reward over the number of episodes: a trial scores the mean return of its episodes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from inner_loops.environments.base import Environment, Info
from inner_loops.factors import check_factors, factored, factored_size
from metalab.components import component, part, static
from metalab.trees import select

__all__ = ["TrialParams", "TrialState", "Trials"]


class TrialParams(NamedTuple):
    """The worlds of trials.

    Attributes:
        worlds: parameters of the worlds that trials draw from, leaves ``[M, ...]``.
        judged_on: of those that an agent is judged on, leaves ``[J, ...]``.
    """

    worlds: Any
    judged_on: Any


class TrialState(NamedTuple):
    """Where a trial is.

    Attributes:
        inner: the world's state.
        world: [] int32, which world it is.
        episode: [] int32, episodes that have ended.
    """

    inner: Any
    world: Array
    episode: Array


@component
class Trials(Environment[TrialState, TrialParams]):
    """Trials of several episodes in a world drawn for each (RL^2; Duan et al. 2016)."""

    environment: Any = part(None, doc="the worlds'; in tasks of kind trials: silent", group="environment")
    episodes: int = static(10, doc="of a trial", at_least=1)
    factors: tuple[int, ...] | None = static(
        None, doc="sizes of the grid that a state index counts through: rows and columns are seen apart"
    )

    def __post_init__(self) -> None:
        # While jax rebuilds a component from its leaves, parts may be anything.
        if isinstance(self.environment, Environment):
            check_factors(self.factors, self._entries)

    @property
    def num_actions(self) -> int:
        """Those of the worlds."""
        return self.environment.num_actions

    @property
    def num_states(self) -> int | None:
        """None: a vector is seen."""
        return None

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """One vector: observation, action, reward, whether an episode begins."""
        return (factored_size(self.factors, self._entries) + self.num_actions + 2,)

    @property
    def longest(self) -> int:
        """Steps of a trial at most."""
        return self.episodes * self.environment.horizon

    @property
    def optimum_known(self) -> bool:
        """Whether that of the worlds is."""
        return self.environment.optimum_known

    def optimal_return(self, params: TrialParams) -> Array:
        """[] the mean over the worlds that are judged on: what an agent could reach that knew them."""
        return jnp.mean(jax.vmap(self.environment.optimal_return)(params.judged_on))

    def action_mask(self, params: TrialParams) -> Array:
        """[A] bool, that of the first world, which all share."""
        return self.environment.action_mask(jax.tree.map(lambda leaf: leaf[0], params.worlds))

    def randomness(self, key: Array) -> tuple[Any, Any]:
        """Of a step and the world's reset that may follow it; of a trial's beginning."""
        inside_key, world_key, begin_key = jax.random.split(key, 3)
        inside, begin = (self.environment.randomness(one) for one in (inside_key, begin_key))
        return inside, (jax.random.uniform(world_key), begin[1])

    def reset_env(self, noise: Any, params: TrialParams) -> tuple[Array, TrialState]:
        """Draws a world and begins its first episode."""
        count = jax.tree.leaves(params.worlds)[0].shape[0]
        world = jnp.minimum(jnp.floor(noise[0] * count), count - 1).astype(jnp.int32)
        obs, inner = self.environment.reset_env(noise[1], self._params_of(world, params))
        nothing = jnp.zeros(self.num_actions)
        seen = self._observe(obs, nothing, jnp.zeros(()), jnp.ones((), bool))
        return seen, TrialState(inner, world, jnp.zeros((), jnp.int32))

    def step_env(
        self, noise: Any, state: TrialState, action: Array, params: TrialParams
    ) -> tuple[Array, TrialState, Array, Array, Array, Info]:
        """A step of the world; after its episode's last, the next episode's first observation."""
        world = self._params_of(state.world, params)
        obs, inner, reward, terminated, truncated, info = self.environment.step_env(
            noise[0], state.inner, action, world
        )
        ended = terminated | truncated
        obs, inner = select(ended, self.environment.reset_env(noise[1], world), (obs, inner))
        after = TrialState(inner, state.world, state.episode + ended)
        seen = self._observe(obs, jax.nn.one_hot(action, self.num_actions), reward, ended)
        score = jnp.asarray(info.get("score", reward), jnp.float32) / self.episodes
        over = after.episode >= self.episodes
        return seen, after, reward, over, jnp.zeros((), bool), {"score": score, "episode": state.episode}

    def judge(
        self,
        key: Array,
        params: TrialParams,
        memory: Any,
        act: Callable[[Any, Array, Array], tuple[Any, Array]],
        noted: Callable[[Any, Array, Array, Array], Any],
        num_envs: int,
    ) -> dict[str, Array]:
        """How good an agent is, apart from its life: one trial in each of ``B`` worlds that it is judged on.

        Args:
            key: PRNG key.
            params: the worlds; those of ``judged_on`` are drawn.
            memory: of a newborn, leaves ``[B, ...]``.
            act: ``(memory, obs [B, ...], uniform [B])`` to the memory and the actions ``[B]``.
            noted: ``(memory, action, reward, done)`` to the memory after a step, all ``[B, ...]``.
            num_envs: B.

        Returns:
            Mean return of a trial's last episode (``return``) and of its first one (``first_return``).
        """
        params = TrialParams(params.judged_on, params.judged_on)
        reset_key, noise_key, env_key = jax.random.split(key, 3)
        obs, state = jax.vmap(self.reset, (0, None))(jax.random.split(reset_key, num_envs), params)
        step = jax.vmap(self.step, (0, 0, 0, None))

        def body(now: Any, xs: tuple[Array, Array]) -> tuple[Any, Array]:
            obs, state, memory, over = now
            memory, action = act(memory, obs, xs[0])
            obs, state, reward, ended, _, info = step(xs[1], state, action, params)
            memory = noted(memory, action, reward, ended)
            which = jnp.stack([info["episode"] == self.episodes - 1, info["episode"] == 0])
            paid = jnp.where(which & ~over, reward, 0.0)  # a trial that is over counts no more
            return (obs, state, memory, over | ended), paid

        shape = (self.longest, num_envs)
        xs = (jax.random.uniform(noise_key, shape), jax.random.split(env_key, shape))
        paid = jax.lax.scan(body, (obs, state, memory, jnp.zeros(num_envs, bool)), xs)[1]
        last, first = jnp.mean(jnp.sum(paid, axis=0), axis=-1)
        return {"return": last, "first_return": first}

    @property
    def _entries(self) -> int:
        """Of the world's observation, a state index as one-hot."""
        states = self.environment.num_states
        return math.prod(self.environment.observation_shape) if states is None else states

    def _params_of(self, world: Array, params: TrialParams) -> Any:
        return jax.tree.map(lambda leaf: leaf[world], params.worlds)

    def _observe(self, obs: Array, action: Array, reward: Array, begins: Array) -> Array:
        states = self.environment.num_states
        flat = obs.reshape(-1) if states is None else jax.nn.one_hot(obs, states)
        parts = (factored(flat, self.factors), action, reward[None], begins[None])
        return jnp.concatenate([part.astype(jnp.float32) for part in parts])
