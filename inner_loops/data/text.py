"""Text as examples: documents split into parts, packed into windows of symbols, some of them corrupted.

The split is by document and never by window: no two parts share one. Documents of a part are joined, with the
symbol 0 between them, and cut into windows. Every window of the training part has a fixed level and kind of
corruption; those of the outer part and of validation are clean, unless ``corrupt_outer`` makes the outer part
like the training part (the control in which nothing can be learned).
"""

from __future__ import annotations

import functools
import logging
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from inner_loops.data.base import Examples, StoredStream, stored
from inner_loops.data.corpora import Corpus, PythonCorpus
from inner_loops.data.corruptions import Corruption, Facts, UnigramNoise
from inner_loops.data.tokenizers import Bytes, Tokenizer
from metalab.components import component, part, static
from metalab.documents import told
from metalab.errors import ConfigError

__all__ = ["TextStream", "pack"]

_PARTS = ("train", "outer", "validation")


@component
class TextStream(StoredStream):
    """Windows of text from a corpus, the training part corrupted to known levels."""

    corpus: Corpus = part(PythonCorpus(), doc="where documents come from", group="corpus")
    tokenizer: Tokenizer = part(Bytes(), doc="text to symbols", group="tokenizer")
    window: int = static(48, doc="S, symbols of one example", at_least=2)
    corruptions: tuple[Corruption, ...] = part(
        (UnigramNoise(),), doc="each window has one of them", group="corruption"
    )
    levels: tuple[float, ...] = static(
        (0.0, 0.25, 0.5, 0.75, 1.0), doc="of corruption, equally frequent", at_least=0.0, at_most=1.0
    )
    corrupt_outer: bool = static(False, doc="corrupt the outer part too: the control")
    shares: tuple[float, float, float] = static(
        (0.6, 0.2, 0.2), doc="of the documents: training, outer, validation", at_least=0.0, at_most=1.0
    )
    seed: int = static(0, doc="of the split and of the corruptions", at_least=0)

    @property
    def kinds(self) -> tuple[str, ...]:
        """See ``Stream``."""
        return tuple(type(one).__name__ for one in self.corruptions)

    @property
    def vocabulary(self) -> int:
        """How many symbols there are."""
        return self.tokenizer.vocabulary

    def windows_of(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """A document as windows [n, S], the last filled up with 0, and their ends [n] in bytes of UTF-8."""
        tokens, ends = self.tokenizer.encode(text), self.tokenizer.ends(text)
        last = np.minimum(np.arange(self.window, len(tokens) + self.window, self.window), len(tokens)) - 1
        filled = np.pad(tokens, (0, len(last) * self.window - len(tokens)))
        return filled.reshape(len(last), self.window), ends[last]

    def parts(self) -> dict[str, Examples]:
        """See ``StoredStream``: windows [n, S] of symbols."""
        return _loaded(self)


def pack(documents: Iterable[np.ndarray], window: int) -> np.ndarray:
    """Documents of symbols joined by 0 and cut into windows ``[n, S]``; the rest at the end is not used.

    >>> pack([np.array([1, 2, 3]), np.array([4, 5])], 2).tolist()
    [[1, 2], [3, 0], [4, 5]]
    """
    pieces = [piece for document in documents for piece in (document, np.zeros(1, np.int32))][:-1]
    joined = np.concatenate(pieces) if pieces else np.zeros(0, np.int32)
    count = len(joined) // window
    return joined[: count * window].reshape(count, window)


@functools.lru_cache(maxsize=4)
def _loaded(stream: TextStream) -> dict[str, Examples]:
    """The stream's parts, read once a process: ``train``, ``outer``, ``validation`` and ``rated``."""
    clean = _clean_parts(stream)
    facts = Facts.of(clean["train"], stream.tokenizer)
    rng = np.random.default_rng([stream.seed, 1])
    plain = {name: _untouched(tokens) for name, tokens in clean.items()}
    parts = plain | {"train": _corrupted(stream, rng, clean["train"], facts)}
    parts["rated"] = _corrupted(stream, rng, clean["validation"], facts)
    if stream.corrupt_outer:
        parts["outer"] = _corrupted(stream, rng, clean["outer"], facts)
    return parts


def _clean_parts(stream: TextStream) -> dict[str, np.ndarray]:
    """The windows of every part.

    Raises:
        ConfigError: the corpus has fewer than three documents, or a part is shorter than one window.
    """
    skipped: Counter[str] = Counter()
    documents = list(stream.corpus.documents(skipped))
    if told(skipped):
        logging.getLogger(__name__).warning("corpus: left out %s", told(skipped))
    if len(documents) < len(_PARTS):
        left = f" ({told(skipped)} left out)" if told(skipped) else ""
        raise ConfigError(
            "corpus", f"has {len(documents)} documents{left}; expected at least 3, one for every part"
        )
    order = np.random.default_rng([stream.seed, 0]).permutation(len(documents))
    parts = {}
    for name, chosen in zip(_PARTS, _cut(order, stream.shares), strict=True):
        parts[name] = pack((stream.tokenizer.encode(documents[at].text) for at in chosen), stream.window)
        if not len(parts[name]):
            raise ConfigError(
                "corpus", f"its part {name!r} is shorter than one window of {stream.window} symbols"
            )
    return parts


def _cut(order: np.ndarray, shares: Sequence[float]) -> list[np.ndarray]:
    """Positions cut into parts of these shares, none of them empty."""
    ends = np.round(np.cumsum(shares)[:-1] / np.sum(shares) * len(order)).astype(int)
    first = min(max(ends[0], 1), len(order) - 2)
    return np.split(order, [first, min(max(ends[1], first + 1), len(order) - 1)])


def _corrupted(stream: TextStream, rng: np.random.Generator, tokens: np.ndarray, facts: Facts) -> Examples:
    """Every window at a level and with a corruption of its own, both equally frequent."""
    count = len(tokens)
    level = np.asarray(stream.levels, np.float32)[rng.permutation(count) % len(stream.levels)]
    kind = (rng.permutation(count) % max(1, len(stream.corruptions))).astype(np.int32)
    out = tokens.copy()
    for number, corruption in enumerate(stream.corruptions):
        mine = kind == number
        out[mine] = corruption.apply(rng, tokens[mine], level[mine], facts)
    return stored(_small(out), level, kind)


def _untouched(tokens: np.ndarray) -> Examples:
    return stored(_small(tokens), np.zeros(len(tokens), np.float32), np.zeros(len(tokens), np.int32))


def _small(tokens: np.ndarray) -> np.ndarray:
    """The narrowest type that holds the symbols: they lie in the program as a constant."""
    return tokens.astype(np.min_scalar_type(int(tokens.max())))
