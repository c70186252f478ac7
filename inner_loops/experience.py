"""What agents with a replay share: acting in parallel environments, and filing what they did as transitions.

A transition of ``n`` steps is complete only ``n - 1`` steps later. The last ``n - 1`` steps of a rollout are
therefore kept and put before the next one: every transition has its full ``n`` steps unless its episode ends
first, and none is lost or filed twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from inner_loops import draws
from inner_loops.environments.base import Environment
from inner_loops.episodes import Episodes, count_episodes, no_episodes
from inner_loops.n_step import Step, Transition, n_step_transitions
from inner_loops.replay import Replay, empty_replay
from inner_loops.trajectory import Trajectory
from metalab.protocols import PyTree
from metalab.trees import select

__all__ = [
    "STORED",
    "Experience",
    "World",
    "act",
    "act_and_learn",
    "check_warmup",
    "delayed_starts",
    "file_steps",
    "new_world",
    "no_experience",
    "recorded",
]

# How observations may be stored; uint8 is exact for whole numbers from 0 to 255 and for nothing else.
STORED = ("float32", "bfloat16", "uint8")


class World(NamedTuple):
    """The parallel environments of one learner.

    Attributes:
        state, obs: leaves ``[B, ...]``.
        params: of the environment, shared by all.
        episodes: statistics.
        steps: [] int32 steps lived, over all environments.
    """

    state: PyTree
    obs: Array
    params: PyTree
    episodes: Episodes
    steps: Array


class Experience(NamedTuple):
    """What a learner remembers.

    Attributes:
        replay: transitions.
        recent: leaves ``[n - 1, B, ...]``, the steps whose transitions are not complete.
    """

    replay: Replay
    recent: Step


def new_world(environment: Environment, key: Array, params: PyTree, num_envs: int) -> World:
    """``num_envs`` environments at the beginning of an episode."""
    reset = jax.vmap(environment.reset, (0, None))
    obs, state = reset(jax.random.split(key, num_envs), params)
    return World(state, obs, params, no_episodes(num_envs), jnp.zeros((), jnp.int32))


def delayed_starts(
    environment: Environment, key: Array, world: World, delays: Array, longest: int, action: Array
) -> World:
    """Environments that have lived some steps with one action, so that their episodes end at different times.

    Args:
        environment: the world's dynamics.
        key: PRNG key.
        world: at birth.
        delays: [B] int32 steps.
        longest: an upper end of them.
        action: as the environment wants it.
    """
    env_step = jax.vmap(environment.step, (0, 0, None, None))

    def body(index: Array, now: tuple[Array, PyTree]) -> tuple[Array, PyTree]:
        keys = jax.random.split(jax.random.fold_in(key, index), delays.shape[0])
        moved = env_step(keys, now[1], action, world.params)[:2]
        return select(index < delays, moved, now)

    obs, state = jax.lax.fori_loop(0, longest, body, (world.obs, world.state))
    return world._replace(obs=obs, state=state)


def act(
    environment: Environment,
    key: Array,
    world: World,
    noise: PyTree,
    choose: Callable[[Array, PyTree], tuple[Array, Array]],
) -> tuple[World, Step]:
    """``T`` steps of every environment, by an agent that stays as it is; see ``act_and_learn``."""
    world, _, steps = act_and_learn(
        environment, key, world, noise, lambda _, obs, drawn: choose(obs, drawn), (), lambda agent, _: agent
    )
    return world, steps


def act_and_learn(
    environment: Environment,
    key: Array,
    world: World,
    noise: PyTree,
    choose: Callable[[PyTree, Array, PyTree], tuple[Array, Array]],
    agent: PyTree,
    learn: Callable[[PyTree, Step], PyTree],
) -> tuple[World, PyTree, Step]:
    """``T`` steps of every environment, by an agent that may learn after each.

    Nothing flows back through the actions: environments are not differentiated.

    Args:
        environment: the world's dynamics.
        key: PRNG key of the environments.
        world: before the steps.
        noise: the actions' random numbers, leaves ``[T, B, ...]``.
        choose: ``(agent, obs [B, ...], noise [B, ...])`` to the actions as they are filed and as the
            environment wants them, each ``[B, ...]``.
        agent: before the steps.
        learn: ``(agent, step)`` to the agent after a step, leaves ``[B, ...]``.

    Returns:
        The world and the agent after the steps, and the record, leaves ``[T, B, ...]``.
    """
    length, num_envs = jax.tree.leaves(noise)[0].shape[:2]
    keys = draws.split(key, (length, num_envs))
    env_step = jax.vmap(environment.step, (0, 0, 0, None))

    def body(carry: tuple[Array, PyTree, PyTree], xs: tuple[Array, PyTree]) -> tuple[Any, Any]:
        obs, state, agent = carry
        filed, done = jax.lax.stop_gradient(choose(agent, obs, xs[1]))
        next_obs, state, reward, terminated, truncated, info = env_step(xs[0], state, done, world.params)
        cost = info["cost"] if environment.num_costs else ()
        step = Step(obs, filed, reward, terminated, truncated, info["final_observation"], cost)
        return (next_obs, state, learn(agent, step)), (step, info["score"])

    carry = (world.obs, world.state, agent)
    (obs, state, agent), (steps, score) = jax.lax.scan(body, carry, (keys, noise))
    episodes = count_episodes(world.episodes, score, steps.terminated | steps.truncated)
    lived = world.steps + length * num_envs
    return World(state, obs, world.params, episodes, lived), agent, steps


def recorded(environment: Environment, world: World, steps: Step) -> Trajectory:
    """A rollout's steps (leaves ``[T, B, ...]``) as observers want them, with the world after it.

    The scores are the rewards here: what a learner was paid is what an observer keeps.
    """
    return Trajectory(
        obs=jnp.concatenate([steps.obs, world.obs[None]]),
        action=steps.action,
        reward=steps.reward,
        score=steps.reward,
        terminated=steps.terminated,
        truncated=steps.truncated,
        next_obs=steps.next_obs,
        action_mask=environment.action_mask(world.params),
    )


def check_warmup(warmup: Any, capacity: int) -> None:
    """Refuses an agent that would never learn.

    Args:
        warmup: transitions in the replay before the first gradient step; may be a tracer, which passes.
        capacity: transitions of the replay.

    Raises:
        ValueError: the replay never holds so many.
    """
    if type(warmup) is int and warmup > capacity:
        raise ValueError(
            f"warmup: a replay of {capacity} transitions never holds {warmup}, so that nothing would ever be "
            "learned; choose a larger capacity or a smaller warmup"
        )


def no_experience(
    obs: Array, action: Array, num_envs: int, capacity: int, n_step: int, stored: str, num_costs: int = 0
) -> Experience:
    """Nothing remembered.

    Args:
        obs: one observation, for its shape; one that is no state index is kept in the dtype ``stored``.
        action: one action, for its shape and dtype.
        num_envs: B.
        capacity: transitions of the replay.
        n_step: n.
        stored: one of ``STORED``.
        num_costs: C, costs of a step.
    """
    kept = obs if jnp.issubdtype(obs.dtype, jnp.integer) else obs.astype(stored)
    flag, scalar = jnp.zeros((), bool), jnp.zeros(())
    cost = jnp.zeros(num_costs) if num_costs else ()
    recent = Step(kept, action, scalar, flag, flag, kept, cost)
    recent = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (n_step - 1, num_envs, *leaf.shape)), recent)
    # The first transitions would begin in steps that nobody made.
    replay = empty_replay(
        Transition(kept, action, scalar, scalar, kept, cost), capacity, (n_step - 1) * num_envs
    )
    return Experience(replay, recent)


def file_steps(
    experience: Experience, steps: Step, discount: Array | float, counts: Array | None = None
) -> Experience:
    """The experience with the ``T * B`` transitions that ``steps`` (leaves ``[T, B, ...]``) completed.

    Args:
        experience: before the steps.
        steps: of every environment.
        discount: [] gamma.
        counts: [] bool; where not, the experience stays as it is.
    """
    steps = jax.tree.map(lambda new, old: new.astype(old.dtype), steps, experience.recent)
    open_steps = experience.recent.reward.shape[0]
    window = jax.tree.map(lambda old, new: jnp.concatenate([old, new]), experience.recent, steps)
    made = jax.vmap(lambda one: n_step_transitions(one, discount, open_steps + 1), in_axes=1, out_axes=1)(
        window
    )
    rows = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), made)
    length = steps.reward.shape[0]
    recent = jax.tree.map(lambda leaf: leaf[length:], window)
    if counts is not None:
        recent = select(counts, recent, experience.recent)
    return Experience(experience.replay.add(rows, counts), recent)
