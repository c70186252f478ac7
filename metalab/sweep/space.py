"""The search space: Hydra's sweep grammar read into dimensions that a grid or a sampler can use.

``choice(a, b)`` and ``a, b`` list values; ``range(start, stop, step)`` excludes its stop;
``interval(low, high)`` is continuous, ``tag(log, interval(...))`` on a log scale, ``int(interval(...))`` of
whole numbers with both ends included.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, QuotedString, RangeSweep
from hydra.errors import HydraException

from metalab.errors import ConfigError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

__all__ = ["Choice", "Dimension", "Float", "Int", "IntRange", "grid_points", "parse_dimension", "parse_space"]

_GRAMMAR = "choice(a, b), range(1, 5), interval(0, 1), tag(log, interval(1e-4, 1e-2)) or int(interval(1, 8))"


@dataclasses.dataclass(frozen=True)
class Choice:
    """One of ``values``; a value may be a list or a mapping (a whole component)."""

    values: tuple[Any, ...]

    def grid(self) -> list[Any]:
        """All values, in their order."""
        return list(self.values)

    def probes(self) -> list[Any]:
        """Values that stand for all when the space is checked: here every one."""
        return list(self.values)

    def optuna(self) -> BaseDistribution:
        """The distribution; structured values as JSON text, which ``decode`` reads."""
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution([self._encoded(value) for value in self.values])

    def decode(self, suggested: Any) -> Any:
        """What a suggestion of the sampler means."""
        # The type is compared as well: 1, 1.0 and true are equal to Python.
        by_text = {self._key(value): value for value in self.values}
        return by_text[self._key(suggested)]

    def _key(self, value: Any) -> tuple[type, Any]:
        encoded = self._encoded(value)
        return type(encoded), encoded

    @staticmethod
    def _encoded(value: Any) -> Any:
        structured = isinstance(value, list | dict)
        return json.dumps(value, sort_keys=True) if structured else value


@dataclasses.dataclass(frozen=True)
class IntRange:
    """Whole numbers ``start, start + step, ...`` below (or above, for a negative step) ``stop``."""

    start: int
    stop: int
    step: int

    def grid(self) -> list[int]:
        """All values, in their order."""
        return list(range(self.start, self.stop, self.step))

    def probes(self) -> list[int]:
        """The ends of the range."""
        values = self.grid()
        return sorted({values[0], values[-1]})

    def optuna(self) -> BaseDistribution:
        """The distribution; Optuna's upper end is included, Hydra's is not."""
        from optuna.distributions import IntDistribution

        values = sorted(self.grid())
        return IntDistribution(values[0], values[-1], step=abs(self.step))

    def decode(self, suggested: Any) -> int:
        """What a suggestion of the sampler means."""
        return int(suggested)


@dataclasses.dataclass(frozen=True)
class Float:
    """A real number from ``low`` to ``high``, on a log scale if ``log``."""

    low: float
    high: float
    log: bool = False

    def grid(self) -> list[float]:
        """Refused: see ``grid_points``."""
        raise _no_grid("interval(...)")

    def probes(self) -> list[float]:
        """Both ends."""
        return [self.low, self.high]

    def optuna(self) -> BaseDistribution:
        """The distribution."""
        from optuna.distributions import FloatDistribution

        return FloatDistribution(self.low, self.high, log=self.log)

    def decode(self, suggested: Any) -> float:
        """What a suggestion of the sampler means."""
        return float(suggested)


@dataclasses.dataclass(frozen=True)
class Int:
    """A whole number from ``low`` to ``high``, both included, on a log scale if ``log``."""

    low: int
    high: int
    log: bool = False

    def grid(self) -> list[int]:
        """Refused: see ``grid_points``."""
        raise _no_grid("int(interval(...))")

    def probes(self) -> list[int]:
        """Both ends."""
        return [self.low, self.high]

    def optuna(self) -> BaseDistribution:
        """The distribution."""
        from optuna.distributions import IntDistribution

        return IntDistribution(self.low, self.high, log=self.log)

    def decode(self, suggested: Any) -> int:
        """What a suggestion of the sampler means."""
        return int(suggested)


Dimension = Choice | IntRange | Float | Int


def parse_space(search: Mapping[str, Any], path: str = "search") -> dict[str, Dimension]:
    """Every key of a search section with its dimension.

    Raises:
        ConfigError: a value is not in the grammar, or is empty.
    """
    return {key: parse_dimension(value, f"{path}.{key}") for key, value in search.items()}


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


def grid_points(space: Mapping[str, Dimension], path: str = "search") -> list[dict[str, Any]]:
    """The cartesian product of a space; one empty point for an empty space.

    Raises:
        ConfigError: a dimension is continuous.
    """
    axes = []
    for key, dimension in space.items():
        try:
            axes.append(dimension.grid())
        except ConfigError as error:
            raise ConfigError(f"{path}.{key}", error.problem) from error
    return [dict(zip(space, values, strict=True)) for values in itertools.product(*axes)]


def _no_grid(what: str) -> ConfigError:
    remedy = (
        "list values with choice(...) or range(...), or set study.sampler (random, qmc, tpe) and study.points"
    )
    return ConfigError("", f"{what} has no grid; {remedy}")


def _refuse_tags(tags: set[str], known: set[str], value: str, path: str) -> None:
    for tag in sorted(tags - known):
        allowed = f"known here: {', '.join(sorted(known))}" if known else "none is known here"
        raise ConfigError(path, f"{value!r}: unknown tag {tag!r}; {allowed}")


def _choice(sweep: ChoiceSweep, value: str, path: str) -> Choice:
    _refuse_tags(sweep.tags, set(), value, path)
    values = tuple(_plain(item) for item in sweep.list)
    seen = [json.dumps(item, sort_keys=True) for item in values]
    if len(set(seen)) < len(seen):
        raise ConfigError(path, f"{value!r} holds the same value twice")
    return Choice(values)


def _range(sweep: RangeSweep, value: str, path: str) -> Choice | IntRange:
    _refuse_tags(sweep.tags, set(), value, path)
    start, stop, step = sweep.start, sweep.stop, sweep.step
    if not step:
        raise ConfigError(path, f"{value!r}: the step must not be 0")
    # Decimals of the text, so that range(0.1, 0.5, 0.1) holds 0.3 and not 0.30000000000000004.
    exact_start, exact_stop, exact_step = (Decimal(str(x)) for x in (start, stop, step))
    count = math.ceil((exact_stop - exact_start) / exact_step)
    if count < 1:
        raise ConfigError(path, f"{value!r} is empty: a range excludes its stop")
    if isinstance(start, int) and isinstance(stop, int) and isinstance(step, int):
        return IntRange(start, stop, step)
    return Choice(tuple(float(exact_start + index * exact_step) for index in range(count)))


def _interval(sweep: IntervalSweep, value: str, path: str) -> Float | Int:
    _refuse_tags(sweep.tags, {"log"}, value, path)
    low, high, log = sweep.start, sweep.end, "log" in sweep.tags
    assert low is not None
    assert high is not None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ConfigError(path, f"{value!r}: expected interval(low, high) with low below high, both finite")
    if log and low <= 0:
        raise ConfigError(path, f"{value!r}: a log scale needs a low end above 0, got {low:g}")
    if isinstance(low, int) and isinstance(high, int):
        return Int(low, high, log)
    return Float(float(low), float(high), log)


def _plain(value: Any) -> Any:
    """What the parser read, without its record of quotes."""
    if isinstance(value, QuotedString):
        return value.text
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    return value
