"""Learning histories as arrays, and what can be told and taken of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ARRAYS",
    "NUMBERS",
    "Histories",
    "compact",
    "compact_reward",
    "joined",
    "returns_of",
    "rows_of",
    "tenths",
    "thinned",
]

ARRAYS = ("obs", "action", "reward", "start")  # of every step
NUMBERS = ("task", "seed", "length")  # of every history
_TENTHS = 10  # a history's first and last tenth say whether it improves


class Histories(NamedTuple):
    """``N`` histories of ``S`` steps: of one learner in one environment each, in the order of training.

    Attributes:
        obs: [N, S, ...] observations; state indices in the smallest integers that hold them, else float32.
        action: [N, S] int8, or int32 where there are more than 127.
        reward: [N, S] int8 where all are whole and small, else float32.
        start: [N, S] bool, the step begins an episode.
        length: [N] int32, steps that count; the rest is padding (zeros).
        task: [N] int32, number of the task within the recording.
        seed: [N] int32, number of the life on this task.
    """

    obs: NDArray[Any]
    action: NDArray[Any]
    reward: NDArray[Any]
    start: NDArray[np.bool_]
    length: NDArray[np.int32]
    task: NDArray[np.int32]
    seed: NDArray[np.int32]


def compact(values: NDArray[Any]) -> NDArray[Any]:
    """Whole numbers in the smallest of int8, int16 and int32 that holds them; others as float32.

    >>> compact(np.array([0, 200])).dtype.name, compact(np.array([0.5])).dtype.name
    ('int16', 'float32')
    """
    if values.dtype == np.bool_:
        return values.astype(np.int8)
    if not np.issubdtype(values.dtype, np.integer):
        return values.astype(np.float32)
    low, high = (int(values.min()), int(values.max())) if values.size else (0, 0)
    fits = [kind for kind in (np.int8, np.int16) if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max]
    return values.astype(fits[0] if fits else np.int32)


def compact_reward(values: NDArray[Any]) -> NDArray[Any]:
    """Rewards as int8 where all are whole and small, else as float32.

    >>> compact_reward(np.array([0.0, 1.0])).dtype.name, compact_reward(np.array([0.0, 0.5])).dtype.name
    ('int8', 'float32')
    """
    whole = np.all(values == np.rint(values)) and np.all(np.abs(values) <= np.iinfo(np.int8).max)
    return values.astype(np.int8 if whole else np.float32)


def returns_of(histories: Histories) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The return of every episode.

    An episode that the recording's end cut off counts with what it was paid until then.

    Returns:
        Returns [N, E], zero behind the last episode of a history, and the numbers of episodes [N].
    """
    number, count = _episodes(histories)
    found = np.zeros((len(count), int(count.max())))
    valid = _valid(histories)
    rows = np.broadcast_to(np.arange(len(count))[:, None], number.shape)
    np.add.at(found, (rows[valid], number[valid]), histories.reward[valid].astype(np.float64))
    return found, count


def tenths(histories: Histories) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """[N] mean returns of the first and of the last tenth of a history's episodes, at least one episode."""
    returns, count = returns_of(histories)
    sums = np.concatenate([np.zeros((len(count), 1)), np.cumsum(returns, axis=1)], axis=1)
    tenth = np.maximum(count // _TENTHS, 1)
    rows = np.arange(len(count))
    return sums[rows, tenth] / tenth, (sums[rows, count] - sums[rows, count - tenth]) / tenth


def thinned(histories: Histories, every: int, first: float, last: float) -> Histories:
    """The wanted episodes of each history, moved together."""
    if every == 1 and first == 0.0 and last == 1.0:
        return histories
    number, count = _episodes(histories)
    low = np.minimum(np.rint(first * count), count - 1)[:, None]
    high = np.maximum(np.rint(last * count)[:, None], low + 1)
    wanted = _valid(histories) & (number >= low) & (number < high) & ((number - low) % every == 0)
    length = wanted.sum(axis=1)
    rows, columns = np.nonzero(wanted)  # row by row: the order within a history stays
    place = np.arange(len(rows)) - np.repeat(np.cumsum(length) - length, length)

    def moved(values: NDArray[Any]) -> NDArray[Any]:
        out = np.zeros((len(values), int(length.max()), *values.shape[2:]), values.dtype)
        out[rows, place] = values[rows, columns]
        return out

    arrays = {name: moved(getattr(histories, name)) for name in ARRAYS}
    return histories._replace(length=length.astype(np.int32), **arrays)


def rows_of(histories: Histories, kept: NDArray[np.bool_]) -> Histories:
    """The histories that ``kept`` [N] says."""
    return Histories._make(array[kept] for array in histories)


def joined(pieces: list[Histories]) -> Histories:
    """Histories of several parts, padded to the longest; a dtype that holds all of them."""
    steps = max(piece.action.shape[1] for piece in pieces)

    def join(arrays: list[NDArray[Any]]) -> NDArray[Any]:
        return np.concatenate(
            [np.pad(a, [(0, 0), (0, steps - a.shape[1]), *[(0, 0)] * (a.ndim - 2)]) for a in arrays]
        )

    arrays = {name: join([getattr(piece, name) for piece in pieces]) for name in ARRAYS}
    numbers = {name: np.concatenate([getattr(piece, name) for piece in pieces]) for name in NUMBERS}
    return Histories(**arrays, **numbers)


def _valid(histories: Histories) -> NDArray[np.bool_]:
    """[N, S] which steps count."""
    return np.arange(histories.action.shape[1]) < histories.length[:, None]


def _episodes(histories: Histories) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The number of each step's episode [N, S] and how many there are [N]; the first step begins one."""
    begins = histories.start & _valid(histories)
    begins[:, 0] = True
    number = np.cumsum(begins, axis=1) - 1
    return number, number[:, -1] + 1
