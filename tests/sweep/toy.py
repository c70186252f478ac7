"""A world small enough to compile in a blink: a learner that descends a parabola at a meta-learned rate."""

from __future__ import annotations

import dataclasses
import functools
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import pandas as pd
from jax import Array

from metalab.components import component, number, part, static
from metalab.lifetimes import unroll
from metalab.protocols import Evaluation, PyTree, StepOut, Task
from metalab.spec import (
    Baseline,
    Budget,
    EvaluationSet,
    EvaluationSettings,
    Point,
    Pruner,
    Study,
    SweepSpec,
)
from metalab.sweep.engine import Builders, Options, SweepResult, run_sweep
from metalab.sweep.records import digest_of
from metalab.tracking import Store, client_of


class ToyState(NamedTuple):
    x: Array
    target: Array


@component
class Parabola:
    """Descends 0.5 (x - target)^2; the meta-parameter is the step size's logarithm."""

    start: float = number(0.0, doc="where every learner is born")
    noise: float = number(0.0, doc="of the gradient", at_least=0.0)

    @property
    def steps_per_update(self) -> int:
        return 4

    def init_meta(self, key: Array) -> dict[str, Array]:
        return {"log_rate": jnp.log(0.1) + 0.1 * jax.random.normal(key)}

    def init(self, key: Array, meta: PyTree, task: Task) -> ToyState:
        return ToyState(jnp.asarray(self.start, jnp.float32), task.params)

    def step(self, key: Array, meta: PyTree, state: ToyState, batch: PyTree) -> tuple[ToyState, StepOut]:
        slope = state.x - state.target + self.noise * jax.random.normal(key)
        return state._replace(x=state.x - jnp.exp(meta["log_rate"]) * slope), StepOut({"slope": slope})

    def evaluate(
        self, key: Array, meta: PyTree, state: ToyState, outs: StepOut, batch: PyTree
    ) -> tuple[ToyState, Evaluation]:
        loss = 0.5 * (state.x - state.target) ** 2
        return state, Evaluation(loss, -loss, {"x": state.x})

    def assess(self, key: Array, meta: PyTree, state: ToyState) -> dict[str, Array]:
        return {"return": -jnp.abs(state.x - state.target)}


@component
class Targets:
    """Targets drawn from a normal distribution."""

    spread: float = number(1.0, doc="standard deviation", above=0.0)

    def sample(self, key: Array) -> Task:
        return Task(self.spread * jax.random.normal(key), jnp.asarray(8, jnp.int32))


class DescentState(NamedTuple):
    meta: PyTree
    steps: Array


@component
class Descent:
    """Descends the loss of one fresh lifetime per outer step; breaks on demand."""

    inner: Parabola = part(doc="the learner", group="inner")
    tasks: Targets = part(doc="its tasks", group="tasks")
    rate: float = number(0.1, doc="outer step size")
    break_at: int = number(-1, doc="outer step at which the loss becomes NaN; -1: never")
    length: int = static(4, doc="K")

    def init(self, key: Array) -> DescentState:
        return DescentState(self.inner.init_meta(key), jnp.zeros((), jnp.int32))

    def step(self, key: Array, state: DescentState, data: PyTree) -> tuple[DescentState, dict[str, Array]]:
        task_key, life_key = jax.random.split(key)
        task = self.tasks.sample(task_key)

        def loss_of(meta: PyTree) -> Array:
            born = self.inner.init(life_key, meta, task)
            grown, outs = unroll(self.inner, life_key, meta, born, self.length)
            loss = self.inner.evaluate(life_key, meta, grown, outs, None)[1].loss
            assert loss is not None
            return jnp.where(state.steps == self.break_at, jnp.nan, loss)

        loss, gradient = jax.value_and_grad(loss_of)(state.meta)
        meta = jax.tree.map(lambda m, g: m - self.rate * jnp.clip(g, -1.0, 1.0), state.meta, gradient)
        return DescentState(meta, state.steps + 1), {"loss": loss, "score": -loss}

    def meta_params(self, state: DescentState) -> PyTree:
        return state.meta


