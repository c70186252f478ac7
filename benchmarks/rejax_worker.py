"""rejax's PPO on CartPole as a process that measures one training whenever it is told to.

``benchmarks.ppo`` runs it with the interpreter of an environment of rejax's own, so it imports nothing of
metalab. Arguments: seeds, environment steps of a training. It prints the seconds that compiling took, and
then, for every line on its standard input, the seconds of one training of all seeds under ``vmap``. There
is no evaluation inside.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any


class FiveValues:
    """A gymnax 1.0 environment whose ``step`` gives five values, as rejax 0.1 expects."""

    def __init__(self, environment: Any) -> None:
        self.environment = environment

    def __getattr__(self, name: str) -> Any:
        # rejax copies its configuration: while a copy is made it has no fields to ask
        if name.startswith("__") or name == "environment":
            raise AttributeError(name)
        return getattr(self.environment, name)

    def reset(self, key: Any, params: Any) -> Any:
        """As it is."""
        return self.environment.reset(key, params)

    def step(self, key: Any, state: Any, action: Any, params: Any) -> Any:
        """Both ends of an episode are one."""
        obs, state, reward, terminated, truncated, info = self.environment.step(key, state, action, params)
        return obs, state, reward, terminated | truncated, info


def main() -> None:
    """Compiles, and measures until the input ends."""
    import gymnax
    import jax
    import jax.numpy as jnp
    from rejax import PPO  # pyright: ignore[reportMissingImports]

    seeds, steps, settings = int(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])
    environment, params = gymnax.make("CartPole-v1")
    algorithm = PPO.create(
        env=FiveValues(environment),
        env_params=params,
        total_timesteps=steps,
        eval_freq=steps,
        skip_initial_evaluation=True,
        **settings,
    ).replace(eval_callback=lambda algorithm, state, key: jnp.zeros(()))

    def keys(number: int) -> Any:
        return jax.random.split(jax.random.key(number), seeds)

    start = time.perf_counter()
    train = jax.jit(jax.vmap(algorithm.train)).lower(keys(0)).compile()
    print(time.perf_counter() - start, flush=True)
    jax.block_until_ready(train(keys(0)))
    for number, _ in enumerate(sys.stdin):
        batch = jax.block_until_ready(keys(1 + number))
        start = time.perf_counter()
        jax.block_until_ready(train(batch))
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main()
