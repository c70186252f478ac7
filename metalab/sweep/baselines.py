"""Baselines: what meta-learned learners are compared with, each an MLflow run of kind ``baseline``.

A named baseline is a learner of its own, tuned on the selection set over the settings of its search; the
best setting is then evaluated on every set with fresh randomness. Four names are reserved:

* ``untrained``: the learner of point 0 with its meta-parameters as they are initialised.
* ``random``: the learner of point 0 assessed at birth. That is the uniform policy for learners that are
  born with zero logits (tabular ones); for others it is the policy that they are born with.
* ``optimal``: the environment's exact optimal return on every task, where it has one.
* ``floor``: the environment steps that no learner can beat on the way to a set's threshold, where its
  tasks know them (``floor_steps``).
"""

from __future__ import annotations

import dataclasses
import json
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
import yaml

from metalab import devices
from metalab.errors import MetalabError, cause_of
from metalab.protocols import Assessable, PyTree
from metalab.spec import Baseline, EvaluationSet, Point
from metalab.sweep.context import Context
from metalab.sweep.evaluation import LaneSet, curves_frame, score_sets, untrained_meta
from metalab.sweep.guard import SweepStopped
from metalab.sweep.judge import batch_points, most_lanes
from metalab.sweep.lives import set_tasks
from metalab.sweep.program import lane_keys
from metalab.sweep.records import digest_of, interval_rows, plain
from metalab.sweep.space import parse_space
from metalab.sweep.study import sampled_points
from metalab.tracking import flatten
from metalab.trees import group_by_structure

__all__ = ["run_baselines"]

