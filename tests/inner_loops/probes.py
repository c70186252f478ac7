"""Probes: the smallest worlds in which one thing only can go wrong, with their exact values.

An agent that fails one of them but passes those before it is wrong in what the failing one adds. All are one
environment of two states under different parameters, so that one compiled program raises an agent in each of
them. Exact values are derived beside each world, for the policy that is best in it and any discount.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from inner_loops.environments.base import Environment, Info
from inner_loops.tasks.agent_task import agent_task
from metalab.components import component, number, static
from metalab.protocols import Task

END = -1


class ProbeParams(NamedTuple):
    """One world.

    Attributes:
        starts: [2] int32 states in which episodes begin, equally likely.
        pays: [2, 2] reward of each state and discrete action.
        goes: [2, 2] int32 the state that follows; ``END`` ends the episode.
        best: [2] the best continuous action of each state; NaN where actions do not matter.
        limit: [] int32 steps after which an episode is cut off; 0: never.
        phase: [] int32 steps after which the state changes by itself; 0: it does not.
    """

    starts: Any = (0, 0)
    pays: Any = ((0.0, 0.0), (0.0, 0.0))
    goes: Any = ((END, END), (END, END))
    best: Any = (np.nan, np.nan)
    limit: Any = 0
    phase: Any = 0


class ProbeState(NamedTuple):
    """Where an episode is: which state [] int32, steps taken [] int32."""

    place: Array
    time: Array


@dataclasses.dataclass(frozen=True)
class World:
    """A probe: its parameters, and discount to the exact values [N, 2] of its N reachable states' actions."""

    params: ProbeParams
    action_values: Callable[[float], list[list[float]]]

    def values(self, discount: float) -> np.ndarray:
        """[N] of the best policy, with discrete or continuous actions."""
        return np.asarray(self.action_values(discount)).max(axis=-1)

    def best_actions(self) -> np.ndarray:
        """[N] continuous actions; NaN where they do not matter."""
        return np.asarray(self.params.best)[: len(self.action_values(0.0))]


PROBES = {
    # One step that pays 1, whatever is done: Q = 1. The value head learns at all.
    "constant": World(ProbeParams(pays=((1.0, 1.0), (0.0, 0.0))), lambda _: [[1.0, 1.0]]),
    # Two steps, of which the second pays 1: Q(1) = 1 and Q(0) = 0 + discount Q(1). Values are handed back.
    "discounting": World(
        ProbeParams(pays=((0.0, 0.0), (1.0, 1.0)), goes=((1, 1), (END, END))),
        lambda discount: [[discount] * 2, [1.0] * 2],
    ),
    # One step that pays what the observation says. Values depend on observations.
    "observation": World(
        ProbeParams(starts=(0, 1), pays=((-1.0, -1.0), (1.0, 1.0))), lambda _: [[-1.0] * 2, [1.0] * 2]
    ),
    # One step that pays what the action deserves. The policy learns at all.
    "action": World(ProbeParams(pays=((-1.0, 1.0), (0.0, 0.0)), best=(0.5, 0.0)), lambda _: [[-1.0, 1.0]]),
    # One step that pays for the action that the observation asks for. The policy depends on observations.
    "advantage": World(
        ProbeParams(starts=(0, 1), pays=((1.0, -1.0), (-1.0, 1.0)), best=(-0.5, 0.5)),
        lambda _: [[1.0, -1.0], [-1.0, 1.0]],
    ),
    # From state 0 to state 1, which pays 1 for ever; cut off after two steps. Q(1) = 1 + discount Q(1) and
    # Q(0) = discount Q(1). Who takes the cut for an end finds Q(1) = 1; who bootstraps from the observation
    # after the reset, state 0, finds 1 / (1 - discount^2).
    "truncation": World(
        ProbeParams(pays=((0.0, 0.0), (1.0, 1.0)), goes=((1, 1), (1, 1)), limit=2),
        lambda discount: [[discount / (1.0 - discount)] * 2, [1.0 / (1.0 - discount)] * 2],
    ),
}

# State 0, which pays 1, for 256 steps, then state 1, which pays -1, for as many, and so on. Without a
# discount the value of a state is what it pays; with one the time would be part of the state. Who learns from
# what it has just seen forgets the other phase's state; who replays more than a phase does not.
PHASES = World(
    ProbeParams(pays=((1.0, 1.0), (-1.0, -1.0)), goes=((0, 0), (1, 1)), phase=256),
    lambda _: [[1.0] * 2, [-1.0] * 2],
)


