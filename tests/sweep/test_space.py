"""The sweep grammar read into dimensions, and dimensions into a space of points."""

from __future__ import annotations

import itertools
import json
from typing import Any

import optuna
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from metalab.errors import ConfigError
from metalab.sweep.grammar import Choice, Dimension, Float, Int, IntRange, parse_dimension
from metalab.sweep.space import Space, difference, parse_space


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
        ("choice(nan, 1)", "'choice(nan, 1)': nan is no value that a point can hold"),
        ("range(true)", "'range(true)': expected range(start, stop, step) of finite numbers"),
        ("choice({1: a}, {b: c})", "keys are text, got 1; quote it"),
        (f"range(0, 1{'0' * 400})", "'range(0, 1000"),
        ("range(0, inf)", "'range(0, inf)': expected range(start, stop, step) of finite numbers"),
        ("range(0, 1, 1e-9)", "'range(0, 1, 1e-9)' lists 1000000000 values, at most 10000; write interval"),
        (
            "range(0, 10000000000000000000)",
            "'range(0, 10000000000000000000)': whole numbers are at most 2^53",
        ),
    ],
)
def test_what_cannot_be_searched_says_why(value: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_dimension(value, "search.x")
    assert str(caught.value).startswith(("search.x: " + message, "search.x[0]: " + message))
    assert "\n" not in str(caught.value)


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
def test_what_optuna_stores_is_read_back_as_a_value_of_the_grid(text: str) -> None:
    space = parse_space({"a": text})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen = [space.suggest(study.ask()) for _ in range(40)]
    # repr tells 1 from 1.0 and from True.
    assert {repr(point) for point in seen} == {repr(point) for point in space}
    assert [space.decode(trial.params) for trial in study.trials] == seen


@pytest.mark.parametrize("text", ["tag(log, interval(1e-4, 1e-2))", "interval(-1, 2)", "int(interval(1, 4))"])
def test_continuous_dimensions_keep_their_ends_and_scale(text: str) -> None:
    dimension = parse_dimension(text, "search.a")
    assert isinstance(dimension, Float | Int)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    trial = study.ask()
    dimension.suggest(trial, "a")
    made: Any = trial.distributions["a"]
    assert (made.low, made.high, made.log) == (dimension.low, dimension.high, dimension.log)
    assert dimension.probes() == [dimension.low, dimension.high]


@pytest.mark.parametrize(
    "text", ["choice(1, x, [2])", "range(1, 9, 3)", "interval(-1, 2)", "tag(log, int(interval(1, 64)))"]
)
def test_a_dimensions_text_says_the_same_again(text: str) -> None:
    dimension = parse_dimension(text, "search.a")
    assert parse_dimension(dimension.text, "search.a") == dimension


def test_the_grid_is_the_cartesian_product_the_last_key_fastest() -> None:
    space = parse_space({"a": "choice(1, 2)", "b": "range(0, 6, 3)"})
    assert list(space) == [{"a": 1, "b": 0}, {"a": 1, "b": 3}, {"a": 2, "b": 0}, {"a": 2, "b": 3}]
    assert (space.size, space.keys, space.conditional) == (4, ("a", "b"), False)


@pytest.mark.parametrize("empty", [None, {}, []])
def test_no_search_is_one_point(empty: Any) -> None:
    assert (list(parse_space(empty)), parse_space(empty).keys) == ([{}], ())


@pytest.mark.parametrize("text", ["interval(0, 1)", "int(interval(1, 4))"])
def test_an_interval_has_no_grid(text: str) -> None:
    space = parse_space({"b": "choice(1, 2)", "a": text})
    assert space.size is None
    for ask in (space.check_grid, lambda: space.point(0), lambda: list(space)):
        with pytest.raises(ConfigError, match=r"^search\.a: .*\) has no grid; list values with choice"):
            ask()


def test_a_grid_is_counted_and_read_without_making_it() -> None:
    space = parse_space({f"k{number}": "range(0, 1000)" for number in range(8)})
    assert space.size == 10**24
    assert space.point(10**24 - 1) == {f"k{number}": 999 for number in range(8)}
    with pytest.raises(IndexError, match="point 1000000000000000000000000 of a space of"):
        space.point(10**24)


def test_many_conditions_are_counted_at_once() -> None:
    search: dict[str, Any] = {f"a{n}": "choice(x, y)" for n in range(30)}
    search |= {f"b{n}": {"search": "choice(1, 2)", "when": {f"a{n}": "x"}} for n in range(30)}
    space = parse_space(search)
    assert space.size == 3**30
    assert space.point(3**30 - 1) == {f"a{n}": "y" for n in range(30)}


def test_zipped_keys_move_together() -> None:
    space = parse_space({"inner.num_envs, outer.num_slots": "choice([16, 32], [32, 16])", "a": "1, 2"})
    assert space.keys == ("inner.num_envs", "outer.num_slots", "a")
    assert list(space)[0::2] == [
        {"inner.num_envs": 16, "outer.num_slots": 32, "a": 1},
        {"inner.num_envs": 32, "outer.num_slots": 16, "a": 1},
    ]
    assert [set(probe) for probe in space.probes()] == [{"inner.num_envs", "outer.num_slots"}] * 2 + [
        {"a"}
    ] * 2


CHAIN = {
    "last": {"search": "range(0, 6, 3)", "when": {"size": [8, 16]}},
    "size": {"search": "choice(4, 8, 16)", "when": {"kind": "lpg"}},
    "kind, rate": "choice([lpg, 1], [a2c, 2])",
}


def test_a_key_is_set_where_its_condition_holds_and_nowhere_else() -> None:
    space = parse_space(CHAIN)
    assert space.conditional
    lpg, a2c = {"kind": "lpg", "rate": 1}, {"kind": "a2c", "rate": 2}
    assert list(space) == [
        {**lpg, "size": 4},
        {**lpg, "size": 8, "last": 0},
        {**lpg, "size": 8, "last": 3},
        {**lpg, "size": 16, "last": 0},
        {**lpg, "size": 16, "last": 3},
        a2c,
    ]


def test_probes_set_what_their_conditions_ask_for() -> None:
    lpg, a2c = {"kind": "lpg", "rate": 1}, {"kind": "a2c", "rate": 2}
    assert list(parse_space(CHAIN).probes()) == [
        lpg,
        a2c,
        {**lpg, "size": 4},
        {**lpg, "size": 8},
        {**lpg, "size": 16},
        {**lpg, "size": 8, "last": 0},
        {**lpg, "size": 8, "last": 3},
        {**lpg, "size": 16, "last": 0},  # the other value under which it is set
    ]


def test_several_conditions_must_all_hold() -> None:
    search = {"a": "1, 2", "b": "choice(true, false)", "c": {"search": "3, 4", "when": {"a": 1, "b": True}}}
    assert [point["c"] for point in parse_space(search) if "c" in point] == [3, 4]
    assert parse_space(search).size == 5


def test_a_list_is_the_points_themselves() -> None:
    points = [{"inner.gain": 1}, {"inner.gain": 2, "outer.rate": [0.5]}, {}]
    space = parse_space(points)
    assert (list(space), list(space.probes()), space.size) == (points, points, 3)
    assert (space.keys, space.conditional) == (("inner.gain", "outer.rate"), True)
    assert not parse_space([{"a": 1}, {"a": 2}]).conditional


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ("choice(1, 2)", "search: expected a mapping of keys to search texts, or a list of points; got"),
        ({1: "1, 2"}, "search: keys are text, got 1"),
        ({"a,": "choice([1], [2])"}, "search.a,: expected a key, or several with a comma between each two"),
        ({"a, b": "choice(1, 2)"}, "search.a, b: each choice is a list of 2 values, one for each key; got 1"),
        ({"a, b": "choice([1, 2], [3])"}, "search.a, b: each choice is a list of 2 values"),
        (
            {"a, b": "range(1, 3)"},
            "search.a, b: keys move together through choice([..], [..]); got range(1, 3",
        ),
        ({"a": "1, 2", "a, b": "choice([1, 2], [3, 4])"}, "search.a: is searched twice"),
        (
            {"a.b": "1, 2", "a": "choice({b: 1}, {b: 2})"},
            "search.a: would overwrite a.b, which stands before",
        ),
        (
            {"a": {"serach": "1, 2"}},
            "search.a.serach: unknown key; did you mean 'search'? known: search, when",
        ),
        (
            {"a": {"when": {"b": 1}}},
            "search.a: expected {search: TEXT, when: {OTHER_KEY: VALUE}}, and search",
        ),
        ({"a": {"search": "1, 2", "when": None}}, "search.a.when: expected {OTHER_KEY: VALUE or [VALUES]}"),
        (
            {"a": {"search": "1, 2", "when": {"b": []}}},
            "search.a.when.b: expected a value or a list of values",
        ),
        (
            {"a": {"search": "1, 2", "when": {"inner.kin": 1}}, "inner.kind": "1, 2"},
            "search.a.when.inner.kin: is not searched; did you mean 'inner.kind'?",
        ),
        (
            {"a": {"search": "1, 2", "when": {"b": 1}}, "b": "interval(0, 1)"},
            "search.a.when.b: must be searched by a choice, not by interval(0.0, 1.0)",
        ),
        (
            {"a": {"search": "1, 2", "when": {"b": ["x", 3]}}, "b": "choice(x, y)"},
            'search.a.when.b: is never 3; it is one of "x", "y"',
        ),
        (
            {
                "a": {"search": "1, 2", "when": {"b": 1}},
                "b": {"search": "1, 2", "when": {"c": 1}},
                "c": {"search": "1, 2", "when": {"a": 1}},
                "d": "1, 2",
            },
            "search: the conditions of a, b, c depend on each other in a circle",
        ),
        (
            {
                "a": "1, 2",
                "b": {"search": "1, 2", "when": {"a": 1}},
                "c": {"search": "1, 2", "when": {"b": 1, "a": 2}},
            },
            "search.c.when: never holds: the conditions contradict each other",
        ),
        (
            {"a, b": "choice([1, 1], [2, 2])", "c": {"search": "1, 2", "when": {"a": 1, "b": 2}}},
            "search.c.when: never holds",
        ),
        ([1], "search[0]: expected a point, a mapping of keys to values; got 1"),
        ([{"a": 1}, {2: 1}], "search[1]: keys are text, got 2"),
        ([{"a": 1}, {"b": 1}, {"a": 1}], "search[2]: the same point as number 0 of the list"),
        ([{"a.b": 1, "a": {}}], "search[0].a: would overwrite a.b, which stands before it"),
    ],
)
def test_a_search_that_cannot_be_says_why(search: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_space(search)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ({"a": "1, 2"}, {"a": "choice(1, 2)"}, ""),
        ({"a": "1, 2"}, {"a": "1, 2.0"}, "a was choice(1, 2) and is choice(1, 2.0)"),
        (
            {"a": "1, 2"},
            {"b": "1, 2"},
            "a was choice(1, 2) and is no longer searched; b is new: choice(1, 2)",
        ),
        (
            {"a": "1, 2", "b": "1, 2"},
            {"b": "1, 2", "a": "1, 2"},
            "the order of the keys was a, b and is b, a",
        ),
        (
            {"a": "x, y", "b": {"search": "1, 2", "when": {"a": "x"}}},
            {"a": "x, y", "b": "1, 2"},
            'b was choice(1, 2) when a is "x" and is choice(1, 2)',
        ),
        ({"a": "1, 2"}, [{"a": 1}], "a search became a list of points"),
        ([{"a": 1}], {"a": "1, 2"}, "a list of points became a search"),
        ([{"a": 1}], [{"a": 1}, {"a": 2}], "the list had 1 points and has 2"),
        ([{"a": 1}], [{"a": 2}], 'point 0 of the list was {"a": 1} and is {"a": 2}'),
        ([{"a": 1}], [{"a": 1}], ""),
    ],
)
def test_what_changed_between_two_spaces_in_words(old: Any, new: Any, words: str) -> None:
    stored = json.loads(json.dumps(parse_space(old).plain()))
    assert difference(stored, parse_space(new).plain()) == words


