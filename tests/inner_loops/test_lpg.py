"""LPG: its meta-gradient, where it may flow, and what one broken lifetime may do."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import pytest
from jax.flatten_util import ravel_pytree

from inner_loops.actor_critic import ActorCritic
from inner_loops.critics import TabularCritic
from inner_loops.tasks.delayed_chains import DelayedChains
from inner_loops.update_rules.lpg import LPG
from metalab.gradients import differentiate_in
from metalab.lifetimes import unroll
from metalab.optimizers import Adam, Sgd
from metalab.trees import lane
from outer_loops.meta_gradient import MetaGradient

TASKS = DelayedChains(lengths=(2, 3), max_length=3, noise=1.0, lifetime=50)


def learner(**changes) -> ActorCritic:
    rule = LPG(hidden_size=3, prediction_size=4, embedding_size=3, target_weight=0.5, **changes)
    return ActorCritic(
        rule=rule,
        environment=TASKS.environment,
        optimizer=Sgd(learning_rate=20.0),
        critic=TabularCritic(),
        num_envs=3,
        rollout_length=4,
    )


NO_BETAS = {"prediction_entropy": 0.0, "pi_hat_l2": 0.0, "y_hat_l2": 0.0}


def truncated_loss(inner: ActorCritic, meta, updates: int):
    task = TASKS.sample(jax.random.key(1))
    state = inner.init(jax.random.key(2), meta, task)
    state, outs = unroll(inner, jax.random.key(5), meta, state, updates)
    return inner.evaluate(jax.random.key(6), meta, state, outs, None)[1].loss


def meta_gradient(inner: ActorCritic, meta, updates: int):
    return jax.jit(jax.grad(lambda m: truncated_loss(inner, m, updates)))(meta)


@pytest.mark.parametrize(
    ("core", "optimizer"),
    [
        ("gru", "sgd"),
        pytest.param("lstm", "sgd", marks=pytest.mark.slow),
        pytest.param("lstm", "adam", marks=pytest.mark.slow),
    ],
)
def test_meta_gradient_equals_central_differences(core, optimizer):
    """The probability that a step of 1e-6 changes a sampled action is below 1e-5: trajectories are fixed.

    ``stop_policy_input`` is off: finite differences see every path.
    """
    with jax.enable_x64(True):
        inner = learner(core=core, stop_policy_input=False)
        if optimizer == "adam":
            adam = Adam(learning_rate=0.05, eps=1e-4)  # no stopped moments: differentiable as it stands
            inner = dataclasses.replace(inner, optimizer=adam)
        meta = inner.init_meta(jax.random.key(0))
        flat, unflatten = ravel_pytree(meta)
        loss = jax.jit(lambda x: truncated_loss(inner, unflatten(x), 3))
        gradient = jax.jit(jax.grad(loss))(flat)
        # No part of the rule is left out of the comparison.
        assert all(jnp.any(leaf != 0.0) for leaf in jax.tree.leaves(unflatten(gradient)))
        directions = jax.random.normal(jax.random.key(3), (8, flat.size))
        for direction in directions:
            step = 1e-6 * direction
            numeric = (loss(flat + step) - loss(flat - step)) / 2e-6
            assert abs(numeric - gradient @ direction) <= 1e-5 * abs(numeric)


@pytest.mark.slow
def test_mixed_mode_equals_reverse_mode_and_rematerialisation_changes_nothing():
    with jax.enable_x64(True):
        inner = learner()
        meta = inner.init_meta(jax.random.key(0))
        gradients = []
        for mode in ("mixed", "reverse"):
            with differentiate_in(mode):
                gradients.append(meta_gradient(inner, meta, 3))
        chex.assert_trees_all_close(*gradients, rtol=1e-9, atol=1e-13)


@pytest.mark.slow
def test_the_prediction_head_learns_only_through_a_later_update():
    """With all betas zero, y can act on the return only if update k writes it and update k + 1 reads it."""
    inner = learner(**NO_BETAS)
    meta = inner.init_meta(jax.random.key(0))
    once, twice = (meta_gradient(inner, meta, updates).y_head for updates in (1, 2))
    assert jnp.all(once.kernel == 0.0) and jnp.all(once.bias == 0.0)
    assert jnp.linalg.norm(twice.kernel) > 0.0 and jnp.linalg.norm(twice.bias) > 0.0


@pytest.mark.slow
def test_gradient_is_stopped_at_the_policy_input_by_default():
    meta = learner().init_meta(jax.random.key(0))
    stopped, full = (meta_gradient(learner(stop_policy_input=stop), meta, 3) for stop in (True, False))
    assert not jnp.allclose(stopped.core.inputs, full.core.inputs)


def outer_of(**changes) -> MetaGradient:
    settings = {"num_slots": 4, "truncation": 2, "optimizer": Adam(learning_rate=1e-3)} | changes
    return MetaGradient(inner=learner(), tasks=TASKS, **settings)


def gradient_of_slots(outer: MetaGradient, state, keys):
    """The mean over slots that the meta-optimiser is given: what SGD with a rate of one takes off zeros."""
    zeros = state._replace(meta=jax.tree.map(jnp.zeros_like, state.meta))

    def moved(slots):
        gradient, _ = outer._gradient(state.meta, keys, slots, None)
        return outer._moved(gradient, zeros)[0]

    return jax.tree.map(jnp.negative, jax.jit(moved)(state.slots))


def break_slot(slots, index: int):
    params = jax.tree.map(lambda x: x.at[index].set(jnp.nan), slots.state.params)
    return slots._replace(state=slots.state._replace(params=params))


@pytest.mark.slow
@pytest.mark.parametrize("max_slot_norm", [None, 1e3])
def test_a_broken_lifetime_leaves_the_others_gradient_as_it_is(max_slot_norm):
    """The mean over slots without the broken one, from the same outer loop one slot at a time."""
    settings = {"max_slot_norm": max_slot_norm, "optimizer": Sgd(learning_rate=1.0)}
    outer, single = outer_of(**settings), outer_of(num_slots=1, **settings)
    state = outer.init(jax.random.key(0))
    keys = jax.random.split(jax.random.key(8), outer.num_slots)
    broken = gradient_of_slots(outer, state._replace(slots=break_slot(state.slots, 1)), keys)
    parts = [
        gradient_of_slots(single, state._replace(slots=lane_slice(state.slots, i)), keys[i : i + 1])
        for i in (0, 2, 3)
    ]
    expected = jax.tree.map(lambda *leaves: sum(leaves) / outer.num_slots, *parts)
    chex.assert_tree_all_finite(broken)
    chex.assert_trees_all_close(broken, expected, rtol=1e-4, atol=1e-7)


def lane_slice(slots, index: int):
    return jax.tree.map(lambda x: x[index : index + 1], slots)


@pytest.mark.slow
def test_a_broken_lifetime_is_reborn_at_the_next_outer_step():
    outer = outer_of()
    step = jax.jit(lambda key, state: outer.step(key, state, None))
    state = outer.init(jax.random.key(0))
    state = state._replace(slots=break_slot(state.slots, 1))
    state, metrics = step(jax.random.key(1), state)
    assert metrics["broken"] == pytest.approx(0.25)
    assert state.slots.age[1] == state.slots.lifetime[1]
    state, metrics = step(jax.random.key(2), state)
    assert metrics["broken"] == 0.0
    chex.assert_tree_all_finite(state.slots.state.params)
    chex.assert_tree_all_finite(metrics)


@pytest.mark.slow
def test_the_outer_critic_moves():
    outer = outer_of()
    state = outer.init(jax.random.key(0))
    after, _ = jax.jit(lambda s: outer.step(jax.random.key(1), s, None))(state)
    moved = jnp.max(jnp.abs(after.slots.state.critic - state.slots.state.critic), axis=1)
    assert jnp.all(moved > 0.1)


@pytest.mark.slow
def test_bounded_cotangent_bounds_the_gradient_and_keeps_it_below_the_bound():
    meta = learner().init_meta(jax.random.key(0))
    free, loose, tight = (
        meta_gradient(learner(max_cotangent=bound, **NO_BETAS), meta, 2)
        for bound in (float("inf"), 1e6, 1e-6)
    )
    chex.assert_trees_all_close(free, loose)
    norm = lambda tree: jnp.sqrt(sum(jnp.sum(x**2) for x in jax.tree.leaves(tree)))  # noqa: E731
    assert 0.0 < norm(tight) < 1e-3 * norm(free)


def test_meta_parameters_do_not_depend_on_the_world():
    sizes = {
        jax.tree.structure(inner.init_meta(jax.random.key(0)))
        for inner in (learner(), dataclasses.replace(learner(), environment=DelayedChains().environment))
    }
    assert len(sizes) == 1


def test_lifetime_conditioning_reads_progress():
    inner = learner(lifetime_conditioning=True)
    meta = inner.init_meta(jax.random.key(0))
    state = inner.init(jax.random.key(2), meta, TASKS.sample(jax.random.key(1)))
    step = jax.jit(lambda state: inner.step(jax.random.key(3), meta, state, None)[0])
    young = step(state)
    old = step(state._replace(updates=jnp.asarray(40, jnp.int32)))
    assert not jnp.allclose(young.params["logits"], old.params["logits"])


@pytest.mark.slow
def test_a_constant_next_prediction_does_not_read_the_agents():
    """With y(s_{t+1}) constant the rule's targets are the same whatever the last state's y is."""

    def last_targets(constant: bool, shift: float):
        # Chains of 2 and of 3 steps are both in the middle of an episode at the fifth step.
        inner = dataclasses.replace(learner(constant_next_prediction=constant), rollout_length=5)
        meta = inner.init_meta(jax.random.key(1))  # with key 0 all three units of the core read out as zero
        state = inner.init(jax.random.key(2), meta, TASKS.sample(jax.random.key(1)))
        _, trajectory = inner._rollout(jax.random.key(3), state)
        inputs = inner._rule_inputs(state, trajectory)
        y = inputs.outputs["y"].at[-1, :, 0].add(shift)
        inputs = inputs._replace(outputs={**inputs.outputs, "y": y})
        assert not jnp.any(trajectory.done[-1])
        return inner.rule.targets(meta, inputs).pi_hat[-1]

    chex.assert_trees_all_equal(last_targets(True, 0.0), last_targets(True, 5.0))
    assert not jnp.allclose(last_targets(False, 0.0), last_targets(False, 5.0))


@pytest.mark.slow
def test_lanes_and_seeds_equal_single_runs():
    rates = jnp.asarray([1e-4, 1e-3])
    outers = jax.vmap(lambda rate: outer_of(optimizer=Adam(learning_rate=rate)))(rates)
    keys = jax.random.split(jax.random.key(4), 2)

    def run(outer, key):
        state = outer.init(key)
        return outer.meta_params(outer.step(jax.random.fold_in(key, 1), state, None)[0])

    packed = jax.jit(jax.vmap(jax.vmap(run, (None, 0)), (0, None)))(outers, keys)
    for point in range(2):
        for seed in range(2):
            single = jax.jit(run)(lane(outers, point), keys[seed])
            chex.assert_trees_all_close(lane(lane(packed, point), seed), single, rtol=1e-4, atol=1e-7)
