"""Every evosax strategy: found by name, set up as promised, or refused with a reason."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from evosax.algorithms.distribution_based import distribution_based_algorithms
from jax import Array

from metalab.components import as_arrays, component, number, static
from metalab.contracts import ContractError, check_outer
from metalab.optimizers import Adam, Sgd
from metalab.protocols import Evaluation, PyTree, StepOut, Task
from outer_loops.evolution_strategy import EvolutionStrategy
from outer_loops.strategies import REFUSED, TRAITS
from tests.toys import Targets

SIGMA = 0.1


@component
class Bowl:
    """It does not learn: its score is minus the squared distance of its meta-parameters from 1."""

    size: int = static(6, doc="meta-parameters", at_least=1)
    start: float = number(0.0, doc="of each meta-parameter")
    steepness: float = number(1.0, doc="factor on the score")
    noise: float = number(0.0, doc="standard deviation of the score")

    def init_meta(self, key: Array) -> PyTree:
        del key
        return {"w": jnp.full(self.size, self.start)}

    def init(self, key: Array, meta: PyTree, task: Task) -> Array:
        del key, meta
        return task.params

    def step(self, key: Array, meta: PyTree, state: Array, batch: PyTree) -> tuple[Array, StepOut]:
        del key, meta, batch
        return state, StepOut({})

    def evaluate(
        self, key: Array, meta: PyTree, state: Array, outs: StepOut, batch: PyTree
    ) -> tuple[Array, Evaluation]:
        del outs, batch
        score = -self.steepness * jnp.sum(jnp.square(meta["w"] - 1.0))
        return state, Evaluation(None, score + self.noise * jax.random.normal(key), {})


def make(strategy: str, **changes: Any) -> EvolutionStrategy:
    traits = TRAITS.get(strategy)
    recombines = traits is not None and not traits.shaped  # a rate of 1 is recombination itself
    settings: dict[str, Any] = {
        "inner": Bowl(),
        "tasks": Targets(lifetime=1),
        "strategy": strategy,
        "population": 16,
        "sigma": SIGMA,
        "optimizer": Sgd(learning_rate=1.0) if recombines else Adam(learning_rate=0.1),
        "share": "population",
        "max_lifetime": 1,
    }
    return as_arrays(EvolutionStrategy(**(settings | changes)))


@jax.jit
def trained(es: EvolutionStrategy, keys: Array) -> tuple[PyTree, dict[str, Array]]:
    state = es.init(jax.random.key(0))
    state, metrics = jax.lax.scan(lambda state, key: es.step(key, state, None), state, keys)
    return es.meta_params(state)["w"], metrics


def run(es: EvolutionStrategy, generations: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The mean [D] at the end, and metrics ``[generations]``."""
    mean, metrics = trained(es, jax.random.split(jax.random.key(1), generations))
    return np.asarray(mean), {name: np.asarray(values) for name, values in metrics.items()}


def test_no_strategy_of_evosax_is_forgotten() -> None:
    assert set(distribution_based_algorithms) == set(TRAITS) | set(REFUSED)
    assert not set(TRAITS) & set(REFUSED)


@pytest.mark.parametrize("strategy", TRAITS)
def test_every_strategy_keeps_the_contract(strategy: str) -> None:
    check_outer(make(strategy, inner=Bowl(size=20)))  # a weakly typed or changing leaf is named


@pytest.mark.slow
@pytest.mark.parametrize("strategy", TRAITS)
def test_every_strategy_begins_at_sigma_and_maximises(strategy: str) -> None:
    size = 16 if strategy == "LM_MA_ES" else 6
    mean, metrics = run(make(strategy, inner=Bowl(size=size)), 60)
    # 16 members by 6 coordinates scatter by 7 %; ESMC's two members at the mean take 6 % off, CR_FM_NES adds
    # its first direction (8 %).
    assert metrics["spread"][0] == pytest.approx(SIGMA, rel=0.2)
    assert metrics["score"][0] == pytest.approx(-size, rel=1e-6)  # minus the squared distance of 0 from 1
    assert metrics["score"][-5:].mean() > -0.2 * size
    assert np.abs(mean - 1.0).mean() < 0.45


@pytest.mark.parametrize("strategy", REFUSED)
def test_what_does_not_fit_is_refused_with_a_remedy(strategy: str) -> None:
    with pytest.raises(ValueError, match=rf"strategy: {strategy} .*take "):
        make(strategy)


