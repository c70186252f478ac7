"""Policies as distributions over actions: pytrees of parameters, noise drawn beforehand.

``sample`` is a deterministic function of the parameters and of noise of a known shape, so that a rollout
draws the noise of all its steps in one call and the loop over steps contains no random number generator.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array

__all__ = ["Categorical", "Distribution", "Gaussian"]


class Distribution(Protocol):
    """A distribution over one action, or over a batch ``[...]`` of them."""

    def log_prob(self, action: Array) -> Array:
        """[...] log-probability (density) of ``action``."""
        ...

    def entropy(self) -> Array:
        """[...] entropy in nats."""
        ...

    def sample(self, noise: Array) -> Array:
        """Actions for ``noise``, see the distribution."""
        ...


class Categorical(NamedTuple):
    """A distribution over ``A`` discrete actions.

    Attributes:
        logits: [..., A]; -inf or very negative: never drawn.
    """

    logits: Array

    def log_prob(self, action: Array) -> Array:
        """[...] log-probabilities of int32 actions ``[...]``."""
        log_probs = jax.nn.log_softmax(self.logits)
        # A comparison instead of a gather: A is small, and its derivative is no scatter.
        chosen = action[..., None] == jnp.arange(self.logits.shape[-1])
        return jnp.sum(jnp.where(chosen, log_probs, 0.0), axis=-1)

    def entropy(self) -> Array:
        """[...] entropy in nats."""
        log_probs = jax.nn.log_softmax(self.logits)
        return -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)

    def sample(self, noise: Array) -> Array:
        """[...] int32 actions by inverting the distribution function at uniform numbers ``[...]``.

        The first action whose cumulated weight exceeds the number's share of the total has a positive
        weight, so an action of probability zero is never drawn.
        """
        weights = jnp.exp(self.logits - jnp.max(self.logits, axis=-1, keepdims=True))
        cumulated = jnp.cumsum(weights, axis=-1)
        return jnp.sum(cumulated <= noise[..., None] * cumulated[..., -1:], axis=-1, dtype=jnp.int32)


class Gaussian(NamedTuple):
    """Independent normal distributions of the ``D`` entries of an action; bounds are the environment's.

    Attributes:
        mean: [..., D].
        log_std: [D] or [..., D].
    """

    mean: Array
    log_std: Array

    def log_prob(self, action: Array) -> Array:
        """[...] log-densities of actions ``[..., D]``."""
        standard = (action - self.mean) * jnp.exp(-self.log_std)
        terms = -0.5 * jnp.square(standard) - self.log_std - 0.5 * math.log(2.0 * math.pi)
        return jnp.sum(terms, axis=-1)

    def entropy(self) -> Array:
        """[...] differential entropy in nats."""
        terms = self.log_std + 0.5 * math.log(2.0 * math.pi * math.e)
        return jnp.sum(jnp.broadcast_to(terms, self.mean.shape), axis=-1)

    def sample(self, noise: Array) -> Array:
        """[..., D] actions for standard normal numbers ``[..., D]``."""
        return self.mean + jnp.exp(self.log_std) * noise
