from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from metalab.components import as_arrays, component, is_component, number, part, specs, static
from metalab.optimizers import Adam, Sgd
from tests.toys import Chaser, Targets


@component
class Sample:
    """Every kind of field."""

    rate: float = number(0.5, doc="a rate", above=0.0, at_most=1.0)
    steps: int = number(3, doc="a count that may vary within a program", at_least=1)
    size: int = static(8, doc="a size", at_least=2)
    core: str = static("gru", doc="a name", choices=["gru", "lstm"])
    optimizer: Adam | Sgd = part(Sgd(learning_rate=1.0), doc="a part", group="optimizer")


def test_fields_say_what_they_are() -> None:
    declared = specs(Sample)
    assert list(declared) == ["rate", "steps", "size", "core", "optimizer"]
    assert [spec.kind for spec in declared.values()] == ["number", "number", "static", "static", "part"]
    assert (declared["rate"].above, declared["rate"].at_most, declared["rate"].at_least) == (0.0, 1.0, None)
    assert declared["size"].at_least == 2
    assert declared["core"].choices == ("gru", "lstm")
    assert declared["optimizer"].group == "optimizer"
    assert declared["rate"].doc == "a rate"
    assert specs(Sample()) == declared


def test_numbers_and_parts_are_leaves_and_statics_are_structure() -> None:
    assert jax.tree.leaves(Sample()) == [0.5, 3, 1.0]
    assert jax.tree.structure(Sample()) == jax.tree.structure(Sample(rate=0.1, steps=9))
    assert jax.tree.structure(Sample()) != jax.tree.structure(Sample(size=9))
    assert jax.tree.structure(Sample()) != jax.tree.structure(Sample(core="lstm"))
    assert jax.tree.structure(Sample()) != jax.tree.structure(Sample(optimizer=Adam()))
    # A number that is switched off is no leaf: with and without clipping are different programs.
    assert jax.tree.structure(Sgd(max_grad_norm=1.0)) != jax.tree.structure(Sgd())


def test_equal_structure_is_one_program() -> None:
    traces = []

    @jax.jit
    def program(sample: Sample) -> jax.Array:
        traces.append(sample.size)
        return sample.rate * jnp.ones(sample.size)

    assert program(as_arrays(Sample(rate=0.25))).tolist() == [0.25] * 8
    program(as_arrays(Sample(rate=0.75)))
    assert traces == [8]
    program(as_arrays(Sample(size=2)))
    assert traces == [8, 2]


def test_components_are_frozen_and_keyword_only() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Sample().rate = 1.0  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(TypeError, match="positional"):
        Sample(0.5)  # pyright: ignore[reportCallIssue]


def test_a_field_without_default_is_required() -> None:
    @component
    class Needs:
        size: int = static(doc="a size")

    with pytest.raises(TypeError, match="size"):
        Needs()


def test_a_field_must_say_what_it_is() -> None:
    with pytest.raises(TypeError, match=r"Vague\.size does not say what it is: declare it with number"):

        @component
        class Vague:
            size: int = 3


def test_is_component() -> None:
    assert is_component(Sample)
    assert is_component(Chaser())
    assert not is_component(3)

    @dataclasses.dataclass
    class Plain:
        size: int = 3

    assert not is_component(Plain)


def test_as_arrays_gives_every_number_a_type() -> None:
    sample = as_arrays(Sample(rate=1))
    leaves = jax.tree.leaves(sample)
    assert [leaf.dtype for leaf in leaves] == [jnp.int32, jnp.int32, jnp.float32]
    assert not any(leaf.weak_type for leaf in leaves)
    assert sample.size == 8
    kept = as_arrays(dataclasses.replace(sample, rate=jnp.asarray([0.5], jnp.float16)))
    assert kept.rate.dtype == jnp.float16  # pyright: ignore[reportAttributeAccessIssue]


def test_a_component_without_numbers_has_no_leaves() -> None:
    @component
    class Shape:
        size: int = static(3, doc="a size")

    assert jax.tree.leaves(Shape()) == []
    assert hash(Shape()) == hash(Shape(size=3))
    assert Shape() == Shape(size=3) != Shape(size=4)
    assert jax.tree.leaves(Targets(spread=0.25)) == [0.25]
