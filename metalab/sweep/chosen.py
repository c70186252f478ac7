"""A point of a sweep as a sweep file of its own, from the sweep's folder alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from metalab.config.points import point_of
from metalab.errors import ConfigError, MetalabError
from metalab.sweep.ledger import Manifest
from metalab.sweep.overview import objectives_of, read_points
from metalab.sweep.reading import Outcome, StudyLog, read_mapping, read_space
from metalab.sweep.records import plain

__all__ = ["chosen_point", "point_file"]

_OF_THE_SEARCH = ("search", "smoke", "study")
_KEPT_OF_STUDY = ("objective", "direction", "over_seeds", "reduce", "last_fraction")


def chosen_point(study: StudyLog, number: int | None) -> Outcome:
    """The point that is asked for, or the best one.

    Args:
        study: as read from the sweep's folder.
        number: of the point; None: the best.

    Raises:
        MetalabError: there is no such point, no best one yet, or several that are best in different things.
    """
    if number is not None:
        found = next((one for one in study.outcomes if one.number == number), None)
        if found is None:
            raise ConfigError("--point", f"there is no point {number} yet; {_range(study)}")
        return found
    best = study.best()
    if not best:
        raise MetalabError(
            f"no point has finished with a finite objective yet; --point N takes any: {_range(study)}"
        )
    if len(study.directions) > 1 and len(best) > 1:
        shown = ", ".join(str(one.number) for one in best)
        raise ConfigError("--point", f"no point is best in every objective; choose one of these: {shown}")
    return best[0]


def point_file(folder: Path, number: int | None = None) -> str:
    """A sweep file of one point: its whole configuration, without the search that it came from.

    Args:
        folder: of the sweep.
        number: of the point; None: the best.

    Returns:
        YAML. ``metalab run`` gives a point of the same digest.

    Raises:
        MetalabError: see ``chosen_point``; or the folder lacks a file.
    """
    manifest, _, study = read_points(folder)
    chosen = chosen_point(study, number)
    values = chosen.values(read_space(folder, manifest))
    config = point_of(read_mapping(folder / "composed.yaml"), chosen.number, values).config
    name = f"{manifest.name}-{'best' if number is None else f'point-{number}'}"
    kept = {key: value for key, value in config.items() if key not in (*_OF_THE_SEARCH, "name")}
    asked = {key: value for key, value in (config.get("study") or {}).items() if key in _KEPT_OF_STUDY}
    content = {"name": name, **kept, **({"study": asked} if asked else {})}
    heading = [f"Point {chosen.number} of the sweep {manifest.name}: {_result(chosen, manifest.config)}."]
    heading += [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    heading += _caveats(manifest, values)
    return "".join(f"# {line}\n" for line in heading) + yaml.safe_dump(
        plain(content), sort_keys=False, allow_unicode=True, width=100
    )


def _caveats(manifest: Manifest, values: Mapping[str, Any]) -> list[str]:
    """In what this file, run by itself, may differ from what the sweep did."""
    found = []
    if any(key.startswith("tasks.") for key in values):
        found.append(
            "The sweep evaluated all points on tasks of its own file, this file does on those below."
        )
    if manifest.changes:
        found.append("Changes of code or configuration were accepted on the way: sweep.json has them.")
    return found


def _result(chosen: Outcome, config: Mapping[str, Any]) -> str:
    if chosen.objective is None:
        return chosen.status
    named: Sequence[str] = objectives_of(config)
    shown = ", ".join(f"{key} {value:.6g}" for key, value in zip(named, chosen.objective, strict=True))
    return f"{chosen.status}, {shown}"


def _range(study: StudyLog) -> str:
    numbers = [one.number for one in study.outcomes]
    return f"known: {numbers[0]} to {numbers[-1]}" if numbers else "none has been asked for"
