"""Soft constraints: the meta-gradient in closed form, penalised targets, methods as settings, refusals."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inner_loops.constraints.multiplier import Multiplier
from inner_loops.constraints.outer_value import OuterValue, outer_goals
from inner_loops.constraints.tuned import Tuned
from inner_loops.d4pg import D4PG, Learner
from inner_loops.environments.wrappers.costs import Costs
from inner_loops.n_step import Step, Transition, n_step_transitions
from inner_loops.networks.ddpg import deterministic_action
from inner_loops.soft_constraints import SoftConstraints
from inner_loops.tasks.control_tasks import PendulumTasks
from inner_loops.tasks.wrapped_tasks import WrappedTasks
from metalab.contracts import check_inner, check_outer
from metalab.exposure import expose, leaf_of
from metalab.optimizers import Adam, Sgd
from outer_loops.evolution_strategy import EvolutionStrategy
from outer_loops.fixed import Fixed
from tests.inner_loops.lives import check_one_life_in_three_ways


def tasks_with(*limits: float) -> WrappedTasks:
    """A pendulum with as many costs of its torque."""
    costs = Costs(
        measures=("action.0",) * len(limits), thresholds=(1.5,) * len(limits), limits=limits, indicator=True
    )
    return WrappedTasks(tasks=PendulumTasks(max_steps=4), wrappers=(costs,))


TASKS = tasks_with(0.05)
SIZES: dict[str, Any] = {
    "environment": TASKS.environment,
    "critic": "scalar",
    "policy_sizes": (4,),
    "critic_sizes": (4,),
    "num_envs": 4,
    "rollout_length": 2,
    "gradient_steps": 2,
    "batch_size": 3,
    "capacity": 64,
    "warmup": 8,
    "n_step": 1,
    "discount": 0.9,
    "target_rate": 0.1,
}
AGENT = SoftConstraints(
    **SIZES,
    quiet_envs=2,
    trial_episodes=2,
    trial_steps=4,
    policy_optimizer=Sgd(learning_rate=0.1),
    critic_optimizer=Sgd(learning_rate=0.03),
    meta_optimizer=Sgd(learning_rate=1.0),
    multiplier=Multiplier(start=0.7, rate=0.2),
)
STEP_SIZE, RATE, START, PENALTY, LIMIT = 0.03, 0.2, 0.7, 0.6, 0.05


def minibatch(seed: int, rows: int, costs: int = 1) -> Transition:
    rng = np.random.default_rng(seed)
    drawn = [
        rng.normal(size=(rows, 3)),
        rng.uniform(-1.0, 1.0, (rows, 1)),
        rng.normal(size=rows),
        0.9 * rng.uniform(size=rows),
        rng.normal(size=(rows, 3)),
        rng.uniform(size=(rows, costs)) < 0.6,
    ]
    return Transition(*(jnp.asarray(leaf, float) for leaf in drawn))


def newborn(agent: SoftConstraints, penalty: float = PENALTY, tasks: WrappedTasks = TASKS) -> Any:
    """A state whose learner knows ``J_C``, its networks away from zero."""
    state = jax.jit(lambda key: agent.init(key, (), tasks.sample(key)))(jax.random.key(0))
    rng = np.random.default_rng(7)
    drawn = lambda leaf: jnp.asarray(0.5 * rng.normal(size=leaf.shape), leaf.dtype)  # noqa: E731
    learner = state.learner._replace(
        params=jax.tree.map(drawn, state.learner.params),
        target=jax.tree.map(drawn, state.learner.target),
        penalty=jnp.full_like(state.learner.penalty, penalty),
        known=jnp.asarray(True),
    )
    if isinstance(learner.outer_value, OuterValue):
        critic = jax.tree.map(drawn, learner.outer_value.critic)
        learner = learner._replace(outer_value=learner.outer_value._replace(critic=critic))
    return state._replace(learner=learner)


def stepped(agent: Any, state: Any, rows: Transition, learner: Any = None) -> tuple[Any, jax.Array]:
    """The learner after a gradient step, and its loss: one small program instead of many."""
    return jax.jit(agent._gradient_step)(learner or state.learner, rows, state.world)


def meta_gradient(agent: SoftConstraints, state: Any, both: Transition) -> dict[str, jax.Array]:
    """What plain descent with step size 1 takes off the tuned numbers in one gradient step."""
    after, _ = stepped(agent, state, both)
    return {name: state.learner.free[name] - after.free[name] for name in agent.tuned}


def closed_form(learner: Any, inner: Transition, outer: Transition, gap: float) -> float:
    """d (outer loss) / d (log rate) for Q = w (obs, action) + b under a squared error and a plain step.

    With s = d lambda' / d alpha = rate * gap, phi = dQ/d(w, b) and TD errors d before and d' after the step
    theta' = theta + (2 a / N) sum_i d_i phi_i, where d_i falls by c_i s:

        dL/dalpha = -(2 / M) s sum_j d'_j (c_j - phi_j . (2 a / N) sum_i c_i phi_i).

    One transition met twice gives -2 d' c s (1 - 2 a phi . phi), the form of the paper.
    """

    def features(rows: Transition) -> np.ndarray:
        return np.concatenate([rows.obs, rows.action, np.ones((len(rows.obs), 1))], axis=1)

    def errors(rows: Transition, theta: np.ndarray) -> np.ndarray:
        next_action = np.asarray(deterministic_action(learner.target.policy, rows.next_obs))
        layer = learner.target.critic[0]
        following = np.concatenate([rows.next_obs, next_action], axis=1) @ layer["weight"] + layer["bias"]
        paid = np.asarray(rows.reward) - (START + RATE * gap) * np.asarray(rows.cost)[:, 0]
        return paid + np.asarray(rows.discount) * np.asarray(following)[:, 0] - features(rows) @ theta

    layer = learner.params.critic[0]
    theta = np.concatenate([np.asarray(layer["weight"])[:, 0], np.asarray(layer["bias"])])
    step = 2.0 * STEP_SIZE / len(inner.reward)
    moved = theta + step * errors(inner, theta) @ features(inner)
    answer = step * np.asarray(inner.cost)[:, 0] @ features(inner)
    direct = np.asarray(outer.cost)[:, 0] - features(outer) @ answer
    return float(-2.0 * RATE * gap * np.mean(errors(outer, moved) * direct))


LINEAR = dataclasses.replace(AGENT, critic_sizes=(), tuned=("rate",))


@pytest.mark.parametrize("seed", range(3))
def test_the_meta_gradient_is_the_closed_form_in_float64(seed):
    with jax.enable_x64(True):
        state = newborn(LINEAR)
        both = minibatch(seed, 6)
        inner, outer = (jax.tree.map(lambda x, at=at: x[at], both) for at in (slice(3), slice(3, 6)))
        expected = closed_form(state.learner, inner, outer, PENALTY - LIMIT)
        found = meta_gradient(LINEAR, state, both)["rate"]
        assert abs(expected) > 1e-4
        np.testing.assert_allclose(found, [expected], rtol=1e-8)


def test_of_one_transition_it_is_the_paper_s_form():
    """-2 d' c rate (J_C - beta) (1 - 2 a |grad Q|^2), with d' the error after the step."""
    with jax.enable_x64(True):
        agent = dataclasses.replace(LINEAR, batch_size=1)
        state = newborn(agent)
        one = minibatch(4, 1)._replace(cost=jnp.ones((1, 1)))
        twice = jax.tree.map(lambda x: jnp.concatenate([x, x]), one)
        after, loss = stepped(agent, state, twice)
        phi = np.concatenate([one.obs[0], one.action[0], [1.0]])
        before = state.learner.params.critic[0]
        moved = np.asarray(after.params.critic[0]["weight"] - before["weight"])[:, 0]
        error = moved[0] / (2.0 * STEP_SIZE * phi[0])  # theta' - theta = 2 a d phi
        assert float(loss) == pytest.approx(error**2, rel=1e-8)
        error_after = error * (1.0 - 2.0 * STEP_SIZE * phi @ phi)
        rate = RATE * (PENALTY - LIMIT)
        expected = -2.0 * error_after * rate * (1.0 - 2.0 * STEP_SIZE * phi @ phi)
        np.testing.assert_allclose(meta_gradient(agent, state, twice)["rate"], [expected], rtol=1e-8)


@pytest.mark.parametrize(("penalty", "limit"), [(-5.0, 0.0), (5.0, 0.8)])
def test_at_an_end_of_the_multiplier_s_range_derivatives_pass_or_vanish(penalty, limit):
    """lambda + rate gap is below 0, or above the largest lambda: it stays at the end."""
    most = limit or np.inf
    with jax.enable_x64(True):
        both = minibatch(1, 6)
        found = {}
        for through in (True, False):
            multiplier = Multiplier(start=START, rate=RATE, most=most, straight_through=through)
            agent = dataclasses.replace(LINEAR, multiplier=multiplier)
            state = newborn(agent, penalty)
            after, _ = stepped(agent, state, both)
            np.testing.assert_allclose(after.multiplier, [limit])
            assert float(after.clipped) == 1.0
            found[through] = float(meta_gradient(agent, state, both)["rate"][0])
        assert found[False] == 0.0
        assert abs(found[True]) > 1e-4


NAMES = ("rate", "scale", "offset", "shift")
LARGE = {"policy_optimizer": Sgd(learning_rate=1.0), "critic_optimizer": Sgd(learning_rate=0.3)}
VARIANTS: dict[str, dict[str, Any]] = {
    "critic": {},
    "normalised": {"normalize": True},
    "value": {"outer_loss": "value", "outer_weight": 0.7},
    "categorical": {"critic": "categorical", "atoms": 7, "v_min": -3.0, "v_max": 3.5},
}


@pytest.mark.parametrize(
    "variant",
    ["critic", *(pytest.param(name, marks=pytest.mark.slow) for name in VARIANTS if name != "critic")],
)
def test_every_tuned_number_has_the_derivative_of_finite_differences(variant):
    """With two costs, through networks; the offset acts through the inner step alone."""
    with jax.enable_x64(True):
        tasks = tasks_with(0.05, 0.1)
        agent = dataclasses.replace(
            AGENT, environment=tasks.environment, tuned=NAMES, **LARGE, **VARIANTS[variant]
        )
        state, both = newborn(agent, tasks=tasks), minibatch(4, 6, costs=2)
        limits = agent.environment.cost_limits(state.world.params)
        inner, outer = (jax.tree.map(lambda x, at=at: x[at], both) for at in (slice(3), slice(3, 6)))

        @jax.jit
        def outer_loss(free: Any) -> jax.Array:
            moved, _ = agent._inner_step(free, state.learner, inner, limits)
            return agent._outer_loss(free, state.learner, moved, outer, limits)

        found, free = meta_gradient(agent, state, both), state.learner.free
        for name in NAMES:
            for entry in range(2):
                up, down = (
                    outer_loss({**free, name: free[name].at[entry].add(step)}) for step in (1e-5, -1e-5)
                )
                numeric = float(up - down) / 2e-5
                assert abs(numeric) > 1e-7, (name, entry)
                assert float(found[name][entry]) == pytest.approx(numeric, rel=1e-4), (name, entry)


def test_costs_of_several_steps_are_discounted_and_end_where_rewards_do():
    """gamma 1/2, n = 3: 1 + 0/2 + 1/4; after the end at the third step nothing counts; two costs apart."""
    never = jnp.zeros(5, bool)
    cost = jnp.asarray([[1, 8], [0, 4], [1, 2], [1, 1], [1, 1]], jnp.float32)
    zeros = jnp.zeros(5)
    steps = Step(zeros, zeros, zeros, never.at[2].set(True), never, zeros, cost)
    made = n_step_transitions(steps, 0.5, 3)
    np.testing.assert_allclose(made.cost, [[1.25, 10.5], [0.5, 5.0], [1.0, 2.0]])
    np.testing.assert_allclose(made.discount, [0.0, 0.0, 0.0])
    cut = n_step_transitions(steps._replace(terminated=never, truncated=never.at[2].set(True)), 0.5, 3)
    np.testing.assert_allclose(cut.cost, made.cost)
    np.testing.assert_allclose(cut.discount, [0.125, 0.25, 0.5])


def test_the_target_is_penalised_and_looks_beyond_a_time_limit():
    """Target Q = 2 everywhere. Reward 1, cost 3 at lambda 0.5: 1 - 1.5 + discount 2; offset 0.25 less."""
    rows = minibatch(0, 2)._replace(
        reward=jnp.ones(2), cost=jnp.full((2, 1), 3.0), discount=jnp.asarray([0.9, 0.0])
    )
    penalised = AGENT._penalised(rows, jnp.asarray([0.5]), 1.0, 0.25)
    np.testing.assert_allclose(penalised.reward, [-0.75, -0.75])
    learner = newborn(LINEAR).learner
    zero = [{"weight": jnp.zeros((4, 1)), "bias": jnp.zeros(1)}]
    two = [{"weight": jnp.zeros((4, 1)), "bias": jnp.full(1, 2.0)}]
    loss = LINEAR._critic_loss(zero, learner.target._replace(critic=two), penalised)
    np.testing.assert_allclose(loss, ((-0.75 + 1.8) ** 2 + 0.75**2) / 2, rtol=1e-6)
    even = dataclasses.replace(AGENT, normalize=True)._penalised(rows, jnp.asarray([0.5]), 1.0, 0.0)
    np.testing.assert_allclose(even.reward, [-0.5 / 1.5] * 2, rtol=1e-6)


def test_a_multiplier_climbs_by_what_exceeds_the_limit_and_by_its_schedule():
    """0.7 + 0.2 (0.6 - 0.05) = 0.81; halfway to the schedule's second entry the factor is exp(-1)."""
    state, rows = newborn(AGENT), minibatch(0, 3)
    after, _ = stepped(AGENT, state, rows)
    np.testing.assert_allclose(after.multiplier, [0.81], rtol=1e-6)
    unknown, _ = stepped(AGENT, state, rows, state.learner._replace(known=jnp.asarray(False)))
    np.testing.assert_allclose(unknown.multiplier, [0.7])
    schedule = Multiplier(schedule=(0.0, -2.0, -3.0), spacing=10.0)
    factors = [float(schedule.factor(jnp.asarray(updates))) for updates in (0, 5, 10, 15, 99)]
    np.testing.assert_allclose(factors, np.exp([0.0, -1.0, -2.0, -2.5, -3.0]), rtol=1e-6)


