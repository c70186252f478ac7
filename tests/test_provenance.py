"""What is noted of a run's origin."""

import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import metalab
from metalab import provenance

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["/venv/bin/metalab", "sweep", "quickstart"], "metalab sweep quickstart"),
        (["/src/metalab/__main__.py", "run", "a b.yaml"], "metalab run 'a b.yaml'"),
    ],
)
def test_a_command_is_told_as_a_shell_takes_it(
    argv: list[str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", argv)
    assert provenance.command() == told


def test_one_version_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert metalab.__version__ == project["version"] == str(citation["version"])
