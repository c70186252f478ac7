import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inner_loops.tasks.agent_task import AgentTaskDistribution
from inner_loops.tasks.delayed_chains import DelayedChains
from inner_loops.tasks.grid_worlds import GridWorlds
from inner_loops.tasks.hyperparameter_bandit import BanditTicket, HyperparameterBandit
from metalab.protocols import AdaptiveTaskDistribution

BANDIT = HyperparameterBandit(
    tasks=DelayedChains(), learning_rate=(1.0, 2.0), target_weight=(0.5,), discount=(0.9, 0.8)
)


def tell(memory, arms, scores, ended=None, kinds=None, bandit=BANDIT):
    count = len(arms)
    tickets = BanditTicket(
        jnp.asarray(kinds if kinds is not None else [0] * count, jnp.int32), jnp.asarray(arms, jnp.int32)
    )
    over = jnp.asarray([True] * count if ended is None else ended)
    return jax.jit(HyperparameterBandit.update)(bandit, memory, tickets, jnp.asarray(scores), over)


def test_probabilities_by_hand():
    # arm 0: returns 0 and 4, mean 2; arm 1: return 8. Lowest 0, highest 8, so R = 1/4 and 1
    memory = tell(BANDIT.init_memory(), [0, 1, 0], [0.0, 8.0, 4.0])
    expected = [[(0.25 + 0.2 / np.sqrt(2)) / 0.1, (1.0 + 0.2) / 0.1]]
    np.testing.assert_allclose(BANDIT.logits(memory), expected, rtol=1e-6)


def test_untried_arm_counts_as_the_best_with_one_lifetime():
    memory = BANDIT.init_memory()
    np.testing.assert_allclose(BANDIT.logits(memory), [[12.0, 12.0]], rtol=1e-6)
    memory = tell(memory, [0, 0], [1.0, 3.0])  # arm 0: R = 1/2, N = 2; arm 1: R = 1, N = 1
    expected = [[(0.5 + 0.2 / np.sqrt(2)) / 0.1, 12.0]]
    np.testing.assert_allclose(BANDIT.logits(memory), expected, rtol=1e-6)


def test_only_finished_lifetimes_and_finite_scores_count():
    memory = tell(BANDIT.init_memory(), [0, 1, 1], [5.0, 7.0, jnp.nan], ended=[True, False, True])
    assert memory.lifetimes.tolist() == [[1, 0]]
    assert (memory.lowest.tolist(), memory.highest.tolist()) == ([5.0], [5.0])


def test_returns_of_several_slots_at_once_are_those_one_by_one_and_the_last_ten_are_kept():
    arms, scores = [0, 1, 0, 0] * 5, np.arange(20.0)
    together = tell(BANDIT.init_memory(), arms, scores)
    single = BANDIT.init_memory()
    for arm, score in zip(arms, scores, strict=True):
        single = tell(single, [arm], [score])
    jax.tree.map(np.testing.assert_array_equal, together, single)
    assert together.lifetimes.tolist() == [[15, 5]]
    last_ten = [score for arm, score in zip(arms, scores, strict=True) if arm == 0][-10:]
    assert sorted(together.returns[0, 0].tolist()) == last_ten


def test_kinds_have_tables_and_scales_of_their_own():
    bandit = HyperparameterBandit(
        tasks=GridWorlds(preset="paper_tabular"), learning_rate=(1.0, 2.0), target_weight=()
    )
    assert (bandit.num_kinds, bandit.num_arms) == (5, 2)
    memory = tell(
        bandit.init_memory(), [0, 1, 0, 1], [0.0, 1.0, 300.0, 100.0], kinds=[1, 1, 4, 4], bandit=bandit
    )
    logits = np.asarray(bandit.logits(memory))
    np.testing.assert_allclose(logits[1], [2.0, 12.0], rtol=1e-6)
    np.testing.assert_allclose(logits[4], [12.0, 2.0], rtol=1e-6)
    np.testing.assert_allclose(logits[0], [12.0, 12.0], rtol=1e-6)


