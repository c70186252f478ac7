"""One way of doing the work in a process of its own, timed from outside and, by phases, from inside.

    python -m benchmarks.processes WAY CASE

is what ``measure`` starts: it does the work of ``CASE`` (JSON) in the way ``WAY`` and prints its phases as
its last line.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.agents import Case

__all__ = ["WAYS", "Measured", "Phases", "clock", "measure"]

# Where the function of each way is; a module is imported by the process that runs it.
WAYS = {
    "alone": "benchmarks.by_hand",
    "loop": "benchmarks.by_hand",
    "threads": "benchmarks.by_hand",
    "workers": "benchmarks.by_hand",
    "pack": "benchmarks.by_engine",
    "sweep": "benchmarks.by_engine",
}
_HOME = Path(__file__).resolve().parents[1]


@dataclasses.dataclass(frozen=True)
class Phases:
    """What a process says of itself, in seconds of wall time.

    Attributes:
        ready: since the epoch, when everything was imported and the agents were put together.
        trace, compile: before the first point could run.
        run: all points, until their metrics were on the host.
        run_cpu: CPU-seconds of all threads and processes while the points ran; None: not known apart.
        scores: of the points, at the end of their training.
    """

    ready: float
    trace: float
    compile: float
    run: float
    run_cpu: float | None
    scores: list[float]


@dataclasses.dataclass(frozen=True)
class Measured:
    """A process from its start to its end, in seconds of wall time unless said otherwise.

    Attributes:
        start: interpreter, imports, agents.
        trace, compile, run, run_cpu: see ``Phases``.
        rest: what is left of ``whole``: records and the interpreter's exit.
        whole: as seen from outside.
        cpu: CPU-seconds of the process and its children.
        scores: see ``Phases``.
    """

    start: float
    trace: float
    compile: float
    run: float
    rest: float
    whole: float
    run_cpu: float | None
    cpu: float
    scores: list[float]


def measure(way: str, case: Case) -> Measured:
    """Does the work of ``case`` in the way ``way``, in a fresh process and without the disk's programs.

    Raises:
        RuntimeError: the process failed.
    """
    environment = {**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "false"}
    environment.pop("MLFLOW_TRACKING_URI", None)  # the sweep's store is a file of its own
    text = json.dumps(dataclasses.asdict(case))
    used, started = _children_cpu(), time.time()
    command = [sys.executable, "-m", "benchmarks.processes", way, text]
    done = subprocess.run(command, cwd=_HOME, env=environment, capture_output=True, text=True, check=False)
    whole, cpu = time.time() - started, _children_cpu() - used
    if done.returncode:
        raise RuntimeError(f"{way} ended with exit code {done.returncode}:\n{done.stderr}")
    phases = Phases(**json.loads(done.stdout.splitlines()[-1]))
    start = phases.ready - started
    return Measured(
        start=start,
        trace=phases.trace,
        compile=phases.compile,
        run=phases.run,
        rest=whole - start - phases.trace - phases.compile - phases.run,
        whole=whole,
        run_cpu=phases.run_cpu,
        cpu=cpu,
        scores=phases.scores,
    )


def clock() -> tuple[float, float]:
    """Wall time and this process's CPU time, in seconds, for differences."""
    return time.perf_counter(), time.process_time()


def main() -> None:
    """The process that ``measure`` starts."""
    way, text = sys.argv[1:3]
    function = getattr(importlib.import_module(WAYS[way]), way)
    phases = function(Case(**json.loads(text)))
    print(json.dumps(dataclasses.asdict(phases)))


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
