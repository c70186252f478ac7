from __future__ import annotations

import dataclasses
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import inner_loops
from inner_loops.data.labelled import NoisyDigits
from inner_loops.datarater import DataRater
from inner_loops.language_model import LanguageModel
from inner_loops.models import Classifier
from inner_loops.raters import FeatureRater, TransformerRater
from inner_loops.selections import LeastPerplexing, Softmax, TopRated
from inner_loops.tasks.taught_by_examples import TaughtByExamples
from metalab.catalogue import resolve
from metalab.contracts import check_inner, check_outer
from metalab.gradients import MODES
from metalab.optimizers import Adam, Sgd
from metalab.protocols import Task
from outer_loops.meta_gradient import MetaGradient
from tests.corpus_toys import tiny_rater, tiny_stream, write_corpus

LIFE = Task((), jnp.asarray(8, jnp.int32))


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory):
    return tiny_stream(write_corpus(tmp_path_factory.mktemp("corpus")))


def digits(**fields) -> DataRater:
    parts = {"rater": FeatureRater(hidden=8), "model": Classifier(hidden=8), "stream": NoisyDigits()}
    return DataRater(**{**parts, "batch_size": 8, "outer_batch_size": 8, "validation_size": 16, **fields})


def moved_rater(learner: DataRater):
    """Meta-parameters whose head is not zero, so that examples differ."""
    meta = learner.init_meta(jax.random.key(5))
    return meta | {"head": jax.random.normal(jax.random.key(6), meta["head"].shape)}


@pytest.mark.parametrize("kind", sorted(inner_loops.CATALOGUE["selection"]))
def test_the_contract_holds_with_every_selection(stream, kind: str) -> None:
    small = {"least_perplexing": {"updates": 2, "model": LanguageModel(width=8)}}
    selection = resolve(kind, "selection")(**small.get(kind, {}))
    check_inner(tiny_rater(stream, selection=selection, rated_size=10), TaughtByExamples(stream=stream))


def test_the_contract_holds_on_given_features_and_under_a_meta_gradient() -> None:
    learner = digits(rated_size=10)
    tasks = TaughtByExamples(stream=learner.stream, lifetime=4)
    check_outer(MetaGradient(inner=learner, tasks=tasks, truncation=2, num_slots=2, per_slot_optimizer=True))


def test_a_fresh_rater_weighs_all_examples_alike(stream) -> None:
    for learner in (tiny_rater(stream), digits()):
        scores = learner.rate(learner.init_meta(jax.random.key(0)), learner.stream.rated(9).inputs)
        np.testing.assert_array_equal(scores, np.zeros(9))


def test_one_update_by_hand() -> None:
    # theta' = theta - a sum_i softmax(phi)_i grad l(x_i; theta) on the batch that the key draws.
    learner = digits(optimizer=Sgd(learning_rate=0.1))
    meta = moved_rater(learner)
    state = learner.init(jax.random.key(1), meta, LIFE)
    after, out = jax.jit(learner.step)(jax.random.key(2), meta, state, None)
    drawn = learner.stream.train(jax.random.split(jax.random.key(2))[0], 8)
    weights = jax.nn.softmax(jax.vmap(learner.rater.score, (None, 0))(meta, drawn.inputs))
    each = jax.vmap(jax.grad(learner.model.loss), (None, 0))(state.params, drawn.inputs)
    expected = jax.tree.map(lambda p, g: p - 0.1 * jnp.tensordot(weights, g, 1), state.params, each)
    chex.assert_trees_all_close(after.params, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(out.metrics["level"], weights @ drawn.level, rtol=1e-5)
    assert int(after.updates) == 1


def meta_gradient_of(learner: DataRater, mode: str, **fields) -> dict:
    tasks = TaughtByExamples(stream=learner.stream, lifetime=8)
    outer = MetaGradient(
        inner=learner, tasks=tasks, truncation=2, num_slots=2, differentiation=mode, stagger=False, **fields
    )
    # A step of descent at rate 1 is the gradient.
    outer = dataclasses.replace(outer, optimizer=Sgd(learning_rate=1.0))
    state = outer.init(jax.random.key(0))
    state = state._replace(meta=moved_rater(learner))
    after, _ = jax.jit(outer.step)(jax.random.key(1), state, None)
    return jax.tree.map(lambda a, b: a - b, state.meta, after.meta)


@pytest.mark.slow
def test_the_meta_gradient_through_a_language_model_is_the_same_in_both_modes(stream) -> None:
    learner = tiny_rater(stream)
    found = {mode: meta_gradient_of(learner, mode, keep_gradients=mode == "mixed") for mode in MODES}
    scale = float(jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree.leaves(found["reverse"]))))
    assert scale > 1e-6
    chex.assert_trees_all_close(found["mixed"], found["reverse"], rtol=1e-4, atol=1e-5 * scale)


def exact(tree):
    """Its real numbers in float64: flax makes parameters of float32 whatever is asked."""
    return jax.tree.map(
        lambda leaf: leaf.astype(float) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, tree
    )


