"""A point of a sweep as a sweep file of its own: the same point, run again from its file alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml

from metalab.config import load, make_point
from metalab.errors import MetalabError
from metalab.resources import sweep_names
from metalab.spec import SweepSpec
from metalab.sweep.chosen import point_file
from metalab.sweep.ledger import read_manifest
from metalab.sweep.records import plain
from metalab.sweep.study import Study
from tests.config_toys import write
from tests.sweep.folders import commit, open_study

STATUSES = ("finished", "finished", "failed", "running")


def begun(root: Path, spec: SweepSpec) -> tuple[Path, Study]:
    """The folder of a sweep of which two points have finished, the second the better, and one has failed."""
    folder = root / spec.name
    study = open_study(folder, spec.study, spec.search)
    for number, status in zip(range(study.total), STATUSES, strict=False):
        study.ask()
        if status != "running":
            objective = [float(number)] * len(spec.study.objectives) if status == "finished" else None
            study.end(number, status, objective, steps=1)  # pyright: ignore[reportArgumentType]
    commit(folder, study, search=spec.search, config=spec.config)
    (folder / "composed.yaml").write_text(yaml.safe_dump(plain(spec.raw), sort_keys=False))
    return folder, study


def again(folder: Path, tmp_path: Path, number: int | None = None) -> SweepSpec:
    """The file of a point, written and loaded."""
    path = tmp_path / "of_a_point.yaml"
    path.write_text(point_file(folder, number))
    return load(path)


@pytest.mark.parametrize("smoke", [False, True])
@pytest.mark.parametrize("name", sweep_names())
def test_every_sweep_file_gives_its_points_back(name: str, smoke: bool, tmp_path: Path) -> None:
    spec = load(name, smoke=smoke)
    folder, study = begun(tmp_path, spec)
    best = study.best(study.records())[0]
    found = again(folder, tmp_path)
    assert found.name == f"{spec.name}-best"
    assert found.search == {}
    assert found.study.objectives == spec.study.objectives
    point = make_point(spec, best, study.records()[best].values)
    assert make_point(found, 0, {}).digest == point.digest
    assert dataclasses.replace(found.evaluation, sets={}) == dataclasses.replace(spec.evaluation, sets={})


def test_what_refers_to_a_searched_key_follows_it(tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "inner": {"kind": "tests.toys:Chaser", "gain": 0.5},
        "tasks": {"kind": "tests.toys:Targets", "spread": "${inner.gain}"},
        "search": {"inner.gain": "choice(0.125, 0.25)"},
        "study": {"objective": "train/score", "direction": "minimize", "reduce": "mean", "seed": 3},
    }
    spec = load(write(tmp_path, **changes))
    folder, _ = begun(tmp_path, spec)
    found = again(folder, tmp_path)  # minimised: the first point, of score 0
    assert (found.config["inner"]["gain"], found.config["tasks"]["spread"]) == (0.125, 0.125)
    assert make_point(found, 0, {}).digest == make_point(spec, 0, {"inner.gain": 0.125}).digest
    assert found.study.directions == ("minimize",)
    assert (found.study.reduce, found.study.seed) == ("mean", 0)


def test_any_point_can_be_had(tmp_path: Path) -> None:
    search = {"inner.gain": "choice(0.1, 0.2, 0.3, 0.4, 0.5)", "tasks.spread": "choice(1, 2)"}
    spec = load(write(tmp_path, search=search))
    folder, study = begun(tmp_path, spec)
    for number in (0, 2, 3):  # finished, failed, running
        found = again(folder, tmp_path, number)
        assert found.name == f"toy-point-{number}"
        values = study.records()[number].values
        assert make_point(found, 0, {}).digest == make_point(spec, number, values).digest
    text = point_file(folder, 2)
    assert text.startswith("# Point 2 of the sweep toy: failed.\n# inner.gain = 0.2\n# tasks.spread = 1\n")
    assert "# The sweep evaluated all points on tasks of its own file" in text
    with pytest.raises(MetalabError, match=r"--point: there is no point 4 yet; known: 0 to 3"):
        point_file(folder, 4)


def test_accepted_changes_are_told(tmp_path: Path) -> None:
    spec = load(write(tmp_path, search={"inner.gain": "choice(0.1, 0.2)"}))
    folder, study = begun(tmp_path, spec)
    commit(folder, study, search=spec.search, config={**spec.config, "seeds": 9})
    manifest = read_manifest(folder)
    assert manifest is not None
    assert len(manifest.changes) == 1
    assert "# Changes of code or configuration were accepted" in point_file(folder)


def test_of_several_objectives_one_point_must_be_chosen(tmp_path: Path) -> None:
    study_of = {"objective": ["train/score", "train/outer_loss"], "direction": ["maximize", "minimize"]}
    spec = load(write(tmp_path, search={"inner.gain": "choice(0.1, 0.2, 0.3)"}, study=study_of))
    folder, _ = begun(tmp_path, spec)  # objectives (0, 0) and (1, 1): neither is better in both
    with pytest.raises(MetalabError, match=r"--point: .* choose one of these: 1, 0"):
        point_file(folder)
    assert again(folder, tmp_path, 1).study.directions == ("maximize", "minimize")


def test_without_a_finished_point_there_is_no_best(tmp_path: Path) -> None:
    spec = load(write(tmp_path, search={"inner.gain": "choice(0.1, 0.2)"}))
    folder = tmp_path / "toy"
    study = open_study(folder, spec.study, spec.search)
    commit(folder, study, search=spec.search, config=spec.config)
    with pytest.raises(MetalabError, match=r"no point has finished .* none has been asked for"):
        point_file(folder)


def test_a_folder_without_its_composed_file(tmp_path: Path) -> None:
    folder, _ = begun(tmp_path, load(write(tmp_path, search={"inner.gain": "choice(0.1, 0.2)"})))
    (folder / "composed.yaml").unlink()
    with pytest.raises(
        MetalabError, match=r"composed\.yaml: cannot be read .*`metalab sweep FILE` writes it"
    ):
        point_file(folder)