def test_a_space_is_shown_a_line_a_key() -> None:
    assert parse_space(CHAIN).lines() == [
        'kind, rate = choice(["lpg", 1], ["a2c", 2])',
        'size = choice(4, 8, 16) when kind is "lpg"',
        "last = range(0, 6, 3) when size is 8 or 16",
    ]
    assert parse_space([{"a": 1}, {"b": 2}]).lines() == ["2 listed points of a, b"]


# --- Properties -------------------------------------------------------------------------------------------


@st.composite
def searches(draw: st.DrawFn, continuous: bool = False) -> dict[str, Any]:
    """Search sections with zipped keys and chained conditions, in any order."""
    made: dict[str, Any] = {}
    choices: dict[str, list[int]] = {}
    kinds = ["choice", "zipped", "range", *(["interval"] if continuous else [])]
    for number in range(draw(st.integers(1, 5))):
        key, kind = f"k{number}", draw(st.sampled_from(kinds))
        values = draw(st.lists(st.integers(0, 5), min_size=2, max_size=3, unique=True))
        text = {
            "choice": f"choice({', '.join(map(str, values))})",
            "zipped": f"choice({', '.join(f'[{v}, {-v}]' for v in values)})",
            "range": "range(3, 9, 2)",
            "interval": "interval(0, 1)",
        }[kind]
        parents = draw(st.lists(st.sampled_from(sorted(choices)), max_size=2, unique=True)) if choices else []
        when = {
            parent: draw(st.sampled_from([choices[parent][0], choices[parent][1:]])) for parent in parents
        }
        name = f"{key}, twin{number}" if kind == "zipped" else key
        made[name] = {"search": text, "when": when} if when else text
        if kind in ("choice", "zipped"):
            choices[key] = values
    names = draw(st.permutations(list(made)))
    search = {name: made[name] for name in names}
    try:
        parse_space(search)
    except ConfigError as error:
        assume("contradict" not in str(error))
        raise
    return search


