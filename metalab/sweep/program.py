"""Programs: the compiled functions that all points of one structure share.

A program is a function on one lane, vmapped over lanes and mapped over the local devices with
``shard_map``: each device runs its own lanes and nothing is exchanged, by construction. A lane is one
(point, seed) pair. Everything is compiled ahead of time, once per structure, and every compilation is
counted, timed and its memory recorded; one that will be needed soon can be prepared by another thread.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from metalab import devices
from metalab.components import as_arrays
from metalab.protocols import OuterLoop, PyTree
from metalab.sweep.feed import Feed
from metalab.trees import select

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
        temporary_bytes, argument_bytes, output_bytes: what XLA says one device needs; ``shared_bytes`` of
            the output lie where donated arguments lay.
    """

    name: str
    lanes: int
    trace_s: float
    compile_s: float
    temporary_bytes: int
    argument_bytes: int
    output_bytes: int
    shared_bytes: int

    @property
    def device_bytes(self) -> int:
        """Bytes that one device needs while it runs."""
        return self.temporary_bytes + self.argument_bytes + self.output_bytes - self.shared_bytes


class Compiler:
    """Compiles functions over lanes and remembers them by what they are given; any thread may use it.

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
        self._made: dict[Hashable, _Made] = {}
        self._guard = threading.Lock()

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
        made = self.prepare(name, function, placed, common, static=static, donate=donate, quick=quick)
        return made.compiled(*placed, *common)

    def prepare(
        self,
        name: str,
        function: Callable[..., Any],
        lanes: Sequence[PyTree],
        shared: Sequence[Any] = (),
        *,
        static: Sequence[Hashable] = (),
        donate: Sequence[int] = (),
        quick: bool = False,
    ) -> _Made:
        """What ``run`` would run, compiled once; ``lanes`` and ``shared`` may be shapes with shardings."""
        leaves, structure = jax.tree.flatten((tuple(lanes), tuple(shared)))
        shapes = tuple((leaf.shape, leaf.dtype) for leaf in leaves)
        key = (function, structure, shapes, tuple(static), tuple(donate))
        with self._guard:
            made = self._made.setdefault(key, _Made())
        with made.guard:  # whoever comes second waits for the compilation of the first
            if made.compiled is None:
                on_cpu = self.mesh.devices.flat[0].platform == "cpu"
                options = _QUICK if (quick or self._quick) and on_cpu else None
                made.compiled, made.record = _compile(
                    self.mesh,
                    name,
                    function,
                    tuple(lanes),
                    tuple(shared),
                    tuple(static),
                    tuple(donate),
                    options,
                )
                self.compilations.append(made.record)
        return made

    def take(self, tree: PyTree, rows: Sequence[int]) -> PyTree:
        """Leaves ``[L, ...]`` to those of some lanes, ``[len(rows), ...]``, spread over the devices."""
        sharding = NamedSharding(self.mesh, PartitionSpec(devices.LANES))
        return jax.jit(_take, out_shardings=sharding)(tree, jnp.asarray(rows, jnp.int32))


class _Made:
    """A program that is compiled, or is being compiled by whoever holds ``guard``."""

    def __init__(self) -> None:
        self.guard = threading.Lock()
        self.compiled: Any = None
        self.record: Any = None


def _take(tree: PyTree, rows: Array) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[rows], tree)


def _compile(
    mesh: Mesh,
    name: str,
    function: Callable[..., Any],
    lanes: tuple[PyTree, ...],
    shared: tuple[Any, ...],
    static: tuple[Hashable, ...],
    donate: tuple[int, ...],
    options: dict[str, Any] | None,
) -> tuple[Any, Compilation]:
    count = len(lanes)

    def on_one_device(*args: Any) -> Any:
        def one(*own: Any) -> Any:
            return function(*own, *args[count:], *static)

        return jax.vmap(one)(*args[:count])

    specs = (PartitionSpec(devices.LANES),) * count + (PartitionSpec(),) * len(shared)
    mapped = jax.shard_map(
        on_one_device,
        mesh=mesh,
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
    return compiled, Compilation(
        name=name,
        lanes=jax.tree.leaves(lanes)[0].shape[0],
        trace_s=traced - start,
        compile_s=done - traced,
        temporary_bytes=int(getattr(memory, "temp_size_in_bytes", 0)),
        argument_bytes=int(getattr(memory, "argument_size_in_bytes", 0)),
        output_bytes=int(getattr(memory, "output_size_in_bytes", 0)),
        shared_bytes=int(getattr(memory, "alias_size_in_bytes", 0)),
    )


def stream(key: Array, name: str) -> Array:
    """The key of one of a lane's streams: init, train, selection, final, birth."""
    return jax.random.fold_in(key, STREAMS[name])


