from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metalab.components import as_arrays
from metalab.optimizers import Adam, OptimizerSettings, Sgd
from metalab.trees import lane, stack

PARAMS = {"w": jnp.asarray([0.5, -1.0]), "b": jnp.asarray(2.0)}
GRADIENTS = [
    {"w": jnp.asarray([0.3, -0.2]), "b": jnp.asarray(1.5)},
    {"w": jnp.asarray([-0.1, 0.4]), "b": jnp.asarray(0.5)},
    {"w": jnp.asarray([0.2, 0.0]), "b": jnp.asarray(-0.7)},
]


def first_update(settings: OptimizerSettings, gradient: Any) -> Any:
    """What the first step adds to the parameters (their value matters to no optimiser here)."""
    optimizer = settings.make()
    return optimizer.update(gradient, optimizer.init(gradient), gradient)[0]


def follow(optimizer: optax.GradientTransformation, gradients=GRADIENTS):
    """The parameters after every step."""
    params, state, path = PARAMS, optimizer.init(PARAMS), []
    for gradient in gradients:
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        path.append(params)
    return path


def test_sgd_is_optax_sgd() -> None:
    chex.assert_trees_all_close(follow(Sgd(learning_rate=0.1).make()), follow(optax.sgd(0.1)), rtol=1e-6)


def test_adam_is_optax_adam_and_adamw() -> None:
    ours = Adam(learning_rate=0.01, b1=0.8, b2=0.95, eps=1e-6)
    chex.assert_trees_all_close(
        follow(ours.make()), follow(optax.adam(0.01, b1=0.8, b2=0.95, eps=1e-6)), rtol=1e-5
    )
    decayed = Adam(learning_rate=0.01, weight_decay=0.1)
    chex.assert_trees_all_close(
        follow(decayed.make()), follow(optax.adamw(0.01, weight_decay=0.1)), rtol=1e-5
    )


def test_the_first_step_of_adam_is_the_rate() -> None:
    # m / sqrt(v) = g / |g| after the corrections of bias: every coordinate moves by the rate.
    first = follow(Adam(learning_rate=0.01).make(), GRADIENTS[:1])[0]
    np.testing.assert_allclose(first["w"], [0.5 - 0.01, -1.0 + 0.01], rtol=1e-5)


def test_differentiable_adam_takes_the_steps_of_adam() -> None:
    # eps stands inside the root (sqrt(v + eps^2)): equal to eps outside up to eps^2.
    chex.assert_trees_all_close(
        follow(Adam(learning_rate=0.01, differentiable=True).make()), follow(optax.adam(0.01)), rtol=1e-5
    )


def test_differentiable_adam_has_a_finite_derivative_at_a_gradient_of_zero() -> None:
    def after(scale: jax.Array, differentiable: bool) -> jax.Array:
        # The second coordinate's gradient is exactly zero and depends on the scale.
        gradient = scale * jnp.asarray([1.0, 0.0])
        return jnp.sum(first_update(Adam(learning_rate=0.1, differentiable=differentiable), gradient))

    assert np.isfinite(jax.grad(after)(jnp.asarray(2.0), True))
    assert not np.isfinite(jax.grad(after)(jnp.asarray(2.0), False))


def test_differentiable_adam_stops_the_gradient_of_its_second_moment_only() -> None:
    # One step from m = v = 0 at gradient s: update -r m_hat / sd(v_hat) with m_hat = s, sd(v_hat) = |s|
    # held fixed, so the derivative is -r / |s| (through both moments it would be 0).
    def update(scale: jax.Array) -> jax.Array:
        return first_update(Adam(learning_rate=0.1, differentiable=True), scale)

    np.testing.assert_allclose(jax.grad(update)(jnp.asarray(2.0)), -0.1 / 2.0, rtol=1e-5)


@pytest.mark.parametrize(
    "settings", [Sgd(learning_rate=1.0, max_grad_norm=0.5), Sgd(learning_rate=1.0, max_grad_norm=50.0)]
)
def test_clipping_is_by_global_norm(settings: Sgd) -> None:
    # |(3, 4)| = 5 over both leaves.
    gradient = {"w": jnp.asarray([3.0, 0.0]), "b": jnp.asarray(4.0)}
    updates = first_update(settings, gradient)
    scale = min(1.0, settings.max_grad_norm / 5.0) if settings.max_grad_norm else 1.0
    np.testing.assert_allclose(jax.tree.leaves(updates)[0], -4.0 * scale, rtol=1e-5)
    np.testing.assert_allclose(optax.global_norm(updates), 5.0 * scale, rtol=1e-5)


def test_clipping_has_a_finite_derivative_at_zero() -> None:
    def clipped(gradient: jax.Array) -> jax.Array:
        return jnp.sum(first_update(Sgd(learning_rate=1.0, max_grad_norm=1.0), gradient))

    np.testing.assert_allclose(jax.grad(clipped)(jnp.zeros(2)), [-1.0, -1.0])


