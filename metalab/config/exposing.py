"""The key ``meta`` of a learner: which of its numbers are meta-parameters.

A list of names, or a mapping from a name to what narrows its range::

    meta: [discount, optimizer.learning_rate]
    meta: {discount: {low: 0.5, high: 0.999}, optimizer.learning_rate: {scale: log}}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from metalab.config.schema import check_keys, field_value, join, require_mapping
from metalab.errors import ConfigError
from metalab.exposure import Leaf, expose, leaf_of

__all__ = ["KEY", "read_exposed", "written_leaves"]

KEY = "meta"
_SETTINGS = ("low", "high", "scale")


def read_exposed(learner: Any, config: Any, path: str) -> Any:
    """The learner with the meta-parameters that ``config`` names; itself where it names none.

    Args:
        learner: a component without meta-parameters.
        config: a list of names, or a mapping from names to settings.
        path: where it stands.

    Raises:
        ConfigError: a name leads to no number of the learner, or a setting is not allowed.
    """
    named: dict[str, dict[str, Any]] = {}
    for name, settings in _named(config, path):
        named.setdefault(name, {}).update(settings)
    leaves = []
    for name, settings in named.items():
        where = join(path, name)
        check_keys(settings, _SETTINGS, where)
        given = {
            key: field_value(Leaf, key, value, where) for key, value in settings.items() if value is not None
        }
        try:
            leaves.append(leaf_of(learner, name, **given))
        except ValueError as error:
            raise ConfigError(path, str(error)) from error
    try:
        return expose(learner, leaves) if leaves else learner
    except ValueError as error:
        raise ConfigError(path, str(error)) from error


def written_leaves(leaves: tuple[Leaf, ...]) -> dict[str, dict[str, Any]]:
    """The inverse of ``read_exposed``: every setting written out, as plain containers."""
    return {leaf.name: {key: getattr(leaf, key) for key in _SETTINGS} for leaf in leaves}


def _named(config: Any, path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Names and their settings; an override of one setting makes nested mappings of a dotted name."""
    if config is None:
        return
    if isinstance(config, list | tuple):
        for name in config:
            if not isinstance(name, str) or list(config).count(name) > 1:
                raise ConfigError(path, f"expected different names of numbers, got {list(config)!r}")
            yield name, {}
        return
    wanted = "a list of names such as [discount], or a mapping from names to {low, high, scale}"
    for name, settings in require_mapping(config, path, wanted).items():
        inside = require_mapping({} if settings is None else settings, join(path, name), "{low, high, scale}")
        nested = {key: value for key, value in inside.items() if isinstance(value, Mapping)}
        if nested:
            yield from ((f"{name}.{key}", found) for key, found in _named(nested, join(path, name)))
        if len(nested) < len(inside) or not inside:
            yield name, {key: value for key, value in inside.items() if key not in nested}
