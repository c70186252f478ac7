from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array
from jax.flatten_util import ravel_pytree

from metalab.components import as_arrays, component, number
from metalab.contracts import ContractError, check_outer
from metalab.optimizers import Adam, Sgd
from metalab.protocols import Evaluation, PyTree, StepOut, Task
from outer_loops.persistent_evolution import PersistentEvolution, PersistentState
from tests.outer_loops.lanes import check_lanes_equal_single_runs
from tests.toys import Chaser, CountingTargets, Targets


class Debt(NamedTuple):
    """A learner's state: what it has to pay back."""

    owed: Array


@component
class Borrower:
    """A learner that gains at once from borrowing and pays for it as long as it lives.

    Update t, with ``push`` and ``aim`` the meta-parameters and y what is owed before it:
    ``r = push - interest y - (push + aim_0 - 1)^2 / 8 + aim_1 y / 10``, then ``y <- keep y + push + data``.
    """

    keep: float = number(0.5, doc="share of the debt that stays")
    interest: float = number(2.0, doc="paid at every update on what is owed")

    def init_meta(self, key: Array) -> PyTree:
        del key
        return {"aim": jnp.asarray([0.2, -0.3], float), "push": jnp.asarray(0.4, float)}

    def init(self, key: Array, meta: PyTree, task: Task) -> Debt:
        del key, task
        return Debt(0.1 * meta["aim"][0])  # a birth that depends on the meta-parameters

    def step(self, key: Array, meta: PyTree, state: Debt, batch: PyTree) -> tuple[Debt, StepOut]:
        del key
        push, (first, second) = meta["push"], meta["aim"]
        reward = push - self.interest * state.owed - jnp.square(push + first - 1.0) / 8.0
        reward += second * state.owed / 10.0
        owed = self.keep * state.owed + push + (0.0 if batch is None else batch)
        return Debt(owed), StepOut({"owed": owed}, aux=reward)

    def evaluate(
        self, key: Array, meta: PyTree, state: Debt, outs: StepOut, batch: PyTree
    ) -> tuple[Debt, Evaluation]:
        del key, meta, batch
        total = jnp.sum(outs.aux)
        return state, Evaluation(-total, total, {"owed": state.owed})


LIFE = 4


def make(**changes) -> PersistentEvolution:
    settings: dict = {
        "inner": Borrower(),
        "tasks": Targets(lifetime=LIFE),
        "truncation": 1,
        "num_pairs": 4,
        "sigma": 0.1,
        "optimizer": Sgd(learning_rate=0.1),
        "stagger": False,
    }
    return as_arrays(PersistentEvolution(**(settings | changes)))


born = jax.jit(lambda outer, key: outer.init(key))
step = jax.jit(lambda outer, key, state, data: outer.step(key, state, data))
estimate = jax.jit(lambda outer, key, state, data: outer.estimate(key, state, data))


def exact_gradient(inner: Borrower, meta: PyTree) -> PyTree:
    """Of minus the sum of rewards of a whole life."""

    def loss(meta: PyTree) -> Array:
        state = inner.init(jax.random.key(0), meta, Targets().sample(jax.random.key(0)))
        total = jnp.zeros(())
        for _ in range(LIFE):
            state, out = inner.step(jax.random.key(0), meta, state, None)
            total += out.aux
        return -total

    return jax.grad(loss)(meta)


def life_estimates(outer: PersistentEvolution, count: int, forget: bool = False) -> np.ndarray:
    """[count, D] estimates over a whole life, theta at rest; ``forget``: without the sum of perturbations."""

    @jax.jit
    @jax.vmap
    def one(key: Array) -> Array:
        state = outer.init(key)

        def body(state: PersistentState, key: Array) -> tuple[PersistentState, PyTree]:
            gradient, state, _ = outer.estimate(key, state, None)
            kept = jnp.zeros_like(state.perturbation) if forget else state.perturbation
            return state._replace(perturbation=kept), gradient

        # The first life is born of theta itself, the second of its members: that one counts.
        keys = jax.random.split(key, (2, LIFE // outer.truncation))
        state, _ = jax.lax.scan(body, state, keys[0])
        _, gradients = jax.lax.scan(body, state, keys[1])
        summed = jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), gradients)
        return ravel_pytree(summed)[0]

    return np.asarray(one(jax.random.split(jax.random.key(0), count)))


