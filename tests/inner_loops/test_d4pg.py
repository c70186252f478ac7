"""D4PG and DDPG: the categorical projection, hand-worked losses, probes, and what they refuse."""

import dataclasses
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inner_loops.d4pg import D4PG, Networks, categorical_projection
from inner_loops.n_step import Transition
from inner_loops.networks.ddpg import action_value, deterministic_action, init_critic, init_policy
from metalab.contracts import check_inner, check_outer
from metalab.optimizers import Adam
from outer_loops.fixed import Fixed
from tests.inner_loops.lives import check_one_life_in_three_ways
from tests.inner_loops.probes import PHASES, PROBES, Probe, ProbeTasks, raised

FIVE = (-2.0, 2.0)  # atoms -2, -1, 0, 1, 2


def projected(reward: float, discount: float, probs: list[float]) -> np.ndarray:
    ends = jnp.asarray(FIVE[0]), jnp.asarray(FIVE[1])
    arguments = jnp.asarray(reward), jnp.asarray(discount), jnp.asarray(probs)
    return np.asarray(jax.jit(categorical_projection)(*arguments, *ends))


def test_a_target_between_two_atoms_is_shared_by_nearness():
    """Atom 1 moves to 0.25 + 0.5 = 0.75: a quarter to atom 0, three quarters to atom 1."""
    np.testing.assert_allclose(projected(0.25, 0.5, [0, 0, 0, 1, 0]), [0, 0, 0.25, 0.75, 0], atol=1e-6)


def test_a_target_on_an_atom_goes_there_whole():
    """Atom 2 moves to 0 + 0.5 * 2 = 1; with discount 1 and no reward nothing moves."""
    np.testing.assert_allclose(projected(0.0, 0.5, [0, 0, 0, 0, 1]), [0, 0, 0, 1, 0], atol=1e-6)
    spread = [0.1, 0.2, 0.3, 0.15, 0.25]
    np.testing.assert_allclose(projected(0.0, 1.0, spread), spread, atol=1e-6)


def test_targets_beyond_the_support_are_clipped_to_its_ends():
    """With reward 1.5 the atoms move to -0.5, 0.5, 1.5, 2.5, 3.5, with -3.5 all of them below -2 but 2."""
    found = projected(1.5, 1.0, [0.2] * 5)
    # -0.5: half to -1 and half to 0; 0.5: half to 0 and 1; 1.5: half to 1 and 2; the last two whole to 2
    np.testing.assert_allclose(found, [0, 0.1, 0.2, 0.2, 0.5], atol=1e-6)
    # -5.5, -4.5, -3.5, -2.5 whole to -2; -1.5 half to -2 and half to -1
    np.testing.assert_allclose(projected(-3.5, 1.0, [0.2] * 5), [0.9, 0.1, 0, 0, 0], atol=1e-6)


def test_after_an_end_only_the_reward_is_left():
    np.testing.assert_allclose(projected(-0.5, 0.0, [0.2] * 5), [0, 0.5, 0.5, 0, 0], atol=1e-6)


def test_a_reward_that_is_not_a_number_shows():
    assert np.isnan(projected(np.nan, 0.5, [0.2] * 5)).any()


def test_its_derivative_moves_probability_from_atom_to_atom():
    """Atom 1 moves to 0.75: a reward that rises by d takes d from atom 0 to atom 1; a clipped one stays."""
    probs, ends = jnp.asarray([0.0, 0, 0, 1, 0]), (jnp.asarray(FIVE[0]), jnp.asarray(FIVE[1]))
    slope = jax.jit(jax.jacrev(lambda reward: categorical_projection(reward, jnp.asarray(0.5), probs, *ends)))
    np.testing.assert_allclose(slope(jnp.asarray(0.25)), [0, 0, -1, 1, 0], atol=1e-6)
    np.testing.assert_allclose(slope(jnp.asarray(9.0)), np.zeros(5), atol=1e-6)


