"""Grid worlds drawn for each lifetime from a named distribution (``grid_presets``).

Places are drawn by one random order of a world's cells: the first is the agent's start, the next ones hold
the objects, the next ones are walls. So no object stands on a wall, on the start or on another object;
walls may shut an object in, as in any random maze.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from inner_loops.environments.grid_world import GridWorld, GridWorldParams
from inner_loops.tasks.agent_task import agent_task, sample_lifetime
from inner_loops.tasks.grid_presets import PRESETS, GridPreset, ObjectRange
from metalab.components import component, number, static
from metalab.protocols import Task

__all__ = ["GridWorlds"]


@component
class GridWorlds:
    """Grid worlds drawn from a named distribution, one per lifetime (Oh et al. 2020)."""

    preset: str = static(default="small", doc="the distribution of worlds", choices=tuple(PRESETS))
    actions: str = static(
        default="preset",
        doc="the action set; `preset`: the distribution's own (mixed in the paper's, else compass)",
        choices=("preset", "compass", "move", "move_and_collect", "mixed"),
    )
    observation: str = static(
        default="preset",
        doc="state index or planes; `preset`: the distribution's own (planes where objects move)",
        choices=("preset", "index", "planes"),
    )
    lifetime: int = number(default=250, doc="inner updates of a lifetime", at_least=1)
    shortest_lifetime: int = number(
        default=0, doc="above 0: lifetimes are log-uniform from here to `lifetime`", at_least=0
    )

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise ValueError(f"grid_worlds: preset={self.preset!r} is not one of {', '.join(PRESETS)}")
        if self.observation == "index" and PRESETS[self.preset].random_positions:
            raise ValueError(
                f"grid_worlds: preset={self.preset!r} moves its objects, which observation='index' would "
                "hide; use observation='planes'"
            )

    @property
    def environment(self) -> GridWorld:
        """The grid world that has room for every kind of the distribution."""
        worlds = self._preset
        observation = "planes" if worlds.random_positions else "index"
        return GridWorld(
            max_height=max(kind.height[1] for kind in worlds.kinds),
            max_width=max(kind.width[1] for kind in worlds.kinds),
            num_objects=max(len(kind.objects) for kind in worlds.kinds),
            actions=worlds.actions if self.actions == "preset" else self.actions,
            observation=observation if self.observation == "preset" else self.observation,
            random_positions=worlds.random_positions,
            object_types=_types(worlds) if len(worlds.kinds) == 1 else (),
        )

    @property
    def num_kinds(self) -> int:
        """Types of world in the distribution."""
        return len(self._preset.kinds)

    def sample(self, key: Array) -> Task:
        """Draws a type of world and a world of it."""
        kind_key, key = jax.random.split(key)
        return self._task(key, jax.random.randint(kind_key, (), 0, self.num_kinds))

    def sample_set(self, key: Array, count: int) -> Task:
        """``count`` worlds that cycle through the types."""
        return jax.vmap(self._task)(jax.random.split(key, count), jnp.arange(count) % self.num_kinds)

    @property
    def _preset(self) -> GridPreset:
        return PRESETS[self.preset]

    def _task(self, key: Array, kind: Array) -> Task:
        world_key, lifetime_key = jax.random.split(key)
        lifetime = sample_lifetime(lifetime_key, self.lifetime, self.shortest_lifetime)
        return agent_task(self._world(world_key, kind), lifetime, kind)

    def _world(self, key: Array, kind: Array) -> GridWorldParams:
        place_key, wall_key, count_key, object_key, limit_key, collect_key = jax.random.split(key, 6)
        kinds, objects = self._preset.kinds, self.environment.num_objects
        index = jnp.arange(objects)
        drawn = _objects(object_key, self._preset, objects, kind)
        count = _whole(count_key, [k.num_objects for k in kinds], kind)
        walls = _whole(wall_key, [k.walls for k in kinds], kind)
        start, positions, wall_mask = self._places(place_key, kind, walls)
        return GridWorldParams(
            walls=wall_mask,
            positions=positions,
            present=index < count,
            start=start,
            max_steps=_log_whole(limit_key, [k.max_steps for k in kinds], kind),
            collects=jax.random.bernoulli(collect_key),
            **drawn,
        )

    def _places(self, key: Array, kind: Array, num_walls: Array) -> tuple[Array, Array, Array]:
        """The start [], the objects' cells [M] and the mask of walls and of the outside [C]."""
        order_key, height_key, width_key = jax.random.split(key, 3)
        kinds, env = self._preset.kinds, self.environment
        height = _whole(height_key, [k.height for k in kinds], kind)
        width = _whole(width_key, [k.width for k in kinds], kind)
        rows, columns = np.divmod(np.arange(env.num_cells), env.max_width)
        outside = (rows >= height) | (columns >= width)
        noise = jax.random.uniform(order_key, (env.num_cells,))
        order = jnp.argsort(noise + outside).astype(jnp.int32)  # the outside comes last
        rank = jnp.argsort(order)
        first_wall = 1 + env.num_objects
        walls = (rank >= first_wall) & (rank < first_wall + num_walls)
        return order[0], order[1:first_wall], walls | outside


def _types(preset: GridPreset) -> tuple[int, ...]:
    """The plane of each object: those that are drawn alike share one."""
    objects = preset.kinds[0].objects
    distinct = list(dict.fromkeys(objects))
    return tuple(distinct.index(item) for item in objects)


def _objects(key: Array, preset: GridPreset, num_objects: int, kind: Array) -> dict[str, Array]:
    """Rewards and probabilities [M] of the objects; padding has none of either."""
    nothing = ObjectRange((0.0, 0.0), (0.0, 0.0), (0.0, 0.0))
    padded = [k.objects + (nothing,) * (num_objects - len(k.objects)) for k in preset.kinds]
    reward_key, term_key, respawn_key = jax.random.split(key, 3)

    def ends(name: str) -> tuple[Array, Array]:
        table = jnp.asarray([[getattr(item, name) for item in row] for row in padded], jnp.float32)
        return table[kind, :, 0], table[kind, :, 1]

    low, high = ends("reward")
    return {
        "reward": low + (high - low) * jax.random.uniform(reward_key, (num_objects,)),
        "eps_term": _log_uniform(term_key, *ends("eps_term")),
        "eps_respawn": _log_uniform(respawn_key, *ends("eps_respawn")),
    }


def _log_uniform(key: Array, low: Array, high: Array) -> Array:
    """Log-uniform where the ends differ; exactly the constant, which may be 0, where they are equal."""
    varied = low * jnp.exp(jax.random.uniform(key, low.shape) * jnp.log(high / jnp.where(low > 0, low, 1.0)))
    return jnp.where(low < high, varied, low)


def _whole(key: Array, ranges: list[tuple[int, int]], kind: Array) -> Array:
    """[] int32, uniform over the range of this kind, ends included."""
    low, high = jnp.asarray(ranges, jnp.int32)[kind]
    return jax.random.randint(key, (), low, high + 1)


def _log_whole(key: Array, ranges: list[tuple[int, int]], kind: Array) -> Array:
    """[] int32, log-uniform over the range of this kind, ends included."""
    low, high = jnp.asarray(ranges, jnp.int32)[kind]
    return sample_lifetime(key, high, low)
