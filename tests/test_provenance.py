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


@pytest.mark.parametrize("option", ["--fresh", "--fre"])
def test_the_command_to_go_on_does_not_begin_anew(option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/venv/bin/metalab", "sweep", "quickstart", option, "seeds=2"])
    assert provenance.command_to_go_on() == "metalab sweep quickstart seeds=2"


def test_one_version_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert metalab.__version__ == project["version"] == str(citation["version"])
