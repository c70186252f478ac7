"""Names to component classes: the catalogues of the loops, and ``package.module:Class`` for a user's own.

Only a registered component (``metalab.components.component``) can be named by a sweep file: nothing else is
ever constructed from one. ``entries`` reads docstrings without importing what they document, so that
``metalab list`` answers at once.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import traceback
from pathlib import Path
from typing import Any, NamedTuple

from metalab.errors import ConfigError, cause_of, nearest

__all__ = ["Entry", "catalogue", "entries", "groups", "kind_of", "resolve"]

_PACKAGES = ("inner_loops", "outer_loops")
_OWN = {"optimizer": {"adam": "metalab.optimizers:Adam", "sgd": "metalab.optimizers:Sgd"}}


class Entry(NamedTuple):
    """One line of ``metalab list``: where a name leads, what it is, and the paper its module names."""

    group: str
    name: str
    target: str
    summary: str
    paper: str


def catalogue() -> dict[str, dict[str, str]]:
    """Group to name to ``module:Class``, from the packages of the loops and metalab's own."""
    found: dict[str, dict[str, str]] = {}
    for package in _PACKAGES:
        for group, names in importlib.import_module(package).CATALOGUE.items():
            found.setdefault(group, {}).update(names)
    for group, names in _OWN.items():
        found.setdefault(group, {}).update(names)
    return found


def groups() -> list[str]:
    """The groups of the catalogue, in the order of the design."""
    return list(catalogue())


def resolve(kind: Any, group: str, key: str = "kind") -> type:
    """The component class that ``kind`` names.

    Args:
        kind: a name of the catalogue's ``group``, or ``package.module:Class``.
        group: the catalogue's group.
        key: where the name stands, for the error.

    Raises:
        ConfigError: the name is unknown, leads to no component, or its module fails to import.
    """
    names = catalogue().get(group, {})
    if not isinstance(kind, str):
        raise ConfigError(key, f"expected the name of a component of group '{group}', got {kind!r}")
    target = names.get(kind, kind)
    if ":" not in target:
        remedy = "another component is named as package.module:Class"
        raise ConfigError(key, f"unknown {group} {kind!r}; {nearest(kind, names)}; {remedy}")
    return _imported(target, key)


def kind_of(cls: type, group: str) -> str:
    """The inverse of ``resolve``: the catalogue's name of a component class, or its path."""
    target = f"{cls.__module__}:{cls.__qualname__}"
    by_target = {path: name for name, path in catalogue().get(group, {}).items()}
    return by_target.get(target, target)


def entries(group: str) -> list[Entry]:
    """The catalogue's ``group``, documented from source and without importing any of it."""
    return [
        Entry(group, name, target, *_documentation(target))
        for name, target in sorted(catalogue().get(group, {}).items())
    ]


def _imported(target: str, key: str) -> type:
    from metalab.components import is_component

    module_name, _, class_name = target.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise ConfigError(key, f"{target}: {_import_problem(module_name, error)}") from error
    found = vars(module).get(class_name)
    if found is None:
        classes = [n for n, value in vars(module).items() if isinstance(value, type) and is_component(value)]
        raise ConfigError(key, f"{module_name} has no {class_name!r}; {nearest(class_name, classes)}")
    if not (isinstance(found, type) and is_component(found)):
        remedy = "decorate the class with metalab.components.component"
        raise ConfigError(key, f"{target} is not a component: {remedy}")
    return found


def _import_problem(module_name: str, error: Exception) -> str:
    """An import that failed, told as the user's own line that failed."""
    if (
        isinstance(error, ModuleNotFoundError)
        and error.name
        and f"{module_name}.".startswith(f"{error.name}.")
    ):
        return f"there is no module {error.name!r} on the import path"
    if isinstance(error, SyntaxError):
        return (
            f"cannot import {module_name}: SyntaxError: {error.msg} ({error.filename}, line {error.lineno})"
        )
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "importlib" not in f.filename]
    where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return f"cannot import {module_name}: {cause_of(error)}{where}"


def _documentation(target: str) -> tuple[str, str]:
    """First line of the class's docstring, and the paper that its module's docstring names."""
    module_name, _, class_name = target.partition(":")
    source = _source(module_name)
    if source is None:
        return f"(its module {module_name} is not there)", ""
    tree = ast.parse(source.read_text(encoding="utf-8"))
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    node = classes.get(class_name)
    doc = (ast.get_docstring(node) if node else None) or "(no docstring)"
    summary, paper = doc.splitlines()[0], _paper(doc) or _paper(ast.get_docstring(tree) or "")
    return summary, "" if paper in summary else paper


def _source(module_name: str) -> Path | None:
    # Parent packages of the catalogues are light; only their leaves import jax.
    try:
        found = importlib.util.find_spec(module_name)
    except ModuleNotFoundError:
        return None
    return Path(found.origin) if found and found.origin else None


def _paper(docstring: str) -> str:
    """What the first line with an arXiv number says up to it, without the bracket that it stands in.

    >>> _paper("Adam (Kingma & Ba 2015, arXiv:1412.6980) with clipping.")
    'Kingma & Ba 2015, arXiv:1412.6980'
    >>> _paper("Paper: Oh et al. (2020), arXiv:2007.08794.")
    'Oh et al. (2020), arXiv:2007.08794'
    """
    found = re.search(r".*?arXiv:\d{4}\.\d{4,5}", docstring)
    if not found:
        return ""
    text = found.group().strip()
    opened = text.rfind("(")
    if opened > text.rfind(")"):
        text = text[opened + 1 :]
    return re.sub(r"^(Paper|Source|Reference)s?:\s*", "", text)
