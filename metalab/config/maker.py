"""Many points of one sweep, each in a fraction of the time that ``make_point`` takes."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any

from metalab.config.points import make_point
from metalab.config.templates import Template, make_template
from metalab.errors import ConfigError
from metalab.spec import Point, SweepSpec

__all__ = ["PointMaker"]

# Where a searched number is no leaf (a size drawn from an interval), every point needs a template of its own.
_MOST_TEMPLATES = 512


class PointMaker:
    """``make_point`` of one sweep, for many points.

    Points that differ only in numbers are made from one template, see ``metalab.config.templates``; what a
    template cannot make, ``make_point`` makes. The points are equal to its own, and so are the errors. Their
    configurations share what they have in common: they are for reading.
    """

    def __init__(self, spec: SweepSpec) -> None:
        self._spec = spec
        self._raw = spec.raw or spec.config
        self._moving: dict[str, frozenset[str]] = {}
        self._templates: dict[str, Template | None] = {}

    def __call__(self, number: int, values: Mapping[str, Any]) -> Point:
        """The point at which the searched keys hold ``values``.

        Raises:
            ConfigError: a value is not allowed there.
        """
        template = self._template(values)
        if template is not None:
            with suppress(Exception):  # the long way refuses it too, and says why in one line
                return template.point(number, values)
        return make_point(self._spec, number, values)

    def signature(self, values: Mapping[str, Any]) -> str:
        """Equal for points that differ in numbers alone: they have one structure, and share one program."""
        template = self._template(values)
        return _text(values, () if template is None else template.keys)

    def _template(self, values: Mapping[str, Any]) -> Template | None:
        """What makes the point; None: ``make_point`` alone can."""
        numbers = {key for key, value in values.items() if type(value) in (int, float)}
        layout = _text(values, numbers)
        moving = self._moving.get(layout)
        kind = _text(values, numbers if moving is None else moving)
        if moving is not None and kind in self._templates:
            return self._templates[kind]
        try:
            template = make_template(self._raw, values, numbers if moving is None else moving)
        except ConfigError:
            return None
        if moving is None:
            moving = self._moving[layout] = template.keys
        if len(self._templates) >= _MOST_TEMPLATES:
            del self._templates[next(iter(self._templates))]
        # Fewer keys than its like: the others would have to be part of its name.
        usable = template if template.keys == moving else None
        self._templates[_text(values, moving)] = usable
        return usable


def _text(values: Mapping[str, Any], left_out: Collection[str]) -> str:
    """Keys and values as text, which tells 1, 1.0 and true apart; of keys ``left_out`` the name alone."""
    pairs = [[key] if key in left_out else [key, value] for key, value in values.items()]
    return json.dumps(pairs, sort_keys=True, default=repr)
