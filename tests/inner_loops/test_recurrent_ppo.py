"""Recurrent PPO: its samples against steps taken one by one, what its memory is told, and what it learns."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import inner_loops
from inner_loops.distributions import Categorical
from inner_loops.networks.memory.gru import GRU
from inner_loops.networks.memory.s5 import S5
from inner_loops.networks.policy import TowerNetwork
from inner_loops.ppo import PPO, Samples, Weights, ppo_loss
from inner_loops.recurrent_ppo import INPUTS, RecurrentPPO, Sequences
from inner_loops.tasks.delayed_chains import DelayedChains
from inner_loops.tasks.gymnax_tasks import GymnaxTasks
from metalab.catalogue import resolve
from metalab.components import as_arrays
from metalab.contracts import check_inner
from metalab.gradients import differentiate_in
from metalab.optimizers import Adam, Sgd
from tests.inner_loops.lives import SMALL_PPO
from tests.inner_loops.probes import PROBES, Probe, ProbeTasks, raised

PROBE = Probe()
SMALL = {"gru": GRU(width=8), "s5": S5(width=8, state_size=8, layers=1)}
EVERY_SWITCH = {
    "normalize_observations": True,
    "normalize_rewards": True,
    "outer_loss": True,
    "inputs": "rl2",
    "reset_memory": False,
    "episodic": False,
    "reset_pool": 2,
}


def agent_in(environment: Any = PROBE, **changes: Any) -> RecurrentPPO:
    return RecurrentPPO(environment=environment, **(SMALL_PPO | {"core": SMALL["gru"]} | changes))


def newborn(agent: RecurrentPPO, probe: str = "action", seed: int = 0):
    key = jax.random.key(seed)
    return agent.init(key, (), ProbeTasks(name=probe).sample(key))


# --- the contract -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("switches", "continuous"), [({}, False), (EVERY_SWITCH, True)], ids=["default", "every switch"]
)
@pytest.mark.parametrize("core", sorted(inner_loops.CATALOGUE["core"]))
def test_the_contract_is_kept_with_every_core(core, switches, continuous):
    tasks = ProbeTasks(continuous=continuous)
    check_inner(agent_in(tasks.environment, core=resolve(core, "core", "core")(), **switches), tasks)


def test_state_indices_are_read_as_well():
    tasks = DelayedChains(lengths=(4,))
    agent = agent_in(tasks.environment, inputs="rl2")
    check_inner(agent, tasks)
    params = jax.eval_shape(lambda: agent.init(jax.random.key(0), (), tasks.sample(jax.random.key(0)))).params
    told = tasks.environment.num_actions + 2
    assert params["core"][0].inputs.shape[0] - told == tasks.environment.num_states


def test_minibatches_are_whole_sequences():
    with pytest.raises(ValueError, match=r"minibatches=3 must divide num_envs=8: .* whole sequences"):
        agent_in(minibatches=3)


# --- the loss and the samples -----------------------------------------------------------------------------


def test_the_loss_is_a_mean_over_all_steps_of_all_sequences():
    """Two sequences of one step as one of two: advantages 1 and 5 count as -1 and 1, ratios are 1 and 1.1."""
    log_prob = jnp.log(0.5) - jnp.log(jnp.asarray([[1.0, 1.1]]))
    flat = jnp.zeros((1, 2))
    samples = Samples(None, flat.astype(int), log_prob, flat, jnp.asarray([[1.0, 5.0]]), flat + 1.0)
    weights = Weights(jnp.asarray(0.2), jnp.asarray(0.5), jnp.asarray(2.0))
    # Surrogate (-1 + 1.1) / 2; value loss (1 - 0)^2 / 2, twice; entropy ln 2, a half.
    found = ppo_loss(Categorical(jnp.zeros((1, 2, 2))), flat, samples, weights)
    assert float(found) == pytest.approx(-0.05 + 1.0 - 0.5 * np.log(2.0), rel=1e-4)


class Made(NamedTuple):
    """An agent of two environments with rollouts of 5 steps, and its compiled functions."""

    agent: RecurrentPPO
    rollout: Callable[..., Any]
    samples: Callable[..., Samples]
    read: Callable[..., tuple[Any, dict[str, jax.Array]]]


@functools.cache
def made(core: str, inputs: str, reset_memory: bool, episodic: bool) -> Made:
    switches = {"inputs": inputs, "reset_memory": reset_memory, "episodic": episodic}
    agent = agent_in(core=SMALL[core], num_envs=2, minibatches=2, rollout_length=5, **switches)

    def read(params: Any, carry: Any, inputs: jax.Array, reset: jax.Array) -> Any:
        carry, features = agent.core.step(params["core"], carry, inputs, reset)
        return carry, agent.network.apply(params["network"], features, agent._heads())

    return Made(agent, jax.jit(agent._rollout), jax.jit(agent._samples), jax.jit(read))


@pytest.mark.parametrize("probe", ["advantage", "truncation"])
@pytest.mark.parametrize(
    ("core", "inputs", "reset_memory", "episodic"),
    [
        ("gru", "obs", True, True),
        ("gru", "rl2", True, True),
        ("gru", "rl2", False, True),
        ("gru", "rl2", False, False),
        ("s5", "rl2", True, True),
        ("s5", "rl2", False, False),
    ],
)
def test_samples_agree_with_steps_taken_one_by_one(core, inputs, reset_memory, episodic, probe):
    """Of a second rollout, by its definition: what acting carried over from the first is not lost.

    Rewards are judged as three times what they were; the memory is told what they were.
    """
    one = made(core, inputs, reset_memory, episodic)
    state, _ = one.rollout(jax.random.key(1), newborn(one.agent, probe))
    _, record = one.rollout(jax.random.key(2), state)
    samples = one.samples(state, record, 3.0 * record.reward, 0.9, 0.7)
    expected = [_one_by_one(one, state, record, env) for env in range(2)]
    for name in ("log_prob", "value", "advantage"):
        found = np.asarray(getattr(samples, name))
        np.testing.assert_allclose(found, [one[name] for one in expected], atol=2e-5, err_msg=name)
    np.testing.assert_allclose(samples.target, samples.advantage + samples.value, atol=1e-6)
    np.testing.assert_array_equal(samples.action, record.action.T)
    assert record.done.any() and bool(record.terminated.any()) == (probe == "advantage")


def _one_by_one(made: Made, state: Any, record: Any, env: int) -> dict[str, np.ndarray]:
    """Log-probabilities, values and advantages [T] of an environment's rollout, in plain loops."""
    agent = made.agent
    rl2, keeps = agent.inputs == "rl2", not agent.reset_memory
    carry, last = jax.tree.map(lambda leaf: leaf[env], tuple(state.memory))
    last = (int(last.action), float(last.reward), bool(last.first))
    one = jax.tree.map(lambda leaf: leaf[:, env], record._replace(action_mask=record.obs))

    def read(carry: Any, obs: Any, last: tuple[int, float, bool]) -> tuple[Any, dict[str, jax.Array]]:
        told = [*np.eye(2)[last[0]] * (last[0] >= 0), last[1], last[2]] if rl2 else []
        inputs = np.asarray([*obs, *told], np.float32)
        return made.read(state.params, carry, inputs, np.asarray(last[2] and not keeps))

    found: dict[str, list[float]] = {"log_prob": [], "value": [], "next": []}
    for t in range(len(one.reward)):
        carry, outputs = read(carry, one.obs[t], last)
        action, reward, done = int(one.action[t]), float(one.reward[t]), bool(one.done[t])
        found["log_prob"].append(float(jax.nn.log_softmax(outputs["logits"])[action]))
        found["value"].append(float(outputs["value"][0]))
        last = (-1, 0.0, True) if done and not keeps else (action, reward, done)
        if agent.episodic:  # as if the episode went on
            ahead = read(carry, one.next_obs[t], (action, reward, False))[1]
        else:
            ahead = read(carry, one.obs[t + 1], last)[1]
        found["next"].append(float(ahead["value"][0]))
    advantage, following = np.zeros(len(one.reward)), 0.0
    for t in reversed(range(len(one.reward))):
        ends = agent.episodic and bool(one.terminated[t])
        cut = agent.episodic and bool(one.done[t])
        delta = 3.0 * float(one.reward[t]) + 0.9 * found["next"][t] * (not ends) - found["value"][t]
        following = advantage[t] = delta + 0.63 * following * (not cut)
    return {
        "log_prob": np.array(found["log_prob"]),
        "value": np.array(found["value"]),
        "advantage": advantage,
    }