def test_the_projection_keeps_probability_and_inside_the_support_the_mean():
    keys = jax.random.split(jax.random.key(0), 3)
    probs = jax.nn.softmax(jax.random.normal(keys[0], (50, 21)))
    reward = jax.random.uniform(keys[1], (50,), minval=-4.0, maxval=4.0)
    discount = jax.random.uniform(keys[2], (50,), maxval=0.6)  # 4 + 0.6 * 10 is the support's end
    found = jax.vmap(categorical_projection, (0, 0, 0, None, None))(reward, discount, probs, -10.0, 10.0)
    z = jnp.linspace(-10.0, 10.0, 21)
    np.testing.assert_allclose(jnp.sum(found, axis=-1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(found @ z, reward + discount * (probs @ z), atol=1e-4)


@given(seed=st.integers(0, 2**20))
def test_the_projection_is_that_of_algorithm_1(seed):
    """Bellemare et al. 2017, algorithm 1: lower neighbour (u - b), upper neighbour (b - l), atom by atom."""
    rng = np.random.default_rng(seed)
    atoms, low, high = 7, -3.0 * rng.random(), 3.0 * rng.random() + 0.1
    reward, discount, probs = rng.normal(scale=2.0), rng.random(), rng.dirichlet(np.ones(atoms))
    gap, expected = (high - low) / (atoms - 1), np.zeros(atoms)
    for j in range(atoms):
        b = (np.clip(reward + discount * (low + j * gap), low, high) - low) / gap
        lower, upper = int(np.floor(b)), int(np.ceil(b))
        if lower == upper:  # on an atom, where both shares of the paper are zero
            expected[lower] += probs[j]
        else:
            expected[lower] += probs[j] * (upper - b)
            expected[upper] += probs[j] * (b - lower)
    numbers = (jnp.asarray(x, jnp.float32) for x in (reward, discount, probs, low, high))
    np.testing.assert_allclose(jax.jit(categorical_projection)(*numbers), expected, atol=2e-5)


def linear(weights: list[float]) -> list[dict[str, jax.Array]]:
    """One layer with one input: its weights, no bias."""
    return [{"weight": jnp.asarray([weights]), "bias": jnp.zeros(len(weights))}]


SCALAR = D4PG(environment=Probe(continuous=True), critic="scalar", policy_sizes=(), critic_sizes=())


def test_the_scalar_critic_s_loss_is_the_squared_error():
    """Observation x, critic 2 x + 3 a, policy tanh(0) = 0, target critic 4 x + 0 a.

    From x = 1, a = 0.5 with reward 1 and discount 0.5 to x = 2: goal 1 + 0.5 * 8 = 5, value 3.5.
    """
    critic = [{"weight": jnp.asarray([[2.0], [3.0]]), "bias": jnp.zeros(1)}]
    target = [{"weight": jnp.asarray([[4.0], [0.0]]), "bias": jnp.zeros(1)}]
    minibatch = Transition(*(jnp.asarray(x) for x in ([[1.0]], [[0.5]], [1.0], [0.5], [[2.0]])))
    loss = SCALAR._critic_loss(critic, Networks(linear([0.0]), target), minibatch)
    np.testing.assert_allclose(loss, 1.5**2, rtol=1e-6)


def test_the_policy_s_gradient_is_the_critic_s_slope_in_the_action():
    """a = tanh(w x) with w = 0, x = 2: da/dw = 2; Q = 2 x + 3 a: the loss falls by 3 * 2."""
    critic = [{"weight": jnp.asarray([[2.0], [3.0]]), "bias": jnp.zeros(1)}]
    minibatch = Transition(*(jnp.asarray(x) for x in ([[2.0]], [[0.5]], [1.0], [0.5], [[2.0]])))
    gradient = jax.grad(SCALAR._policy_loss)(linear([0.0]), critic, minibatch)
    np.testing.assert_allclose(gradient[0]["weight"], [[-6.0]], rtol=1e-6)


def test_the_categorical_critic_s_loss_is_the_cross_entropy():
    """Three atoms -1, 0, 1, uniform before and after. Reward 1 and an end: the goal is the last atom."""
    agent = dataclasses.replace(SCALAR, critic="categorical", atoms=3, v_min=-1.0, v_max=1.0)
    critic = [{"weight": jnp.zeros((2, 3)), "bias": jnp.zeros(3)}]
    minibatch = Transition(*(jnp.asarray(x) for x in ([[1.0]], [[0.5]], [1.0], [0.0], [[2.0]])))
    loss = agent._critic_loss(critic, Networks(linear([0.0]), critic), minibatch)
    np.testing.assert_allclose(loss, np.log(3.0), rtol=1e-6)
    # logits (0, 0, log 2) have probabilities 1/4, 1/4, 1/2 and mean 1/4
    np.testing.assert_allclose(agent._mean(jnp.log(jnp.asarray([[1.0, 1.0, 2.0]]))), [0.25], rtol=1e-5)


def test_networks_begin_near_the_middle_and_near_zero():
    keys = jax.random.split(jax.random.key(0), 3)
    obs = jax.random.normal(keys[2], (100, 2, 2))
    policy = init_policy(keys[0], (2, 2), (32, 32), 3)
    critic = init_critic(keys[1], (2, 2), (32, 32), 3, 5)
    action = deterministic_action(policy, obs)
    values = action_value(critic, obs, action)
    chex.assert_shape([action, values], [(100, 3), (100, 5)])
    assert jnp.max(jnp.abs(action)) < 0.1 and jnp.max(jnp.abs(values)) < 0.1
    # 4 inputs: uniform within 1/2; 4 + 3 of the critic: within 1 / sqrt(7)
    assert 0.4 < jnp.max(jnp.abs(policy[0]["weight"])) <= 0.5
    assert 0.3 < jnp.max(jnp.abs(critic[0]["weight"])) <= 7**-0.5


AGENT = D4PG(
    policy_optimizer=Adam(learning_rate=3e-3),
    critic_optimizer=Adam(learning_rate=1e-2),
    environment=Probe(continuous=True),
    policy_sizes=(16,),
    critic_sizes=(32,),
    atoms=13,
    v_min=-3.0,
    v_max=3.0,
    num_envs=4,
    rollout_length=8,
    gradient_steps=16,
    batch_size=32,
    capacity=2048,
    warmup=64,
    n_step=2,
    discount=0.5,
    noise=0.5,
    target_rate=0.05,
)


@pytest.fixture(scope="module")
def lives():
    return {kind: raised(dataclasses.replace(AGENT, critic=kind), 100) for kind in ("categorical", "scalar")}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["categorical", "scalar"])
@pytest.mark.parametrize("name", PROBES)
def test_the_probes_values_and_actions_are_found(lives, name, kind):
    """An action that is off by 0.1 is paid 0.01 less."""
    agent, state, world = dataclasses.replace(AGENT, critic=kind), lives[kind][name], PROBES[name]
    expected, best = world.values(agent.discount), world.best_actions()
    obs = Probe().observations[: len(expected)]
    params = state.learner.params
    action = deterministic_action(params.policy, obs)
    values = agent._mean(action_value(params.critic, obs, action))
    np.testing.assert_allclose(values, expected, atol=0.1)
    matters = ~np.isnan(best)
    np.testing.assert_allclose(action[:, 0][matters], best[matters], atol=0.1)


def test_the_replay_remembers_the_phase_before():
    """A phase is 256 steps of each environment: at update 60 the second one has lasted for 224 of them."""
    agent = dataclasses.replace(AGENT, critic="scalar", discount=0.0, n_step=1)
    life = raised(agent, 60, {"phases": PHASES})["phases"]
    found = action_value(life.learner.params.critic, Probe().observations, jnp.zeros((2, 1)))[:, 0]
    np.testing.assert_allclose(found, PHASES.values(0.0), atol=0.1)


def test_actions_are_filed_in_unit_range_and_done_in_the_environment_s():
    """Pendulum's torque reaches 2: what is filed stays within 1, also while actions are drawn at random."""
    from inner_loops.tasks.gymnax_tasks import GymnaxTasks

    tasks = GymnaxTasks(name="Pendulum-v1")
    agent = dataclasses.replace(AGENT, environment=tasks.environment, n_step=1, warmup=33, noise=3.0)

    def live(key):
        first = agent.init(key, (), tasks.sample(key))
        second = agent.step(key, (), first, None)[0]
        third = agent.step(key, (), second, None)[0]
        return second, agent.step(key, (), third, None)[0]

    second, last = jax.jit(live)(jax.random.key(0))
    torque = second.world.state.last_u
    np.testing.assert_allclose(torque, 2.0 * second.experience.replay.data.action[28:32, 0], rtol=1e-6)
    drawn, noisy = np.split(np.asarray(last.experience.replay.data.action[:96, 0]), [64])
    # random actions are uniform; with noise of deviation 3 on a policy near 0, 74 % of actions are clipped
    assert np.all(np.abs(drawn) < 1.0) and np.std(drawn) == pytest.approx(3**-0.5, abs=0.1)
    assert np.all(np.abs(noisy) <= 1.0) and np.mean(np.abs(noisy) == 1.0) > 0.5


def test_nothing_is_learned_before_the_replay_holds_enough():
    tasks = ProbeTasks(name="action", continuous=True)
    agent = dataclasses.replace(AGENT, warmup=60, gradient_steps=2)

    def live(key):
        first = agent.init(key, (), tasks.sample(key))
        second, early = agent.step(key, (), first, None)
        third, later = agent.step(key, (), second, None)
        fourth, _ = agent.step(key, (), third, None)
        return (first, second, third, fourth), (early, later)

    (first, second, third, fourth), (early, later) = jax.jit(live)(jax.random.key(0))
    # 32 transitions of two steps come of each rollout, less 4 of the first: 28, then 60
    assert (int(second.experience.replay.size), int(third.experience.replay.size)) == (28, 60)
    chex.assert_trees_all_equal(second.learner, first.learner)
    assert (float(early.metrics["learning"]), float(later.metrics["learning"])) == (0.0, 1.0)
    moved = [
        not np.array_equal(*pair)
        for pair in zip(*map(jax.tree.leaves, (first.learner, fourth.learner)), strict=True)
    ]
    assert all(moved)


@pytest.mark.slow
def test_vmapped_equals_single_and_jit_equals_no_jit():
    tasks = ProbeTasks(name="truncation", continuous=True)
    sizes: dict[str, Any] = {"policy_sizes": (4,), "critic_sizes": (4,), "atoms": 3, "warmup": 1}
    agent = dataclasses.replace(AGENT, num_envs=2, rollout_length=2, gradient_steps=1, **sizes)
    check_one_life_in_three_ways(agent, tasks, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["categorical", "scalar"])
def test_it_keeps_the_contract(kind):
    world = ProbeTasks(name="constant", continuous=True, lifetime=3)
    agent = dataclasses.replace(AGENT, critic=kind)
    check_inner(agent, world)
    check_outer(Fixed(inner=agent, tasks=world, truncation=2, num_slots=2))
    assert agent.steps_per_update == 32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"v_min": 1.0, "v_max": 1.0}, r"v_min: 1 is not below v_max \(1\)"),
        ({"warmup": 2049}, "warmup: a replay of 2048 transitions never holds 2049.*choose a larger capacity"),
    ],
)
def test_what_could_never_be_learned_is_refused_with_the_remedy(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(AGENT, **change)


def test_discrete_actions_are_refused_with_the_remedy():
    agent = dataclasses.replace(AGENT, environment=Probe())
    with pytest.raises(ValueError, match="has 2 discrete ones: choose dqn"):
        agent.init(jax.random.key(0), (), ProbeTasks().sample(jax.random.key(0)))


def test_hyperparameters_of_a_lifetime_are_refused():
    task = ProbeTasks(continuous=True).sample(jax.random.key(1))
    task = task._replace(params=task.params._replace(hyper={"discount": jnp.ones(())}))
    with pytest.raises(ValueError, match="the tasks set discount per lifetime"):
        AGENT.init(jax.random.key(0), (), task)
