"""Mixed-mode differentiation against reverse mode, finite differences and formulas, in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metalab.gradients import MODES, differentiate_in, inner_grad
from metalab.optimizers import Adam, Sgd

N, WIDTH, STEPS = 5, 4, 3


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def problem() -> dict[str, Any]:
    """Examples, an outer set, a small network and a rater; integer labels among the arguments."""
    keys = jax.random.split(jax.random.key(0), 6)
    return {
        "x": jax.random.normal(keys[0], (STEPS, N, WIDTH)),
        "label": jax.random.randint(keys[1], (STEPS, N), 0, 3),
        "outer": jax.random.normal(keys[2], (N, WIDTH)),
        "params": {"w": jax.random.normal(keys[3], (WIDTH, 6)), "v": jax.random.normal(keys[4], (6, 3))},
        "eta": jax.random.normal(keys[5], (WIDTH,)),
    }


def losses(params: Any, x: jax.Array, label: jax.Array) -> jax.Array:
    """[N] cross entropies."""
    logits = jnp.tanh(x @ params["w"]) @ params["v"]
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), label[:, None], axis=1)[:, 0]


def weighted(params: Any, weights: jax.Array, x: jax.Array, label: jax.Array) -> jax.Array:
    return weights @ losses(params, x, label)


def outer_loss(params: Any, given: dict[str, Any]) -> jax.Array:
    return jnp.mean(losses(params, given["outer"], jnp.zeros(N, int)))


def after_training(eta: jax.Array, given: dict[str, Any], optimizer: optax.GradientTransformation) -> Any:
    """The network after ``STEPS`` weighted updates, rematerialised as an outer loop does it."""

    @jax.checkpoint
    def body(carry: Any, batch: Any) -> tuple[Any, None]:
        params, state = carry
        gradient = inner_grad(weighted)(params, jax.nn.softmax(batch[0] @ eta), *batch)
        updates, state = optimizer.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), None

    start = (given["params"], optimizer.init(given["params"]))
    return jax.lax.scan(body, start, (given["x"], given["label"]))[0][0]


def meta_loss(optimizer: Any) -> Callable[[jax.Array], jax.Array]:
    given = problem()
    return lambda eta: outer_loss(after_training(eta, given, optimizer.make()), given)


@pytest.mark.parametrize(
    "optimizer",
    [
        pytest.param(Sgd(learning_rate=0.3), marks=pytest.mark.slow),
        Adam(learning_rate=0.1, eps_root=1e-8),
    ],
)
def test_mixed_mode_is_reverse_mode_and_the_slope(optimizer) -> None:
    loss, eta = meta_loss(optimizer), problem()["eta"]
    found = {}
    for mode in MODES:
        with differentiate_in(mode):
            found[mode] = jax.jit(jax.grad(loss))(eta)
    np.testing.assert_allclose(found["mixed"], found["reverse"], rtol=1e-10)
    small, run = 1e-5, jax.jit(loss)
    slope = [(run(eta + small * e) - run(eta - small * e)) / (2 * small) for e in jnp.eye(WIDTH)]
    np.testing.assert_allclose(found["mixed"], slope, rtol=1e-5, atol=1e-9)


def test_the_meta_gradient_of_one_sgd_step_has_a_formula() -> None:
    # d L(theta') / d phi_i = -a w_i v . (g_i - sum_j w_j g_j) with v = grad L(theta'), w = softmax(phi).
    given, rate = problem(), 0.3
    params, x, label = given["params"], given["x"][0], given["label"][0]

    def updated(phi: jax.Array) -> Any:
        gradient = inner_grad(weighted)(params, jax.nn.softmax(phi), x, label)
        return jax.tree.map(lambda p, g: p - rate * g, params, gradient)

    phi = x @ given["eta"]
    found = jax.grad(lambda phi: outer_loss(updated(phi), given))(phi)
    weights, v = jax.nn.softmax(phi), jax.grad(outer_loss)(updated(phi), given)
    each = jax.vmap(jax.grad(lambda p, *one: losses(p, *(leaf[None] for leaf in one))[0]), (None, 0, 0))
    aligned = sum(
        jnp.sum(a * b, axis=(-2, -1))
        for a, b in zip(jax.tree.leaves(each(params, x, label)), jax.tree.leaves(v), strict=True)
    )
    np.testing.assert_allclose(found, -rate * weights * (aligned - weights @ aligned), rtol=1e-12)
    # The same numbers from one forward-mode product of the losses along v: no second derivative at all.
    _, along = jax.jvp(lambda p: losses(p, x, label), (params,), (v,))
    np.testing.assert_allclose(found, -rate * weights * (along - weights @ along), rtol=1e-12)


def closed_over(eta: jax.Array, inside_scan: bool) -> jax.Array:
    def body(theta: jax.Array, _: Any) -> tuple[jax.Array, None]:
        return theta - 0.1 * inner_grad(lambda theta: jnp.sum(eta * theta**2))(theta), None

    start = jnp.ones(3)
    theta = jax.lax.scan(body, start, None, length=2)[0] if inside_scan else body(start, None)[0]
    return jnp.sum(theta**2)


@pytest.mark.parametrize("inside_scan", [False, True])
def test_a_closed_over_meta_parameter_is_refused_in_words(inside_scan) -> None:
    with pytest.raises(TypeError, match=r"closes over.*make it an argument"), differentiate_in("mixed"):
        jax.grad(closed_over)(jnp.asarray(2.0), inside_scan)
    # theta' = (1 - 0.2 eta)^n; d sum theta'^2 / d eta = 3 * 2n (1 - 0.2 eta)^(2n - 1) * -0.2.
    updates = 2 if inside_scan else 1
    with differentiate_in("reverse"):
        slope = jax.grad(closed_over)(jnp.asarray(2.0), inside_scan)
    np.testing.assert_allclose(slope, 3 * 2 * updates * 0.6 ** (2 * updates - 1) * -0.2)


def test_other_errors_inside_keep_their_own_words() -> None:
    with pytest.raises(TypeError, match="unsupported operand"), differentiate_in("mixed"):
        _ = 1 + None  # pyright: ignore[reportOperatorIssue]
