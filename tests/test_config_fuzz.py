"""Sweep files broken at random: each ends as a sweep or as one line that names the mistake."""

from __future__ import annotations

import copy
import datetime
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from metalab.config import load
from metalab.errors import ConfigError, MetalabError
from metalab.resources import SWEEPS
from metalab.spec import SweepSpec
from metalab.sweep.grammar import parse_dimension
from metalab.sweep.plan import make_plan, plan_points
from metalab.sweep.space import parse_space
from tests.config_toys import config

# The same examples on every machine: a test that fails on some days only mends nothing.
SETTINGS = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=24,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
FEW_POINTS = 64

TOY = config(
    seeds=4,
    search={
        "inner.gain": "choice(0.1, 0.5)",
        "outer.truncation, outer.num_slots": "choice([1, 2], [2, 1])",
        "inner.noise": {"search": "range(0, 1, 0.5)", "when": {"inner.gain": [0.1]}},
    },
    study={"objective": "evaluation/train/return", "pruner": {"kind": "wilcoxon", "startup_points": 1}},
    evaluation={"every": 2, "sets": {"train": {"count": 1, "updates": 2}, "far": {"count": 1, "updates": 2}}},
    baselines={
        "tuned": {
            "inner": {"kind": "tests.toys:Chaser"},
            "search": {"inner.gain": "interval(0, 1)"},
            "sampler": "random",
            "points": 3,
        },
        "random": {},
    },
    smoke={"budget": {"outer_steps": 2}},
)
LISTED = {**TOY, "search": [{"inner.gain": 0.5}, {"inner.noise": 0.5, "outer.truncation": 1}]}
FILES = {path.stem: yaml.safe_load(path.read_text()) for path in sorted(SWEEPS.glob("*.yaml"))}

# --- Junk -------------------------------------------------------------------------------------------------

NUMBERS = st.one_of(
    st.integers(-3, 70),
    st.sampled_from([2**31, 2**63, 10**30, -(10**30)]),
    st.floats(allow_nan=True, allow_infinity=True),
)
WORDS = [
    *(
        "choice",
        "range",
        "interval",
        "tag",
        "log",
        "int",
        "float",
        "str",
        "bool",
        "json_str",
        "sort",
        "shuffle",
    ),
    *("glob", "extend_list", "(", ")", "(", ")", ",", ",", " ", "[", "]", "{", "}", ":", "=", "'", '"', "\\"),
    *("0", "1", "-2", "0.5", "1e-3", "1e400", "inf", "nan", "null", "true", "x", "sgd", "$", "${seeds}", "*"),
    *(
        "\n",
        "\t",
        "é",
        "\x00",
        "99999999999999999999",
        "abs=1",
        "reverse=true",
        "step=0",
        "start=1",
        "stop=2",
    ),
]
GRAMMAR = st.lists(st.sampled_from(WORDS), min_size=1, max_size=9).map("".join)
CALLS = st.builds(
    "{}({})".format,
    st.sampled_from(["choice", "range", "interval", "int", "float", "str", "sort", "tag", "shuffle", "glob"]),
    st.lists(GRAMMAR, max_size=3).map(", ".join),
)
TEXTS = st.one_of(
    GRAMMAR,
    CALLS,
    st.text(max_size=8),
    st.sampled_from(
        ["", "grid", "tpe", "cmaes", "median", "train/", "final/train/return", "${inner}", "???"]
    ),
    st.sampled_from(
        ["${inner.gain}", "${oc.env:HOME}", "${", "os:system", "tests.toys:Chaser", "1_000", "~"]
    ),
)
SCALARS = st.one_of(
    st.none(), st.booleans(), NUMBERS, TEXTS, st.binary(max_size=3), st.just(datetime.date(2020, 1, 1))
)
KEYS = st.one_of(
    TEXTS,
    st.sampled_from(
        ["kind", "search", "when", "defaults", "inner.gain", "search.inner.gain", "a.b", "_target_"]
    ),
)
JUNK = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.one_of(KEYS, SCALARS), inner, max_size=2)
    ),
    max_leaves=4,
)

# --- Mutations --------------------------------------------------------------------------------------------

Place = tuple[Any, ...]


