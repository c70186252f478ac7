"""A pack: the points that run at once in one program, each in a berth of its own.

A pack goes forward by chunks of outer steps. A berth whose point has ended takes the next point of the same
program at once, its state born in place; nothing is compiled for it and no neighbour notices.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from metalab import devices
from metalab.checkpoints import Checkpoints
from metalab.protocols import PyTree
from metalab.spec import EvaluationSet, Point, SweepSpec
from metalab.sweep.evaluation import final_score, life_score
from metalab.sweep.history import Chunk, Parts, Series
from metalab.sweep.judge import Judge
from metalab.sweep.ledger import PackState
from metalab.sweep.program import Compiler, OuterProgram
from metalab.sweep.recorder import Final

__all__ = ["Berth", "Pack"]


@dataclasses.dataclass
class Berth:
    """A point in its berth.

    Attributes:
        point: who sits here.
        run: digest of its run.
        step: outer steps done.
        series: what it has reported.
        rows: what the last chunk reported: metric to ``[S, length]``.
        judged: whether the last chunk ended with an evaluation.
    """

    point: Point
    run: str
    step: int
    series: Series
    rows: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    judged: bool = False


class Pack:
    """A pack on the devices.

    Args:
        spec: the sweep.
        compiler: of the sweep.
        example: a point of the program.
        berths: H, points at once.
        sets_of: a point's evaluation sets.
        folder: of the pack's working files.
    """

    def __init__(
        self,
        spec: SweepSpec,
        compiler: Compiler,
        example: Point,
        berths: int,
        sets_of: Callable[[Point], Mapping[str, EvaluationSet]],
        folder: Path,
    ) -> None:
        self._spec, self._compiler, self._example, self._sets_of = spec, compiler, example, sets_of
        self._folder = folder
        self._checkpoints = Checkpoints(folder / "checkpoints")
        self._parts = Parts(folder / "parts")
        self._device: tuple[PyTree, dict[str, Any]] | None = None
        self._shape(berths)
        self.berths: list[Berth | None] = [None] * berths

    @property
    def occupied(self) -> list[int]:
        """Berths in which a point sits."""
        return [at for at, berth in enumerate(self.berths) if berth is not None]

    @property
    def free(self) -> list[int]:
        """Berths in which nobody sits."""
        return [at for at, berth in enumerate(self.berths) if berth is None]

    @property
    def begun(self) -> bool:
        """Whether the devices hold anything."""
        return self._device is not None

    @property
    def width(self) -> int:
        """Lanes on the devices, padding included."""
        return self._program.width

    def prepare(self) -> int:
        """Compiles the chunk; returns the bytes that one device needs for it."""
        return self._program.prepare(self._spec.budget.chunk).device_bytes

    def seat(self, arrivals: Mapping[int, Berth]) -> None:
        """Points take free berths and are born there."""
        for at, berth in arrivals.items():
            self.berths[at] = berth
            self._program.seat(at, berth.point.outer)
        if self._device is None:
            self._device = self._program.begin()
        elif arrivals:
            self._device = self._program.replace(list(arrivals), *self._device)

    def leave(self, at: int) -> None:
        """The point in a berth has ended."""
        self.berths[at] = None

    def advance(self) -> None:
        """One chunk: trains every lane, evaluates the points that are due, hands out what was reported."""
        assert self._device is not None
        length, (state, kept) = self._spec.budget.chunk, self._device
        starts = [berth.step if berth else 0 for berth in self.berths]
        state, metrics = self._program.chunk(state, starts, length)
        train = {f"train/{name}": self._by_berth(values) for name, values in metrics.items()}
        for berth in filter(None, self.berths):
            berth.step += length
        due = [at for at in self.occupied if self._due(self.berths[at])]
        judged: dict[str, np.ndarray] = {}
        if due:
            kept, judged = self._select(state, kept, due)
        self._device = state, kept
        chunk = Chunk(
            numbers=np.asarray([berth.point.number if berth else -1 for berth in self.berths], np.int64),
            steps=np.asarray([berth.step if berth else 0 for berth in self.berths], np.int64),
            train=train,
            judged=judged,
            due=np.isin(np.arange(len(self.berths)), due),
        )
        self._parts.add(chunk)
        for at in self.occupied:
            berth = self.berths[at]
            assert berth is not None
            berth.rows, berth.judged = berth.series.add(chunk, at), at in due

    def finals(self, berths: Sequence[int]) -> list[Final]:
        """The final evaluation of the points in some berths, with the meta-parameters that were kept."""
        assert self._device is not None
        state, kept = self._device
        points = [berth.point for at in berths if (berth := self.berths[at]) is not None]
        meta, steps = kept["meta"], self._program.fetch(kept["step"])
        if self._spec.evaluation.select is None:
            meta = self._program.meta_params(state)
            steps = np.full(self._program.num_lanes, self._spec.budget.outer_steps)
        host = self._program.fetch(meta)
        names = [name for name, one in self._sets_of(points[0]).items() if one.points]
        found = {name: self._judge.curves(name, berths, points, meta, "final") for name in names}
        probed = {
            name: self._judge.probes(name, berths, points, meta)
            for name in names
            if found[name][0][0].where.probe
        }
        return [
            Final(
                sets={name: each[i][0] for name, each in found.items()},
                curves={name: each[i][1] for name, each in found.items()},
                probes={name: each[i] for name, each in probed.items()},
                meta=jax.tree.map(lambda leaf, at=at: leaf[self._program.lanes(at)], host),
                steps=steps[self._program.lanes(at)],
            )
            for i, at in enumerate(berths)
        ]

    def save(self, serial: int) -> PackState:
        """Writes the devices' state and the series since the last commit; nothing older is touched."""
        assert self._device is not None
        self._checkpoints.save(serial, self._device, self._manifest(self.width))
        self._parts.save(serial)
        return PackState(
            example=self._example.number,
            numbers=tuple(berth.point.number if berth else None for berth in self.berths),
            points=tuple(berth.point.digest if berth else None for berth in self.berths),
            steps=tuple(berth.step if berth else 0 for berth in self.berths),
            width=self.width,
            checkpoint=serial,
        )

    def committed(self, serial: int) -> None:
        """The commit that names ``serial`` is done: what only older ones needed goes."""
        self._checkpoints.keep_only(serial)
        self._parts.forget([berth.point.number for berth in self.berths if berth is not None])

    def restore(self, saved: PackState, berths: Sequence[Berth | None]) -> None:
        """Goes on from a commit.

        Args:
            saved: as the commit has it; its berths are this pack's.
            berths: its points, their steps those of the commit and their series empty.

        Raises:
            CheckpointMismatch: the checkpoint is that of another program.
        """
        self.berths = list(berths)
        for at in self.occupied:
            self._program.seat(at, self.berths[at].point.outer)  # pyright: ignore[reportOptionalMemberAccess]
        self._checkpoints.keep_only(saved.checkpoint)
        template = self._program.template(saved.width)
        found = self._checkpoints.restore(saved.checkpoint, template, self._manifest(saved.width))
        if saved.width != self.width:  # another number of devices: the padding is another one
            found = self._program.spread(jax.tree.map(lambda leaf: leaf[: self._program.num_lanes], found))
        self._device = found
        living = {berth.point.number: berth.series for berth in self.berths if berth is not None}
        self._parts.load(saved.checkpoint, living)

    def shrink(self) -> None:
        """Leaves the empty berths behind: a narrower program, the same states."""
        assert self._device is not None
        stay = self.occupied
        lanes = [lane for at in stay for lane in range(*self._program.lanes(at).indices(self.width))]
        rows = lanes + lanes[-1:] * (devices.pad_lanes(len(lanes), self._compiler.mesh.size) - len(lanes))
        self._device = self._compiler.take(self._device, rows)
        self.berths = [self.berths[at] for at in stay]
        self._shape(len(stay))
        for at, berth in enumerate(self.berths):
            self._program.seat(at, berth.point.outer)  # pyright: ignore[reportOptionalMemberAccess]

    def close(self) -> None:
        """Frees the checkpoints' manager."""
        self._checkpoints.close()

    def _shape(self, berths: int) -> None:
        self._program = OuterProgram(
            self._compiler, self._example.outer, berths, self._spec.seeds, self._spec.first_seed
        )
        self._judge = Judge(self._program, self._sets_of)

    def _manifest(self, width: int) -> dict[str, Any]:
        return {"seeds": self._spec.seeds, "width": width}

    def _by_berth(self, values: Any) -> np.ndarray:
        """``[L, ...]`` on the devices to ``[H, S, ...]`` on the host."""
        host = self._program.fetch(values)
        return host.reshape(len(self.berths), self._spec.seeds, *host.shape[1:])

    def _due(self, berth: Berth | None) -> bool:
        settings, total = self._spec.evaluation, self._spec.budget.outer_steps
        if berth is None or settings.select is None:
            return False
        return berth.step >= total or berth.step % settings.every == 0

    def _select(
        self, state: PyTree, kept: dict[str, Any], due: Sequence[int]
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Evaluates on the selection set and keeps what is better; the returns ``[H, S]`` by metric."""
        name = self._spec.evaluation.select
        assert name is not None
        meta = self._program.meta_params(state)
        points = [berth.point for at in due if (berth := self.berths[at]) is not None]
        found = self._judge.curves(name, due, points, meta, "selection")
        judged = {
            f"evaluation/{name}/{metric}": np.full((len(self.berths), self._spec.seeds), np.nan)
            for metric in ("return", "mean_return")
        }
        for at, (met, curves) in zip(due, found, strict=True):
            judged[f"evaluation/{name}/return"][at] = final_score(curves["return"], met.ages)
            judged[f"evaluation/{name}/mean_return"][at] = life_score(curves["return"], met.ages)
        scores = judged[f"evaluation/{name}/{self._spec.evaluation.keep_by}"].reshape(-1)
        steps = [berth.step if berth else 0 for berth in self.berths]
        return self._program.keep_better(kept, meta, scores, steps), judged
