"""What the modes of differentiation need of memory, from XLA's own analysis: no clock, no noise."""

from __future__ import annotations

from pathlib import Path

import jax
import pytest

from inner_loops.datarater import DataRater
from inner_loops.language_model import LanguageModel
from inner_loops.raters import TransformerRater
from inner_loops.tasks.taught_by_examples import TaughtByExamples
from metalab.components import as_arrays
from outer_loops.meta_gradient import MetaGradient
from tests.corpus_toys import tiny_stream, write_corpus


def temporary_bytes(outer: MetaGradient) -> int:
    """Bytes that XLA wants beside arguments and results for one outer step."""
    outer = as_arrays(outer)
    key = jax.random.key(0)
    state = jax.eval_shape(outer.init, key)
    compiled = jax.jit(lambda key, state: outer.step(key, state, None)).lower(key, state).compile()
    return int(compiled.memory_analysis().temp_size_in_bytes)  # pyright: ignore[reportOptionalMemberAccess]


@pytest.mark.slow
def test_mixed_mode_with_kept_gradients_needs_a_fifth_of_reverse_mode(tmp_path: Path) -> None:
    # Eight inner updates by Adam on 16 windows of 64 symbols, two layers of width 64.
    stream = tiny_stream(write_corpus(tmp_path, documents=20), window=64)
    learner = DataRater(
        rater=TransformerRater(width=64, layers=1, heads=2),
        model=LanguageModel(width=64, layers=2, heads=2),
        stream=stream,
        batch_size=16,
        outer_batch_size=16,
    )

    def needed(**fields) -> int:
        tasks = TaughtByExamples(stream=stream)
        return temporary_bytes(MetaGradient(inner=learner, tasks=tasks, truncation=8, num_slots=1, **fields))

    reverse = needed(differentiation="reverse", remat=False)
    recomputed = needed(differentiation="reverse", remat=True)
    mixed = needed(differentiation="mixed", remat=True, keep_gradients=True)
    assert mixed <= 0.2 * reverse, (mixed, reverse)
    assert mixed <= 1.05 * recomputed, (mixed, recomputed)
