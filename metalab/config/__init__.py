"""Configuration: sweep files composed by Hydra, checked against the components' own declarations."""

from metalab.config.build import build_component, merge, to_config
from metalab.config.compose import find
from metalab.config.load import load
from metalab.config.maker import PointMaker
from metalab.config.points import (
    build_baseline_sets,
    build_evaluation_sets,
    build_suite,
    load_suite,
    make_point,
)

__all__ = [
    "PointMaker",
    "build_baseline_sets",
    "build_component",
    "build_evaluation_sets",
    "build_suite",
    "find",
    "load",
    "load_suite",
    "make_point",
    "merge",
    "to_config",
]
