"""What the engine costs: a sweep with store, checkpoints and progress against the bare scan of its lanes.

    python -m benchmarks.overhead [--seconds 60] [--repeats 3]

``benchmarks/overhead.yaml`` runs by ``run_sweep``, as ``metalab sweep`` runs it, with the usual chunks and
commits. Beside it, in the same process and in turn: one jitted scan over all outer steps of the same lanes on
the same devices, from the same keys, whose metrics are brought to the host at its end; and the sweep's own
chunks in a row, without the engine. A scan runs before every sweep and after the last, and a sweep is held
against the mean of the two beside it, so that a machine whose speed drifts evenly favours neither.

The overhead is all that the sweep takes longer, compilation of both left aside: the start of the store,
commits, the writer's thread, what chunks cost. A second table says where the sweep's time goes.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import PartitionSpec

from benchmarks.processes import clock
from benchmarks.stopwatch import Stopwatch
from benchmarks.tables import conditions, load_average, spread, table
from metalab import devices
from metalab.checkpoints import Checkpoints
from metalab.config import load, make_point
from metalab.outbox import Outbox
from metalab.spec import SweepSpec
from metalab.sweep.engine import Options, run_sweep
from metalab.sweep.pack import Pack
from metalab.sweep.program import Compiler, OuterProgram, lane_keys, lanes_of, stream
from metalab.sweep.scheduler import Scheduler
from metalab.sweep.space import parse_space

__all__ = ["Bare", "Run", "main", "report"]

_FILE = Path(__file__).with_name("overhead.yaml")
_DEVICE, _COMPILER = "devices compute", "trace and compile"
_WRITER = "writer's thread, beside all this"
_SECTIONS = {
    _COMPILER: (Compiler, "prepare"),
    _DEVICE: (OuterProgram, "chunk"),
    "pack is made: imports, shapes": (Scheduler, "_fitting_pack"),
    "points begin": (Pack, "seat"),
    "metrics to the host, series": (Pack, "advance"),
    "records to the outbox": (Scheduler, "_log"),
    "points end": (Scheduler, "_end"),
    "progress": (Scheduler, "_report"),
    "checkpoint of a commit": (Checkpoints, "save"),
    "rest of a commit": (Scheduler, "_save"),
    "sweep's own files: versions, machine": (Scheduler, "_close"),
    "last delivery": (Outbox, "drain"),
    _WRITER: (Outbox, "_deliver"),
}


@dataclasses.dataclass(frozen=True)
class Run:
    """One sweep between two bare scans, in seconds of wall time unless said otherwise.

    Attributes:
        bare, bare_cpu: mean of the two scans, and of their CPU-seconds.
        chunked: the sweep's chunks one after the other, without the engine.
        whole: the sweep, from the call of ``run_sweep`` to its return.
        compiling: of that, tracing and compilation.
        sweep_cpu: CPU-seconds of the sweep without compilation.
        sections: by name.
        calls: of the sections.
    """

    bare: float
    bare_cpu: float
    chunked: float
    whole: float
    compiling: float
    sweep_cpu: float
    sections: dict[str, float]
    calls: dict[str, int]

    @property
    def sweep(self) -> float:
        """The sweep without compilation."""
        return self.whole - self.compiling

    @property
    def overhead(self) -> float:
        """What the sweep takes longer, in percent of the bare scan."""
        return 100.0 * (self.sweep / self.bare - 1.0)

    @property
    def outside(self) -> float:
        """What the engine's thread does while the devices wait for it, in percent of their time."""
        return 100.0 * (self.sweep / self.sections[_DEVICE] - 1.0)


class Bare:
    """All lanes of a sweep as one jitted scan over all of their outer steps.

    Args:
        spec: the sweep.

    Attributes:
        trace, compile: seconds.
        lanes: of points, without padding.
    """

    def __init__(self, spec: SweepSpec) -> None:
        values = list(parse_space(spec.search))
        outer = [make_point(spec, number, found).outer for number, found in enumerate(values)]
        self.lanes, mesh = len(outer) * spec.seeds, devices.lane_mesh()
        rows = lanes_of(outer, spec.seeds), lane_keys(len(outer), spec.seeds)
        width = devices.pad_lanes(self.lanes, mesh.size)
        self._arguments = tuple(devices.place(devices.padded(tree, width), mesh) for tree in rows)
        steps = spec.budget.outer_steps

        def train(loop: Any, key: Array) -> dict[str, Array]:
            keys = stream(key, "train")

            def step(state: Any, number: Array) -> tuple[Any, dict[str, Array]]:
                return loop.step(jax.random.fold_in(keys, number), state, None)

            state = loop.init(stream(key, "init"))
            return jax.lax.scan(step, state, jnp.arange(steps, dtype=jnp.int32))[1]

        lane = PartitionSpec(devices.LANES)
        mapped = jax.shard_map(
            jax.vmap(train), mesh=mesh, in_specs=(lane, lane), out_specs=lane, check_vma=False
        )
        start = time.perf_counter()
        lowered = jax.jit(mapped).lower(*self._arguments)
        traced = time.perf_counter()
        self._compiled = lowered.compile()
        self.trace, self.compile = traced - start, time.perf_counter() - traced

    def run(self) -> tuple[float, float]:
        """Wall time and CPU-seconds until the metrics of all steps are on the host."""
        before = clock()
        jax.tree.map(np.asarray, self._compiled(*self._arguments))
        after = clock()
        return after[0] - before[0], after[1] - before[1]


