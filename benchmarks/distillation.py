"""Steps a second of Algorithm Distillation: recording a source, teaching a student, letting it live.

    python -m benchmarks.distillation [--contexts 25 100 400] [--lives 32] [--repeats 7]

Recording is tabular Q-learning in dark rooms, all lives in one program. Teaching is the gradient of the
likelihood on a batch of crops; beside it the same with streams mapped over instead of read together. Living
is a student of a given context in dark rooms, with keys and values kept and with the window read anew at
every step. One device; what is compared is measured in turn, by the wall's clock and in CPU-seconds of all
threads; compiling is apart; medians.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from benchmarks.memory import Run, interleaved
from benchmarks.processes import clock
from benchmarks.tables import conditions, load_average, table
from inner_loops.agents.base import Percept, Sizes
from inner_loops.agents.transformer import TransformerAgent
from inner_loops.exploration import EpsilonGreedy
from inner_loops.in_context import InContext
from inner_loops.q_learning import QLearning
from inner_loops.tasks.dark_rooms import DarkRooms
from metalab.components import as_arrays
from metalab.lifetimes import unroll
from metalab.protocols import PyTree

EPISODE = 20
SOURCE_UPDATES, STUDENT_UPDATES = 50, 4  # inner updates of one measurement
TASKS = DarkRooms()
SIZES = Sizes(TASKS.size**2, TASKS.environment.num_actions)


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--contexts", type=int, nargs="+", default=[25, 100, 400], help="steps a step sees")
    parser.add_argument("--lives", type=int, default=32, help="students that live side by side")
    parser.add_argument("--sources", type=int, default=520, help="histories that are recorded side by side")
    parser.add_argument("--batch", type=int, default=32, help="crops of a batch")
    parser.add_argument("--window", type=int, default=100, help="steps of a crop")
    parser.add_argument("--repeats", type=int, default=7, help="measurements of each; the median is shown")
    options = parser.parse_args()
    load = load_average()
    made = {"recording": recording(options.sources)}
    rows = measured(made, options.sources * SOURCE_UPDATES * EPISODE, options.repeats)
    together, apart = (teaching(options.batch, options.window, mapped) for mapped in (False, True))
    made = {"teaching": together, "teaching, streams mapped over": apart}
    rows += measured(made, options.batch * options.window, options.repeats)
    for context in options.contexts:
        kept, reread = (living(options.lives, context, cache) for cache in (True, False))
        made = {f"living, context {context}": kept, f"living, context {context}, read anew": reread}
        rows += measured(made, options.lives * STUDENT_UPDATES * EPISODE, options.repeats)
    head = ["what", "ms", "CPU-ms", "steps/s", "ms / first's", "CPU / first's", "compile s"]
    print(table(head, rows))
    print(f"\nstudents of width 64 and 2 layers; {options.lives} lives, medians of {options.repeats}")
    print(conditions(load))


def measured(made: dict[str, tuple[Run, float]], steps: int, repeats: int) -> list[list[str]]:
    """Rows of what does the same ``steps`` in different ways, compared with the first of them."""
    found = interleaved({name: run for name, (run, _) in made.items()}, repeats)
    first = next(iter(found.values()))
    rows = []
    for name, (_, compile_s) in made.items():
        wall, cpu = found[name]
        ratios = [f"{own / theirs:.2f}" for own, theirs in zip((wall, cpu), first, strict=True)]
        rows.append(
            [
                name,
                f"{wall * 1e3:.1f}",
                f"{cpu * 1e3:.1f}",
                f"{steps / wall:.0f}",
                *ratios,
                f"{compile_s:.1f}",
            ]
        )
    return rows


def recording(lives: int) -> tuple[Run, float]:
    """Q-learning that reports its transitions."""
    source: Any = as_arrays(
        QLearning(
            environment=TASKS.environment,
            num_envs=1,
            rollout_length=EPISODE,
            learning_rate=0.9,
            discount=0.8,
            initial_spread=0.5,
            exploration=EpsilonGreedy(steps=SOURCE_UPDATES * EPISODE),
        )
    )
    tasks = TASKS.sample_set(jax.random.key(0), lives)

    def lived(keys: Array) -> PyTree:
        def one(task: PyTree, key: Array) -> PyTree:
            _, outs = unroll(source, key, (), source.init(key, (), task), SOURCE_UPDATES)
            record = outs.record
            return record.obs, record.action, record.reward

        return jax.vmap(one)(tasks, keys)

    return timed(lived, jax.random.split(jax.random.key(1), lives))


def teaching(batch: int, window: int, mapped: bool) -> tuple[Run, float]:
    """The gradient of a likelihood of random actions."""
    agent = TransformerAgent(context=window, factors=(TASKS.size, TASKS.size))
    params = agent.init_params(jax.random.key(0), SIZES)
    shape = (batch, window)
    keys = jax.random.split(jax.random.key(1), 3)
    cells, before, taken = (
        jax.random.randint(key, shape, 0, most)
        for key, most in zip(keys, (SIZES.observations, SIZES.actions, SIZES.actions), strict=True)
    )
    percepts = Percept(
        obs=jax.nn.one_hot(cells, SIZES.observations),
        action=jax.nn.one_hot(before, SIZES.actions),
        reward=jnp.zeros(shape),
        done=jnp.zeros(shape),
        obs_mask=jnp.ones((*shape, SIZES.observations), bool),
        action_mask=jnp.ones((*shape, SIZES.actions), bool),
    )

    def alone(params: PyTree, stream: Percept) -> Array:
        return agent.run(params, jax.tree.map(lambda leaf: leaf[None], stream))[0]

    def loss(params: PyTree, percepts: Percept) -> Array:
        read = jax.vmap(alone, (None, 0)) if mapped else agent.run
        log_probs = jax.nn.log_softmax(read(params, percepts))
        return -jnp.mean(jnp.take_along_axis(log_probs, taken[..., None], axis=-1))

    return timed(jax.grad(loss), params, percepts)


def living(lives: int, context: int, cache: bool) -> tuple[Run, float]:
    """Students of which the memory is full."""
    agent = TransformerAgent(context=context, factors=(TASKS.size, TASKS.size), cache=cache)
    student: Any = as_arrays(InContext(agent=agent, environment=TASKS.environment, rollout_length=EPISODE))
    params = student.init_meta(jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), lives)
    born = jax.vmap(lambda task, key: student.init(key, params, task))(
        TASKS.sample_set(jax.random.key(0), lives), keys
    )

    def lived(params: PyTree, states: PyTree, keys: Array) -> PyTree:
        def one(state: PyTree, key: Array) -> PyTree:
            return unroll(student, key, params, state, STUDENT_UPDATES)[0]

        return jax.vmap(one)(states, keys)

    return timed(lived, params, born, keys)


def timed(function: Callable[..., PyTree], *args: PyTree) -> tuple[Run, float]:
    """A measurement of a compiled function; seconds to trace and compile."""
    start = time.perf_counter()
    compiled = jax.jit(function).lower(*args).compile()
    compile_s = time.perf_counter() - start

    def run() -> tuple[float, float]:
        wall, cpu = clock()
        jax.block_until_ready(compiled(*args))
        wall_after, cpu_after = clock()
        return wall_after - wall, cpu_after - cpu

    return run, compile_s


if __name__ == "__main__":
    main()
