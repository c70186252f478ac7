"""The deep Q-network: hand-worked targets and updates, exploration, probes, and what it refuses."""

import dataclasses
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inner_loops.dqn import DQN, q_targets
from inner_loops.environments.gymnax_adapter import GymnaxEnvironment
from inner_loops.exploration import EpsilonGreedy, epsilon_greedy
from inner_loops.n_step import Transition
from inner_loops.networks.q_network import StreamNetwork, action_values, q_heads
from inner_loops.networks.tabular import TabularNetwork
from inner_loops.tasks.gymnax_tasks import GymnaxTasks
from metalab.contracts import check_inner, check_outer
from metalab.lifetimes import unroll
from metalab.optimizers import Adam, Sgd
from outer_loops.fixed import Fixed
from tests.inner_loops.lives import check_one_life_in_three_ways
from tests.inner_loops.probes import PHASES, PROBES, Probe, ProbeTasks, raised

ALLOWED = jnp.ones(3, bool)
TABLE = DQN(
    network=TabularNetwork(init_scale=0.0),
    optimizer=Sgd(learning_rate=0.5),
    environment=Probe(index=True),
    dueling=False,
    num_envs=2,
    rollout_length=2,
    gradient_steps=3,
    batch_size=4,
    capacity=8,
    warmup=1,
)


def test_double_q_learning_values_the_action_that_the_online_network_chooses():
    """Online prefers action 2, which the target network values at 3; its own best would be 5."""
    r, d = jnp.asarray([1.0]), jnp.asarray([0.5])
    target, online = jnp.asarray([[1.0, 5.0, 3.0]]), jnp.asarray([[2.0, 0.0, 9.0]])
    np.testing.assert_allclose(q_targets(r, d, target, online, ALLOWED), [1 + 0.5 * 3])
    np.testing.assert_allclose(q_targets(r, d, target, target, ALLOWED), [1 + 0.5 * 5])
    np.testing.assert_allclose(q_targets(r, d, target, online, ALLOWED.at[2].set(False)), [1 + 0.5 * 1])
    np.testing.assert_allclose(q_targets(r, jnp.zeros(1), target, online, ALLOWED), [1.0])


def test_dueling_heads_make_action_values():
    """Eq. 9: 2 + (1, 3) - 2."""
    outputs = {"value": jnp.asarray([2.0]), "advantage": jnp.asarray([1.0, 3.0])}
    np.testing.assert_allclose(action_values(outputs), [1.0, 3.0])
    assert q_heads(2, dueling=True) == {"value": 1, "advantage": 2}
    assert q_heads(2, dueling=False) == {"q": 2}


def of_one_transition(agent: DQN, reward: float, discount: float = 0.0):
    """A newborn whose replay holds one transition many times: from state 0 by action 1 to state 1."""
    state = agent.init(jax.random.key(0), (), ProbeTasks(index=True).sample(jax.random.key(0)))
    index = jnp.zeros(8, jnp.int32)
    rows = Transition(index, index + 1, jnp.full(8, reward), jnp.full(8, discount), index + 1)
    replay = state.experience.replay.add(rows)
    return state._replace(experience=state.experience._replace(replay=replay))


def test_gradient_steps_on_a_table_follow_the_rule():
    """Error 1/2 is within Huber's 1: each step with rate 1/2 halves it. q = 1/4, 3/8, 7/16."""
    state = of_one_transition(TABLE, reward=0.5)
    learner, _, ready = jax.jit(TABLE._learn)(jax.random.key(1), state)
    assert bool(ready)
    np.testing.assert_allclose(learner.params["q"], [[0.0, 0.4375], [0.0, 0.0]])
    assert int(learner.updates) == 3


def test_large_errors_count_linearly():
    """Huber's slope is 1 beyond a delta of 1, and 2 beyond one of 2: rate 1/2 moves 1/2 and 1 a step."""
    state = of_one_transition(TABLE, reward=100.0)
    for delta, moved in ((1.0, 1.5), (2.0, 3.0)):
        learner, *_ = dataclasses.replace(TABLE, huber=delta)._learn(jax.random.key(1), state)
        np.testing.assert_allclose(learner.params["q"][0, 1], moved, rtol=1e-6)


