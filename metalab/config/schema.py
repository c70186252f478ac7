"""Values checked and cast against what a class declares of its fields.

The declarations are those of ``metalab.components`` (``number``, ``static``, ``part``): the same for a
component and for a section of the sweep file, so that unknown keys, wrong types and values out of range are
refused in one place and in the same words.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import sys
import types
import typing
from collections.abc import Mapping
from typing import Any

from metalab.components import FieldSpec, specs
from metalab.errors import ConfigError, nearest

__all__ = ["allowed", "cast", "check_keys", "field_value", "join", "read_section", "require_mapping"]


def join(path: str, key: str) -> str:
    """A dotted path one step deeper.

    >>> join("", "inner"), join("inner", "rule")
    ('inner', 'inner.rule')
    """
    return f"{path}.{key}" if path else key


def require_mapping(value: Any, path: str, wanted: str = "a mapping") -> Mapping[str, Any]:
    """``value`` if it is a mapping with text keys.

    Raises:
        ConfigError: it is something else.
    """
    if not isinstance(value, Mapping):
        raise ConfigError(path, f"expected {wanted}, got {value!r}")
    for key in value:
        if not isinstance(key, str):
            raise ConfigError(path, f"keys are text, got {key!r}; a sweep such as '1,2' in YAML needs quotes")
    return value


def check_keys(config: Mapping[str, Any], known: typing.Iterable[str], path: str) -> None:
    """Refuses the first key that is not among ``known``."""
    names = list(known)
    for key, value in config.items():
        if key not in names:
            raise ConfigError(join(path, key), f"unknown key (given {value!r}); {nearest(key, names)}")


def read_section(cls: type, config: Any, path: str) -> dict[str, Any]:
    """The fields of a section of the sweep file: given ones cast and checked, the others' defaults.

    Args:
        cls: a dataclass whose fields are declared with ``static``.
        config: what the file says; None stands for an empty section.
        path: where it stands.

    Raises:
        ConfigError: a key is unknown or missing, or its value is not allowed.
    """
    mapping = require_mapping({} if config is None else config, path)
    declared = specs(cls)
    check_keys(mapping, declared, path)
    return {name: field_value(cls, name, mapping.get(name, dataclasses.MISSING), path) for name in declared}


def field_value(cls: type, name: str, value: Any, path: str) -> Any:
    """The value of a field that is a number or static: cast and checked, or its default.

    Raises:
        ConfigError: the value is missing without a default, or is not allowed.
    """
    spec = specs(cls)[name]
    where = join(path, name)
    given = value is not dataclasses.MISSING
    if not given:
        value = cls.__dataclass_fields__[name].default
    if value is dataclasses.MISSING:
        raise ConfigError(where, f"required and not given: {spec.doc} ({allowed(cls, name)})")
    if not given and not isinstance(value, bool | int | float):
        return value
    result = cast(_annotation(cls, name), value, where, allowed(cls, name))
    _check_range(spec, result, where)
    return result


def allowed(cls: type, name: str) -> str:
    """What a field may hold, in words: its type and its range."""
    spec = specs(cls)[name]
    if spec.choices is not None:
        return "one of " + ", ".join(map(repr, spec.choices))
    return _type_words(_annotation(cls, name)) + _range_words(spec)


def cast(annotation: Any, value: Any, path: str, wanted: str | None = None) -> Any:
    """``value`` as its annotation wants it: 1 becomes 1.0 for a float, a list becomes a tuple.

    Raises:
        ConfigError: the value is of another type; nothing is ever rounded or parsed from text.
    """
    ok, result = _try(annotation, value)
    if not ok:
        raise ConfigError(
            path, f"expected {wanted or _type_words(annotation)}, got {value!r}{_hint(annotation, value)}"
        )
    return result


def _try(annotation: Any, value: Any) -> tuple[bool, Any]:
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        tries = [_try(member, value) for member in typing.get_args(annotation)]
        # A member that keeps the value as it is goes first: 1 stays an int under `float | int`.
        tries.sort(key=lambda t: not (t[0] and type(t[1]) is type(value)))
        return next((t for t in tries if t[0]), (False, None))
    if origin is typing.Literal:
        return value in typing.get_args(annotation), value
    if origin is tuple or annotation is tuple:
        return _try_tuple(typing.get_args(annotation), value)
    if annotation is None or annotation is type(None):
        return value is None, None
    if annotation is Any:
        return True, _frozen(value)
    if annotation is float:
        number = isinstance(value, int | float) and not isinstance(value, bool) and value == value
        return number, float(value) if number else None
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool), value
    return isinstance(annotation, type) and isinstance(value, annotation), value


def _try_tuple(members: tuple[Any, ...], value: Any) -> tuple[bool, Any]:
    if not isinstance(value, list | tuple):
        return False, None
    if not members:
        return True, _frozen(value)
    if len(members) == 2 and members[1] is Ellipsis:
        members = (members[0],) * len(value)
    if len(members) != len(value):
        return False, None
    tries = [_try(member, item) for member, item in zip(members, value, strict=True)]
    return all(ok for ok, _ in tries), tuple(result for _, result in tries)


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list | tuple) else value


def _check_range(spec: FieldSpec, value: Any, path: str) -> None:
    if spec.choices is not None and value not in spec.choices:
        names = [str(choice) for choice in spec.choices]
        raise ConfigError(path, f"{value!r} is not allowed; {nearest(str(value), names)}")
    for item in value if isinstance(value, tuple) else (value,):
        if isinstance(item, bool) or not isinstance(item, int | float):
            continue
        inside = (
            (spec.at_least is None or item >= spec.at_least)
            and (spec.at_most is None or item <= spec.at_most)
            and (spec.above is None or item > spec.above)
            and (spec.below is None or item < spec.below)
        )
        if not inside:
            raise ConfigError(path, f"{item!r} is out of range: it must be{_range_words(spec)}")


def _range_words(spec: FieldSpec) -> str:
    bounds = [
        (spec.at_least, "at least"),
        (spec.above, "above"),
        (spec.at_most, "at most"),
        (spec.below, "below"),
    ]
    words = " and ".join(f"{text} {bound:g}" for bound, text in bounds if bound is not None)
    return f" {words}" if words else ""


def _type_words(annotation: Any) -> str:
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type_words(member) for member in typing.get_args(annotation))
    if origin is typing.Literal:
        return "one of " + ", ".join(map(repr, typing.get_args(annotation)))
    if origin is tuple:
        members = typing.get_args(annotation)
        if len(members) == 2 and members[1] is Ellipsis:
            return f"a list of {_type_words(members[0])}"
        return f"a list of {len(members)} values ({', '.join(_type_words(m) for m in members)})"
    words = {float: "a number", int: "a whole number", bool: "true or false", str: "text", tuple: "a list"}
    if annotation is None or annotation is type(None):
        return "null"
    return words.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _hint(annotation: Any, value: Any) -> str:
    if isinstance(value, str) and "choice(" in value:
        return "; a search goes under `search:`"
    if isinstance(value, float) and value.is_integer() and _try(annotation, int(value))[0]:
        return f"; write {int(value)}"
    if isinstance(value, int | float | bool) and annotation is str:
        return f"; quote it: '{value}'"
    return ""


@functools.cache
def _annotation(cls: type, name: str) -> Any:
    """A field's annotation, evaluated in the module of the class that declares it."""
    for base in cls.__mro__:
        declared = inspect.get_annotations(base)
        if name in declared:
            holder = types.SimpleNamespace(__annotations__={name: declared[name]})
            return typing.get_type_hints(holder, globalns=vars(sys.modules[base.__module__]))[name]
    raise TypeError(f"{cls.__qualname__} has no field {name!r}")
