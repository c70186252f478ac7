"""The section ``record``: which learners' histories a sweep stands on, and how components name them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from metalab.components import static
from metalab.config.build import build_learner, build_tasks, merge, to_config
from metalab.config.schema import check_keys, join, read_section, require_mapping
from metalab.config.sections import NAME
from metalab.errors import ConfigError
from metalab.spec import Recording

__all__ = ["build_recording", "read_recordings", "with_paths", "with_recordings"]

_NAMING = "path"  # the field by which a component names a recording
_SECTIONS = ("inner", "tasks", "outer", "evaluation", "baselines")  # that hold components


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordSection:
    """A recording, without its learner and tasks."""

    updates: int = static(doc="inner updates of a life", at_least=1)
    count: int | None = static(None, doc="number of tasks; null: all of a finite distribution", at_least=1)
    seeds: int = static(1, doc="lives on each task", at_least=1)
    seed: int = static(0, doc="tasks and lives are drawn from it alone", at_least=0)
    path: str = static(doc="folder below the folder of recordings")
    meta: str | None = static(None, doc="run whose meta-parameters the source has; null: as initialised")
    meta_seed: int = static(0, doc="which of that run's meta-seeds", at_least=0)


def read_recordings(config: Mapping[str, Any], sweep: str) -> dict[str, dict[str, Any]]:
    """The recordings of a resolved configuration by name; a ``path`` is ``SWEEP/NAME`` if not given.

    Raises:
        ConfigError: a name that is none, a key that is unknown or missing, a value that is not allowed.
    """
    section = require_mapping(config.get("record") or {}, "record")
    found = {}
    for name, raw in section.items():
        where = f"record.{name}"
        if not NAME.fullmatch(name):
            raise ConfigError(where, "a recording's name: letters, digits, '.', '_' and '-' only")
        mapping = {_NAMING: f"{sweep}/{name}", **require_mapping(raw, where)}
        own = [field.name for field in dataclasses.fields(RecordSection)]
        check_keys(mapping, ["inner", "tasks", *own], where)
        if not mapping.get("inner"):
            raise ConfigError(f"{where}.inner", "required and not given: the source learner")
        numbers = {key: value for key, value in mapping.items() if key in own}
        tasks = require_mapping(mapping.get("tasks") or {}, join(where, "tasks"))
        inner = require_mapping(mapping["inner"], join(where, "inner"))
        found[name] = {"inner": inner, "tasks": tasks, **read_section(RecordSection, numbers, where)}
    return found


def with_paths(raw: Mapping[str, Any], recordings: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A configuration, before its interpolations, in which every recording says its ``path``."""
    paths = {name: {_NAMING: one[_NAMING]} for name, one in recordings.items()}
    return {**raw, "record": merge(raw["record"], paths)}


def with_recordings(config: Mapping[str, Any]) -> dict[str, Any]:
    """A resolved configuration in which components name recordings by their paths.

    A field ``path`` that holds the name of a recording of the file holds the recording's own path instead.
    """
    section = config.get("record") or {}
    paths = {name: one[_NAMING] for name, one in section.items() if _NAMING in one}

    def named(node: Any) -> Any:
        if isinstance(node, Mapping):
            return {
                key: paths.get(value, value) if key == _NAMING and isinstance(value, str) else named(value)
                for key, value in node.items()
            }
        return [named(one) for one in node] if isinstance(node, list) else node

    if not paths:
        return dict(config)
    return {**config, **{section: named(config[section]) for section in _SECTIONS if section in config}}


def build_recording(name: str, section: Mapping[str, Any], tasks: Mapping[str, Any]) -> Recording:
    """A recording with its components.

    Args:
        name: of it.
        section: what ``read_recordings`` gave.
        tasks: those of the file, over which the recording's own are merged.

    Raises:
        ConfigError: the learner or the tasks cannot be built; their number is not known.
    """
    where = f"record.{name}"
    built = build_tasks(merge(tasks, section["tasks"]), f"{where}.tasks")
    inner = build_learner(section["inner"], built, f"{where}.inner")
    count = section["count"] or getattr(built, "num_tasks", None)
    if count is None:
        kind = to_config(built, "tasks")["kind"]
        raise ConfigError(f"{where}.count", f"required and not given: {kind} has no end of tasks")
    numbers = {key: section[key] for key in ("seeds", "updates", "seed", "meta", "meta_seed")}
    world = () if "environment" in section["inner"] else ("environment",)
    settings = {
        "inner": to_config(inner, "inner", leave_out=world),
        "tasks": to_config(built, "tasks"),
        "count": count,
        **numbers,
    }
    return Recording(
        name=name, path=section["path"], inner=inner, tasks=built, count=count, settings=settings, **numbers
    )
