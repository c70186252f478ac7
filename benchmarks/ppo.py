"""Environment steps a second of PPO on CartPole, beside rejax with the same hyperparameters.

    python -m benchmarks.ppo [--seeds 1 8 32] [--updates 100] [--repeats 5] [--no-peer] [--returns]

The case: 4 environments x 128 steps, 4 epochs x 4 minibatches, 64-64 tanh towers, CartPole-v1. metalab's
lanes go through the program that a sweep compiles, sharded over the local devices; rejax's are one
``vmap``, as its users run them, without evaluation, in an environment that is made for it (``python -m
venv``, under the cache folder). All measurements of a table are interleaved in one run; compiling is apart;
medians.

Then ablations of what makes the difference, with the instructions that XLA executes for one step of the
rollout (and loops inside them), and with ``--returns`` the mean final return of eight seeds after 5e5 steps;
and stepping alone, under a random policy, beside gymnax alone.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.instructions import LoopBody, loop_body
from benchmarks.tables import conditions, load_average, table
from inner_loops.environments.gymnax_adapter import GymnaxEnvironment
from inner_loops.ppo import PPO
from inner_loops.reset_pool import rollout_steps
from inner_loops.tasks.gymnax_tasks import GymnaxTasks
from metalab import devices
from metalab.sweep.program import Compiler, OuterProgram
from outer_loops.fixed import Fixed

ENVS, STEPS, UPDATES_PER_OUTER_STEP = 4, 128, 25
PEER = ("rejax==0.1.3", "tfp-nightly")  # its distrax does not import with tensorflow-probability's releases
PEER_SETTINGS = {
    "num_envs": ENVS,
    "num_steps": STEPS,
    "num_epochs": 4,
    "num_minibatches": 4,
    "learning_rate": 2.5e-4,
    "max_grad_norm": 0.5,
    "gamma": 0.99,
    "gae_lambda": 0.95,
    "clip_eps": 0.2,
    "ent_coef": 0.01,
    "vf_coef": 0.5,
    "agent_kwargs": {"activation": "tanh", "hidden_layer_sizes": [64, 64]},
}
ABLATIONS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "shuffle by sorting": {"shuffle": "sort"},
    "a pool for every step": {"reset_pool": STEPS},
    "a pool of 16 rows": {"reset_pool": 16},
    "a reset at every step": {"reset_pool": 0},
}
RETURN_SEEDS, RETURN_UPDATES = 8, 976

Run = Callable[[], float]  # seconds of one measurement


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints three tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 8, 32], help="seeds trained together")
    parser.add_argument(
        "--updates", type=int, default=100, help="updates of one measurement, a multiple of 25"
    )
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each; the median is shown")
    parser.add_argument("--no-peer", action="store_true", help="metalab alone")
    parser.add_argument("--returns", action="store_true", help="train every ablation to its end as well")
    given = parser.parse_args(arguments)
    if given.updates % UPDATES_PER_OUTER_STEP:
        parser.error(f"--updates must be a multiple of {UPDATES_PER_OUTER_STEP}")
    load_before = load_average()
    devices.configure()
    peer = None if given.no_peer else peer_python()
    print(against_peer(given.seeds, given.updates, given.repeats, peer), flush=True)
    print(f"\n{ablations(max(given.seeds), given.updates, given.repeats, given.returns)}", flush=True)
    print(f"\n{stepping(given.repeats)}\n")
    print(conditions(load_before))


def against_peer(seeds: Sequence[int], updates: int, repeats: int, peer: Path | None) -> str:
    """Table 1: thousands of steps a second of metalab and of rejax, for each number of seeds."""
    header = ("seeds", "metalab k/s", "rejax k/s", "ratio", "metalab compiles, s", "rejax compiles, s")
    rows = []
    for count in seeds:
        runs, compiling = {}, {}
        runs["metalab"], compiling["metalab"] = training(count, updates, {})
        if peer is not None:
            runs["rejax"], compiling["rejax"] = peer_training(peer, count, updates)
        seconds = interleaved(runs, repeats)
        rate = {name: count * updates * ENVS * STEPS / taken / 1e3 for name, taken in seconds.items()}
        row = [str(count), f"{rate['metalab']:.0f}", "-", "-", f"{compiling['metalab']:.1f}", "-"]
        if peer is not None:
            row[2:4] = f"{rate['rejax']:.0f}", f"{rate['metalab'] / rate['rejax']:.2f}"
            row[5] = f"{compiling['rejax']:.1f}"
        rows.append(row)
    return table(header, rows)


def ablations(seeds: int, updates: int, repeats: int, with_returns: bool) -> str:
    """Table 2: thousands of steps a second with one thing changed, and what the agents come to."""
    runs = {name: training(seeds, updates, changes)[0] for name, changes in ABLATIONS.items()}
    seconds = interleaved(runs, repeats)
    rows = []
    for name, changes in ABLATIONS.items():
        body = rollout_step(changes)
        rows.append(
            [
                name,
                f"{seeds * updates * ENVS * STEPS / seconds[name] / 1e3:.0f}",
                f"{seconds['as it is'] / seconds[name]:.2f}",
                str(body.instructions),
                str(body.loops),
                "{:.1f} +- {:.1f}".format(*final_return(changes)) if with_returns else "-",
            ]
        )
    header = ("k/s", "ratio", "instructions of a step", "loops in it", "final return")
    return table((f"PPO of {seeds} seeds", *header), rows)


def stepping(repeats: int, name: str = "CartPole-v1", length: int = 256) -> str:
    """Table 3: millions of steps a second of the environments alone, under a random policy."""
    environment = GymnaxEnvironment(name=name)
    rows = []
    for envs in (64, 1024):
        cases = {
            "gymnax": random_walk_of_gymnax(name, envs, length),
            "metalab": random_walk(environment, envs, length, 0),
            "metalab, pool of 16": random_walk(environment, envs, length, 16),
        }
        seconds = interleaved(cases, repeats)
        for case, taken in seconds.items():
            rate, ratio = envs * length / taken / 1e6, seconds["gymnax"] / taken
            rows.append([f"{envs} x {case}", f"{rate:.2f}", f"{ratio:.2f}"])
    return table((f"{name} alone", "M/s", "of gymnax"), rows)


def interleaved(runs: Mapping[str, Run], repeats: int) -> dict[str, float]:
    """Median seconds of each, measured in turn after a first round that is not counted."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for index in range(repeats + 1):
        for name, run in runs.items():
            seconds = run()
            if index:
                taken[name].append(seconds)
    return {name: statistics.median(values) for name, values in taken.items()}


