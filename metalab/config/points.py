"""Points, evaluation sets and baselines of a sweep, built from its configuration."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from metalab.config.build import build_learner, build_outer, build_tasks, merge, to_config
from metalab.config.compose import resolved, resolved_with, with_values
from metalab.config.recording import with_recordings
from metalab.config.schema import require_mapping
from metalab.config.sections import read_set
from metalab.errors import ConfigError, cause_of, nearest
from metalab.resources import SUITES, suite_names
from metalab.spec import Baseline, EvaluationSet, Point, SweepSpec

__all__ = [
    "Loops",
    "build_baseline_sets",
    "build_evaluation_sets",
    "build_loops",
    "build_suite",
    "digest_of_config",
    "load_suite",
    "make_point",
    "own_world",
    "point_of",
]

# What does not change the result of a point: it may be edited without making the point another one.
_IRRELEVANT = ("name", "description", "report", "study", "search", "baselines")


def make_point(spec: SweepSpec, number: int, values: Mapping[str, Any]) -> Point:
    """The point at which the searched keys hold ``values``.

    The values are set on a copy of the configuration as composed, before its interpolations: a key that
    another one refers to carries it along.

    Raises:
        ConfigError: a value is not allowed there.
    """
    try:
        return point_of(spec.raw or spec.config, number, values)
    except ConfigError as error:
        raise error.at(spec.path) from error


def point_of(raw: Mapping[str, Any], number: int, values: Mapping[str, Any]) -> Point:
    """``make_point`` on a raw configuration."""
    loops = build_loops(resolved_with(raw, values))
    return Point(
        number=number,
        values=dict(values),
        config=loops.config,
        outer=loops.outer,
        digest=digest_of_config(loops.config),
    )


class Loops(NamedTuple):
    """The components of a configuration, and the configuration with every field of theirs written out."""

    tasks: Any
    inner: Any
    outer: Any
    config: dict[str, Any]


def build_loops(config: Mapping[str, Any]) -> Loops:
    """The tasks, the learner and the outer loop of a resolved configuration.

    Raises:
        ConfigError: a value is not allowed there.
    """
    config = with_recordings(config)
    tasks = build_tasks(config["tasks"])
    inner = build_learner(config["inner"], tasks)
    outer = build_outer(config["outer"], inner, tasks)
    # Every field is written out, defaults too: a default that changes later makes another point.
    written = {
        "tasks": to_config(tasks, "tasks"),
        "inner": to_config(inner, "inner", leave_out=() if own_world(config) else ("environment",)),
        "outer": to_config(outer, "outer", leave_out=("inner", "tasks")),
    }
    return Loops(tasks, inner, outer, {**config, **written})


def own_world(config: Mapping[str, Any]) -> bool:
    """Whether the learner names an environment; without one it lives in that of its tasks."""
    return "environment" in config["inner"]


def digest_of_config(config: Mapping[str, Any]) -> str:
    """The hash that identifies a point: of its configuration but for what cannot change its result."""
    relevant = {key: value for key, value in config.items() if key not in _IRRELEVANT}
    text = json.dumps(relevant, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def build_evaluation_sets(spec: SweepSpec, point: Point) -> dict[str, EvaluationSet]:
    """The evaluation sets with the point's learner.

    A set's ``tasks`` are merged over those of the file, not of the point, so that all points are evaluated
    on the same tasks; its ``inner`` is merged over the point's.

    Raises:
        ConfigError: what a set changes does not fit.
    """
    return _sets(spec, spec.evaluation.sets, point.config["inner"])


def build_baseline_sets(
    spec: SweepSpec, baseline: Baseline, values: Mapping[str, Any]
) -> dict[str, EvaluationSet]:
    """The evaluation sets with a baseline's learner in the world of each.

    Args:
        spec: the sweep.
        baseline: one with a learner of its own.
        values: its searched keys (``inner...``) and what they are.

    Raises:
        ConfigError: a value, or what a set changes, does not fit.
    """
    config = with_values({"inner": baseline.config["inner"]}, values)
    met = {name: raw for name, raw in spec.evaluation.sets.items() if raw.get("baselines", True)}
    return _sets(spec, met, config["inner"], f"baselines.{baseline.name}.inner")


def load_suite(name: str) -> dict[str, Any]:
    """An evaluation suite: a set of tasks, and the parts of a learner that they need, in a file of its own.

    Args:
        name: of a suite that comes with metalab, or a path.

    Raises:
        ConfigError: there is none, or its settings are not allowed.
    """
    path = Path(name) if Path(name).is_file() else SUITES / f"{name}.yaml"
    if not path.is_file():
        raise ConfigError("--tasks", f"there is no evaluation suite {name!r}; {nearest(name, suite_names())}")
    try:
        suite = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError("", f"cannot be read: {cause_of(error)}", path) from error
    try:
        suite = resolved(require_mapping(suite, ""))
        suite.pop("description", None)  # for `metalab list`
        read_set(suite, "")
    except ConfigError as error:
        raise error.at(path) from error
    return suite


def build_suite(name: str, inner: Mapping[str, Any]) -> EvaluationSet:
    """The set of a suite with the learner of a run.

    Args:
        name: see ``load_suite``.
        inner: the ``inner`` section of the run's configuration; the suite's ``inner`` is merged over it.

    Raises:
        ConfigError: the suite is not there, or does not fit the learner.
    """
    suite = load_suite(name)
    try:
        return _set(Path(name).stem, suite, inner, {}, "")
    except ConfigError as error:
        raise error.at(f"evaluation suite {name}") from error


def _sets(
    spec: SweepSpec, sets: Mapping[str, Any], inner: Mapping[str, Any], inner_path: str = ""
) -> dict[str, EvaluationSet]:
    try:
        return {
            name: _set(name, raw, inner, spec.config["tasks"], f"evaluation.sets.{name}", inner_path)
            for name, raw in sets.items()
        }
    except ConfigError as error:
        raise error.at(spec.path) from error


def _set(
    name: str,
    raw: Mapping[str, Any],
    inner: Mapping[str, Any],
    tasks: Mapping[str, Any],
    path: str,
    inner_path: str = "",
) -> EvaluationSet:
    prefix = f"{path}." if path else ""
    changed = raw.get("inner") or {}
    built_tasks = build_tasks(merge(tasks, raw.get("tasks") or {}), f"{prefix}tasks")
    # An error in a learner that the set leaves alone is an error of the learner's own section.
    where = f"{prefix}inner" if changed else inner_path or f"{prefix}inner"
    learner = build_learner(merge(inner, changed), built_tasks, where)
    return EvaluationSet(name=name, inner=learner, tasks=built_tasks, **read_set(raw, path))
