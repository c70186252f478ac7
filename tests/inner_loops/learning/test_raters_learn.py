"""Raters that learn: wrong labels among handwritten digits are found from the loss of classifiers alone."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from inner_loops.data.labelled import NoisyDigits
from inner_loops.datarater import DataRater
from inner_loops.models import Classifier
from inner_loops.raters import FeatureRater
from inner_loops.ratings import area_under_curve
from inner_loops.tasks.taught_by_examples import TaughtByExamples
from metalab.components import as_arrays
from metalab.optimizers import Adam
from outer_loops.meta_gradient import MetaGradient

SEEDS, CHUNKS, STEPS = 2, 10, 100


@pytest.mark.slow
def test_a_rater_of_features_finds_wrong_labels() -> None:
    stream = NoisyDigits(wrong=0.4)
    learner = DataRater(
        rater=FeatureRater(),
        model=Classifier(),
        stream=stream,
        optimizer=Adam(learning_rate=3e-3, eps_root=1e-8),
    )
    outer = as_arrays(
        MetaGradient(
            inner=learner,
            tasks=TaughtByExamples(stream=stream, lifetime=200),
            truncation=2,
            num_slots=4,
            stratify=True,
            per_slot_optimizer=True,
            optimizer=Adam(learning_rate=1e-3, warmup_steps=50.0, max_grad_norm=0.01),
        )
    )

    @jax.jit
    @jax.vmap
    def chunk(state, key):
        keys = jax.random.split(key, STEPS)
        return jax.lax.scan(lambda state, key: outer.step(key, state, None), state, keys)[0]

    state = jax.jit(jax.vmap(outer.init))(jax.random.split(jax.random.key(0), SEEDS))
    for number in range(CHUNKS):
        state = chunk(state, jax.random.split(jax.random.key(number + 1), SEEDS))
    rated = stream.rated(359)
    clean = rated.level == 0.0
    scores = jax.vmap(lambda meta: learner.rate(meta, rated.inputs))(state.meta)
    found = [float(area_under_curve(one, clean, ~clean)) for one in scores]
    assert np.min(found) > 0.9, found
