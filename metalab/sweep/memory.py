"""What a pack needs of the devices' memory, and how many points fit it.

Nothing here computes: sizes are those of ``jax.eval_shape``, and XLA is asked only when told to.
"""

from __future__ import annotations

import dataclasses
import math
import os
from typing import Any

import jax
import jax.numpy as jnp

from metalab.components import as_arrays
from metalab.protocols import OuterLoop

__all__ = ["Memory", "berths_for", "compiled_memory", "device_memory", "fit_lanes", "fitting_berths", "sizes"]

# States are held twice while a chunk is replaced by the next one where buffers cannot be donated, and
# temporaries of a differentiated truncation have been of the order of the states: a first guess that
# `compiled_memory` replaces by what XLA says.
_GUESS = 4
_USABLE = 0.8
# A CPU device gains nothing from more lanes than these, and loses its cache to them; with fewer at once,
# points end one after the other instead of all at the very end.
_MOST_LANES = {"cpu": 32}


@dataclasses.dataclass(frozen=True)
class Memory:
    """What XLA says a pack's chunk needs on one device.

    Attributes:
        arguments: bytes of loops, keys and states.
        temporaries: bytes beside them.
    """

    arguments: int
    temporaries: int


def berths_for(outer: OuterLoop, seeds: int, most: int) -> int:
    """Points of a program that run at once: no more than there are and than all devices hold, at least one.

    Where they do not all fit, one after the other has the berths, and the berths are as few as that takes: 15
    points where 12 fit are 8 and 7, not 12 and 3 in a pack of 12 that is computed whole.

    Args:
        outer: an outer loop of the program.
        seeds: S, lanes of every point.
        most: points that there are, or that are wanted at once.
    """
    return fitting_berths(sizes(outer)[0], seeds, most)


def fitting_berths(state_bytes: int, seeds: int, most: int) -> int:
    """``berths_for`` where the size of a lane's state is known."""
    num_devices = jax.local_device_count()
    lanes = fit_lanes(_GUESS * state_bytes, device_memory(num_devices))
    lanes = min(lanes, _MOST_LANES.get(jax.local_devices()[0].platform, lanes)) * num_devices
    most = max(1, most)
    fit = max(1, min(most, lanes // seeds))
    turns = math.ceil(most / fit)
    return math.ceil(most / turns)


def fit_lanes(bytes_per_lane: int, device_memory: int, usable: float = _USABLE) -> int:
    """Lanes that fit one device, at least one.

    >>> fit_lanes(100, 1000)
    8
    >>> fit_lanes(10_000, 1000)
    1
    """
    return max(1, int(device_memory * usable) // max(1, bytes_per_lane))


def sizes(outer: OuterLoop) -> tuple[int, int]:
    """Bytes of one lane's outer state, exact, and number of meta-parameters."""

    def shapes(loop: OuterLoop) -> tuple[Any, Any]:
        state = loop.init(jax.random.key(0))
        return state, loop.meta_params(state)

    state, meta = jax.eval_shape(shapes, as_arrays(outer))
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    return size, sum(leaf.size for leaf in jax.tree.leaves(meta))


def device_memory(num_devices: int) -> int:
    """Bytes of one device; CPU devices share the machine's."""
    device = jax.local_devices()[0]
    if device.platform != "cpu":
        stats = device.memory_stats() or {}
        if "bytes_limit" in stats:
            return int(stats["bytes_limit"])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // num_devices


def compiled_memory(outer: OuterLoop, lanes: int, chunk: int) -> Memory:
    """Compiles a chunk for one device and returns what XLA says it needs.

    Args:
        outer: one of the pack's outer loops.
        lanes: on one device.
        chunk: outer steps.
    """
    loop = as_arrays(outer)

    def one(loop: Any, key: jax.Array, state: Any) -> tuple[Any, Any]:
        def body(state: Any, step: jax.Array) -> tuple[Any, Any]:
            return loop.step(jax.random.fold_in(key, step), state, None)

        return jax.lax.scan(body, state, jnp.arange(chunk, dtype=jnp.int32))

    key = jax.eval_shape(lambda: jax.random.key(0))
    state = jax.eval_shape(lambda loop, key: loop.init(key), loop, key)
    arguments = jax.tree.map(lambda x: jax.ShapeDtypeStruct((lanes, *x.shape), x.dtype), (loop, key, state))
    compiled = jax.jit(jax.vmap(one), donate_argnums=2).lower(*arguments).compile()
    memory = compiled.memory_analysis()
    return Memory(
        arguments=int(getattr(memory, "argument_size_in_bytes", 0)),
        temporaries=int(getattr(memory, "temp_size_in_bytes", 0)),
    )
