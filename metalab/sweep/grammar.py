"""Hydra's sweep grammar read into dimensions: one search text, one dimension.

``choice(a, b)`` and ``a, b`` list values; ``range(start, stop, step)`` excludes its stop;
``interval(low, high)`` is continuous, ``tag(log, interval(...))`` on a log scale, ``int(interval(...))`` of
whole numbers with both ends included.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, QuotedString, RangeSweep
from hydra.errors import HydraException

from metalab.errors import ConfigError
from metalab.plain import require_plain

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

__all__ = ["Choice", "Dimension", "Float", "Int", "IntRange", "parse_dimension"]

_GRAMMAR = "choice(a, b), range(1, 5), interval(0, 1), tag(log, interval(1e-4, 1e-2)) or int(interval(1, 8))"
_MOST_VALUES = 10_000  # of one choice: every trial's record repeats them
_LARGEST_INT = 2**53  # beyond it a whole number and its neighbour are the same float to a sampler


@dataclasses.dataclass(frozen=True)
class Choice:
    """One of ``values``; a value may be a list or a mapping (a whole component)."""

    values: tuple[Any, ...]

    @property
    def size(self) -> int:
        """Number of values."""
        return len(self.values)

    def at(self, index: int) -> Any:
        """The value at a position of the grid."""
        return self.values[index]

    def probes(self) -> list[Any]:
        """Values that stand for all when the space is checked: here every one."""
        return list(self.values)

    def suggest(self, trial: BaseTrial, name: str) -> Any:
        """A sampler's choice."""
        return self.decode(trial.suggest_categorical(name, list(self._by_code)))

    def decode(self, stored: Any) -> Any:
        """The value that a trial's stored parameter means.

        Raises:
            KeyError: it means none of them.
        """
        return self._by_code[stored]

    @property
    def text(self) -> str:
        """The choice in the grammar, its values in JSON."""
        return f"choice({', '.join(map(_json, self.values))})"

    @functools.cached_property
    def _by_code(self) -> dict[Any, Any]:
        """What Optuna stores to the value: plain values as they are, structured ones as JSON text.

        All are JSON text where Python takes some for equal: 1, 1.0 and true are three values.
        """
        plain = [_json(v) if isinstance(v, list | dict) else v for v in self.values]
        codes = plain if len(set(plain)) == len(plain) else [_json(v) for v in self.values]
        return dict(zip(codes, self.values, strict=True))


@dataclasses.dataclass(frozen=True)
class IntRange:
    """Whole numbers ``start, start + step, ...`` below (or above, for a negative step) ``stop``."""

    start: int
    stop: int
    step: int

    @property
    def size(self) -> int:
        """Number of values."""
        return len(range(self.start, self.stop, self.step))

    def at(self, index: int) -> int:
        """The value at a position of the grid."""
        return range(self.start, self.stop, self.step)[index]

    def probes(self) -> list[int]:
        """The ends of the range."""
        return sorted({self.at(0), self.at(-1)})

    def suggest(self, trial: BaseTrial, name: str) -> int:
        """A sampler's choice; Optuna's upper end is included, Hydra's is not."""
        low, high = min(self.at(0), self.at(-1)), max(self.at(0), self.at(-1))
        return self.decode(trial.suggest_int(name, low, high, step=abs(self.step)))

    def decode(self, stored: Any) -> int:
        """The value that a trial's stored parameter means."""
        return int(stored)

    @property
    def text(self) -> str:
        """The range in the grammar."""
        return f"range({self.start}, {self.stop}, {self.step})"


@dataclasses.dataclass(frozen=True)
class Float:
    """A real number from ``low`` to ``high``, on a log scale if ``log``; it has no grid."""

    low: float
    high: float
    log: bool = False

    size = None

    def probes(self) -> list[float]:
        """Both ends."""
        return [self.low, self.high]

    def suggest(self, trial: BaseTrial, name: str) -> float:
        """A sampler's choice."""
        return self.decode(trial.suggest_float(name, self.low, self.high, log=self.log))

    def decode(self, stored: Any) -> float:
        """The value that a trial's stored parameter means."""
        return float(stored)

    @property
    def text(self) -> str:
        """The interval in the grammar."""
        return _tagged(f"interval({self.low!r}, {self.high!r})", self.log)


@dataclasses.dataclass(frozen=True)
class Int:
    """A whole number from ``low`` to ``high``, both included, on a log scale if ``log``; it has no grid."""

    low: int
    high: int
    log: bool = False

    size = None

    def probes(self) -> list[int]:
        """Both ends."""
        return [self.low, self.high]

    def suggest(self, trial: BaseTrial, name: str) -> int:
        """A sampler's choice."""
        return self.decode(trial.suggest_int(name, self.low, self.high, log=self.log))

    def decode(self, stored: Any) -> int:
        """The value that a trial's stored parameter means."""
        return int(stored)

    @property
    def text(self) -> str:
        """The interval in the grammar."""
        return _tagged(f"int(interval({self.low}, {self.high}))", self.log)


Dimension = Choice | IntRange | Float | Int