def test_the_target_network_follows_by_copies_or_by_shares():
    """q is 1/4, 3/8, 7/16. A copy every second step is 3/8; half the way at each: 1/8, 1/4, 11/32."""
    state = of_one_transition(TABLE, reward=0.5)
    copied = dataclasses.replace(TABLE, target_period=2, target_rate=1.0)._learn(jax.random.key(1), state)[0]
    np.testing.assert_allclose(copied.target["q"][0, 1], 0.375)
    shared = dataclasses.replace(TABLE, target_rate=0.5)._learn(jax.random.key(1), state)[0]
    np.testing.assert_allclose(shared.target["q"][0, 1], 11 / 32)


def test_the_value_of_what_follows_is_the_target_network_s():
    """Target says 4 for the best action of state 1, the online network 0: goal 0 + 4 / 2, slope at most 1."""
    state = of_one_transition(TABLE, reward=0.0, discount=0.5)
    target = {"q": jnp.asarray([[0.0, 0.0], [4.0, 0.0]])}
    agent = dataclasses.replace(TABLE, target_rate=1e-9, huber=10.0)
    learner, *_ = agent._learn(
        jax.random.key(1), state._replace(learner=state.learner._replace(target=target))
    )
    # errors 2, 1, 1/2 with rate 1/2
    np.testing.assert_allclose(learner.params["q"], [[0.0, 1.75], [0.0, 0.0]], rtol=1e-6)


def test_nothing_is_learned_before_the_replay_holds_enough():
    agent = dataclasses.replace(TABLE, capacity=16, warmup=9)
    state = of_one_transition(agent, reward=0.5)
    learner, loss, ready = jax.jit(agent._learn)(jax.random.key(1), state)
    chex.assert_trees_all_equal(learner, state.learner)
    assert not bool(ready) and float(loss) == 0.0


def test_exploration_takes_every_allowed_action_equally_often_and_no_other():
    values, mask = jnp.asarray([0.0, 5.0, 9.0, 1.0]), jnp.asarray([True, True, False, True])
    uniform = (jnp.arange(30_000) + 0.5) / 30_000
    actions = jax.vmap(lambda u: epsilon_greedy(u, values, jnp.asarray(0.6), mask))(uniform)
    shares = np.bincount(np.asarray(actions), minlength=4) / 30_000
    # 0.6 is shared by the three that are allowed; the best of them takes the rest
    np.testing.assert_allclose(shares, [0.2, 0.6, 0.0, 0.2], atol=1e-4)


def test_the_ends_of_exploration():
    values, mask = jnp.asarray([0.0, 1.0]), jnp.ones(2, bool)
    greedy = jax.vmap(lambda u: epsilon_greedy(u, values, jnp.zeros(()), mask))(jnp.asarray([0.0, 0.5]))
    np.testing.assert_array_equal(greedy, [1, 1])
    drawn = jax.vmap(lambda u: epsilon_greedy(u, values, jnp.ones(()), mask))(jnp.asarray([0.0, 1 - 2**-24]))
    np.testing.assert_array_equal(drawn, [0, 1])
    schedule = EpsilonGreedy(start=1.0, end=0.2, steps=100.0)
    np.testing.assert_allclose(
        [schedule.epsilon(jnp.asarray(s)) for s in (0, 50, 100, 900)], [1, 0.6, 0.2, 0.2]
    )


NETWORK = DQN(
    network=StreamNetwork(hidden_sizes=(16,), stream_sizes=()),
    optimizer=Adam(learning_rate=1e-2),
    exploration=EpsilonGreedy(end=0.5, steps=1.0),
    environment=Probe(),
    num_envs=4,
    rollout_length=8,
    gradient_steps=8,
    batch_size=32,
    capacity=1024,
    warmup=64,
    discount=0.5,
    target_rate=0.05,
)


@pytest.fixture(scope="module")
def lives():
    """Agents with transitions of one and of three steps in every probe."""
    return {n: raised(dataclasses.replace(NETWORK, n_step=n), 80) for n in (1, 3)}


@pytest.mark.slow
@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize("name", PROBES)
def test_the_probes_values_are_found(lives, name, n_step):
    state = lives[n_step][name]
    found = NETWORK._values(state.learner.params, Probe().observations)
    expected = PROBES[name].action_values(NETWORK.discount)
    np.testing.assert_allclose(found[: len(expected)], expected, atol=0.05)


