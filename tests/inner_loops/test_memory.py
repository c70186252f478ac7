"""Memories: acting equals learning, resets isolate, and S5 is the state space that it says it is."""

from __future__ import annotations

import time
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy.linalg import expm

import inner_loops
from inner_loops.networks.memory.base import SequenceCore
from inner_loops.networks.memory.recurrence import linear_recurrence
from inner_loops.networks.memory.s5 import S5
from inner_loops.networks.memory.state_space import hippo_modes, zero_order_hold
from metalab.catalogue import resolve

CORES = sorted(inner_loops.CATALOGUE["core"])
SIZES = {"gru": {"width": 5, "layers": 2}, "s5": {"width": 6, "state_size": 4, "layers": 2}}
NUM_INPUTS = 3


def core_of(kind: str) -> Any:
    return resolve(kind, "core", "core")(**SIZES[kind])


def case(kind: str, length: int = 9) -> tuple[Any, Any, Any, jax.Array]:
    """A core, its parameters, a carry that is not empty, and inputs."""
    core = core_of(kind)
    keys = jax.random.split(jax.random.key(1), 3)
    params = core.init(keys[0], NUM_INPUTS)
    before = jax.random.normal(keys[1], (4, NUM_INPUTS))
    carries, _ = jax.jit(core.run)(params, core.empty(), before, jnp.zeros(4, bool))
    carry = jax.tree.map(lambda leaf: leaf[-1], carries)
    return core, params, carry, jax.random.normal(keys[2], (length, NUM_INPUTS))


# --- every core -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CORES)
def test_the_protocol_is_kept(kind):
    core = resolve(kind, "core", "core")()
    assert isinstance(core, SequenceCore)

    def life(key: jax.Array) -> Any:
        params, empty = core.init(key, NUM_INPUTS), core.empty()
        inputs, reset = jnp.zeros((7, NUM_INPUTS)), jnp.zeros(7, bool)
        return (
            params,
            empty,
            core.step(params, empty, inputs[0], reset[0]),
            core.run(params, empty, inputs, reset),
        )

    params, empty, (carry, features), (carries, many) = jax.eval_shape(life, jax.random.key(0))
    leaves = jax.tree.leaves((params, empty, carry))
    assert all(leaf.dtype == jnp.float32 and not leaf.weak_type for leaf in leaves)
    chex.assert_trees_all_equal_shapes_and_dtypes(empty, carry)
    chex.assert_trees_all_equal_shapes(jax.tree.map(lambda x: jnp.zeros((7, *x.shape)), carry), carries)
    assert features.shape == (core.width,) and many.shape == (7, core.width)


