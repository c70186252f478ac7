"""Mappings to components: casts, defaults, parts and their errors."""

from __future__ import annotations

from typing import Any

import jax
import pytest

from metalab.config import build_component, merge, to_config
from metalab.config.build import build_learner
from metalab.errors import ConfigError
from metalab.optimizers import Adam, Sgd
from tests.config_toys import Fields, World, WorldTargets

FIELDS = "tests.config_toys:Fields"


def build(**fields: Any) -> Any:
    return build_component({"kind": FIELDS, **fields}, "inner", "inner")


def test_a_silent_mapping_gives_the_defaults() -> None:
    assert build() == Fields()


@pytest.mark.parametrize(
    ("field", "given", "expected"),
    [
        ("rate", 1, 1.0),
        ("clip", 2, 2.0),
        ("clip", None, None),
        ("steps", 7, 7),
        ("sizes", [4, 5], (4, 5)),
        ("sizes", [], ()),
        ("pair", [1, 2], (1.0, 2.0)),
        ("name", "beta", "beta"),
        ("mode", "exact", "exact"),
        ("flag", True, True),
        ("mixed", 3, 3),
        ("mixed", [3, 4], (3, 4)),
    ],
)
def test_values_are_cast_by_annotation(field: str, given: Any, expected: Any) -> None:
    value = getattr(build(**{field: given}), field)
    assert value == expected
    assert type(value) is type(expected)


def test_an_integer_given_for_a_float_shares_the_program() -> None:
    assert jax.tree.structure(build(rate=1)) == jax.tree.structure(build(rate=0.5))
    assert jax.tree.leaves(build(rate=1)) == jax.tree.leaves(build(rate=1.0))


