from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metalab.components import as_arrays
from metalab.contracts import check_outer
from metalab.optimizers import Adam, Sgd
from outer_loops.evolution_strategy import EvolutionStrategy, _finite
from tests.outer_loops.lanes import check_lanes_equal_single_runs
from tests.toys import Chaser, CountingTargets, Targets


def make(**changes) -> EvolutionStrategy:
    settings: dict = {
        "inner": Chaser(),
        "tasks": Targets(lifetime=1),
        "population": 2,
        "sigma": 0.5,
        "optimizer": Sgd(learning_rate=1.0),
        "max_lifetime": 1,
    }
    return as_arrays(EvolutionStrategy(**(settings | changes)))


@jax.jit
def one_step(es: EvolutionStrategy):
    """The state and metrics after one step from birth, and the gain that the mean has then."""
    state, metrics = es.step(jax.random.key(1), es.init(jax.random.key(0)), None)
    return state, metrics, es.meta_params(state)["gain"]


def gain_after_one_step(es: EvolutionStrategy) -> float:
    return float(one_step(es)[2])


@jax.jit
def fitness_of(es: EvolutionStrategy, gains: jax.Array, mean: float) -> tuple[jax.Array, jax.Array]:
    """Fitness [N] of members with these gains, and that of a mean."""
    fitness, score, _ = es._fitness(jax.random.key(3), {"gain": gains}, {"gain": jnp.asarray(mean)}, ())
    return fitness, score


def test_one_pair_is_the_hand_computed_antithetic_step() -> None:
    # One update towards a target of 1: fitness of gain g is -(1 - g)^2. With the pair g +- s z around
    # g = 0.1 and minimised fitness F = -fitness, the gradient of Salimans et al. is
    #   sum_i F_i z_i / (N s) = [(1 - g - s z)^2 - (1 - g + s z)^2] z / (2 s) = -2 (1 - g) z^2,
    # so plain descent with rate r moves g by 2 r (1 - g) z^2 = 1.8 r z^2.
    raw = gain_after_one_step(make(fitness_shaping="raw", optimizer=Sgd(learning_rate=0.25)))
    z_squared = (raw - 0.1) / (0.25 * 1.8)
    # Ranks replace F by -0.5 for the better and +0.5 for the worse, here z > 0 is the better:
    #   [-0.5 z - 0.5 z] / (2 s) = -z / (2 s) = -z: the mean moves by r |z| towards the better member.
    ranked = gain_after_one_step(make(optimizer=Sgd(learning_rate=0.25)))
    assert z_squared > 0
    np.testing.assert_allclose(ranked - 0.1, 0.25 * np.sqrt(z_squared), rtol=1e-4)


def test_pairwise_ranks_equal_centred_ranks_for_one_pair() -> None:
    assert gain_after_one_step(make(fitness_shaping="pairwise_rank")) == pytest.approx(
        gain_after_one_step(make(fitness_shaping="centered_rank")), rel=1e-5
    )


def test_a_member_that_is_not_finite_counts_as_the_worst() -> None:
    fitness = jnp.asarray([1.0, jnp.nan, -3.0, -jnp.inf])
    np.testing.assert_array_equal(_finite(fitness), [1.0, -3.0, -3.0, -3.0])
    np.testing.assert_array_equal(_finite(jnp.full((3,), jnp.nan)), np.zeros(3))


@pytest.mark.parametrize("strategy", ["Open_ES", "PGPE", "ARS", "SNES"])
def test_every_strategy_finds_the_best_gain(strategy: str) -> None:
    snes = strategy == "SNES"  # moves its mean by recombination: rate 1, no antithetic pairs
    es = make(
        strategy=strategy,
        tasks=Targets(spread=0.5, lifetime=3),
        inner=Chaser(gain=-0.2),
        max_lifetime=3,
        population=16,
        num_tasks=2,
        sigma=0.1,
        optimizer=Sgd(learning_rate=1.0) if snes else Adam(learning_rate=0.05),
        share="population" if snes else "pair",
    )
    state, metrics = run(es, 60)
    # A gain of 1 is perfect and scores 0; the learner begins at -(1.2^3)^2 = -2.99 on a target of 1.
    assert abs(float(es.meta_params(state)["gain"]) - 1.0) < 0.35
    assert metrics["score"][0] < -1.0
    assert metrics["score"][-5:].mean() > -0.1


def run(es: EvolutionStrategy, steps: int, seed: int = 0):
    @jax.jit
    def go(es: EvolutionStrategy, key: jax.Array):
        state = es.init(key)

        def body(state, key):
            return es.step(key, state, None)

        return jax.lax.scan(body, state, jax.random.split(key, steps))

    return go(es, jax.random.key(seed))