def test_the_replay_remembers_the_phase_before():
    """A phase is 256 steps of each environment: at update 60 the second one has lasted for 224 of them."""
    agent = dataclasses.replace(NETWORK, discount=0.0, capacity=2048, warmup=32)
    life = raised(agent, 60, {"phases": PHASES})
    found = NETWORK._values(life["phases"].learner.params, Probe().observations)
    np.testing.assert_allclose(found, PHASES.action_values(0.0), atol=0.05)


def test_a_life_that_is_over_stays_as_it_is():
    """Replay, open steps, networks, worlds: what two updates leave where the life has fewer left."""
    agent = dataclasses.replace(TABLE, n_step=2)
    tasks = ProbeTasks(name="discounting", index=True)
    state = jax.jit(lambda key: agent.init(key, (), tasks.sample(key)))(jax.random.key(0))

    @jax.jit
    def lived(state: Any, remaining: jax.Array) -> Any:
        return unroll(agent, jax.random.key(1), (), state, 2, remaining=remaining)

    @jax.jit
    def stepped(state: Any, key: jax.Array) -> Any:
        return agent.step(key, (), state, None)[0]

    ages = [state]
    for key in jax.random.split(jax.random.key(1), 2):
        ages.append(stepped(ages[-1], key))
    for remaining, expected in enumerate(ages):
        found, outs = lived(state, jnp.asarray(remaining))
        chex.assert_trees_all_close(found, expected, rtol=1e-6)
        np.testing.assert_array_equal(outs.metrics["learning"], jnp.arange(2) < remaining)


@pytest.mark.slow
def test_vmapped_equals_single_and_jit_equals_no_jit():
    agent = dataclasses.replace(TABLE, n_step=2)
    tasks = ProbeTasks(name="discounting", index=True)
    check_one_life_in_three_ways(agent, tasks)


def test_it_keeps_the_contract_and_reports_its_score():
    world = ProbeTasks(name="constant", lifetime=3)
    agent = dataclasses.replace(NETWORK, stored="bfloat16", n_step=2)
    check_inner(agent, world)
    check_outer(Fixed(inner=agent, tasks=world, truncation=2, num_slots=2))
    assert agent.steps_per_update == 32
    state = raised(agent, 3, {"constant": PROBES["constant"]})["constant"]
    assert float(agent.assess(jax.random.key(0), (), state)["return"]) == 1.0


def test_a_convolutional_torso_sees_images():
    tasks = GymnaxTasks(name="Breakout-MinAtar")
    network = StreamNetwork(channels=(4,), hidden_sizes=(8,), stream_sizes=(8,))
    agent = dataclasses.replace(NETWORK, network=network, environment=tasks.environment, stored="uint8")
    check_inner(agent, tasks)
    state = jax.eval_shape(lambda key: agent.init(key, (), tasks.sample(key)), jax.random.key(0))
    assert state.experience.replay.data.obs.dtype == jnp.uint8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"environment": GymnaxEnvironment(name="Pendulum-v1")}, "choose a learner with continuous actions"),
        ({"environment": Probe(index=True)}, "choose network tabular"),
        ({"network": StreamNetwork(channels=(4,))}, r"channels=\(4,\) need .*choose channels=\(\)"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_remedy(change, message):
    agent = dataclasses.replace(NETWORK, **change)
    with pytest.raises(ValueError, match=message):
        agent.init(jax.random.key(0), (), ProbeTasks().sample(jax.random.key(0)))


def test_a_replay_that_never_fills_to_the_warmup_is_refused():
    with pytest.raises(ValueError, match="warmup: a replay of 1024 transitions never holds 1025"):
        dataclasses.replace(NETWORK, warmup=1025)


def test_hyperparameters_of_a_lifetime_are_refused():
    task = ProbeTasks().sample(jax.random.key(1))
    task = task._replace(params=task.params._replace(hyper={"discount": jnp.ones(())}))
    with pytest.raises(ValueError, match="the tasks set discount per lifetime"):
        NETWORK.init(jax.random.key(0), (), task)
