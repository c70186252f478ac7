"""Meta-testing: the meta-parameters of a finished run on tasks that its sweep file did not name."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
import yaml

from metalab import devices
from metalab.components import as_arrays
from metalab.contracts import ContractError, check_probe
from metalab.errors import MetalabError
from metalab.histories import use_root
from metalab.spec import EvaluationSet
from metalab.sweep.evaluation import LaneSet, curves_frame, score_sets, untrained_meta
from metalab.sweep.probe import probe_frame, probe_set
from metalab.sweep.program import Compiler, lane_keys
from metalab.sweep.records import interval, interval_rows, load_meta_params
from metalab.tracking import Handle, Store, address, check_address, client_of, redacted

__all__ = ["evaluate_run", "find_run", "learned_meta"]

Curves = Mapping[str, np.ndarray]


def evaluate_run(run_id: str, task_names: Sequence[str], root: Path) -> list[dict[str, Any]]:
    """Raises learners with a run's meta-parameters on evaluation suites and records what they reach.

    The run gets ``final/<suite>/...`` metrics and the rows in its ``evaluation.parquet``; evaluating the
    same suite again replaces them.

    Args:
        run_id: of a finished point, or its name.
        task_names: suites, see ``metalab.config.load_suite``.
        root: folder of the store.

    Beside the run's own meta-parameters stand untrained ones (``untrained_return``).

    Returns:
        One row per suite and metric: run, suite, metric, mean, low, high, seeds.

    Raises:
        MetalabError: no such run, or one without meta-parameters; a suite that does not fit the learner.
    """
    from metalab.config import build_suite

    use_root(root)
    run, experiment = find_run(run_id, root)
    store = Store(root, experiment)
    compiler = Compiler()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(store.client.download_artifacts(run.run_id, "", name))
        if not (folder / "meta_params.npz").exists():
            raise MetalabError(f"run {run_id} has no meta-parameters: only a point that finished has some")
        config = yaml.safe_load((folder / "config.yaml").read_text())
        # The metrics' step is the end of meta-training, where the sweep's own final metrics stand.
        last = config["budget"]["outer_steps"]
        for suite in task_names:
            where = build_suite(suite, config["inner"])
            rows += _evaluate(store, run, folder, where, compiler, last)
        store.artifact(run.run_id, folder / "evaluation.parquet")
    return rows


def learned_meta(given: str, root: Path, template: Any, where: str) -> Any:
    """The meta-parameters of a run, leaves ``[S, ...]``.

    Args:
        given: the run's id or its name.
        root: folder of the store.
        template: shapes and dtypes of one seed's.
        where: what asks, for errors.

    Raises:
        MetalabError: there is no such run, it has none, or they are those of another learner.
    """
    run, experiment = find_run(given, root)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(Store(root, experiment).client.download_artifacts(run.run_id, "", name))
        if not (folder / "meta_params.npz").exists():
            raise MetalabError(f"{where}: run {given} has none: only a point that finished has some")
        try:
            return load_meta_params(folder, template)
        except ValueError as error:
            raise MetalabError(f"{where}: run {given}: {error}") from error


def find_run(given: str, root: Path) -> tuple[Handle, str]:
    """A run of the store by its id or its name, and the name of its experiment.

    Raises:
        MetalabError: there is none, or several have this name.
    """
    from mlflow.exceptions import MlflowException

    where = address(root)
    check_address(where)
    client = client_of(root)
    try:
        found = client.get_run(given)
    except MlflowException as error:
        named = _runs_named(client, given)
        if not named:
            raise MetalabError(
                f"there is no run {given} in {redacted(where)}; expected a run's id or name, as `metalab ui` "
                "shows them"
            ) from error
        if len(named) > 1:
            ids = ", ".join(run.info.run_id for run in named)
            raise MetalabError(f"{len(named)} runs are called {given}: {ids}; give the id of one") from error
        found = named[0]
    info, data = found.info, found.data
    handle = Handle(info.run_id, info.start_time, info.status, dict(data.metrics), dict(data.tags))
    return handle, client.get_experiment(info.experiment_id).name


def _runs_named(client: Any, name: str) -> list[Any]:
    """At most a handful of the store's runs with this name."""
    if "'" in name:  # no name that metalab gives, and it would end the filter's string
        return []
    everywhere = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_runs(everywhere, f"attributes.run_name = '{name}'", max_results=5))


def _evaluate(
    store: Store, run: Handle, folder: Path, where: EvaluationSet, compiler: Compiler, last: int
) -> list[dict[str, Any]]:
    template = jax.eval_shape(lambda inner: inner.init_meta(jax.random.key(0)), as_arrays(where.inner))
    try:
        meta = load_meta_params(folder, template)
    except ValueError as error:
        raise MetalabError(f"run {run.run_id}, suite {where.name}: {error}") from error
    manifest = json.loads((folder / "meta_params.json").read_text())
    steps = np.asarray(manifest["outer_steps"])
    if where.probe:
        try:
            check_probe(where.inner, where.tasks)
        except ContractError as error:
            raise MetalabError(f"suite {where.name}: probe: {error}") from error
    one, curves, untrained, probes = _curves(compiler, where, meta, len(steps))
    finals = score_sets({where.name: one}, {where.name: curves})
    unlearned = score_sets({where.name: one}, {where.name: untrained})
    finals[f"final/{where.name}/untrained_return"] = unlearned[f"final/{where.name}/return"]
    finals |= {f"final/{where.name}/{metric}": values for metric, values in probes.items()}
    store.log(run, [row for key, values in finals.items() for row in interval_rows(key, last, values)])
    frames = [curves_frame({where.name: one}, {where.name: curves}, steps)]
    frames += [probe_frame(one, probes, steps)] if probes else []
    _append(folder / "evaluation.parquet", pd.concat(frames, ignore_index=True))
    return [_row(run.run_id, where.name, key, values) for key, values in finals.items()]


def _curves(
    compiler: Compiler, where: EvaluationSet, meta: Any, seeds: int
) -> tuple[LaneSet, Curves, Curves, Curves]:
    """The set, curves ``[S, count, points]``, the same of untrained meta-parameters, and the probe's scores.

    The untrained rule meets the same tasks with the same random numbers: what it reaches owes nothing to
    meta-training.
    """
    width = devices.pad_lanes(seeds, compiler.mesh.size)

    def spread(tree: Any) -> Any:
        return devices.place(devices.padded(tree, width), compiler.mesh)

    one = LaneSet.of([where], seeds, spread)
    meta = spread(jax.tree.map(jax.numpy.asarray, meta))

    def fetch(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: np.asarray(leaf)[:seeds], tree)

    keys = spread(lane_keys(1, seeds))
    curves = fetch(one.run(compiler, meta, keys, "final"))
    untrained = fetch(one.run(compiler, untrained_meta(compiler, one.inner, keys), keys, "final"))
    return one, curves, untrained, probe_set(one, compiler, meta, keys, fetch) if where.probe else {}


def _append(path: Path, frame: pd.DataFrame) -> None:
    frames = [frame]
    if path.exists():
        before = pd.read_parquet(path)
        kept = before.loc[~before["set"].isin(list(set(frame["set"])))]
        frames = [kept, frame]
    pd.concat(frames, ignore_index=True).to_parquet(path)


def _row(run_id: str, suite: str, key: str, values: np.ndarray) -> dict[str, Any]:
    mean, low, high = interval(values)
    metric = key.rsplit("/", 1)[-1]
    scores = {"mean": mean, "low": low, "high": high, "seeds": len(values)}
    return {"run": run_id, "suite": suite, "metric": metric, **scores}