def test_the_meta_gradient_is_the_slope() -> None:
    with jax.enable_x64(True):
        learner = digits(optimizer=Adam(learning_rate=1e-2, eps_root=1e-8))
        tasks = TaughtByExamples(stream=learner.stream, lifetime=8)
        outer = MetaGradient(inner=learner, tasks=tasks, truncation=2, num_slots=1, stagger=False)
        meta = exact(moved_rater(learner))
        slots = exact(outer.init(jax.random.key(0)).slots)
        keys = jax.random.split(jax.random.key(1), 1)

        @jax.jit
        def gradient(meta):
            found, (_, evaluation) = outer._gradient(meta, keys, slots, None)
            return found, evaluation.loss[0]

        found = gradient(meta)[0]["head"]
        for at in (0, 3):
            step = jnp.zeros(8).at[at].set(1e-5)
            ends = [gradient(meta | {"head": meta["head"] + sign * step})[1] for sign in (1, -1)]
            np.testing.assert_allclose(found[at], (ends[0] - ends[1]) / 2e-5, rtol=1e-4, atol=1e-9)


@pytest.mark.slow
def test_vmapped_equals_single() -> None:
    learner = digits()
    metas = jax.vmap(learner.init_meta)(jax.random.split(jax.random.key(0), 3))
    metas["head"] = jax.random.normal(jax.random.key(1), metas["head"].shape)
    keys = jax.random.split(jax.random.key(2), 3)

    def lived(key, meta):
        state = learner.init(key, meta, LIFE)
        return learner.step(key, meta, state, None)[0].params

    together = jax.jit(jax.vmap(lived))(keys, metas)
    single = jax.jit(lived)
    for at in range(3):
        alone = single(keys[at], jax.tree.map(lambda leaf, at=at: leaf[at], metas))
        chex.assert_trees_all_close(
            jax.tree.map(lambda leaf, at=at: leaf[at], together), alone, rtol=1e-4, atol=1e-5
        )


def test_the_loss_of_a_language_model_looks_at_the_past_alone(stream) -> None:
    # Another last symbol changes the features of the last position alone.
    model = LanguageModel(width=8, layers=2, heads=2)
    params = model.init(jax.random.key(0), stream)
    window = jnp.arange(12) + 40

    network = model._network(128)
    features: Any = network.apply(params, window[:-1])
    changed: Any = network.apply(params, window[:-1].at[-1].set(7))
    np.testing.assert_allclose(features[:-1], changed[:-1], atol=1e-6)
    assert np.abs(np.asarray(features[-1] - changed[-1])).max() > 1e-3


def test_a_rater_looks_at_the_whole_window(stream) -> None:
    rater = TransformerRater(width=8, layers=1, heads=2)
    params = rater.init(jax.random.key(0), stream) | {"head": jnp.ones(8)}
    window = jnp.arange(12) + 40
    slope = [float(rater.score(params, window.at[at].set(7)) - rater.score(params, window)) for at in (0, 11)]
    assert all(abs(change) > 1e-4 for change in slope)


def test_bfloat16_activations_stay_close_and_the_loss_is_float32(stream) -> None:
    exact, rough = (LanguageModel(width=8, activations=kind) for kind in ("float32", "bfloat16"))
    params = exact.init(jax.random.key(0), stream)
    window = jnp.arange(12) + 40
    assert rough.loss(params, window).dtype == jnp.float32
    np.testing.assert_allclose(rough.loss(params, window), exact.loss(params, window), rtol=0.05)


@pytest.mark.slow
def test_recomputing_blocks_changes_nothing(stream) -> None:
    window = jnp.arange(12) + 40
    plain, remat = (LanguageModel(width=8, remat=on) for on in (False, True))
    params = plain.init(jax.random.key(0), stream)
    chex.assert_trees_all_close(
        jax.grad(plain.loss)(params, window), jax.grad(remat.loss)(params, window), rtol=1e-5, atol=1e-7
    )


def test_heads_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"heads=3 do not divide width=32 into even parts"):
        LanguageModel(width=32, heads=3)


def test_a_perplexity_judge_is_a_model_trained_before_birth() -> None:
    small = Classifier(hidden=16)
    judge = LeastPerplexing(updates=200, model=small, optimizer=Adam(learning_rate=1e-2))
    learner = digits(model=small, selection=judge, batch_size=32)
    state = learner.init(jax.random.key(0), (), LIFE)
    examples = learner.stream.validation(200)
    trained = learner._mean_loss(state.reference, examples)
    assert float(trained) < float(learner._mean_loss(state.params, examples)) - 0.3


def test_what_an_update_costs_counts_the_candidates() -> None:
    # A classifier with 8 units on 64 + 10 inputs and outputs: 2 * 8 * 74 operations, 3 times over for 8
    # examples; the rater 2 * 8 * (64 + 10 + 8) for each of 8 or, with 3/4 discarded, 32 candidates.
    train, rate = 3 * 8 * 2 * 8 * 74, 2 * 8 * 82
    assert digits(selection=Softmax()).cost_of_update() == train + 8 * rate
    assert digits(selection=TopRated(discard=0.75)).cost_of_update() == train + 32 * rate


def test_an_assessment_is_minus_the_validation_loss() -> None:
    learner = digits(rated_size=50)
    meta = moved_rater(learner)
    state = learner.init(jax.random.key(0), meta, LIFE)
    found = learner.assess(jax.random.key(1), meta, state)
    losses = [
        learner.model.loss(state.params, jax.tree.map(lambda leaf, at=at: leaf[at], examples.inputs))
        for examples in [learner.stream.validation(16)]
        for at in range(16)
    ]
    np.testing.assert_allclose(found["return"], -np.mean(losses), rtol=1e-5)
    assert {"rating/auc", "rating/spearman", "rating/level_1/q50", "compute"} <= set(found)
