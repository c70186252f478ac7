"""The sections ``search`` and ``study`` of a sweep file: their keys, defaults and rules."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from metalab.components import static
from metalab.config.schema import join, read_section
from metalab.errors import ConfigError, nearest
from metalab.spec import Budget, EvaluationSettings, Pruner, Study
from metalab.sweep.grammar import Choice
from metalab.sweep.space import Space, parse_space

__all__ = ["MOST_POINTS", "PrunerSection", "StudySection", "check_sampler", "read_search", "read_study"]

MOST_POINTS = 1_000_000
_SAMPLERS = ("grid", "random", "qmc", "tpe", "cmaes", "nsga2")
_LEARNING = ("tpe", "cmaes", "nsga2")  # learn from the points before, and so gain from small batches
_PRUNERS = ("none", "median", "successive_halving", "hyperband", "wilcoxon")
_HALVING = ("successive_halving", "hyperband")
_DIRECTIONS = ("maximize", "minimize")
_LARGEST_SEED = 2**32 - 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudySection:
    """How points are chosen and compared."""

    sampler: str = static("grid", doc="how points are chosen", choices=_SAMPLERS)
    points: int | None = static(
        None, doc="number of points; null: the whole grid", at_least=1, at_most=MOST_POINTS
    )
    batch: int | None = static(None, doc="points in flight at most; null: chosen", at_least=1)
    seed: int = static(0, doc="of the sampler", at_least=0, at_most=_LARGEST_SEED)
    objective: str | tuple[str, ...] | None = static(None, doc="a logged metric, or a list of them")
    direction: str | tuple[str, ...] = static("maximize", doc="of the objective, or of each")
    over_seeds: str = static("iqm", doc="one number of the seeds'", choices=("mean", "median", "iqm", "min"))
    reduce: str = static("last", doc="one number of the steps'", choices=("last", "mean", "best"))
    last_fraction: float = static(0.1, doc="of the steps, for `reduce: mean`", at_least=1e-6, at_most=1.0)
    pruner: str | Mapping | None = static(None, doc="when a point is given up: a kind, or {kind: ..., ...}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrunerSection:
    """When a point is given up."""

    kind: str = static("none", doc="the rule", choices=_PRUNERS)
    startup_points: int = static(5, doc="points that must have finished before one is pruned", at_least=0)
    warmup_steps: int | None = static(None, doc="outer steps before which none is pruned", at_least=0)
    reduction_factor: int = static(3, doc="one point of so many passes a rung", at_least=2)
    p_threshold: float = static(0.1, doc="of wilcoxon", at_least=1e-6, at_most=0.5)


def read_search(search: Any, path: str, roots: tuple[str, ...]) -> Space:
    """A search section, whose keys must lie in ``roots``.

    Raises:
        ConfigError: they do not, or the section cannot be read.
    """
    space = parse_space(search, path)
    for key in space.keys:
        if key.split(".")[0] not in roots or "." not in key:
            allowed = ", ".join(f"{root}." for root in roots)
            raise ConfigError(join(path, key), f"cannot be searched: only keys under {allowed} can")
    return space


def check_sampler(sampler: str, points: int | None, space: Space, path: str) -> None:
    """Refuses a sampler that does not fit its space.

    Args:
        sampler: its name.
        points: how many it is asked for; None: all.
        space: the search.
        path: of the section that names the sampler.

    Raises:
        ConfigError: it does not fit.
    """
    where = f"{path}.sampler"
    if sampler == "grid":
        space.check_grid()
        if points is None and (space.size or 0) > MOST_POINTS:
            raise ConfigError(
                space.path, f"the grid has {space.size} points, at most {MOST_POINTS}; set {path}.points"
            )
        return
    if not space.keys:
        raise ConfigError(space.path, f"the search space is empty, and {where} {sampler!r} needs one")
    if space.listed is not None:
        raise ConfigError(
            where, f"{sampler!r} draws points, and {space.path} lists them: leave the sampler out"
        )
    if points is None:
        raise ConfigError(f"{path}.points", f"required and not given: how many points {sampler!r} draws")
    if sampler == "qmc" and space.conditional:
        raise ConfigError(where, "'qmc' spreads all keys at once: conditions need random, tpe or nsga2")
    if sampler == "cmaes" and _numbers(space) < 2:
        raise ConfigError(
            where, "'cmaes' needs two keys or more with an interval or a range and no condition; use tpe"
        )


def read_study(
    config: Any, space: Space, evaluation: EvaluationSettings, budget: Budget, seeds: int
) -> Study:
    """The study; its sampler must fit the space, its objectives must be logged, its pruner must see them.

    Raises:
        ConfigError: something of it does not fit.
    """
    values = read_section(StudySection, config, "study")
    check_sampler(values["sampler"], values["points"], space, "study")
    chosen = evaluation.select
    default = f"evaluation/{chosen}/return" if chosen else "train/score"
    objectives = _tuple(default if values["objective"] is None else values["objective"])
    _check_objectives(objectives, values["sampler"], evaluation)
    directions = _directions(values["direction"], len(objectives))
    if values["sampler"] in _LEARNING and values["batch"] is None:
        values["batch"] = max(2, math.ceil(values["points"] / 8))
    pruner = _read_pruner(values.pop("pruner"), objectives, evaluation, budget, seeds)
    del values["objective"], values["direction"]
    return Study(**values, objectives=objectives, directions=directions, pruner=pruner)


def _check_objectives(objectives: tuple[str, ...], sampler: str, evaluation: EvaluationSettings) -> None:
    if not objectives or len(set(objectives)) < len(objectives):
        raise ConfigError("study.objective", f"expected metrics, each once; got {list(objectives)!r}")
    if len(objectives) > 1 and sampler == "cmaes":
        raise ConfigError("study.sampler", "'cmaes' takes one objective; for several: nsga2, tpe or random")
    for objective in objectives:
        family, _, rest = objective.partition("/")
        name, _, metric = rest.partition("/")
        if family in ("evaluation", "final") and metric:
            if name not in evaluation.sets:
                problem = f"there is no evaluation set {name!r}; {nearest(name, evaluation.sets)}"
                raise ConfigError("study.objective", f"{objective!r}: {problem}")
        elif family != "train" or not rest:
            raise ConfigError(
                "study.objective",
                f"{objective!r} is not logged; "
                "expected evaluation/SET/return, final/SET/METRIC or train/METRIC",
            )


def _directions(given: str | tuple[str, ...], count: int) -> tuple[str, ...]:
    directions = _tuple(given)
    for direction in directions:
        if direction not in _DIRECTIONS:
            raise ConfigError(
                "study.direction", f"{direction!r} is not allowed; {nearest(direction, _DIRECTIONS)}"
            )
    if isinstance(given, str):  # one word for all
        return directions * count
    if len(directions) != count:
        raise ConfigError(
            "study.direction", f"{len(directions)} directions for {count} objectives: give one for each"
        )
    return directions


def _read_pruner(
    given: Any, objectives: tuple[str, ...], evaluation: EvaluationSettings, budget: Budget, seeds: int
) -> Pruner:
    section = given if isinstance(given, Mapping) else {"kind": "none" if given is None else given}
    values = read_section(PrunerSection, section, "study.pruner")
    kind, warmup = values["kind"], values["warmup_steps"]
    if kind == "none":
        return Pruner()
    interval = _report_interval(objectives, evaluation, budget)
    if kind == "wilcoxon":
        _check_wilcoxon(values["p_threshold"], seeds)
    if warmup is None:
        values["warmup_steps"] = interval if kind in _HALVING else 0
    elif warmup >= budget.outer_steps:
        raise ConfigError(
            "study.pruner.warmup_steps",
            f"{warmup} of {budget.outer_steps} outer steps: nothing would be pruned",
        )
    return Pruner(**values, outer_steps=budget.outer_steps)


def _report_interval(objectives: tuple[str, ...], evaluation: EvaluationSettings, budget: Budget) -> int:
    """Outer steps between two values of the objective while a point trains."""
    objective, *others = objectives
    if others:
        raise ConfigError(
            "study.pruner", "compares points by one objective; leave it out, or name one objective"
        )
    if objective.startswith("train/"):
        return budget.chunk
    select = evaluation.select
    during = [f"evaluation/{select}/{metric}" for metric in ("return", "mean_return")] if select else []
    if objective not in during:
        raise ConfigError(
            "study.pruner",
            f"the objective {objective!r} is known at the end only; during training there are "
            + ", ".join([*during, "train/METRIC"]),
        )
    return evaluation.every


def _check_wilcoxon(p_threshold: float, seeds: int) -> None:
    smallest = 0.5**seeds
    if smallest >= p_threshold:
        needed = math.floor(-math.log2(p_threshold)) + 1
        raise ConfigError(
            "study.pruner",
            f"wilcoxon over {seeds} seeds can never find a p below {smallest:g}, "
            f"and p_threshold is {p_threshold:g}: it needs {needed} seeds or more",
        )


def _numbers(space: Space) -> int:
    """Keys that are numbers to a sampler in every point."""
    return sum(not isinstance(axis.dimension, Choice) and not axis.when for axis in space.axes)


def _tuple(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value
