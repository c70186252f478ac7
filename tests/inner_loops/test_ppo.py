"""PPO: its loss by hand, its samples against a loop, its meta-gradient, and what it learns in the probes."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inner_loops.distributions import Categorical
from inner_loops.environments.base import Environment
from inner_loops.networks.policy import TowerNetwork, orthogonal
from inner_loops.ppo import PPO, PPOState, Samples, Weights, ppo_loss
from inner_loops.tasks.gymnax_tasks import GymnaxTasks
from metalab.components import as_arrays
from metalab.contracts import check_inner
from metalab.gradients import differentiate_in
from metalab.optimizers import Adam
from metalab.trees import lane, stack
from tests.inner_loops.lives import SMALL_PPO
from tests.inner_loops.probes import PROBES, Probe, ProbeTasks, raised

PROBE = Probe()
EVERY_SWITCH = {
    "normalize_observations": True,
    "normalize_rewards": True,
    "outer_loss": True,
    "clip_value": False,
    "normalize_advantages": False,
    "anneal": False,
    "shuffle": "sort",
    "reset_pool": 2,
}


def agent_in(environment: Any = PROBE, **changes: Any) -> PPO:
    return PPO(environment=environment, **(SMALL_PPO | changes))


def newborn(agent: PPO, probe: str = "action", seed: int = 0):
    key = jax.random.key(seed)
    return agent.init(key, (), ProbeTasks(name=probe).sample(key))


# --- the loss ---------------------------------------------------------------------------------------------


def loss_of(ratio: float, advantage: float, value: float = 0.0, **changes: Any) -> tuple[Any, Any]:
    """The loss of one sample and its derivatives by the logit of the action taken and by the value.

    The policy is (1/2, 1/2), so that d log pi / d logit = 1 - 1/2; the old value is 0 and the target 1.
    """
    old = np.log(0.5) - np.log(ratio)
    one = lambda x: jnp.asarray([x], jnp.float32)  # noqa: E731
    samples = Samples(one(0.0), jnp.zeros(1, jnp.int32), one(old), one(0.0), one(advantage), one(1.0))
    weights = Weights(
        *(jnp.asarray(x) for x in (0.2, changes.pop("entropy", 0.0), changes.pop("value_weight", 0.0)))
    )

    def loss(logit: jax.Array, value: jax.Array) -> jax.Array:
        policy = Categorical(jnp.stack([logit, jnp.zeros(())])[None])
        return ppo_loss(policy, value[None], samples, weights, normalize_advantages=False, **changes)

    return jax.value_and_grad(loss, (0, 1))(jnp.zeros(()), jnp.asarray(value))


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    [
        (1.0, 2.0, -2.0, -1.0),  # inside: -A r, slope -A r / 2
        (1.1, 2.0, -2.2, -1.1),
        (1.5, 2.0, -2.4, 0.0),  # above with A > 0: the clipped -A (1 + 0.2), no more to gain
        (0.5, 2.0, -1.0, -0.5),  # below with A > 0: not clipped, it has to come back
        (0.5, -2.0, 1.6, 0.0),  # below with A < 0: the clipped -A (1 - 0.2)
        (1.5, -2.0, 3.0, 1.5),  # above with A < 0: not clipped
    ],
)
def test_the_surrogate_is_clipped_on_the_side_that_gains(ratio, advantage, loss, slope):
    found, (by_logit, _) = loss_of(ratio, advantage)
    assert float(found) == pytest.approx(loss, rel=1e-5)
    assert float(by_logit) == pytest.approx(slope, rel=1e-5)


@pytest.mark.parametrize(
    ("value", "clipped", "loss", "slope"),
    [
        (0.1, True, 0.405, -0.9),  # within 0.2 of the old value 0: (0.1 - 1)^2 / 2
        (0.5, True, 0.32, 0.0),  # further towards the target: the error of 0.2, (0.2 - 1)^2 / 2
        (-0.5, True, 1.125, -1.5),  # further from it: its own error is the larger, (-0.5 - 1)^2 / 2
        (0.5, False, 0.125, -0.5),
    ],
)
def test_the_value_loss_is_the_larger_of_both_errors(value, clipped, loss, slope):
    found, (_, by_value) = loss_of(1.0, 0.0, value, value_weight=1.0, clip_value=clipped)
    assert float(found) == pytest.approx(loss, rel=1e-5)
    assert float(by_value) == pytest.approx(slope, rel=1e-5)


def test_the_entropy_is_a_bonus():
    found, (by_logit, _) = loss_of(1.0, 0.0, entropy=0.5)
    assert float(found) == pytest.approx(-0.5 * np.log(2.0), rel=1e-5)
    assert float(by_logit) == pytest.approx(0.0, abs=1e-6)  # a uniform policy has the most there is


def test_advantages_are_normalised_over_the_minibatch():
    """Advantages 1 and 5 count as -1 and 1: with ratios 1 and 1.1 the surrogate is (-1 + 1.1) / 2."""
    ratio = jnp.asarray([1.0, 1.1])
    samples = Samples(
        obs=jnp.zeros((2, 1)),
        action=jnp.zeros(2, jnp.int32),
        log_prob=jnp.log(0.5) - jnp.log(ratio),
        value=jnp.zeros(2),
        advantage=jnp.asarray([1.0, 5.0]),
        target=jnp.zeros(2),
    )
    weights = Weights(jnp.asarray(0.2), jnp.zeros(()), jnp.zeros(()))
    found = ppo_loss(Categorical(jnp.zeros((2, 2))), jnp.zeros(2), samples, weights)
    assert float(found) == pytest.approx(-0.05, rel=1e-4)


# --- the samples ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("probe", ["discounting", "truncation"])
@pytest.mark.parametrize("reset_pool", [0, 3])
def test_samples_agree_with_a_loop_over_the_record(probe, reset_pool):
    """GAE by its definition: the next value counts unless the episode ended, and no trace crosses a reset."""
    agent = agent_in(num_envs=3, rollout_length=7, gae_lambda=0.7, reset_pool=reset_pool)
    state, record = jax.jit(agent._rollout)(jax.random.key(1), newborn(agent, probe))
    samples = agent._samples(state, record, record.reward, 0.9, 0.7)
    values = lambda obs: agent._outputs(state.params, obs, agent._heads())["value"][:, 0]  # noqa: E731
    advantage = np.zeros(3)
    for t in reversed(range(7)):
        following = np.where(record.terminated[t], 0.0, values(record.next_obs[t]))
        delta = record.reward[t] + 0.9 * following - values(record.obs[t])
        advantage = delta + 0.63 * np.where(record.done[t], 0.0, advantage)
        rows = slice(3 * t, 3 * t + 3)
        np.testing.assert_allclose(samples.advantage[rows], advantage, atol=1e-5)
        np.testing.assert_allclose(samples.target[rows], advantage + values(record.obs[t]), atol=1e-5)
        logits = agent._outputs(state.params, record.obs[t], agent._heads())["logits"]
        log_prob = jax.nn.log_softmax(logits)[np.arange(3), record.action[t]]
        np.testing.assert_allclose(samples.log_prob[rows], log_prob, atol=1e-6)
    assert record.done.any() and bool(record.terminated.any()) == (probe == "discounting")


@pytest.mark.parametrize("reset_pool", [0, 3, 100])
def test_a_rollout_is_one_continuous_record(reset_pool):
    agent = agent_in(num_envs=4, rollout_length=9, reset_pool=reset_pool)
    state, record = jax.jit(agent._rollout)(jax.random.key(1), newborn(agent, "advantage"))
    assert bool(record.terminated.all())  # every episode has one step
    kept = record.obs[1:][~record.done]
    np.testing.assert_array_equal(kept, record.next_obs[~record.done])
    np.testing.assert_array_equal(state.obs, record.obs[-1])
    np.testing.assert_array_equal(state.episodes.last, record.score[-1])
    # Both starts are met, in every environment, also from a pool.
    assert set(np.unique(record.obs[1:].argmax(-1))) == {0, 1}
    if reset_pool == 3:  # rows are used in turn
        np.testing.assert_array_equal(record.obs[1:7], record.obs[4:10])


def test_a_pool_needs_a_step_without_a_reset():
    class Closed(Probe):
        step_env = Environment.step_env  # as the interface leaves it

    agent = agent_in(Closed(), reset_pool=4)
    with pytest.raises(ValueError, match="Closed has no step_env"):
        jax.eval_shape(agent._rollout, jax.random.key(0), newborn(agent))


def test_continuous_actions_reach_the_bounds_and_go_no_further():
    wide = agent_in(GymnaxTasks(name="Pendulum-v1").environment)
    params = wide.environment.default_params()
    found = wide._in_bounds(jnp.asarray([[-3.0], [-1.0], [0.0], [0.5], [7.0]]), params)
    np.testing.assert_allclose(found[:, 0], [-2.0, -2.0, 0.0, 1.0, 2.0])


# --- the update -------------------------------------------------------------------------------------------


def test_the_learning_rate_falls_linearly_over_the_life():
    agent = agent_in()
    state = newborn(agent)._replace(lifetime=jnp.asarray(8, jnp.int32))
    rates = [agent._learning_rate(state._replace(updates=jnp.asarray(n))) for n in (0, 2, 8, 9)]
    np.testing.assert_allclose(rates, [0.01, 0.0075, 0.0, 0.0], rtol=1e-6)
    assert dataclasses.replace(agent, anneal=False)._learning_rate(state) == pytest.approx(0.01)


@pytest.mark.parametrize("continuous", [False, True])
@pytest.mark.parametrize("switches", [{}, EVERY_SWITCH], ids=["default", "every switch"])
def test_the_contract_is_kept(continuous, switches):
    tasks = ProbeTasks(continuous=continuous)
    check_inner(agent_in(tasks.environment, **switches), tasks)


@pytest.mark.slow
def test_vmapped_equals_single_and_jit_changes_nothing():
    agent = agent_in(num_envs=2, rollout_length=2, epochs=1, minibatches=2)
    states = stack([newborn(agent, "advantage", seed) for seed in (0, 1)])
    live = lambda state, key: agent.step(key, (), state, None)[0]  # noqa: E731
    keys = jax.random.split(jax.random.key(4), 2)
    together, single = jax.jit(jax.vmap(live))(states, keys), jax.jit(live)(lane(states, 1), keys[1])
    chex.assert_trees_all_close(lane(together, 1), single, rtol=1e-4, atol=1e-5)
    chex.assert_trees_all_close(live(lane(states, 1), keys[1]), single, rtol=1e-4, atol=1e-5)


def test_tasks_may_not_set_hyperparameters():
    task = ProbeTasks().sample(jax.random.key(0))
    task = task._replace(params=task.params._replace(hyper={"discount": jnp.ones(())}))
    with pytest.raises(ValueError, match="the tasks set discount per lifetime"):
        agent_in().init(jax.random.key(0), (), task)


def test_an_agent_that_is_not_finite_is_broken():
    agent = agent_in()
    state = newborn(agent)
    spoilt = state._replace(params=jax.tree.map(lambda leaf: leaf * jnp.nan, state.params))
    for one, broken in ((state, False), (spoilt, True)):
        evaluation = agent.evaluate(jax.random.key(0), (), one, None, None)[1]  # type: ignore
        assert bool(evaluation.broken) is broken and evaluation.loss is None


NUMBERS = {
    "discount": 0.9,
    "gae_lambda": 0.8,
    "clip": 0.05,
    "entropy": 0.1,
    "value_weight": 0.6,
    "learning_rate": 0.02,
}


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["mixed", "reverse"])
def test_the_meta_gradient_of_every_number_equals_central_differences(mode):
    """Sampled actions do not change with a step of 1e-6: the records are fixed, and every path is seen.

    The outer loss takes the samples of its rollout as constants: so do the differences.
    """
    with jax.enable_x64(True), differentiate_in(mode):
        agent = agent_in(
            network=TowerNetwork(hidden_sizes=(4,)),
            num_envs=2,
            rollout_length=6,
            epochs=2,
            minibatches=2,
            outer_loss=True,
            normalize_rewards=True,
        )

        def lived(numbers: dict[str, jax.Array]) -> tuple[PPO, PPOState]:
            others = {name: value for name, value in numbers.items() if name != "learning_rate"}
            adam = Adam(learning_rate=numbers["learning_rate"], eps=1e-3)  # type: ignore
            tuned = dataclasses.replace(agent, optimizer=adam, **others)  # type: ignore

            def live(state: PPOState, key: jax.Array) -> tuple[PPOState, None]:
                return tuned.step(key, (), state, None)[0], None

            keys = jax.random.split(jax.random.key(6), 2)
            return tuned, jax.lax.scan(live, newborn(tuned, "truncation"), keys)[0]

        def outer(numbers: dict[str, jax.Array]) -> jax.Array:
            tuned, state = lived(numbers)
            loss = tuned.evaluate(jax.random.key(7), (), state, None, None)[1].loss  # type: ignore
            assert loss is not None
            return loss

        numbers = {name: jnp.asarray(value) for name, value in NUMBERS.items()}
        gradient = jax.jit(jax.grad(outer))(numbers)
        constants = agent._outer_samples(jax.random.key(7), jax.jit(lambda x: lived(x)[1])(numbers))[1:]
        loss = jax.jit(lambda x: agent._outer_loss(lived(x)[1].params, *constants))
        for name, value in numbers.items():
            high, low = (loss(numbers | {name: value + step}) for step in (1e-6, -1e-6))
            numeric = float(high - low) / 2e-6
            assert float(gradient[name]) == pytest.approx(numeric, rel=1e-5, abs=1e-9), name
            # Clipping only says which samples have a gradient: it has no slope of its own.
            assert (numeric != 0.0) == (name != "clip"), name


# --- what it learns ---------------------------------------------------------------------------------------


def test_it_finds_what_every_probe_holds():
    agent = as_arrays(agent_in(epochs=2))
    for name, state in raised(agent, 300).items():
        outputs = agent._outputs(state.params, PROBE.observations, agent._heads())
        best = np.asarray(PROBES[name].action_values(0.9))
        values = np.asarray(outputs["value"])[: len(best), 0]
        np.testing.assert_allclose(values, PROBES[name].values(0.9), rtol=0.05, atol=0.1, err_msg=name)
        policy = np.asarray(jax.nn.softmax(outputs["logits"]))
        for place in np.flatnonzero(best[:, 0] != best[:, 1]):
            assert policy[place, best[place].argmax()] > 0.9, name


@pytest.mark.slow
def test_it_finds_the_best_continuous_actions():
    agent = as_arrays(agent_in(Probe(continuous=True), epochs=2))
    worlds = {name: PROBES[name] for name in ("action", "advantage")}
    for name, state in raised(agent, 300, worlds).items():
        best = worlds[name].best_actions()
        mean = agent._outputs(state.params, PROBE.observations, agent._heads())["mean"][: len(best), 0]
        np.testing.assert_allclose(mean, best, atol=0.15, err_msg=name)


# --- initialisation ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4)])
def test_orthogonal_weights(shape):
    weight = np.asarray(orthogonal(jax.random.key(0), shape, 2.0))
    gram = weight.T @ weight if shape[0] >= shape[1] else weight @ weight.T
    np.testing.assert_allclose(gram, 4.0 * np.eye(min(shape)), atol=1e-5)
    keys = jax.random.split(jax.random.key(1), 3)
    together = jax.vmap(lambda key: orthogonal(key, shape, 2.0))(keys)
    np.testing.assert_array_equal(together, np.stack([orthogonal(key, shape, 2.0) for key in keys]))


def test_a_thousand_agents_are_born_side_by_side():
    """Batched QR decompositions in one program may wait for each other for ever: a process with a limit."""
    script = """
import jax
from inner_loops.environments.base import Environment
from inner_loops.networks.policy import TowerNetwork
from tests.inner_loops.probes import Probe
network = TowerNetwork()
init = lambda key: network.init(key, {"logits": 2, "value": 1}, Probe())
params = jax.jit(jax.vmap(init))(jax.random.split(jax.random.key(0), 1000))
print(len(jax.tree.leaves(jax.block_until_ready(params))))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=600, check=True
    )
    assert done.stdout.strip() == "12"