@pytest.mark.slow
@pytest.mark.parametrize("truncation", [1, 2])
def test_the_estimate_of_a_life_is_unbiased_where_that_of_truncations_is_not(truncation: int) -> None:
    # Rewards are quadratic in the perturbations, and smoothing by a Gaussian moves a quadratic by a constant:
    # the expectation is the exact gradient whatever sigma is.
    outer = make(truncation=truncation, num_pairs=4, sigma=0.3)
    meta = outer.inner.init_meta(jax.random.key(0))
    exact = np.asarray(ravel_pytree(exact_gradient(Borrower(), meta))[0])
    estimates = life_estimates(outer, 4000)
    error = estimates.std(axis=0, ddof=1) / np.sqrt(len(estimates))
    assert (np.abs(estimates.mean(axis=0) - exact) < 4.0 * error).all(), (
        estimates.mean(axis=0),
        exact,
        error,
    )
    assert error.max() < 0.1 * np.abs(exact).max()
    # What a plain evolution strategy over truncations follows: the debt is invisible at first.
    blind = life_estimates(outer, 4000, forget=True).mean(axis=0)
    assert exact[2] > 2.0  # pushing costs, ...
    assert blind[2] < exact[2] - 1.0
    if truncation == 1:
        assert blind[2] < 0.0  # ... and looks like a gain


def test_it_finds_what_truncated_evolution_runs_away_from() -> None:
    outer = make(num_pairs=64, stagger=True, optimizer=Adam(learning_rate=0.02))

    @jax.jit
    def train(key: Array):
        keys = jax.random.split(key, 150)
        return jax.lax.scan(lambda state, key: outer.step(key, state, None), outer.init(key), keys)

    state, metrics = train(jax.random.key(0))
    assert float(outer.meta_params(state)["push"]) < 0.0  # it began at 0.4; the truncated gradient points up
    assert metrics["score"][-20:].mean() > metrics["score"][:20].mean() + 0.5


def test_perturbations_add_up_over_a_life_and_begin_anew_with_the_next() -> None:
    outer = make(truncation=2, num_pairs=3)
    state, noises = born(outer, jax.random.key(0)), []
    keys = jax.random.split(jax.random.key(1), 3)
    sums = []
    for key in keys:
        draw_key, _ = jax.random.split(key)
        noises.append(0.1 * jax.random.normal(draw_key, (3, 3)))
        _, state, _ = estimate(outer, key, state, None)
        sums.append(state.perturbation)
    np.testing.assert_allclose(sums[0], noises[0], rtol=1e-6)
    np.testing.assert_allclose(sums[1], noises[0] + noises[1], rtol=1e-5)
    np.testing.assert_allclose(sums[2], noises[2], rtol=1e-6)


def test_one_truncation_is_the_hand_computed_step() -> None:
    # One update of a chaser with gain g = 0.1 towards 1: L = (1 - g)^2. For a pair g +- e,
    #   L+ - L- = -4 (1 - g) e, and g_hat = e (L+ - L-) / (2 sigma^2) = -2 (1 - g) e^2 / sigma^2.
    outer = make(inner=Chaser(), tasks=Targets(lifetime=1), num_pairs=1, optimizer=Sgd(learning_rate=1.0))
    key = jax.random.key(3)
    state, _ = step(outer, key, born(outer, jax.random.key(0)), None)
    noise = 0.1 * float(jax.random.normal(jax.random.split(key)[0], (1, 1))[0, 0])
    expected = 0.1 + 2.0 * 0.9 * noise**2 / 0.1**2
    assert float(outer.meta_params(state)["gain"]) == pytest.approx(expected, rel=1e-4)


def test_a_loss_is_minimised_and_a_score_maximised() -> None:
    of_score, of_loss = make(inner=Chaser()), make(inner=Chaser(), objective="loss")  # its loss is -score
    state = born(of_score, jax.random.key(0))
    first, _, _ = estimate(of_score, jax.random.key(1), state, None)
    second, _, _ = estimate(of_loss, jax.random.key(1), state, None)
    np.testing.assert_allclose(first["gain"], second["gain"], rtol=1e-6)
    assert float(first["gain"]) < 0.0  # a higher gain is better


