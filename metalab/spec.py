"""What a sweep file says once it has been read: plain frozen data, passed between the layers.

``metalab.config`` makes these; ``metalab.sweep`` runs them; nothing here computes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metalab.protocols import InnerLoop, OuterLoop, TaskDistribution

__all__ = [
    "Baseline",
    "Budget",
    "EvaluationSet",
    "EvaluationSettings",
    "Point",
    "Pruner",
    "Recording",
    "Study",
    "SweepSpec",
]


@dataclasses.dataclass(frozen=True)
class Budget:
    """How long meta-training lasts.

    Attributes:
        outer_steps: outer steps of every point.
        chunk: outer steps between two visits of the host: the unit of logging, checkpoint and kill.
    """

    outer_steps: int
    chunk: int


@dataclasses.dataclass(frozen=True)
class Pruner:
    """When a point is given up before its budget is spent.

    Attributes:
        kind: ``none``, ``median``, ``successive_halving``, ``hyperband`` or ``wilcoxon``.
        startup_points: points that must have finished before any is pruned.
        warmup_steps: outer steps before which nothing is pruned; for the two that halve, the first rung.
        reduction_factor: of ``successive_halving`` and ``hyperband``: one point of so many passes a rung.
        p_threshold: of ``wilcoxon``.
        outer_steps: of a whole point, for ``hyperband``; None: those of the first point that finishes.
    """

    kind: str = "none"
    startup_points: int = 5
    warmup_steps: int = 0
    reduction_factor: int = 3
    p_threshold: float = 0.1
    outer_steps: int | None = None


@dataclasses.dataclass(frozen=True)
class Study:
    """How points are chosen from the search space, and what makes one better than another.

    Attributes:
        sampler: ``grid`` (a list of points too), ``random``, ``qmc``, ``tpe``, ``cmaes`` or ``nsga2``.
        points: total number of points; None: the whole grid.
        batch: points in flight at most; None: as many as fit.
        seed: of the sampler.
        objectives: logged metrics, for example ``evaluation/train/return``.
        directions: ``maximize`` or ``minimize``, one for each objective.
        over_seeds: ``mean``, ``median``, ``iqm`` or ``min``.
        reduce: of an objective's values over the outer steps: ``last``, ``mean`` or ``best``.
        last_fraction: what share of the outer steps, from the end, ``mean`` is taken over.
        pruner: when a point is given up.
    """

    sampler: str
    points: int | None
    batch: int | None
    seed: int
    objectives: tuple[str, ...]
    directions: tuple[str, ...]
    over_seeds: str
    reduce: str = "last"
    last_fraction: float = 0.1
    pruner: Pruner = Pruner()


@dataclasses.dataclass(frozen=True)
class EvaluationSet:
    """A fixed set of tasks on which fresh learners are raised with frozen meta-parameters.

    Attributes:
        name: as the sweep file calls it.
        inner: the learner's loop there; the point's own unless the file overrides parts of it.
        tasks: where the set's tasks come from.
        count: number of lifetimes.
        updates: inner updates of each lifetime.
        stride: inner updates between two assessments of the learner.
        seed: the tasks are drawn from this seed alone: the same for every point, seed and checkpoint.
        threshold: return that counts as solved, for steps-to-threshold; None: not reported.
        probe: whether it is reported how much of the truth the learners' representation tells.
        baselines: whether baselines are evaluated here too.
        points: whether points are evaluated here, and baselines that are made of a point's learner.
    """

    name: str
    inner: InnerLoop
    tasks: TaskDistribution
    count: int
    updates: int
    stride: int
    seed: int
    threshold: float | None
    probe: bool = False
    baselines: bool = True
    points: bool = True


@dataclasses.dataclass(frozen=True)
class EvaluationSettings:
    """When and on what the meta-parameters are evaluated.

    Attributes:
        every: outer steps between two evaluations on the selection set.
        select: name of the set (of training tasks) whose final return picks the meta-parameters kept.
        sets: name to raw mapping of the file; made into ``EvaluationSet`` for each point's inner loop.
        keep_by: ``return`` (at the end of life) or ``mean_return`` (over life: fast learners are better).
    """

    every: int
    select: str | None
    sets: Mapping[str, Mapping[str, Any]]
    keep_by: str = "return"


@dataclasses.dataclass(frozen=True)
class Baseline:
    """A learner without meta-training, tuned on the selection set and reported beside the points.

    Attributes:
        name: row name in the report.
        config: raw mapping: ``inner`` (whole), ``search``, ``points``, ``sampler``.
    """

    name: str
    config: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Recording:
    """Learning histories that a sweep stands on: the lives of a source learner on a set of tasks.

    Attributes:
        name: as the sweep file calls it.
        path: where it lies below the folder of recordings.
        inner: the source.
        tasks: where its tasks come from.
        count: number of tasks.
        seeds: lives on each of them.
        updates: inner updates of a life.
        seed: tasks and lives are drawn from it alone.
        meta: run whose meta-parameters the source has; None: as they are initialised.
        meta_seed: which of that run's meta-seeds.
        settings: all of that as plain data; with other settings it is another recording.
    """

    name: str
    path: str
    inner: InnerLoop
    tasks: TaskDistribution
    count: int
    seeds: int
    updates: int
    seed: int
    meta: str | None
    meta_seed: int
    settings: Mapping[str, Any]

    @property
    def histories(self) -> int:
        """Number of lives."""
        return self.count * self.seeds


@dataclasses.dataclass(frozen=True)
class Point:
    """One point of a sweep.

    Attributes:
        number: position in the sweep, from 0.
        values: the searched keys and what they are at this point.
        config: the whole resolved configuration of the point.
        outer: its outer loop, with inner loop and tasks inside.
        digest: hash of the configuration that identifies the point's run for ever.
    """

    number: int
    values: Mapping[str, Any]
    config: Mapping[str, Any]
    outer: OuterLoop
    digest: str


@dataclasses.dataclass(frozen=True)
class SweepSpec:
    """One sweep file, composed with the command line's overrides and checked.

    Attributes:
        name: of the sweep, of its MLflow experiment and of its folder.
        description: one line or more, from the file.
        path: the file.
        config: the resolved configuration, plain containers.
        budget, seeds, study, evaluation, baselines, report: the file's sections.
        search: the raw section, which ``metalab.sweep.space.parse_space`` reads.
        raw: the configuration before its interpolations were resolved; points set their values there, so
            that what refers to a searched key follows it. Empty: ``config`` stands for it.
        first_seed: of ``seeds`` consecutive ones.
        recordings: histories that it stands on.
    """

    name: str
    description: str
    path: Path
    config: Mapping[str, Any]
    budget: Budget
    seeds: int
    search: Mapping[str, Any] | Sequence[Mapping[str, Any]]
    study: Study
    evaluation: EvaluationSettings
    baselines: tuple[Baseline, ...]
    report: tuple[str, ...]
    raw: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    first_seed: int = 0
    recordings: tuple[Recording, ...] = ()
