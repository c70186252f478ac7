"""Kills a sweep again and again, at random moments, and lets it end at last.

    python -m tests.sweep.killing ROOT KILLS SEED PAUSE STEPS

A process of its own: it imports everything once and forks a child for every life of the sweep, before JAX has
started anything that a fork would break. Half of the kills hit the start of a life (locks, resumption,
tracing, compilation), half the chunks, commits and deliveries after it. It prints, as JSON, how many lives
were killed in which of the two and how many chunks the lives ran in all.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

import mlflow.tracking  # noqa: F401  imported before the fork, for every child
import optuna  # noqa: F401
import orbax.checkpoint  # noqa: F401

from metalab import provenance
from metalab.devices import configure
from metalab.spec import Pruner, SweepSpec
from tests.sweep import toy

__all__ = ["spec"]


def spec(outer_steps: int) -> SweepSpec:
    """24 points of two programs, noisy learners, a pruner."""
    rates = "choice(0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.1, 0.12, 0.15, 0.2)"
    return toy.make_spec(
        search={"outer.rate": rates, "outer.length": "choice(2, 4)"},
        seeds=2,
        outer_steps=outer_steps,
        chunk=2,
        every=outer_steps // 3,
        base={"inner.noise": 0.1},
        pruner=Pruner(kind="median", startup_points=4),
    )


def live(root: Path, pause: float, outer_steps: int) -> int:
    """Forks one life; returns its process id."""
    child = os.fork()
    if child:
        return child
    beats = root / "beats"

    def on_chunk(_: int) -> None:
        with beats.open("a") as file:
            file.write(f"{time.time()}\n")
        time.sleep(pause)

    code = 1
    try:
        toy.run(
            spec(outer_steps), root, max_lanes=4, shrink="never", checkpoint_seconds=0.1, on_chunk=on_chunk
        )
        code = 0
    except BaseException:  # whatever it is, the child must not go on in the parent's code
        traceback.print_exc()
    finally:
        os._exit(code)


def beating(root: Path, since: float) -> bool:
    """Whether a chunk has ended since a time."""
    beats = root / "beats"
    return beats.exists() and bool(done := beats.read_text().split()) and float(done[-1]) > since


def main() -> None:
    """Runs the whole of it."""
    root, kills, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    pause, steps = float(sys.argv[4]), int(sys.argv[5])
    configure(2)
    # All lives run the code that this process has loaded, whatever is being edited meanwhile.
    version = provenance.code_version()
    provenance.code_version = lambda modules=(): version
    whole = root / "whole"
    begun = time.time()
    _, status = os.waitpid(live(whole, pause, steps), 0)
    assert status == 0, "the uninterrupted sweep failed"
    beats = [float(line) for line in (whole / "beats").read_text().split()]
    start, lasting = beats[0] - begun, time.time() - beats[0]
    # So much of the late lives that all kills happen before the sweep is done.
    late = 0.6 * lasting / kills
    draw = random.Random(seed)
    hits = {"start": 0, "chunks": 0}
    for number in range(kills):
        began = time.time()
        child = live(root, pause, steps)
        if number % 2 == 0:
            time.sleep(draw.uniform(0.0, start))
        else:
            while not beating(root, began):
                assert os.waitpid(child, os.WNOHANG) == (0, 0), f"life {number} ended by itself"
                time.sleep(0.005)
            time.sleep(draw.uniform(0.0, late))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), f"life {number} ended by itself (status {status}) before its kill"
        hits["chunks" if beating(root, began) else "start"] += 1
    _, status = os.waitpid(live(root, pause, steps), 0)
    assert status == 0, "the last life failed"
    print(json.dumps({**hits, "beats": len((root / "beats").read_text().split()), "whole": len(beats)}))


if __name__ == "__main__":
    main()
