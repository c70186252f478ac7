"""The hand-written reverse pass of the recurrent cores equals plain differentiation of a plain scan."""

import chex
import jax
import jax.numpy as jnp
import pytest

from inner_loops.networks.recurrent import CORES, CoreParams, core_init


def _plain_lstm(params: CoreParams, inputs: jax.Array, reset: jax.Array) -> jax.Array:
    size = params.recurrent.shape[0]
    hidden = cell = jnp.zeros(size, inputs.dtype)
    outputs = [hidden] * len(inputs)
    for t in reversed(range(len(inputs))):
        hidden, cell = (jnp.where(reset[t], 0.0, x) for x in (hidden, cell))
        i, f, g, o = jnp.split(inputs[t] @ params.inputs + hidden @ params.recurrent + params.bias, 4)
        cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
        hidden = jax.nn.sigmoid(o) * jnp.tanh(cell)
        outputs[t] = hidden
    return jnp.stack(outputs)


def _plain_gru(params: CoreParams, inputs: jax.Array, reset: jax.Array) -> jax.Array:
    hidden = jnp.zeros(params.recurrent.shape[0], inputs.dtype)
    outputs = [hidden] * len(inputs)
    for t in reversed(range(len(inputs))):
        hidden = jnp.where(reset[t], 0.0, hidden)
        x_r, x_z, x_n = jnp.split(inputs[t] @ params.inputs + params.bias, 3)
        h_r, h_z, h_n = jnp.split(hidden @ params.recurrent, 3)
        update = jax.nn.sigmoid(x_z + h_z)
        candidate = jnp.tanh(x_n + jax.nn.sigmoid(x_r + h_r) * h_n)
        hidden = (1 - update) * candidate + update * hidden
        outputs[t] = hidden
    return jnp.stack(outputs)


PLAIN = {"lstm": _plain_lstm, "gru": _plain_gru}


@pytest.mark.parametrize("core", sorted(CORES))
def test_value_and_gradient_equal_the_plain_scan(core):
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(0), 4)
        params = core_init(keys[0], core, 6, 5)
        inputs = jax.random.normal(keys[1], (3, 11, 6))
        reset = jax.random.bernoulli(keys[2], 0.2, (3, 11))
        weights = jax.random.normal(keys[3], (3, 11, 5))

        def loss(function, params, inputs):
            return jnp.sum(weights * jnp.sin(jax.vmap(function, (None, 0, 0))(params, inputs, reset)))

        ours = jax.value_and_grad(loss, (1, 2))(CORES[core], params, inputs)
        plain = jax.value_and_grad(loss, (1, 2))(PLAIN[core], params, inputs)
        chex.assert_trees_all_close(ours, plain, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("core", sorted(CORES))
def test_nothing_flows_across_a_reset(core):
    params = core_init(jax.random.key(0), core, 2, 4)
    inputs = jax.random.normal(jax.random.key(1), (6, 2))
    reset = jnp.arange(6) == 2  # step 2 ends an episode: steps 0..2 must not see steps 3..5
    changed = inputs.at[3:].add(1.0)
    before, after = (CORES[core](params, x, reset) for x in (inputs, changed))
    chex.assert_trees_all_equal(before[:3], after[:3])
    assert not jnp.allclose(before[3:], after[3:])
    gradient = jax.grad(lambda x: CORES[core](params, x, reset)[:3].sum())(inputs)
    assert jnp.all(gradient[3:] == 0) and jnp.all(jnp.any(gradient[:3] != 0, axis=1))
