"""The search space of a sweep file: which points there are, and what a sampler may suggest.

The ``search`` section is a mapping of keys to texts in Hydra's sweep grammar (``metalab.sweep.grammar``).
A key that is a comma-separated list moves several keys together; a value that is a mapping with ``when``
holds only where another key has been given certain values. Or the section is a list: the points themselves.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from metalab.errors import ConfigError, nearest
from metalab.plain import require_plain
from metalab.sweep.axes import Axis, Condition, Grid, Places, places_under, same
from metalab.sweep.grammar import Choice, Dimension, parse_dimension

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

__all__ = ["Space", "difference", "parse_space"]

POINT = "point"  # the name of a listed point among a trial's parameters


@dataclasses.dataclass(frozen=True)
class Space:
    """All points of a search.

    A point is a mapping of the searched keys to their values, without keys whose conditions do not hold.

    Attributes:
        axes: an axis stands after those that its conditions refer to.
        listed: the points themselves where the file lists them; None: the product of the axes.
        path: where the section stands, for errors.
    """

    axes: tuple[Axis, ...] = ()
    listed: tuple[Mapping[str, Any], ...] | None = None
    path: str = "search"

    @property
    def keys(self) -> tuple[str, ...]:
        """Every key that some point sets, in order."""
        if self.listed is not None:
            return tuple(dict.fromkeys(key for point in self.listed for key in point))
        return tuple(key for axis in self.axes for key in axis.keys)

    @property
    def conditional(self) -> bool:
        """Whether points differ in their keys."""
        if self.listed is not None:
            keys = set(self.keys)
            return any(set(point) != keys for point in self.listed)
        return any(axis.when for axis in self.axes)

    @functools.cached_property
    def size(self) -> int | None:
        """Number of points; None: some key is continuous. A space without keys has one point."""
        if self.listed is not None:
            return len(self.listed)
        if any(axis.dimension.size is None for axis in self.axes):
            return None
        return self._grid.size

    def check_grid(self) -> None:
        """Refuses a continuous space where all points are asked for.

        Raises:
            ConfigError: names the first key that is continuous.
        """
        for axis in self.axes:
            if axis.dimension.size is None:
                problem = (
                    f"{axis.dimension.text} has no grid; list values with choice(...) or range(...), "
                    "or set study.sampler (random, qmc, tpe) and study.points"
                )
                raise ConfigError(f"{self.path}.{axis.name}", problem)

    def point(self, index: int) -> dict[str, Any]:
        """A point by its place in the grid or the list; the last key varies fastest.

        Raises:
            ConfigError: a key is continuous.
            IndexError: there is no such place.
        """
        self.check_grid()
        assert self.size is not None
        if not 0 <= index < self.size:
            raise IndexError(f"point {index} of a space of {self.size}")
        if self.listed is not None:
            return dict(self.listed[index])
        return self._grid.point(index)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """All points in order, made one by one.

        Raises:
            ConfigError: a key is continuous.
        """
        self.check_grid()
        assert self.size is not None
        return map(self.point, range(self.size))

    def probes(self) -> Iterator[dict[str, Any]]:
        """Points, most of them partial, that stand for all when a space is checked.

        Every value of a choice and both ends of a range or interval, one axis at a time, with the keys set
        on which its conditions depend; then the axis under every other value that lets it be set.
        """
        if self.listed is not None:
            yield from map(dict, self.listed)
            return
        places = places_under(self.axes)
        for axis in self.axes:
            contexts = self._contexts(places[axis.name])
            values = axis.dimension.probes()
            yield from ({**contexts[0], **axis.setting(value)} for value in values)
            yield from ({**context, **axis.setting(values[0])} for context in contexts[1:])

    def suggest(self, trial: BaseTrial) -> dict[str, Any]:
        """A point of a sampler's, asked of it key by key as the conditions allow."""
        if self.listed is not None:
            return self.point(trial.suggest_int(POINT, 0, len(self.listed) - 1))
        return self._filled(lambda axis: axis.dimension.suggest(trial, axis.name))

    def decode(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The point that ``suggest`` gave, from the trial's stored parameters.

        Raises:
            KeyError: they are those of another space.
        """
        if self.listed is not None:
            return self.point(params[POINT])
        return self._filled(lambda axis: axis.dimension.decode(params[axis.name]))

    def plain(self) -> dict[str, Any]:
        """The space as JSON-able data: equal for two spaces exactly when they hold the same points."""
        if self.listed is not None:
            return {"points": [dict(point) for point in self.listed]}
        return {"axes": {axis.name: axis.plain() for axis in self.axes}}

    def lines(self) -> list[str]:
        """The space for a reader, a line a key."""
        if self.listed is not None:
            return [f"{len(self.listed)} listed points of {', '.join(self.keys)}"]
        return [f"{name} = {_words(axis)}" for name, axis in self.plain()["axes"].items()]

    def _filled(self, value_of: Any) -> dict[str, Any]:
        point: dict[str, Any] = {}
        for axis in self.axes:
            if axis.holds(point):
                point |= axis.setting(value_of(axis))
        return point

    @functools.cached_property
    def _grid(self) -> Grid:
        return Grid(self.axes)

    def _contexts(self, places: Places) -> list[dict[str, Any]]:
        """Settings of the axes at ``places``: among them, every one of each axis."""
        count = max(map(len, places.values()), default=1)
        return [self._context(places, number) for number in range(count)]

    def _context(self, places: Places, number: int) -> dict[str, Any]:
        context: dict[str, Any] = {}
        for axis in self.axes:
            if axis.name in places:
                allowed = places[axis.name]
                context |= axis.setting_at(allowed[min(number, len(allowed) - 1)])
        return context


def parse_space(search: Any, path: str = "search") -> Space:
    """Reads a search section.

    Args:
        search: a mapping of keys to texts or to ``{search: text, when: {key: value or [values]}}``, or a list
            of points; None and what is empty stand for no search.
        path: where it stands, for errors.

    Raises:
        ConfigError: a text is not in the grammar, keys are set twice, or a condition can never hold.
    """
    if not search and (search is None or isinstance(search, Mapping | list | tuple)):
        return Space(path=path)
    if isinstance(search, list | tuple):
        return Space(listed=_listed(search, path), path=path)
    if not isinstance(search, Mapping):
        raise ConfigError(
            path, f"expected a mapping of keys to search texts, or a list of points; got {search!r}"
        )
    axes = [_axis(key, value, path) for key, value in search.items()]
    _refuse_repeated([key for axis in axes for key in axis.keys], path)
    by_key = {key: axis for axis in axes for key in axis.keys}
    for axis in axes:
        _check_conditions(axis, by_key, path)
    space = Space(axes=tuple(_ordered(axes, path)), path=path)
    for name, places in places_under(space.axes).items():
        if not all(places.values()):
            raise ConfigError(f"{path}.{name}.when", "never holds: the conditions contradict each other")
    _refuse_overwritten(space.keys, path)
    return space


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """What changed between two spaces' ``plain`` data, in words; empty: nothing.

    >>> difference({"axes": {"a": {"search": "choice(1, 2)"}}}, {"axes": {"a": {"search": "choice(1, 3)"}}})
    'a was choice(1, 2) and is choice(1, 3)'
    """
    if ("points" in old) != ("points" in new):
        return "a list of points became a search" if "points" in old else "a search became a list of points"
    if "points" in old:
        return _listed_difference(old["points"], new["points"])
    before, after = ({name: _words(axis) for name, axis in plain["axes"].items()} for plain in (old, new))
    changes = [
        f"{name} was {text} and is no longer searched" for name, text in before.items() if name not in after
    ]
    changes += [f"{name} is new: {text}" for name, text in after.items() if name not in before]
    both = [name for name in after if name in before]
    changes += [
        f"{name} was {before[name]} and is {after[name]}" for name in both if before[name] != after[name]
    ]
    if not changes and list(before) != list(after):
        changes = [f"the order of the keys was {', '.join(before)} and is {', '.join(after)}"]
    return "; ".join(changes)


def _listed_difference(old: Sequence[Any], new: Sequence[Any]) -> str:
    for number, (before, after) in enumerate(zip(old, new, strict=False)):
        if _json(before) != _json(after):
            return f"point {number} of the list was {_json(before)} and is {_json(after)}"
    if len(old) != len(new):
        return f"the list had {len(old)} points and has {len(new)}"
    return ""


def _words(axis: Mapping[str, Any]) -> str:
    conditions = [
        f"{key} is {' or '.join(map(_json, values))}" for key, values in axis.get("when", {}).items()
    ]
    return axis["search"] + (f" when {' and '.join(conditions)}" if conditions else "")


def _listed(points: Sequence[Any], path: str) -> tuple[dict[str, Any], ...]:
    seen: dict[str, int] = {}
    for number, point in enumerate(points):
        where = f"{path}[{number}]"
        if not isinstance(point, Mapping):
            raise ConfigError(where, f"expected a point, a mapping of keys to values; got {point!r}")
        require_plain(point, where)
        _refuse_overwritten(tuple(point), where)
        text = _json(point)
        if text in seen:
            raise ConfigError(where, f"the same point as number {seen[text]} of the list")
        seen[text] = number
    return tuple(dict(point) for point in points)


def _axis(key: Any, value: Any, path: str) -> Axis:
    require_plain({key: value}, path)
    where = f"{path}.{key}"
    keys = tuple(part.strip() for part in key.split(","))
    if not all(keys):
        raise ConfigError(where, "expected a key, or several with a comma between each two")
    when: Any = {}
    if isinstance(value, Mapping):
        for name in value:
            if name not in ("search", "when"):
                raise ConfigError(f"{where}.{name}", f"unknown key; {nearest(str(name), ['search', 'when'])}")
        if "search" not in value:
            raise ConfigError(
                where, "expected {search: TEXT, when: {OTHER_KEY: VALUE}}, and search is missing"
            )
        value, when = value["search"], value.get("when")
    dimension = parse_dimension(value, where)
    if len(keys) > 1:
        _check_zipped(keys, dimension, where)
    return Axis(keys, dimension, _conditions(when, where))


def _check_zipped(keys: Sequence[str], dimension: Dimension, where: str) -> None:
    if not isinstance(dimension, Choice):
        raise ConfigError(where, f"keys move together through choice([..], [..]); got {dimension.text}")
    for value in dimension.values:
        if not (isinstance(value, list) and len(value) == len(keys)):
            raise ConfigError(
                where, f"each choice is a list of {len(keys)} values, one for each key; got {_json(value)}"
            )


def _conditions(when: Any, where: str) -> tuple[Condition, ...]:
    if not isinstance(when, Mapping):
        raise ConfigError(f"{where}.when", f"expected {{OTHER_KEY: VALUE or [VALUES]}}, got {when!r}")
    made = []
    for key, values in when.items():
        listed = tuple(values) if isinstance(values, list | tuple) else (values,)
        if not isinstance(key, str) or not listed:
            raise ConfigError(f"{where}.when.{key}", f"expected a value or a list of values, got {values!r}")
        made.append(Condition(key, listed))
    return tuple(made)


def _check_conditions(axis: Axis, by_key: Mapping[str, Axis], path: str) -> None:
    for condition in axis.when:
        where = f"{path}.{axis.name}.when.{condition.key}"
        parent = by_key.get(condition.key)
        if parent is None:
            raise ConfigError(where, f"is not searched; {nearest(condition.key, by_key)}")
        if not isinstance(parent.dimension, Choice):
            raise ConfigError(where, f"must be searched by a choice, not by {parent.dimension.text}")
        known = [parent.setting(value)[condition.key] for value in parent.dimension.values]
        for value in condition.values:
            if not any(same(value, other) for other in known):
                raise ConfigError(where, f"is never {value!r}; it is one of {', '.join(map(_json, known))}")


def _ordered(axes: Iterable[Axis], path: str) -> Iterator[Axis]:
    """The axes in the file's order, but none before one that it depends on."""
    left, placed = list(axes), set[str]()
    while left:
        ready = next((axis for axis in left if all(c.key in placed for c in axis.when)), None)
        if ready is None:
            names = ", ".join(axis.name for axis in left)
            raise ConfigError(path, f"the conditions of {names} depend on each other in a circle")
        left.remove(ready)
        placed.update(ready.keys)
        yield ready


def _refuse_repeated(keys: Sequence[str], path: str) -> None:
    for number, key in enumerate(keys):
        if key in keys[:number]:
            raise ConfigError(f"{path}.{key}", "is searched twice")


def _refuse_overwritten(keys: Sequence[str], path: str) -> None:
    """A key that holds another one is set first, or it would undo the other."""
    for number, key in enumerate(keys):
        for earlier in keys[:number]:
            if earlier.startswith(f"{key}."):
                raise ConfigError(f"{path}.{key}", f"would overwrite {earlier}, which stands before it")


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
