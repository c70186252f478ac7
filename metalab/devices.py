"""Devices: with jax 0.10 every CPU core becomes a JAX device, and lanes are spread over all of them.

One XLA device does not use a second core on programs of our size; lanes sharded over two host devices run
1.7 to 2.5 times faster than the same lanes on one (jax 0.10.2, two cores).
"""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from metalab.trees import Tree

__all__ = [
    "LANES",
    "configure",
    "default_devices",
    "lane_mesh",
    "pad_lanes",
    "padded",
    "place",
    "usable_cores",
]

LANES = "lanes"
_COUNT_FLAG = "xla_force_host_platform_device_count"


def configure(count: int | None = None) -> None:
    """Makes JAX see one CPU device per core (``default_devices``) and remember compiled programs on disk.

    Call it once, before the first JAX computation. A count that the user set through ``XLA_FLAGS`` or
    ``JAX_NUM_CPU_DEVICES`` is respected; accelerators are not touched by it.

    Args:
        count: CPU devices wanted; None: ``default_devices``.

    Raises:
        RuntimeError: JAX has already started with fewer devices.
        ValueError: ``count`` is not positive.
    """
    if count is not None and count < 1:
        raise ValueError(f"number of devices: got {count}, expected at least 1")
    _use_disk_cache()
    if count is None and _chosen_by_user():
        return
    wanted = count or default_devices()
    try:
        jax.config.update("jax_num_cpu_devices", wanted)
    except RuntimeError as error:  # its backends exist already: the number of devices is what it is
        present = jax.local_devices()
        if present[0].platform == "cpu" and len(present) < wanted:
            raise RuntimeError(
                f"JAX has already started with {len(present)} CPU device(s), {wanted} were wanted: call "
                "metalab.devices.configure() before the first JAX computation, or set "
                f"JAX_NUM_CPU_DEVICES={wanted} in the environment"
            ) from error


def default_devices() -> int:
    """One CPU device per core; a single one on jax 0.11 and newer.

    jaxlib 0.11.2 crashes while it compiles LPG on grid worlds for several CPU devices (in the Shardy
    partitioner, and in the older one too); one device of that version is itself 1.5 to 1.8 times faster on
    vmapped work than one of 0.10.
    """
    return 1 if jax.__version_info__ >= (0, 11) else usable_cores()


def usable_cores() -> int:
    """Cores this process may run on (its affinity, not what the machine has)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def lane_mesh() -> Mesh:
    """All local devices in one row, its axis named ``lanes``."""
    return Mesh(np.asarray(jax.local_devices()), (LANES,))


def pad_lanes(num_lanes: int, num_devices: int) -> int:
    """The smallest multiple of ``num_devices`` that holds ``num_lanes`` lanes."""
    return -(-num_lanes // num_devices) * num_devices


def padded(tree: Tree, num_lanes: int) -> Tree:
    """Repeats the last lane until the leading axis of every leaf is ``num_lanes`` long.

    Padding lanes compute what nobody reads: they are cut off before anything is logged.
    """

    def pad(leaf: Any) -> Any:
        missing = num_lanes - leaf.shape[0]
        if missing == 0:
            return leaf
        concatenate = np.concatenate if isinstance(leaf, np.ndarray) else jax.numpy.concatenate
        return concatenate([leaf, *((leaf[-1:],) * missing)])

    return jax.tree.map(pad, tree)


def place(tree: Tree, mesh: Mesh) -> Tree:
    """Puts leaves ``[L, ...]`` on the mesh, their lanes spread over its devices."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec(LANES)))


def _chosen_by_user() -> bool:
    return _COUNT_FLAG in os.environ.get("XLA_FLAGS", "") or "JAX_NUM_CPU_DEVICES" in os.environ


def _use_disk_cache() -> None:
    # Entries of another jaxlib or another kind of processor would be rejected on reload, or worse.
    root = os.environ.get("METALAB_CACHE_DIR") or str(Path.home() / ".cache" / "metalab")
    folder = Path(root) / "xla" / f"{version('jaxlib')}-{platform.machine()}-{platform.node()}"
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