def training(seeds: int, updates: int, changes: Mapping[str, Any]) -> tuple[Run, float]:
    """A measurement of ``updates`` more updates of one point, as a sweep runs it; seconds to compile."""
    program = program_of(seeds, 1_000_000, changes)
    length = updates // UPDATES_PER_OUTER_STEP
    compiled = program.prepare(length)
    state, _ = program.begin()
    done = 0

    def run() -> float:
        nonlocal state, done
        start = time.perf_counter()
        state, metrics = program.chunk(state, [done], length)
        jax.block_until_ready(metrics)
        done += length
        return time.perf_counter() - start

    return run, compiled.trace_s + compiled.compile_s


def program_of(seeds: int, lifetime: int, changes: Mapping[str, Any]) -> OuterProgram:
    """One PPO agent a seed, alive for ``lifetime`` updates."""
    tasks = GymnaxTasks(name="CartPole-v1", lifetime=lifetime)
    agent = PPO(environment=tasks.environment, num_envs=ENVS, rollout_length=STEPS, **changes)
    outer = Fixed(inner=agent, tasks=tasks, truncation=UPDATES_PER_OUTER_STEP, num_slots=1, stagger=False)
    return OuterProgram(Compiler(), outer, 1, seeds)


def rollout_step(changes: Mapping[str, Any]) -> LoopBody:
    """What XLA executes for one step of one agent's rollout."""
    tasks = GymnaxTasks(name="CartPole-v1")
    agent = PPO(environment=tasks.environment, num_envs=ENVS, rollout_length=STEPS, **changes)
    key = jax.random.key(0)
    state = agent.init(key, (), tasks.sample(key))
    compiled = jax.jit(lambda key, state: agent.step(key, (), state, None)).lower(key, state).compile()
    return loop_body(compiled.as_text() or "", STEPS)


