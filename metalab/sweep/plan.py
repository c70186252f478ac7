"""The plan of a sweep: points to programs, and what they need, before anything runs.

Points whose loops have the same pytree structure share one XLA program, and run in its berths: so many at
once as fit the memory, the next one where one has ended.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Sequence
from typing import Any

import jax

from metalab import devices
from metalab.components import is_component, specs
from metalab.config import build_baseline_sets, build_evaluation_sets
from metalab.contracts import ContractError, check_inner, check_outer, check_probe
from metalab.errors import ConfigError
from metalab.spec import EvaluationSet, Point, SweepSpec
from metalab.sweep.memory import Memory, compiled_memory, fitting_berths, sizes
from metalab.sweep.recording import Expected
from metalab.sweep.space import parse_space
from metalab.sweep.survey import Group, survey

__all__ = ["Plan", "Program", "check_spec", "describe", "make_plan", "outline", "plan_points"]


@dataclasses.dataclass(frozen=True)
class Program:
    """Points that share one XLA program.

    Attributes:
        count: how many there are.
        example: the first of them.
        berths: H, points at once.
        lanes: H x S, padded to a multiple of the devices.
        differs: the searched keys that set this program apart from the others, as ``key=value``.
        meta_params: number of meta-parameters.
        state_bytes: of one lane's outer state, exact.
        memory: per device; None: XLA was not asked.
    """

    count: int
    example: Point
    berths: int
    lanes: int
    differs: tuple[str, ...]
    meta_params: int
    state_bytes: int
    memory: Memory | None = None


@dataclasses.dataclass(frozen=True)
class Plan:
    """All programs of a sweep.

    Attributes:
        spec: the sweep.
        programs: in the order of their first points.
        drawn: points were drawn at random to stand for those that the sampler will choose.
    """

    spec: SweepSpec
    programs: tuple[Program, ...]
    drawn: bool

    @property
    def num_points(self) -> int:
        """Points of all programs."""
        return sum(program.count for program in self.programs)


def make_plan(
    spec: SweepSpec, *, single: bool = False, max_lanes: int | None = None, ask_xla: bool = False
) -> Plan:
    """Plans a sweep, after ``check_spec``.

    Args:
        spec: the sweep.
        single: the file's own values only, the search left aside.
        max_lanes: points at once at most; None: as many as fit the memory.
        ask_xla: compile every program's chunk and record the memory that XLA says it needs.

    Raises:
        ConfigError: a value of a point is not allowed, or a component breaks a protocol.
    """
    found = survey(spec, single)
    check_spec(spec, [group.example for group in found.groups])
    programs = tuple(
        _program(spec, group, _differs(group, found.groups), max_lanes, ask_xla) for group in found.groups
    )
    return Plan(spec, programs, found.drawn)


def plan_points(spec: SweepSpec, single: bool = False) -> tuple[list[Point], bool]:
    """One point of every program of a sweep, and whether a random draw stands for the points.

    Every point is built: an error in one of them is an error here.

    Raises:
        ConfigError: a value of a point is not allowed.
    """
    found = survey(spec, single)
    return [group.example for group in found.groups], found.drawn


def check_spec(spec: SweepSpec, points: Sequence[Point]) -> None:
    """Checks that what the sweep will run keeps the protocols, by shapes alone; nothing compiles.

    The evaluation sets, the baselines and points are traced. Of programs that differ in whole numbers alone
    (sizes and counts) it is the first and the last one: a trace takes seconds, and there may be hundreds.

    Args:
        spec: the sweep.
        points: one of every program, see ``plan_points``.

    Raises:
        ConfigError: a component breaks a protocol, or an outer loop refuses its inner loop.
    """
    for point in _first_and_last_of_each_kind(points):
        values = ", ".join(f"{key}={value}" for key, value in point.values.items())
        try:
            check_outer(point.outer)
        except ContractError as error:
            raise ConfigError(f"outer (at {values})" if values else "outer", str(error), spec.path) from error
    sets = build_evaluation_sets(spec, points[0])
    _check_sets(sets, "evaluation.sets", spec)
    _check_probes(sets, spec)
    for baseline in spec.baselines:
        if baseline.config:
            _check_sets(build_baseline_sets(spec, baseline, {}), f"baselines.{baseline.name} on set", spec)


def describe(plan: Plan, recordings: Sequence[Expected] = ()) -> str:
    """The plan as a text for the terminal.

    Args:
        plan: of a sweep.
        recordings: that the sweep stands on.
    """
    spec = plan.spec
    lines = _head(spec, plan.num_points, len(plan.programs), plan.drawn, recordings)
    lines += [_program_line(number, program, spec.seeds) for number, program in enumerate(plan.programs)]
    return "\n".join(lines)


def outline(spec: SweepSpec, recordings: Sequence[Expected]) -> str:
    """What can be said of a sweep whose recordings are not there yet, as a text for the terminal.

    Every point is built; what its program needs depends on what was recorded, and is not traced.

    Raises:
        ConfigError: a value of a point is not allowed.
    """
    found = survey(spec)
    points = sum(group.count for group in found.groups)
    lines = _head(spec, points, len(found.groups), found.drawn, recordings)
    lines.append(f"what the programs need can be told after `metalab record {spec.path}`")
    return "\n".join(lines)


def _head(
    spec: SweepSpec, points: int, programs: int, drawn: bool, recordings: Sequence[Expected]
) -> list[str]:
    told = f", drawn at random here; {spec.study.sampler} will choose its own" if drawn else ""
    lines = [
        f"{spec.name}: {_count(points, 'point')}{told}, {_count(spec.seeds, 'seed')}, "
        f"{_count(programs, 'program')}, {_count(jax.local_device_count(), 'device')}",
        f"budget: {spec.budget.outer_steps} outer steps in chunks of {spec.budget.chunk}; "
        f"evaluation every {spec.evaluation.every} on {', '.join(spec.evaluation.sets) or 'nothing'}",
    ]
    lines += [_recording_line(one) for one in recordings]
    lines += [f"search: {line}" for line in parse_space(spec.search).lines()]
    if spec.baselines:
        lines.append("baselines: " + ", ".join(baseline.name for baseline in spec.baselines))
    return lines


def _recording_line(one: Expected) -> str:
    there = (
        "there"
        if not one.missing
        else f"{one.missing} of {_count(one.manifest.parts, 'part')} to be recorded"
    )
    what = f"{one.manifest.histories:,} histories of {one.manifest.steps:,} steps"
    return f"recording {one.name}: {what}, {there}"


def _program(
    spec: SweepSpec, group: Group, differs: tuple[str, ...], max_lanes: int | None, ask_xla: bool
) -> Program:
    outer, num_devices = group.example.outer, jax.local_device_count()
    wanted = min(limit for limit in (group.count, spec.study.batch, max_lanes) if limit is not None)
    state_bytes, meta_params = sizes(outer)
    berths = fitting_berths(state_bytes, spec.seeds, wanted)
    lanes = devices.pad_lanes(berths * spec.seeds, num_devices)
    memory = compiled_memory(outer, lanes // num_devices, spec.budget.chunk) if ask_xla else None
    return Program(group.count, group.example, berths, lanes, differs, meta_params, state_bytes, memory)


def _differs(group: Group, groups: Sequence[Group]) -> tuple[str, ...]:
    """Searched keys that hold one value in this program and another one, or none, somewhere else."""
    absent = object()
    apart = [
        key
        for key, value in group.common.items()
        if any(other.common.get(key, absent) != value for other in groups)
    ]
    return tuple(f"{key}={group.common[key]}" for key in apart)


def _first_and_last_of_each_kind(points: Sequence[Point]) -> list[Point]:
    ends: dict[Hashable, list[Point]] = {}
    for point in points:
        same = ends.setdefault(_kind(point.outer), [])
        del same[1:]
        same.append(point)
    return sorted((point for same in ends.values() for point in same), key=lambda point: point.number)


def _kind(component: Any) -> Hashable:
    """A component's classes and static fields, but for whole numbers and for leaves."""
    fields: list[Hashable] = [type(component)]
    for name, spec in specs(component).items():
        value = getattr(component, name)
        if is_component(value):
            fields.append((name, _kind(value)))
        elif value is None or (spec.kind == "static" and type(value) is not int):
            fields.append((name, value))
    return tuple(fields)


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


def _program_line(number: int, program: Program, seeds: int) -> str:
    lanes = program.berths * seeds
    apart = f" ({', '.join(program.differs)})" if program.differs else ""
    padding = f" (+{program.lanes - lanes} padding)" if program.lanes > lanes else ""
    text = (
        f"program {number}{apart}: {_count(program.count, 'point')}, {program.berths:,} at once x "
        f"{_count(seeds, 'seed')} = {_count(lanes, 'lane')}{padding}, "
        f"{program.meta_params:,} meta-parameters, state of a lane {_bytes(program.state_bytes)}"
    )
    if program.memory is not None:
        text += (
            f", per device {_bytes(program.memory.arguments)} of arguments "
            f"and {_bytes(program.memory.temporaries)} of temporaries"
        )
    return text


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def _bytes(size: float) -> str:
    """A size in binary units, for example ``1.5 MiB``."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
