"""From a sweep file and the command line's overrides to one plain mapping, by Hydra.

Hydra composes the file (its defaults list included) and its grammar reads the overrides. Nothing is ever
instantiated by Hydra, and resolvers (``${oc.env:...}``) are refused: a sweep file means the same everywhere.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from metalab.config.build import merge
from metalab.errors import ConfigError, cause_of, nearest
from metalab.resources import SWEEPS, sweep_names

__all__ = ["find", "raw_config", "resolved", "resolved_with", "set_value", "with_values"]

_RESOLVER = re.compile(r"\$\{\s*[\w.]+\s*:")


def find(path_or_name: str | Path) -> Path:
    """The sweep file that a path, or the name of one that comes with metalab, stands for.

    Raises:
        ConfigError: there is none.
    """
    given = Path(path_or_name)
    if given.is_file():
        return given.resolve()
    text = str(path_or_name)
    if text in sweep_names():
        return SWEEPS / f"{text}.yaml"
    if given.is_dir():
        raise ConfigError("", f"{text} is a folder; expected a sweep file (YAML)")
    hint = nearest(given.stem, sweep_names())
    raise ConfigError("", f"there is no sweep file {text!r}; expected a path or a name; {hint}")


def raw_config(path: Path, overrides: Sequence[str] = (), smoke: bool = False) -> dict[str, Any]:
    """The file composed, its ``smoke`` section merged where asked, the overrides applied; not resolved.

    Raises:
        ConfigError: the file cannot be read, or an override is not in Hydra's grammar.
    """
    config = _composed(path)
    small = config.pop("smoke", None) or {}
    if not isinstance(small, Mapping):
        raise ConfigError("smoke", f"expected a mapping of overrides, got {small!r}")
    if smoke:
        config = merge(config, small)
    for text in overrides:
        _apply(config, text)
    _refuse_resolvers(config, "")
    return config


def resolved(config: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping with its interpolations (``${budget.outer_steps}``) replaced by what they name.

    Raises:
        ConfigError: one leads nowhere.
    """
    try:
        plain = OmegaConf.to_container(OmegaConf.create(dict(config)), resolve=True, throw_on_missing=True)
    except (OmegaConfBaseException, ValueError) as error:
        key = str(getattr(error, "full_key", "") or "")
        raise ConfigError(key, cause_of(error)) from error
    assert isinstance(plain, dict)
    return plain  # pyright: ignore[reportReturnType]


def resolved_with(config: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a configuration in which dotted keys hold ``values``, its interpolations resolved.

    A search that refers to nothing is not copied: of thousands of listed points it would take seconds.

    Raises:
        ConfigError: a value cannot stand there, or an interpolation leads nowhere.
    """
    aside = {key: config[key] for key in ("search",) if key in config and not _refers(config[key])}
    rest = {key: value for key, value in config.items() if key not in aside}
    found = resolved(with_values(rest, values))
    return {**{key: aside.get(key) for key in config}, **found}


def with_values(config: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a configuration in which dotted keys hold ``values``, set in their order.

    Raises:
        ConfigError: see ``set_value``.
    """
    copied = copy.deepcopy(dict(config))
    for key, value in values.items():
        set_value(copied, key, copy.deepcopy(value))
    return copied


def set_value(config: dict[str, Any], key: str, value: Any) -> None:
    """Sets a dotted key in place; parts on the way that the file leaves out are made.

    Raises:
        ConfigError: a step on the way is a plain value.
    """
    *parents, last = key.split(".")
    node: Any = config
    for depth, name in enumerate(parents):
        inside = node.get(name)
        if inside is None:
            inside = node[name] = {}
        if not isinstance(inside, dict):
            at = ".".join(parents[: depth + 1])
            raise ConfigError(key, f"{at} holds {inside!r}, which has no keys")
        node = inside
    node[last] = value


def _refers(node: Any) -> bool:
    """Whether an interpolation stands somewhere in it."""
    if isinstance(node, Mapping):
        return any(map(_refers, node.values()))
    if isinstance(node, list | tuple):
        return any(map(_refers, node))
    return isinstance(node, str) and "${" in node


def _composed(path: Path) -> dict[str, Any]:
    try:
        text = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ConfigError("", f"not YAML: {_yaml_problem(error)}", path) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("", f"cannot be read: {cause_of(error)}", path) from error
    if not isinstance(text, dict):
        raise ConfigError("", f"expected a mapping of sections, got {type(text).__name__}", path)
    try:
        with initialize_config_dir(config_dir=str(path.parent), version_base="1.3", job_name="metalab"):
            made = OmegaConf.to_container(compose(config_name=path.name), resolve=False)
    except yaml.YAMLError as error:
        raise ConfigError("", f"not YAML: {_yaml_problem(error)}", path) from error
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise ConfigError("", f"cannot be composed: {cause_of(error)}", path) from error
    assert isinstance(made, dict)
    return made  # pyright: ignore[reportReturnType]


def _yaml_problem(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    what = getattr(error, "problem", None) or cause_of(error)
    return f"{what} (line {mark.line + 1}, column {mark.column + 1})" if mark else what


def _apply(config: dict[str, Any], text: str) -> None:
    """Applies one override in Hydra's grammar; the components' declarations say later whether it may be."""
    override = _parsed(text)
    key = override.key_or_group
    if override.package is not None:
        raise ConfigError(key, f"override {text!r}: packages (@) are not supported")
    if key.startswith("search."):
        _apply_search(config, override, text)
    elif override.is_delete():
        _delete(config, key, text)
    elif override.value_type is not ValueType.ELEMENT:
        raise ConfigError(key, f"override {text!r} gives several values; to search over them: search.{text}")
    else:
        set_value(config, key, copy.deepcopy(override.value()))


def _parsed(text: str) -> Override:
    try:
        return OverridesParser.create().parse_override(text)
    except HydraException as error:
        problem = (
            f"override {text!r} is not in Hydra's grammar (key=value, +key=value, ~key): {cause_of(error)}"
        )
        raise ConfigError(text.split("=")[0], problem) from error


def _apply_search(config: dict[str, Any], override: Override, text: str) -> None:
    # The keys of `search` are dotted paths themselves, and its values are kept as text.
    key = override.key_or_group.removeprefix("search.")
    given = config.get("search") or {}
    if not isinstance(given, Mapping):
        raise ConfigError("search", f"override {text!r}: the file's search has no keys; change it there")
    space = config["search"] = dict(given)
    if not override.is_delete():
        space[key] = text.partition("=")[2]
    elif key in space:
        del space[key]
    else:
        raise ConfigError(f"search.{key}", f"override {text!r}: not in the file; {nearest(key, space)}")


def _delete(config: dict[str, Any], key: str, text: str) -> None:
    *parents, last = key.split(".")
    node: Any = config
    for name in parents:
        node = node.get(name) if isinstance(node, dict) else None
    if not isinstance(node, dict) or last not in node:
        known = node if isinstance(node, dict) else []
        raise ConfigError(key, f"override {text!r}: not in the file; {nearest(last, known)}")
    del node[last]


def _refuse_resolvers(node: Any, path: str) -> None:
    if isinstance(node, dict):
        for key, value in node.items():
            _refuse_resolvers(value, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list):
        for value in node:
            _refuse_resolvers(value, path)
    elif isinstance(node, str) and _RESOLVER.search(node):
        raise ConfigError(path, f"{node!r}: resolvers are not allowed; only ${{other.key}} is")
