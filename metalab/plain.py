"""Plain data: what a sweep file may hold, and JSON can keep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from metalab.errors import ConfigError

__all__ = ["require_plain"]


def require_plain(value: Any, path: str) -> None:
    """Refuses what is not made of mappings with text keys, lists, text, numbers, true, false and null.

    Args:
        value: anything that YAML can say: dates and bytes too, and keys that are numbers.
        path: where it stands, for the error.

    Raises:
        ConfigError: names the first place that holds something else.
    """
    if isinstance(value, Mapping):
        for key, inside in value.items():
            if not isinstance(key, str):
                problem = f"keys are text, got {key!r}; quote it, and inside braces a text with commas too"
                raise ConfigError(path, problem)
            require_plain(key, path)
            require_plain(inside, f"{path}.{key}" if path else key)
    elif isinstance(value, list | tuple):
        for index, inside in enumerate(value):
            require_plain(inside, f"{path}[{index}]")
    elif isinstance(value, str):
        if "\0" in value:
            raise ConfigError(path, f"{value!r}: the NUL character has no place in a sweep file")
    elif value is not None and not isinstance(value, bool | int | float):
        raise ConfigError(path, f"expected text, a number, true, false or null; got {value!r}")
