"""The recurrent baseline: its equations, its padding, and that it has no symmetry."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inner_loops.agents.base import Percept, Sizes
from inner_loops.agents.meta_rnn import MetaRNN, MetaRNNParams
from tests.inner_loops.agents.percepts import born_logits, percepts

SIZES = Sizes(3, 2)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


def reference(core: str, params: MetaRNNParams, heard: Percept) -> np.ndarray:
    """[steps, A] by the equations, inputs concatenated."""
    inputs, recurrent, bias = (np.asarray(leaf, np.float64) for leaf in params.core)
    hidden = cell = np.zeros(recurrent.shape[0])
    logits = []
    for obs, action, reward, done in zip(heard.obs, heard.action, heard.reward, heard.done, strict=True):
        x = np.concatenate([obs, action, [reward], [done]]) @ inputs + bias
        if core == "lstm":
            i, f, g, o = np.split(x + hidden @ recurrent, 4)
            cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
            hidden = sigmoid(o) * np.tanh(cell)
        else:
            (x_r, x_z, x_n), (h_r, h_z, h_n) = np.split(x, 3), np.split(hidden @ recurrent, 3)
            z = sigmoid(x_z + h_z)
            hidden = (1.0 - z) * np.tanh(x_n + sigmoid(x_r + h_r) * h_n) + z * hidden
        logits.append(hidden @ np.asarray(params.head) + np.asarray(params.head_bias))
    return np.stack(logits)


@pytest.mark.parametrize("core", ["lstm", "gru"])
def test_the_equations(core):
    agent = MetaRNN(hidden_size=4, core=core)
    params = agent.init_params(jax.random.key(0), SIZES)
    heard = percepts(jax.random.key(1), SIZES)
    plain = reference(core, params, jax.tree.map(np.asarray, heard))
    np.testing.assert_allclose(born_logits(agent, params, heard), plain, atol=1e-5)


def test_it_knows_inputs_and_outputs_by_place():
    agent = MetaRNN(hidden_size=8)
    params = agent.init_params(jax.random.key(0), SIZES)
    heard = percepts(jax.random.key(1), SIZES)
    logits = np.asarray(born_logits(agent, params, heard))
    turned = born_logits(agent, params, heard._replace(obs=heard.obs[:, ::-1]))
    swapped = born_logits(agent, params, heard._replace(action=heard.action[:, ::-1]))
    assert np.abs(turned - logits).max() > 1e-2
    assert np.abs(swapped - logits[:, ::-1]).max() > 1e-2


def test_a_smaller_world_is_a_padded_one():
    agent = MetaRNN(hidden_size=4, max_observations=5, max_actions=4)
    params = agent.init_params(jax.random.key(0), SIZES)
    assert params.core.inputs.shape == (5 + 4 + 2, 16) and params.head.shape == (4, 4)
    heard = percepts(jax.random.key(1), SIZES)
    padded = heard._replace(
        obs=jnp.pad(heard.obs, ((0, 0), (0, 2)), constant_values=7.0),
        obs_mask=jnp.pad(heard.obs_mask, ((0, 0), (0, 2))),
        action=jnp.pad(heard.action, ((0, 0), (0, 2))),
        action_mask=jnp.pad(heard.action_mask, ((0, 0), (0, 2))),
    )
    whole = born_logits(agent, params, padded)
    np.testing.assert_allclose(whole[:, :2], born_logits(agent, params, heard), atol=1e-6)


def test_a_larger_world_is_refused():
    agent = MetaRNN(hidden_size=4)
    params = agent.init_params(jax.random.key(0), SIZES)
    with pytest.raises(
        ValueError, match=r"made for 3 observations and 2 actions .* world has 3 and 5: set max_"
    ):
        agent.init_memory(jax.random.key(0), params, Sizes(3, 5))
    with pytest.raises(ValueError, match="made for 3 observations and 4 actions"):
        MetaRNN(max_actions=4).init_params(jax.random.key(0), Sizes(3, 5))
