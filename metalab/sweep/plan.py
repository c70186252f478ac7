"""The plan of a sweep: points to programs to packs, and what they need, before anything runs.

Points whose loops have the same pytree structure share one XLA program; a program's points are stacked into
packs that fit the memory. Nothing here computes: sizes are those of ``jax.eval_shape``, and XLA is asked only
when told to.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from metalab import devices
from metalab.components import as_arrays
from metalab.config import build_baseline_sets, build_evaluation_sets, make_point
from metalab.contracts import ContractError, check_inner, check_outer, check_probe
from metalab.errors import ConfigError
from metalab.protocols import OuterLoop
from metalab.spec import EvaluationSet, Point, SweepSpec
from metalab.sweep.space import grid_points, parse_space
from metalab.sweep.study import sampled_points
from metalab.trees import group_by_structure

__all__ = [
    "Memory",
    "Pack",
    "Plan",
    "Program",
    "check_spec",
    "compiled_memory",
    "describe",
    "fit_lanes",
    "make_plan",
    "plan_points",
    "split",
]

# States are held twice while a chunk is replaced by the next one where buffers cannot be donated, and
# temporaries of a differentiated truncation have been of the order of the states: a first guess that
# `compiled_memory` replaces by what XLA says.
_GUESS = 4
_USABLE = 0.8


@dataclasses.dataclass(frozen=True)
class Memory:
    """What XLA says a pack's chunk needs on one device.

    Attributes:
        arguments: bytes of loops, keys and states.
        temporaries: bytes beside them.
    """

    arguments: int
    temporaries: int


@dataclasses.dataclass(frozen=True)
class Pack:
    """Points that run at once.

    Attributes:
        points: H points.
        lanes: H x S, padded to a multiple of the devices.
        memory: per device; None: XLA was not asked.
    """

    points: tuple[Point, ...]
    lanes: int
    memory: Memory | None = None


@dataclasses.dataclass(frozen=True)
class Program:
    """Points that share one XLA program.

    Attributes:
        points: all of them.
        packs: how they are stacked.
        differs: the searched keys that set this program apart from the others, as ``key=value``.
        meta_params: number of meta-parameters.
        state_bytes: of one lane's outer state, exact.
    """

    points: tuple[Point, ...]
    packs: tuple[Pack, ...]
    differs: tuple[str, ...]
    meta_params: int
    state_bytes: int


@dataclasses.dataclass(frozen=True)
class Plan:
    """All programs of a sweep.

    Attributes:
        spec: the sweep.
        programs: in the order of their first points.
        devices: number of local devices.
        drawn: points were drawn at random to stand for those that the sampler will choose.
    """

    spec: SweepSpec
    programs: tuple[Program, ...]
    devices: int
    drawn: bool

    @property
    def num_points(self) -> int:
        """Points of all programs."""
        return sum(len(program.points) for program in self.programs)

    @property
    def most(self) -> int:
        """Points of the largest pack."""
        return max(len(pack.points) for program in self.programs for pack in program.packs)


def make_plan(
    spec: SweepSpec, *, single: bool = False, max_lanes: int | None = None, ask_xla: bool = False
) -> Plan:
    """Plans a sweep.

    Args:
        spec: the sweep.
        single: the file's own values only, the search left aside.
        max_lanes: points in one pack at most; None: as many as fit the memory.
        ask_xla: compile every pack's chunk and record the memory that XLA says it needs.

    Raises:
        ConfigError: a value of a point is not allowed.
    """
    points, drawn = plan_points(spec, single)
    num_devices = jax.local_device_count()
    groups = list(group_by_structure(points, lambda point: as_arrays(point.outer)).values())
    programs = []
    for group in groups:
        state_bytes, meta_params = _sizes(group[0].outer)
        fitting = fit_lanes(_GUESS * state_bytes * spec.seeds, _device_memory(num_devices)) * num_devices
        stacked = split(group, min(max_lanes or fitting, fitting))
        packs = tuple(_pack(points, spec, num_devices, ask_xla) for points in stacked)
        others = [point for other in groups if other is not group for point in other]
        differs = _differs(group, others)
        programs.append(Program(tuple(group), packs, differs, meta_params, state_bytes))
    return Plan(spec, tuple(programs), num_devices, drawn)


def plan_points(spec: SweepSpec, single: bool = False) -> tuple[list[Point], bool]:
    """The points of a sweep, and whether a random draw stands for them.

    The grid, random and quasi-random points are known beforehand; those of an adaptive sampler are not.
    """
    if single or not spec.search:
        return [make_point(spec, 0, {})], False
    space, study = parse_space(spec.search), spec.study
    if study.sampler == "grid":
        values = grid_points(space)[: study.points]
    else:
        assert study.points is not None  # the file is refused without it
        values = sampled_points(space, "random", study.points, study.seed)
    return [make_point(spec, number, one) for number, one in enumerate(values)], study.sampler != "grid"


def check_spec(spec: SweepSpec, points: Sequence[Point]) -> None:
    """Checks that what the sweep will run keeps the protocols, by shapes alone.

    One point of every structure, the evaluation sets and the baselines are traced; nothing compiles.

    Raises:
        ConfigError: a component breaks a protocol, or an outer loop refuses its inner loop.
    """
    for group in group_by_structure(points, lambda point: as_arrays(point.outer)).values():
        values = ", ".join(f"{key}={value}" for key, value in group[0].values.items())
        try:
            check_outer(group[0].outer)
        except ContractError as error:
            raise ConfigError(f"outer (at {values})" if values else "outer", str(error), spec.path) from error
    sets = build_evaluation_sets(spec, points[0])
    _check_sets(sets, "evaluation.sets", spec)
    _check_probes(sets, spec)
    for baseline in spec.baselines:
        if baseline.config:
            _check_sets(build_baseline_sets(spec, baseline, {}), f"baselines.{baseline.name} on set", spec)


def fit_lanes(bytes_per_lane: int, device_memory: int, usable: float = _USABLE) -> int:
    """Lanes that fit one device, at least one.

    >>> fit_lanes(100, 1000)
    8
    >>> fit_lanes(10_000, 1000)
    1
    """
    return max(1, int(device_memory * usable) // max(1, bytes_per_lane))


def split(points: Sequence[Point], most: int) -> list[list[Point]]:
    """Packs of at most ``most`` points and of nearly equal size, so that few sizes are compiled."""
    count = math.ceil(len(points) / most)
    size = math.ceil(len(points) / count)
    return [list(points[start : start + size]) for start in range(0, len(points), size)]


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


def describe(plan: Plan) -> str:
    """The plan as a text for the terminal."""
    spec = plan.spec
    drawn = f", drawn at random here; {spec.study.sampler} will choose its own" if plan.drawn else ""
    lines = [
        f"{spec.name}: {_count(plan.num_points, 'point')}{drawn}, {_count(spec.seeds, 'seed')}, "
        f"{_count(len(plan.programs), 'program')}, {_count(plan.devices, 'device')}",
        f"budget: {spec.budget.outer_steps} outer steps in chunks of {spec.budget.chunk}; "
        f"evaluation every {spec.evaluation.every} on {', '.join(spec.evaluation.sets) or 'nothing'}",
    ]
    lines += [f"search: {key} = {text}" for key, text in spec.search.items()]
    if spec.baselines:
        lines.append("baselines: " + ", ".join(baseline.name for baseline in spec.baselines))
    for number, program in enumerate(plan.programs):
        apart = f" ({', '.join(program.differs)})" if program.differs else ""
        lines.append(
            f"program {number}{apart}: {_count(len(program.points), 'point')}, "
            f"{program.meta_params:,} meta-parameters, state of a lane {_bytes(program.state_bytes)}"
        )
        lines += [_pack_line(index, pack, spec.seeds) for index, pack in enumerate(program.packs)]
    return "\n".join(lines)


def _check_sets(sets: dict[str, EvaluationSet], where: str, spec: SweepSpec) -> None:
    for name, one in sets.items():
        try:
            check_inner(one.inner, one.tasks)
        except ContractError as error:
            raise ConfigError(f"{where}.{name}", str(error), spec.path) from error


def _check_probes(sets: dict[str, EvaluationSet], spec: SweepSpec) -> None:
    for name, one in sets.items():
        path = f"evaluation.sets.{name}.probe"
        if one.probe and one.count < 2:
            raise ConfigError(
                path, f"one half of the lifetimes tests the other; count is {one.count}", spec.path
            )
        try:
            if one.probe:
                check_probe(one.inner, one.tasks)
        except ContractError as error:
            raise ConfigError(path, str(error), spec.path) from error


def _pack(points: Sequence[Point], spec: SweepSpec, num_devices: int, ask_xla: bool) -> Pack:
    lanes = devices.pad_lanes(len(points) * spec.seeds, num_devices)
    memory = None
    if ask_xla:
        memory = compiled_memory(points[0].outer, lanes // num_devices, spec.budget.chunk)
    return Pack(tuple(points), lanes, memory)


def _sizes(outer: OuterLoop) -> tuple[int, int]:
    """Bytes of the outer state and number of meta-parameters, by shapes alone."""
    loop = as_arrays(outer)
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = jax.eval_shape(lambda loop, key: loop.init(key), loop, key)
    meta = jax.eval_shape(lambda loop, state: loop.meta_params(state), loop, state)
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    return size, sum(leaf.size for leaf in jax.tree.leaves(meta))


def _device_memory(num_devices: int) -> int:
    """Bytes of one device; CPU devices share the machine's."""
    device = jax.local_devices()[0]
    if device.platform != "cpu":
        stats = device.memory_stats() or {}
        if "bytes_limit" in stats:
            return int(stats["bytes_limit"])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // num_devices


def _differs(group: Sequence[Point], others: Sequence[Point]) -> tuple[str, ...]:
    """Searched keys that hold one value in this program and another one somewhere else."""
    found = []
    for key, value in group[0].values.items():
        alone = all(point.values[key] == value for point in group)
        if alone and any(point.values[key] != value for point in others):
            found.append(f"{key}={value}")
    return tuple(found)


def _pack_line(index: int, pack: Pack, seeds: int) -> str:
    lanes = len(pack.points) * seeds
    padding = pack.lanes - lanes
    size = f"{_count(len(pack.points), 'point')} x {_count(seeds, 'seed')}"
    text = f"  pack {index}: {size} = {_count(lanes, 'lane')}"
    text += f" (+{padding} padding)" if padding else ""
    if pack.memory is not None:
        text += (
            f", per device {_bytes(pack.memory.arguments)} of arguments "
            f"and {_bytes(pack.memory.temporaries)} of temporaries"
        )
    return text


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _bytes(size: float) -> str:
    """A size in binary units, for example ``1.5 MiB``."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
