"""Axes of a search space, the conditions between them, and the grid that they span."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from metalab.sweep.grammar import Dimension, Float, Int

__all__ = ["Axis", "Condition", "Grid", "Places", "places_under", "same"]

Places = dict[str, list[int]]  # an axis by its name to places of its grid


@dataclasses.dataclass(frozen=True)
class Condition:
    """Holds where ``key`` has been given one of ``values``."""

    key: str
    values: tuple[Any, ...]

    def holds(self, point: Mapping[str, Any]) -> bool:
        """Whether it holds at a point; a key that is not set there has no value."""
        return self.key in point and any(same(point[self.key], value) for value in self.values)


@dataclasses.dataclass(frozen=True)
class Axis:
    """Keys that are set together, from one dimension.

    Attributes:
        keys: one, or several whose values are then the entries of the dimension's lists.
        dimension: the values.
        when: conditions of which every one must hold; none: the keys are always set.
    """

    keys: tuple[str, ...]
    dimension: Dimension
    when: tuple[Condition, ...] = ()

    @property
    def name(self) -> str:
        """As the file calls it; the parameter's name in the study."""
        return ", ".join(self.keys)

    def holds(self, point: Mapping[str, Any]) -> bool:
        """Whether the keys are set at a point."""
        return all(condition.holds(point) for condition in self.when)

    def setting(self, value: Any) -> dict[str, Any]:
        """Every key with its part of a value of the dimension."""
        return dict(zip(self.keys, value if len(self.keys) > 1 else [value], strict=True))

    def setting_at(self, place: int) -> dict[str, Any]:
        """``setting`` of the value at a place of the grid."""
        assert not isinstance(self.dimension, Float | Int)  # they have none
        return self.setting(self.dimension.at(place))

    def plain(self) -> dict[str, Any]:
        """The axis as plain data: its text, and its conditions if there are any."""
        when = {condition.key: list(condition.values) for condition in self.when}
        return {"search": self.dimension.text, **({"when": when} if when else {})}


class Grid:
    """All points of axes that list their values, in order: the last axis varies fastest.

    A condition makes the grid a tree: an axis has values only below those values of other axes under which it
    is set. No point is ever made to be counted: axes that no condition connects multiply.

    Attributes:
        size: number of points.
    """

    def __init__(self, axes: Sequence[Axis]) -> None:
        self._axes = tuple(axes)
        self._deciding = frozenset(condition.key for axis in axes for condition in axis.when)
        self._connected = _connected(axes)
        self._counts: dict[tuple[int, tuple[bool, ...]], int] = {}
        self.size = self._below(0, {})

    def point(self, index: int) -> dict[str, Any]:
        """The point at a place from 0 to ``size - 1``."""
        point: dict[str, Any] = {}
        for position, axis in enumerate(self._axes):
            if axis.holds(point):
                point, index = self._descend(position, point, index)
        return point

    def _descend(self, position: int, point: dict[str, Any], index: int) -> tuple[dict[str, Any], int]:
        """``point`` with the axis at ``position`` set, and what is left of ``index`` below it."""
        axis = self._axes[position]
        if self._deciding.isdisjoint(axis.keys):  # the same number of points lies below each of its values
            place, rest = divmod(index, self._below(position + 1, point))
            return {**point, **axis.setting_at(place)}, rest
        for place in range(axis.dimension.size or 0):
            candidate = {**point, **axis.setting_at(place)}
            below = self._below(position + 1, candidate)
            if index < below:
                return candidate, index
            index -= below
        raise AssertionError("an index below the size lies below some value")

    def _below(self, position: int, point: Mapping[str, Any]) -> int:
        """Number of ways to set the axes from ``position`` on, those before it set as in ``point``."""
        left = ([at for at in group if at >= position] for group in self._connected)
        return math.prod(self._ways(positions, point) for positions in left)

    def _ways(self, positions: Sequence[int], point: Mapping[str, Any]) -> int:
        """``_below`` for the last axes of one connected group."""
        if not positions:
            return 1
        first, *rest = positions
        axis, size = self._axes[first], self._axes[first].dimension.size or 0
        if len(positions) == 1:
            return size if axis.holds(point) else 1
        # Points that agree on the conditions still to be asked have as many points below them.
        memory = (first, tuple(c.holds(point) for at in positions for c in self._axes[at].when))
        if memory not in self._counts:
            if not axis.holds(point):
                count = self._ways(rest, point)
            elif self._deciding.isdisjoint(axis.keys):
                count = size * self._ways(rest, point)
            else:
                count = sum(self._ways(rest, {**point, **axis.setting_at(place)}) for place in range(size))
            self._counts[memory] = count
        return self._counts[memory]


def places_under(axes: Sequence[Axis]) -> dict[str, Places]:
    """For each axis by its name: where the axes must stand on which its conditions depend, directly or not.

    Args:
        axes: each after those that its conditions refer to.
    """
    found: dict[str, Places] = {}
    for axis in axes:
        own = found[axis.name] = {}
        for condition in axis.when:
            parent = next(one for one in axes if condition.key in one.keys)
            size = parent.dimension.size or 0
            fitting = [place for place in range(size) if condition.holds(parent.setting_at(place))]
            for name, places in {**found[parent.name], parent.name: fitting}.items():
                own[name] = [place for place in places if place in own.get(name, places)]
    return found


def same(one: Any, other: Any) -> bool:
    """Equality in which true is not 1."""
    return isinstance(one, bool) == isinstance(other, bool) and one == other


def _connected(axes: Sequence[Axis]) -> list[list[int]]:
    """Positions of the axes in groups: two are in one group where conditions lead from one to the other."""
    groups: list[list[int]] = []
    for position, axis in enumerate(axes):
        wanted = {condition.key for condition in axis.when}
        met = [group for group in groups if any(wanted & set(axes[at].keys) for at in group)]
        groups = [group for group in groups if group not in met]
        groups.append(sorted([*(at for group in met for at in group), position]))
    return groups
