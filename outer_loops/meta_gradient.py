"""Truncated meta-gradients: differentiate through ``K`` inner updates of ``P`` lifetimes in flight.

The meta-gradient of the mean over slots is one gradient (a shared recurrent core's weight gradient becomes
one product over all slots). ``max_slot_norm`` asks for one gradient per slot instead, clipped and masked
before the mean: dearer, for when a few lifetimes dominate.

``per_slot_optimizer`` gives every lifetime an optimiser state of its own and averages the *updates* of the
meta-parameters instead of the gradients, so that one noisy lifetime moves them no further than any other
(Calian et al. 2025, arXiv:2505.17895, algorithm 1). A slot keeps its optimiser state when it is reborn; one
whose gradient is not finite has no say in that step.

A loss that needs no life (the likelihood of recorded actions, ``inner_loops.distillation``) is differentiated
with a truncation of 0: nothing is unrolled. The inner loop says so (``judged_at_birth``).

The memory of a truncation: with ``remat`` and mixed differentiation only parameters and optimiser states of
each inner update are stored; ``keep_gradients`` stores the inner gradients as well, which spares the backward
pass their recomputation (Kemaev et al. 2025, arXiv:2505.00793).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from metalab.components import component, number, part, static
from metalab.gradients import MODES, differentiate_in
from metalab.lifetimes import (
    Slots,
    advance,
    born,
    host_batches,
    init_memory,
    rebirth,
    slot_metrics,
    taught,
    unroll,
)
from metalab.optimizers import Adam, OptimizerSettings
from metalab.protocols import InnerLoop, PyTree, TaskDistribution
from metalab.trees import all_finite, select
from outer_loops.refusals import name_of, require_meta_params

__all__ = ["MetaGradient", "MetaGradientState"]


class MetaGradientState(NamedTuple):
    """Outer state.

    Attributes:
        meta: meta-parameters.
        optimizer: the meta-optimiser's state; leaves ``[P, ...]`` with one for each slot.
        slots: lifetimes in flight.
        memory: of an adaptive task distribution, else ().
    """

    meta: PyTree
    optimizer: PyTree
    slots: Slots
    memory: PyTree


@component
class MetaGradient:
    """Meta-gradient through truncated lifetimes, by mixed-mode differentiation."""

    inner: InnerLoop = part(doc="what learns", group="inner")
    tasks: TaskDistribution = part(doc="what it lives in", group="tasks")
    truncation: int = static(
        5, doc="K, inner updates differentiated through; 0: the loss is of newborns and examples", at_least=0
    )
    num_slots: int = static(32, doc="P, lifetimes in flight", at_least=1)
    optimizer: OptimizerSettings = part(
        Adam(learning_rate=1e-4), doc="moves the meta-parameters", group="optimizer"
    )
    stagger: bool = static(True, doc="spread first ages over the lifetime")
    stratify: bool = static(False, doc="space the first ages evenly instead of drawing them")
    differentiation: str = static("mixed", doc="how inner gradients are differentiated", choices=MODES)
    remat: bool = static(True, doc="recompute each inner update in the backward pass")
    keep_gradients: bool = static(False, doc="with remat, store the inner gradients")
    per_slot_optimizer: bool = static(
        False, doc="an optimiser state for each lifetime, and the mean of their updates"
    )
    max_slot_norm: float | None = number(
        None, doc="clip each lifetime's own meta-gradient to this norm before the mean", above=0.0
    )

    def __post_init__(self) -> None:
        if self.per_slot_optimizer and self.max_slot_norm is not None:
            raise ValueError(
                "max_slot_norm beside per_slot_optimizer: each lifetime's optimiser clips its own gradient; "
                "set optimizer.max_grad_norm instead"
            )

    def init(self, key: Array) -> MetaGradientState:
        """Fresh meta-parameters and newborn slots."""
        meta_key, born_key = jax.random.split(key)
        meta = self.inner.init_meta(meta_key)
        memory = init_memory(self.tasks)
        slots = born(
            self.inner, self.tasks, born_key, meta, memory, self.num_slots, self.stagger, self.stratify
        )
        optimizer = self.optimizer.make().init(meta)
        if self.per_slot_optimizer:
            optimizer = jax.tree.map(lambda leaf: jnp.stack([leaf] * self.num_slots), optimizer)
        return MetaGradientState(meta, optimizer, slots, memory)

    def step(
        self, key: Array, state: MetaGradientState, data: PyTree
    ) -> tuple[MetaGradientState, dict[str, Array]]:
        """One truncation of every slot and one step of the meta-optimiser; ``data``: [P, K, ...] or None.

        Raises:
            TypeError: the inner loop offers no differentiable outer loss, or has no meta-parameters.
        """
        birth_key, unroll_key = jax.random.split(key)
        slots = rebirth(self.inner, self.tasks, birth_key, state.meta, state.memory, state.slots)
        keys = jax.random.split(unroll_key, self.num_slots)
        with differentiate_in(self.differentiation):
            gradient, (inner_states, evaluation) = self._gradient(state.meta, keys, slots, data)
        meta, optimizer, metrics = self._moved(gradient, state)
        new_slots = advance(slots, inner_states, self.truncation, evaluation.broken)
        ended = new_slots.age >= new_slots.lifetime
        memory = taught(self.tasks, state.memory, slots, evaluation, ended)
        metrics = slot_metrics(evaluation, ended) | metrics
        return MetaGradientState(meta, optimizer, new_slots, memory), metrics

    def host_batches(self, rng: np.random.Generator) -> PyTree:
        """See ``FedOuterLoop``: leaves ``[P, K, ...]`` or None."""
        return host_batches(self.inner, rng, self.num_slots, max(self.truncation, 1))

    def meta_params(self, state: MetaGradientState) -> PyTree:
        """The current meta-parameters."""
        return state.meta

    def _gradient(self, meta: PyTree, keys: Array, slots: Slots, data: PyTree):
        require_meta_params(self.inner, meta)
        if self.truncation == 0 and not getattr(self.inner, "judged_at_birth", False):
            raise TypeError(
                f"{name_of(self.inner)} is judged by what its updates led to: truncation=0 leaves none; "
                "give at least 1"
            )

        def lifetime(meta: PyTree, key: Array, slot: Slots, batches: PyTree):
            unroll_key, evaluate_key = jax.random.split(key)
            remaining = slot.lifetime - slot.age
            inner, length = self.inner, self.truncation
            state, outs = unroll(
                inner,
                unroll_key,
                meta,
                slot.state,
                length,
                jax.tree.map(lambda leaf: leaf[:length], batches),
                remaining,
                remat=self.remat,
                keep_gradients=self.keep_gradients,
            )
            state, evaluation = inner.evaluate(evaluate_key, meta, state, outs, batches)
            if evaluation.loss is None:
                raise TypeError(
                    f"{name_of(self.inner)} has no differentiable outer loss; "
                    "train it with an evolution strategy (outer kind evolution_strategy)"
                )
            # A slot that is not finite must not poison the sum; its cotangents are masked by the inner
            # loop's guard or, with max_slot_norm, below.
            loss = jnp.where(jnp.isfinite(evaluation.loss), evaluation.loss, 0.0)
            return loss, (jax.lax.stop_gradient(state), jax.lax.stop_gradient(evaluation))

        axes = (None, 0, 0, None if data is None else 0)
        if self.max_slot_norm is None and not self.per_slot_optimizer:

            def total(meta: PyTree):
                losses, aux = self._over_slots(lifetime, axes)(meta, keys, slots, data)
                # The sum, not the mean: bounds on a lifetime's cotangent must not depend on P.
                return jnp.sum(losses), aux

            return jax.grad(total, has_aux=True)(meta)
        return jax.vmap(jax.grad(lifetime, has_aux=True), axes)(meta, keys, slots, data)

    def _over_slots(self, lifetime: Callable[..., PyTree], axes: tuple[int | None, ...]):
        """``lifetime`` of every slot; a single one is not mapped over.

        An axis of one slot beside that of the examples makes the gradient of a weight a product over two
        axes, for which a CPU takes twice the time.
        """
        if self.num_slots > 1:
            return jax.vmap(lifetime, axes)

        def alone(*args: PyTree) -> PyTree:
            single = [
                one if axis is None else jax.tree.map(lambda leaf: leaf[0], one)
                for one, axis in zip(args, axes, strict=True)
            ]
            return jax.tree.map(lambda leaf: leaf[None], lifetime(*single))

        return alone

    def _moved(self, gradient: PyTree, state: MetaGradientState) -> tuple[PyTree, PyTree, dict[str, Array]]:
        """Meta-parameters and optimiser after one step; ``gradient`` is a sum, or one for each slot."""
        metrics: dict[str, Array] = {}
        if self.per_slot_optimizer:
            updates, optimizer, metrics = _mean_of_updates(self.optimizer, gradient, state)
            return optax.apply_updates(state.meta, updates), optimizer, metrics
        if self.max_slot_norm is not None:
            gradient, metrics = _clipped_sum(gradient, self.max_slot_norm)
        gradient = jax.tree.map(lambda g: g / self.num_slots, gradient)
        metrics["meta_grad_norm"] = optax.global_norm(gradient)
        updates, optimizer = self.optimizer.make().update(gradient, state.optimizer, state.meta)
        moved = (optax.apply_updates(state.meta, updates), optimizer)
        return *select(all_finite(gradient), moved, (state.meta, state.optimizer)), metrics


def _clipped_sum(per_slot: PyTree, max_norm: Array | float) -> tuple[PyTree, dict[str, Array]]:
    """Sum over slots of gradients ``[P, ...]``, each clipped to ``max_norm`` and dropped if not finite."""
    norms = jax.vmap(optax.global_norm)(per_slot)
    scale = jnp.where(jnp.isfinite(norms), jnp.minimum(1.0, max_norm / jnp.maximum(norms, 1e-12)), 0.0)

    def combine(leaf: Array) -> Array:
        clean = jnp.where(jnp.isfinite(leaf), leaf, 0.0)
        return jnp.tensordot(scale.astype(leaf.dtype), clean, axes=1)

    return jax.tree.map(combine, per_slot), _norms_of_slots(norms)


def _mean_of_updates(
    settings: OptimizerSettings, per_slot: PyTree, state: MetaGradientState
) -> tuple[PyTree, PyTree, dict[str, Array]]:
    """The mean of what the sound slots' own optimisers would do; a broken one keeps its state."""
    norms = jax.vmap(optax.global_norm)(per_slot)
    sound = jnp.isfinite(norms)
    make_update = jax.vmap(settings.make().update, in_axes=(0, 0, None))
    updates, optimizer = make_update(per_slot, state.optimizer, state.meta)
    count = jnp.maximum(jnp.sum(sound), 1)

    def mean(leaf: Array) -> Array:
        return jnp.sum(select(sound, leaf, jnp.zeros_like(leaf)), axis=0) / count.astype(leaf.dtype)

    metrics = {"meta_grad_norm": optax.global_norm(jax.tree.map(mean, per_slot))}
    updates = jax.tree.map(mean, updates)
    return updates, select(sound, optimizer, state.optimizer), metrics | _norms_of_slots(norms)


def _norms_of_slots(norms: Array) -> dict[str, Array]:
    finite = jnp.where(jnp.isfinite(norms), norms, 0.0)
    return {"slot_grad_norm_median": jnp.median(finite), "slot_grad_norm_max": jnp.max(finite)}
