"""Probes: the regression on made-up learners, and a sweep that asks for one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import yaml
from jax import Array

from metalab.components import component
from metalab.config import load
from metalab.errors import ConfigError, MetalabError
from metalab.protocols import Probe, PyTree
from metalab.spec import Point
from metalab.sweep.engine import Options, run_sweep
from metalab.sweep.meta_test import evaluate_run
from metalab.sweep.plan import check_spec, plan_points
from metalab.sweep.probe import PENALTY, cross_fitted_r2
from metalab.tracking import Store, client_of
from tests.sweep import toy

METRICS = ("prediction_r2", "prediction_r2_untrained", "prediction_r2_gain")


def made_up(
    lifetimes: int = 20, states: int = 30, size: int = 6
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log-probabilities of normal logits, truths, and all states visited."""
    random = np.random.default_rng(0)
    logits = random.normal(size=(lifetimes, states, size))
    features = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    return features, random.normal(size=(lifetimes, states)), np.ones((lifetimes, states), bool)


def test_a_linear_code_is_read_and_noise_is_not() -> None:
    features, noise, visited = made_up()
    linear = 2.0 * features[..., 0] - features[..., 3] + 5.0
    assert cross_fitted_r2(features, linear, visited) > 0.999
    # With n = 300 rows a fit and F = 6 features unrelated to the truth, 1 - R^2 is about (1 + F / n): -.02.
    assert -0.06 < cross_fitted_r2(features, noise, visited) < 0.01
    # Half of the truth's variance is noise: R^2 is the share that is not.
    spread = linear.std()
    assert cross_fitted_r2(features, linear + spread * noise, visited) == pytest.approx(0.5, abs=0.08)


