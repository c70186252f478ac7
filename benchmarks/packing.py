"""One pack against the other ways of running the same sweep: wall time of each, compilation apart.

    python -m benchmarks.packing [--agent network] [--points 32] [--outer-steps 100] [--repeats 3]

The sweep is over the learning rate of an agent (``benchmarks.agents``). Every way runs in a process of its
own, the ways in turn, and compiles without programs kept on disk. The ways:

- as many fresh processes as points, one after another: one is run and its figures multiplied;
- one jitted function called once for every point, from one thread and from two;
- two worker processes that import, compile and then share the points;
- one pack of the engine's program: all points at once, spread over all devices;
- the whole engine: the pack with its store, checkpoints and records.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
from collections.abc import Sequence

from benchmarks.agents import AGENTS, Case
from benchmarks.processes import Measured, measure
from benchmarks.tables import conditions, load_average, spread, table

__all__ = ["main", "report"]

# In the order of the table.
_NAMES = {
    "alone": "{points} fresh processes, one after another",
    "loop": "one jitted function, {points} calls",
    "threads": "one jitted function, 2 threads",
    "workers": "2 worker processes, a jitted function each",
    "pack": "one pack",
    "sweep": "the whole engine: pack, store, checkpoints",
}
_HEADER = (
    "way", "start", "trace", "compile", "run", "rest", "whole", "CPU-s", "CPU-s of run",
    "whole / pack's", "run / pack's", "mean score",
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints one table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--agent", choices=AGENTS, default="network")
    parser.add_argument("--points", type=int, default=Case.points)
    parser.add_argument("--outer-steps", type=int, default=Case.outer_steps)
    parser.add_argument("--updates", type=int, default=Case.updates, help="inner updates of one outer step")
    parser.add_argument("--chunk", type=int, default=Case.chunk, help="outer steps; divides --outer-steps")
    parser.add_argument("--repeats", type=int, default=3, help="of every way; medians are shown")
    given = parser.parse_args(arguments)
    if given.outer_steps % given.chunk:
        parser.error(f"--chunk {given.chunk} does not divide --outer-steps {given.outer_steps}")
    case = Case(given.agent, given.points, given.outer_steps, given.updates, given.chunk)
    load = load_average()
    found: dict[str, list[Measured]] = {way: [] for way in _NAMES}
    for repeat in range(given.repeats):
        for way in _NAMES:
            found[way].append(measure(way, case))
            print(f"{way}: {found[way][-1].whole:.1f} s ({repeat + 1} of {given.repeats})", flush=True)
    print()
    print(report(case, found))
    print(conditions(load))


def report(case: Case, found: dict[str, list[Measured]]) -> str:
    """The table, with what was measured above it.

    Args:
        case: what every way did.
        found: way to its repeats; those of ``alone`` are of one point.
    """
    scaled = {
        way: [_times(one, case.points) for one in repeats] if way == "alone" else repeats
        for way, repeats in found.items()
    }
    pack = scaled["pack"]
    rows = [_row(way, case.points, repeats, pack) for way, repeats in scaled.items()]
    return "\n".join(
        (
            f"{case.points} learning rates of one agent: {case.described()}; "
            f"{case.environment_steps:,} environment steps a point, one seed",
            f"seconds of wall time, median of {len(pack)}, whole with its extremes; fresh processes are "
            "measured for one point and multiplied",
            table(_HEADER, rows),
        )
    )


def _row(way: str, points: int, repeats: Sequence[Measured], pack: Sequence[Measured]) -> list[str]:
    phases = ("start", "trace", "compile", "run", "rest")
    used = _median(repeats, "run_cpu")
    scores = [score for one in repeats for score in one.scores]
    return [
        _NAMES[way].format(points=points),
        *(f"{_median(repeats, phase):.1f}" for phase in phases),
        spread([one.whole for one in repeats]),
        f"{_median(repeats, 'cpu'):.1f}",
        "" if used is None else f"{used:.1f}",
        f"{_ratio(repeats, pack, 'whole'):.2f}",
        f"{_ratio(repeats, pack, 'run'):.2f}",
        "" if way == "alone" else f"{statistics.mean(scores):.4g}",
    ]


def _median(repeats: Sequence[Measured], figure: str) -> float | None:
    values = [getattr(one, figure) for one in repeats]
    return None if None in values else statistics.median(values)


def _ratio(repeats: Sequence[Measured], pack: Sequence[Measured], figure: str) -> float:
    return statistics.median(getattr(one, figure) for one in repeats) / statistics.median(
        getattr(one, figure) for one in pack
    )


def _times(one: Measured, points: int) -> Measured:
    figures = {field.name: getattr(one, field.name) for field in dataclasses.fields(one)}
    scores = figures.pop("scores")
    return Measured(**{name: points * value for name, value in figures.items()}, scores=scores)


if __name__ == "__main__":
    main()
