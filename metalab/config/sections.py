"""The sections of a sweep file that are not components: their keys, defaults and rules."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

from metalab.components import static
from metalab.config.schema import check_keys, join, read_section, require_mapping
from metalab.config.searching import MOST_POINTS, check_sampler, read_search
from metalab.errors import ConfigError, nearest
from metalab.spec import Baseline, Budget, EvaluationSettings

__all__ = [
    "NAME",
    "RESERVED_BASELINES",
    "SetSection",
    "read_baselines",
    "read_budget",
    "read_evaluation",
    "read_head",
    "read_set",
]

RESERVED_BASELINES = ("untrained", "random", "optimal", "floor")
_SECTIONS = ("inner", "tasks", "outer", "budget", "search", "study", "evaluation", "baselines", "record")
_SAMPLERS = ("grid", "random", "qmc", "tpe")  # settings of a baseline are all drawn at once
_MOST_STEPS = 2**31 - 1  # outer steps are counted in 32 bits
NAME = re.compile(r"[A-Za-z0-9._-]*[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadSection:
    """What stands at the top of the file itself."""

    name: str | None = static(None, doc="of the sweep, its folder and its experiment")
    description: str = static("", doc="what is asked")
    seeds: int = static(1, doc="meta-training seeds of every point", at_least=1)
    first_seed: int = static(0, doc="the first of them; other seeds are other randomness", at_least=0)
    report: tuple[str, ...] = static(
        ("learning_curves", "held_out", "hyperparameters", "cost"), doc="sections of the report"
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class BudgetSection:
    """How long meta-training lasts."""

    outer_steps: int = static(doc="outer steps of every point", at_least=1, at_most=_MOST_STEPS)
    chunk: int = static(doc="outer steps between two visits of the host", at_least=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SetSection:
    """An evaluation set, without the parts of learner and tasks that it changes."""

    count: int = static(doc="number of lifetimes", at_least=1)
    updates: int = static(doc="inner updates of each lifetime", at_least=1)
    stride: int = static(1, doc="inner updates between two assessments", at_least=1)
    seed: int = static(0, doc="the tasks are drawn from it alone", at_least=0)
    threshold: float | None = static(None, doc="return that counts as solved")
    probe: bool = static(False, doc="report how much of the truth the learners' representation tells")
    baselines: bool = static(True, doc="evaluate the baselines here too")
    points: bool = static(True, doc="evaluate the points here; false: baselines with a learner alone")


@dataclasses.dataclass(frozen=True, kw_only=True)
class BaselineSection:
    """How a baseline is tuned."""

    selection: str = static(
        "mean_return",
        doc="what makes a setting the best",
        choices=("return", "mean_return", "steps_to_threshold"),
    )
    points: int | None = static(
        None, doc="settings tried; null: the whole grid", at_least=1, at_most=MOST_POINTS
    )
    sampler: str = static("grid", doc="how settings are chosen", choices=_SAMPLERS)
    seed: int = static(0, doc="of the sampler", at_least=0)


def read_head(config: Mapping[str, Any], default_name: str) -> dict[str, Any]:
    """Name, description, seeds and report; refuses keys that are no section at all."""
    names = [field.name for field in dataclasses.fields(HeadSection)]
    check_keys(config, [*names, *_SECTIONS, "smoke"], "")
    for section in ("inner", "tasks", "outer", "budget"):
        if config.get(section) is None:
            raise ConfigError(section, "this section is required and not given")
    head = read_section(HeadSection, {key: config[key] for key in names if key in config}, "")
    head["name"] = head["name"] or default_name
    if not NAME.fullmatch(head["name"]):
        raise ConfigError("name", f"{head['name']!r} names a folder: letters, digits, '.', '_' and '-' only")
    return head


def read_budget(config: Mapping[str, Any]) -> Budget:
    """The budget; chunks must fill it exactly, for the one compiled program runs whole chunks."""
    budget = Budget(**read_section(BudgetSection, config["budget"], "budget"))
    if budget.outer_steps % budget.chunk:
        raise ConfigError(
            "budget.chunk",
            f"{budget.chunk} does not divide budget.outer_steps = {budget.outer_steps}; "
            f"nearest that does: {_nearest_divisor(budget.outer_steps, budget.chunk)}",
        )
    return budget


def read_evaluation(config: Mapping[str, Any], budget: Budget) -> EvaluationSettings:
    """When and on what the points are evaluated."""
    section = require_mapping({} if config.get("evaluation") is None else config["evaluation"], "evaluation")
    check_keys(section, ["every", "select", "keep_by", "sets"], "evaluation")
    sets = require_mapping(section.get("sets") or {}, "evaluation.sets")
    for name, raw in sets.items():
        if not NAME.fullmatch(name):
            raise ConfigError(
                f"evaluation.sets.{name}", "a set's name: letters, digits, '.', '_' and '-' only"
            )
        read_set(raw, f"evaluation.sets.{name}")
    select = section.get("select", "train" if "train" in sets else None)
    if select is not None and not (isinstance(select, str) and select in sets):
        raise ConfigError("evaluation.select", f"there is no set {select!r}; {nearest(str(select), sets)}")
    if select is not None and sets[select].get("baselines") is False:
        raise ConfigError(f"evaluation.sets.{select}.baselines", "false on the set that tunes the baselines")
    if select is not None and sets[select].get("points") is False:
        raise ConfigError(f"evaluation.sets.{select}.points", "false on the set that selects meta-parameters")
    every = section.get("every", budget.outer_steps)
    if isinstance(every, bool) or not isinstance(every, int) or every < 1:
        raise ConfigError("evaluation.every", f"expected a whole number at least 1, got {every!r}")
    if every % budget.chunk:
        raise ConfigError(
            "evaluation.every",
            f"{every} is not a multiple of budget.chunk = {budget.chunk}: evaluations lie between chunks",
        )
    keep_by = section.get("keep_by", "return")
    if keep_by not in ("return", "mean_return"):
        raise ConfigError("evaluation.keep_by", f"got {keep_by!r}, expected return or mean_return")
    return EvaluationSettings(every=every, select=select, sets=dict(sets), keep_by=keep_by)


def read_set(raw: Any, path: str) -> dict[str, Any]:
    """The plain settings of an evaluation set or of a suite."""
    mapping = require_mapping(raw, path)
    known = [field.name for field in dataclasses.fields(SetSection)]
    check_keys(mapping, [*known, "inner", "tasks"], path)
    for part in ("inner", "tasks"):
        require_mapping(mapping.get(part) or {}, join(path, part))
    return read_section(SetSection, {k: v for k, v in mapping.items() if k in known}, path)


def read_baselines(config: Mapping[str, Any], evaluation: EvaluationSettings) -> tuple[Baseline, ...]:
    """The baselines: reserved names that take nothing, and learners that are tuned."""
    section = require_mapping(config.get("baselines") or {}, "baselines")
    return tuple(_baseline(name, raw, evaluation) for name, raw in section.items())


def _baseline(name: str, raw: Any, evaluation: EvaluationSettings) -> Baseline:
    path = f"baselines.{name}"
    mapping = require_mapping({} if raw is None else raw, path)
    if not NAME.fullmatch(name):
        raise ConfigError(path, "a baseline's name: letters, digits, '.', '_' and '-' only")
    if name in RESERVED_BASELINES:
        if mapping:
            raise ConfigError(
                path,
                f"takes no settings ({', '.join(RESERVED_BASELINES)} are built in), got {dict(mapping)!r}",
            )
        return Baseline(name, {})
    own = [field.name for field in dataclasses.fields(BaselineSection)]
    check_keys(mapping, ["inner", "search", *own], path)
    if not mapping.get("inner"):
        reserved = ", ".join(RESERVED_BASELINES)
        raise ConfigError(f"{path}.inner", f"required and not given: the learner (only {reserved} need none)")
    if evaluation.select is None:
        raise ConfigError(path, "is tuned on the selection set: evaluation.select and its set are required")
    space = read_search(mapping.get("search"), f"{path}.search", ("inner",))
    settings = read_section(BaselineSection, {k: v for k, v in mapping.items() if k in own}, path)
    check_sampler(settings["sampler"], settings["points"], space, path)
    chosen_on = evaluation.sets[evaluation.select]
    if settings["selection"] == "steps_to_threshold" and chosen_on.get("threshold") is None:
        raise ConfigError(
            f"{path}.selection",
            f"'steps_to_threshold' needs a threshold, and evaluation.sets.{evaluation.select} has none",
        )
    return Baseline(name, {"inner": mapping["inner"], "search": mapping.get("search") or {}, **settings})


def _nearest_divisor(total: int, wanted: int) -> int:
    small = [d for d in range(1, math.isqrt(total) + 1) if total % d == 0]
    return min([*small, *(total // d for d in small)], key=lambda d: (abs(d - wanted), d))