def make_spec(
    *,
    search: Mapping[str, str] | None = None,
    seeds: int = 2,
    outer_steps: int = 6,
    chunk: int = 2,
    every: int = 2,
    sampler: str = "grid",
    points: int | None = None,
    batch: int | None = None,
    pruner: Pruner | None = None,
    select: str | None = "train",
    over_seeds: str = "mean",
    base: Mapping[str, Any] | None = None,
    held_out: bool = False,
    baselines: tuple[Baseline, ...] = (),
) -> SweepSpec:
    """A sweep over the toy, as a file would say it."""
    sets: dict[str, dict[str, Any]] = {
        "train": {"count": 3, "updates": 8, "stride": 2, "seed": 1, "threshold": -0.3},
    }
    if held_out:
        sets["wide"] = {"count": 2, "updates": 4, "stride": 1, "seed": 2, "spread": 5.0}
    return SweepSpec(
        name="toy",
        description="a parabola",
        path=Path("toy.yaml"),
        config={"base": dict(base or {}), "evaluation": sets, "budget": {"outer_steps": outer_steps}},
        budget=Budget(outer_steps=outer_steps, chunk=chunk),
        seeds=seeds,
        search=dict(search or {}),
        study=Study(
            sampler=sampler,
            points=points,
            batch=batch,
            seed=0,
            objectives=(f"evaluation/{select}/return" if select else "train/score",),
            directions=("maximize",),
            over_seeds=over_seeds,
            reduce="last",
            last_fraction=0.1,
            pruner=pruner or Pruner(),
        ),
        evaluation=EvaluationSettings(every=every, select=select, sets=sets if select else {}),
        baselines=baselines,
        report=(),
    )


def make_point(spec: SweepSpec, number: int, values: Mapping[str, Any]) -> Point:
    settings = {**spec.config["base"], **values}
    inner = Parabola(**{k[6:]: v for k, v in settings.items() if k.startswith("inner.")})
    own = {k[6:]: v for k, v in settings.items() if k.startswith("outer.")}
    outer = Descent(inner=inner, tasks=Targets(), **own)
    config = {"settings": settings, "budget": dataclasses.asdict(spec.budget), "seeds": spec.seeds}
    return Point(number, dict(values), config, outer, digest_of(config))


def evaluation_sets(spec: SweepSpec, point: Point) -> dict[str, EvaluationSet]:
    found = {}
    for name, raw in spec.evaluation.sets.items():
        own = {"threshold": None, **raw}
        tasks = Targets(spread=own.pop("spread", 1.0))
        found[name] = EvaluationSet(name=name, inner=point.outer.inner, tasks=tasks, **own)  # pyright: ignore
    return found


def baseline_sets(spec: SweepSpec, one: Any, values: Mapping[str, Any]) -> dict[str, EvaluationSet]:
    return evaluation_sets(spec, make_point(spec, 0, values))


BUILDERS = Builders(lambda spec: functools.partial(make_point, spec), evaluation_sets, baseline_sets)


def run(spec: SweepSpec, root: Path, **options: Any) -> SweepResult:
    """Runs the toy without a word."""
    return run_sweep(spec, root, Options(progress=False, **options), builders=BUILDERS)


def runs_of(root: Path, kind: str = "point", name: str = "toy") -> list[Any]:
    """The runs of a kind, points by number."""
    store = Store(root, name)
    found = store.client.search_runs(
        [store.experiment_id], f"tags.`metalab.kind` = '{kind}'", max_results=5000
    )
    return sorted(found, key=lambda one: int(one.data.tags.get("metalab.number", 0)))


def table(root: Path, one: Any, name: str) -> pd.DataFrame:
    """A Parquet artifact of a run."""
    return pd.read_parquet(client_of(root).download_artifacts(one.info.run_id, name))


def elsewhere(root: Path, name: str) -> Path:
    """Another folder with a copy of the store."""
    other = root / name
    other.mkdir()
    shutil.copy(root / "mlflow.db", other / "mlflow.db")
    return other


def assert_same_sweep(one: Path, other: Path) -> None:
    """Runs, metric points and tables are equal, bit for bit, and none is there twice."""
    ours, theirs = runs_of(one), runs_of(other)
    assert [a.data.tags["metalab.number"] for a in ours] == [b.data.tags["metalab.number"] for b in theirs]
    for a, b in zip(ours, theirs, strict=True):
        assert a.data.params == b.data.params
        assert a.data.tags["metalab.status"] == b.data.tags["metalab.status"]
        assert a.data.metrics == b.data.metrics
        for key in a.data.metrics:
            histories = [
                client_of(r).get_metric_history(x.info.run_id, key) for r, x in ((one, a), (other, b))
            ]
            points = [sorted((p.step, p.value) for p in history) for history in histories]
            assert points[0] == points[1]
            assert len({step for step, _ in points[0]}) == len(points[0]), f"{key} has doubled points"
            assert all(p.timestamp == a.info.start_time + p.step for p in histories[0])
        for name in ("series.parquet", "evaluation.parquet"):
            if a.data.tags["metalab.status"] == "FINISHED" or name == "series.parquet":
                pd.testing.assert_frame_equal(table(one, a, name), table(other, b, name))
