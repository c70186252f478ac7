"""History: what a pack's lanes reported, kept on disk in one small file per chunk.

The checkpoint holds the state at one step; everything reported up to that step lies here. Parts that a
killed run wrote after its last checkpoint are written again, with the same numbers.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

__all__ = ["History"]


class History:
    """The parts of one pack.

    Args:
        folder: of this pack's parts alone.
        last_step: of the checkpoint that the pack continues from; later parts are dropped.
    """

    def __init__(self, folder: Path, last_step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._parts: dict[int, dict[str, np.ndarray]] = {}
        self._diverged: dict[int, int] = {}
        for path in sorted(folder.glob("*.npz")):
            if int(path.stem) > last_step:
                path.unlink()
                continue
            with np.load(path, allow_pickle=False) as stored:
                self._parts[int(path.stem)] = {name: stored[name] for name in stored.files}
            self._notice(int(path.stem), self._parts[int(path.stem)])

    def add(self, step: int, part: Mapping[str, np.ndarray]) -> None:
        """Stores the chunk that ended at ``step``: series ``[L, length]`` and single values ``[L, 1]``."""
        self._parts[step] = dict(part)
        self._notice(step, part)
        # A name that another chunk's glob cannot see until it is whole.
        partial = self._folder / f"{step:010d}.partial"
        with partial.open("wb") as file:
            np.savez(file, **self._parts[step])  # pyright: ignore[reportArgumentType]
            file.flush()
            os.fsync(file.fileno())
        partial.rename(self._folder / f"{step:010d}.npz")

    def parts(self) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        """Step and part, in order."""
        for step in sorted(self._parts):
            yield step, self._parts[step]

    def series(self, lanes: slice) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Metric to steps ``[n]`` and values ``[len(lanes), n]`` of some lanes, over all parts.

        A part's last column belongs to the step it ended at; the columns before it to the steps before.
        """
        pieces: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
        for step, part in self.parts():
            for name, values in part.items():
                steps = np.arange(step - values.shape[1] + 1, step + 1)
                pieces.setdefault(name, []).append((steps, values[lanes]))
        return {
            name: (np.concatenate([s for s, _ in found]), np.concatenate([v for _, v in found], axis=1))
            for name, found in pieces.items()
        }

    def last(self, name: str) -> np.ndarray | None:
        """The newest value of a metric of every lane, ``[L]``; None if no part has it."""
        for step in sorted(self._parts, reverse=True):
            if name in self._parts[step]:
                return self._parts[step][name][:, -1]
        return None

    def diverged(self, lanes: slice) -> dict[int, int]:
        """Position within ``lanes`` to the first step at which a training metric was not finite."""
        start = lanes.start or 0
        inside = {
            at - start: step for at, step in self._diverged.items() if lanes.stop is None or at < lanes.stop
        }
        return {at: step for at, step in sorted(inside.items()) if at >= 0}

    def _notice(self, step: int, part: Mapping[str, np.ndarray]) -> None:
        for name, values in part.items():
            bad = ~np.isfinite(values)
            if not name.startswith("train/") or not bad.any():
                continue
            for at in np.flatnonzero(bad.any(axis=1)):
                first = step - values.shape[1] + 1 + int(np.argmax(bad[at]))
                self._diverged[int(at)] = min(first, self._diverged.get(int(at), first))
