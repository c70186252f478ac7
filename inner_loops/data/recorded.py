"""Crops of recorded learning histories: what a student is taught from.

A crop is ``W`` steps of one history and never crosses into another one: that would teach that a task can
change. Crops are drawn evenly over all pairs of a history and a first step that leaves ``W`` steps, and a
share of them begins where a history does, as a life does. A history with fewer steps gives one crop, from its
beginning, of which the steps that it lacks are not counted.

Every step hears the action and the reward of the step before it in its history, the first step of a crop
too; in a history that was thinned that is the last step of the episode kept before.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from metalab.components import component, static
from metalab.errors import MetalabError
from metalab.histories import Histories, Manifest, read_histories, read_manifest

__all__ = ["Crops", "HistorySource", "Recorded", "draw_crops", "draw_crops_on_host"]

_NO_ACTION = -1  # before a history's first step


class HistorySource(Protocol):
    """Where histories come from."""

    def manifest(self) -> Manifest:
        """What they are."""
        ...

    def load(self) -> Histories:
        """The histories, on the host."""
        ...


@component
class Recorded:
    """A recording of `metalab record`, whole or thinned."""

    path: str = static("", doc="name of a recording in this file, SWEEP/NAME, or a folder")
    part: str = static("train", doc="of the tasks that it must be of, where they have parts; empty: any")
    every: int = static(1, doc="keep each k-th episode", at_least=1)
    first: float = static(
        0.0, doc="keep the episodes from this share of a history on", at_least=0.0, at_most=1.0
    )
    last: float = static(1.0, doc="and up to this one", at_least=0.0, at_most=1.0)
    min_improvement: float | None = static(
        None, doc="drop histories whose last tenth of episodes does not return so much more than the first"
    )
    modulo: int | None = static(
        None, doc="keep the remainder of state indices: what the student is to see of them", at_least=1
    )

    def manifest(self) -> Manifest:
        """See ``HistorySource``.

        Raises:
            MetalabError: no path is given, nothing is there, or it was recorded on another part of the tasks.
        """
        if not self.path:
            raise MetalabError("histories.path: not given; name a recording of the file's `record:` section")
        manifest = read_manifest(self.path)
        if self.part and manifest.split not in ("", self.part):
            raise MetalabError(
                f"histories: {self.path} was recorded on part {manifest.split!r} of its tasks, "
                f"and part={self.part!r} is asked for; record that part, or set histories.part"
            )
        return manifest

    def load(self) -> Histories:
        """See ``HistorySource``; once a process."""
        self.manifest()
        return read_histories(
            self.path,
            every=self.every,
            first=self.first,
            last=self.last,
            min_improvement=self.min_improvement,
            modulo=self.modulo,
        )


class Crops(NamedTuple):
    """``N`` crops of ``W`` steps; arrays of the host or of the device.

    Attributes:
        obs: [N, W, ...].
        before: [N, W] the action of the step before, -1 at a history's first.
        reward: [N, W] what that action was paid.
        done: [N, W] bool, that step ended an episode.
        action: [N, W] what the source did.
        counted: [N, W] bool, the step is one of its history.
    """

    obs: Any
    before: Any
    reward: Any
    done: Any
    action: Any
    counted: Any


def draw_crops(key: Array, histories: Histories, count: int, window: int, at_start: Array | float) -> Crops:
    """``count`` crops, drawn by the program; ``at_start`` is the share that begins where a history does."""
    ends = _ends(histories.length, window)
    pair_key, row_key, start_key = jax.random.split(key, 3)
    pairs = jax.random.randint(pair_key, (count,), 0, int(ends[-1]))
    rows = jnp.searchsorted(jnp.asarray(ends, jnp.int32), pairs, side="right")
    starts = pairs - jnp.asarray(np.concatenate([[0], ends[:-1]]), jnp.int32)[rows]
    begins = jax.random.uniform(start_key, (count,)) < at_start
    rows = jnp.where(begins, jax.random.randint(row_key, (count,), 0, len(ends)), rows)
    in_program = Histories._make(jnp.asarray(array) for array in histories)
    return _cropped(in_program, rows, jnp.where(begins, 0, starts), window)


def draw_crops_on_host(
    rng: np.random.Generator, histories: Histories, count: int, window: int, at_start: float
) -> Crops:
    """The same from the host's random numbers: numpy arrays."""
    ends = _ends(histories.length, window)
    pairs = rng.integers(int(ends[-1]), size=count)
    rows = np.searchsorted(ends, pairs, side="right")
    starts = pairs - np.concatenate([[0], ends[:-1]])[rows]
    begins = rng.uniform(size=count) < at_start
    rows = np.where(begins, rng.integers(len(ends), size=count), rows)
    return _cropped(histories, rows, np.where(begins, 0, starts), window)


def _ends(length: NDArray[np.int32], window: int) -> NDArray[np.int64]:
    """[N] where each history's pairs of (history, first step of a crop) end in the list of all pairs."""
    ends = np.cumsum(np.maximum(length.astype(np.int64) - window, 0) + 1)
    if ends[-1] > np.iinfo(np.int32).max:
        raise MetalabError(
            f"histories: {ends[-1]} crops are more than 32 bits count; raise histories.every or record fewer"
        )
    return ends


def _cropped(histories: Histories, rows: Any, starts: Any, window: int) -> Crops:
    """The crops that begin at ``starts`` [N] of the histories ``rows`` [N]; numpy in, numpy out."""
    lib: Any = np if isinstance(starts, np.ndarray) else jnp
    steps, rows = starts[:, None] + np.arange(window), rows[:, None]
    now = lib.minimum(steps, histories.action.shape[1] - 1)  # what a short history lacks is not counted
    then, first = lib.maximum(now - 1, 0), steps == 0
    return Crops(
        obs=histories.obs[rows, now],
        before=lib.where(first, _NO_ACTION, histories.action[rows, then]),
        reward=lib.where(first, 0, histories.reward[rows, then]),
        done=histories.start[rows, now] & ~first,
        action=histories.action[rows, now],
        counted=steps < histories.length[rows],
    )