@pytest.mark.parametrize("length", [pytest.param(1, marks=pytest.mark.slow), 2, 9])
@pytest.mark.parametrize("kind", CORES)
def test_a_sequence_is_its_steps_in_turn(kind, length):
    with jax.enable_x64(True):
        core, params, carry, inputs = case(kind, length)
        reset = jnp.arange(length) % 4 == 3
        carries, features = jax.jit(core.run)(params, carry, inputs, reset)
        step = jax.jit(core.step)
        for t in range(length):
            carry, one = step(params, carry, inputs[t], reset[t])
            chex.assert_trees_all_close(jax.tree.map(lambda x, t=t: x[t], carries), carry, rtol=1e-12)
            chex.assert_trees_all_close(features[t], one, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("kind", CORES)
def test_nothing_passes_a_reset(kind):
    """Another past changes what comes before the reset at step 4, and not a bit of what comes after."""
    core, params, carry, inputs = case(kind)
    run, reset, none = jax.jit(core.run), jnp.arange(9) == 4, jnp.zeros(9, bool)
    late = lambda tree: jax.tree.map(lambda leaf: leaf[4:], tree)  # noqa: E731
    before, kept = run(params, carry, inputs, reset), run(params, carry, inputs, none)[1]
    for past in ((core.empty(), inputs), (carry, inputs.at[:4].add(1.0))):
        after = run(params, *past, reset)
        chex.assert_trees_all_equal(late(before), late(after))
        assert not np.allclose(before[1][:4], after[1][:4])
        assert not np.allclose(late(kept), late(run(params, *past, none)[1]))
    begun = run(params, core.empty(), inputs[4:], none[4:])
    chex.assert_trees_all_close(begun, late(before), rtol=1e-5, atol=1e-6)

    def after_it(carry: Any, inputs: jax.Array) -> jax.Array:
        return jnp.sum(jnp.square(late(core.run(params, carry, inputs, reset)[1])))

    by_carry, by_inputs = jax.jit(jax.grad(after_it, (0, 1)))(carry, inputs)
    assert all(np.all(leaf == 0.0) for leaf in jax.tree.leaves(by_carry))
    assert np.all(by_inputs[:4] == 0.0) and np.all(np.any(by_inputs[4:] != 0.0, axis=1))


@pytest.mark.parametrize("kind", CORES)
def test_gradients_equal_central_differences(kind):
    with jax.enable_x64(True):
        core, params, carry, inputs = case(kind, 5)
        reset = jnp.arange(5) == 3
        weights = jax.random.normal(jax.random.key(5), (5, core.width))

        @jax.jit
        def loss(params: Any, carry: Any, inputs: jax.Array) -> jax.Array:
            return jnp.sum(weights * jnp.sin(core.run(params, carry, inputs, reset)[1]))

        check_grads(loss, (params, carry, inputs), order=1, modes=["rev"], rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("kind", CORES)
def test_gradients_are_differentiable_either_way(kind):
    """Forward over reverse, as meta-gradients take it, equals reverse over reverse."""
    with jax.enable_x64(True):
        core, params, carry, inputs = case(kind, 5)
        reset = jnp.arange(5) == 3
        slope = jax.grad(lambda x: jnp.sum(jnp.sin(core.run(params, carry, x, reset)[1])))
        direction = jnp.cos(inputs)
        forward = jax.jit(lambda x: jax.jvp(slope, (x,), (direction,))[1])(inputs)
        reverse = jax.jit(jax.grad(lambda x: jnp.sum(slope(x) * direction)))(inputs)
        np.testing.assert_allclose(forward, reverse, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", CORES)
def test_vmapped_equals_single(kind):
    core, params, carry, inputs = case(kind)
    reset = jnp.arange(9) == 4
    several = jnp.stack([inputs, 2.0 * inputs])
    run = lambda x: core.run(params, carry, x, reset)  # noqa: E731
    together = jax.tree.map(lambda leaf: leaf[1], jax.jit(jax.vmap(run))(several))
    chex.assert_trees_all_close(together, jax.jit(run)(several[1]), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("kind", CORES)
def test_a_thousand_are_born_side_by_side_without_a_decomposition(kind):
    core = resolve(kind, "core", "core")()
    born = jax.jit(jax.vmap(lambda key: core.init(key, NUM_INPUTS)))
    keys = jax.random.split(jax.random.key(0), 1000)
    lowered = born.lower(keys)
    assert "lapack" not in lowered.as_text() and "custom_call" not in lowered.as_text()
    start = time.perf_counter()
    params = jax.block_until_ready(lowered.compile()(keys))
    # Decompositions under vmap can wait for each other for ever on two cores: this takes a second or two.
    assert time.perf_counter() - start < 60.0
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(params))


# --- S5 ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, pytest.param(5, marks=pytest.mark.slow), 9])
def test_the_recurrence_in_blocks_is_the_sequential_one_and_the_scan_with_flags(length):
    """Against a loop, and against the associative operator of Lu et al., which carries a flag."""
    with jax.enable_x64(True):
        parts = jax.random.normal(jax.random.key(0), (2, 1 + length, 3))
        start, reset = jax.random.normal(jax.random.key(1), (2, 3)), jnp.arange(length) % 4 == 2
        found = jax.jit(linear_recurrence)(tuple(parts[:, 0]), reset, tuple(parts[:, 1:]), tuple(start))
        states = np.asarray(found[0] + 1j * found[1])
        factor, *drive = np.asarray(parts[0] + 1j * parts[1])
        x = np.asarray(start[0] + 1j * start[1])
        for t in range(length):
            x = (0.0 if reset[t] else factor) * x + drive[t]
            np.testing.assert_allclose(states[t], x, rtol=1e-12, atol=1e-12)

        def operator(a: Any, b: Any) -> Any:
            flag = b[2]
            return (
                jnp.where(flag, b[0], b[0] * a[0]),
                jnp.where(flag, b[1], b[0] * a[1] + b[1]),
                jnp.logical_or(a[2], flag),
            )

        first = np.where(reset[0], 0.0, factor) * (start[0] + 1j * start[1]) + drive[0]
        factors = jnp.broadcast_to(factor, (length, 3))
        elements = (factors, jnp.asarray(drive).at[0].set(first), reset[:, None])
        np.testing.assert_allclose(
            states, jax.lax.associative_scan(operator, elements)[1], rtol=1e-12, atol=1e-12
        )


def test_an_input_that_stands_still():
    """Lambda = -1 for ln 2: 1/2 and (1/2 - 1) / -1 = 1/2. Lambda = i pi for 1: -1 and -2 / (i pi)."""
    eigenvalue = (jnp.asarray([-1.0, 0.0]), jnp.asarray([0.0, np.pi]))
    factor, weight = zero_order_hold(eigenvalue, jnp.asarray([np.log(2.0), 1.0]))
    np.testing.assert_allclose(factor, [[0.5, -1.0], [0.0, 0.0]], atol=1e-6)
    np.testing.assert_allclose(weight, [[0.5, 0.0], [0.0, 2.0 / np.pi]], atol=1e-6)


def hippo_normal(size: int) -> np.ndarray:
    """HiPPO-LegS, -sqrt((2n+1)(2k+1)) below and -(n+1) on the diagonal, plus p p^T, p_n = sqrt(n + 1/2)."""
    a = np.zeros((size, size))
    for n in range(size):
        for k in range(n):
            a[n, k] = -np.sqrt((2 * n + 1) * (2 * k + 1))
        a[n, n] = -(n + 1)
    p = np.sqrt(np.arange(size) + 0.5)
    return a + np.outer(p, p)


def test_the_modes_of_hippo():
    """Of size 2 the skew part is sqrt(3) / 2 times a rotation; of any size the modes make up the matrix."""
    np.testing.assert_allclose(hippo_modes(2)[0], [np.sqrt(3.0) / 2.0])
    frequencies, vectors = hippo_modes(6)
    assert np.all(frequencies > 0.0)
    made = 2.0 * np.real(vectors @ np.diag(-0.5 + 1j * frequencies) @ vectors.conj().T)
    np.testing.assert_allclose(made, hippo_normal(6), atol=1e-12)


def test_a_newborn_layer_is_the_real_state_space_of_hippo():
    """x' = A x + B u for time 0.3 with u held: its matrix exponential, against the states in modes."""
    with jax.enable_x64(True):
        core = S5(width=4, state_size=6, layers=1, min_step=0.3, max_step=0.3)
        params = core.init(jax.random.key(0), NUM_INPUTS)
        inputs = jax.random.normal(jax.random.key(1), (5, NUM_INPUTS))
        states = jax.jit(core.run)(params, core.empty(), inputs, jnp.zeros(5, bool))[0][0]
        layer, vectors = params.layers[0], hippo_modes(6)[1]
        real = lambda modes: 2.0 * np.real(modes @ vectors.T)  # noqa: E731
        features = np.asarray(inputs @ params.weight + params.bias)
        u = features - features.mean(axis=1, keepdims=True)
        u = u / np.sqrt((u**2).mean(axis=1, keepdims=True) + 1e-6)
        b = real(np.asarray(layer.b[0] + 1j * layer.b[1])).T
        # exp of [[A, B], [0, 0]] dt is [[exp(A dt), integral of exp(A s) B], [0, 1]]
        block = expm(0.3 * np.block([[hippo_normal(6), b], [np.zeros((4, 10))]]))
        x = np.zeros(6)
        for t in range(5):
            x = block[:6, :6] @ x + block[:6, 6:] @ u[t]
            np.testing.assert_allclose(real(np.asarray(states[0][t] + 1j * states[1][t])), x, atol=1e-12)


def test_states_come_in_pairs():
    with pytest.raises(ValueError, match=r"state_size=5 is odd.*use 6"):
        S5(state_size=5)