@component
class Probe(Environment[ProbeState, ProbeParams]):
    """A world of two states, with two discrete actions or one continuous action in [-1, 1].

    A continuous action is paid the best that the state has, less the square of its distance from the best
    action, and goes where discrete action 0 goes.
    """

    continuous: bool = static(False, doc="one continuous action in [-1, 1] instead of two discrete ones")
    index: bool = static(False, doc="observe the state's index instead of a one-hot vector")

    @property
    def num_actions(self) -> int:
        if self.continuous:
            raise ValueError(f"{self} has continuous actions")
        return 2

    @property
    def action_size(self) -> int | None:
        return 1 if self.continuous else None

    def action_bounds(self, params: ProbeParams) -> tuple[Array, Array]:
        return -jnp.ones(1), jnp.ones(1)

    @property
    def num_states(self) -> int | None:
        return 2 if self.index else None

    @property
    def observation_shape(self) -> tuple[int, ...]:
        return () if self.index else (2,)

    @property
    def observations(self) -> Array:
        """[2, ...] what is seen in each state."""
        return self._observe(jnp.arange(2, dtype=jnp.int32))

    def reset_env(self, noise: Array, params: ProbeParams) -> tuple[Array, ProbeState]:
        state = params.starts[jax.random.randint(noise, (), 0, 2)]
        return self._observe(state), ProbeState(state, jnp.zeros((), jnp.int32))

    def step_env(
        self, noise: Array, state: ProbeState, action: Array, params: ProbeParams
    ) -> tuple[Array, ProbeState, Array, Array, Array, Info]:
        if self.continuous:
            choice, best = 0, params.best[state.place]
            distance = jnp.where(jnp.isnan(best), 0.0, action[0] - best)
            reward = jnp.max(params.pays[state.place]) - jnp.square(distance)
        else:
            choice, reward = action, params.pays[state.place, action]
        time = state.time + 1
        following = params.goes[state.place, choice]
        following = jnp.where(params.phase > 0, time // jnp.maximum(params.phase, 1) % 2, following)
        terminated = following == END
        truncated = (time == params.limit) & ~terminated
        reached = jnp.where(terminated, state.place, following)
        return self._observe(reached), ProbeState(reached, time), reward, terminated, truncated, {}

    def _observe(self, state: Array) -> Array:
        return state if self.index else jax.nn.one_hot(state, 2)


@component
class ProbeTasks:
    """One of the probes as a task distribution."""

    name: str = static("constant", doc="of the probe", choices=tuple(PROBES))
    continuous: bool = static(False, doc="see Probe")
    index: bool = static(False, doc="see Probe")
    lifetime: int = number(1000, doc="inner updates of a lifetime", at_least=1)

    @property
    def environment(self) -> Probe:
        return Probe(continuous=self.continuous, index=self.index)

    @property
    def num_kinds(self) -> int:
        return 1

    def sample(self, key: Array) -> Task:
        return agent_task(_arrays(PROBES[self.name].params), jnp.asarray(self.lifetime, jnp.int32))

    def sample_set(self, key: Array, count: int) -> Task:
        return jax.vmap(self.sample)(jax.random.split(key, count))


def raised(agent: Any, updates: int, worlds: dict[str, World] | None = None, seed: int = 0) -> dict[str, Any]:
    """World's name to the state of an agent that has lived ``updates`` inner updates there; one program.

    Args:
        agent: an inner loop without meta-parameters whose environment is a ``Probe``.
        updates: to live.
        worlds: all probes unless given.
        seed: of everything.
    """
    worlds = PROBES if worlds is None else worlds
    params = jax.tree.map(
        lambda *leaves: jnp.stack(leaves), *(_arrays(one.params) for one in worlds.values())
    )

    @jax.jit
    @jax.vmap
    def live(params: ProbeParams, key: Array) -> Any:
        born_key, live_key = jax.random.split(key)
        state = agent.init(born_key, (), agent_task(params, jnp.asarray(updates, jnp.int32)))
        step = lambda state, key: (agent.step(key, (), state, None)[0], None)  # noqa: E731
        return jax.lax.scan(step, state, jax.random.split(live_key, updates))[0]

    states = live(params, jax.random.split(jax.random.key(seed), len(worlds)))
    return {name: jax.tree.map(lambda leaf, at=at: leaf[at], states) for at, name in enumerate(worlds)}


def _arrays(params: ProbeParams) -> ProbeParams:
    return ProbeParams(
        *(
            jnp.asarray(leaf, float if name in ("pays", "best") else jnp.int32)
            for name, leaf in params._asdict().items()
        )
    )
