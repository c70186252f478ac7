"""How good an agent is at trials, apart from its life: one in each of ``B`` worlds that it is judged on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from inner_loops.environments.trials import TrialParams, Trials
from metalab.protocols import PyTree

__all__ = ["judged"]


def judged(
    trials: Trials,
    key: Array,
    params: TrialParams,
    memory: PyTree,
    act: Callable[[PyTree, Array, Array], tuple[PyTree, Array]],
    noted: Callable[[PyTree, Array, Array, Array], PyTree],
    num_envs: int,
) -> dict[str, Array]:
    """Mean return of a trial's last episode (``return``) and of its first one (``first_return``).

    Args:
        trials: the world.
        key: PRNG key.
        params: of it; worlds are drawn from ``judged_on``.
        memory: of a newborn, leaves ``[B, ...]``.
        act: ``(memory, obs [B, ...], uniform [B])`` to the memory and the actions ``[B]``.
        noted: ``(memory, action, reward, done)`` to the memory after a step, all ``[B, ...]``.
        num_envs: B.
    """
    params = TrialParams(params.judged_on, params.judged_on)
    reset_key, noise_key, env_key = jax.random.split(key, 3)
    obs, state = jax.vmap(trials.reset, (0, None))(jax.random.split(reset_key, num_envs), params)
    step = jax.vmap(trials.step, (0, 0, 0, None))

    def body(now: Any, xs: tuple[Array, Array]) -> tuple[Any, Array]:
        obs, state, memory, over = now
        memory, action = act(memory, obs, xs[0])
        obs, state, reward, ended, _, info = step(xs[1], state, action, params)
        memory = noted(memory, action, reward, ended)
        which = jnp.stack([info["episode"] == trials.episodes - 1, info["episode"] == 0])
        paid = jnp.where(which & ~over, reward, 0.0)  # a trial that is over counts no more
        return (obs, state, memory, over | ended), paid

    shape = (trials.longest, num_envs)
    xs = (jax.random.uniform(noise_key, shape), jax.random.split(env_key, shape))
    paid = jax.lax.scan(body, (obs, state, memory, jnp.zeros(num_envs, bool)), xs)[1]
    last, first = jnp.mean(jnp.sum(paid, axis=0), axis=-1)
    return {"return": last, "first_return": first}
