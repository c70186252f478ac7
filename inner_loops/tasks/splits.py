"""Finite sets of tasks and their split: what is held out never occurs in training."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

__all__ = ["PARTS", "check_held_out", "drawn", "part_of", "spread_evenly"]

PARTS = ("train", "held_out", "all")


def part_of(part: str, total: int, held_out: int, split_seed: int) -> NDArray[np.int32]:
    """The numbers of the tasks of a part, in a fixed random order.

    The split depends on the arguments alone: ``held_out`` of ``total`` tasks are held out, the others are for
    training, and ``all`` holds both.

    >>> train, held_out = (part_of(part, 9, 2, 0) for part in ("train", "held_out"))
    >>> len(train), sorted([*train.tolist(), *held_out.tolist()]) == list(range(9))
    (7, True)
    """
    order = np.random.default_rng(split_seed).permutation(total).astype(np.int32)
    return {"held_out": order[:held_out], "train": order[held_out:], "all": order}[part]


def check_held_out(name: str, total: int, held_out: int) -> None:
    """Refuses a split with an empty part.

    Raises:
        ValueError: one would be empty.
    """
    if not 0 < held_out < total:
        raise ValueError(
            f"{name}: held_out={held_out} of {total} tasks; expected at least 1, and fewer than there are"
        )


def drawn(key: Array, numbers: NDArray[np.int32]) -> Array:
    """[] int32: one of the tasks."""
    return jnp.asarray(numbers)[jax.random.randint(key, (), 0, len(numbers))]


def spread_evenly(numbers: NDArray[np.int32], count: int) -> Array:
    """[count] int32: the tasks in turn, so that none comes up more than once more than another."""
    return jnp.asarray(numbers)[jnp.arange(count) % len(numbers)]