@pytest.mark.parametrize(
    ("strategy", "changes", "message"),
    [
        ("CMA", {}, "'CMA' is unknown; choose one of Open_ES"),
        ("CMA_ES", {"population": 2}, "population: CMA_ES needs at least 4 members, got 2"),
        ("CMA_ES", {"share": "pair"}, "CMA_ES draws no antithetic pairs; set share: population"),
        ("CMA_ES", {"fitness_shaping": "raw"}, "weighs its members by rank itself; set fitness_shaping: own"),
        ("CR_FM_NES", {"population": 7}, "population: CR_FM_NES needs an even number, got 7"),
        ("ESMC", {"fitness_shaping": "pairwise_rank"}, "ESMC has no pairs to rank"),
        ("PGPE", {"sigma_decay": 0.9}, "PGPE adapts its sigma itself; leave out sigma_decay"),
        ("Open_ES", {"sigma_min": 0.1}, "sigma_min: sigma does not decay without sigma_decay"),
    ],
)
def test_settings_that_do_not_fit_a_strategy_are_refused(
    strategy: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make(strategy, **changes)


@pytest.mark.parametrize(
    ("strategy", "size", "message"),
    [
        ("CMA_ES", 501, "501 meta-parameters are more than the 500 .*take Sep_CMA_ES"),
        ("EvoTF_ES", 501, "features of 100 generations"),
        ("LM_MA_ES", 15, "at least as many meta-parameters as members, got 15 and 16; take CMA_ES"),
    ],
)
def test_a_strategy_is_refused_where_the_parameters_are_too_many_or_few(
    strategy: str, size: int, message: str
) -> None:
    with pytest.raises(ContractError, match=message):
        check_outer(make(strategy, inner=Bowl(size=size)))


def test_sigma_decays_to_its_floor() -> None:
    decaying = make("Open_ES", inner=Bowl(size=200), population=64, sigma_decay=0.5, sigma_min=0.03)
    _, metrics = run(decaying, 4)
    # 6400 independent coordinates (the other half are their mirrors) scatter by 0.9 %.
    np.testing.assert_allclose(metrics["spread"], [0.1, 0.05, 0.03, 0.03], rtol=0.04)


def test_a_decay_of_one_changes_nothing() -> None:
    plain, _ = run(make("Open_ES"), 4)
    decayed, _ = run(make("Open_ES", sigma_decay=1.0, sigma_min=1e-9), 4)
    np.testing.assert_allclose(plain, decayed, rtol=1e-6)


def test_weight_decay_acts_on_the_mean_and_not_on_the_fitness() -> None:
    # On a flat fitness all ranks tie, the gradient is exactly zero, and rate x decay is what is left.
    flat = make(
        "Open_ES",
        inner=Bowl(steepness=0.0, start=2.0),
        optimizer=Adam(learning_rate=0.1, weight_decay=0.5),
    )
    mean, metrics = run(flat, 4)
    np.testing.assert_allclose(mean, 2.0 * 0.95**4, rtol=1e-5)
    np.testing.assert_array_equal(metrics["fitness_std"], 0.0)


def test_the_learning_rate_decays_with_the_generations() -> None:
    # The same flat fitness: after n steps of rate 0.1 x 0.5^n, none below a quarter of 0.1.
    optimizer = Adam(learning_rate=0.1, weight_decay=0.5, decay_rate=0.5, final_fraction=0.25)
    mean, _ = run(make("Open_ES", inner=Bowl(steepness=0.0, start=2.0), optimizer=optimizer), 4)
    factors = 1.0 - 0.5 * 0.1 * np.asarray([1.0, 0.5, 0.25, 0.25])
    np.testing.assert_allclose(mean, 2.0 * factors.prod(), rtol=1e-5)


def test_the_mean_is_returned_and_not_the_luckiest_member() -> None:
    # The mean rests; scores are noise, and the best member is far away.
    es = make("Open_ES", optimizer=Sgd(learning_rate=1e-12), sigma=1.0, inner=Bowl(noise=100.0))
    state = jax.jit(es.init)(jax.random.key(0))
    state, _ = jax.jit(es.step)(jax.random.key(1), state, None)
    np.testing.assert_allclose(es.meta_params(state)["w"], 0.0, atol=1e-6)
    assert np.abs(state.search.best_solution).max() > 0.5


def test_two_generations_compile_once() -> None:
    es = make("SNES")  # evosax begins it with Python numbers
    step = jax.jit(es.step)
    state = jax.jit(es.init)(jax.random.key(0))
    for index in range(2):
        state, _ = step(jax.random.key(index), state, None)
    assert step._cache_size() == 1  # pyright: ignore[reportAttributeAccessIssue]