def rates(settings: Adam, steps: int) -> np.ndarray:
    """Adam's rate at every step: the update's size while the gradient is constant."""
    optimizer, params = settings.make(), {"x": jnp.zeros(())}
    state, sizes = optimizer.init(params), []
    for _ in range(steps):
        updates, state = optimizer.update({"x": jnp.ones(())}, state, params)
        sizes.append(-float(jax.tree.leaves(updates)[0]))
    return np.asarray(sizes)


def test_cosine_cycles_restart_warm() -> None:
    # Cycles of 4 steps from the peak p to 0.2 p: p (0.2 + 0.8 c), c = (1 + cos(pi i / 4)) / 2
    # = 1, 0.853553, 0.5, 0.146447 for i = 0..3. Peaks 1, 0.5; after the last cycle its end, 0.5 * 0.2.
    settings = Adam(
        learning_rate=1.0, decay_steps=4.0, final_fraction=0.2, cycles=2, restart_fraction=0.5, eps=1e-12
    )
    shape = 0.2 + 0.8 * np.asarray([1.0, 0.853553, 0.5, 0.146447])
    expected = np.concatenate([shape, 0.5 * shape, [0.1, 0.1]])
    np.testing.assert_allclose(rates(settings, 10), expected, rtol=1e-4)


def test_without_a_schedule_the_rate_is_constant() -> None:
    np.testing.assert_allclose(rates(Adam(learning_rate=0.3, eps=1e-12), 5), 0.3, rtol=1e-4)


@pytest.mark.parametrize("settings", [Sgd(learning_rate=1.0), Adam(learning_rate=1.0)])
def test_a_rate_of_the_lifetime_overrides_the_field(settings: OptimizerSettings) -> None:
    first = follow(settings.make(jnp.asarray(0.25)), GRADIENTS[:1])[0]
    whole = follow(settings.make(), GRADIENTS[:1])[0]
    moved = jax.tree.map(lambda a, b: a - b, first, PARAMS)
    chex.assert_trees_all_close(
        moved, jax.tree.map(lambda a, b: 0.25 * (a - b), whole, PARAMS), rtol=1e-5, atol=1e-7
    )


def test_settings_are_lanes() -> None:
    points = [as_arrays(Adam(learning_rate=rate, b1=b1)) for rate, b1 in ((0.1, 0.9), (0.01, 0.5))]
    together = jax.vmap(lambda settings: follow(settings.make())[-1])(stack(points))
    for index, point in enumerate(points):
        chex.assert_trees_all_close(lane(together, index), follow(point.make())[-1], rtol=1e-5)


def test_adam_needs_eps_root_to_be_differentiated_at_a_gradient_of_zero() -> None:
    def after(scale: jax.Array, eps_root: float) -> jax.Array:
        gradient = scale * jnp.asarray([1.0, 0.0])
        return jnp.sum(first_update(Adam(learning_rate=0.1, eps_root=eps_root), gradient))

    assert np.isnan(jax.grad(after)(jnp.asarray(2.0), 0.0))
    # With m_hat = s and v_hat = s^2: d/ds of -r s / sqrt(s^2 + e) is -r e / (s^2 + e)^1.5, next to nothing.
    np.testing.assert_allclose(jax.grad(after)(jnp.asarray(2.0), 1e-8), 0.0, atol=1e-5)
    # The second coordinate: update -r scale * 0 / sqrt(e), with derivative 0 as well.


def test_the_rate_rises_linearly_before_the_cosine() -> None:
    # Adam's update of a constant gradient is the rate itself: 1/4, 2/4, 3/4 of it, then the whole.
    settings = Adam(learning_rate=0.4, warmup_steps=4.0)
    one = {"w": jnp.asarray(1.0)}
    optimizer = settings.make()
    state, found = optimizer.init(one), []
    for _ in range(6):
        update: Any
        update, state = optimizer.update(one, state, one)
        found.append(-float(update["w"]))
    np.testing.assert_allclose(found, [0.1, 0.2, 0.3, 0.4, 0.4, 0.4], rtol=1e-4)
    both = Adam(learning_rate=0.4, warmup_steps=4.0, decay_steps=2.0)._decayed(0.4, jnp.asarray(1.0))
    np.testing.assert_allclose(both, 0.2, rtol=1e-6)


def test_the_rate_decays_by_a_factor_down_to_its_floor() -> None:
    # Adam's first steps on a constant gradient are the rate itself, whatever the gradient is.
    optimizer = Adam(learning_rate=0.1, decay_rate=0.5, final_fraction=0.2).make()
    state, steps = optimizer.init(jnp.zeros(())), []
    for _ in range(4):
        update, state = optimizer.update(jnp.ones(()), state, jnp.zeros(()))
        steps.append(-jnp.asarray(update))
    np.testing.assert_allclose(steps, [0.1, 0.05, 0.025, 0.02], rtol=1e-4)


def test_two_schedules_at_once_are_refused() -> None:
    with pytest.raises(ValueError, match="decay_rate: the rate follows decay_steps already"):
        Adam(decay_rate=0.5, decay_steps=10.0)
