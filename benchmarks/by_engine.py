"""The engine's ways of training the points of a sweep: its program alone, and a sweep with everything."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import yaml

from benchmarks.agents import Case
from benchmarks.processes import Phases, clock
from metalab import devices

__all__ = ["pack", "sweep"]


def pack(case: Case) -> Phases:
    """All points at once as one pack of the engine's program, chunk by chunk, over all devices."""
    devices.configure()
    from metalab.sweep.program import Compiler, OuterProgram

    compiler = Compiler()
    loops = [case.outer_loop(rate) for rate in case.rates]
    program = OuterProgram(compiler, loops[0], case.points, num_seeds=1)
    for berth, outer in enumerate(loops):
        program.seat(berth, outer)
    program.template()  # the first use of an environment imports what it needs
    ready = time.time()
    program.prepare(case.chunk)
    before = clock()
    state, _ = program.begin()
    metrics: dict[str, np.ndarray] = {}
    for done in range(0, case.outer_steps, case.chunk):
        state, reported = program.chunk(state, [done] * case.points, case.chunk)
        metrics = program.fetch(reported)
    after = clock()
    return Phases(
        ready=ready,
        trace=sum(one.trace_s for one in compiler.compilations),
        compile=sum(one.compile_s for one in compiler.compilations),
        run=after[0] - before[0],
        run_cpu=after[1] - before[1],
        scores=metrics["score"][:, -1].tolist(),
    )


def sweep(case: Case) -> Phases:
    """A sweep file from reading it to the last record in the store."""
    devices.configure()
    from metalab.config import load
    from metalab.sweep.engine import Options, run_sweep
    from metalab.tracking import client_of

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        file = root / "sweep.yaml"
        file.write_text(yaml.safe_dump(case.sweep_file(), sort_keys=False))
        spec = load(file)
        ready = time.time()
        result = run_sweep(spec, root, Options(progress=False))
        client = client_of(root)
        parent = client.get_run(result.parent_run_id)
        runs = client.search_runs([parent.info.experiment_id], max_results=case.points + 1)
        scores = [run.data.metrics["objective"] for run in runs if "objective" in run.data.metrics]
    tallies = result.tallies
    return Phases(ready, tallies["trace_s"], tallies["compile_s"], tallies["run_s"], None, scores)