@pytest.mark.slow
def test_without_a_multiplier_it_learns_as_d4pg_does():
    free = dataclasses.replace(AGENT, multiplier=Multiplier(start=0.0, rate=0.0))
    plain = D4PG(**SIZES, policy_optimizer=AGENT.policy_optimizer, critic_optimizer=AGENT.critic_optimizer)
    state, rows = newborn(free), minibatch(0, 3)
    ours, loss = stepped(free, state, rows)
    theirs, same = stepped(plain, state, rows, Learner(*state.learner[:3]))
    np.testing.assert_array_equal(loss, same)
    for one, other in zip(*map(jax.tree.leaves, (ours[:3], tuple(theirs))), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_the_outer_critic_learns_reward_and_costs_as_they_are():
    agent = dataclasses.replace(AGENT, tuned=("shift",), outer_loss="value")
    learner = newborn(agent).learner
    rows = minibatch(0, 3)._replace(discount=jnp.zeros(3))
    goals = outer_goals(learner.outer_value.target, learner.target.policy, rows)
    np.testing.assert_allclose(goals, np.stack([rows.reward, rows.cost[:, 0]], axis=1), rtol=1e-6)


@pytest.mark.slow
def test_quiet_environments_act_without_noise_and_alone_give_the_penalty():
    agent = dataclasses.replace(AGENT, noise=5.0, least_noise=5.0, warmup=1, rollout_length=4, first_ends=4)

    def live(key: jax.Array) -> Any:
        state = agent.init(key, (), TASKS.sample(key))
        first = agent.step(key, (), state, None)[0]
        return state, first, agent.step(jax.random.fold_in(key, 1), (), first, None)[0]

    born, first, second = jax.jit(live)(jax.random.key(3))
    np.testing.assert_array_equal(born.world.state.time, [0, 2, 0, 2])
    rows = second.experience.replay.data
    # the last sixteen rows: four steps of four environments
    obs, action, cost = (leaf[16:32].reshape(4, 4, -1) for leaf in (rows.obs, rows.action, rows.cost))
    quiet = deterministic_action(first.learner.params.policy, obs[:, :2].reshape(8, -1)).reshape(4, 2, 1)
    np.testing.assert_allclose(action[:, :2], quiet, rtol=1e-5, atol=1e-6)
    assert np.max(np.abs(action[:, 2:])) == 1.0  # noise of deviation 5 saturates
    assert float(jnp.max(cost[:, 2:])) == 1.0 and float(jnp.max(cost[:, :2])) == 0.0
    np.testing.assert_array_equal(second.learner.penalty, [0.0])
    assert bool(second.learner.known)


@pytest.mark.parametrize("variant", [(), ("rate",), ("scale", "offset"), ("shift",)])
def test_it_keeps_the_contract(variant):
    agent = dataclasses.replace(
        AGENT, tuned=variant, outer_loss="value" if variant == ("shift",) else "critic"
    )
    check_inner(agent, TASKS)
    check_outer(Fixed(inner=agent, tasks=TASKS, truncation=2, num_slots=2))


def test_its_numbers_can_be_exposed_to_an_outer_loop():
    exposed = expose(AGENT, [leaf_of(AGENT, "multiplier.start"), leaf_of(AGENT, "multiplier.rate")])
    check_inner(exposed, TASKS)
    check_outer(EvolutionStrategy(inner=exposed, tasks=TASKS, population=4, max_lifetime=2))


TUNING = dataclasses.replace(AGENT, tuned=("rate",), critic_optimizer=Adam(differentiable=True))


@pytest.mark.slow
def test_vmapped_equals_single_and_jit_equals_no_jit():
    check_one_life_in_three_ways(TUNING, TASKS, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_the_metrics_are_the_learner_s_and_a_trial_s():
    def live(key: jax.Array) -> Any:
        state = TUNING.init(key, (), TASKS.sample(key))
        state, out = TUNING.step(key, (), state, None)
        return TUNING.evaluate(key, (), state, jax.tree.map(lambda leaf: leaf[None], out), None)

    state, evaluation = jax.jit(live)(jax.random.key(3))
    metrics = evaluation.metrics
    rate = float(jnp.exp(state.learner.free["rate"][0]))
    assert float(metrics["multiplier_rate"]) == pytest.approx(rate)
    score = metrics["unpenalized_return"] - 100.0 * metrics["overshoot"]
    np.testing.assert_allclose(evaluation.score, score, rtol=1e-5)
    assert float(metrics["overshoot"]) == pytest.approx(max(0.0, float(metrics["cost"]) - LIMIT), abs=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tuned": ("lr",)}, "tuned: 'lr' is none of rate, scale, offset, shift"),
        ({"tuned": ("rate",), "multiplier": Multiplier(rate=0.0)}, "multiplier.rate, which is 0; choose one"),
        ({"quiet_envs": 5}, "quiet_envs: 5 of 4 environments"),
    ],
)
def test_mistakes_are_named_with_the_remedy(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(AGENT, **change)


def test_a_world_without_costs_is_refused():
    tasks = PendulumTasks()
    agent = dataclasses.replace(AGENT, environment=tasks.environment)
    with pytest.raises(ValueError, match=r"has no costs; wrap it in `costs` \(wrapped_tasks\)"):
        agent.init(jax.random.key(0), (), tasks.sample(jax.random.key(0)))


def test_values_that_are_not_tuned_are_the_settings():
    values = AGENT._values({}, jnp.zeros((), jnp.int32))
    assert float(values.rate) == pytest.approx(RATE) and values == Tuned(values.rate, 1.0, 0.0, 0.0)