def lane_keys(num_points: int, num_seeds: int, first_seed: int = 0) -> Array:
    """Keys [H*S], points outermost: a seed has the same key in every point of every sweep."""
    seeds = first_seed + jnp.arange(num_seeds)
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(jax.random.key(0), seeds)
    return jnp.tile(keys, num_points)


def lanes_of(components: Sequence[Any], num_seeds: int) -> Any:
    """Stacks components of one structure into lanes [H*S, ...] on the host, points outermost."""
    rows = [jax.tree.map(np.asarray, as_arrays(one)) for one in components]
    structures = {jax.tree.structure(row) for row in rows}
    if len(structures) != 1:
        raise ValueError(f"cannot stack {len(structures)} different structures: they are different programs")
    return jax.tree.map(lambda *leaves: np.repeat(np.stack(leaves), num_seeds, axis=0), *rows)


class OuterProgram:
    """The functions of a pack, and what its berths hold.

    A berth is the place of one point: ``S`` lanes, one a seed. Whoever sits there may change while the
    program stays the same.

    Args:
        compiler: shared by the packs of a sweep.
        example: an outer loop of the program; empty berths compute what it would.
        berths: H, points at once.
        num_seeds: S.
        first_seed: of them.
    """

    def __init__(
        self, compiler: Compiler, example: OuterLoop, berths: int, num_seeds: int, first_seed: int = 0
    ) -> None:
        self.compiler = compiler
        self.berths, self.num_seeds, self.first_seed = berths, num_seeds, first_seed
        self.num_lanes = berths * num_seeds
        self.width = devices.pad_lanes(self.num_lanes, compiler.mesh.size)
        self.keys = self.spread(lane_keys(berths, num_seeds, first_seed))
        self._rows = [jax.tree.map(np.asarray, as_arrays(example))] * berths
        self._loops: PyTree = None
        self._feed = Feed(example, range(first_seed, first_seed + num_seeds), self.spread)

    def seat(self, berth: int, outer: OuterLoop) -> None:
        """Gives a berth to another point."""
        self._rows[berth] = jax.tree.map(np.asarray, as_arrays(outer))
        self._loops = None

    @property
    def loops(self) -> PyTree:
        """The outer loops of the lanes, leaves ``[L, ...]``."""
        if self._loops is None:
            self._loops = self.spread(lanes_of(self._rows, self.num_seeds))
        return self._loops

    def lanes(self, berth: int) -> slice:
        """The lanes of a berth."""
        return slice(berth * self.num_seeds, (berth + 1) * self.num_seeds)

    def spread(self, tree: PyTree) -> PyTree:
        """Pads leaves ``[H*S, ...]`` to the pack's width and puts them on the devices."""
        return devices.place(devices.padded(tree, self.width), self.compiler.mesh)

    def per_lane(self, values: Sequence[Any] | np.ndarray, dtype: Any) -> Array:
        """One value per berth as an array ``[L]`` on the devices."""
        return self.spread(np.repeat(np.asarray(values, dtype), self.num_seeds))

    def fetch(self, tree: PyTree) -> PyTree:
        """Leaves ``[L, ...]`` as numpy arrays on the host, without the padding lanes."""
        return jax.tree.map(lambda leaf: np.asarray(leaf)[: self.num_lanes], tree)

    def begin(self) -> tuple[PyTree, dict[str, Any]]:
        """Every lane's outer state at step 0 and what is kept of it, leaves ``[L, ...]``."""
        return self.compiler.run("init", _begin, (self.loops, self.keys), quick=True)

    def replace(
        self, berths: Sequence[int], state: PyTree, kept: dict[str, Any]
    ) -> tuple[PyTree, dict[str, Any]]:
        """Puts newborn states into the lanes of ``berths``; the others keep theirs to the last bit."""
        new = np.zeros(self.berths, bool)
        new[list(berths)] = True
        lanes = (self.per_lane(new, bool), self.begin(), (state, kept))
        return self.compiler.run("replace", select, lanes, donate=(2,), quick=True)

    def template(self, width: int | None = None) -> PyTree:
        """Shapes, dtypes and shardings of what ``begin`` returns, at this width or another."""
        mesh, lanes = self.compiler.mesh, width or self.width
        spec = PartitionSpec(devices.LANES) if lanes % mesh.size == 0 else PartitionSpec()
        sharding = NamedSharding(mesh, spec)
        shapes = jax.eval_shape(jax.vmap(_begin), self.loops, self.keys)
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((lanes, *leaf.shape[1:]), leaf.dtype, sharding=sharding), shapes
        )

    def prepare(self, length: int) -> Compilation:
        """Compiles ``begin`` and ``chunk`` before they are needed; what is known of the chunk."""
        mesh = self.compiler.mesh
        self.compiler.prepare("init", _begin, (self.loops, self.keys), quick=True)
        lane = NamedSharding(mesh, PartitionSpec(devices.LANES))
        starts = jax.ShapeDtypeStruct((self.width,), jnp.int32, sharding=lane)
        data = self._feed.template(self.width, length, lane)
        lanes = (self.loops, self.keys, self.template()[0], starts, data)
        return self.compiler.prepare("chunk", _chunk, lanes, static=(length,), donate=(2,)).record

    def chunk(self, state: PyTree, starts: Sequence[int], length: int) -> tuple[PyTree, dict[str, Array]]:
        """Runs ``length`` outer steps; ``state`` is used up.

        Args:
            state: leaves ``[L, ...]``.
            starts: [H] outer steps that each berth's point has done.
            length: of the chunk, static.

        Returns:
            The states and the metrics, leaves ``[L, length]``.
        """
        data = self._feed.take(starts, length)
        lanes = (self.loops, self.keys, state, self.per_lane(starts, np.int32), data)
        after = self.compiler.run("chunk", _chunk, lanes, static=(length,), donate=(2,))
        self._feed.ask([start + length for start in starts], length)  # while the devices compute
        return after

    def meta_params(self, state: PyTree) -> PyTree:
        """The meta-parameters that the states hold, leaves ``[L, ...]``."""
        return self.compiler.run("meta_params", _meta_params, (self.loops, state), quick=True)

    def keep_better(
        self, kept: dict[str, Any], meta: PyTree, scores: np.ndarray, steps: Sequence[int]
    ) -> dict[str, Any]:
        """Keeps ``meta`` in the lanes where a score is finite and above the one kept so far.

        Args:
            kept: what ``begin`` gave, leaves ``[L, ...]``.
            meta: leaves ``[L, ...]``.
            scores: [H*S]; not finite: nothing new about this lane.
            steps: [H] outer steps done.
        """
        lanes = (kept, meta, self.spread(scores.astype(np.float32)), self.per_lane(steps, np.int32))
        return self.compiler.run("keep_better", _keep_better, lanes, quick=True)


