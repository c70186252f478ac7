"""DataRater: a rater of training examples, meta-learned so that models trained on what it likes learn faster.

Paper: Calian, Farquhar, Kemaev, Zintgraf et al. (2025), arXiv:2505.17895. The inner update is a step of a
model on a batch whose examples are weighted by the softmax of their scores,

    g_t = sum_i grad l(x_i; theta_t) sigma_B(phi_eta(x_i)),

and the outer loss is the mean loss of the updated model on examples of a disjoint part. Meta-parameters are
the rater's eta; the outer loop's slots are the population of inner models (the paper's algorithm 1 is
``meta_gradient`` with ``per_slot_optimizer``, ``stratify`` and a truncation of 2). Examples, model and rater
are parts: text, a language model and a bidirectional transformer, or given features, a classifier and a
perceptron.

The weights are computed before the gradient of the inner loss and handed to it as an argument: the rater is
differentiated once, in plain reverse mode, and in mixed mode ``d/dw_i`` is the derivative of the i-th loss
along the cotangent.

With another ``selection`` the same learner trains on what a judge keeps, each example with equal weight: that
is how a rater is used once it is trained, and what it is compared with.

**Deviations**. The paper does not say how features are pooled into a score (here: their mean over the
positions and a linear head that begins at zero), how long inner models live, or what the meta-learning rate
is. Its models have 50 to 1000 million parameters.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from inner_loops.data.base import Examples, HostStream, Stream, widened
from inner_loops.data.text import TextStream
from inner_loops.language_model import LanguageModel
from inner_loops.models import Model
from inner_loops.raters import Rater, TransformerRater
from inner_loops.ratings import rank_correlation, rating_metrics
from inner_loops.selections import LeastPerplexing, Selection, Softmax
from metalab.components import component, part, static
from metalab.gradients import inner_grad
from metalab.optimizers import Adam, OptimizerSettings
from metalab.protocols import Evaluation, PyTree, StepOut, Task
from metalab.trees import all_finite

__all__ = ["DataRater", "ModelState"]

_GIGA = 1e9


class ModelState(NamedTuple):
    """One lifetime.

    Attributes:
        params: the model's.
        optimizer: its optimiser's state.
        reference: parameters of the model that judges by perplexity; () without such a selection.
        updates: [] int32 inner updates lived.
    """

    params: PyTree
    optimizer: PyTree
    reference: PyTree
    updates: Array


@component
class DataRater:
    """Model trained on examples that a meta-learned rater weighs or selects (Calian et al. 2025)."""

    rater: Rater = part(TransformerRater(), doc="gives each example its score", group="rater")
    model: Model = part(LanguageModel(), doc="what is trained on the examples", group="model")
    optimizer: OptimizerSettings = part(
        Adam(learning_rate=3e-3, eps_root=1e-8), doc="the model's", group="optimizer"
    )
    selection: Selection = part(Softmax(), doc="which examples it is taught", group="selection")
    stream: Stream = part(TextStream(), doc="the examples; those of the tasks unless given", group="stream")
    batch_size: int = static(32, doc="N, examples of one inner update", at_least=1)
    outer_batch_size: int = static(64, doc="examples of the outer loss", at_least=1)
    validation_size: int = static(512, doc="examples of an assessment's loss", at_least=1)
    rated_size: int = static(0, doc="examples that an assessment rates; 0: it rates none", at_least=0)

    def init_meta(self, key: Array) -> PyTree:
        """The rater's parameters."""
        return self.rater.init(key, self.stream)

    def init(self, key: Array, meta: PyTree, task: Task) -> ModelState:
        """A newborn model; with ``LeastPerplexing`` its reference model, trained."""
        del meta, task
        model_key, reference_key = jax.random.split(key)
        params = self.model.init(model_key, self.stream)
        judge = self.selection
        return ModelState(
            params=params,
            optimizer=self.optimizer.make().init(params),
            reference=self._reference(reference_key, judge) if isinstance(judge, LeastPerplexing) else (),
            updates=jnp.zeros((), jnp.int32),
        )

    def step(self, key: Array, meta: PyTree, state: ModelState, batch: PyTree) -> tuple[ModelState, StepOut]:
        """One update of the model on a fresh batch, which the host has drawn if ``batch`` is given."""
        draw_key, choose_key = jax.random.split(key)
        if batch is None:
            drawn = self.stream.train(draw_key, self.selection.candidates(self.batch_size))
        else:
            drawn = widened(batch["train"])
        values = self._judged(meta, state, drawn)
        rows, weights = self.selection.choose(choose_key, values, self.batch_size)
        chosen: Examples = jax.tree.map(lambda leaf: leaf[rows], drawn)
        gradient = inner_grad(self._weighted_loss)(state.params, weights, chosen.inputs)
        updates, optimizer = self.optimizer.make().update(gradient, state.optimizer, state.params)
        new_state = state._replace(
            params=optax.apply_updates(state.params, updates),
            optimizer=optimizer,
            updates=state.updates + 1,
        )
        metrics = {
            "level": jax.lax.stop_gradient(jnp.sum(weights * chosen.level)),
            "rank_correlation": jax.lax.stop_gradient(rank_correlation(values, -drawn.level)),
        }
        return new_state, StepOut(metrics=metrics, aux=metrics)

    def evaluate(
        self, key: Array, meta: PyTree, state: ModelState, outs: StepOut, batch: PyTree
    ) -> tuple[ModelState, Evaluation]:
        """The model's loss on fresh examples of the outer part."""
        del meta
        if batch is None:
            examples = self.stream.outer(key, self.outer_batch_size)
        else:
            examples = widened(jax.tree.map(lambda leaf: leaf[-1], batch["outer"]))
        loss = self._mean_loss(state.params, examples)
        metrics = {name: jnp.mean(values) for name, values in outs.aux.items()}
        broken = ~all_finite((state.params, loss))
        return state, Evaluation(loss=loss, score=-loss, metrics=metrics, broken=broken)

    def assess(self, key: Array, meta: PyTree, state: ModelState) -> dict[str, Array]:
        """``return``, minus the validation loss; ``compute`` so far, in GFLOP; how good the ratings are."""
        del key
        loss = self._mean_loss(state.params, self.stream.validation(self.validation_size))
        metrics = {"return": -loss, "compute": state.updates * self.cost_of_update() / _GIGA}
        if self.rated_size:
            examples = self.stream.rated(self.rated_size)
            scores = self.rate(meta, examples.inputs)
            metrics |= rating_metrics(scores, examples, self.stream.levels, self.stream.kinds)
        return metrics

    def host_batches(self, rng: np.random.Generator, length: int) -> PyTree:
        """See ``HostFed``: the candidates of every update, and examples of the outer part for the last."""
        if not (isinstance(self.stream, HostStream) and self.stream.on_host):
            return None
        candidates = self.selection.candidates(self.batch_size)
        train = self.stream.drawn_by_host(rng, "train", (length, candidates))
        outer = self.stream.drawn_by_host(rng, "outer", (1, self.outer_batch_size))
        # One outer batch serves the truncation; a view, so that the host does not gather it K times.
        spread = jax.tree.map(lambda leaf: np.broadcast_to(leaf, (length, *leaf.shape[1:])), outer)
        return {"train": train, "outer": spread}

    def rate(self, meta: PyTree, inputs: PyTree) -> Array:
        """[n] scores of examples, leaves ``[n, ...]``."""
        return jax.vmap(self.rater.score, (None, 0))(meta, inputs)

    def cost_of_update(self) -> float:
        """Operations of one update: training (a forward and twice as much backward) and judging."""
        judge = {"rating": self.rater.cost(self.stream)}
        if isinstance(self.selection, LeastPerplexing):
            judge["perplexity"] = self.selection.model.cost(self.stream)
        judging = self.selection.candidates(self.batch_size) * judge.get(self.selection.reads, 0.0)
        return 3.0 * self.batch_size * self.model.cost(self.stream) + judging

    def _judged(self, meta: PyTree, state: ModelState, drawn: Examples) -> Array:
        """[C] what the selection reads of each candidate."""
        if self.selection.reads == "rating":
            return self.rate(meta, drawn.inputs)
        if isinstance(self.selection, LeastPerplexing):
            return jax.vmap(self.selection.model.loss, (None, 0))(state.reference, drawn.inputs)
        return drawn.level if self.selection.reads == "level" else jnp.zeros_like(drawn.level)

    def _weighted_loss(self, params: PyTree, weights: Array, inputs: PyTree) -> Array:
        return weights @ jax.vmap(self.model.loss, (None, 0))(params, inputs)

    def _mean_loss(self, params: PyTree, examples: Examples) -> Array:
        return jnp.mean(jax.vmap(self.model.loss, (None, 0))(params, examples.inputs))

    def _reference(self, key: Array, judge: LeastPerplexing) -> PyTree:
        """The judge's model, trained on the examples as they come."""
        init_key, train_key = jax.random.split(key)
        params = judge.model.init(init_key, self.stream)
        optimizer = judge.optimizer.make()

        def loss(params: PyTree, inputs: PyTree) -> Array:
            return jnp.mean(jax.vmap(judge.model.loss, (None, 0))(params, inputs))

        def update(carry: tuple[PyTree, Any], key: Array) -> tuple[tuple[PyTree, Any], None]:
            params, state = carry
            gradient = jax.grad(loss)(params, self.stream.train(key, self.batch_size).inputs)
            updates, state = optimizer.update(gradient, state, params)
            return (optax.apply_updates(params, updates), state), None

        keys = jax.random.split(train_key, judge.updates)
        return jax.lax.scan(update, (params, optimizer.init(params)), keys)[0][0]
