"""CPU-seconds and XLA temporaries of one whole LPG meta-step, with the core's own cost beside it.

    python -m benchmarks.meta_step [--repeats 7]

The case is the one that implementations of LPG are compared on: 16 lifetimes x 16 environments x rollouts
of 20 steps x 5 inner updates, on delayed chains, prediction size 8: births, six rollouts, six runs of the
recurrent core, the meta-gradient and the meta-optimiser's step. Beside it, in the same process and in turn:
the same number of passes of the core alone, forward and backward, by the hand-written reverse rule and by
differentiating a plain scan. CPU-seconds are those of the whole process and count every thread, so that a
busy machine disturbs them less than wall time; medians over the repeats.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from inner_loops.actor_critic import ActorCritic
from inner_loops.networks.recurrent import CORES, core_init
from inner_loops.tasks.delayed_chains import DelayedChains
from inner_loops.update_rules.lpg import LPG
from metalab.components import as_arrays
from metalab.optimizers import Sgd
from outer_loops.meta_gradient import MetaGradient

LIFETIMES, ENVS, STEPS, UPDATES, PREDICTIONS = 16, 16, 20, 5, 8


def main() -> None:
    """Measures and prints one table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=7, help="measurements of each; the median is shown")
    repeats = parser.parse_args().repeats
    device = jax.devices()[0]
    print(f"jax {jax.__version__} on {device.device_kind} ({jax.default_backend()}), median of {repeats}")
    print("core  units  what               CPU-s    wall s   temporaries MiB   compile s")
    for core, size in (("lstm", 64), ("gru", 64), ("lstm", 256), ("gru", 256)):
        cases = {
            "meta-step": meta_step(core, size),
            "core, by hand": core_alone(CORES[core], core, size),
            "core, plain scan": core_alone(plain_scan(core), core, size),
        }
        for name, (cpu, wall, memory, compiling) in measure(cases, repeats).items():
            figures = f"{cpu:6.3f}   {wall:7.3f}   {memory:15.1f}   {compiling:9.1f}"
            print(f"{core:5s} {size:5d}  {name:17s} {figures}")


def meta_step(core: str, size: int) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """One outer step of ``MetaGradient`` and its first arguments."""
    tasks = DelayedChains(noise=1.0)
    inner = ActorCritic(
        rule=LPG(core=core, hidden_size=size, prediction_size=PREDICTIONS),
        environment=tasks.environment,
        optimizer=Sgd(learning_rate=160.0),
        num_envs=ENVS,
        rollout_length=STEPS,
    )
    outer = as_arrays(MetaGradient(inner=inner, tasks=tasks, num_slots=LIFETIMES, truncation=UPDATES))
    state = jax.jit(outer.init)(jax.random.key(0))
    return lambda key, state: outer.step(key, state, None)[0], (jax.random.key(1), state)


def core_alone(run: Callable[..., Any], core: str, size: int) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """Gradient of ``UPDATES + 1`` passes of a core over the same number of sequences, one after another."""
    params = core_init(jax.random.key(0), core, 6, size)
    shape = (UPDATES + 1, LIFETIMES * ENVS, STEPS)
    inputs = jax.random.normal(jax.random.key(1), (*shape, 6))
    reset = jax.random.bernoulli(jax.random.key(2), 0.05, shape)

    def loss(params: Any, inputs: Any) -> Any:
        def one(total: Any, xs: tuple[Any, Any]) -> tuple[Any, None]:
            return total + jnp.sum(jnp.sin(jax.vmap(run, (None, 0, 0))(params, *xs))), None

        return jax.lax.scan(jax.checkpoint(one) if run in CORES.values() else one, 0.0, (inputs, reset))[0]

    return jax.grad(loss, (0, 1)), (params, inputs)


def plain_scan(core: str) -> Callable[..., Any]:
    """The same core as a plain scan over time, differentiated by JAX."""

    def run(params: Any, inputs: Any, reset: Any) -> Any:
        size = params.recurrent.shape[0]

        def lstm(carry: Any, xs: Any) -> Any:
            hidden, cell = (jnp.where(xs[1], 0.0, part) for part in carry)
            gates = xs[0] @ params.inputs + params.bias + hidden @ params.recurrent
            i, f, g, o = jnp.split(gates, 4)
            cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
            hidden = jax.nn.sigmoid(o) * jnp.tanh(cell)
            return (hidden, cell), hidden

        def gru(hidden: Any, xs: Any) -> Any:
            hidden = jnp.where(xs[1], 0.0, hidden)
            x_r, x_z, x_n = jnp.split(xs[0] @ params.inputs + params.bias, 3)
            h_r, h_z, h_n = jnp.split(hidden @ params.recurrent, 3)
            update = jax.nn.sigmoid(x_z + h_z)
            candidate = jnp.tanh(x_n + jax.nn.sigmoid(x_r + h_r) * h_n)
            hidden = (1.0 - update) * candidate + update * hidden
            return hidden, hidden

        zero = jnp.zeros(size)
        body, start = (lstm, (zero, zero)) if core == "lstm" else (gru, zero)
        return jax.lax.scan(body, start, (inputs, reset), reverse=True)[1]

    return run


def measure(
    cases: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]], repeats: int
) -> dict[str, tuple[float, float, float, float]]:
    """Median CPU and wall seconds a call, temporaries in MiB, compile seconds; the cases in turn."""
    compiled, compiling = {}, {}
    for name, (function, arguments) in cases.items():
        start = time.perf_counter()
        compiled[name] = jax.jit(function).lower(*arguments).compile()
        compiling[name] = time.perf_counter() - start
        jax.block_until_ready(compiled[name](*arguments))
    cpu: dict[str, list[float]] = {name: [] for name in cases}
    wall: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(repeats):
        for name, (_, arguments) in cases.items():
            starts = time.process_time(), time.perf_counter()
            jax.block_until_ready(compiled[name](*arguments))
            cpu[name].append(time.process_time() - starts[0])
            wall[name].append(time.perf_counter() - starts[1])
    temporaries = {name: f.memory_analysis().temp_size_in_bytes / 2**20 for name, f in compiled.items()}
    return {
        name: (
            statistics.median(cpu[name]),
            statistics.median(wall[name]),
            temporaries[name],
            compiling[name],
        )
        for name in cases
    }


if __name__ == "__main__":
    main()