def test_a_pair_lives_on_one_task_with_the_same_noise() -> None:
    outer = make(inner=Chaser(noise=1.0), tasks=Targets(spread=0.5, lifetime=2), sigma=1e-20, num_pairs=3)
    state = born(outer, jax.random.key(0))
    for index in range(3):  # two truncations and a rebirth
        _, state, metrics = estimate(outer, jax.random.key(index), state, None)
        assert float(metrics["pair_difference"]) < 1e-6  # rounding alone; the noise of a life is about 1
    assert len(np.unique(state.slots.state.x)) == 3
    assert len(np.unique(state.slots.state.target)) == 3


def test_first_ages_are_spread_and_a_pair_keeps_one_age() -> None:
    outer = make(inner=Chaser(), tasks=Targets(lifetime=50), num_pairs=16, stagger=True)
    state = born(outer, jax.random.key(0))
    assert len(np.unique(state.slots.age[:, 0])) > 5
    for index in range(3):
        state, _ = step(outer, jax.random.key(index), state, None)
        np.testing.assert_array_equal(state.slots.age[:, 0], state.slots.age[:, 1])


def test_a_pair_that_overflows_is_left_out_and_reborn() -> None:
    outer = make(inner=Chaser(gain=1e30), tasks=Targets(lifetime=50), truncation=4, sigma=0.05)
    state, metrics = step(outer, jax.random.key(1), born(outer, jax.random.key(0)), None)
    assert float(metrics["broken"]) == 1.0
    assert float(metrics["meta_grad_norm"]) == 0.0
    assert all(np.isfinite(value) for value in metrics.values())
    assert float(outer.meta_params(state)["gain"]) == np.float32(1e30)
    np.testing.assert_array_equal(state.slots.age, state.slots.lifetime)
    _, again, _ = estimate(outer, jax.random.key(2), state, None)
    # Newborn: its sum is this truncation's noise alone.
    noise = 0.05 * jax.random.normal(jax.random.split(jax.random.key(2))[0], (4, 1))
    np.testing.assert_allclose(again.perturbation, noise, rtol=1e-6)


def test_adaptive_tasks_hear_of_a_pair_once() -> None:
    outer = make(inner=Chaser(), tasks=CountingTargets(lifetime=2), num_pairs=3)
    state = born(outer, jax.random.key(0))
    state, _ = step(outer, jax.random.key(0), state, None)
    state, metrics = step(outer, jax.random.key(1), state, None)
    assert int(state.memory["ended"]) == 3
    assert float(state.memory["tickets"]) == 6.0
    assert float(metrics["ended"]) == 1.0


def test_both_members_read_the_same_data() -> None:
    outer = make(truncation=2, num_pairs=3, sigma=1e-20)
    data = jnp.asarray([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]])
    state, _ = step(outer, jax.random.key(1), born(outer, jax.random.key(0)), data)
    # owed: 0.02, then 0.01 + 0.4 + data, then half of that + 0.4
    expected = 0.5 * (0.41 + data[:, 0]) + 0.4
    np.testing.assert_allclose(state.slots.state.owed, jnp.stack([expected, expected], 1), rtol=1e-5)


def test_the_jitted_step_compiles_once() -> None:
    outer = make(inner=Chaser(), stagger=True)
    once = jax.jit(outer.step)
    state = born(outer, jax.random.key(0))
    for index in range(3):
        state, _ = once(jax.random.key(index), state, None)
    assert once._cache_size() == 1  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.slow
def test_lanes_equal_single_runs() -> None:
    check_lanes_equal_single_runs(
        [make(sigma=sigma, inner=Chaser(noise=0.1), stagger=True) for sigma in (0.1, 0.3)]
    )


def test_it_keeps_the_contract_and_refuses_a_loss_that_is_not_there() -> None:
    check_outer(make())
    check_outer(make(inner=Chaser(differentiable=False)))
    with pytest.raises(ContractError, match="Chaser has no outer loss; set objective: score"):
        check_outer(make(inner=Chaser(differentiable=False), objective="loss"))
