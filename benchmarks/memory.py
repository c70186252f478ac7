"""Seconds of a learning pass over whole sequences: S5 against a GRU of equal width.

    python -m benchmarks.memory [--lengths 32 128 512 2048] [--envs 8] [--width 64] [--cores s5]

The case: the gradient of a loss on all features by all parameters, as PPO takes it of one minibatch: one
layer each, S5 with a state as large as its width, resets at random. Beside it S5 with its states computed by
JAX's associative scan, and one after another. One device; a length's measurements are interleaved, by the
wall's clock and in CPU-seconds of all threads; compiling is apart; medians.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from benchmarks.processes import clock
from benchmarks.tables import conditions, load_average, table
from inner_loops.networks.memory.base import SequenceCore
from inner_loops.networks.memory.gru import GRU
from inner_loops.networks.memory.recurrence import Pair, advanced, unless
from inner_loops.networks.memory.s5 import S5, through
from metalab.protocols import PyTree

NUM_INPUTS = 8
RESETS = 0.02  # share of the steps that begin an episode

Run = Callable[[], tuple[float, float]]  # wall and CPU seconds of one measurement


class StepwiseS5(S5):
    """S5 that learns as it acts, step after step."""

    def run(self, params: Any, carry: Any, inputs: Array, reset: Array) -> tuple[PyTree, Array]:
        """``S5.run`` as a scan over ``S5.step``."""

        def body(carry: PyTree, xs: tuple[Array, Array]) -> tuple[PyTree, tuple[PyTree, Array]]:
            carry, features = self.step(params, carry, *xs)
            return carry, (carry, features)

        return jax.lax.scan(body, carry, (inputs, reset))[1]


class AssociativeS5(S5):
    """S5 with JAX's parallel scan in place of blocks."""

    def run(self, params: Any, carry: Any, inputs: Array, reset: Array) -> tuple[PyTree, Array]:
        """``S5.run`` by ``jax.lax.associative_scan``."""

        def composed(earlier: tuple[Pair, Pair], later: tuple[Pair, Pair]) -> tuple[Pair, Pair]:
            zero = (jnp.zeros_like(later[0][0]), jnp.zeros_like(later[0][0]))
            return advanced(later[0], earlier[0], zero), advanced(later[0], earlier[1], later[1])

        def along(factor: Pair, drive: Pair, start: Pair) -> Pair:
            factors = unless(reset[:, None], factor)
            first = advanced((factors[0][0], factors[1][0]), start, (drive[0][0], drive[1][0]))
            begun = (drive[0].at[0].set(first[0]), drive[1].at[0].set(first[1]))
            return jax.lax.associative_scan(composed, (factors, begun))[1]

        return through(params, carry, inputs, along)


CORES = {"s5": S5, "s5-associative": AssociativeS5, "s5-stepwise": StepwiseS5}


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--lengths", type=int, nargs="+", default=[32, 128, 512, 2048], help="steps T")
    parser.add_argument("--envs", type=int, default=8, help="sequences of a minibatch")
    parser.add_argument(
        "--width", type=int, default=64, help="features, and real numbers in S5's state; even"
    )
    parser.add_argument("--repeats", type=int, default=15, help="measurements of each; the median is shown")
    parser.add_argument("--cores", nargs="+", default=list(CORES), choices=CORES, help="beside the GRU")
    options = parser.parse_args()
    load = load_average()
    cores = {"gru": GRU(width=options.width)} | {
        name: CORES[name](width=options.width, state_size=options.width, layers=1) for name in options.cores
    }
    rows = []
    for length in options.lengths:
        made = {name: learning_pass(core, length, options.envs) for name, core in cores.items()}
        found = interleaved({name: run for name, (run, _) in made.items()}, options.repeats)
        for name, (_, compile_s) in made.items():
            wall, cpu = found[name]
            ratios = [f"{theirs / own:.2f}" for theirs, own in zip(found["gru"], (wall, cpu), strict=True)]
            by_step = f"{wall / (length * options.envs) * 1e6:.2f}"
            times = [f"{wall * 1e3:.2f}", f"{cpu * 1e3:.2f}", by_step]
            rows.append([f"T = {length}, {name}", *times, *ratios, f"{compile_s:.1f}"])
    head = ["core", "ms", "CPU-ms", "us a step", "gru's ms / ms", "gru's CPU / CPU", "compile s"]
    print(table(head, rows))
    print(f"\n{options.envs} sequences, width {options.width}, medians of {options.repeats}")
    print(conditions(load))


def interleaved(runs: Mapping[str, Run], repeats: int) -> dict[str, tuple[float, float]]:
    """Medians of wall and CPU seconds of each, measured in turn after a first round that is not counted."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for index in range(repeats + 1):
        for name, run in runs.items():
            seconds = run()
            if index:
                taken[name].append(seconds)
    return {
        name: (statistics.median(wall for wall, _ in seconds), statistics.median(cpu for _, cpu in seconds))
        for name, seconds in taken.items()
    }


def learning_pass(core: SequenceCore, length: int, envs: int) -> tuple[Run, float]:
    """A measurement of one gradient over ``envs`` sequences; seconds to trace and compile."""
    init_key, input_key, reset_key = jax.random.split(jax.random.key(0), 3)
    params = core.init(init_key, NUM_INPUTS)
    inputs = jax.random.normal(input_key, (envs, length, NUM_INPUTS))
    reset = jax.random.bernoulli(reset_key, RESETS, (envs, length))

    def loss(params: PyTree, inputs: Array, reset: Array) -> Array:
        run = jax.vmap(core.run, (None, None, 0, 0))
        return jnp.mean(jnp.square(run(params, core.empty(), inputs, reset)[1]))

    start = time.perf_counter()
    compiled = jax.jit(jax.grad(loss)).lower(params, inputs, reset).compile()
    compile_s = time.perf_counter() - start

    def run() -> tuple[float, float]:
        wall, cpu = clock()
        jax.block_until_ready(compiled(params, inputs, reset))
        wall_after, cpu_after = clock()
        return wall_after - wall, cpu_after - cpu

    return run, compile_s


if __name__ == "__main__":
    main()
