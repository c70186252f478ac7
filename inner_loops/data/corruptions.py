"""Corruptions of text: each makes windows of symbols worse by a level from 0 (as it was) to 1.

They are functions of random numbers, windows and levels, work on whole arrays on the host, and compose:
``chain`` applies several one after the other. They are chosen to mislead different judges: noise of the
corpus's own unigram distribution leaves histograms alone; repetition and boilerplate are *easy* to predict
and teach nothing, so a filter that keeps what a language model predicts well keeps them.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

from metalab.components import component, part, static

__all__ = [
    "Boilerplate",
    "Chain",
    "Corruption",
    "Facts",
    "ForeignScript",
    "Repetition",
    "ShuffledLines",
    "UnigramNoise",
]

_NOTICE = (
    "Redistribution and use in source and binary forms, with or without modification, are permitted "
    "provided that the following conditions are met. THIS SOFTWARE IS PROVIDED AS IS, WITHOUT WARRANTY OF "
    "ANY KIND, express or implied, and in no event shall the authors be liable for any claim or damages. "
)


class Facts(NamedTuple):
    """What a corruption may know of the corpus.

    Attributes:
        unigram: [V] share of each symbol.
        newline: the symbol that ends a line.
        notice: [n] the symbols of a licence notice.
        is_bytes: whether symbols are all 256 bytes.
    """

    unigram: np.ndarray
    newline: int
    notice: np.ndarray
    is_bytes: bool

    @classmethod
    def of(cls, windows: np.ndarray, tokenizer) -> Facts:
        """The facts of clean windows ``[n, S]``."""
        counts = np.bincount(windows.reshape(-1), minlength=tokenizer.vocabulary)
        newline = tokenizer.encode("\n")
        return cls(
            unigram=counts / counts.sum(),
            newline=int(newline[-1]) if len(newline) else -1,
            notice=tokenizer.encode(_NOTICE),
            is_bytes=tokenizer.vocabulary == 256,
        )


class Corruption(Protocol):
    """A transform of windows."""

    def apply(
        self, rng: np.random.Generator, windows: np.ndarray, level: np.ndarray, facts: Facts
    ) -> np.ndarray:
        """Windows ``[n, S]``, each as bad as its level ``[n]`` says; level 0 leaves a window as it is."""
        ...


@component
class UnigramNoise:
    """Each symbol is replaced, with probability equal to the level, by a draw from the corpus's unigram."""

    def apply(
        self, rng: np.random.Generator, windows: np.ndarray, level: np.ndarray, facts: Facts
    ) -> np.ndarray:
        """See ``Corruption``."""
        drawn = rng.choice(len(facts.unigram), windows.shape, p=facts.unigram).astype(windows.dtype)
        return np.where(rng.random(windows.shape) < level[:, None], drawn, windows)


@component
class ShuffledLines:
    """A share of a window's lines, equal to the level, in another order."""

    def apply(
        self, rng: np.random.Generator, windows: np.ndarray, level: np.ndarray, facts: Facts
    ) -> np.ndarray:
        """See ``Corruption``."""
        rows = [
            _shuffled(rng, window, share, facts.newline) for window, share in zip(windows, level, strict=True)
        ]
        return np.stack(rows)


@component
class Repetition:
    """The end of a window, a share equal to the level, repeats the few symbols before it over and over."""

    period: int = static(6, doc="symbols that are repeated", at_least=1)

    def apply(
        self, rng: np.random.Generator, windows: np.ndarray, level: np.ndarray, facts: Facts
    ) -> np.ndarray:
        """See ``Corruption``."""
        del rng, facts
        size = windows.shape[1]
        start = np.maximum(np.round((1.0 - level) * size).astype(int), min(self.period, size))[:, None]
        place = np.arange(size)[None, :]
        source = np.where(place < start, place, start - self.period + (place - start) % self.period)
        return np.where((level > 0)[:, None], np.take_along_axis(windows, np.maximum(source, 0), 1), windows)


@component
class Boilerplate:
    """The beginning of a window, a share equal to the level, is a piece of one licence notice."""

    def apply(
        self, rng: np.random.Generator, windows: np.ndarray, level: np.ndarray, facts: Facts
    ) -> np.ndarray:
        """See ``Corruption``."""
        place = np.arange(windows.shape[1])[None, :]
        offset = rng.integers(len(facts.notice), size=(len(windows), 1))
        notice = facts.notice[(place + offset) % len(facts.notice)].astype(windows.dtype)
        return np.where(place < np.round(level * windows.shape[1])[:, None], notice, windows)


@component
class ForeignScript:
    """A share of the words, equal to the level, in another script: letters become bytes above 127."""

    def apply(
        self, rng: np.random.Generator, windows: np.ndarray, level: np.ndarray, facts: Facts
    ) -> np.ndarray:
        """See ``Corruption``.

        Raises:
            ValueError: the symbols are not all 256 bytes: there is no other script to write in.
        """
        if not facts.is_bytes:
            raise ValueError("foreign_script needs the tokenizer bytes with 256 symbols")
        lower, upper = (windows >= 97) & (windows <= 122), (windows >= 65) & (windows <= 90)
        letter = lower | upper
        # A word keeps the number of the place where its run of letters began.
        begins = letter & ~np.pad(letter, ((0, 0), (1, 0)))[:, :-1]
        word = np.maximum.accumulate(np.where(begins, np.arange(windows.shape[1]), 0), axis=1)
        chosen = np.take_along_axis(rng.random(windows.shape), word, 1) < level[:, None]
        foreign = np.where(lower, windows + 96, windows + 160)  # single-byte alphabets lie there
        return np.where(letter & chosen, foreign, windows).astype(windows.dtype)


@component
class Chain:
    """Several corruptions one after the other, each at the window's level."""

    links: tuple[Corruption, ...] = part((), doc="in the order of application", group="corruption")

    def apply(
        self, rng: np.random.Generator, windows: np.ndarray, level: np.ndarray, facts: Facts
    ) -> np.ndarray:
        """See ``Corruption``."""
        for link in self.links:
            windows = link.apply(rng, windows, level, facts)
        return windows


def _shuffled(rng: np.random.Generator, window: np.ndarray, share: float, newline: int) -> np.ndarray:
    """One window with a share of its lines permuted among themselves."""
    lines = np.split(window, np.flatnonzero(window == newline) + 1)
    moved = np.flatnonzero(rng.random(len(lines)) < share)
    order = np.arange(len(lines))
    order[moved] = rng.permutation(moved)
    return np.concatenate([lines[at] for at in order])
