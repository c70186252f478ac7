"""Programs: the compiled functions that all points of one structure share.

A program is a function on one lane, vmapped over lanes and mapped over the local devices with
``shard_map``: each device runs its own lanes and nothing is exchanged, by construction. A lane is one
(point, seed) pair. Everything is compiled ahead of time, once per structure, and every compilation is
counted, timed and its memory recorded.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import NamedSharding, PartitionSpec

from metalab import devices
from metalab.components import as_arrays
from metalab.protocols import OuterLoop, PyTree
from metalab.trees import select, stack

__all__ = ["STREAMS", "Compilation", "Compiler", "OuterProgram", "lane_keys", "lanes_of", "stream"]

# Streams of a lane's key: what one of them draws never depends on how often another was used.
STREAMS = {"init": 0, "train": 1, "selection": 2, "final": 3, "birth": 4}

# Half the time to compile, code that is several times slower.
_QUICK = {"xla_backend_optimization_level": 0}


@dataclasses.dataclass(frozen=True)
class Compilation:
    """One XLA compilation.

    Attributes:
        name: of the function: ``init``, ``chunk``, ``evaluate``...
        lanes: lanes over all devices, padding included.
        trace_s, compile_s: seconds.
        temporary_bytes, argument_bytes: what XLA says one device needs beside and for the arguments.
    """

    name: str
    lanes: int
    trace_s: float
    compile_s: float
    temporary_bytes: int
    argument_bytes: int


class Compiler:
    """Compiles functions over lanes and remembers them by what they are given.

    Args:
        quick: everything runs a few times only.

    Attributes:
        mesh: the local devices.
        compilations: in the order they happened.
    """

    def __init__(self, quick: bool = False) -> None:
        self._quick = quick
        self.mesh = devices.lane_mesh()
        self.compilations: list[Compilation] = []
        self._compiled: dict[Hashable, Callable[..., Any]] = {}

    def count(self, name: str) -> int:
        """Compilations of functions called ``name``."""
        return sum(made.name == name for made in self.compilations)

    def run(
        self,
        name: str,
        function: Callable[..., Any],
        lanes: Sequence[PyTree],
        *,
        shared: Sequence[Array] = (),
        static: Sequence[Hashable] = (),
        donate: Sequence[int] = (),
        quick: bool = False,
    ) -> Any:
        """Runs ``function(*lane, *shared, *static)`` on every lane.

        Args:
            name: for the record.
            function: on one lane; a module-level function, its identity is part of the memory's key.
            lanes: pytrees with leaves ``[L, ...]``, L a multiple of the devices.
            shared: arrays that every lane gets whole.
            static: hashable arguments that make another program.
            donate: positions in ``lanes`` whose buffers may be reused.
            quick: it runs a few times only: compile it in less time instead of making it fast.

        Returns:
            What ``function`` returns, leaves ``[L, ...]``, left on the devices.
        """
        placed = tuple(devices.place(tree, self.mesh) for tree in lanes)
        everywhere = NamedSharding(self.mesh, PartitionSpec())
        common = tuple(jax.device_put(jnp.asarray(value), everywhere) for value in shared)
        leaves, structure = jax.tree.flatten((placed, common))
        shapes = tuple((leaf.shape, leaf.dtype) for leaf in leaves)
        key = (function, structure, shapes, tuple(static), tuple(donate))
        if key not in self._compiled:
            on_cpu = self.mesh.devices.flat[0].platform == "cpu"
            options = _QUICK if (quick or self._quick) and on_cpu else None
            self._compiled[key] = self._compile(
                name, function, placed, common, tuple(static), tuple(donate), options
            )
        return self._compiled[key](*placed, *common)

    def _compile(
        self,
        name: str,
        function: Callable[..., Any],
        lanes: tuple[PyTree, ...],
        shared: tuple[Array, ...],
        static: tuple[Hashable, ...],
        donate: tuple[int, ...],
        options: dict[str, Any] | None,
    ) -> Callable[..., Any]:
        count = len(lanes)

        def on_one_device(*args: Any) -> Any:
            def one(*own: Any) -> Any:
                return function(*own, *args[count:], *static)

            return jax.vmap(one)(*args[:count])

        specs = (PartitionSpec(devices.LANES),) * count + (PartitionSpec(),) * len(shared)
        mapped = jax.shard_map(
            on_one_device,
            mesh=self.mesh,
            in_specs=specs,
            out_specs=PartitionSpec(devices.LANES),
            check_vma=False,  # nothing is reduced over devices, and loops start carries from constants
        )
        start = time.perf_counter()
        lowered = jax.jit(mapped, donate_argnums=donate).lower(*lanes, *shared)
        traced = time.perf_counter()
        compiled = lowered.compile(compiler_options=options)
        done = time.perf_counter()
        memory = compiled.memory_analysis()
        self.compilations.append(
            Compilation(
                name=name,
                lanes=jax.tree.leaves(lanes)[0].shape[0],
                trace_s=traced - start,
                compile_s=done - traced,
                temporary_bytes=int(getattr(memory, "temp_size_in_bytes", 0)),
                argument_bytes=int(getattr(memory, "argument_size_in_bytes", 0)),
            )
        )
        return compiled


def stream(key: Array, name: str) -> Array:
    """The key of one of a lane's streams: init, train, selection, final, birth."""
    return jax.random.fold_in(key, STREAMS[name])


