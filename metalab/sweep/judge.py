"""Judging: the evaluation sets met by some points of a pack, in batches that all share one program.

Points of a pack come of age at different times once berths are reused, and evaluating all lanes for the sake
of a few would cost more than the training of them. So those that are due are taken out and judged together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import jax
import numpy as np

from metalab import devices
from metalab.protocols import PyTree
from metalab.spec import EvaluationSet, Point
from metalab.sweep.evaluation import LaneSet
from metalab.sweep.probe import probe_set
from metalab.sweep.program import Compiler, OuterProgram, lane_keys

__all__ = ["Judge", "batch_points", "most_lanes"]

# Lanes that are raised at once: a CPU core gains nothing from more, an accelerator starves on so few.
LANES_AT_ONCE = {"cpu": 16}
MANY_LANES = 256

Curves = dict[str, np.ndarray]  # metric to [S, count, points]


def most_lanes(compiler: Compiler) -> int:
    """Lanes of an evaluation at once on this kind of device."""
    return LANES_AT_ONCE.get(compiler.mesh.devices.flat[0].platform, MANY_LANES)


def batch_points(compiler: Compiler, berths: int, seeds: int) -> int:
    """Points that are judged at once, of a pack with so many berths."""
    return min(berths, max(1, most_lanes(compiler) // seeds))


class Judge:
    """Evaluates points of one pack.

    Args:
        program: of the pack.
        sets_of: a point's evaluation sets.
    """

    def __init__(
        self, program: OuterProgram, sets_of: Callable[[Point], Mapping[str, EvaluationSet]]
    ) -> None:
        self._program, self._sets_of = program, sets_of
        compiler, seeds = program.compiler, program.num_seeds
        self._size = batch_points(compiler, program.berths, seeds)
        self._width = devices.pad_lanes(self._size * seeds, compiler.mesh.size)
        self._keys = self._spread(lane_keys(self._size, seeds, program.first_seed))

    def curves(
        self, name: str, berths: Sequence[int], points: Sequence[Point], meta: PyTree, stream: str
    ) -> list[tuple[LaneSet, Curves]]:
        """One set met by the points in some berths.

        Args:
            name: of the set.
            berths: of the pack.
            points: who sits there.
            meta: the pack's meta-parameters, leaves ``[L, ...]``.
            stream: ``selection`` or ``final``.

        Returns:
            For each point the set as its batch met it and the metrics ``[S, count, points]``.
        """
        found: list[tuple[LaneSet, Curves]] = []
        for chosen, inner, own in self._batches(name, berths, points, meta):
            curves = inner.run(self._program.compiler, own, self._keys, stream)
            found += [(inner, self._cut(curves, at)) for at in range(len(chosen))]
        return found

    def probes(
        self, name: str, berths: Sequence[int], points: Sequence[Point], meta: PyTree
    ) -> list[dict[str, np.ndarray]]:
        """The probe of one set for each point: metric to ``[S]``."""
        found: list[dict[str, np.ndarray]] = []
        for chosen, inner, own in self._batches(name, berths, points, meta):
            values = probe_set(inner, self._program.compiler, own, self._keys, self._fetch)
            found += [self._cut(values, at) for at in range(len(chosen))]
        return found

    def _batches(
        self, name: str, berths: Sequence[int], points: Sequence[Point], meta: PyTree
    ) -> Iterator[tuple[Sequence[int], LaneSet, PyTree]]:
        seeds = self._program.num_seeds
        for start in range(0, len(berths), self._size):
            chosen = list(berths[start : start + self._size])
            sets = [self._sets_of(point)[name] for point in points[start : start + self._size]]
            # A batch that is not full is filled up with its last point.
            missing = self._size - len(chosen)
            filled, sets = chosen + chosen[-1:] * missing, sets + sets[-1:] * missing
            rows = [berth * seeds + seed for berth in filled for seed in range(seeds)]
            rows += rows[-1:] * (self._width - len(rows))
            own = self._program.compiler.take(meta, rows)
            yield chosen, LaneSet.of(sets, seeds, self._spread), own

    def _spread(self, tree: PyTree) -> PyTree:
        return devices.place(devices.padded(tree, self._width), self._program.compiler.mesh)

    def _fetch(self, tree: PyTree) -> PyTree:
        return jax.tree.map(np.asarray, tree)

    def _cut(self, tree: PyTree, at: int) -> PyTree:
        seeds = self._program.num_seeds
        return jax.tree.map(lambda leaf: leaf[at * seeds : (at + 1) * seeds], tree)