def _begin(loop: OuterLoop, key: Array) -> tuple[PyTree, dict[str, Any]]:
    state = loop.init(stream(key, "init"))
    nothing = {"score": jnp.asarray(-jnp.inf, jnp.float32), "step": jnp.zeros((), jnp.int32)}
    # Nothing has been selected yet: the initial meta-parameters with a score of -inf.
    return state, {"meta": loop.meta_params(state), **nothing}


def _chunk(
    loop: OuterLoop, key: Array, state: PyTree, start: Array, data: PyTree, length: int
) -> tuple[PyTree, dict[str, Array]]:
    train_key = stream(key, "train")

    def body(state: PyTree, xs: tuple[Array, PyTree]) -> tuple[PyTree, dict[str, Array]]:
        step, batches = xs
        # The key depends on the step's number alone: a resumed run draws what it would have drawn.
        return loop.step(jax.random.fold_in(train_key, step), state, batches)

    return jax.lax.scan(body, state, (start + jnp.arange(length, dtype=jnp.int32), data))


def _meta_params(loop: OuterLoop, state: PyTree) -> PyTree:
    return loop.meta_params(state)


def _keep_better(kept: dict[str, Any], meta: PyTree, score: Array, step: Array) -> dict[str, Any]:
    better = jnp.isfinite(score) & (score > kept["score"])
    return select(better, {"meta": meta, "score": score.astype(jnp.float32), "step": step}, kept)