def lane_keys(num_points: int, num_seeds: int) -> Array:
    """Keys [H*S], points outermost: a seed has the same key in every point of every sweep."""
    seeds = jnp.arange(num_seeds)
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(jax.random.key(0), seeds)
    return jnp.tile(keys, num_points)


def lanes_of(components: Sequence[Any], num_seeds: int) -> Any:
    """Stacks components of one structure into lanes [H*S, ...], points outermost."""
    stacked = stack([as_arrays(one) for one in components])
    return jax.tree.map(lambda leaf: jnp.repeat(leaf, num_seeds, axis=0), stacked)


class OuterProgram:
    """The functions of a pack: init, chunk, meta-parameters and selection.

    Args:
        compiler: shared by the packs of a sweep.
        outers: the outer loops of the pack's points, of one structure.
        num_seeds: S.
    """

    def __init__(self, compiler: Compiler, outers: Sequence[OuterLoop], num_seeds: int) -> None:
        self.compiler = compiler
        self.num_lanes = len(outers) * num_seeds
        self.width = devices.pad_lanes(self.num_lanes, compiler.mesh.size)
        self.loops = self.spread(lanes_of(outers, num_seeds))
        self.keys = self.spread(lane_keys(len(outers), num_seeds))

    def spread(self, tree: PyTree) -> PyTree:
        """Pads leaves ``[H*S, ...]`` to the pack's width and puts them on the devices."""
        return devices.place(devices.padded(tree, self.width), self.compiler.mesh)

    def fetch(self, tree: PyTree) -> PyTree:
        """Leaves ``[L, ...]`` as numpy arrays on the host, without the padding lanes."""
        return jax.tree.map(lambda leaf: np.asarray(leaf)[: self.num_lanes], tree)

    def init(self) -> PyTree:
        """The outer states at step 0, leaves ``[L, ...]``."""
        return self.compiler.run("init", _init, (self.loops, self.keys), quick=True)

    def template(self) -> PyTree:
        """Shapes, dtypes and shardings of what ``init`` and ``start_keeping`` return."""
        sharding = NamedSharding(self.compiler.mesh, PartitionSpec(devices.LANES))

        def born(loops: PyTree, keys: Array) -> tuple[PyTree, PyTree]:
            state = jax.vmap(_init)(loops, keys)
            return state, jax.vmap(_start_keeping)(loops, state)

        shapes = jax.eval_shape(born, self.loops, self.keys)
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes
        )

    def chunk(self, state: PyTree, first_step: int, length: int) -> tuple[PyTree, dict[str, Array]]:
        """Runs ``length`` outer steps; ``state`` is used up.

        Returns:
            The states and the metrics, leaves ``[L, length]``.
        """
        start = jnp.asarray(first_step, jnp.int32)
        return self.compiler.run(
            "chunk",
            _chunk,
            (self.loops, self.keys, state),
            shared=(start,),
            static=(length,),
            donate=(2,),
        )

    def meta_params(self, state: PyTree) -> PyTree:
        """The meta-parameters that the states hold, leaves ``[L, ...]``."""
        return self.compiler.run("meta_params", _meta_params, (self.loops, state), quick=True)

    def start_keeping(self, state: PyTree) -> dict[str, Any]:
        """Nothing has been selected yet: the initial meta-parameters with a score of -inf."""
        return self.compiler.run("start_keeping", _start_keeping, (self.loops, state), quick=True)

    def keep_better(self, kept: dict[str, Any], meta: PyTree, score: Array, step: int) -> dict[str, Any]:
        """Keeps ``meta`` in the lanes where ``score`` [L] is finite and above the score kept so far."""
        shared = (jnp.asarray(step, jnp.int32),)
        return self.compiler.run("keep_better", _keep_better, (kept, meta, score), shared=shared, quick=True)


def _init(loop: OuterLoop, key: Array) -> PyTree:
    return loop.init(stream(key, "init"))


def _chunk(
    loop: OuterLoop, key: Array, state: PyTree, start: Array, length: int
) -> tuple[PyTree, dict[str, Array]]:
    train_key = stream(key, "train")

    def body(state: PyTree, step: Array) -> tuple[PyTree, dict[str, Array]]:
        # The key depends on the step's number alone: a resumed run draws what it would have drawn.
        return loop.step(jax.random.fold_in(train_key, step), state, None)

    return jax.lax.scan(body, state, start + jnp.arange(length, dtype=jnp.int32))


def _meta_params(loop: OuterLoop, state: PyTree) -> PyTree:
    return loop.meta_params(state)


def _start_keeping(loop: OuterLoop, state: PyTree) -> dict[str, Any]:
    nothing = {"score": jnp.asarray(-jnp.inf, jnp.float32), "step": jnp.zeros((), jnp.int32)}
    return {"meta": loop.meta_params(state), **nothing}


def _keep_better(kept: dict[str, Any], meta: PyTree, score: Array, step: Array) -> dict[str, Any]:
    better = jnp.isfinite(score) & (score > kept["score"])
    return select(better, {"meta": meta, "score": score.astype(jnp.float32), "step": step}, kept)
