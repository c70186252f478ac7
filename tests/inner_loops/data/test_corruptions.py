from __future__ import annotations

import numpy as np
import pytest

import inner_loops
from inner_loops.data.corruptions import (
    Boilerplate,
    Chain,
    Facts,
    ForeignScript,
    Repetition,
    ShuffledLines,
    UnigramNoise,
)
from inner_loops.data.tokenizers import Bytes
from metalab.catalogue import resolve
from tests.corpus_toys import text_of

TEXT = "one two three\nfour five six\nseven eight nine\nten eleven twelve\n"
CLEAN = np.tile(Bytes().encode(TEXT), (200, 1))
FACTS = Facts.of(CLEAN, Bytes())


def corrupted(corruption, level: float, windows: np.ndarray = CLEAN) -> np.ndarray:
    levels = np.full(len(windows), level)
    return corruption.apply(np.random.default_rng(0), windows, levels, FACTS)


@pytest.mark.parametrize("kind", sorted(inner_loops.CATALOGUE["corruption"]))
def test_level_0_leaves_every_window_as_it_is(kind: str) -> None:
    corruption = resolve(kind, "corruption")()
    np.testing.assert_array_equal(corrupted(corruption, 0.0), CLEAN)


@pytest.mark.parametrize("kind", sorted({*inner_loops.CATALOGUE["corruption"]} - {"chain"}))
def test_higher_levels_change_more_and_the_windows_keep_their_shape(kind: str) -> None:
    corruption = resolve(kind, "corruption")()
    changed = [np.mean(corrupted(corruption, level) != CLEAN) for level in (0.25, 0.5, 1.0)]
    assert 0.0 < changed[0] < changed[1] < changed[2]
    assert corrupted(corruption, 0.5).shape == CLEAN.shape


def test_noise_has_the_unigram_distribution_of_the_corpus() -> None:
    noise = corrupted(UnigramNoise(), 1.0)
    share = np.bincount(noise.reshape(-1), minlength=256) / noise.size
    # 12,800 draws: the standard deviation of a share is below 0.5 / sqrt(12,800) = 0.0044.
    np.testing.assert_allclose(share, FACTS.unigram, atol=0.02)
    # At level 1/4 three quarters stay, and of the others those that drew what was there: sum of p^2.
    kept = np.mean(corrupted(UnigramNoise(), 0.25) == CLEAN)
    assert kept == pytest.approx(0.75 + 0.25 * np.sum(FACTS.unigram**2), abs=0.02)


def test_shuffled_lines_are_the_same_lines_in_another_order() -> None:
    shuffled = corrupted(ShuffledLines(), 1.0)
    rows = [text_of(row) for row in shuffled]
    assert {tuple(sorted(row.splitlines())) for row in rows} == {tuple(sorted(TEXT.splitlines()))}
    assert len(set(rows)) > 10


def test_repetition_repeats_what_stands_before_it() -> None:
    window = np.arange(10)[None, :]
    half = corrupted(Repetition(period=3), 0.5, window)
    assert half.tolist() == [[0, 1, 2, 3, 4, 2, 3, 4, 2, 3]]
    assert corrupted(Repetition(period=3), 1.0, window).tolist() == [[0, 1, 2, 0, 1, 2, 0, 1, 2, 0]]


def test_boilerplate_is_one_notice_at_any_place_of_it() -> None:
    rows = corrupted(Boilerplate(), 1.0)
    notice = text_of(np.concatenate([FACTS.notice, FACTS.notice]))
    assert all(text_of(row) in notice for row in rows)


def test_a_foreign_script_takes_whole_words_and_one_letter_for_another() -> None:
    row = corrupted(ForeignScript(), 0.5)[0]
    letters = np.char.isalpha(np.asarray(list(TEXT)))
    np.testing.assert_array_equal(row[~letters], CLEAN[0][~letters])
    words = [Bytes().encode(word) for word in TEXT.split()]
    ends = np.cumsum([len(word) + 1 for word in words])
    moved = [row[end - 1 - len(word) : end - 1] - word for word, end in zip(words, ends, strict=True)]
    assert all(len(set(shift.tolist())) == 1 for shift in moved)
    assert {int(shift[0]) for shift in moved} == {0, 96}


def test_a_foreign_script_needs_all_bytes() -> None:
    few = FACTS._replace(is_bytes=False)
    with pytest.raises(ValueError, match="needs the tokenizer bytes with 256 symbols"):
        ForeignScript().apply(np.random.default_rng(0), CLEAN, np.ones(len(CLEAN)), few)


def test_a_chain_is_one_after_the_other() -> None:
    both = Chain(links=(Repetition(), Boilerplate()))
    rng = np.random.default_rng(0)
    level = np.full(len(CLEAN), 0.5)
    repeated = Repetition().apply(rng, CLEAN, level, FACTS)
    np.testing.assert_array_equal(corrupted(both, 0.5), Boilerplate().apply(rng, repeated, level, FACTS))
