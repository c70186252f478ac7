"""Environment wrappers change what they say and nothing else, compose, and are drawn for each lifetime."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inner_loops.actor_critic import ActorCritic
from inner_loops.critics import NetworkCritic
from inner_loops.environments.base import Environment
from inner_loops.environments.delayed_chain import DelayedChain, DelayedChainParams
from inner_loops.environments.grid_world import GridWorld
from inner_loops.environments.wrappers.base import WrappedParams, Wrapper
from inner_loops.environments.wrappers.costs import Costs
from inner_loops.environments.wrappers.episode_statistics import EpisodeStatistics
from inner_loops.environments.wrappers.permutations import ActionPermutation, ObservationPermutation
from inner_loops.environments.wrappers.projections import ActionProjection, ObservationProjection
from inner_loops.environments.wrappers.sticky_actions import StickyActions
from inner_loops.networks.mlp import MlpNetwork
from inner_loops.tasks.delayed_chains import DelayedChains
from inner_loops.tasks.grid_worlds import GridWorlds
from inner_loops.tasks.hyperparameter_bandit import HyperparameterBandit
from inner_loops.tasks.wrapped_tasks import WrappedTasks
from inner_loops.update_rules.a2c import A2C
from metalab.components import as_arrays, component, static
from metalab.config import build_component, to_config
from metalab.contracts import check_inner
from metalab.errors import ConfigError
from metalab.optimizers import Sgd
from tests.inner_loops.lives import last_scores

STEPS = 12


class PointState(NamedTuple):
    place: jax.Array
    time: jax.Array


@component
class Point(Environment[PointState, jax.Array]):
    """A point in the plane, moved by its action and paid minus its height, until the time limit."""

    limit: int = static(5, doc="steps of an episode")

    @property
    def num_actions(self) -> int:
        raise ValueError("continuous actions")

    @property
    def action_size(self) -> int:
        return 2

    def action_bounds(self, params: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jnp.asarray([-1.0, 0.0]) * params, jnp.asarray([1.0, 3.0]) * params

    @property
    def num_states(self) -> None:
        return None

    @property
    def observation_shape(self) -> tuple[int, ...]:
        return (2,)

    def reset_env(self, noise: Any, params: jax.Array) -> tuple[jax.Array, PointState]:
        place = jax.random.normal(noise, (2,))
        return place, PointState(place, jnp.zeros((), jnp.int32))

    def step_env(self, noise: Any, state: PointState, action: jax.Array, params: jax.Array):
        place, time = state.place + action, state.time + 1
        over = time >= self.limit
        return place, PointState(place, time), -place[1], jnp.zeros((), bool), over, {}


GRIDS = GridWorlds(preset="small", lifetime=10)
PLANES = GridWorlds(preset="random_small", lifetime=10)
CHAIN = DelayedChain(max_length=3)
CHAIN_PARAMS = DelayedChainParams(jnp.asarray(3, jnp.int32), jnp.asarray(1.0, jnp.float32))
POINT, POINT_PARAMS = Point(), jnp.asarray(2.0, jnp.float32)


@functools.cache
def world(name: str) -> tuple[Environment, Any]:
    if name == "chain":
        return CHAIN, CHAIN_PARAMS
    if name == "point":
        return POINT, POINT_PARAMS
    tasks = {"grid": GRIDS, "planes": PLANES}[name]
    return tasks.environment, jax.jit(tasks.sample)(jax.random.key(0)).params.env_params


def random_actions(environment: Environment, key: jax.Array) -> jax.Array:
    if environment.action_size is not None:
        return jax.random.uniform(key, (STEPS, environment.action_size), minval=-1.0)
    return jax.random.randint(key, (STEPS,), 0, environment.num_actions)


@functools.partial(jax.jit, static_argnums=0)
def walk(environment: Environment, params: Any, actions: jax.Array):
    """First observation, and what every step gave."""
    reset_key, *keys = jax.random.split(jax.random.key(7), STEPS + 1)
    obs, state = environment.reset(reset_key, params)

    def body(state, xs):
        key, action = xs
        obs, state, *rest = environment.step(key, state, action, params)
        return state, (obs, *rest)

    return obs, jax.lax.scan(body, state, (jnp.stack(keys), actions))[1]


def same(one, other) -> None:
    chex.assert_trees_all_close(one, other, rtol=1e-6, atol=1e-7)


def inverse(order: jax.Array) -> jax.Array:
    return jnp.argsort(order).astype(jnp.int32)


@pytest.mark.parametrize("name", ["chain", "planes", "point"])
@pytest.mark.parametrize("kind", [Wrapper, ObservationPermutation, ActionPermutation])
def test_the_identity_changes_nothing(name, kind):
    environment, params = world(name)
    wrapped = kind(environment=environment)
    drawn = wrapped.draw(jax.random.key(3))
    own = drawn if isinstance(drawn, tuple) else jnp.arange(drawn.size, dtype=jnp.int32)
    actions = random_actions(environment, jax.random.key(1))
    same(walk(wrapped, WrappedParams(params, own), actions), walk(environment, params, actions))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["chain", "planes", "point"])
@pytest.mark.parametrize("kind", [ObservationPermutation, ActionPermutation])
def test_a_permutation_and_its_inverse_are_nothing(name, kind, seed):
    environment, params = world(name)
    once = kind(environment=environment)
    twice = kind(environment=once)
    own = once.draw(jax.random.key(seed))
    both = WrappedParams(WrappedParams(params, own), inverse(own))
    actions = random_actions(environment, jax.random.key(seed + 10))
    same(walk(twice, both, actions), walk(environment, params, actions))
    if environment.action_size is not None:
        same(twice.action_bounds(both), environment.action_bounds(params))
    else:
        np.testing.assert_array_equal(twice.action_mask(both), environment.action_mask(params))


def test_permuted_observations_are_the_same_entries_elsewhere():
    environment, params = world("planes")
    wrapped = ObservationPermutation(environment=environment)
    own = wrapped.draw(jax.random.key(0))
    actions = random_actions(environment, jax.random.key(1))
    (first, plain), (shown, steps) = (
        walk(environment, params, actions),
        walk(wrapped, WrappedParams(params, own), actions),
    )
    np.testing.assert_array_equal(shown.reshape(-1), first.reshape(-1)[own])
    assert shown.shape == environment.observation_shape
    final = plain[4]["final_observation"].reshape(STEPS, -1)[:, own]
    np.testing.assert_array_equal(steps[4]["final_observation"].reshape(STEPS, -1), final)
    same(steps[1:4], plain[1:4])  # reward, terminated, truncated


def test_permuted_actions_stand_for_others():
    # CHAIN: the first observation is the good action. With the order (1, 0) the other one is good.
    wrapped = ActionPermutation(environment=CHAIN)
    params = WrappedParams(CHAIN_PARAMS, jnp.asarray([1, 0], jnp.int32))
    obs, state = wrapped.reset(jax.random.key(0), params)
    after = wrapped.step_env(wrapped.randomness(jax.random.key(1))[0], state, 1 - obs, params)
    assert int(after[1].chain) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["grid", "chain"])
def test_exact_returns_follow_the_permutations(name):
    """A policy that was permuted like the world has the return that it had in the world."""
    made: Any = world(name)
    environment, params = made
    seen = ObservationPermutation(environment=environment)
    wrapped = ActionPermutation(environment=seen)
    states, actions = (wrapper.draw(jax.random.key(4)) for wrapper in (seen, wrapped))
    both = WrappedParams(WrappedParams(params, states), actions)
    shape = (environment.num_states, environment.num_actions)
    policy = jax.nn.softmax(3.0 * jax.random.normal(jax.random.key(5), shape))
    assert wrapped.exact_return is not None and wrapped.exact_values is not None
    # what is shown as states[s] is s, and the agent's action a is actions[a]
    shown = jnp.zeros_like(policy).at[states].set(policy)[:, actions]
    same(wrapped.exact_return(both, shown), environment.exact_return(params, policy))
    discount = jnp.asarray(0.9)
    values = jnp.zeros(shape[0]).at[states].set(environment.exact_values(params, policy, discount))
    same(wrapped.exact_values(both, shown, discount), values)
    assert wrapped.optimum_known == environment.optimum_known
    same(wrapped.optimal_return(both), environment.optimal_return(params))


def test_projected_observations_are_the_matrix_times_the_entries():
    environment, params = world("planes")
    wrapped = ObservationProjection(environment=environment, size=5)
    own = wrapped.draw(jax.random.key(0))
    assert own.shape == (5, np.prod(environment.observation_shape)) and wrapped.observation_shape == (5,)
    actions = random_actions(environment, jax.random.key(1))
    first, plain = walk(environment, params, actions)
    shown, steps = walk(wrapped, WrappedParams(params, own), actions)
    np.testing.assert_allclose(shown, own @ first.reshape(-1), rtol=1e-5, atol=1e-6)
    final = plain[4]["final_observation"].reshape(STEPS, -1) @ own.T
    np.testing.assert_allclose(steps[4]["final_observation"], final, rtol=1e-5, atol=1e-6)


def test_a_projected_state_index_is_its_own_vector_of_length_about_one():
    wrapped = ObservationProjection(environment=CHAIN, size=400)
    own = wrapped.draw(jax.random.key(0))
    obs, _ = wrapped.reset(jax.random.key(1), WrappedParams(CHAIN_PARAMS, own))
    index, _ = CHAIN.reset(jax.random.key(1), CHAIN_PARAMS)
    np.testing.assert_array_equal(obs, own[:, index])
    assert wrapped.num_states is None
    # squared lengths have mean 1 and deviation sqrt(2 / 400) = 0.07
    np.testing.assert_allclose(jnp.sum(jnp.square(own), axis=0), 1.0, atol=0.3)


def test_projected_actions_are_scaled_to_the_bounds_and_clipped():
    # Bounds are -2 to 2 and 0 to 6: (0.5, -0.5) times the matrix is (-0.5, 1.5), that is -1 and clipped to 6.
    wrapped = ActionProjection(environment=POINT)
    params = WrappedParams(POINT_PARAMS, jnp.asarray([[0.0, 1.0], [3.0, 0.0]]))
    same(wrapped.action_bounds(params), (-jnp.ones(2), jnp.ones(2)))
    _, state = wrapped.reset(jax.random.key(0), params)
    obs = wrapped.step_env(jax.random.key(1), state, jnp.asarray([0.5, -0.5]), params)[0]
    np.testing.assert_allclose(obs - state.place, [-1.0, 6.0], atol=1e-6)
    wide = ActionProjection(environment=POINT, size=7)
    assert wide.action_size == 7 and wide.draw(jax.random.key(2)).shape == (2, 7)


@pytest.mark.parametrize("name", ["chain", "point"])
def test_sticky_actions_repeat_the_last_one_but_not_across_episodes(name):
    environment, params = world(name)
    wrapped = StickyActions(environment=environment)
    actions = random_actions(environment, jax.random.key(1))
    never, always = (WrappedParams(params, jnp.asarray(p, jnp.float32)) for p in (0.0, 1.0))
    reset_key, *keys = jax.random.split(jax.random.key(7), STEPS + 1)
    for given, expected in ((never, "own"), (always, "first")):
        _, state = wrapped.reset(reset_key, given)
        current: Any = None
        for key, action in zip(keys, actions, strict=True):
            new_episode = not bool(state.acted)
            current = action if expected == "own" or new_episode else current
            noise = wrapped.randomness(key)[0]
            inner = environment.step_env(noise[1], state.inner, current, params)
            same(wrapped.step_env(noise, state, action, given)[0], inner[0])
            state = wrapped.step(key, state, action, given)[1]


def test_sticky_actions_repeat_as_often_as_they_should():
    wrapped = StickyActions(environment=POINT, probability=0.3)
    params = wrapped.wrapped_params(jax.random.key(0), POINT_PARAMS)
    _, state = wrapped.reset(jax.random.key(1), params)
    state = state._replace(acted=jnp.ones((), bool), action=jnp.asarray([9.0, 9.0]))

    def repeated(key):
        noise = wrapped.randomness(key)[0]
        return wrapped.step_env(noise, state, jnp.zeros(2), params)[1].action[0] == 9.0

    share = jax.vmap(repeated)(jax.random.split(jax.random.key(2), 4000)).mean()
    assert float(share) == pytest.approx(0.3, abs=4 * np.sqrt(0.21 / 4000))
    assert wrapped.exact_return is None and not wrapped.optimum_known


def test_costs_are_excesses_by_name():
    inner = Costs(environment=POINT, measures=("reward",), thresholds=(0.5,))
    wrapped = Costs(
        environment=inner,
        measures=("observation.0", "action", "action.1", "observation.0:2"),
        thresholds=(1.0, 2.0, 10.0, 1.5),
    )
    params = wrapped.wrapped_params(jax.random.key(0), inner.wrapped_params(jax.random.key(0), POINT_PARAMS))
    assert wrapped.num_costs == 5
    state = PointState(jnp.asarray([-4.0, 1.0]), jnp.zeros((), jnp.int32))
    info = wrapped.step_env(jax.random.key(1), state, jnp.asarray([3.0, 4.0]), params)[5]
    # it arrives at (-1, 5): reward -5, turned, less 0.5; |-1| is not above 1; length 5 less 2; 4 < 10;
    # the largest size of -1 and 5 less 1.5
    np.testing.assert_allclose(info["cost"], [4.5, 0.0, 3.0, 0.0, 3.5])


def test_a_cost_may_be_an_indicator_and_count_a_discrete_action():
    wrapped = Costs(environment=CHAIN, measures=("action.1",), thresholds=(0.5,), indicator=True)
    params = wrapped.wrapped_params(jax.random.key(0), CHAIN_PARAMS)
    actions = jnp.arange(STEPS) % 2
    steps = walk(wrapped, params, actions)[1]
    np.testing.assert_array_equal(steps[4]["cost"][:, 0], actions)


def test_the_cost_of_an_episodes_last_step_is_that_of_its_final_observation():
    wrapped = Costs(environment=POINT, measures=("observation.0",), thresholds=(0.0,))
    params = wrapped.wrapped_params(jax.random.key(0), POINT_PARAMS)
    steps = walk(wrapped, params, random_actions(POINT, jax.random.key(1)))[1]
    assert bool(steps[3][4])  # cut off after five steps
    np.testing.assert_allclose(steps[4]["cost"][:, 0], np.abs(steps[4]["final_observation"][:, 0]), rtol=1e-6)


def test_statistics_are_sums_over_the_episode():
    costly = Costs(environment=POINT, measures=("action",), thresholds=(0.0,))
    wrapped = EpisodeStatistics(environment=costly)
    params = wrapped.wrapped_params(jax.random.key(0), costly.wrapped_params(jax.random.key(0), POINT_PARAMS))
    _, (_, reward, _, truncated, info) = walk(wrapped, params, random_actions(POINT, jax.random.key(1)))
    np.testing.assert_array_equal(np.flatnonzero(truncated), [4, 9])
    np.testing.assert_array_equal(info["episode_length"], [*range(1, 6), *range(1, 6), 1, 2])
    for start, end in ((0, 5), (5, 10), (10, 12)):
        total = np.cumsum(reward[start:end])
        np.testing.assert_allclose(info["episode_score"][start:end], total, rtol=1e-5)
        cost = np.cumsum(info["cost"][start:end], axis=0)
        np.testing.assert_allclose(info["episode_cost"][start:end], cost, rtol=1e-5)


def test_the_score_of_a_noisy_chain_is_counted_without_its_noise():
    wrapped = EpisodeStatistics(environment=CHAIN)
    params = wrapped.wrapped_params(jax.random.key(0), CHAIN_PARAMS)
    _, (_, _, terminated, _, info) = walk(wrapped, params, random_actions(CHAIN, jax.random.key(1)))
    assert set(np.asarray(info["episode_score"][np.asarray(terminated)]).tolist()) <= {1.0, -1.0}
    assert "episode_cost" not in info


STACK = (
    ObservationPermutation(),
    Costs(measures=("action.0",), thresholds=(0.5,)),
    StickyActions(probability=0.5),
    ActionPermutation(),
    EpisodeStatistics(),
)


@pytest.mark.parametrize("tasks", [GRIDS, DelayedChains(lengths=(2, 3), max_length=3)], ids=["grid", "chain"])
def test_a_stack_under_vmap_equals_single_worlds(tasks):
    wrapped = WrappedTasks(tasks=tasks, wrappers=STACK)
    environment = wrapped.environment
    worlds = jax.jit(jax.vmap(wrapped.sample))(jax.random.split(jax.random.key(0), 3)).params.env_params
    actions = random_actions(environment, jax.random.key(1))
    together = jax.vmap(lambda params: walk(environment, params, actions))(worlds)
    for index in range(3):
        params = jax.tree.map(lambda leaf: leaf[index], worlds)  # noqa: B023
        alone = walk(environment, params, actions)
        same(jax.tree.map(lambda leaf: leaf[index], together), alone)  # noqa: B023


def test_every_lifetime_draws_its_own_and_a_seed_always_the_same():
    chains = DelayedChains(lengths=(3, 5), max_length=5)
    wrapped = WrappedTasks(tasks=chains, wrappers=(ObservationPermutation(), ObservationProjection(size=4)))
    drawn = jax.vmap(wrapped.sample)(jax.random.split(jax.random.key(0), 4)).params.env_params
    orders, matrices = drawn.inner.own, drawn.own
    assert len({tuple(order) for order in np.asarray(orders).tolist()}) == 4
    assert matrices.shape == (4, 4, chains.environment.num_states)
    fixed = [wrapped.sample_set(jax.random.key(3), 5) for _ in range(2)]
    chex.assert_trees_all_equal(*fixed)
    np.testing.assert_array_equal(fixed[0].params.env_params.inner.inner.length, [3, 5, 3, 5, 3])
    assert wrapped.num_kinds == chains.num_kinds


def test_worlds_that_differ_in_their_wrappers_numbers_share_a_program():
    one, two = (WrappedTasks(tasks=GRIDS, wrappers=(StickyActions(probability=p),)) for p in (0.1, 0.9))
    assert jax.tree.structure(one) == jax.tree.structure(two)
    assert one.environment == two.environment and hash(one.environment) == hash(two.environment)
    assert jax.tree.leaves(one.environment) == []


@pytest.mark.parametrize(
    "wrappers",
    [
        (ObservationPermutation(), ActionPermutation()),
        (StickyActions(), Costs(measures=("reward",)), EpisodeStatistics()),
    ],
    ids=["permuted", "sticky"],
)
def test_a_tabular_agent_lives_in_wrapped_worlds(wrappers):
    tasks = WrappedTasks(tasks=GRIDS, wrappers=wrappers)
    agent = ActorCritic(rule=A2C(), environment=tasks.environment, num_envs=2, rollout_length=3)
    check_inner(agent, tasks)
    check_inner(agent, HyperparameterBandit(tasks=tasks))


@pytest.mark.slow
def test_a_network_agent_learns_in_projected_chains():
    """Random vectors of the chain's indices: as good a world for a network as one-hot vectors."""
    tasks = WrappedTasks(
        tasks=DelayedChains(lengths=(3,), max_length=3), wrappers=(ObservationProjection(size=12),)
    )
    agent = as_arrays(
        ActorCritic(
            rule=A2C(),
            network=MlpNetwork(hidden_sizes=(16,)),
            critic=NetworkCritic(),
            environment=tasks.environment,
            optimizer=Sgd(learning_rate=1.0),
        )
    )
    assert jnp.mean(last_scores(agent, tasks, updates=60, seeds=3)) > 0.7


