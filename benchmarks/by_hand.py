"""The ways of training the points of a sweep that a person writes in an afternoon: no pack, no engine.

All of them train one point by the same jitted function, a scan over all of its outer steps that takes the
point's numbers as arguments, on one JAX device as JAX comes. Its result is brought to the host before the
next point starts.
"""

from __future__ import annotations

import multiprocessing
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.synchronize import Barrier
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from benchmarks.agents import Case
from benchmarks.processes import Phases, clock
from metalab.components import as_arrays
from metalab.sweep.program import lane_keys, stream

__all__ = ["alone", "loop", "threads", "workers"]

_AT_ONCE = 2  # threads, and worker processes: what two cores can do at once
_PATIENCE = 600.0  # seconds that one worker waits for another


class _Ready(NamedTuple):
    """A compiled function and what it takes.

    Attributes:
        train: outer loop and key to metrics ``[outer_steps]``.
        loops: outer loops of the points, leaves are arrays.
        key: of all points, as in a sweep with one seed.
        ready: since the epoch, before anything was traced.
        trace, compile: seconds.
    """

    train: Any
    loops: list[Any]
    key: Array
    ready: float
    trace: float
    compile: float


def alone(case: Case) -> Phases:
    """The first point in a process of its own."""
    return _in_turn(_prepared(case), points=1)


def loop(case: Case) -> Phases:
    """One jitted function called once for every point."""
    return _in_turn(_prepared(case), points=case.points)


def threads(case: Case) -> Phases:
    """One jitted function called from two threads."""
    made, before = _prepared(case), clock()
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        scores = list(pool.map(lambda one: _score(made, one), made.loops))
    after = clock()
    return _phases(made, scores, after[0] - before[0], after[1] - before[1])


def workers(case: Case) -> Phases:
    """Two worker processes that share the points; each has imported and compiled before the first point.

    What both do at once is timed from outside: imports until both are ready, then tracing and compilation
    until both are done, then the points.
    """
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(_AT_ONCE + 1)
    with context.Pool(_AT_ONCE, _worker, (case, barrier)) as pool:
        barrier.wait(_PATIENCE)
        ready, imported = time.time(), time.perf_counter()
        barrier.wait(_PATIENCE)
        compiled = time.perf_counter()
        done = pool.map(_work, range(case.points), chunksize=1)
        ran = time.perf_counter()
    trace = max(one.trace for one in done)
    return Phases(
        ready=ready,
        trace=trace,
        compile=compiled - imported - trace,
        run=ran - compiled,
        run_cpu=sum(one.cpu for one in done),
        scores=[one.score for one in done],
    )


class _Done(NamedTuple):
    """What a worker sends back of one point: its score, CPU-seconds, and how long the worker traced."""

    score: float
    cpu: float
    trace: float


_made: _Ready | None = None  # of a worker process, between its start and its points


def _worker(case: Case, barrier: Barrier) -> None:
    global _made
    loops = _loops(case)
    barrier.wait(_PATIENCE)
    _made = _compiled(case, loops)
    barrier.wait(_PATIENCE)


def _work(point: int) -> _Done:
    assert _made is not None
    before = time.process_time()
    score = _score(_made, _made.loops[point])
    return _Done(score, time.process_time() - before, _made.trace)


def _loops(case: Case) -> list[Any]:
    """The points' outer loops; what the first use of an environment imports is imported by now."""
    loops = [as_arrays(case.outer_loop(rate)) for rate in case.rates]
    jax.eval_shape(lambda loop: loop.tasks.sample(jax.random.key(0)), loops[0])
    return loops


def _prepared(case: Case) -> _Ready:
    return _compiled(case, _loops(case))


def _compiled(case: Case, loops: list[Any]) -> _Ready:
    """Traces and compiles the training of one point."""

    def train(loop: Any, key: Array) -> dict[str, Array]:
        keys = stream(key, "train")

        def step(state: Any, number: Array) -> tuple[Any, dict[str, Array]]:
            return loop.step(jax.random.fold_in(keys, number), state, None)

        state = loop.init(stream(key, "init"))
        return jax.lax.scan(step, state, jnp.arange(case.outer_steps, dtype=jnp.int32))[1]

    key, ready = lane_keys(1, 1)[0], time.time()
    start = time.perf_counter()
    lowered = jax.jit(train).lower(loops[0], key)
    traced = time.perf_counter()
    compiled = lowered.compile()
    return _Ready(compiled, loops, key, ready, traced - start, time.perf_counter() - traced)


def _score(made: _Ready, loop: Any) -> float:
    metrics = jax.tree.map(np.asarray, made.train(loop, made.key))
    return float(metrics["score"][-1])


def _in_turn(made: _Ready, points: int) -> Phases:
    before = clock()
    scores = [_score(made, one) for one in made.loops[:points]]
    after = clock()
    return _phases(made, scores, after[0] - before[0], after[1] - before[1])


def _phases(made: _Ready, scores: list[float], run: float, run_cpu: float) -> Phases:
    return Phases(made.ready, made.trace, made.compile, run, run_cpu, scores)
