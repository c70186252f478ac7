"""Hyperparameters as meta-parameters: ranges, gradients, and a learner that reads as it did before."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inner_loops.actor_critic import ActorCritic
from inner_loops.critics import NetworkCritic, TabularCritic
from inner_loops.networks.mlp import MlpNetwork
from inner_loops.tasks.delayed_chains import DelayedChains
from inner_loops.update_rules.a2c import A2C
from inner_loops.update_rules.lpg import LPG
from metalab.components import as_arrays, component
from metalab.config import PointMaker, load, make_point, to_config
from metalab.config.build import build_learner
from metalab.contracts import ContractError, check_inner, check_outer
from metalab.errors import ConfigError
from metalab.exposure import Leaf, expose, leaf_of
from metalab.lifetimes import unroll
from metalab.optimizers import Adam, Sgd
from metalab.protocols import Assessable, Gated, Probeable
from metalab.trees import select, stack
from outer_loops.evolution_strategy import EvolutionStrategy
from outer_loops.fixed import Fixed
from outer_loops.meta_gradient import MetaGradient
from outer_loops.population_based import PopulationBased
from tests.config_toys import write
from tests.exposure_toys import Walker
from tests.toys import Targets

NAMES = ("gain", "optimizer.learning_rate")


def exposed(learner: Any, *names: str) -> Any:
    return expose(learner, [leaf_of(learner, name) for name in names])


@pytest.mark.parametrize(
    ("leaf", "value", "lowest", "highest"),
    [
        (Leaf(name="x"), 0.37, -50.0, 50.0),
        (Leaf(name="x", low=0.0, scale="log"), 7e-4, np.exp(-50.0), np.exp(50.0)),
        (Leaf(name="x", low=2.0, scale="linear"), 2.5, 2.0, 52.0),
        (Leaf(name="x", high=1.0, scale="log"), 0.2, 1.0 - np.exp(50.0), 1.0 - np.exp(-50.0)),
        (Leaf(name="x", low=0.0, high=1.0), 0.99, 0.0, 1.0),
        (Leaf(name="x", low=1e-4, high=1e-2, scale="log"), 3e-3, 1e-4, 1e-2),
    ],
)
def test_a_bijector_keeps_the_range_and_begins_at_the_value(leaf, value, lowest, highest):
    assert leaf.holds(value)
    np.testing.assert_allclose(leaf.value(leaf.free(value)), value, rtol=2e-7)
    free = jnp.linspace(-50.0, 50.0, 1001)
    values = np.asarray(jax.vmap(leaf.value)(free))
    assert np.all(np.sign(np.diff(values)) >= 0) or np.all(np.sign(np.diff(values)) <= 0)  # monotone
    np.testing.assert_allclose([values.min(), values.max()], [lowest, highest], rtol=1e-5, atol=2e-6)
    if leaf.low is not None and leaf.high is not None:
        assert leaf.low < values.min() and values.max() < leaf.high  # ends that are excluded stay out


def test_bounds_are_the_declared_ones_and_their_bijectors_are_chosen_by_them():
    leaves = [leaf_of(Walker(), name) for name in ("gain", "bias", "optimizer.learning_rate")]
    assert leaves == [
        Leaf(name="gain", low=0.0, high=1.0, scale="linear"),
        Leaf(name="bias"),
        Leaf(name="optimizer.learning_rate", low=0.0, scale="log"),
    ]


def test_a_learner_with_its_values_exposed_is_the_learner_with_other_values():
    learner = exposed(Walker(), *NAMES)
    meta = {"gain": jnp.asarray(1.0), "optimizer.learning_rate": jnp.asarray(-2.0)}
    values = learner.values_of(meta)
    plain = Walker(gain=values["gain"], optimizer=Sgd(learning_rate=values["optimizer.learning_rate"]))
    assert learner.learner_at(meta) == plain
    state = learner.init(jax.random.key(0), meta, Targets().sample(jax.random.key(1)))
    stepped, outs = unroll(learner, jax.random.key(2), meta, state, 3)
    expected, _ = unroll(plain, jax.random.key(2), (), state, 3)
    chex.assert_trees_all_equal(stepped, expected)
    _, evaluation = learner.evaluate(jax.random.key(3), meta, stepped, outs, None)
    # sigmoid(1) and exp(-2); the distance left is (1 - their product)^3
    assert evaluation.metrics["meta/gain"] == pytest.approx(0.7310586, rel=1e-5)
    assert evaluation.metrics["meta/optimizer.learning_rate"] == pytest.approx(np.exp(-2.0), rel=1e-6)
    assert float(evaluation.score) == pytest.approx(-((1 - 0.7310586 * np.exp(-2.0)) ** 6), rel=1e-5)
    assessed = learner.assess(jax.random.key(4), meta, stepped)
    assert assessed.keys() == {"return", "meta/gain", "meta/optimizer.learning_rate"}


def test_a_learner_that_gates_itself_does_so_with_its_values():
    @component
    class Rests(Walker):
        def step_if(self, alive, key, meta, state, batch):
            after, out = self.step(key, meta, state, batch)
            return select(alive, after, state), out

    learner = exposed(Rests(), *NAMES)
    meta = {"gain": jnp.asarray(1.0), "optimizer.learning_rate": jnp.asarray(-2.0)}
    assert [isinstance(one, Gated) for one in (learner, exposed(Walker(), *NAMES))] == [True, False]
    state = learner.init(jax.random.key(0), meta, Targets().sample(jax.random.key(1)))
    two = unroll(learner, jax.random.key(2), meta, state, 3, remaining=jnp.asarray(2))[0]
    plain = unroll(exposed(Walker(), *NAMES), jax.random.key(2), meta, state, 3, remaining=jnp.asarray(2))[0]
    chex.assert_trees_all_equal(two, plain)


def test_what_a_learner_is_besides_its_numbers_stays():
    learner = exposed(Walker(width=5), *NAMES)
    assert isinstance(learner, Walker) and isinstance(learner, Assessable)
    assert not isinstance(learner, Probeable)
    assert learner.steps_per_update == 5
    assert isinstance(exposed(ActorCritic(rule=A2C()), "discount"), Probeable)


def test_lanes_of_exposed_learners_share_a_program_and_equal_single_ones():
    one, two = (as_arrays(exposed(Walker(gain=gain), *NAMES)) for gain in (0.2, 0.4))
    assert jax.tree.structure(one) == jax.tree.structure(two)

    def live(learner):
        meta = learner.init_meta(jax.random.key(0))
        state = learner.init(jax.random.key(0), meta, Targets().sample(jax.random.key(1)))
        return unroll(learner, jax.random.key(2), meta, state, 2)[0].x

    lanes = jax.jit(jax.vmap(live))(stack([one, two]))
    np.testing.assert_allclose(lanes, [live(one), live(two)], rtol=1e-6)
    np.testing.assert_allclose(lanes, [1 - 0.9**2, 1 - 0.8**2], rtol=1e-5)


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        (
            ["gian"],
            "inner.meta: gian: Walker has no such number; did you mean 'gain'? known: bias, gain,",
        ),
        (["optimizer.rate"], "Walker has no such number; did you mean 'optimizer.learning_rate'?"),
        (["width"], "inner.meta: width: is static, part of the program's shape; only numbers can be exposed"),
        (["patience"], "inner.meta: patience: holds 3; only single real numbers can be meta-parameters"),
        (["gains"], "only single real numbers can be meta-parameters"),
        (["limit"], "inner.meta: limit: is off (null); a meta-parameter starts at a number"),
        (["optimizer"], "inner.meta: optimizer: is a component; its numbers: optimizer.learning_rate"),
        (["gain", "gain"], "inner.meta: expected different names of numbers, got ['gain', 'gain']"),
        ([1], "inner.meta: expected different names of numbers, got [1]"),
        ("gain", "inner.meta: expected a list of names such as [discount], or a mapping"),
        ({"gain": 0.5}, "inner.meta.gain: expected {low, high, scale}, got 0.5"),
        ({"gain": {"lo": 0.1}}, "inner.meta.gain.lo: unknown key (given 0.1); did you mean 'low'?"),
        ({"gain": {"low": -1.0}}, "inner.meta: gain: -1 lies outside its declared range (0 to 1)"),
        ({"gain": {"low": 0.4, "high": 0.2}}, "inner.meta: gain: low 0.4 is not below high 0.2"),
        ({"gain": {"scale": "log"}}, "scale log between two ends needs low above 0, got 0"),
        ({"bias": {"scale": "log"}}, "scale log needs an end of the range, low or high"),
        ({"bias": {"scale": "cubic"}}, "inner.meta.bias.scale: 'cubic' is not allowed"),
        (
            {"gain": {"high": 0.5}},
            "inner.meta: gain: a meta-parameter starts inside its range, above 0 and below 0.5; got 0.5",
        ),
    ],
)
def test_a_mistake_is_one_line(meta, message):
    config = {"kind": "tests.exposure_toys:Walker", "meta": meta}
    with pytest.raises(ConfigError) as caught:
        build_learner(config, Targets())
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "meta",
    [
        ["gain", "optimizer.learning_rate"],
        {"gain": None, "optimizer.learning_rate": {"high": 2.0}},
        {"gain": {"low": 0.1, "scale": "log"}, "optimizer": {"learning_rate": {"high": 2}}},
        {"bias": {"scale": "linear"}},
    ],
)
def test_what_is_written_out_builds_the_same_learner(meta):
    learner = build_learner({"kind": "tests.exposure_toys:Walker", "gain": 0.3, "meta": meta}, Targets())
    written = to_config(learner, "inner")
    assert written["kind"] == "tests.exposure_toys:Walker"
    assert build_learner(written, Targets()) == learner
    assert to_config(build_learner(written, Targets()), "inner") == written


@pytest.mark.parametrize("meta", [None, [], {}])
def test_nothing_named_is_nothing_exposed(meta):
    learner = build_learner({"kind": "tests.exposure_toys:Walker", "meta": meta}, Targets())
    assert type(learner) is Walker


def test_points_of_a_search_over_the_other_numbers_are_the_same_by_both_ways(tmp_path: Path):
    inner = {"kind": "tests.exposure_toys:Walker", "meta": list(NAMES)}
    spec = load(write(tmp_path, inner=inner))
    points = [
        {"inner.gain": gain, "inner.optimizer.learning_rate": rate, **other}
        for gain in (0.25, 0.5, 1.0)  # the last is at the edge of its range: refused
        for rate in (0.1, 2)
        for other in ({}, {"inner.width": 1}, {"inner.meta": ["gain"]}, {"inner.meta.gain.high": 0.75})
    ]
    make = PointMaker(spec)

    def outcome(maker, *arguments):
        try:
            return maker(*arguments)
        except ConfigError as error:
            return str(error)

    for number, values in enumerate(points):
        assert outcome(make, number, values) == outcome(make_point, spec, number, values), values
    refused = outcome(make, 0, {"inner.gain": 1.0})
    assert "gain: a meta-parameter starts inside its range, above 0 and below 1; got 1" in str(refused)


def test_a_learner_with_meta_parameters_of_its_own_is_refused_in_one_line():
    tasks = DelayedChains(lengths=(3,), max_length=3)
    learner = ActorCritic(rule=LPG(hidden_size=2), environment=tasks.environment, num_envs=1)
    with pytest.raises(ContractError, match="ActorCritic with rule LPG has meta-parameters") as caught:
        check_inner(exposed(learner, "discount"), tasks)
    assert "\n" not in str(caught.value)


OUTER = {
    Fixed: {"num_slots": 2, "truncation": 2},
    MetaGradient: {"num_slots": 2, "truncation": 2, "optimizer": Adam(learning_rate=0.1)},
    EvolutionStrategy: {
        "population": 8,
        "max_lifetime": 2,
        "sigma": 0.3,
        "optimizer": Adam(learning_rate=0.1),
    },
    PopulationBased: {"population": 8, "truncation": 2, "interval": 1},
}


@pytest.mark.parametrize("kind", OUTER, ids=lambda kind: kind.__name__)
def test_every_outer_loop_moves_the_values_towards_better_ones(kind):
    """A share of 1 is best, and the learner begins with 0.25: gain and rate must both grow."""
    outer = kind(inner=exposed(Walker(), *NAMES), tasks=Targets(lifetime=2), **OUTER[kind])
    check_outer(outer)

    @jax.jit
    def train(outer):
        def body(state, key):
            return outer.step(key, state, None)

        state, metrics = jax.lax.scan(
            body, outer.init(jax.random.key(0)), jax.random.split(jax.random.key(1), 40)
        )
        return outer.inner.values_of(outer.meta_params(state)), metrics

    values, metrics = train(as_arrays(outer))
    share = float(values["gain"] * values["optimizer.learning_rate"])
    if kind is Fixed:
        assert share == pytest.approx(0.25, rel=1e-6)
        np.testing.assert_allclose(metrics["inner/meta/gain"], 0.5, rtol=1e-6)
    else:
        assert abs(1.0 - share) < 0.5  # the distance after two updates is below a third of the first
        assert metrics["score"][-5:].mean() > metrics["score"][:5].mean()


CHAINS = DelayedChains(lengths=(2, 3), max_length=3, noise=1.0, lifetime=50)
SELF_TUNED = ("discount", "critic.trace_decay", "rule.entropy", "optimizer.learning_rate")


def self_tuned(*names: str, **changes: Any) -> Any:
    settings = {
        "rule": A2C(entropy=0.05),
        "environment": CHAINS.environment,
        "optimizer": Sgd(learning_rate=20.0),
        "critic": TabularCritic(trace_decay=0.8),
        "num_envs": 3,
        "rollout_length": 4,
        "discount": 0.9,
        "outer_discount": 0.99,
        "outer_trace_decay": 0.95,
    }
    return exposed(ActorCritic(**{**settings, **changes}), *(names or SELF_TUNED))


def lived(learner: Any, meta: Any, updates: int) -> tuple[Any, Any]:
    state = learner.init(jax.random.key(2), meta, CHAINS.sample(jax.random.key(1)))
    return unroll(learner, jax.random.key(5), meta, state, updates)


def outer_loss(learner: Any, meta: Any, state: Any, outs: Any) -> jax.Array:
    return learner.evaluate(jax.random.key(6), meta, state, outs, None)[1].loss


@pytest.mark.parametrize("mode", [pytest.param("mixed", marks=pytest.mark.slow), "reverse"])
def test_the_meta_gradient_of_hyperparameters_equals_central_differences(mode):
    """Discount, lambda, entropy and step size through two updates of agents and critics, in float64.

    The outer loop's step at a rate of 1 is its gradient. Advantages of the outer loss are constants (a policy
    gradient), so the differences are taken between losses of agents that differ in their parameters alone.
    The probability that a step of 1e-6 changes a sampled action is below 1e-5: trajectories are fixed.
    """
    with jax.enable_x64(True):
        learner, slots = self_tuned(), 2
        outer = MetaGradient(
            inner=learner,
            tasks=CHAINS,
            num_slots=slots,
            truncation=2,
            stagger=False,
            differentiation=mode,
            optimizer=Sgd(learning_rate=1.0),
        )
        state = jax.jit(outer.init)(jax.random.key(0))
        after = jax.jit(lambda key, state: outer.step(key, state, None)[0])(jax.random.key(1), state)
        gradient = jax.tree.map(jnp.subtract, state.meta, after.meta)

        def loss_of(moved, key, slot):
            unroll_key, evaluate_key = jax.random.split(key)
            here, outs = unroll(learner, unroll_key, state.meta, slot.state, 2)
            params = unroll(learner, unroll_key, moved, slot.state, 2)[0].params
            lived = here._replace(params=params)
            return learner.evaluate(evaluate_key, state.meta, lived, outs, None)[1].loss

        _, live_key = jax.random.split(jax.random.key(1))  # as the outer loop draws its keys
        keys = jax.random.split(live_key, slots)
        loss = jax.jit(lambda moved: jnp.mean(jax.vmap(loss_of, (None, 0, 0))(moved, keys, state.slots)))
        for name in SELF_TUNED:
            up, down = ({**state.meta, name: state.meta[name] + step} for step in (1e-6, -1e-6))
            numeric = (loss(up) - loss(down)) / 2e-6
            assert abs(numeric) > 1e-6, name
            assert abs(numeric - gradient[name]) <= 1e-5 * abs(numeric), name


def test_the_outer_loss_does_not_move_with_the_exposed_values():
    learner = self_tuned()
    meta = learner.init_meta(jax.random.key(0))
    other = {**meta, "discount": jnp.asarray(-1.0), "critic.trace_decay": jnp.asarray(0.0)}
    judged = jax.jit(lambda meta, *lived: outer_loss(learner, meta, *lived))
    state, outs = jax.jit(lambda meta: lived(learner, meta, 1))(meta)
    assert float(judged(meta, state, outs)) == float(judged(other, state, outs))


@pytest.mark.parametrize("missing", ["outer_discount", "outer_trace_decay"])
def test_without_an_objective_of_its_own_there_is_no_outer_loss(missing):
    learner = self_tuned("discount", **{missing: None})
    outer = MetaGradient(inner=learner, tasks=CHAINS, num_slots=2, truncation=2)
    with pytest.raises(ContractError, match="with rule A2C has no differentiable outer loss"):
        check_outer(outer)
    check_outer(EvolutionStrategy(inner=learner, tasks=CHAINS, population=4, max_lifetime=2))


@pytest.mark.parametrize("differentiable", [False, True])
@pytest.mark.slow
def test_the_meta_gradient_is_finite_with_networks_and_adam(differentiable):
    """A critic's Adam that is not safe to differentiate is a constant: dead units would make it infinite."""
    tasks = DelayedChains(lengths=(2, 3), max_length=3, observation="distractor")
    adam = Adam(learning_rate=1e-2, differentiable=True)
    learner = self_tuned(
        "discount",
        "optimizer.learning_rate",
        environment=tasks.environment,
        network=MlpNetwork(hidden_sizes=(8,)),
        optimizer=adam,
        critic=NetworkCritic(optimizer=dataclasses.replace(adam, differentiable=differentiable)),
    )
    meta = learner.init_meta(jax.random.key(0))
    task = tasks.sample(jax.random.key(1))

    def loss(meta):
        state = learner.init(jax.random.key(2), meta, task)
        return outer_loss(learner, meta, *unroll(learner, jax.random.key(5), meta, state, 2))

    gradient = jax.jit(jax.grad(loss))(meta)
    assert all(bool(jnp.isfinite(leaf)) and float(leaf) != 0.0 for leaf in gradient.values())
