"""Symmetry, padding, and the split products against the equations written plainly."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inner_loops.agents.base import Percept, Sizes
from inner_loops.agents.symla import LayerMemory, SymLA, SymLAParams
from tests.inner_loops.agents.percepts import STEPS, born_logits, logits_along, percepts


def lively(agent: SymLA, seed: int = 0) -> SymLAParams:
    """Parameters large enough that logits of different units differ visibly; sums are large by themselves."""
    params = agent.init_params(jax.random.key(seed), Sizes(1, 2))
    scale = 1.5 if agent.reduction == "mean" else 0.7
    return jax.tree.map(lambda leaf: scale * leaf + 0.1, params)


def reordered(heard: Percept, observations: np.ndarray, actions: np.ndarray) -> Percept:
    return heard._replace(
        obs=heard.obs[:, observations],
        obs_mask=heard.obs_mask[:, observations],
        action=heard.action[:, actions],
        action_mask=heard.action_mask[:, actions],
    )


@pytest.mark.parametrize(
    ("sizes", "ticks", "reduction"),
    [
        (Sizes(1, 2), 1, "mean"),
        (Sizes(4, 2), 2, "mean"),
        (Sizes(3, 5), 3, "sum"),
        (Sizes(9, 4), 2, "sum"),
        (Sizes(2, 20), 2, "mean"),
    ],
)
def test_permuted_observations_change_nothing_and_permuted_actions_permute(sizes, ticks, reduction):
    agent = SymLA(hidden_size=8, message_size=4, ticks=ticks, reduction=reduction)
    params = lively(agent)
    rng = np.random.default_rng(0)
    for seed in range(5):
        heard = percepts(jax.random.key(seed), sizes)
        observations, actions = rng.permutation(sizes.observations), rng.permutation(sizes.actions)
        logits = born_logits(agent, params, heard)
        permuted = born_logits(agent, params, reordered(heard, observations, actions))
        np.testing.assert_allclose(permuted, logits[:, actions], atol=1e-5)
        assert np.ptp(logits[1:], axis=-1).max() > 1e-3  # actions are told apart by what came of them


def test_the_first_choice_is_uniform_by_symmetry():
    agent = SymLA(hidden_size=8, message_size=4)
    logits = born_logits(agent, lively(agent), percepts(jax.random.key(0), Sizes(3, 4)))
    np.testing.assert_allclose(np.ptp(logits[0]), 0.0, atol=1e-6)


@pytest.mark.slow
def test_several_layers_are_equivariant_when_their_births_are_permuted_alike():
    agent, sizes = SymLA(hidden_size=8, message_size=4, widths=(3, 5)), Sizes(4, 2)
    params, heard = lively(agent), percepts(jax.random.key(0), sizes)
    rng = np.random.default_rng(1)
    orders = [rng.permutation(count) for count in (4, 3, 5, 2)]
    memory = agent.init_memory(jax.random.key(0), params, sizes)
    moved = tuple(
        LayerMemory(
            hidden=layer.hidden[below][:, above],
            cell=layer.cell[below][:, above],
        )
        for layer, below, above in zip(memory, orders[:-1], orders[1:], strict=True)
    )
    logits = logits_along(agent, params, memory, heard)
    permuted = logits_along(agent, params, moved, reordered(heard, orders[0], orders[-1]))
    np.testing.assert_allclose(permuted, logits[:, orders[-1]], atol=1e-5)
    assert np.abs(born_logits(agent, params, heard, seed=1) - logits).max() > 1e-3  # births differ


@pytest.mark.slow
def test_connections_of_several_layers_are_born_alike_in_distribution():
    agent = SymLA(hidden_size=8, widths=(3,), random_share=0.5, random_scale=2.0)
    params = lively(agent)
    keys = jax.random.split(jax.random.key(0), 2000)
    born = jax.vmap(lambda key: agent.init_memory(key, params, Sizes(2, 2)))(keys)
    for layer in born:
        assert not layer.hidden.any() and not layer.cell[..., 4:].any()
        # 2000 draws of a standard deviation of 2: the mean's is 0.045, the deviation's 0.032
        np.testing.assert_allclose(layer.cell[..., :4].mean(axis=0), 0.0, atol=0.2)
        np.testing.assert_allclose(layer.cell[..., :4].std(axis=0), 2.0, atol=0.15)
        together = np.corrcoef(layer.cell[..., :4].reshape(2000, -1), rowvar=False)
        assert np.abs(together - np.eye(len(together))).max() < 0.12  # independent: 0.022 each


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_padded_units_change_nothing(reduction):
    agent, sizes = SymLA(hidden_size=8, message_size=4, reduction=reduction), Sizes(3, 2)
    params, heard = lively(agent), percepts(jax.random.key(0), sizes)
    rubbish = jnp.full((STEPS, 4), 7.0)
    padded = heard._replace(
        obs=jnp.concatenate([heard.obs, rubbish], axis=1),
        obs_mask=jnp.concatenate([heard.obs_mask, jnp.zeros((STEPS, 4), bool)], axis=1),
        action=jnp.pad(heard.action, ((0, 0), (0, 3))),
        action_mask=jnp.pad(heard.action_mask, ((0, 0), (0, 3))),
    )
    whole = born_logits(agent, params, padded)
    np.testing.assert_allclose(whole[:, :2], born_logits(agent, params, heard), atol=1e-6)
    assert np.isfinite(whole).all()


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


def reference(agent: SymLA, params: SymLAParams, memory: tuple[LayerMemory, ...], heard: Percept):
    """The equations connection by connection, messages padded with zeros and concatenated; [steps, A]."""
    entries = agent.message_size
    given: Any = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    outside = [np.pad(w, ((0, entries - len(w)), (0, 0))) for w in (given.below, given.above)]
    weights = np.concatenate(
        [
            *outside,
            given.own_forward,
            given.own_backward,
            given.reward[None],
            given.done[None],
            given.recurrent,
        ]
    )
    reduce = np.mean if agent.reduction == "mean" else np.sum

    def messages(hidden: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """[B, M] upwards and [A, M] downwards: those of all connections first, then reduced."""
        upwards = hidden @ given.forward + given.forward_bias
        downwards = hidden @ given.backward + given.backward_bias
        return reduce(upwards, axis=0), reduce(downwards, axis=1)

    layers: list[Any] = [jax.tree.map(lambda leaf: np.array(leaf, np.float64), layer) for layer in memory]
    sent = [messages(layer.hidden) for layer in layers]
    logits = []
    for t in range(len(heard.reward)):
        for _ in range(agent.ticks):
            for k, layer in enumerate(layers):
                forward, backward = sent[k]
                for a in range(layer.hidden.shape[0]):
                    for b in range(layer.hidden.shape[1]):
                        below, above = np.zeros(entries), np.zeros(entries)
                        below[0], above[0] = heard.obs[t, a % heard.obs.shape[1]], heard.action[t, b % 2]
                        if k > 0:
                            below = sent[k - 1][0][a]
                        if k < len(layers) - 1:
                            above = sent[k + 1][1][b]
                        said = [below, above, forward[b], backward[a]]
                        flags = [heard.reward[t : t + 1], heard.done[t : t + 1], layer.hidden[a, b]]
                        i, f, g, o = np.split(np.concatenate(said + flags) @ weights + given.bias, 4)
                        cell = sigmoid(f) * layer.cell[a, b] + sigmoid(i) * np.tanh(g)
                        layer.cell[a, b], layer.hidden[a, b] = cell, sigmoid(o) * np.tanh(cell)
                sent[k] = messages(layer.hidden)
        logits.append(sent[-1][0][:, 0])
    return np.stack(logits)


@pytest.mark.parametrize("widths", [(), (3,)])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_split_products_are_the_concatenated_equations(widths, reduction):
    agent = SymLA(hidden_size=4, message_size=3, ticks=2, widths=widths, reduction=reduction)
    params, sizes = lively(agent), Sizes(3, 2)
    heard = percepts(jax.random.key(0), sizes)
    memory = agent.init_memory(jax.random.key(0), params, sizes)
    plain = reference(agent, params, memory, jax.tree.map(np.asarray, heard))
    np.testing.assert_allclose(logits_along(agent, params, memory, heard), plain, atol=2e-5)


def test_parameters_know_no_sizes():
    agent = SymLA()
    few, many = (agent.init_params(jax.random.key(0), sizes) for sizes in (Sizes(1, 2), Sizes(100, 20)))
    jax.tree.map(np.testing.assert_array_equal, few, many)
    # 64 gates hear two scalars, two messages of 8, reward, end, 16 units, a bias; two maps 16 -> 8
    assert sum(leaf.size for leaf in few) == 64 * (2 + 2 * 8 + 2 + 16 + 1) + 2 * (16 * 8 + 8)
    assert all(leaf.dtype == jnp.float32 and not leaf.weak_type for leaf in few)
    i, f, g, o = np.split(np.asarray(few.bias), 4)
    assert (f == 1.0).all() and not (i.any() or g.any() or o.any())


def test_the_reward_is_heard_as_that_of_the_action_beside_it():
    """The logit of the last action answers to its reward in its own way, those of the others all alike."""
    agent, sizes = SymLA(hidden_size=8, message_size=4), Sizes(1, 4)
    params = lively(agent)
    heard = jax.tree.map(lambda leaf: leaf[0], percepts(jax.random.key(0), sizes))
    heard = heard._replace(action=jax.nn.one_hot(2, 4))
    memory = agent.init_memory(jax.random.key(0), params, sizes)

    def logits(reward: jax.Array) -> jax.Array:
        return agent.step(params, memory, heard._replace(reward=reward))[1]

    slope = np.asarray(jax.jacfwd(logits)(jnp.asarray(0.5)))
    others = np.delete(slope, 2)
    np.testing.assert_allclose(others, others[0], atol=1e-6)
    assert abs(slope[2] - others[0]) > 1e-3


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"widths": (0,)}, r"widths=\(0,\)"),
        ({"widths": (4,), "random_share": 0.0}, "copies of each other"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        SymLA(**changes)


def test_parameters_of_another_depth_are_refused():
    params = lively(SymLA())
    with pytest.raises(ValueError, match="one layer and several need parameters of their own"):
        SymLA(widths=(4,)).init_memory(jax.random.key(0), params, Sizes(1, 2))