def test_a_list_of_wrappers_in_a_file_is_built_and_written_out():
    config = {
        "kind": "wrapped_tasks",
        "tasks": {"kind": "delayed_chains", "noise": 1.0},
        "wrappers": [{"kind": "observation_permutation"}, {"kind": "sticky_actions", "probability": 0.1}],
    }
    built = build_component(config, "tasks", "tasks")
    assert built.wrappers == (ObservationPermutation(), StickyActions(probability=0.1))
    written = to_config(built, "tasks")
    assert [one["kind"] for one in written["wrappers"]] == ["observation_permutation", "sticky_actions"]
    assert build_component(written, "tasks", "tasks") == built


@pytest.mark.parametrize(
    ("wrappers", "message"),
    [
        ({"kind": "costs"}, "tasks.wrappers: expected a list of components [{kind: ...}, ...], got {'kind'"),
        ([{"kind": "stick_actions"}], "tasks.wrappers[0].kind: unknown environment 'stick_actions'; did you"),
        ([{"kind": "gymnax"}], "GymnaxEnvironment is no wrapper"),
        ([{"kind": "costs", "measures": ["speed"]}], "'speed' is none of observation.I, observation.I:J"),
        ([{"kind": "costs", "measures": ["observation.2:2"]}], "'observation.2:2' is none of observation.I,"),
        ([{"kind": "costs", "thresholds": [0, 1]}], "thresholds: 2 given for 1 measures (action); give one"),
        (
            [{"kind": "costs", "environment": {"kind": "delayed_chain"}}],
            "Costs has an environment of its own; leave it out",
        ),
        ([{"kind": "sticky_actions", "probability": 1.5}], "tasks.wrappers[0].probability: 1.5 is out of"),
    ],
)
def test_a_mistake_in_a_file_is_one_line(wrappers, message):
    config = {"kind": "wrapped_tasks", "tasks": {"kind": "delayed_chains"}, "wrappers": wrappers}
    with pytest.raises(ConfigError) as caught:
        build_component(config, "tasks", "tasks")
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_what_does_not_fit_the_world_is_refused_by_name():
    with pytest.raises(ValueError, match=r"actions of .* are discrete; use action_permutation"):
        ActionProjection(environment=CHAIN).draw(jax.random.key(0))
    with pytest.raises(ValueError, match="StickyActions wraps nothing"):
        _ = StickyActions().num_actions
    with pytest.raises(TypeError, match=r"got the parameters of another environment \(DelayedChainParams\)"):
        StickyActions(environment=CHAIN).reset(jax.random.key(0), CHAIN_PARAMS)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="adapts; put it around the wrapped tasks"):
        WrappedTasks(tasks=HyperparameterBandit(tasks=GRIDS))  # pyright: ignore[reportArgumentType]
    for measure, environment, message in (
        ("observation.2", POINT, "there are 2 entries"),
        ("observation.0:3", POINT, "there are 2 entries"),
        ("observation.0", CHAIN, "it is no vector"),
        ("action.2", CHAIN, "there are 2 actions"),
        ("action.2", POINT, "there are 2 entries"),
        ("action", CHAIN, "it is no vector"),
    ):
        wrapped = Costs(environment=environment, measures=(measure,))
        params = wrapped.wrapped_params(
            jax.random.key(0), world("point" if environment is POINT else "chain")[1]
        )
        actions = random_actions(environment, jax.random.key(1))
        with pytest.raises(ValueError, match=message):
            walk(wrapped, params, actions)


def test_grid_worlds_keep_their_masks_under_permuted_actions():
    environment = GridWorld(actions="mixed", num_objects=1)
    wrapped = ActionPermutation(environment=environment)
    own = wrapped.draw(jax.random.key(0))
    params = world("grid")[1]._replace(collects=jnp.zeros((), bool))
    allowed = wrapped.action_mask(WrappedParams(params, own))
    np.testing.assert_array_equal(allowed, np.asarray(own) < 9)