# --- what the memory is told ------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("inputs", "reset_memory"), itertools.product(INPUTS, (True, False)))
def test_the_last_action_reward_and_end_reach_the_network(inputs, reset_memory):
    """In the world of one step an episode, whose reward is -1 or 1 by the action."""
    one = made("gru", inputs, reset_memory, reset_memory)
    state = newborn(one.agent, "action")
    after, record = one.rollout(jax.random.key(1), state)
    read = one.samples(state, record, record.reward, 0.9, 0.7).obs
    obs = np.swapaxes(np.asarray(record.obs[:-1]), 0, 1)
    np.testing.assert_array_equal(read.inputs[..., :2], obs)
    np.testing.assert_array_equal(read.reset, np.full((2, 5), reset_memory))
    if inputs == "obs":
        assert read.inputs.shape == (2, 5, 2)
        return
    told = np.asarray(read.inputs[:, :, 2:])
    np.testing.assert_array_equal(told[:, 0], [[0.0, 0.0, 0.0, 1.0]] * 2)  # a life begins
    if reset_memory:
        np.testing.assert_array_equal(told[:, 1:], np.broadcast_to([0.0, 0.0, 0.0, 1.0], (2, 4, 4)))
    else:
        action, reward = np.asarray(record.action[:-1]).T, np.asarray(record.reward[:-1]).T
        np.testing.assert_array_equal(told[:, 1:, :2], np.eye(2)[action])
        np.testing.assert_array_equal(told[:, 1:, 2], reward)
        np.testing.assert_array_equal(reward, 2.0 * action - 1.0)
        np.testing.assert_array_equal(told[:, 1:, 3], 1.0)
        np.testing.assert_array_equal(after.memory.last.action, record.action[-1])


