"""Students: a step with a memory is the whole stream read at once, and what temperatures do."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inner_loops.agents.base import Sizes, logits_along
from inner_loops.agents.hearing import heard, tempered
from inner_loops.agents.meta_rnn import MetaRNN
from inner_loops.agents.recurrent import RecurrentAgent
from inner_loops.agents.transformer import TransformerAgent
from inner_loops.networks.memory.gru import GRU
from inner_loops.networks.memory.s5 import S5
from tests.inner_loops.agents.percepts import born_logits, percepts

SIZES = Sizes(3, 2)
SMALL = functools.partial(TransformerAgent, width=8, heads=2, context=4)
STEPS = 11  # the ring of four steps wraps twice
STUDENTS = {
    "alibi": SMALL(layers=2),
    "rotary": SMALL(layers=2, positions="rotary"),
    "one layer": SMALL(layers=1),
    "three tokens": SMALL(layers=2, tokens=3),
    "s5": RecurrentAgent(core=S5(width=8, state_size=4)),
    "gru": RecurrentAgent(core=GRU(width=8)),
}


@jax.jit
def read(agent, params, stream):
    """[T, A] logits of one stream read at once."""
    return agent.run(params, jax.tree.map(lambda leaf: leaf[None], stream))[0]


def drawn_params(agent, sizes=SIZES, seed=0):
    """Parameters with a head that says something."""
    params = agent.init_params(jax.random.key(seed), sizes)
    return params._replace(head=jax.random.normal(jax.random.key(seed + 1), params.head.shape))


@pytest.mark.parametrize("name", STUDENTS)
def test_steps_with_a_memory_are_the_whole_stream_at_once(name):
    agent = STUDENTS[name]
    params = drawn_params(agent)
    stream = percepts(jax.random.key(2), SIZES, STEPS)
    whole = read(agent, params, stream)
    np.testing.assert_allclose(born_logits(agent, params, stream), whole, atol=1e-5)
    assert np.std(np.asarray(whole), axis=0).min() > 1e-2  # or the agreement would say nothing


@pytest.mark.parametrize("positions", ["alibi", "rotary"])
def test_a_reread_window_is_the_stream_of_its_steps_alone(positions):
    agent = SMALL(layers=2, positions=positions, cache=False)
    params = drawn_params(agent)
    stream = percepts(jax.random.key(2), SIZES, STEPS)
    lived = np.asarray(born_logits(agent, params, stream))
    for end in (2, 4, STEPS):  # before the window is full, when it is, and after it has slid
        alone = jax.tree.map(lambda leaf, end=end: leaf[max(0, end - 4) : end], stream)
        np.testing.assert_allclose(lived[end - 1], read(agent, params, alone)[-1], atol=1e-5)


def test_what_lies_beyond_every_layers_context_is_forgotten():
    """Two layers of four steps see seven: the first of eight steps leaves no trace in the last's logits."""
    agent = SMALL(layers=2)
    params = drawn_params(agent)
    stream = percepts(jax.random.key(2), SIZES, 8)
    plain = np.asarray(read(agent, params, stream))
    for step, seen in ((0, False), (1, True)):
        other = stream._replace(reward=stream.reward.at[step].add(3.0))
        assert bool(np.abs(np.asarray(read(agent, params, other))[-1] - plain[-1]).max() > 1e-6) == seen


def test_no_step_hears_what_comes_after_it():
    agent = SMALL(layers=2, tokens=3)
    params = drawn_params(agent)
    stream = percepts(jax.random.key(2), SIZES, 6)
    later = jax.tree.map(lambda leaf: leaf.at[4:].set(1), stream)
    np.testing.assert_allclose(read(agent, params, later)[:4], read(agent, params, stream)[:4], atol=1e-6)


@pytest.mark.parametrize("name", ["alibi", "s5"])
def test_a_newborns_policy_is_uniform(name):
    agent = STUDENTS[name]
    stream = percepts(jax.random.key(2), SIZES)
    assert not np.asarray(read(agent, agent.init_params(jax.random.key(0), SIZES), stream)).any()


def test_an_agent_without_a_way_to_read_at_once_reads_in_turn():
    agent = MetaRNN(hidden_size=4)
    params = agent.init_params(jax.random.key(0), SIZES)
    stream = percepts(jax.random.key(1), SIZES)
    several = jax.tree.map(lambda leaf: jnp.stack([leaf, 0 * leaf]), stream)
    along = logits_along(agent, jax.random.key(0), params, several)[0]
    np.testing.assert_allclose(along, born_logits(agent, params, stream), atol=1e-6)


def test_a_cell_is_heard_by_its_row_and_its_column():
    """State 5 of a grid of 2 x 4 is row 1, column 1."""
    stream = percepts(jax.random.key(0), Sizes(8, 2), 1)
    stream = stream._replace(obs=jax.nn.one_hot(jnp.asarray([5]), 8))
    obs, _, outcome = heard(stream, (2, 4))
    np.testing.assert_array_equal(obs[0], [0, 1, 0, 1, 0, 0])
    np.testing.assert_array_equal(outcome[0], [stream.reward[0], stream.done[0], 1.0])


def test_factors_must_make_up_the_states():
    for agent in (SMALL(factors=(2, 2)), RecurrentAgent(factors=(2, 2))):
        with pytest.raises(ValueError, match=r"factors=\[2, 2\] make 4 states, and the world has 3"):
            agent.init_params(jax.random.key(0), SIZES)


def test_a_world_of_other_sizes_is_refused():
    agent = SMALL()
    params = agent.init_params(jax.random.key(0), SIZES)
    with pytest.raises(ValueError, match="made for 3 observations and 2 actions, and this world has 3 and 5"):
        agent.init_memory(jax.random.key(0), params, Sizes(3, 5))


def test_temperatures():
    """At 0.5 logits double; at zero the best allowed actions share all, also beside others under vmap."""
    logits, allowed = jnp.asarray([1.0, 3.0, 3.0, 9.0]), jnp.asarray([True, True, True, False])
    at = jax.jit(jax.vmap(tempered, (None, 0, None)))(logits, jnp.asarray([1.0, 0.5, 0.0]), allowed)
    np.testing.assert_array_equal(at[0], logits)
    np.testing.assert_array_equal(at[1], 2.0 * logits)
    np.testing.assert_array_equal(at[2], [-np.inf, 0.0, 0.0, -np.inf])
    gradient = jax.grad(lambda logits: tempered(logits, 0.0, allowed)[1])(logits)
    assert np.isfinite(gradient).all()
