"""An outer loop that names a recording."""

from __future__ import annotations

from metalab.components import component, static
from outer_loops.fixed import Fixed


@component
class Reader(Fixed):
    path: str = static("", doc="a recording")
