"""Population-based training: who copies whom, what a copy is, and that the copies are worth it."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metalab.components import as_arrays
from metalab.contracts import ContractError, check_outer
from metalab.exposure import expose, leaf_of
from metalab.trees import stack
from outer_loops.population_based import PopulationBased, replacements
from tests.exposure_toys import Walker
from tests.toys import Chaser, CountingTargets, Targets


def make(**changes) -> PopulationBased:
    settings: dict = {
        "inner": Chaser(gain=0.1),
        "tasks": Targets(lifetime=1000),
        "population": 4,
        "truncation": 1,
        "interval": 2,
        "fraction": 0.25,
    }
    return as_arrays(PopulationBased(**(settings | changes)))


@jax.jit
def newborn(outer: PopulationBased):
    return outer.init(jax.random.key(0))


@jax.jit
def stepped(outer: PopulationBased, state, key):
    return outer.step(key, state, None)


@functools.partial(jax.jit, static_argnums=1)
def trained(outer: PopulationBased, steps: int, seed: int = 0):
    """States and metrics after every step."""

    def body(state, key):
        new_state, metrics = outer.step(key, state, None)
        return new_state, (new_state, metrics)

    keys = jax.random.split(jax.random.key(seed + 1), steps)
    return jax.lax.scan(body, outer.init(jax.random.key(seed)), keys)[1]


def test_the_bottom_becomes_copies_of_the_top():
    score = jnp.asarray([0.3, 0.9, 0.1, 0.7, 0.2, 0.8])
    # a third of 6 is 2: members 2 and 4 are the bottom, 1 and 5 the top in this order
    draws = jnp.asarray([0.0, 0.0, 0.49, 0.0, 0.51, 0.0])
    np.testing.assert_array_equal(replacements(score, draws, 1 / 3), [0, 1, 1, 3, 5, 5])
    # at least one is replaced, however small the fraction
    np.testing.assert_array_equal(replacements(score, draws, 0.01), [0, 1, 1, 3, 4, 5])


def test_equals_are_not_copied_and_the_broken_are_the_worst():
    same = jnp.zeros(4)
    np.testing.assert_array_equal(replacements(same, same, 0.5), [0, 1, 2, 3])
    broken = jnp.asarray([-1.0, -jnp.inf, -2.0, -3.0])
    np.testing.assert_array_equal(replacements(broken, jnp.zeros(4), 0.25), [0, 0, 2, 3])


@pytest.mark.parametrize("seed", range(5))
def test_permuted_members_are_replaced_alike(seed):
    """Member i of the permuted population is member order[i] of the other: so is whom it becomes."""
    keys = jax.random.split(jax.random.key(seed), 3)
    score, draws = jax.random.normal(keys[0], (10,)), jax.random.uniform(keys[1], (10,))
    order = jax.random.permutation(keys[2], 10)
    source = replacements(score, draws, 0.3)
    permuted = replacements(score[order], draws[order], 0.3)
    np.testing.assert_array_equal(order[permuted], source[order])


def test_a_copy_is_the_whole_member_and_its_meta_parameters_move_by_a_factor():
    outer = make(factors=(0.5, 2.0))
    before = newborn(outer)
    before = before._replace(metas={"gain": jnp.asarray([0.1, 0.9, 0.2, 0.3])})
    middle, metrics = stepped(outer, before, jax.random.key(1))
    assert float(metrics["copied"]) == 0.0  # the interval is two truncations
    np.testing.assert_array_equal(middle.metas["gain"], before.metas["gain"])
    after, metrics = stepped(outer, middle, jax.random.key(2))
    # Distances after two updates are (1 - gain)^2; member 0 is the worst and becomes member 1.
    assert float(metrics["copied"]) == pytest.approx(0.25)
    np.testing.assert_allclose(after.slots.state.x, [0.99, 0.99, 0.36, 0.51], rtol=1e-6)
    np.testing.assert_array_equal(after.metas["gain"][1:], before.metas["gain"][1:])
    moved = float(after.metas["gain"][0]) - 0.9  # unconstrained numbers move by log 0.5 or log 2
    assert abs(moved) == pytest.approx(np.log(2.0), rel=1e-5)
    # scores are means of minus squared distances; the copy's new meta-parameters have none yet
    np.testing.assert_allclose(after.score[:2], [-(0.9**2 + 0.81**2) / 2, -(0.1**2 + 0.01**2) / 2], rtol=1e-4)
    np.testing.assert_allclose(outer.meta_params(after)["gain"], 0.9)
    assert int(after.truncations) == 0


def test_exposed_values_move_by_the_factors_themselves():
    learner = expose(Walker(), [leaf_of(Walker(), "optimizer.learning_rate")])
    outer = make(inner=learner, population=32, interval=1, fraction=0.5, spread=0.5)
    state = newborn(outer)
    after, metrics = stepped(outer, state, jax.random.key(1))
    values = jax.vmap(learner.values_of)
    ratios = np.asarray(
        values(after.metas)["optimizer.learning_rate"][:, None]
        / values(state.metas)["optimizer.learning_rate"]
    )
    nearest = np.min([np.abs(ratios - factor).min(axis=1) for factor in (1.0, 0.8, 1.2)], axis=0)
    assert nearest.max() < 1e-5  # every member is one of the last ones, as it was or by a factor
    assert float(metrics["copied"]) > 0.3
    low, median, high = (
        metrics[f"inner/meta/optimizer.learning_rate/{at}"] for at in ("low", "median", "high")
    )
    rates = np.asarray(values(state.metas)["optimizer.learning_rate"])
    np.testing.assert_allclose([low, median, high], np.quantile(rates, [0.1, 0.5, 0.9]), rtol=1e-5)


def test_resampling_draws_from_where_the_first_members_came():
    outer = make(population=400, interval=1, fraction=0.5, spread=0.25, resample=1.0)
    after, metrics = stepped(outer, newborn(outer), jax.random.key(1))
    state = newborn(outer)
    drawn = np.asarray(after.metas["gain"][after.metas["gain"] != state.metas["gain"]])
    assert drawn.size == pytest.approx(400 * float(metrics["copied"]), abs=1)
    assert drawn.mean() == pytest.approx(0.1, abs=4 * 0.25 / np.sqrt(drawn.size))
    assert drawn.std() == pytest.approx(0.25, rel=0.2)


@pytest.mark.parametrize("seed", range(3))
def test_a_population_finds_the_optimum_and_beats_its_median_start(seed):
    """A gain of 1 is best; in lives of one update the score is minus its squared distance from it."""
    outer = make(tasks=Targets(lifetime=1), interval=1, population=16)
    states, metrics = trained(outer, 30, seed)
    gains = np.asarray(states.metas["gain"])
    first, last = -((1 - gains[0]) ** 2), -((1 - gains[-1]) ** 2)
    assert np.median(last) > np.median(first)
    assert float(outer.meta_params(jax.tree.map(lambda leaf: leaf[-1], states))["gain"]) == pytest.approx(
        1.0, abs=0.3
    )
    assert float(metrics["score_best"][-1]) >= float(metrics["score"][-1])


def test_without_exploitation_members_stay_as_they_were_born():
    outer = make(interval=100)
    states, metrics = trained(outer, 5)
    assert np.all(metrics["copied"] == 0.0)
    gains = np.asarray(states.metas["gain"])
    np.testing.assert_array_equal(gains, np.broadcast_to(gains[0], gains.shape))
    assert np.unique(gains[0]).size == 4


def test_lanes_equal_single_populations():
    one, two = make(), make(fraction=0.5, interval=1)
    lanes = jax.jit(
        jax.vmap(lambda outer: outer.step(jax.random.key(1), outer.init(jax.random.key(0)), None))
    )
    together = lanes(stack([one, two]))[0].metas["gain"]
    for index, outer in enumerate((one, two)):
        alone = stepped(outer, newborn(outer), jax.random.key(1))[0]
        np.testing.assert_allclose(together[index], alone.metas["gain"], rtol=1e-6)


def test_lives_end_and_begin_with_the_members_own_meta_parameters():
    outer = make(tasks=CountingTargets(lifetime=2), interval=100)
    states, metrics = trained(outer, 4)
    np.testing.assert_array_equal(metrics["ended"], [0.0, 1.0, 0.0, 1.0])
    np.testing.assert_array_equal(states.memory["ended"], [0, 4, 4, 8])
    gains = np.asarray(states.metas["gain"][0])
    np.testing.assert_allclose(states.slots.state.x[2], gains, rtol=1e-6)  # one update after the rebirth


def test_a_learner_without_meta_parameters_is_refused():
    with pytest.raises(ContractError, match=r"Walker has no meta-parameters.*inner\.meta"):
        check_outer(make(inner=Walker()))


def test_it_keeps_the_contract():
    check_outer(make())
    check_outer(make(tasks=CountingTargets()))