def places(node: Any, path: Place = ()) -> Iterator[Place]:
    """Every place below the top of a document."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from places(value, (*path, key))


def at(node: Any, place: Place) -> Any:
    for key in place:
        node = node[key]
    return node


@st.composite
def broken(draw: st.DrawFn, document: dict[str, Any]) -> dict[str, Any]:
    """A document with one to three things changed."""
    made = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        found = list(places(made))
        if not found:
            break
        place = draw(st.sampled_from(found))
        holder, key = at(made, place[:-1]), place[-1]
        match draw(st.sampled_from(["junk", "junk", "delete", "rename", "copy", "nest", "list", "add"])):
            case "junk":
                holder[key] = draw(JUNK)
            case "delete":
                del holder[key]
            case "rename" if isinstance(holder, dict):
                holder[draw(st.one_of(KEYS, SCALARS))] = holder.pop(key)
            case "copy":
                holder[key] = copy.deepcopy(at(made, draw(st.sampled_from(found))))
            case "nest":
                holder[key] = {draw(KEYS): holder[key]}
            case "list":
                holder[key] = [holder[key]] * draw(st.integers(1, 2))
            case "add" if isinstance(holder[key], dict):
                holder[key][draw(st.one_of(KEYS, SCALARS))] = draw(JUNK)
            case _:
                holder[key] = draw(SCALARS)
    return made


def check_line(error: MetalabError, where: str) -> None:
    """An error is one line that says where the mistake is."""
    text = str(error)
    assert len(text.splitlines()) == 1, repr(text)
    assert where in text


def outcome(text: bytes, overrides: list[str] | None = None, smoke: bool = False) -> SweepSpec | None:
    """What a sweep file leads to: a sweep, or None after one line that says what is wrong."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "odd.yaml"
        path.write_bytes(text)
        try:
            return load(path, overrides or [], smoke)
        except MetalabError as error:
            check_line(error, "odd.yaml")
            return None


def dumped(document: dict[str, Any]) -> bytes:
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True).encode("utf-8", "surrogatepass")


def check_points(spec: SweepSpec | None) -> None:
    """A sweep that was accepted can be planned, or one line says why not."""
    if spec is None:
        return
    space = parse_space(spec.search)
    count = spec.study.points or space.size or 0
    if count <= FEW_POINTS:
        try:
            points, _ = plan_points(spec)
        except MetalabError as error:
            check_line(error, "odd.yaml")
        else:
            assert 1 <= len(points) <= count


@settings(SETTINGS, max_examples=80)
@given(text=st.one_of(GRAMMAR, CALLS, TEXTS))
def test_any_search_text_is_a_dimension_or_one_line(text: str) -> None:
    try:
        dimension = parse_dimension(text, "search.x")
    except ConfigError as error:
        check_line(error, "search.x: ")
    else:
        assert dimension.probes()
        assert dimension.text


@settings(SETTINGS, max_examples=80)
@given(search=st.one_of(JUNK, broken({"search": TOY["search"]}), broken({"search": LISTED["search"]})))
def test_any_search_section_is_a_space_or_one_line(search: Any) -> None:
    search = search.get("search", search) if isinstance(search, dict) else search
    try:
        space = parse_space(search)
    except ConfigError as error:
        assume(error.key.isprintable())  # it is the file's own text: `load` puts it on one line
        check_line(error, "search")
    else:
        assert set().union(*space.probes()) == set(space.keys)
        if space.size is not None:
            assert set(space.point(space.size - 1)) <= set(space.keys)


@pytest.mark.parametrize("base", [TOY, LISTED], ids=["search", "list"])
@SETTINGS
@given(data=st.data(), smoke=st.booleans())
def test_a_broken_toy_is_a_sweep_or_one_line(base: dict[str, Any], data: st.DataObject, smoke: bool) -> None:
    check_points(outcome(dumped(data.draw(broken(base))), smoke=smoke))


@pytest.mark.parametrize("name", sorted(FILES))
@settings(SETTINGS, max_examples=8)
@given(data=st.data())
def test_a_broken_sweep_file_is_a_sweep_or_one_line(name: str, data: st.DataObject) -> None:
    check_points(outcome(dumped(data.draw(broken(FILES[name])))))


@settings(SETTINGS, max_examples=8)
@given(data=st.data(), number=NUMBERS)
def test_a_toy_of_other_numbers_is_a_plan_or_one_line(data: st.DataObject, number: float) -> None:
    document = copy.deepcopy(TOY)
    found = [
        place for place in places(document) if isinstance(at(document, place), int) and place[0] != "smoke"
    ]
    place = data.draw(st.sampled_from(found))
    at(document, place[:-1])[place[-1]] = number
    spec = outcome(dumped(document))
    if spec is not None:
        try:
            assert make_plan(spec).num_points == parse_space(spec.search).size
        except MetalabError as error:
            check_line(error, "odd.yaml")


@SETTINGS
@given(data=st.data())
def test_broken_yaml_is_a_sweep_or_one_line(data: st.DataObject) -> None:
    text = dumped(TOY)
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(start + 40, len(text))))
    odd = st.one_of(
        st.binary(max_size=6),
        st.text(alphabet="{}[]:,-&*!|>'\"%@`#? \n\t<a1\u2028", max_size=6).map(str.encode),
        st.sampled_from(
            [b"!!binary aGk=", b"!!python/object:os.system x", b"!!set {a}", b"&a [*a]", b"<<: *a"]
        ),
    )
    outcome(text[:start] + data.draw(odd) + text[end:])


@pytest.mark.parametrize("base", [TOY, LISTED], ids=["search", "list"])
@SETTINGS
@given(
    overrides=st.lists(
        st.builds("{}{}={}".format, st.sampled_from(["", "+", "~", "++"]), KEYS, TEXTS), max_size=2
    )
)
def test_broken_overrides_are_a_sweep_or_one_line(base: dict[str, Any], overrides: list[str]) -> None:
    check_points(outcome(dumped(base), overrides))
