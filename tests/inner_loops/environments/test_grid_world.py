import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inner_loops.environments.grid_world import GridWorld, GridWorldParams
from inner_loops.environments.grid_world_planning import action_values, optimal_value

# The world of the hand-worked tests, cells numbered row by row:
#   0 A   1 .   2 o0        A: start, #: wall, o0: pays 1 and reappears, o1: pays -2 and ends the episode
#   3 #   4 .   5 o1
STAY, UP, RIGHT, DOWN, LEFT = range(5)


def world(**changes) -> GridWorldParams:
    fields = {
        "walls": jnp.array([False, False, False, True, False, False]),
        "positions": jnp.array([2, 5], jnp.int32),
        "reward": jnp.array([1.0, -2.0]),
        "eps_term": jnp.array([0.0, 1.0]),
        "eps_respawn": jnp.array([1.0, 0.0]),
        "present": jnp.array([True, True]),
        "start": jnp.asarray(0, jnp.int32),
        "max_steps": jnp.asarray(100, jnp.int32),
        "collects": jnp.asarray(True),
    }
    return GridWorldParams(**(fields | changes))


def environment(actions="compass", **changes) -> GridWorld:
    return GridWorld(**({"max_height": 2, "max_width": 3, "num_objects": 2, "actions": actions} | changes))


@functools.partial(jax.jit, static_argnums=0)
def step_of(env, key, state, action, params):
    return env.step(key, state, action, params)


