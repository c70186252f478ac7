"""History: what points reported over their lives, in memory while they live and on disk behind every commit.

A point's series are needed once, when it ends. Until then they lie in parts: one file per commit with all
chunks since the commit before. A part goes when every point in it has ended, so that neither memory nor disk
grows with the number of points that a sweep has seen.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

__all__ = ["Chunk", "Parts", "Series"]


class Chunk(NamedTuple):
    """What one chunk of a pack reported.

    Attributes:
        numbers: [H] the point in each berth; -1: nobody.
        steps: [H] outer steps that it has done by now.
        train: metric to ``[H, S, length]``, one column a step.
        judged: metric to ``[H, S]``, evaluated at ``steps``.
        due: [H] bool, the berths that were evaluated.
    """

    numbers: np.ndarray
    steps: np.ndarray
    train: Mapping[str, np.ndarray]
    judged: Mapping[str, np.ndarray]
    due: np.ndarray


class Series:
    """One point's metrics over its life: steps ``[n]`` and values ``[S, n]`` by name."""

    def __init__(self) -> None:
        self._pieces: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
        self.diverged: dict[int, int] = {}
        """Seed to the first step at which a training metric of it was not finite."""

    def add(self, chunk: Chunk, berth: int) -> dict[str, np.ndarray]:
        """Takes a berth's rows of a chunk; what a seed reports after it has diverged becomes NaN.

        Returns:
            The rows as taken: metric to ``[S, length]``, or ``[S, 1]`` of an evaluation.
        """
        end = int(chunk.steps[berth])
        rows = {name: np.array(values[berth]) for name, values in chunk.train.items()}
        length = next(iter(rows.values())).shape[1] if rows else 0
        for values in rows.values():
            self._notice(values, end)
        if chunk.due[berth]:
            rows |= {name: np.array(values[berth])[:, None] for name, values in chunk.judged.items()}
        for seed, first in self.diverged.items():
            for name, values in rows.items():
                begin = end - (length if name in chunk.train else 1) + 1
                values[seed, max(0, first - begin) :] = np.nan
        for name, values in rows.items():
            steps = np.arange(end - values.shape[1] + 1, end + 1)
            self._pieces.setdefault(name, []).append((steps, values))
        return rows

    def whole(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Every metric over the whole life, by name."""
        for name, found in self._pieces.items():
            if len(found) > 1:
                steps, values = zip(*found, strict=True)
                self._pieces[name] = [(np.concatenate(steps), np.concatenate(values, axis=1))]
        return {name: self._pieces[name][0] for name in sorted(self._pieces)}

    def of(self, name: str) -> tuple[np.ndarray, np.ndarray] | None:
        """One metric; None: it has not been reported."""
        return self.whole().get(name)

    def _notice(self, values: np.ndarray, end: int) -> None:
        bad = ~np.isfinite(values)
        for seed in np.flatnonzero(bad.any(axis=1)):
            first = end - values.shape[1] + 1 + int(np.argmax(bad[seed]))
            self.diverged[int(seed)] = min(first, self.diverged.get(int(seed), first))


class Parts:
    """The files of one pack, one a commit.

    Args:
        folder: of these files alone.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._waiting: list[Chunk] = []
        self._holds: dict[int, set[int]] = {}

    def add(self, chunk: Chunk) -> None:
        """Remembers a chunk until the next commit."""
        self._waiting.append(chunk)

    def save(self, serial: int) -> None:
        """Writes the chunks since the last commit as the part of commit ``serial``, whole or not at all."""
        if not self._waiting:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, np.ndarray] = {}
        for at, chunk in enumerate(self._waiting):
            names = [sorted(chunk.train), sorted(chunk.judged)]
            arrays[f"{at}/names"] = np.asarray(json.dumps(names))
            arrays[f"{at}/numbers"], arrays[f"{at}/steps"], arrays[f"{at}/due"] = chunk[0], chunk[1], chunk[4]
            arrays[f"{at}/train"] = np.stack([chunk.train[name] for name in names[0]])
            if names[1]:
                arrays[f"{at}/judged"] = np.stack([chunk.judged[name] for name in names[1]])
        partial = self._folder / f"{serial:010d}.partial"
        with partial.open("wb") as file:
            np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]
            file.flush()
            os.fsync(file.fileno())
        partial.rename(self._path(serial))
        self._holds[serial] = {int(n) for chunk in self._waiting for n in chunk.numbers if n >= 0}
        self._waiting.clear()

    def load(self, serial: int, living: Mapping[int, Series]) -> None:
        """Reads the parts up to commit ``serial`` into the series of the points that still live."""
        for path in sorted(self._folder.glob("*")):
            if path.suffix != ".npz" or int(path.stem) > serial:
                path.unlink()
                continue
            chunks = _read(path)
            self._holds[int(path.stem)] = {int(n) for chunk in chunks for n in chunk.numbers if n >= 0}
            for chunk in chunks:
                for berth, number in enumerate(chunk.numbers):
                    if int(number) in living:
                        living[int(number)].add(chunk, berth)

    def forget(self, living: Sequence[int]) -> None:
        """Removes the parts in which none of the living points stands."""
        alive = set(living)
        for serial in [serial for serial, numbers in self._holds.items() if not numbers & alive]:
            self._path(serial).unlink(missing_ok=True)
            del self._holds[serial]

    def _path(self, serial: int) -> Path:
        return self._folder / f"{serial:010d}.npz"


def _read(path: Path) -> list[Chunk]:
    with np.load(path, allow_pickle=False) as stored:
        count = sum(name.endswith("/names") for name in stored.files)
        chunks = []
        for at in range(count):
            trained, judged = json.loads(str(stored[f"{at}/names"]))
            train = dict(zip(trained, stored[f"{at}/train"], strict=True))
            found = dict(zip(judged, stored[f"{at}/judged"], strict=True)) if judged else {}
            fixed = (stored[f"{at}/numbers"], stored[f"{at}/steps"])
            chunks.append(Chunk(*fixed, train, found, stored[f"{at}/due"]))
    return chunks
