"""Labelled examples with wrong labels among them: the classic task of learning to weigh data.

The handwritten digits of scikit-learn (1797 images of 8 x 8): a share of the training part's labels is
replaced by another label, drawn uniformly.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
from jax import Array

from inner_loops.data.base import Examples, StoredStream, stored
from metalab.components import component, static

__all__ = ["Labelled", "NoisyDigits"]

_SHARES = (0.6, 0.8)  # where training ends, where validation begins


class Labelled(NamedTuple):
    """Features ``[..., F]`` and a label ``[...]`` int32."""

    features: Array
    label: Array


@component
class NoisyDigits(StoredStream):
    """Handwritten digits, a share of the training labels wrong."""

    wrong: float = static(0.4, doc="share of the training labels that are wrong", at_least=0.0, at_most=1.0)
    seed: int = static(0, doc="of the split and of the wrong labels", at_least=0)

    @property
    def levels(self) -> tuple[float, ...]:
        """See ``Stream``: right and wrong."""
        return (0.0, 1.0)

    @property
    def kinds(self) -> tuple[str, ...]:
        """See ``Stream``."""
        return ("WrongLabel",)

    @property
    def num_features(self) -> int:
        """F, pixels."""
        return 64

    @property
    def num_labels(self) -> int:
        """Digits."""
        return 10

    def parts(self) -> dict[str, Examples]:
        """See ``StoredStream``: ``Labelled`` images."""
        return _loaded(self)


@functools.lru_cache(maxsize=4)
def _loaded(stream: NoisyDigits) -> dict[str, Examples]:
    from sklearn.datasets import load_digits

    digits: Any = load_digits()
    features = np.asarray(digits["data"], np.float32) / 16.0
    label = np.asarray(digits["target"], np.int32)
    rng = np.random.default_rng(stream.seed)
    order = rng.permutation(len(label))
    cuts = np.split(order, (np.asarray(_SHARES) * len(order)).astype(int))
    rows: dict[str, np.ndarray] = dict(zip(("train", "outer", "validation"), cuts, strict=True))
    parts = {name: _labelled(features[at], label[at], np.zeros(len(at), bool)) for name, at in rows.items()}
    for name, source in (("train", "train"), ("rated", "validation")):
        at = rows[source]
        wrong = rng.random(len(at)) < stream.wrong
        other = (label[at] + rng.integers(1, 10, len(at))) % 10
        parts[name] = _labelled(features[at], np.where(wrong, other, label[at]).astype(np.int32), wrong)
    return parts


def _labelled(features: Any, label: Any, wrong: np.ndarray) -> Examples:
    kind = np.zeros(len(label), np.int32)
    return stored(Labelled(features, label), wrong.astype(np.float32), kind)