def test_a_code_of_each_lifetimes_own_is_not_read() -> None:
    features, _, visited = made_up()
    truth = features[..., 0] - features[..., 1]
    signs = np.where(np.arange(len(features)) < len(features) // 2, 1.0, -1.0)[:, None]
    assert cross_fitted_r2(features, truth, visited) > 0.999
    assert cross_fitted_r2(features, signs * truth, visited) < -1.0  # the halves' codes contradict each other


def test_ridge_by_hand() -> None:
    # One feature, one state a lifetime; each half holds x = -1, 1 and y = x: standardised x is itself, the
    # weight 1 / (1 + penalty), the error of each row penalty / (1 + penalty), and R^2 = 1 - that squared.
    x = np.array([-1.0, 1.0, -1.0, 1.0])
    expected = 1.0 - (PENALTY / (1.0 + PENALTY)) ** 2
    assert cross_fitted_r2(x[:, None, None], x[:, None], np.ones((4, 1), bool)) == pytest.approx(expected)


def test_unvisited_and_broken_states_are_no_rows() -> None:
    features, noise, visited = made_up()
    linear = features[..., 0].copy()
    linear[:, 10:] = noise[:, 10:]
    visited[:, 10:] = False
    features[0] = np.nan
    assert cross_fitted_r2(features, linear, visited) > 0.999
    assert np.isnan(cross_fitted_r2(features, linear, np.zeros_like(visited)))
    assert np.isnan(cross_fitted_r2(features[1:], np.ones_like(linear[1:]), visited[1:]))


@component
class Open(toy.Parabola):
    """A learner that says ``x place`` of places of which ``target place`` is true."""

    def probe(self, key: Array, meta: PyTree, state: toy.ToyState) -> Probe:
        place = jnp.array([1.0, 2.0, 3.0, 100.0])
        return Probe((state.x * place)[:, None], state.target * place, place < 100)


@pytest.mark.slow
def test_a_sweep_probes_the_sets_that_ask_for_it(root: Path) -> None:
    spec = toy.make_spec(seeds=3, outer_steps=2, held_out=True)
    sets = {**spec.evaluation.sets, "wide": {**spec.evaluation.sets["wide"], "count": 6, "probe": True}}
    spec = dataclasses.replace(spec, evaluation=dataclasses.replace(spec.evaluation, sets=sets))

    def make_point(number: int, values: Mapping[str, Any]) -> Point:
        outer = toy.Descent(inner=Open(), tasks=toy.Targets())
        return dataclasses.replace(toy.make_point(spec, number, values), outer=outer)

    run_sweep(
        spec,
        root,
        Options(progress=False),
        builders=dataclasses.replace(toy.BUILDERS, point_maker=lambda spec: make_point),
    )
    store = Store(root, "toy")
    (run,) = store.client.search_runs([store.experiment_id], "tags.`metalab.kind` = 'point'")
    metrics = run.data.metrics
    assert {key.split("/")[1] for key in metrics if "prediction_r2" in key} == {"wide"}
    trained, untrained, gain = (metrics[f"final/wide/{name}"] for name in METRICS)
    assert 0.9 < trained <= 1.0  # x is the same share of every target: a linear code
    assert gain == pytest.approx(trained - untrained)
    assert metrics["final/wide/prediction_r2_low"] <= trained <= metrics["final/wide/prediction_r2_high"]
    table = pd.read_parquet(client_of(root).download_artifacts(run.info.run_id, "evaluation.parquet"))
    rows = table[table.metric == "prediction_r2"]
    assert (list(rows.seed), list(rows.task), list(rows["update"])) == ([0, 1, 2], [0, 0, 0], [4, 4, 4])
    assert rows.value.mean() == pytest.approx(trained)


def sweep_file(folder: Path, **of_set: Any) -> Path:
    """Noiseless chains of two lengths, a rule of four units, one probed set and its ablation."""
    probed = {"count": 4, "updates": 2, "seed": 2, **of_set}
    constant = {"inner": {"rule": {"constant_next_prediction": True}}, "baselines": False, "probe": False}
    content = {
        "inner": {
            "kind": "actor_critic",
            "num_envs": 2,
            "rollout_length": 6,
            "rule": {"kind": "lpg", "hidden_size": 4, "prediction_size": 3, "embedding_size": 4},
            "optimizer": {"kind": "sgd", "learning_rate": 20},
        },
        "tasks": {"kind": "delayed_chains", "lengths": [3, 4], "max_length": 6, "lifetime": 4},
        "outer": {"kind": "meta_gradient", "truncation": 2, "num_slots": 2},
        "budget": {"outer_steps": 1, "chunk": 1},
        "seeds": 2,
        "evaluation": {
            "select": "train",
            "sets": {
                "train": {"count": 2, "updates": 2, "seed": 1},
                "held_out": probed,
                "held_out_constant_y": {**probed, **constant},
            },
        },
        "baselines": {
            "a2c": {"inner": {"kind": "actor_critic", "num_envs": 2, "rule": {"kind": "a2c"}}},
            "untrained": {},
        },
    }
    path = folder / "probed.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.slow
def test_chains_are_probed_by_a_sweep_and_afterwards(root: Path) -> None:
    run_sweep(load(sweep_file(root, probe=True)), root, Options(progress=False))
    store = Store(root, "probed")
    runs = {run.data.tags["metalab.kind"]: run for run in store.client.search_runs([store.experiment_id])}
    metrics = runs["point"].data.metrics
    probed = {key.split("/")[1] for key in metrics if "prediction_r2" in key}
    assert probed == {"held_out"}
    trained = metrics["final/held_out/prediction_r2"]
    run_id = runs["point"].info.run_id
    # Baselines do not meet the ablation, which changes a rule that they do not have.
    of_baselines = {key.split("/")[1] for key in runs["baseline"].data.metrics if key.startswith("final/")}
    assert of_baselines == {"train", "held_out"}
    # The same set met afterwards: the same learners, the same score.
    suite = root / "again.yaml"
    suite.write_text(
        yaml.safe_dump(
            {
                "count": 4,
                "updates": 2,
                "seed": 2,
                "probe": True,
                "tasks": {"kind": "delayed_chains", "lengths": [3, 4], "max_length": 6, "lifetime": 4},
            }
        )
    )
    found = {row["metric"]: row["mean"] for row in evaluate_run(run_id, [str(suite)], root)}
    assert found["prediction_r2"] == pytest.approx(trained, rel=1e-4)


def checked(path: Path) -> None:
    spec = load(path)
    check_spec(spec, plan_points(spec)[0])


@pytest.mark.parametrize(
    ("of_set", "message"),
    [
        ({"probe": "yes"}, r"evaluation\.sets\.held_out\.probe: expected true or false, got 'yes'"),
        (
            {"probe": True, "count": 1},
            r"held_out\.probe: one half of the lifetimes tests the other; count is 1",
        ),
        (
            {"probe": True, "inner": {"rule": {"kind": "a2c"}}},
            r"held_out\.probe: inner loop 'ActorCritic': probe fails: .*rule A2C has no prediction vector y",
        ),
        (
            {"probe": True, "tasks": {"observation": "distractor"}, "inner": {"network": {"kind": "mlp"}}},
            r"held_out\.probe: .* has no exact values of a table",
        ),
    ],
)
def test_what_cannot_be_probed_is_refused_in_one_line(
    tmp_path: Path, of_set: dict[str, Any], message: str
) -> None:
    path = sweep_file(tmp_path, **of_set)
    content = yaml.safe_load(path.read_text())
    del content["evaluation"]["sets"]["held_out_constant_y"], content["baselines"]
    if "tasks" in of_set:
        of_set["inner"]["critic"] = {"kind": "network"}
        content["evaluation"]["sets"]["held_out"] = {"count": 4, "updates": 2, **of_set}
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(MetalabError, match=message) as refusal:
        checked(path)
    assert "\n" not in str(refusal.value)


def test_the_set_that_tunes_baselines_has_baselines(tmp_path: Path) -> None:
    path = sweep_file(tmp_path)
    content = yaml.safe_load(path.read_text())
    content["evaluation"]["sets"]["train"]["baselines"] = False
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match=r"evaluation\.sets\.train\.baselines: "):
        load(path)