@pytest.mark.parametrize(
    ("field", "given", "message"),
    [
        ("rate", "1e-3", "inner.rate: expected a number above 0 and at most 1, got '1e-3'"),
        ("rate", True, "inner.rate: expected a number above 0 and at most 1, got True"),
        ("rate", None, "inner.rate: expected a number above 0 and at most 1, got None"),
        ("rate", float("nan"), "inner.rate: expected a number above 0 and at most 1, got nan"),
        ("rate", 0, "inner.rate: 0.0 is out of range: it must be above 0 and at most 1"),
        ("rate", 1.5, "inner.rate: 1.5 is out of range"),
        ("clip", -1.0, "inner.clip: -1.0 is out of range: it must be above 0"),
        ("clip", "none", "inner.clip: expected a number or null above 0, got 'none'"),
        ("steps", 2.5, "inner.steps: expected a whole number at least 1, got 2.5"),
        ("steps", 10.0, "inner.steps: expected a whole number at least 1, got 10.0; write 10"),
        ("steps", 0, "inner.steps: 0 is out of range: it must be at least 1"),
        ("sizes", [4, 0], "inner.sizes: 0 is out of range"),
        ("sizes", 4, "inner.sizes: expected a list of a whole number at least 1, got 4"),
        ("pair", [1.0], "inner.pair: expected a list of 2 values (a number, a number), got [1.0]"),
        ("name", "alpa", "inner.name: 'alpa' is not allowed; did you mean 'alpha'? known: a, alpha, beta"),
        ("name", 1, "inner.name: expected one of 'alpha', 'beta', 'a', got 1; quote it: '1'"),
        ("mode", "slow", "inner.mode: expected one of 'fast', 'exact', got 'slow'"),
        ("flag", 1, "inner.flag: expected true or false, got 1"),
        ("flag", "yes", "inner.flag: expected true or false, got 'yes'"),
        ("raet", 1, "inner.raet: unknown key (given 1); did you mean 'rate'? known: clip, flag, kind,"),
        (
            "optimizer",
            "adam",
            "inner.optimizer: expected a mapping such as {kind: ...} (group 'optimizer'), got",
        ),
        (
            "optimizer",
            None,
            "inner.optimizer: expected a mapping such as {kind: ...} (group 'optimizer'), got",
        ),
        ("optimizer", {"kind": "adm"}, "inner.optimizer.kind: unknown optimizer 'adm'; did you mean 'adam'?"),
        ("optimizer", {"kind": 3}, "inner.optimizer.kind: expected the name of a component"),
        ("optimizer", {"b3": 0.1}, "inner.optimizer.b3: unknown key (given 0.1); did you mean 'b2'?"),
        ("optimizer", {"_target_": "os.system"}, "inner.optimizer._target_: unknown key (given 'os.system')"),
    ],
)
def test_what_is_not_allowed_is_named(field: str, given: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(**{field: given})
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_missing_field_says_what_it_is_for() -> None:
    with pytest.raises(
        ConfigError, match=r"^outer\.rate: required and not given: a rate \(a number above 0\)"
    ):
        build_component({"kind": "tests.config_toys:Required"}, "outer", "outer")
    with pytest.raises(ConfigError, match=r"^outer\.optimizer: required and not given: its optimiser"):
        build_component({"kind": "tests.config_toys:Required", "rate": 1}, "outer", "outer")
    with pytest.raises(
        ConfigError, match=r"^x\.kind: required and not given: which optimizer; known: adam, sgd"
    ):
        build_component({}, "optimizer", "x")


def test_a_part_of_the_default_kind_keeps_the_defaults_other_fields() -> None:
    made = build(optimizer={"learning_rate": 2})
    assert made.optimizer == Adam(learning_rate=2.0, b1=0.5)
    made = build(optimizer={"kind": "adam", "learning_rate": 2})
    assert made.optimizer == Adam(learning_rate=2.0, b1=0.5)


def test_a_part_of_another_kind_starts_from_that_kinds_own_defaults() -> None:
    assert build(optimizer={"kind": "sgd"}).optimizer == Sgd()
    assert build(other={"kind": "sgd"}).other == Sgd()
    assert build(other=None).other is None


def test_a_component_that_refuses_its_fields_is_one_line() -> None:
    with pytest.raises(ConfigError) as caught:
        build_component({"kind": "tests.config_toys:Picky", "low": 2}, "inner", "inner")
    wanted = "inner: tests.config_toys:Picky: ValueError: low = 2.0 is above high = 1.0"
    assert str(caught.value) == wanted


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("tests.config_toys:Plain", "tests.config_toys:Plain is not a component: decorate the class"),
        ("tests.config_toys:Fiels", "tests.config_toys has no 'Fiels'; did you mean 'Fields'?"),
        (
            "tests.nowhere:Fields",
            "tests.nowhere:Fields: there is no module 'tests.nowhere' on the import path",
        ),
        ("os:system", "os:system is not a component"),
    ],
)
def test_only_components_can_be_named(kind: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_component({"kind": kind}, "inner", "inner")
    assert str(caught.value).startswith(f"inner.kind: {message}")


def test_the_learner_lives_in_the_world_of_its_tasks_unless_told_otherwise() -> None:
    tasks = WorldTargets(size=6)
    kind = "tests.config_toys:Worldly"
    assert build_learner({"kind": kind}, tasks).environment == World(size=6)
    own = {"kind": kind, "environment": {"kind": "tests.config_toys:World", "size": 2}}
    assert build_learner(own, tasks).environment == World(size=2)


def test_to_config_is_the_inverse() -> None:
    made = build(rate=1, sizes=[2, 3], optimizer={"kind": "sgd", "learning_rate": 3})
    written = to_config(made, "inner")
    assert written["optimizer"] == {"kind": "sgd", "learning_rate": 3.0, "max_grad_norm": None}
    assert written["sizes"] == [2, 3]
    assert build_component(written, "inner", "inner") == made


def test_merge_goes_deep_and_replaces_a_component_of_another_kind() -> None:
    base = {"rule": {"kind": "lpg", "hidden_size": 8}, "num_envs": 4}
    assert merge(base, {"rule": {"hidden_size": 2}}) == {
        "rule": {"kind": "lpg", "hidden_size": 2},
        "num_envs": 4,
    }
    assert merge(base, {"rule": {"kind": "a2c"}}) == {"rule": {"kind": "a2c"}, "num_envs": 4}
    assert base["rule"] == {"kind": "lpg", "hidden_size": 8}
