"""Points that differ in numbers alone, made from one template.

Composing a configuration and building its components takes milliseconds, nearly all of it the same for
every point. A template is what one combination of the other values (sizes, names, whole components) leads to;
a point sets its numbers on the template's components and on a copy of its configuration.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from metalab.components import is_component, specs
from metalab.config.compose import resolved_with
from metalab.config.points import Loops, build_loops, digest_of_config, own_world
from metalab.config.schema import field_value, join
from metalab.errors import ConfigError
from metalab.spec import Point

__all__ = ["Template", "make_template"]

# Stands around a key where its number will stand: no sweep file holds this character.
_MARK = "\0"
_LOOPS = ("tasks", "inner", "outer")

Place = tuple[str | int, ...]


@dataclasses.dataclass(frozen=True)
class Template:
    """One combination of the values that are not numbers.

    Attributes:
        keys: the searched keys whose numbers may move.
        loops: components and configuration of the values that the template was made with.
        nodes: the way to the numbers in ``tasks``, ``inner`` and ``outer``.
        echoes: places outside the components that refer to a number, each with its key.
    """

    keys: frozenset[str]
    loops: Loops
    nodes: Mapping[str, _Node]
    echoes: Mapping[Place, str]

    def point(self, number: int, values: Mapping[str, Any]) -> Point:
        """The point of ``values``, which differ from the template's in the numbers of ``keys`` alone.

        Raises:
            Exception: a number is not allowed; ``make_point`` says it in one line.
        """
        tasks, tasks_config = self.nodes["tasks"].moved(values)
        shared = {} if own_world(self.loops.config) else _world(tasks)
        inner, inner_config = self.nodes["inner"].moved(values, shared)
        outer, outer_config = self.nodes["outer"].moved(values, {"inner": inner, "tasks": tasks})
        config = {**self.loops.config, "tasks": tasks_config, "inner": inner_config, "outer": outer_config}
        for place, key in self.echoes.items():
            config = _replaced(config, place, values[key])
        digest = digest_of_config(config)
        return Point(number=number, values=dict(values), config=config, outer=outer, digest=digest)


def make_template(raw: Mapping[str, Any], values: Mapping[str, Any], keys: Collection[str]) -> Template:
    """The template of a combination of values.

    Args:
        raw: the configuration before its interpolations.
        values: the searched keys of a point.
        keys: those that may move. The template has fewer where one does not lead to a number of a
            component, or where something depends on it in a way that cannot be followed.

    Raises:
        ConfigError: a value is not allowed.
    """
    marks = {f"{_MARK}{key}{_MARK}": key for key in keys}
    try:
        marked = resolved_with(raw, {**values, **{key: mark for mark, key in marks.items()}})
    except ConfigError:
        if not keys:
            raise
        return make_template(raw, values, ())  # a number decides where an interpolation leads
    # Every place that a key reaches, through interpolations too, holds its mark now.
    texts = {place: text for place, text in _texts(marked) if _MARK in text}
    tangled = {key for mark, key in marks.items() if not _stands_alone(mark, texts)}
    if tangled:
        return make_template(raw, values, set(keys) - tangled)
    loops = build_loops(_filled(marked, {mark: values[key] for mark, key in marks.items()}))
    keys_at = {place: marks[text] for place, text in texts.items()}
    fixed = {key for place, key in keys_at.items() if place[0] in _LOOPS and not _is_number(place, loops)}
    if fixed:
        return make_template(raw, values, set(keys) - fixed)
    nodes = {
        name: _node(getattr(loops, name), loops.config[name], name, _below(keys_at, name)) for name in _LOOPS
    }
    echoes = {place: key for place, key in keys_at.items() if place[0] not in _LOOPS}
    return Template(frozenset(keys), loops, nodes, echoes)


@dataclasses.dataclass(frozen=True)
class _Node:
    """A component on the way to numbers that move.

    Attributes:
        component: as the template has it.
        config: its mapping, every field written out.
        path: where the mapping stands in the file.
        numbers: field to the searched key whose number it holds.
        parts: field to the node of a part that holds such numbers.
    """

    component: Any
    config: dict[str, Any]
    path: str
    numbers: Mapping[str, str]
    parts: Mapping[str, _Node]

    def moved(
        self, values: Mapping[str, Any], bound: Mapping[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """The component and its mapping with other numbers.

        Args:
            values: searched key to number.
            bound: fields that are set as they are and stand elsewhere in the file, where the component
                has them.

        Raises:
            Exception: a number is not allowed, for a ``ConfigError`` or for a check of the component's own.
        """
        cls = type(self.component)
        changes = {name: field_value(cls, name, values[key], self.path) for name, key in self.numbers.items()}
        config = {**self.config, **changes}
        for name, part in self.parts.items():
            changes[name], config[name] = part.moved(values)
        for name, value in (bound or {}).items():
            if name in cls.__dataclass_fields__:
                changes[name] = value
        return dataclasses.replace(self.component, **changes) if changes else self.component, config


def _node(component: Any, config: dict[str, Any], path: str, keys_at: Mapping[Place, str]) -> _Node:
    numbers = {str(place[0]): key for place, key in keys_at.items() if len(place) == 1}
    names = {str(place[0]) for place in keys_at if len(place) > 1}
    parts = {
        name: _node(getattr(component, name), config[name], join(path, name), _below(keys_at, name))
        for name in names
    }
    return _Node(component, config, path, numbers, parts)


def _below(keys_at: Mapping[Place, str], name: str) -> dict[Place, str]:
    return {place[1:]: key for place, key in keys_at.items() if place[0] == name and len(place) > 1}


def _world(tasks: Any) -> dict[str, Any]:
    """What the learner takes from its tasks, as ``build_learner`` does."""
    environment = getattr(tasks, "environment", None)
    return {} if environment is None else {"environment": environment}


def _stands_alone(mark: str, texts: Mapping[Place, str]) -> bool:
    """Whether a mark is somewhere, and wherever it is is the whole value of a key."""
    reached = [(place, text) for place, text in texts.items() if mark in text]
    inside = any(text != mark or any(isinstance(step, int) for step in place) for place, text in reached)
    return bool(reached) and not inside


def _is_number(place: Place, loops: Loops) -> bool:
    """Whether a place leads through parts to a number that ``dataclasses.replace`` can set."""
    section, *parts, last = place
    if section == "tasks" and own_world(loops.config):
        return False  # the learner's environment may have taken fields over from the tasks' own
    component = getattr(loops, str(section))
    for name in parts:
        component = None if _fills_itself(component) else getattr(component, str(name), None)
        if not is_component(component):
            return False
    spec = specs(component).get(str(last))
    return spec is not None and spec.kind == "number" and not _fills_itself(component)


def _fills_itself(component: Any) -> bool:
    """Whether a component sets fields from others when it is made: ``replace`` would keep the old ones."""
    members = [vars(base) for base in type(component).__mro__]
    checks = [found["__post_init__"] for found in members if "__post_init__" in found]
    codes = [getattr(check, "__code__", None) for check in checks]
    setters = {"__setattr__", "__dict__", "vars"}
    return any(code is None or not setters.isdisjoint(code.co_names) for code in codes)


def _texts(node: Any, place: Place = ()) -> Iterator[tuple[Place, str]]:
    """Every text of a configuration, with its place."""
    if isinstance(node, str):
        yield place, node
    elif isinstance(node, dict):
        for name, value in node.items():
            yield from _texts(value, (*place, name))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _texts(value, (*place, index))


def _filled(node: Any, numbers: Mapping[str, Any]) -> Any:
    """The configuration with numbers in place of their marks."""
    if isinstance(node, dict):
        return {name: _filled(value, numbers) for name, value in node.items()}
    if isinstance(node, list):
        return [_filled(value, numbers) for value in node]
    return numbers.get(node, node) if isinstance(node, str) else node


def _replaced(config: dict[str, Any], place: Place, value: Any) -> dict[str, Any]:
    """A copy of nested mappings, shared but for the way to ``place``, where ``value`` stands."""
    name, *rest = place
    new = _replaced(config[str(name)], tuple(rest), value) if rest else value
    return {**config, str(name): new}