@pytest.mark.slow
@pytest.mark.parametrize("reset_memory", [True, False])
@pytest.mark.parametrize("core", sorted(SMALL))
def test_memory_ends_with_the_episode_or_lasts_for_the_lifetime(core, reset_memory):
    """Episodes of one step: another reward in the first of them is felt later only where memory lasts."""
    one = made(core, "rl2", reset_memory, reset_memory)
    state = newborn(one.agent, "action")
    _, record = one.rollout(jax.random.key(1), state)
    paid = record._replace(reward=record.reward.at[0].add(1.0))
    values = [one.samples(state, told, told.reward, 0.9, 0.7).value for told in (record, paid)]
    np.testing.assert_array_equal(values[0][:, 0], values[1][:, 0])
    assert np.array_equal(values[0][:, 1:], values[1][:, 1:]) == reset_memory
    assert reset_memory or not np.allclose(values[0][:, -1], values[1][:, -1], atol=1e-9, rtol=0.0)


# --- the update -------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("core", "mode"), [("gru", "reverse"), ("s5", "mixed")])
def test_the_meta_gradient_equals_central_differences(core, mode):
    """Of one update, by numbers of the loss and by one of the optimiser; actions stay as they are."""
    with jax.enable_x64(True), differentiate_in(mode):
        agent = agent_in(
            core=dataclasses.replace(SMALL[core], width=4),
            network=TowerNetwork(hidden_sizes=()),
            optimizer=Sgd(learning_rate=0.02),
            num_envs=2,
            minibatches=2,
            rollout_length=4,
            epochs=1,
            outer_loss=True,
        )
        state = newborn(agent, "truncation")

        def updated(numbers: dict[str, jax.Array]) -> Any:
            sgd = Sgd(learning_rate=numbers["learning_rate"])  # type: ignore
            tuned = dataclasses.replace(
                agent, optimizer=sgd, discount=numbers["discount"], entropy=numbers["entropy"]
            )
            return tuned.step(jax.random.key(3), (), state, None)[0]

        def outer(numbers: dict[str, jax.Array]) -> jax.Array:
            evaluation = agent.evaluate(jax.random.key(4), (), updated(numbers), None, None)[1]  # type: ignore
            assert evaluation.loss is not None
            return evaluation.loss

        values = {"learning_rate": 0.02, "discount": 0.9, "entropy": 0.1}
        numbers = {name: jnp.asarray(value) for name, value in values.items()}
        gradient = jax.jit(jax.grad(outer))(numbers)
        constants = agent._outer_samples(jax.random.key(4), jax.jit(updated)(numbers))[1:]
        loss = jax.jit(lambda x: agent._outer_loss(updated(x).params, *constants))
        for name, value in numbers.items():
            high, low = (loss(numbers | {name: value + step}) for step in (1e-6, -1e-6))
            numeric = float(high - low) / 2e-6
            assert float(gradient[name]) == pytest.approx(numeric, rel=1e-5, abs=1e-9), name
            assert numeric != 0.0, name


