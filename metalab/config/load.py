"""A sweep file, read and checked as a whole before anything runs."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from metalab.config.compose import find, raw_config, resolved
from metalab.config.maker import PointMaker
from metalab.config.points import build_baseline_sets, build_evaluation_sets, point_of
from metalab.config.recording import build_recording, read_recordings, with_paths, with_recordings
from metalab.config.searching import read_search, read_study
from metalab.config.sections import read_baselines, read_budget, read_evaluation, read_head
from metalab.errors import ConfigError
from metalab.plain import require_plain
from metalab.spec import SweepSpec
from metalab.sweep.space import Space, parse_space

__all__ = ["load"]


def load(path_or_name: str | Path, overrides: Sequence[str] = (), smoke: bool = False) -> SweepSpec:
    """Reads a sweep file and checks every part of it.

    Args:
        path_or_name: a file, or the name of one that comes with metalab.
        overrides: in Hydra's grammar, ``inner.optimizer.learning_rate=0.1``.
        smoke: the file's own ``smoke:`` size, under the name ``NAME-smoke``.

    Raises:
        ConfigError: anything that a user can mend, in one line.
    """
    path = find(path_or_name)
    shown = _shown(path)
    try:
        return _checked(_spec(shown, raw_config(path, overrides, smoke), smoke))
    except ConfigError as error:
        one_line = " ".join(error.key.split())  # a key of the file may hold anything
        raise ConfigError(one_line, error.problem, shown) from error
    except RecursionError as error:
        raise ConfigError(
            "", "is nested too deeply, or an alias (*name) stands inside itself", shown
        ) from error


def _spec(path: Path, raw: dict[str, Any], smoke: bool) -> SweepSpec:
    require_plain(raw, "")
    config = resolved(raw)
    head = read_head(config, path.stem)
    if smoke:
        head["name"] += "-smoke"
    recordings = read_recordings(config, head["name"])
    if recordings:
        raw = with_paths(raw, recordings)
        config = with_recordings(resolved(raw))
    budget = read_budget(config)
    evaluation = read_evaluation(config, budget)
    space = read_search(config.get("search"), "search", ("inner", "tasks", "outer"))
    study = read_study(config.get("study"), space, evaluation, budget, head["seeds"])
    baselines = read_baselines(config, evaluation)
    base = point_of(raw, 0, {})
    return SweepSpec(
        name=head["name"],
        description=head["description"],
        path=path,
        config={**base.config, "name": head["name"]},
        raw=raw,
        budget=budget,
        seeds=head["seeds"],
        first_seed=head["first_seed"],
        search=config.get("search") or {},
        study=study,
        evaluation=evaluation,
        baselines=baselines,
        report=head["report"],
        recordings=tuple(build_recording(name, one, config["tasks"]) for name, one in recordings.items()),
    )


def _checked(spec: SweepSpec) -> SweepSpec:
    """Builds what the sweep will build: the values at the ends of the space, the sets, the baselines."""
    base = point_of(spec.raw, 0, {})
    build_evaluation_sets(spec, base)
    _probe(parse_space(spec.search), functools.partial(PointMaker(spec), 0))
    for baseline in spec.baselines:
        if baseline.config:
            build_baseline_sets(spec, baseline, {})
            space = parse_space(baseline.config["search"], f"baselines.{baseline.name}.search")
            _probe(space, functools.partial(build_baseline_sets, spec, baseline))
    return spec


def _probe(space: Space, build: Callable[[Mapping[str, Any]], Any]) -> None:
    """Builds what the space's probes stand for; an error says at which values."""
    for values in space.probes():
        try:
            build(values)
        except ConfigError as error:
            alone = len(values) == 1
            key = f"{space.path}.{next(iter(values))}" if alone else space.path
            shown = ", ".join(repr(v) if alone else f"{k}={v!r}" for k, v in values.items())
            told = ConfigError(error.key, error.problem)  # without the file, which is named once
            raise ConfigError(key, f"at {shown}: {told}") from error


def _shown(path: Path) -> Path:
    """The file as a user would name it: from here if it lies below, else in full."""
    here = Path(os.getcwd())
    return path.relative_to(here) if path.is_relative_to(here) else path