def test_learns_to_prefer_the_better_arm():
    @jax.jit
    def live(memory, key):
        draw_key, noise_key = jax.random.split(key)
        task, tickets = jax.vmap(BANDIT.sample_from, (0, None))(jax.random.split(draw_key, 8), memory)
        noise = 0.2 * jax.random.normal(noise_key, (8,))
        scores = jnp.where(task.params.hyper["learning_rate"] == 2.0, 1.0, 0.0) + noise
        return BANDIT.update(memory, tickets, scores, jnp.ones(8, bool)), tickets.arm

    _, arms = jax.lax.scan(live, BANDIT.init_memory(), jax.random.split(jax.random.key(0), 30))
    assert np.mean(np.asarray(arms)[10:] == 1) > 0.9
    assert np.mean(np.asarray(arms)[0] == 1) < 1.0


def test_hyperparameters_are_those_of_the_ticket():
    bandit = HyperparameterBandit(
        tasks=DelayedChains(), learning_rate=(1.0, 2.0, 3.0), target_weight=(0.1, 0.2)
    )
    keys = jax.random.split(jax.random.key(0), 300)
    task, ticket = jax.jit(jax.vmap(bandit.sample_from, (0, None)))(keys, bandit.init_memory())
    hyper = {name: np.asarray(values) for name, values in task.params.hyper.items()}
    assert set(hyper) == {"learning_rate", "target_weight", "discount", "policy_entropy"}
    arm = np.asarray(ticket.arm)
    assert set(arm.tolist()) == set(range(6))
    np.testing.assert_allclose(hyper["learning_rate"], np.array([1.0, 2.0, 3.0])[arm // 2])
    np.testing.assert_allclose(hyper["target_weight"], np.array([0.1, 0.2], np.float32)[arm % 2])
    assert set(hyper["discount"].tolist()) == set(np.array([0.997, 0.995, 0.99], np.float32).tolist())
    assert set(hyper["policy_entropy"].tolist()) == set(np.array([0.01, 0.02], np.float32).tolist())


def test_what_is_left_empty_is_the_agents_own():
    bandit = HyperparameterBandit(tasks=DelayedChains(), target_weight=(), discount=(), policy_entropy=())
    task, _ = bandit.sample_from(jax.random.key(0), bandit.init_memory())
    assert set(task.params.hyper) == {"learning_rate"}
    assert bandit.sample(jax.random.key(0)).params.hyper == {}
    assert bandit.sample_set(jax.random.key(0), 3).params.hyper == {}


def test_vmaps_over_points_and_seeds():
    points = jax.tree.map(
        lambda *x: jnp.stack([jnp.asarray(leaf, jnp.result_type(float)) for leaf in x]),
        HyperparameterBandit(tasks=DelayedChains(), learning_rate=(1.0, 2.0)),
        HyperparameterBandit(tasks=DelayedChains(), learning_rate=(3.0, 4.0), temperature=1.0),
    )
    keys = jax.random.split(jax.random.key(0), 3)

    def run(bandit, key):
        memory = bandit.init_memory()
        task, ticket = bandit.sample_from(key, memory)
        tickets = jax.tree.map(lambda x: x[None], ticket)
        return task.params.hyper, bandit.update(memory, tickets, jnp.ones(1), jnp.ones(1, bool))

    together = jax.jit(jax.vmap(jax.vmap(run, (None, 0)), (0, None)))(points, keys)
    for point in range(2):
        single = jax.tree.map(lambda x, i=point: x[i], points)
        for seed in range(3):
            alone = jax.jit(run)(single, keys[seed])
            jax.tree.map(lambda a, b, i=(point, seed): np.testing.assert_allclose(a[i], b), together, alone)
    assert set(np.asarray(together[0]["learning_rate"][1]).tolist()) <= {3.0, 4.0}


def test_protocols_and_refusal():
    assert isinstance(BANDIT, AdaptiveTaskDistribution)
    assert isinstance(BANDIT, AgentTaskDistribution)
    with pytest.raises(ValueError, match="tasks=HyperparameterBandit adapts by itself"):
        HyperparameterBandit(tasks=BANDIT)