def holds(point: dict[str, Any], when: dict[str, Any]) -> bool:
    return all(
        key in point and point[key] in (values if isinstance(values, list) else [values])
        for key, values in when.items()
    )


def check_point(search: dict[str, Any], point: dict[str, Any]) -> None:
    """The point sets what it must and nothing else, to values of the dimensions."""
    expected = set()
    for name, value in search.items():
        text, when = (value["search"], value["when"]) if isinstance(value, dict) else (value, {})
        if not holds(point, when):
            continue
        keys = name.split(", ")
        expected |= set(keys)
        dimension = parse_dimension(text, name)
        own = [point[key] for key in keys]
        if isinstance(dimension, Float):
            assert dimension.low <= own[0] <= dimension.high
        else:
            assert isinstance(dimension, Choice | IntRange)
            values = [dimension.at(place) for place in range(dimension.size)]
            assert (own if len(keys) > 1 else own[0]) in values
    assert set(point) == expected


@given(searches())
def test_a_grid_holds_every_point_once(search: dict[str, Any]) -> None:
    space = parse_space(search)
    points = list(space)
    assert space.size == len(points)
    assert points == [space.point(place) for place in range(len(points))]
    assert len({json.dumps(point, sort_keys=True) for point in points}) == len(points)
    for point in points:
        check_point(search, point)
    assert points == _by_brute_force(space)