def walk(env, params, actions, seed=0):
    """(cell, objects, reward, terminated, truncated) before the reset, one row a step."""
    _, state = env.reset(jax.random.key(seed), params)
    rows = []
    for action, key in zip(actions, jax.random.split(jax.random.key(seed), len(actions)), strict=True):
        _, state, reward, terminated, truncated, info = step_of(env, key, state, jnp.asarray(action), params)
        index = int(info["final_observation"])
        rows.append((index // 4, index % 4, float(reward), bool(terminated), bool(truncated)))
    return rows


def test_moves_walls_and_borders_by_hand():
    rows = walk(environment(), world(), [STAY, UP, LEFT, DOWN, RIGHT, DOWN, LEFT])
    # up and left meet the border, down from 0 and left from 4 meet the wall at 3; both objects are there (3)
    assert rows == [(cell, 3, 0.0, False, False) for cell in (0, 0, 0, 0, 1, 4, 4)]


def test_object_pays_is_absent_once_and_reappears_under_the_agent():
    rows = walk(environment(), world(), [RIGHT, RIGHT, STAY, STAY, LEFT])
    assert rows == [
        (1, 3, 0.0, False, False),
        (2, 2, 1.0, False, False),  # collected: bit 0 is gone although eps_respawn is 1
        (2, 3, 0.0, False, False),  # absent before this step, so nothing to collect; reappears
        (2, 2, 1.0, False, False),  # there before this step: staying collects it
        (1, 3, 0.0, False, False),
    ]


def test_terminating_object_resets_and_final_observation_is_kept():
    env = environment()
    _, state = env.reset(jax.random.key(0), world(start=jnp.asarray(4, jnp.int32)))
    out = step_of(env, jax.random.key(1), state, jnp.asarray(RIGHT), world())
    obs, new_state, reward, terminated, truncated, info = out
    assert (float(reward), bool(terminated), bool(truncated)) == (-2.0, True, False)
    assert float(info["score"]) == -2.0
    assert int(info["final_observation"]) == 5 * 4 + 1  # cell 5, only o0 left
    assert int(obs) == 0 * 4 + 3  # the next episode: start, both objects
    assert (int(new_state.cell), int(new_state.time), new_state.objects.tolist()) == (0, 0, [True, True])


def test_termination_and_reappearance_have_their_probabilities():
    env = environment()
    params = world(eps_term=jnp.array([0.3, 1.0]), eps_respawn=jnp.array([0.0, 0.2]))
    state = env.reset(jax.random.key(0), params)[1]._replace(
        cell=jnp.asarray(1, jnp.int32), objects=jnp.array([True, False])
    )
    step = jax.jit(jax.vmap(lambda key: env.step(key, state, jnp.asarray(RIGHT), params)))
    _, _, reward, terminated, _, info = step(jax.random.split(jax.random.key(2), 4000))
    assert np.all(reward == 1.0)
    assert abs(np.mean(terminated) - 0.3) < 0.03  # 4 standard errors
    assert abs(np.mean((info["final_observation"] % 4) == 2) - 0.2) < 0.026


def test_time_limit_truncates_and_termination_comes_first():
    params = world(max_steps=jnp.asarray(3, jnp.int32))
    assert [row[3:] for row in walk(environment(), params, [STAY] * 4)] == [
        (False, False),
        (False, False),
        (False, True),
        (False, False),  # a new episode
    ]
    assert walk(environment(), params, [RIGHT, DOWN, RIGHT])[-1][3:] == (True, False)


def test_padding_object_is_never_there():
    params = world(present=jnp.array([False, True]), eps_respawn=jnp.array([1.0, 0.0]))
    assert walk(environment(), params, [RIGHT, RIGHT, STAY])[1:] == [(2, 2, 0.0, False, False)] * 2


def test_nine_moves():
    # offsets row by row: 8 is down-right, 2 is up-right, 4 stays; diagonals squeeze past the wall at 3
    rows = walk(environment("move"), world(), [8, 2, 4, 4, 6])
    assert [row[0] for row in rows] == [4, 2, 2, 2, 4]
    assert [row[2] for row in rows] == [0.0, 1.0, 0.0, 1.0, 0.0]


def test_collecting_is_an_action_of_its_own():
    env = environment("move_and_collect")
    rows = walk(env, world(), [5, 5, 13, 13, 4, 3, 9 + 5, 9 + 8])
    assert [row[:4] for row in rows] == [
        (1, 3, 0.0, False),
        (2, 3, 0.0, False),  # entering collects nothing
        (2, 2, 1.0, False),  # 13 = 9 + 4 collects at the own cell
        (2, 3, 0.0, False),  # absent before the step
        (2, 3, 0.0, False),  # staying collects nothing
        (1, 3, 0.0, False),
        (1, 2, 1.0, False),  # collects to the right without moving
        (1, 1, -2.0, True),  # down-right: o1; meanwhile o0 is back
    ]
    assert walk(env, world(), [9])[0] == (0, 3, 0.0, False, False)  # beyond the border: nothing


def test_mixed_worlds_have_nine_or_eighteen_actions():
    env = environment("mixed")
    assert env.action_mask(world()).tolist() == [True] * 18
    nine = world(collects=jnp.asarray(False))
    assert env.action_mask(nine).tolist() == [True] * 9 + [False] * 9
    actions = [5, 5, 4, 4, 6]
    assert walk(env, nine, actions) == walk(environment("move"), nine, actions)
    actions = [5, 5, 13, 13, 3, 14]
    assert walk(env, world(), actions) == walk(environment("move_and_collect"), world(), actions)


def reference_value(env, params, horizon, policy=None):
    """The recursion written out over pairs of sets: slow, and shares no code with the planner.

    ``policy`` [S, A]; None: the best action.
    """
    moves = {"compass": [(0, 0), (-1, 0), (0, 1), (1, 0), (0, -1)]}.get(
        env.actions, list(itertools.product((-1, 0, 1), repeat=2))
    )
    positions, rewards = np.asarray(params.positions), np.asarray(params.reward, float)
    eps_term, eps_respawn = np.asarray(params.eps_term, float), np.asarray(params.eps_respawn, float)
    walls, num_objects = np.asarray(params.walls), len(rewards)

    def target(cell, offset):
        row, column = cell // env.max_width + offset[0], cell % env.max_width + offset[1]
        inside = 0 <= row < env.max_height and 0 <= column < env.max_width
        return row * env.max_width + column if inside else None

    @functools.cache
    def value(cell, objects, left):
        if left == 0:
            return 0.0
        returns = []
        for action in range(env.num_actions):
            place = target(cell, moves[action % len(moves)])
            moved = cell if place is None or walls[place] else place
            reach = moved
            if env.actions == "move_and_collect":
                moved, reach = (cell, place) if action >= 9 else (moved, None)
            hit = [i for i in range(num_objects) if i in objects and positions[i] == reach]
            reward, goes_on = sum(rewards[hit]), np.prod(1 - eps_term[hit])
            absent = [i for i in range(num_objects) if i not in objects]
            future = 0.0
            for size in range(len(absent) + 1):
                for back in itertools.combinations(absent, size):
                    chance = np.prod([eps_respawn[i] if i in back else 1 - eps_respawn[i] for i in absent])
                    if chance > 0:
                        future += chance * value(moved, (objects - set(hit)) | set(back), left - 1)
            returns.append(reward + goes_on * future)
        if policy is None:
            return max(returns)
        return float(policy[cell * 2**num_objects + sum(2**i for i in objects)] @ np.array(returns))

    return value(int(params.start), frozenset(range(num_objects)), horizon)


PLANNED = [
    (
        actions,
        world(
            eps_term=jnp.array([0.1, 0.5]),
            eps_respawn=jnp.array([0.6, 1.0]),
            reward=jnp.array([1.0, reward]),
            max_steps=jnp.asarray(7, jnp.int32),
        ),
    )
    for actions, reward in (("compass", -2.0), ("move", 0.4), ("move_and_collect", 0.4))
]


@pytest.mark.parametrize(("actions", "params"), PLANNED)
def test_planning_is_the_written_out_recursion(actions, params):
    env = environment(actions)
    optimal = reference_value(env, params, 7)
    assert optimal > 0.5
    np.testing.assert_allclose(env.optimal_return(params), optimal, rtol=1e-5)
    policy = jax.nn.softmax(jax.random.normal(jax.random.key(5), (24, env.num_actions)))
    expected = reference_value(env, params, 7, np.asarray(policy, float))
    np.testing.assert_allclose(env.exact_return(params, policy), expected, rtol=1e-5)


def rollouts(env, params, choose, episodes=2000, seed=0):
    """Mean score of an episode and its standard error; ``choose(key, time, obs)`` gives actions."""

    def episode(key):
        def body(carry, inputs):
            obs, state, alive = carry
            time, key = inputs
            act_key, step_key = jax.random.split(key)
            action = choose(act_key, time, obs)
            obs, state, _, terminated, truncated, info = env.step(step_key, state, action, params)
            return (obs, state, alive & ~(terminated | truncated)), jnp.where(alive, info["score"], 0.0)

        horizon = int(params.max_steps)
        reset_key, run_key = jax.random.split(key)
        start = (*env.reset(reset_key, params), jnp.asarray(True))
        inputs = (jnp.arange(horizon), jax.random.split(run_key, horizon))
        return jax.lax.scan(body, start, inputs)[1].sum()

    scores = np.asarray(jax.jit(jax.vmap(episode))(jax.random.split(jax.random.key(seed), episodes)))
    return scores.mean(), scores.std() / np.sqrt(episodes)


@pytest.mark.parametrize(("actions", "params"), PLANNED[2:])
def test_returns_are_those_of_rollouts(actions, params):
    env = environment(actions)
    policy = jax.nn.softmax(jax.random.normal(jax.random.key(5), (24, env.num_actions)))
    mean, error = rollouts(env, params, lambda key, _, obs: jax.random.categorical(key, jnp.log(policy[obs])))
    assert abs(mean - float(env.exact_return(params, policy))) < 4 * error
    # the greedy policy of the values with the steps left attains the optimum
    model = env.model(params)
    horizon = int(params.max_steps)

    @jax.jit
    @jax.vmap
    def greedy_at(time):
        return action_values(model, optimal_value(model, horizon - 1 - time)).argmax(-1).reshape(-1)

    greedy = greedy_at(jnp.arange(horizon))
    mean, error = rollouts(env, params, lambda _, time, obs: greedy[time, obs])
    assert abs(mean - float(env.optimal_return(params))) < 4 * error
    assert float(env.optimal_return(params)) >= float(env.exact_return(params, policy))


def test_planning_respects_the_mask_and_padding():
    env = environment("mixed")
    params = PLANNED[1][1]
    nine = params._replace(collects=jnp.asarray(False))
    np.testing.assert_allclose(env.optimal_return(nine), environment("move").optimal_return(nine), rtol=1e-6)
    separate = environment("move_and_collect").optimal_return(params)
    np.testing.assert_allclose(env.optimal_return(params), separate, rtol=1e-6)
    uniform = jnp.tile(jnp.where(env.action_mask(nine), 1 / 9, 0.0), (24, 1))
    assert np.isfinite(env.exact_return(nine, uniform))
    alone = nine._replace(present=jnp.array([True, False]))
    # a padding object that is back at once and pays a fortune changes nothing
    padded = alone._replace(reward=jnp.array([1.0, 1e6]), eps_respawn=jnp.array([0.6, 1.0]))
    np.testing.assert_allclose(env.optimal_return(padded), env.optimal_return(alone), rtol=1e-6)


def test_planes_show_types_agent_and_walls():
    env = environment(observation="planes")
    assert (env.observation_shape, env.num_states) == ((2, 3, 4), None)
    obs, _ = env.reset(jax.random.key(0), world())
    expected = np.zeros((2, 3, 4), np.float32)
    expected[0, 2, 0] = expected[1, 2, 1] = expected[0, 0, 2] = expected[1, 0, 3] = 1.0
    np.testing.assert_array_equal(obs, expected)
    shared, _ = environment(observation="planes", object_types=(0, 0)).reset(jax.random.key(0), world())
    np.testing.assert_array_equal(shared[..., 0], expected[..., 0] + expected[..., 1])
    assert shared.shape == (2, 3, 3)


def test_random_positions_are_legal_uniform_and_drawn_for_each_episode():
    env = environment(observation="planes", random_positions=True)
    _, state = jax.jit(jax.vmap(lambda key: env.reset(key, world())))(
        jax.random.split(jax.random.key(0), 3000)
    )
    places = np.asarray(state.positions)
    assert set(places.ravel().tolist()) == {1, 2, 4, 5}  # neither the start 0 nor the wall 3
    assert np.all(places[:, 0] != places[:, 1])
    # all 12 ordered pairs equally often: 250 +- 15 each
    _, counts = np.unique(places @ np.array([10, 1]), return_counts=True)
    assert len(counts) == 12
    np.testing.assert_allclose(counts, 250, atol=61)


def test_reappears_on_a_random_free_cell():
    env = environment(observation="planes", random_positions=True)
    _, state = env.reset(jax.random.key(0), world())
    state = state._replace(
        positions=jnp.array([2, 5], jnp.int32),
        objects=jnp.array([False, True]),
        cell=jnp.asarray(1, jnp.int32),
    )
    step = jax.jit(jax.vmap(lambda key: env.step(key, state, jnp.asarray(STAY), world())[1]))
    after = step(jax.random.split(jax.random.key(1), 400))
    assert np.all(after.objects)
    assert set(np.asarray(after.positions[:, 0]).tolist()) == {
        0,
        2,
        4,
    }  # not the agent's 1, the wall 3, o1's 5
    assert np.all(after.positions[:, 1] == 5)


def test_refusals():
    with pytest.raises(ValueError, match="random_positions=True with observation='index'"):
        environment(random_positions=True)
    with pytest.raises(ValueError, match="object_types"):
        environment(object_types=(0,))
    with pytest.raises(ValueError, match="too many states to plan over"):
        environment(random_positions=True, observation="planes").optimal_return(world())
    with pytest.raises(ValueError, match="no exact return of a table"):
        environment(observation="planes").exact_return(world(), jnp.ones((24, 5)))


def test_vmapped_is_single():
    env = environment()
    worlds = jax.tree.map(lambda *x: jnp.stack(x), *(params for _, params in PLANNED))
    keys = jax.random.split(jax.random.key(0), 3)

    def life(key, params):
        obs, state = env.reset(key, params)
        action = jnp.asarray(RIGHT)
        return obs, env.step(key, env.step(key, state, action, params)[1], action, params)

    def both(key, params):
        return life(key, params), env.optimal_return(params)

    together, single = jax.jit(jax.vmap(both))(keys, worlds), jax.jit(both)
    for index in range(3):
        alone = single(keys[index], jax.tree.map(lambda x, i=index: x[i], worlds))
        jax.tree.map(lambda a, b, i=index: np.testing.assert_allclose(a[i], b, rtol=1e-6), together, alone)
