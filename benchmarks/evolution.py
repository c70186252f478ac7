"""A generation of evolution: metalab's against evosax used directly, and what ask and tell take of it.

    python -m benchmarks.evolution [--population 128] [--tasks 16] [--repeats 7]

One fitness function, three programs, each a compiled scan over generations whose state feeds the next one:

* metalab: the steps of ``EvolutionStrategy``. It raises the mean of the population beside the members, which
  is one life more for every N, and reports metrics.
* evosax: ask, the lives of all members on the same tasks and random numbers, tell; written by hand.
* ask and tell: the same strategy on a fitness that costs nothing.

They run in turn after a first round that is not counted; medians with extremes, compilation apart. Ratios and
shares are of CPU-seconds of the whole process, which a busy machine disturbs less than wall time. A life is
100 steps of a bandit for agents that learn in context, and for a learned rule 16 updates of 10 steps in 8
delayed chains.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from benchmarks.tables import conditions, load_average, spread, table
from inner_loops.actor_critic import ActorCritic
from inner_loops.agents.meta_rnn import MetaRNN
from inner_loops.agents.symla import SymLA
from inner_loops.critics import TabularCritic
from inner_loops.in_context import InContext
from inner_loops.tasks.bernoulli_bandits import BernoulliBandits
from inner_loops.tasks.delayed_chains import DelayedChains
from inner_loops.update_rules.lpg import LPG
from metalab.components import as_arrays
from metalab.optimizers import Adam, Sgd
from outer_loops.evolution_strategy import EvolutionStrategy

SIGMA, RATE = 0.1, 0.02
ARMS, PULLS, PULLS_PER_UPDATE = 2, 100, 10
CHAIN_UPDATES, CHAINS, CHAIN_STEPS = 16, 8, 10

Generation = Callable[[Any, Any], tuple[Any, Any]]  # (state, key) to the state after it and its mean fitness


class Case(NamedTuple):
    """Who lives, where, and for how many inner updates."""

    inner: Any
    tasks: Any
    updates: int


class Program(NamedTuple):
    """One compiled measurement: seconds of each repeat, seconds to compile, the last mean fitness."""

    wall: list[float]
    cpu: list[float]
    compile_s: float
    fitness: float


def main() -> None:
    """Measures and prints one table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES), help="who lives")
    parser.add_argument("--population", type=int, default=128, help="members of a generation, even")
    parser.add_argument("--tasks", type=int, default=16, help="lives of each member")
    parser.add_argument("--generations", type=int, default=5, help="generations of one measurement")
    parser.add_argument("--repeats", type=int, default=7, help="measurements of each; the median is shown")
    options = parser.parse_args()
    if options.population % 2:
        parser.error(f"--population must be even, got {options.population}")
    load_before = load_average()
    header = ["case", "parameters", "metalab, wall ms", "M steps/s", "CPU ms", "evosax, CPU ms", "ratio"]
    header += ["ask + tell, CPU ms", "share, %", "compile s: metalab", "evosax", "fitness: metalab", "evosax"]
    rows = []
    for name in options.cases:
        case = CASES[name]()
        programs = measured(case, options.population, options.tasks, options.generations, options.repeats)
        rows.append(row_of(name, case, programs, options.population * options.tasks, options.generations))
    print(f"{options.population} members, {options.tasks} lives each, Open_ES, per generation")
    print(table(header, rows))
    print(conditions(load_before))


def measured(
    case: Case, population: int, num_tasks: int, generations: int, repeats: int
) -> dict[str, Program]:
    """The three programs of one case, measured in turn."""
    steps = {
        "metalab": metalab_generation(case, population, num_tasks),
        "evosax": evosax_generation(case, population, num_tasks),
        "ask and tell": ask_and_tell(case, population),
    }
    return in_turn(steps, generations, repeats)


def metalab_generation(case: Case, population: int, num_tasks: int) -> tuple[Any, Generation]:
    """The first state, with the loop beside it (its numbers are no constants), and a step of the loop."""
    outer = as_arrays(
        EvolutionStrategy(
            inner=case.inner,
            tasks=case.tasks,
            population=population,
            sigma=SIGMA,
            optimizer=Adam(learning_rate=RATE),
            num_tasks=num_tasks,
            share="population",
            max_lifetime=case.updates,
        )
    )

    def generation(state: Any, key: Any) -> tuple[Any, Any]:
        outer, search = state
        search, metrics = outer.step(key, search, None)
        return (outer, search), metrics["fitness_mean"]

    return (outer, jax.jit(outer.init)(jax.random.key(0))), generation


def evosax_generation(case: Case, population: int, num_tasks: int) -> tuple[Any, Generation]:
    """The first state, with learner and tasks beside it, and ask, the members' lives, tell."""
    strategy, params, first = evosax_strategy(case, population)

    def life(world: tuple[Any, Any], key: Any, meta: Any) -> Any:
        inner, tasks = world
        task_key, birth_key, live_key, judge_key = jax.random.split(key, 4)
        newborn = inner.init(birth_key, meta, tasks.sample(task_key))
        keys = jax.random.split(live_key, case.updates)
        lived, outs = jax.lax.scan(lambda state, key: inner.step(key, meta, state, None), newborn, keys)
        return inner.evaluate(judge_key, meta, lived, outs, None)[1].score

    def generation(state: Any, key: Any) -> tuple[Any, Any]:
        world, search = state
        ask_key, live_key, tell_key = jax.random.split(key, 3)
        members, search = strategy.ask(ask_key, search, params)
        lives = jax.vmap(jax.vmap(life, (None, 0, None)), (None, None, 0))
        fitness = jnp.mean(lives(world, jax.random.split(live_key, num_tasks), members), axis=1)
        search, _ = strategy.tell(tell_key, members, -fitness, search, params)
        return (world, search), jnp.mean(fitness)

    return (as_arrays((case.inner, case.tasks)), first), generation


