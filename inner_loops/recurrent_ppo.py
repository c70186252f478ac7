"""Proximal policy optimisation with a memory: a GRU, or S5 with resets inside sequences.

The agent of ``inner_loops.ppo`` (Schulman et al. 2017, arXiv:1707.06347) for worlds that observations do not
tell whole, with the memory of Lu et al. (2023, arXiv:2303.03982). Observations run through a sequence core;
policy and value read its features. Acting takes one step at a time; learning runs whole rollouts, from the
memory with which they began. Minibatches are whole sequences, dealt out over environments.

With ``inputs: rl2`` the core also reads the action and the reward before an observation and whether it is
the first of an episode, and with ``reset_memory: false`` it remembers over episodes: an agent that learns in
its activations (RL^2, Duan et al. 2016, arXiv:1611.02779; Wang et al. 2016, arXiv:1611.05763).
``episodic: false`` then lets returns go on over the ends of episodes, so that what was found out in one
episode is worth what it earns in the next.

**Deviations**: the memory with which a rollout began is that of the policy that acted, in all epochs;
gradients are cut there. Where an episode is cut off, the value bootstrapped from has the memory of the
episode, not the emptied one.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from inner_loops.networks.memory.base import SequenceCore
from inner_loops.networks.memory.gru import GRU
from inner_loops.ppo import PPO, PPOState, Samples, advantages, seen
from inner_loops.trajectory import Trajectory
from metalab.components import component, part, static
from metalab.protocols import PyTree
from metalab.trees import select

__all__ = ["INPUTS", "Last", "Memory", "RecurrentPPO", "Sequences"]

INPUTS = ("obs", "rl2")


class Last(NamedTuple):
    """What came before an observation; leaves ``[...]`` over any axes.

    Attributes:
        action: int32, -1 where there was none; or [..., D], zeros.
        reward: zero where there was none.
        first: bool, the observation begins an episode.
    """

    action: Array
    reward: Array
    first: Array


class Memory(NamedTuple):
    """What is carried from step to step.

    Attributes:
        core: carry of the sequence core, leaves ``[B, ...]``.
        last: leaves ``[B, ...]``.
    """

    core: PyTree
    last: Last


class Sequences(NamedTuple):
    """What the core reads of ``N`` environments' rollouts.

    Attributes:
        start: carry before the first step, leaves ``[N, ...]``.
        inputs: [N, T, F].
        reset: [N, T] bool.
    """

    start: PyTree
    inputs: Array
    reset: Array


class _Features(NamedTuple):
    """What a network asks of an environment, answered for the features of a core."""

    observation_shape: tuple[int, ...]
    num_states: None = None


@component
class RecurrentPPO(PPO):
    """Proximal policy optimisation with a recurrent memory, also as RL^2 (Schulman et al. 2017)."""

    core: SequenceCore = part(GRU(), doc="the memory", group="core")
    inputs: str = static("obs", doc="of the memory; rl2: last action, reward and end as well", choices=INPUTS)
    reset_memory: bool = static(True, doc="every episode begins with an empty memory")
    episodic: bool = static(True, doc="returns end with the episode; false: they go on over the lifetime")

    def __post_init__(self) -> None:
        if self.num_envs % self.minibatches:
            raise ValueError(
                f"recurrent_ppo: minibatches={self.minibatches} must divide num_envs={self.num_envs}: a "
                "minibatch is made of whole sequences, one an environment"
            )

    def _no_memory(self) -> Memory:
        empty = jax.tree.map(
            lambda leaf: jnp.broadcast_to(leaf, (self.num_envs, *leaf.shape)), self.core.empty()
        )
        return Memory(empty, self._nothing((self.num_envs,)))

    def _init_params(self, key: Array) -> dict[str, PyTree]:
        head_key, core_key = jax.random.split(key)
        obs = jnp.zeros(self.environment.observation_shape, jnp.int32)
        num_inputs = self._inputs(obs, self._nothing(())).shape[-1]
        return {**super()._init_params(head_key), "core": self.core.init(core_key, num_inputs)}

    @property
    def _seen_world(self) -> _Features:
        return _Features((self.core.width,))

    def _nothing(self, axes: tuple[int, ...]) -> Last:
        """What comes before the first observation."""
        size = self.environment.action_size
        action = jnp.full(axes, -1, jnp.int32) if size is None else jnp.zeros((*axes, size))
        return Last(action, jnp.zeros(axes), jnp.ones(axes, bool))

    def _last(self, action: Array, reward: Array, done: Array) -> Last:
        """What comes before the observation after a step; with resets no episode knows of another."""
        last = Last(action, reward.astype(float), done)
        return select(done, self._nothing(done.shape), last) if self.reset_memory else last

    def _inputs(self, obs: Array, last: Last) -> Array:
        """[..., F] for observations ``[..., *shape]``; a state index becomes one-hot."""
        axes, states = last.first.shape, self.environment.num_states
        flat = obs.reshape(*axes, -1).astype(float) if states is None else jax.nn.one_hot(obs, states)
        if self.inputs == "obs":
            return flat
        discrete = self.environment.action_size is None
        action = jax.nn.one_hot(last.action, self.environment.num_actions) if discrete else last.action
        flags = jnp.stack([last.reward, last.first.astype(flat.dtype)], axis=-1)
        return jnp.concatenate([flat, action, flags], axis=-1)

    def _resets(self, first: Array) -> Array:
        return first if self.reset_memory else jnp.zeros_like(first)

    def _act(
        self, params: PyTree, memory: Memory, obs: Array, noise: Array, mask: Array
    ) -> tuple[Memory, Array]:
        """One step of the core in every environment, and the actions of its policy."""
        inputs, reset = self._inputs(obs, memory.last), self._resets(memory.last.first)
        core, features = jax.vmap(self.core.step, (None, 0, 0, 0))(params["core"], memory.core, inputs, reset)
        outputs = super()._outputs(params, features, self._policy_head())
        return memory._replace(core=core), self._policy(params, outputs, mask).sample(noise)

    def _noted(self, memory: Memory, action: Array, reward: Array, done: Array) -> Memory:
        return memory._replace(last=self._last(action, reward, done))

    def _outputs(self, params: PyTree, obs: Sequences, heads: dict[str, int]) -> dict[str, Array]:
        """Head name to ``[N, T, size]``."""
        return self._read(params, self._remembered(params, obs)[1], heads)

    def _remembered(self, params: PyTree, sequences: Sequences) -> tuple[PyTree, Array]:
        """Carries after every step, leaves ``[N, T, ...]``, and features ``[N, T, D]``."""
        return jax.vmap(self.core.run, (None, 0, 0, 0))(params["core"], *sequences)

    def _read(self, params: PyTree, features: Array, heads: dict[str, int]) -> dict[str, Array]:
        """Head name to ``[N, T, size]`` for features ``[N, T, D]``."""
        flat = super()._outputs(params, features.reshape(-1, features.shape[-1]), heads)
        return {name: leaf.reshape(*features.shape[:-1], -1) for name, leaf in flat.items()}

    def _samples(
        self, state: PPOState, record: Trajectory, reward: Array, discount: Any, gae_lambda: Any
    ) -> Samples:
        """[B, T] samples of the rollout that ``state`` made, with ``reward`` [T, B] in place of its own."""
        params, obs = state.params, seen(state.obs_moments, record.obs)
        after = self._last(record.action, record.reward, record.done)
        lasts = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b[:-1]]), state.memory.last, after)
        inputs, reset = self._inputs(obs[:-1], lasts), self._resets(lasts.first)
        sequences = Sequences(state.memory.core, _by_env(inputs), _by_env(reset))
        carries, features = self._remembered(params, sequences)
        outputs = self._read(params, features, self._heads())
        value = outputs["value"][..., 0]
        judged, following = record._replace(reward=reward), obs[1:]
        if self.episodic:
            # Where the world was only cut off it would have gone on, and so would the memory.
            following = seen(state.obs_moments, record.next_obs)
            after = Last(record.action, record.reward.astype(float), jnp.zeros_like(record.done))
        else:
            judged = judged._replace(
                terminated=jnp.zeros_like(record.done), truncated=jnp.zeros_like(record.done)
            )
        next_value = self._next_value(params, carries, following, after)
        advantage = _by_env(advantages(judged, _by_env(value), next_value, discount, gae_lambda))
        action = _by_env(record.action)
        log_prob = self._policy(params, outputs, record.action_mask).log_prob(action)
        return Samples(sequences, action, log_prob, value, advantage, advantage + value)

    def _next_value(self, params: PyTree, carries: PyTree, obs: Array, last: Last) -> Array:
        """[T, B] values of the observations [T, B, ...] that follow the carries [B, T, ...]."""
        inputs, reset = _by_env(self._inputs(obs, last)), _by_env(self._resets(last.first))
        step = jax.vmap(jax.vmap(self.core.step, (None, 0, 0, 0)), (None, 0, 0, 0))
        features = step(params["core"], carries, inputs, reset)[1]
        return _by_env(self._read(params, features, {"value": 1})["value"][..., 0])


def _by_env(leaf: Array) -> Array:
    """``[T, B, ...]`` to ``[B, T, ...]`` and back."""
    return jnp.swapaxes(leaf, 0, 1)