def parse_dimension(value: Any, path: str) -> Dimension:
    """One search value, for example ``tag(log, interval(1e-4, 1e-2))``.

    Args:
        value: the text (a YAML list is refused: it would be one value, not a choice).
        path: where it stands, for the error.

    Raises:
        ConfigError: it is not in the grammar, or is empty.
    """
    if isinstance(value, list | tuple):
        inside = ", ".join(map(str, value))
        raise ConfigError(path, f'the list {value!r} is one value, not a choice; write "choice({inside})"')
    if not isinstance(value, str):
        raise ConfigError(path, f"{value!r} is one value: nothing to search; write {_GRAMMAR}")
    return _parsed(value, path)


@functools.lru_cache(maxsize=256)  # a file is read by several layers, and the parser takes 0.1 ms a value
def _parsed(value: str, path: str) -> Dimension:
    try:
        sweep = OverridesParser.create().parse_override(f"key={value}").value()
    except HydraException as error:
        problem = str(error).splitlines()[0]
        raise ConfigError(path, f"cannot read {value!r}: {problem}; write {_GRAMMAR}") from error
    if getattr(sweep, "shuffle", False):
        raise ConfigError(
            path, f"{value!r}: shuffle would change the points of a resumed sweep; leave it out"
        )
    if isinstance(sweep, ChoiceSweep):
        return _choice(sweep, value, path)
    if isinstance(sweep, RangeSweep):
        return _range(sweep, value, path)
    if isinstance(sweep, IntervalSweep):
        return _interval(sweep, value, path)
    raise ConfigError(path, f"{value!r} is one value: nothing to search; write {_GRAMMAR}")


def _choice(sweep: ChoiceSweep, value: str, path: str) -> Choice:
    _refuse_tags(sweep.tags, set(), value, path)
    values = tuple(_plain(item) for item in sweep.list)
    require_plain(values, path)
    seen = [_json(item) for item in values]
    if len(set(seen)) < len(seen):
        raise ConfigError(path, f"{value!r} holds the same value twice")
    if any("NaN" in text and item != item for text, item in zip(seen, values, strict=True)):
        raise ConfigError(path, f"{value!r}: nan is no value that a point can hold")
    return Choice(values)


def _range(sweep: RangeSweep, value: str, path: str) -> Choice | IntRange:
    _refuse_tags(sweep.tags, set(), value, path)
    start, stop, step = sweep.start, sweep.stop, sweep.step
    if not all(_is_number(x) for x in (start, stop, step)):
        raise ConfigError(path, f"{value!r}: expected range(start, stop, step) of finite numbers")
    if not step:
        raise ConfigError(path, f"{value!r}: the step must not be 0")
    # Decimals of the text, so that range(0.1, 0.5, 0.1) holds 0.3 and not 0.30000000000000004.
    exact_start, exact_stop, exact_step = (Decimal(str(x)) for x in (start, stop, step))
    count = math.ceil((exact_stop - exact_start) / exact_step)
    if count < 1:
        raise ConfigError(path, f"{value!r} is empty: a range excludes its stop")
    if isinstance(start, int) and isinstance(stop, int) and isinstance(step, int):
        _refuse_huge((start, stop, step), value, path)
        return IntRange(start, stop, step)
    if count > _MOST_VALUES:
        remedy = f"write interval({start}, {stop}) and a sampler"
        raise ConfigError(path, f"{value!r} lists {count} values, at most {_MOST_VALUES}; {remedy}")
    return Choice(tuple(float(exact_start + index * exact_step) for index in range(count)))


def _interval(sweep: IntervalSweep, value: str, path: str) -> Float | Int:
    _refuse_tags(sweep.tags, {"log"}, value, path)
    low, high, log = sweep.start, sweep.end, "log" in sweep.tags
    if not (_is_number(low) and _is_number(high) and low < high):  # pyright: ignore[reportOperatorIssue]
        raise ConfigError(path, f"{value!r}: expected interval(low, high) with low below high, both finite")
    assert low is not None
    assert high is not None
    if log and low <= 0:
        raise ConfigError(path, f"{value!r}: a log scale needs a low end above 0, got {low:g}")
    if isinstance(low, int) and isinstance(high, int):
        _refuse_huge((low, high), value, path)
        return Int(low, high, log)
    return Float(float(low), float(high), log)


def _refuse_tags(tags: set[str], known: set[str], value: str, path: str) -> None:
    for tag in sorted(tags - known):
        allowed = f"known here: {', '.join(sorted(known))}" if known else "none is known here"
        raise ConfigError(path, f"{value!r}: unknown tag {tag!r}; {allowed}")


def _refuse_huge(numbers: tuple[int, ...], value: str, path: str) -> None:
    if any(abs(number) > _LARGEST_INT for number in numbers):
        raise ConfigError(path, f"{value!r}: whole numbers are at most 2^53 = {_LARGEST_INT} in size")


def _is_number(value: Any) -> bool:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return whole or (isinstance(value, float) and math.isfinite(value))


def _tagged(text: str, log: bool) -> str:
    return f"tag(log, {text})" if log else text


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _plain(value: Any) -> Any:
    """What the parser read, without its record of quotes."""
    if isinstance(value, QuotedString):
        return value.text
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    return value