def test_members_of_a_pair_share_tasks_and_noise() -> None:
    # With a population spread of nothing a pair's members are equal, and so must be their noisy lives:
    # every difference in fitness lies between pairs.
    es = make(population=6, sigma=1e-20, inner=Chaser(noise=1.0), tasks=Targets(spread=0.5))
    fitness, score = fitness_of(es, jnp.full((6,), 0.1), 0.1)
    plus, minus = np.split(np.asarray(fitness), 2)
    np.testing.assert_array_equal(plus, minus)
    assert len(np.unique(plus)) == 3
    assert score not in plus  # the mean lives on tasks of its own


def test_a_shared_population_lives_one_life() -> None:
    es = make(population=6, inner=Chaser(noise=1.0), tasks=Targets(spread=0.5), share="population")
    fitness, score = fitness_of(es, jnp.full((6,), 0.1), 0.1)
    np.testing.assert_array_equal(np.asarray(fitness), np.full(6, float(score)))


def test_members_keep_their_place_in_the_grid() -> None:
    gains = jnp.asarray([0.0, 0.1, 0.2, 0.3])
    for share in ("pair", "population"):
        es = make(population=4, share=share)
        fitness, score = fitness_of(es, gains, 1.0)
        np.testing.assert_allclose(fitness, -np.square(1.0 - np.asarray(gains)), rtol=1e-6)
        assert float(score) == 0.0


def test_lives_end_when_the_task_says() -> None:
    # 3 updates at gain 0.5 leave 0.5^3 of the way: -(0.125)^2, whatever the unrolled length is.
    es = make(tasks=Targets(lifetime=3), max_lifetime=8)
    fitness, _ = fitness_of(es, jnp.asarray([0.5, 0.5]), 0.5)
    np.testing.assert_allclose(fitness, -(0.125**2), rtol=1e-6)


def test_score_over_life_is_the_mean_of_the_living_segments() -> None:
    # A life of 3 updates in segments of 2: evaluated after updates 2 and 3, dead in the last two segments.
    es = make(tasks=Targets(lifetime=3), max_lifetime=8, segments=4, score_over="life")
    fitness, _ = fitness_of(es, jnp.asarray([0.5, 0.5]), 0.5)
    np.testing.assert_allclose(fitness, -(0.25**2 + 0.125**2) / 2, rtol=1e-6)
    at_end = make(tasks=Targets(lifetime=3), max_lifetime=8, segments=4)
    last, _ = fitness_of(at_end, jnp.asarray([0.5, 0.5]), 0.5)
    np.testing.assert_allclose(last, -(0.125**2), rtol=1e-6)


def test_a_generation_that_overflows_leaves_the_mean_finite() -> None:
    es = make(population=8, sigma=0.05, inner=Chaser(gain=1e30), tasks=Targets(lifetime=4), max_lifetime=4)
    _, metrics, gain = one_step(es)
    assert float(metrics["broken"]) == 1.0  # (1e30)^4 overflows for every member
    assert np.isfinite(float(gain))
    assert np.isfinite(float(metrics["fitness_mean"]))


def test_adaptive_tasks_hear_of_every_lifetime() -> None:
    es = make(population=4, num_tasks=3, tasks=CountingTargets(lifetime=1))
    state, _, _ = one_step(es)
    # 2 pairs and the mean, 3 tasks each; a ticket is worth 2.
    assert int(state.memory["ended"]) == 9
    assert float(state.memory["tickets"]) == 18.0
    assert float(state.memory["scores"]) < 0.0


def test_the_jitted_step_compiles_once() -> None:
    es = make(population=4)
    traces = []

    @jax.jit
    def step(es, key, state):
        traces.append(1)
        return es.step(key, state, None)

    state = jax.jit(lambda es, key: es.init(key))(es, jax.random.key(0))
    for number in range(3):
        state, _ = step(es, jax.random.key(number), state)
    assert len(traces) == 1
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(state))


@pytest.mark.slow
def test_lanes_equal_single_runs() -> None:
    check_lanes_equal_single_runs([make(population=8, sigma=s, inner=Chaser(noise=0.1)) for s in (0.1, 0.3)])


def test_it_keeps_the_contract() -> None:
    check_outer(make(population=4))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"population": 3}, "population: Open_ES needs an even number, got 3"),
        ({"strategy": "SNES"}, "share: population"),
        ({"max_lifetime": 8, "segments": 3}, "segments: 3 does not divide max_lifetime 8"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**changes)
