"""All points of a sweep looked at once: every one is built, one of every program is kept."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, cast

import jax

from metalab.config import PointMaker
from metalab.spec import Point, SweepSpec
from metalab.sweep.space import Space, parse_space

__all__ = ["Group", "Survey", "survey"]


@dataclasses.dataclass
class Group:
    """Points whose loops have one structure: they share one XLA program.

    Attributes:
        example: the first of them.
        common: the searched keys that hold the same value in all of them.
        count: how many there are.
    """

    example: Point
    common: dict[str, Any]
    count: int = 0

    def add(self, values: Mapping[str, Any]) -> None:
        """Counts a point of these values."""
        self.count += 1
        for key in [key for key, value in self.common.items() if key not in values or values[key] != value]:
            del self.common[key]


@dataclasses.dataclass(frozen=True)
class Survey:
    """The points of a sweep by structure.

    Attributes:
        groups: in the order of their first points.
        drawn: points were drawn at random to stand for those that the sampler will choose.
    """

    groups: Sequence[Group]
    drawn: bool


def survey(spec: SweepSpec, single: bool = False) -> Survey:
    """Builds every point of a sweep and groups them.

    The points of a grid and of a list are known beforehand; for those of a sampler as many random ones stand.

    Args:
        spec: the sweep.
        single: the file's own values only, the search left aside.

    Raises:
        ConfigError: a value of a point is not allowed.
    """
    make, by_signature = PointMaker(spec), dict[str, Group]()
    by_structure: dict[Hashable, Group] = {}
    for number, values in enumerate(_values(spec, single)):
        point, signature = make(number, values), make.signature(values)
        if signature not in by_signature:
            structure = jax.tree.structure(point.outer)
            by_signature[signature] = by_structure.setdefault(structure, Group(point, dict(values)))
        by_signature[signature].add(values)
    drawn = not single and bool(spec.search) and spec.study.sampler != "grid"
    return Survey(tuple(by_structure.values()), drawn)


def _values(spec: SweepSpec, single: bool) -> Iterator[Mapping[str, Any]]:
    """The searched keys' values, point by point."""
    if single or not spec.search:
        return iter([{}])
    space, study = parse_space(spec.search), spec.study
    if study.sampler == "grid":
        return itertools.islice(space, study.points)
    assert study.points is not None  # the file is refused without it
    return _random_values(space, study.points, study.seed)


def _random_values(space: Space, count: int, seed: int) -> Iterator[Mapping[str, Any]]:
    trial = _RandomTrial(random.Random(seed))
    return (space.suggest(cast(Any, trial)) for _ in range(count))


@dataclasses.dataclass(frozen=True)
class _RandomTrial:
    """The part of an Optuna trial that a space asks, of no study: a study of thousands of trials is slow."""

    source: random.Random

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self.source.choice(choices)

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        if not log:
            return self.source.uniform(low, high)
        drawn = math.exp(self.source.uniform(math.log(low), math.log(high)))
        return min(max(drawn, low), high)

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        if log:
            return round(self.suggest_float(name, low, high, log=True))
        return self.source.randrange(low, high + 1, step)