def ask_and_tell(case: Case, population: int) -> tuple[Any, Generation]:
    """The first state, and a generation whose fitness is one number of each member."""
    strategy, params, state = evosax_strategy(case, population)

    def generation(state: Any, key: Any) -> tuple[Any, Any]:
        ask_key, tell_key = jax.random.split(key)
        members, state = strategy.ask(ask_key, state, params)
        fitness = jax.tree.leaves(members)[0].reshape(population, -1)[:, 0]
        state, _ = strategy.tell(tell_key, members, -fitness, state, params)
        return state, jnp.mean(fitness)

    return state, generation


def evosax_strategy(case: Case, population: int) -> tuple[Any, Any, Any]:
    """Open_ES as its documentation says, its parameters and first state, strongly typed."""
    from evosax.algorithms import Open_ES

    meta = jax.jit(as_arrays(case.inner).init_meta)(jax.random.key(0))
    strategy = Open_ES(
        population,
        meta,
        optimizer=optax.adam(RATE),
        std_schedule=optax.constant_schedule(SIGMA),
        metrics_fn=lambda *_: {},
    )
    params = strategy.default_params
    state = strategy.init(jax.random.key(1), meta, params)
    return strategy, params, jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf)), state)


def in_turn(
    steps: Mapping[str, tuple[Any, Generation]], generations: int, repeats: int
) -> dict[str, Program]:
    """Compiles every generation's scan, then runs all in turn."""
    compiled, states, compiling = {}, {}, {}
    keys = jax.random.split(jax.random.key(2), (repeats + 1, generations))
    for name, (state, generation) in steps.items():
        start = time.perf_counter()
        scan = jax.jit(lambda state, keys, body=generation: jax.lax.scan(body, state, keys))
        compiled[name] = scan.lower(state, keys[0]).compile()
        states[name], compiling[name] = state, time.perf_counter() - start
    wall: dict[str, list[float]] = {name: [] for name in steps}
    cpu: dict[str, list[float]] = {name: [] for name in steps}
    fitness = {}
    for repeat in range(repeats + 1):
        for name, run in compiled.items():
            starts = time.perf_counter(), time.process_time()
            states[name], means = jax.block_until_ready(run(states[name], keys[repeat]))
            if repeat:
                wall[name].append(time.perf_counter() - starts[0])
                cpu[name].append(time.process_time() - starts[1])
            fitness[name] = float(means[-1])
    return {name: Program(wall[name], cpu[name], compiling[name], fitness[name]) for name in steps}


def row_of(name: str, case: Case, programs: dict[str, Program], lives: int, generations: int) -> list[str]:
    """One row of the table: a case's figures by generation."""
    ms = {which: [1e3 * s / generations for s in found.cpu] for which, found in programs.items()}
    median = {which: statistics.median(values) for which, values in ms.items()}
    wall = [1e3 * s / generations for s in programs["metalab"].wall]
    steps = lives * case.updates * case.inner.steps_per_update
    parameters = sum(
        leaf.size for leaf in jax.tree.leaves(as_arrays(case.inner).init_meta(jax.random.key(0)))
    )
    return [
        name,
        str(parameters),
        spread(wall),
        f"{steps / statistics.median(wall) / 1e3:.2f}",
        spread(ms["metalab"]),
        spread(ms["evosax"]),
        f"{median['metalab'] / median['evosax']:.2f}",
        spread(ms["ask and tell"], 2),
        f"{100.0 * median['ask and tell'] / median['metalab']:.1f}",
        f"{programs['metalab'].compile_s:.1f}",
        f"{programs['evosax'].compile_s:.1f}",
        f"{programs['metalab'].fitness:.3f}",
        f"{programs['evosax'].fitness:.3f}",
    ]


def _on_bandits(agent: Any) -> Case:
    updates = PULLS // PULLS_PER_UPDATE
    tasks = BernoulliBandits(distribution="biased", arms=(ARMS,), lifetime=updates)
    inner = InContext(agent=agent, environment=tasks.environment, rollout_length=PULLS_PER_UPDATE)
    return Case(inner, tasks, updates)


def _learned_rule() -> Case:
    tasks = DelayedChains(lengths=(5, 6, 8), lifetime=CHAIN_UPDATES)
    inner = ActorCritic(
        rule=LPG(hidden_size=16, prediction_size=8),
        critic=TabularCritic(),
        environment=tasks.environment,
        optimizer=Sgd(learning_rate=160.0),
        num_envs=CHAINS,
        rollout_length=CHAIN_STEPS,
    )
    return Case(inner, tasks, CHAIN_UPDATES)


CASES: dict[str, Callable[[], Case]] = {
    "symla": lambda: _on_bandits(SymLA()),
    "meta_rnn": lambda: _on_bandits(MetaRNN()),
    "lpg": _learned_rule,
}


if __name__ == "__main__":
    main()