Curves = dict[str, dict[str, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class _Outcome:
    """What a baseline reached.

    Attributes:
        sets: as they were evaluated.
        curves: by set and metric ``[S, count, points]``.
        chosen: the setting.
        settings: all that were tried.
        lines: metrics that are known without any learner.
    """

    sets: Mapping[str, LaneSet]
    curves: Curves
    chosen: Mapping[str, Any]
    settings: pd.DataFrame | None = None
    lines: Mapping[str, float] = dataclasses.field(default_factory=dict)


def run_baselines(
    context: Context, point: Point, finished: Collection[str], done: Callable[[str], None]
) -> list[tuple[str, str]]:
    """Runs the baselines that are not finished yet.

    Args:
        context: of the sweep.
        point: point 0 of the sweep.
        finished: digests of those that are done.
        done: told the digest of each that has finished; makes it last.

    Returns:
        Names of those that failed, with the reason.
    """
    failed = []
    for baseline in context.spec.baselines:
        context.stop.check()
        parent = context.manifest.id
        digest = digest_of([parent, baseline.name, baseline.config])
        if digest in finished:
            continue
        tags = {"metalab.sweep": context.spec.name, "metalab.name": baseline.name}
        start_ms = int(time.time() * 1000)
        context.outbox.open(digest, "baseline", baseline.name, parent=parent, tags=tags, start_ms=start_ms)
        context.progress.say(f"baseline {baseline.name}")
        try:
            _record(context, baseline, digest, _outcome(context, point, baseline))
        except SweepStopped:
            context.outbox.close(digest, "KILLED")
            raise
        except MetalabError:
            raise
        except Exception as error:  # a baseline's failure must not take the sweep's results along
            context.progress.say(f"baseline {baseline.name} failed: {cause_of(error)}")
            text = "".join(traceback.format_exception(error))
            context.outbox.tag(digest, **{"metalab.error": text})
            context.outbox.close(digest, "FAILED")
            failed.append((baseline.name, cause_of(error)))
        else:
            done(digest)
    return failed


def _outcome(context: Context, point: Point, baseline: Baseline) -> _Outcome:
    sets = {name: one for name, one in context.evaluation_sets(point).items() if one.baselines}
    of_points = {name: one for name, one in sets.items() if one.points}
    if baseline.name == "untrained":
        return _raised(context, of_points, {}, _points_width(context))
    if baseline.name == "random":
        return _newborn(context, of_points)
    if baseline.name == "optimal":
        return _optimal(context, sets)
    if baseline.name == "floor":
        return _floor(context, sets)
    return _tuned(context, baseline)


def _tuned(context: Context, baseline: Baseline) -> _Outcome:
    """Every setting on the selection set; the best mean over the seeds on all sets."""
    config, spec = baseline.config, context.spec
    select = spec.evaluation.select
    settings = _settings(config)
    candidates = [context.baseline_sets(baseline, values) for values in settings]
    table = pd.DataFrame()
    best = width = 0
    if len(settings) > 1:
        if select is None:
            raise MetalabError(f"baselines.{baseline.name}: tuning needs evaluation.select to name a set")
        metric = config["selection"]
        rows, width = _tune(context, [sets[select] for sets in candidates])
        table = pd.DataFrame([{**_cells(values), **row} for values, row in zip(settings, rows, strict=True)])
        table["score"] = -table[metric] if metric == "steps_to_threshold" else table[metric]
        best = int(np.nanargmax(table["score"].to_numpy()))
    outcome = _raised(context, candidates[best], settings[best], width)
    return dataclasses.replace(outcome, settings=table if len(settings) > 1 else None)


def _settings(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    search = config.get("search") or {}
    space = parse_space(search)
    sampler, count = config.get("sampler", "grid"), config.get("points")
    if not search or sampler == "grid":
        points = list(space)
        return points if count is None else points[:count]
    if count is None:
        raise MetalabError(f"the {sampler} sampler of a baseline needs a number of points")
    return sampled_points(space, sampler, count, config.get("seed", 0))


def _tune(context: Context, sets: Sequence[EvaluationSet]) -> tuple[list[dict[str, float]], int]:
    """Mean scores over the seeds of the selection set with each setting's learner; lanes at once."""
    found: dict[int, dict[str, float]] = {}
    width = 0
    seeds = context.spec.seeds
    for group in group_by_structure(enumerate(sets), lambda item: item[1].inner).values():
        for batch, width in _batches(group, seeds, context.compiler.mesh.size, most_lanes(context.compiler)):
            context.stop.check()
            one, curves = _evaluate(context, [where for _, where in batch], width, "selection")
            for at, (number, _) in enumerate(batch):
                own = {metric: values[at * seeds : (at + 1) * seeds] for metric, values in curves.items()}
                scored = score_sets({"select": one}, {"select": own})
                found[number] = {key.split("/")[-1]: float(np.mean(v)) for key, v in scored.items()}
    return [found[number] for number in range(len(sets))], width


def _batches(
    items: Sequence[Any], seeds: int, num_devices: int, most: int
) -> Iterator[tuple[Sequence[Any], int]]:
    """Items in batches that all have the same number of lanes on the devices: one program."""
    size = min(len(items), max(1, most // seeds))
    width = devices.pad_lanes(size * seeds, num_devices)
    for start in range(0, len(items), size):
        yield items[start : start + size], width


def _evaluate(
    context: Context, sets: Sequence[EvaluationSet], width: int, stream_name: str
) -> tuple[LaneSet, dict[str, np.ndarray]]:
    """One set with several learners of one structure: curves ``[H*S, count, points]`` on the host."""
    compiler, seeds = context.compiler, context.spec.seeds

    def spread(tree: PyTree) -> PyTree:
        return devices.place(devices.padded(tree, width), compiler.mesh)

    one = LaneSet.of(sets, seeds, spread)
    keys = spread(lane_keys(len(sets), seeds, context.spec.first_seed))
    meta = untrained_meta(compiler, one.inner, keys)
    curves = one.run(compiler, meta, keys, stream_name)
    lanes = len(sets) * seeds
    return one, {metric: values[:lanes] for metric, values in curves.items()}


def _points_width(context: Context) -> int:
    """Lanes of the programs that judged the points: they serve a baseline with the same learner as well."""
    seeds, compiler = context.spec.seeds, context.compiler
    return devices.pad_lanes(batch_points(compiler, context.study.total, seeds) * seeds, compiler.mesh.size)


def _raised(
    context: Context, where: Mapping[str, EvaluationSet], chosen: Mapping[str, Any], width: int = 0
) -> _Outcome:
    """One learner on all sets, its meta-parameters as initialised.

    ``width`` is that of programs that exist already: filling them up costs less than compiling smaller ones.
    """
    width = max(width, devices.pad_lanes(context.spec.seeds, context.compiler.mesh.size))
    sets: dict[str, LaneSet] = {}
    curves: Curves = {}
    for name, one in where.items():
        context.stop.check()
        sets[name], curves[name] = _evaluate(context, [one], width, "final")
    return _Outcome(sets, curves, chosen)


def _newborn(context: Context, sets: Mapping[str, EvaluationSet]) -> _Outcome:
    """The learner of point 0 at birth: a life without updates."""
    can = {name: one for name, one in sets.items() if isinstance(one.inner, Assessable)}
    for name in sets.keys() - can.keys():
        context.progress.say(
            f"baseline random: the learner of set {name} cannot be assessed at birth; left out"
        )
    unlived = {n: dataclasses.replace(one, updates=0, stride=1, threshold=None) for n, one in can.items()}
    return _raised(context, unlived, {}, _points_width(context)) if unlived else _Outcome({}, {}, {})


def _optimal(context: Context, sets: Mapping[str, EvaluationSet]) -> _Outcome:
    """Exact optimal returns, equal for all seeds: curves ``[S, count, 1]``."""
    found: dict[str, LaneSet] = {}
    curves: Curves = {}
    for name, one in sets.items():
        environment = getattr(one.tasks, "environment", None)
        if not getattr(environment, "optimum_known", False):
            context.progress.say(f"baseline optimal: set {name} has no exact optimum; left out")
            continue
        drawn = jax.jit(set_tasks, static_argnums=(1, 2))(one.tasks, one.count, one.seed)
        best = jax.jit(jax.vmap(environment.optimal_return))(drawn.params.env_params)  # pyright: ignore
        returns = np.broadcast_to(np.asarray(best)[:, None], (context.spec.seeds, one.count, 1))
        place = dataclasses.replace(one, updates=0, stride=1, threshold=None)
        found[name] = LaneSet(place, (), (), np.zeros(1, np.int64), 1)
        curves[name] = {"return": returns}
    return _Outcome(found, curves, {})


def _floor(context: Context, sets: Mapping[str, EvaluationSet]) -> _Outcome:
    """Mean steps over each set's tasks below which no learner of the set can come."""
    lines: dict[str, float] = {}
    for name, one in sets.items():
        steps_of = getattr(one.tasks, "floor_steps", None)
        sizes = [getattr(one.inner, size, None) for size in ("num_envs", "rollout_length")]
        if steps_of is None or None in sizes:
            context.progress.say(f"baseline floor: nothing is known of the tasks of set {name}; left out")
            continue
        lines[f"final/{name}/steps_to_threshold"] = float(np.mean(steps_of(*sizes, one.count)))
    return _Outcome({}, {}, {}, lines=lines)


def _record(context: Context, baseline: Baseline, run: str, outcome: _Outcome) -> None:
    """Final metrics, the evaluation table, the settings that were tried and the one that was chosen."""
    outbox, spec = context.outbox, context.spec
    rows = [(key, spec.budget.outer_steps, value) for key, value in outcome.lines.items()]
    for key, values in score_sets(outcome.sets, outcome.curves).items():
        rows += interval_rows(key, spec.budget.outer_steps, values)
    outbox.log(run, rows)
    params = flatten({**baseline.config, "chosen": dict(outcome.chosen)})
    outbox.open(run, "baseline", baseline.name, parent=context.manifest.id, params=params)
    folder = context.folder / "records" / f"baseline-{baseline.name}"
    folder.mkdir(parents=True, exist_ok=True)
    if outcome.curves:
        frame = curves_frame(outcome.sets, outcome.curves, np.zeros(spec.seeds, np.int32))
        frame.to_parquet(folder / "evaluation.parquet")
    if outcome.settings is not None:
        outcome.settings.to_parquet(folder / "settings.parquet")
    _write_config(folder / "config.yaml", baseline, outcome.chosen)
    outbox.artifact(run, folder, remove=True)
    outbox.close(run, "FINISHED")


def _write_config(path: Path, baseline: Baseline, chosen: Mapping[str, Any]) -> None:
    content = {"name": baseline.name, **baseline.config, "chosen": dict(chosen)}
    path.write_text(yaml.safe_dump(plain(content), sort_keys=False))


def _cells(values: Mapping[str, Any]) -> dict[str, Any]:
    """Setting values as table cells: structured ones as JSON."""
    return {key: json.dumps(v) if isinstance(v, dict | list | tuple) else v for key, v in values.items()}
