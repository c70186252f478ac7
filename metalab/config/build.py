"""Mappings to components and back: one schema, the components' own declarations."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from metalab.catalogue import catalogue, kind_of, resolve
from metalab.components import is_component, specs
from metalab.config.exposing import KEY, read_exposed, written_leaves
from metalab.config.schema import check_keys, field_value, join, require_mapping
from metalab.errors import ConfigError, cause_of
from metalab.exposure import Exposed, learner_class

__all__ = ["build_component", "build_learner", "build_outer", "build_tasks", "merge", "to_config"]


# What a learner has from its tasks: an agent its environment, a model its examples.
_OF_TASKS = ("environment", "stream")


def build_component(
    config: Any,
    group: str,
    path: str,
    *,
    default: Any = None,
    bound: Mapping[str, Any] | None = None,
) -> Any:
    """Builds the component that a mapping describes, its parts included.

    Args:
        config: ``{kind: ..., field: value, ...}``.
        group: the catalogue's group in which ``kind`` is looked up.
        path: where the mapping stands in the file.
        default: the component used when ``kind`` is left out; of the same class as ``kind`` names, it also
            gives the fields that are left out.
        bound: fields that the caller sets and the file may leave out; one that the file sets wins.

    Raises:
        ConfigError: an unknown name or key, a value that is not allowed, a field that is missing.
    """
    mapping = require_mapping(config, path, f"a mapping such as {{kind: ...}} (group '{group}')")
    cls = _class(mapping, group, path, default)
    start = default if type(default) is cls else None
    declared = specs(cls)
    check_keys(mapping, ["kind", *declared], path)
    values = {}
    for name, spec in declared.items():
        inherited = getattr(start, name) if start is not None else dataclasses.MISSING
        if bound and name in bound:
            inherited = bound[name]
        if spec.kind == "part":
            group_of_part = spec.group or name
            values[name] = _part(cls, name, group_of_part, mapping, path, inherited)
        elif name not in mapping and inherited is not dataclasses.MISSING:
            values[name] = inherited
        else:
            values[name] = field_value(cls, name, mapping.get(name, dataclasses.MISSING), path)
    try:
        return cls(**values)
    except Exception as error:  # a component's own check of its fields, whatever it raises
        raise ConfigError(path, f"{mapping.get('kind', cls.__name__)}: {cause_of(error)}") from error


def build_tasks(config: Mapping[str, Any], path: str = "tasks") -> Any:
    """The task distribution of a mapping."""
    return build_component(config, "tasks", path)


def build_learner(config: Mapping[str, Any], tasks: Any, path: str = "inner") -> Any:
    """The inner loop of a mapping, in the world of ``tasks``, or with their examples, unless it names others.

    Its key ``meta`` names the numbers that are meta-parameters, see ``metalab.config.exposing``.
    """
    cls = _class(require_mapping(config, path, "a mapping such as {kind: actor_critic}"), "inner", path, None)
    shared = {name: getattr(tasks, name, None) for name in _OF_TASKS if name in specs(cls)}
    bound = {name: value for name, value in shared.items() if value is not None}
    own = {key: value for key, value in config.items() if key != KEY or KEY in specs(cls)}
    learner = build_component(own, "inner", path, bound=bound)
    return learner if len(own) == len(config) else read_exposed(learner, config[KEY], join(path, KEY))


def build_outer(config: Mapping[str, Any], inner: Any, tasks: Any, path: str = "outer") -> Any:
    """The outer loop of a mapping, around ``inner`` and ``tasks``."""
    mapping = require_mapping(config, path, "a mapping such as {kind: meta_gradient}")
    for name in ("inner", "tasks"):
        if name in mapping:
            raise ConfigError(join(path, name), f"stands at the top of the file, under `{name}:`")
    return build_component(mapping, "outer", path, bound={"inner": inner, "tasks": tasks})


def to_config(built: Any, group: str, *, leave_out: tuple[str, ...] = ()) -> dict[str, Any]:
    """The inverse of ``build_component``: every field of a component written out, as plain containers."""
    cls = learner_class(type(built))
    out: dict[str, Any] = {"kind": kind_of(cls, group)}
    for name, spec in specs(cls).items():
        if name in leave_out:
            continue
        value = getattr(built, name)
        if spec.kind == "part" and isinstance(value, tuple):
            out[name] = [to_config(one, spec.group or name) for one in value]
        else:
            is_part = spec.kind == "part" and is_component(value)
            out[name] = to_config(value, spec.group or name) if is_part else _plain(value)
    return {**out, KEY: written_leaves(built.meta)} if isinstance(built, Exposed) else out


def merge(base: Any, over: Any) -> Any:
    """Deep merge of mappings in which another ``kind`` replaces a component as a whole.

    >>> merge({"kind": "sgd", "learning_rate": 1}, {"learning_rate": 2})
    {'kind': 'sgd', 'learning_rate': 2}
    >>> merge({"kind": "sgd", "learning_rate": 1}, {"kind": "adam"})
    {'kind': 'adam'}
    """
    if not (isinstance(base, Mapping) and isinstance(over, Mapping)):
        return over
    if "kind" in over and "kind" in base and over["kind"] != base["kind"]:
        return dict(over)
    return {**base, **{key: merge(base.get(key), value) for key, value in over.items()}}


def _part(cls: type, name: str, group: str, mapping: Mapping[str, Any], path: str, inherited: Any) -> Any:
    """A part: as the file says, over its default; the default alone where the file is silent."""
    where = join(path, name)
    declared = cls.__dataclass_fields__[name].default
    default = declared if inherited is dataclasses.MISSING else inherited
    if name not in mapping:
        if default is dataclasses.MISSING:
            raise ConfigError(
                where, f"required and not given: {specs(cls)[name].doc} (a component: {{kind: ...}})"
            )
        return default
    if isinstance(declared, tuple):
        return _several(mapping[name], group, where)
    if mapping[name] is None:
        if declared is None:
            return None
        raise ConfigError(where, f"expected a mapping such as {{kind: ...}} (group '{group}'), got null")
    return build_component(
        mapping[name], group, where, default=None if default is dataclasses.MISSING else default
    )


def _several(config: Any, group: str, path: str) -> tuple[Any, ...]:
    """The components of a field that holds any number of them."""
    if not isinstance(config, list | tuple):
        raise ConfigError(path, f"expected a list of components [{{kind: ...}}, ...], got {config!r}")
    return tuple(build_component(one, group, f"{path}[{index}]") for index, one in enumerate(config))


def _class(mapping: Mapping[str, Any], group: str, path: str, default: Any) -> type:
    if "kind" in mapping:
        return resolve(mapping["kind"], group, join(path, "kind"))
    if default is None:
        known = ", ".join(sorted(catalogue().get(group, {})))
        raise ConfigError(join(path, "kind"), f"required and not given: which {group}; known: {known}")
    return type(default)


def _plain(value: Any) -> Any:
    """A value as YAML and JSON can hold it."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.tolist() if hasattr(value, "tolist") else value