class Chunked:
    """The chunks of a sweep's pack, one after the other: its programs without the engine.

    Args:
        spec: the sweep.
    """

    def __init__(self, spec: SweepSpec) -> None:
        outer = [make_point(spec, n, values).outer for n, values in enumerate(parse_space(spec.search))]
        self._berths, self._budget = len(outer), spec.budget
        self._program = OuterProgram(Compiler(), outer[0], len(outer), spec.seeds)
        for berth, one in enumerate(outer):
            self._program.seat(berth, one)
        self._program.prepare(spec.budget.chunk)

    def run(self, chunks: int | None = None) -> list[float]:
        """Wall time of every chunk, until its metrics are on the host; the whole budget if silent."""
        length = self._budget.chunk
        state, times = self._program.begin()[0], []
        for chunk in range(-(-self._budget.outer_steps // length) if chunks is None else chunks):
            start = time.perf_counter()
            state, metrics = self._program.chunk(state, [chunk * length] * self._berths, length)
            self._program.fetch(metrics)
            times.append(time.perf_counter() - start)
        return times


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints two tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="of device time of one sweep, about")
    parser.add_argument("--repeats", type=int, default=3, help="sweeps; medians are shown")
    parser.add_argument("--smoke", action="store_true", help="the smallest size")
    given = parser.parse_args(arguments)
    devices.configure()
    jax.config.update("jax_enable_compilation_cache", False)
    load_before = load_average()
    budget = load(_FILE, smoke=given.smoke).budget
    steps = budget.outer_steps
    if not given.smoke:
        steps = budget.chunk * max(1, math.ceil(given.seconds / min(Chunked(load(_FILE)).run(3))))
    with tempfile.TemporaryDirectory() as root:
        specs = [_spec(given.smoke, steps, repeat) for repeat in range(given.repeats)]
        bare, chunked = Bare(specs[0]), Chunked(specs[0])
        scans, runs = [bare.run()], []
        for spec in specs:
            chunks = sum(chunked.run())
            watched = _watched(spec, Path(root))
            scans.append(bare.run())
            runs.append(_between(scans[-2], chunks, watched, scans[-1]))
            print(f"bare {runs[-1].bare:.1f} s, sweep {runs[-1].sweep:.1f} s", flush=True)
    print()
    print(report(specs[0], bare, runs))
    print(conditions(load_before))


def report(spec: SweepSpec, bare: Bare, runs: Sequence[Run]) -> str:
    """Both tables, with what was measured above them."""
    header = ("run", "bare", "sweep", "overhead %", "bare CPU-s", "sweep CPU-s", "compiling")
    rows = [
        [
            str(number + 1),
            *(f"{value:.2f}" for value in (run.bare, run.sweep, run.overhead)),
            *(f"{value:.1f}" for value in (run.bare_cpu, run.sweep_cpu, run.compiling)),
        ]
        for number, run in enumerate(runs)
    ]
    overheads = [run.overhead for run in runs]
    return "\n".join(
        (
            f"{bare.lanes} lanes, {spec.budget.outer_steps} outer steps in chunks of {spec.budget.chunk}; "
            f"seconds of wall time without compilation ({bare.trace:.1f} s tracing and {bare.compile:.1f} s "
            "compiling the bare scan)",
            table(header, rows),
            f"overhead: {spread(overheads)} % of the bare scan; {spread([run.outside for run in runs])} % of "
            "the devices' own time in the sweep",
            "",
            table(("where a sweep's time goes", "s", "% of bare", "calls"), _sections(runs)),
        )
    )


def _sections(runs: Sequence[Run]) -> list[list[str]]:
    def row(name: str, seconds: Sequence[float], calls: str) -> list[str]:
        shares = [100.0 * value / run.bare for value, run in zip(seconds, runs, strict=True)]
        return [name, f"{statistics.median(seconds):.3f}", f"{statistics.median(shares):.2f}", calls]

    known = [
        row(name, [run.sections[name] for run in runs], str(runs[0].calls[name]))
        for name in _SECTIONS
        if name != _COMPILER
    ]
    spent = [sum(v for name, v in run.sections.items() if name != _WRITER) for run in runs]
    rest = [run.whole - total for run, total in zip(runs, spent, strict=True)]
    more = [run.sections[_DEVICE] - run.bare for run in runs]
    return [
        known[0],
        row("  of that, more than the bare scan", more, ""),
        row("  as chunks in a row without the engine", [run.chunked - run.bare for run in runs], ""),
        *known[1:-1],
        row("everything else: lock, study, store...", rest, ""),
        known[-1],
    ]


def _spec(smoke: bool, steps: int, repeat: int) -> SweepSpec:
    return load(_FILE, [f"budget.outer_steps={steps}", f"name=overhead-{repeat}"], smoke=smoke)


def _watched(spec: SweepSpec, root: Path) -> tuple[float, float, Stopwatch]:
    """Wall time and CPU-seconds of a sweep, and where they went."""
    watch, before = Stopwatch(_SECTIONS, waited=(_DEVICE,)), clock()
    with watch.watching():
        run_sweep(spec, root, Options())
    after = clock()
    return after[0] - before[0], after[1] - before[1], watch


def _between(
    before: tuple[float, float],
    chunks: float,
    sweep: tuple[float, float, Stopwatch],
    after: tuple[float, float],
) -> Run:
    whole, cpu, watch = sweep
    return Run(
        bare=(before[0] + after[0]) / 2,
        bare_cpu=(before[1] + after[1]) / 2,
        chunked=chunks,
        whole=whole,
        compiling=watch.seconds[_COMPILER],
        sweep_cpu=cpu - watch.cpu[_COMPILER],
        sections=watch.seconds,
        calls=watch.calls,
    )


if __name__ == "__main__":
    main()
