"""Batches that the host draws while the devices compute: what they learn from may be larger than they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import jax
import numpy as np
from jax.sharding import Sharding

from metalab.protocols import FedOuterLoop, OuterLoop, PyTree

__all__ = ["Feed"]


class Feed:
    """The batches of a program's chunks, one chunk ahead.

    What is drawn depends on a seed's number and the outer step alone: every point of a sweep sees the same
    batches, and a resumed sweep those that it would have seen.

    Args:
        outer: an outer loop of the program; the batches of all of them have its shapes.
        seeds: numbers of the seeds, S.
        place: host leaves ``[H*S, ...]`` to the devices.
    """

    def __init__(self, outer: OuterLoop, seeds: Sequence[int], place: Callable[[PyTree], PyTree]) -> None:
        self._outer, self._seeds, self._place = outer, tuple(seeds), place
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="feed")
        self._ahead: tuple[tuple[tuple[int, ...], int], Future[PyTree]] | None = None
        self._example = self._step(self._seeds[0], 0)

    @property
    def needed(self) -> bool:
        """Whether the program is given anything; else it draws by itself."""
        return self._example is not None

    def template(self, lanes: int, length: int, sharding: Sharding) -> PyTree:
        """Shapes of what ``take`` returns for a chunk of ``length`` outer steps; None likewise."""
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(
                (lanes, length, *leaf.shape), jax.dtypes.canonicalize_dtype(leaf.dtype), sharding=sharding
            ),
            self._example,
        )

    def take(self, starts: Sequence[int], length: int) -> PyTree:
        """The batches of a chunk on the devices, leaves ``[L, length, ...]``; None if the program draws.

        Args:
            starts: [H] outer steps done by each berth's point.
            length: outer steps of the chunk.
        """
        if not self.needed:
            return None
        wanted = (tuple(starts), length)
        if self._ahead is not None and self._ahead[0] == wanted:
            found = self._ahead[1].result()
        else:
            found = self._drawn(*wanted)
        return self._place(found)  # not by the thread: what is drawn in advance takes no room on the devices

    def ask(self, starts: Sequence[int], length: int) -> None:
        """Begins to draw what ``take`` will probably want next; other arguments there cost what it drew."""
        if self.needed:
            wanted = (tuple(starts), length)
            self._ahead = wanted, self._thread.submit(self._drawn, *wanted)

    def _drawn(self, starts: tuple[int, ...], length: int) -> PyTree:
        """Leaves ``[H*S, length, ...]``; lanes that stand at the same step of the same seed have the same."""
        whole = {
            (seed, start): jax.tree.map(
                lambda *leaves: np.stack(leaves), *(self._step(seed, start + n) for n in range(length))
            )
            for start in set(starts)
            for seed in self._seeds
        }
        lanes = [whole[seed, start] for start in starts for seed in self._seeds]
        return jax.tree.map(lambda *leaves: np.stack(leaves), *lanes)

    def _step(self, seed: int, number: int) -> PyTree:
        """The batches of one outer step of one lane."""
        if not isinstance(self._outer, FedOuterLoop):
            return None
        return self._outer.host_batches(np.random.default_rng([seed, number]))