@pytest.mark.slow
def test_vmapped_equals_single():
    agent = agent_in(core=SMALL["s5"], num_envs=2, minibatches=2, rollout_length=4, epochs=1)
    states = [newborn(agent, "advantage", seed) for seed in (0, 1)]
    keys = jax.random.split(jax.random.key(4), 2)
    live = lambda state, key: agent.step(key, (), state, None)[0]  # noqa: E731
    both = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    together, single = jax.jit(jax.vmap(live))(both, keys), jax.jit(live)(states[1], keys[1])
    for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(single), strict=True):
        np.testing.assert_allclose(a[1], b, rtol=1e-4, atol=1e-5)


# --- what it learns ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_it_finds_what_every_probe_holds():
    agent = as_arrays(agent_in(epochs=2))
    look = jax.jit(lambda params, met: agent._outputs(params, met, agent._heads()))
    for name, state in raised(agent, 300).items():
        # States that begin episodes are met with an empty memory, others after the first.
        begins = jnp.asarray([True, PROBES[name].params.starts == (0, 1)])
        empty = jax.tree.map(lambda leaf: leaf[None], agent.core.empty())
        met = Sequences(empty, PROBE.observations[None], begins[None])
        outputs = look(state.params, met)
        best = np.asarray(PROBES[name].action_values(0.9))
        values = np.asarray(outputs["value"])[0, : len(best), 0]
        np.testing.assert_allclose(values, PROBES[name].values(0.9), rtol=0.05, atol=0.1, err_msg=name)
        policy = np.asarray(jax.nn.softmax(outputs["logits"]))[0]
        for place in np.flatnonzero(best[:, 0] != best[:, 1]):
            assert policy[place, best[place].argmax()] > 0.9, name


def returns_in_chain(agent: PPO, memory_length: int, updates: int, seeds: int) -> np.ndarray:
    """[seeds] mean score of the last episodes over the last ten updates."""
    tasks = GymnaxTasks(
        name="MemoryChain-bsuite", env_params={"memory_length": memory_length}, lifetime=updates
    )
    agent = as_arrays(dataclasses.replace(agent, environment=tasks.environment))

    def live(key: jax.Array) -> jax.Array:
        born_key, live_key = jax.random.split(key)

        def update(state: Any, key: jax.Array) -> tuple[Any, jax.Array]:
            state, _ = agent.step(key, (), state, None)
            return state, agent.assess(key, (), state)["return"]

        state = agent.init(born_key, (), tasks.sample(born_key))
        return jnp.mean(jax.lax.scan(update, state, jax.random.split(live_key, updates))[1][-10:])

    return np.asarray(jax.jit(jax.vmap(live))(jax.random.split(jax.random.key(0), seeds)))


CHAIN = {
    "network": TowerNetwork(hidden_sizes=(16,)),
    "optimizer": Adam(learning_rate=3e-3, eps=1e-5, max_grad_norm=0.5),
    "num_envs": 16,
    "rollout_length": 16,
}


@pytest.mark.parametrize("core", [GRU(width=16), S5(width=16, state_size=16, layers=1)], ids=["gru", "s5"])
@pytest.mark.slow
def test_it_remembers_over_a_chain_of_four(core):
    returns = returns_in_chain(RecurrentPPO(core=core, **CHAIN), 4, 60, 4)
    assert np.all(returns >= 0.9), returns


@pytest.mark.slow
def test_without_a_memory_the_chain_is_a_coin():
    returns = returns_in_chain(PPO(**CHAIN), 4, 60, 4)
    assert np.all(np.abs(returns) < 0.4), returns
