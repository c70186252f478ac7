"""The sweep grammar read into dimensions."""

from __future__ import annotations

from typing import Any

import optuna
import pytest

from metalab.errors import ConfigError
from metalab.sweep.space import (
    Choice,
    Dimension,
    Float,
    Int,
    IntRange,
    grid_points,
    parse_dimension,
    parse_space,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("choice(1, 2.5, true, 'a b', word)", Choice((1, 2.5, True, "a b", "word"))),
        ("1, 2", Choice((1, 2))),
        ("1, null", Choice((1, None))),
        ("[64, 64], [32]", Choice(([64, 64], [32]))),
        (
            "choice({kind: sgd}, {kind: adam, b1: 0.5})",
            Choice(({"kind": "sgd"}, {"kind": "adam", "b1": 0.5})),
        ),
        ("range(1, 5)", IntRange(1, 5, 1)),
        ("range(0.1, 0.5, 0.1)", Choice((0.1, 0.2, 0.3, 0.4))),
        ("interval(1, 10)", Float(1.0, 10.0)),
        ("tag(log, interval(1e-4, 1e-2))", Float(1e-4, 1e-2, log=True)),
        ("int(interval(1, 10))", Int(1, 10)),
        ("tag(log, int(interval(1, 64)))", Int(1, 64, log=True)),
    ],
)
def test_the_grammar(text: str, expected: Dimension) -> None:
    assert parse_dimension(text, "search.x") == expected


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([0.1, 0.2], 'the list [0.1, 0.2] is one value, not a choice; write "choice(0.1, 0.2)"'),
        ("[0.1, 0.2]", "'[0.1, 0.2]' is one value: nothing to search; write choice(a, b), range(1, 5)"),
        (0.1, "0.1 is one value: nothing to search"),
        ("word", "'word' is one value: nothing to search"),
        ("loguniform(1, 2)", "cannot read 'loguniform(1, 2)'"),
        ("choice(", "cannot read 'choice('"),
        ("choice()", "cannot read 'choice()'"),
        ("choice(1, 1)", "'choice(1, 1)' holds the same value twice"),
        (
            "shuffle(1, 2)",
            "'shuffle(1, 2)': shuffle would change the points of a resumed sweep; leave it out",
        ),
        ("shuffle(range(1, 4))", "'shuffle(range(1, 4))': shuffle would change"),
        ("range(3, 3)", "'range(3, 3)' is empty: a range excludes its stop"),
        ("range(1, 5, 0)", "'range(1, 5, 0)': the step must not be 0"),
        ("interval(2, 1)", "'interval(2, 1)': expected interval(low, high) with low below high"),
        (
            "tag(log, interval(0, 1))",
            "'tag(log, interval(0, 1))': a log scale needs a low end above 0, got 0",
        ),
        ("tag(lg, interval(1, 2))", "'tag(lg, interval(1, 2))': unknown tag 'lg'; known here: log"),
        ("tag(log, choice(1, 2))", "'tag(log, choice(1, 2))': unknown tag 'log'; none is known here"),
        ("glob(*)", "'glob(*)' is one value"),
    ],
)
def test_what_cannot_be_searched_says_why(value: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_dimension(value, "search.x")
    assert str(caught.value).startswith(f"search.x: {message}")
    assert "\n" not in str(caught.value)


def test_the_grid_is_the_cartesian_product_the_last_key_fastest() -> None:
    space = parse_space({"a": "choice(1, 2)", "b": "range(0, 6, 3)"})
    assert grid_points(space) == [{"a": 1, "b": 0}, {"a": 1, "b": 3}, {"a": 2, "b": 0}, {"a": 2, "b": 3}]
    assert grid_points({}) == [{}]


@pytest.mark.parametrize("text", ["interval(0, 1)", "int(interval(1, 4))"])
def test_an_interval_has_no_grid(text: str) -> None:
    with pytest.raises(
        ConfigError, match=r"^search\.a: .*interval\(\.\.\.\)\)? has no grid; list values with choice"
    ):
        grid_points(parse_space({"a": text}))


@pytest.mark.parametrize(
    "text",
    [
        "choice(1, true, 1.0)",
        "choice([1, 2], {kind: sgd}, x)",
        "range(2, 11, 3)",
        "range(5, 1, -2)",
        "1, null",
    ],
)
def test_what_optuna_suggests_is_decoded_to_a_value_of_the_grid(text: str) -> None:
    dimension = parse_dimension(text, "search.a")
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen = [dimension.decode(study.ask({"a": dimension.optuna()}).params["a"]) for _ in range(40)]
    # repr tells 1 from 1.0 and from True.
    assert {repr(value) for value in seen} == {repr(value) for value in dimension.grid()}


@pytest.mark.parametrize("text", ["tag(log, interval(1e-4, 1e-2))", "interval(-1, 2)", "int(interval(1, 4))"])
def test_continuous_dimensions_keep_their_ends_and_scale(text: str) -> None:
    dimension = parse_dimension(text, "search.a")
    assert isinstance(dimension, Float | Int)
    made: Any = dimension.optuna()
    assert (made.low, made.high, made.log) == (dimension.low, dimension.high, dimension.log)
    assert dimension.probes() == [dimension.low, dimension.high]
