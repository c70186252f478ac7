"""Persistent evolution strategies: unbiased evolution over truncations of long lifetimes.

Vicol, Metz & Sohl-Dickstein 2021, "Unbiased Gradient Estimation in Unrolled Computation Graphs with
Persistent Evolution Strategies" (arXiv:2112.13835), algorithm 2. A plain evolution strategy over
truncations credits a stretch of life to the perturbation of that stretch alone, and is blind to what
earlier ones did to the learner. Here the lives go on, and a stretch is credited to the sum ``xi`` of all
perturbations of its life:

    theta_i = theta + epsilon_i,  xi_i = sum of this life's epsilon_i,  g = sum_i xi_i L_i / (N sigma^2)

``g`` is unbiased for the gradient of the objective, summed over a life and smoothed by sigma, as long as
theta rests during the life. Its variance grows with the truncations in a life and falls with the number of
pairs.

Members come in antithetic pairs, with ``epsilon`` and ``-epsilon``: two lives on one task, with the same
random numbers and of one age. The pairs begin at all ages, so that an outer step sees every phase of life.

Deviations: ``L`` is what ``Evaluation`` says of the whole truncation, and not a sum of losses of steps. A
pair of which one life breaks down, or whose objective is not finite, is left out of the estimate and
reborn. The first lives of all, which staggering shortens, are born of the meta-parameters as they are; all
later ones are born of their member's.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.flatten_util import ravel_pytree

from metalab.components import component, number, part, static
from metalab.lifetimes import (
    Slots,
    advance,
    born,
    broken_of,
    init_memory,
    rebirth,
    slot_metrics,
    taught,
    unroll,
)
from metalab.optimizers import Adam, OptimizerSettings
from metalab.protocols import Evaluation, InnerLoop, PyTree, TaskDistribution
from metalab.trees import all_finite, select
from outer_loops.refusals import require_meta_params

__all__ = ["PersistentEvolution", "PersistentState"]

_SIGNS = (1.0, -1.0)  # of the perturbation of a pair's members


class PersistentState(NamedTuple):
    """Outer state; ``P`` pairs, ``D`` meta-parameters.

    Attributes:
        meta: meta-parameters.
        optimizer: the meta-optimiser's state.
        slots: lives in flight, leaves ``[P, 2, ...]``; a pair's members are always of one age.
        perturbation: [P, D] sum of the perturbations of the first members' lives so far (xi).
        memory: of an adaptive task distribution, else ().
    """

    meta: PyTree
    optimizer: PyTree
    slots: Slots
    perturbation: Array
    memory: PyTree


@component
class PersistentEvolution:
    """Persistent evolution strategy over truncated lifetimes: unbiased, and no gradient is asked for."""

    inner: InnerLoop = part(doc="what learns", group="inner")
    tasks: TaskDistribution = part(doc="what it lives in", group="tasks")
    truncation: int = static(5, doc="K, inner updates between two outer steps", at_least=1)
    num_pairs: int = static(32, doc="antithetic pairs of lifetimes in flight", at_least=1)
    sigma: float = number(0.05, doc="standard deviation of a truncation's perturbation", above=0.0)
    optimizer: OptimizerSettings = part(
        Adam(learning_rate=1e-3), doc="moves the meta-parameters", group="optimizer"
    )
    objective: str = static(
        "score",
        doc="of a truncation: its score, maximised, or its loss, minimised",
        choices=("score", "loss"),
    )
    stagger: bool = static(True, doc="spread first ages over the lifetime")

    def init(self, key: Array) -> PersistentState:
        """Fresh meta-parameters and newborn pairs.

        Raises:
            TypeError: the inner loop has no meta-parameters.
        """
        meta_key, born_key = jax.random.split(key)
        meta = self.inner.init_meta(meta_key)
        require_meta_params(self.inner, meta)
        memory = init_memory(self.tasks)
        one_each = born(self.inner, self.tasks, born_key, meta, memory, self.num_pairs, self.stagger)
        slots = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf], axis=1), one_each)
        size = ravel_pytree(meta)[0].size
        perturbation = jnp.zeros((self.num_pairs, size))
        return PersistentState(meta, self.optimizer.make().init(meta), slots, perturbation, memory)

    def step(
        self, key: Array, state: PersistentState, data: PyTree
    ) -> tuple[PersistentState, dict[str, Array]]:
        """One truncation of every pair and one step of the meta-optimiser.

        Args:
            key: PRNG key.
            state: before.
            data: host-fed batches, leaves ``[P, K, ...]``, the same for both members of a pair; or None.

        Raises:
            TypeError: the objective is ``loss`` and the inner loop has none.
        """
        gradient, lived, metrics = self.estimate(key, state, data)
        finite = all_finite(gradient)
        updates, optimizer = self.optimizer.make().update(gradient, state.optimizer, state.meta)
        meta = optax.apply_updates(state.meta, updates)
        kept = select(finite, (meta, optimizer), (state.meta, state.optimizer))
        return lived._replace(meta=kept[0], optimizer=kept[1]), metrics

    def estimate(
        self, key: Array, state: PersistentState, data: PyTree
    ) -> tuple[PyTree, PersistentState, dict[str, Array]]:
        """One truncation of every pair, the meta-parameters left as they are.

        Returns:
            The estimated gradient of what is to be minimised, like the meta-parameters; the state after the
            truncation; and the metrics.
        """
        draw_key, live_key = jax.random.split(key)
        noise = self.sigma * jax.random.normal(draw_key, state.perturbation.shape)
        newborn = state.slots.age[:, 0] >= state.slots.lifetime[:, 0]
        perturbation = noise + jnp.where(newborn[:, None], 0.0, state.perturbation)
        pair = jax.vmap(self._live, in_axes=(0, None, 0, 0, None, None if data is None else 0))
        keys = jax.random.split(live_key, self.num_pairs)
        slots, inner_states, evaluation = pair(keys, state.meta, noise, state.slots, state.memory, data)
        broken, difference = self._compared(evaluation)
        flat = difference @ perturbation / (2 * self.num_pairs * jnp.square(self.sigma))
        gradient = ravel_pytree(state.meta)[1](flat)
        both = jnp.broadcast_to(broken[:, None], slots.age.shape)
        lived = advance(slots, inner_states, self.truncation, both)
        ended = lived.age >= lived.lifetime
        evaluation = evaluation._replace(broken=both)
        metrics = slot_metrics(_flat(evaluation), ended.ravel()) | {
            "meta_grad_norm": optax.global_norm(gradient),
            "pair_difference": jnp.sqrt(jnp.mean(jnp.square(difference))),
        }
        memory = taught(self.tasks, state.memory, _first(slots), _mean(evaluation), ended[:, 0])
        return gradient, state._replace(slots=lived, perturbation=perturbation, memory=memory), metrics

    def meta_params(self, state: PersistentState) -> PyTree:
        """The current meta-parameters, not those of any member."""
        return state.meta

    def _live(
        self, key: Array, meta: PyTree, noise: Array, slots: Slots, memory: PyTree, batches: PyTree
    ) -> tuple[Slots, PyTree, Evaluation]:
        """A truncation of one pair, ``[2]`` first: the slots it began with, inner states, evaluations."""
        birth_key, unroll_key, evaluate_key = jax.random.split(key, 3)
        flat, tree_of = ravel_pytree(meta)

        def member(sign: Array, slot: Slots) -> tuple[Slots, PyTree, Evaluation]:
            mine = tree_of(flat + sign * noise)
            alone = jax.tree.map(lambda leaf: leaf[None], slot)
            reborn = rebirth(self.inner, self.tasks, birth_key, mine, memory, alone)
            slot = jax.tree.map(lambda leaf: leaf[0], reborn)
            remaining = slot.lifetime - slot.age
            state, outs = unroll(
                self.inner, unroll_key, mine, slot.state, self.truncation, batches, remaining
            )
            state, evaluation = self.inner.evaluate(evaluate_key, mine, state, outs, batches)
            return slot, state, evaluation

        return jax.vmap(member)(jnp.asarray(_SIGNS), slots)

    def _compared(self, evaluation: Evaluation) -> tuple[Array, Array]:
        """[P] whether a pair is to be left out, and [P] what its first member has to lose over its second."""
        value = -evaluation.score if self.objective == "score" else evaluation.loss
        if value is None:
            raise TypeError(f"{type(self.inner).__name__} has no outer loss; set objective: score")
        broken = jnp.any(broken_of(evaluation) | ~jnp.isfinite(value), axis=1)
        return broken, jnp.where(broken, 0.0, value[:, 0] - value[:, 1])


def _flat(evaluation: Evaluation) -> Evaluation:
    """Leaves ``[2 P]`` of leaves ``[P, 2]``."""
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), evaluation)


def _first(slots: Slots) -> Slots:
    """A pair's first members: leaves ``[P, ...]``; task and age are the pair's."""
    return jax.tree.map(lambda leaf: leaf[:, 0], slots)


def _mean(evaluation: Evaluation) -> Evaluation:
    """The mean score [P] of the pairs; they break [P] together."""
    return Evaluation(None, jnp.mean(evaluation.score, axis=1), {}, broken_of(evaluation)[:, 0])
