"""The directions in which the packages may import, and what light commands must not load."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("metalab", "inner_loops", "outer_loops", "analysis")
# What loops may know of metalab: the contract, not the engine.
CONTRACT = {
    "metalab.components",
    "metalab.documents",
    "metalab.errors",
    "metalab.gradients",
    "metalab.histories",
    "metalab.lifetimes",
    "metalab.optimizers",
    "metalab.protocols",
    "metalab.trees",
}
HEAVY = ("jax", "flax", "optax", "gymnax", "evosax", "mlflow", "optuna", "orbax", "pandas", "matplotlib")


def imports(package: str) -> Iterator[tuple[str, str]]:
    """(file:line, imported module) of every import statement, at the top or inside functions."""
    for file in sorted((ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            where = f"{file.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Import):
                yield from ((where, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{where}: a relative import"
                # `from metalab import trees` imports a module, `from metalab.trees import select` a name.
                if node.module in PACKAGES:
                    yield from ((where, f"{node.module}.{alias.name}") for alias in node.names)
                else:
                    yield where, node.module or ""


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


@pytest.mark.parametrize("package", ["inner_loops", "outer_loops"])
def test_loops_import_the_contract_and_not_each_other(package: str) -> None:
    others = {"inner_loops", "outer_loops", "analysis"} - {package}
    wrong = [
        f"{where} imports {module}"
        for where, module in imports(package)
        if any(within(module, other) for other in others)
        or (within(module, "metalab") and not any(within(module, allowed) for allowed in CONTRACT))
    ]
    assert wrong == []


def test_metalab_reaches_loops_through_their_catalogues_only() -> None:
    wrong = [
        f"{where} imports {module}"
        for where, module in imports("metalab")
        if within(module, "inner_loops") or within(module, "outer_loops")
    ]
    assert wrong == []


def test_the_contract_knows_nothing_of_the_engine() -> None:
    files = {f"metalab/{name.removeprefix('metalab.')}.py" for name in CONTRACT}
    wrong = [
        f"{where} imports {module}"
        for where, module in imports("metalab")
        if where.split(":")[0] in files and within(module, "metalab") and module not in CONTRACT
    ]
    assert wrong == []


def test_analysis_does_not_import_jax_or_loops() -> None:
    forbidden = ("jax", "flax", "optax", "inner_loops", "outer_loops")
    wrong = [
        f"{where} imports {module}"
        for where, module in imports("analysis")
        if any(within(module, other) for other in forbidden)
    ]
    assert wrong == []


def loaded_by(code: str, names: tuple[str, ...]) -> list[str]:
    """Which of the packages ``names`` a fresh interpreter has loaded after running ``code``."""
    report = f"\nimport sys\nprint('LOADED', *[name for name in {names!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code + report], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1].split()[1:]


def test_analysis_loads_without_jax() -> None:
    names = sorted(
        ".".join(file.relative_to(ROOT).with_suffix("").parts)
        for file in (ROOT / "analysis").rglob("*.py")
        if file.name not in ("__init__.py", "__main__.py")
    )
    assert loaded_by("\n".join(f"import {name}" for name in names), ("jax",)) == []


@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["sweep", "--help"]], ids=" ".join)
def test_light_commands_load_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "from metalab.cli import main\n"
        f"try:\n    code = main({arguments!r})\n"
        "except SystemExit as exit:\n    code = exit.code\n"
        "assert not code, code"
    )
    assert loaded_by(code, HEAVY) == []


def test_the_catalogues_load_nothing_heavy() -> None:
    assert loaded_by("import inner_loops, outer_loops", HEAVY) == []