def final_return(changes: Mapping[str, Any]) -> tuple[float, float]:
    """Mean over seeds of the score at the end of life, and half its 95 % interval."""
    program = program_of(RETURN_SEEDS, RETURN_UPDATES, changes)
    state, _ = program.begin()
    _, metrics = program.chunk(state, [0], RETURN_UPDATES // UPDATES_PER_OUTER_STEP)
    scores = program.fetch(metrics["score"])[:, -1]
    return float(scores.mean()), float(1.96 * scores.std(ddof=1) / np.sqrt(len(scores)))


def peer_training(python: Path, seeds: int, updates: int) -> tuple[Run, float]:
    """A measurement of as many steps by rejax; seconds to compile."""
    worker = subprocess.Popen(
        [
            str(python),
            str(Path(__file__).with_name("rejax_worker.py")),
            str(seeds),
            str(updates * ENVS * STEPS),
            json.dumps(PEER_SETTINGS),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "XLA_FLAGS")},
    )
    assert worker.stdin is not None and worker.stdout is not None
    asked, told = worker.stdin, worker.stdout

    def run() -> float:
        asked.write("\n")
        asked.flush()
        return float(told.readline())

    return run, float(told.readline())


def peer_python() -> Path | None:
    """The interpreter of rejax's own environment, made if it is not there; None where it cannot be."""
    root = Path(os.environ.get("METALAB_CACHE_DIR") or Path.home() / ".cache" / "metalab")
    folder = root / "peers" / "rejax"
    python, ready = folder / "bin" / "python", folder / ".ready"
    if ready.exists():
        return python
    print(f"making an environment for rejax in {folder}", flush=True)
    commands = (
        [sys.executable, "-m", "venv", "--clear", str(folder)],
        [str(python), "-m", "pip", "--quiet", "install", f"jax=={jax.__version__}", *PEER],
        [str(python), "-c", "import rejax"],
    )
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
            print(f"rejax cannot be installed here ({reason}): metalab alone is measured")
            return None
    ready.touch()
    return python


def random_walk(environment: GymnaxEnvironment, envs: int, length: int, pool_rows: int) -> Run:
    """Steps of metalab's environment, as an agent's rollout makes them."""

    def walk(key: Any) -> Any:
        reset_key, action_key, step_key = jax.random.split(key, 3)
        params = environment.default_params()
        obs, state = jax.vmap(environment.reset, (0, None))(jax.random.split(reset_key, envs), params)
        actions = jax.random.randint(action_key, (length, envs), 0, environment.num_actions)
        xs, step = rollout_steps(environment, step_key, length, envs, pool_rows, params)

        def body(carry: Any, xs: Any) -> Any:
            obs, state, reward, *_ = step(xs[0], carry[1], xs[1])
            return (obs, state, carry[2] + reward), None

        return jax.lax.scan(body, (obs, state, jnp.zeros(envs)), (xs, actions))[0]

    return _timed(walk)


def random_walk_of_gymnax(name: str, envs: int, length: int) -> Run:
    """The same steps by gymnax as it is."""
    import gymnax  # starts JAX, which has to be configured by then

    environment, params = gymnax.make(name)
    reset, step = (
        jax.vmap(f, axes) for f, axes in ((environment.reset, (0, None)), (environment.step, (0, 0, 0, None)))
    )

    def walk(key: Any) -> Any:
        reset_key, action_key, step_key = jax.random.split(key, 3)
        obs, state = reset(jax.random.split(reset_key, envs), params)
        actions = jax.random.randint(action_key, (length, envs), 0, environment.num_actions)

        def body(carry: Any, xs: Any) -> Any:
            obs, state, reward, *_ = step(xs[0], carry[1], xs[1], params)
            return (obs, state, carry[2] + reward), None

        xs = (jax.random.split(step_key, (length, envs)), actions)
        return jax.lax.scan(body, (obs, state, jnp.zeros(envs)), xs)[0]

    return _timed(walk)


def _timed(walk: Callable[[Any], Any]) -> Run:
    compiled = jax.jit(walk).lower(jax.random.key(0)).compile()

    def run() -> float:
        start = time.perf_counter()
        jax.block_until_ready(compiled(jax.random.key(1)))
        return time.perf_counter() - start

    return run


if __name__ == "__main__":
    main()