def _by_brute_force(space: Space) -> list[dict[str, Any]]:
    """The product of all axes, without what is not set, each combination once."""
    settings: Any = [
        [axis.setting_at(place) for place in range(axis.dimension.size or 0)] for axis in space.axes
    ]
    found: dict[str, dict[str, Any]] = {}
    for combination in itertools.product(*settings):
        point: dict[str, Any] = {}
        for axis, setting in zip(space.axes, combination, strict=True):
            point |= setting if axis.holds(point) else {}
        found.setdefault(json.dumps(point), point)
    return list(found.values())


@given(searches(continuous=True), st.integers(0, 2**32 - 1))
def test_a_sampler_stays_within_the_space(search: dict[str, Any], seed: int) -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = parse_space(search)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    for _ in range(5):
        trial = study.ask()
        point = space.suggest(trial)
        check_point(search, point)
        assert space.decode(trial.params) == point


@given(searches(continuous=True))
def test_every_key_has_probes_under_which_it_is_set(search: dict[str, Any]) -> None:
    space = parse_space(search)
    probes = list(space.probes())
    assert {key for probe in probes for key in probe} == set(space.keys)
    for probe in probes:
        for axis in space.axes:
            if set(axis.keys) & set(probe):
                assert set(axis.keys) <= set(probe)
                assert axis.holds(probe)


@given(searches(continuous=True))
def test_a_space_is_plain_data_that_json_keeps(search: dict[str, Any]) -> None:
    plain = parse_space(search).plain()
    assert json.loads(json.dumps(plain)) == plain
    assert difference(plain, parse_space(search).plain()) == ""
