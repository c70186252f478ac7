"""Bad input: one line that names the place and the remedy, exit code 2, nothing created."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from metalab.cli import main
from tests.config_toys import write

SETS = {"train": {"count": 1, "updates": 1}}
WHEN_SHORT = {"search": "interval(0, 1)", "when": {"outer.truncation": 1}}


def refused(capsys: pytest.CaptureFixture[str], root: Path, *command: str) -> str:
    """Runs a command that must be refused and returns its one line."""
    assert main([*command, "--root", str(root)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert not root.exists()
    return captured.err


CASES: list[tuple[str, dict[str, Any], list[str], list[str]]] = [
    (
        "unknown key",
        {},
        ["inner.gian=1"],
        ["toy.yaml: inner.gian: unknown key (given 1); did you mean 'gain'? known: ", "gain, kind, noise"],
    ),
    ("unknown section", {"sedes": 3}, [], ["toy.yaml: sedes: unknown key (given 3); did you mean 'seeds'?"]),
    (
        "unknown key in a section",
        {"study": {"smapler": "tpe"}},
        [],
        ["study.smapler", "did you mean 'sampler'?"],
    ),
    ("wrong type", {}, ["inner.gain=fast"], ["toy.yaml: inner.gain: expected a number, got 'fast'"]),
    (
        "wrong type, static",
        {},
        ["outer.num_slots=2.5"],
        ["outer.num_slots: expected a whole number at least 1, got 2.5"],
    ),
    ("out of range", {}, ["inner.noise=-1"], ["inner.noise: -1.0 is out of range: it must be at least 0"]),
    ("no seeds", {"seeds": 0}, [], ["seeds: 0 is out of range: it must be at least 1"]),
    (
        "unknown component",
        {},
        ["outer.kind=meta_gradent"],
        ["outer.kind: unknown outer 'meta_gradent'; did you mean 'meta_gradient'?", "package.module:Class"],
    ),
    ("no component", {}, ["inner.kind=os:system"], ["inner.kind: os:system is not a component"]),
    (
        "empty search space",
        {"search": {}, "study": {"sampler": "tpe", "points": 4}},
        [],
        ["search: the search space is empty, and study.sampler 'tpe' needs one"],
    ),
    (
        "empty range",
        {"search": {"inner.gain": "range(2, 2)"}},
        [],
        ["search.inner.gain: 'range(2, 2)' is empty"],
    ),
    (
        "a list to search",
        {"search": {"inner.gain": [1, 2]}},
        [],
        ["search.inner.gain", 'write "choice(1, 2)"'],
    ),
    (
        "searched key that is not there",
        {"search": {"inner.gian": "choice(1, 2)"}},
        [],
        ["search.inner.gian: at 1: inner.gian: unknown key (given 1); did you mean 'gain'?"],
    ),
    (
        "searched value out of range",
        {"search": {"inner.noise": "interval(-1, 1)"}, "study": {"sampler": "random", "points": 2}},
        [],
        ["search.inner.noise: at -1.0: inner.noise: -1.0 is out of range"],
    ),
    (
        "search outside",
        {"search": {"seeds": "choice(1, 2)"}},
        [],
        ["search.seeds: cannot be searched: only keys under"],
    ),
    (
        "interval on a grid",
        {"search": {"inner.gain": "interval(0, 1)"}},
        [],
        ["search.inner.gain", "has no grid"],
    ),
    (
        "sampler without points",
        {"search": {"inner.gain": "interval(0, 1)"}, "study": {"sampler": "random"}},
        [],
        ["study.points: required and not given"],
    ),
    (
        "twins of unequal length",
        {"search": {"inner.gain, inner.noise": "choice([1, 2], [3])"}},
        [],
        ["search.inner.gain, inner.noise: each choice is a list of 2 values, one for each key; got [3]"],
    ),
    (
        "a condition that never holds",
        {"search": {"inner.gain": "1, 2", "inner.noise": {"search": "1, 2", "when": {"inner.gain": 3}}}},
        [],
        ["search.inner.noise.when.inner.gain: is never 3; it is one of 1, 2"],
    ),
    (
        "a listed point that cannot be",
        {"search": [{"inner.gain": 1}, {"inner.gain": "fast", "inner.noise": 1}]},
        [],
        ["search: at inner.gain='fast', inner.noise=1: inner.gain: expected a number, got 'fast'"],
    ),
    (
        "a listed key outside",
        {"search": [{"seeds": 1}]},
        [],
        ["search.seeds: cannot be searched: only keys under inner., tasks., outer. can"],
    ),
    (
        "a list of points with a sampler",
        {"search": [{"inner.gain": 1}], "study": {"sampler": "tpe", "points": 2}},
        [],
        ["study.sampler: 'tpe' draws points, and search lists them: leave the sampler out"],
    ),
    (
        "a grid beyond all bounds",
        {"search": {"inner.gain": "range(0, 5000)", "inner.noise": "range(0, 5000)"}},
        [],
        ["search: the grid has 25000000 points, at most 1000000; set study.points"],
    ),
    (
        "quasi-random conditions",
        {
            "search": {"outer.truncation": "1, 2", "inner.gain": WHEN_SHORT},
            "study": {"sampler": "qmc", "points": 2},
        },
        [],
        ["study.sampler: 'qmc' spreads all keys at once: conditions need random, tpe or nsga2"],
    ),
    (
        "a covariance of one number",
        {
            "search": {"outer.truncation": "1, 2", "inner.gain": "interval(0, 1)"},
            "study": {"sampler": "cmaes", "points": 2},
        },
        [],
        ["study.sampler: 'cmaes' needs two keys or more with an interval or a range"],
    ),
    (
        "several objectives for one",
        {
            "search": {"inner.noise": "interval(0, 1)", "inner.gain": "interval(0, 1)"},
            "study": {"sampler": "cmaes", "points": 2, "objective": ["train/score", "train/loss"]},
        },
        [],
        ["study.sampler: 'cmaes' takes one objective; for several: nsga2, tpe or random"],
    ),
    (
        "the same objective twice",
        {"study": {"objective": ["train/score", "train/score"]}},
        [],
        ["study.objective: expected metrics, each once; got ['train/score', 'train/score']"],
    ),
    (
        "no objective",
        {"study": {"objective": []}},
        [],
        ["study.objective: expected metrics, each once; got []"],
    ),
    (
        "directions and objectives",
        {"study": {"objective": ["train/score", "train/loss"], "direction": ["maximize"]}},
        [],
        ["study.direction: 1 directions for 2 objectives: give one for each"],
    ),
    (
        "unknown direction",
        {"study": {"direction": "maximise"}},
        [],
        ["study.direction: 'maximise' is not allowed; did you mean 'maximize'?"],
    ),
    (
        "unknown pruner",
        {"study": {"pruner": "medain"}},
        [],
        ["study.pruner.kind: 'medain' is not allowed; did you mean 'median'?"],
    ),
    (
        "unknown key of a pruner",
        {"study": {"pruner": {"kind": "median", "startup": 3}}},
        [],
        ["study.pruner.startup: unknown key (given 3); did you mean 'startup_points'?"],
    ),
    (
        "pruning by what is known at the end",
        {"evaluation": {"sets": SETS}, "study": {"pruner": "median", "objective": "final/train/return"}},
        [],
        [
            "study.pruner: the objective 'final/train/return' is known at the end only; during training "
            "there are evaluation/train/return, evaluation/train/mean_return, train/METRIC"
        ],
    ),
    (
        "pruning by several objectives",
        {"study": {"pruner": "median", "objective": ["train/score", "train/loss"]}},
        [],
        ["study.pruner: compares points by one objective; leave it out, or name one objective"],
    ),
    (
        "warming up for ever",
        {"study": {"pruner": {"kind": "median", "warmup_steps": 4}}},
        [],
        ["study.pruner.warmup_steps: 4 of 4 outer steps: nothing would be pruned"],
    ),
    (
        "wilcoxon over few seeds",
        {"seeds": 3, "study": {"pruner": "wilcoxon"}},
        [],
        [
            "study.pruner: wilcoxon over 3 seeds can never find a p below 0.125, and p_threshold is 0.1: "
            "it needs 4 seeds or more"
        ],
    ),
    (
        "several values",
        {},
        ["inner.gain=1,2"],
        ["override 'inner.gain=1,2' gives several values", "search.inner.gain=1,2"],
    ),
    ("not an override", {}, ["inner.gain=[1"], ["override 'inner.gain=[1' is not in Hydra's grammar"]),
    ("deleting nothing", {}, ["~inner.gian"], ["inner.gian: override '~inner.gian': not in the file"]),
    (
        "chunk",
        {"budget": {"outer_steps": 10, "chunk": 4}},
        [],
        ["budget.chunk: 4 does not divide budget.outer_steps = 10; nearest that does: 5"],
    ),
    (
        "evaluation between chunks",
        {"evaluation": {"every": 3, "sets": SETS}},
        [],
        ["evaluation.every: 3 is not a multiple of budget.chunk = 2"],
    ),
    (
        "unknown set",
        {"evaluation": {"select": "tain", "sets": SETS}},
        [],
        ["evaluation.select", "did you mean 'train'?"],
    ),
    (
        "a list of sets to select by",
        {"evaluation": {"select": ["train"], "sets": SETS}},
        [],
        ["evaluation.select: there is no set ['train']; did you mean 'train'?"],
    ),
    (
        "a key that is no text",
        {"evaluation": {"sets": {**SETS, 2: {"count": 1}}}},
        [],
        ["evaluation.sets: keys are text, got 2; quote it"],
    ),
    (
        "a value that is no plain one",
        {"tasks": {"kind": "tests.toys:Targets", "spread": b"wide"}},
        [],
        ["tasks.spread: expected text, a number, true, false or null; got b'wide'"],
    ),
    ("a NUL character", {"description": "\0"}, [], ["description: '\\x00': the NUL character has no place"]),
    ("outer steps without end", {"budget": {"outer_steps": 10**12, "chunk": 7}}, [], ["budget.outer_steps"]),
    (
        "outer steps without a small divisor",
        {"budget": {"outer_steps": 2**31 - 1, "chunk": 7}},
        [],
        ["budget.chunk: 7 does not divide budget.outer_steps = 2147483647; nearest that does: 1"],
    ),
    (
        "objective",
        {"study": {"objective": "evaluation/train/return"}},
        [],
        ["study.objective", "there is no evaluation set"],
    ),
    ("missing section", {"budget": None}, [], ["budget: this section is required and not given"]),
    ("name", {"name": "../up"}, [], ["name: '../up' names a folder: letters, digits"]),
    ("name of dots", {"name": ".."}, [], ["name: '..' names a folder"]),
    (
        "reserved baseline",
        {"baselines": {"random": {"inner": {}}}},
        [],
        ["baselines.random: takes no settings"],
    ),
    (
        "chosen by a threshold that is not there",
        {
            "evaluation": {"sets": {"train": {"count": 1, "updates": 1}}},
            "baselines": {"b": {"inner": {"kind": "x"}, "selection": "steps_to_threshold"}},
        },
        [],
        ["baselines.b.selection: 'steps_to_threshold' needs a threshold"],
    ),
    (
        "unknown selection",
        {
            "evaluation": {"sets": {"train": {"count": 1, "updates": 1}}},
            "baselines": {"b": {"inner": {"kind": "x"}, "selection": "mean_retrun"}},
        },
        [],
        ["baselines.b.selection: 'mean_retrun' is not allowed; did you mean 'mean_return'?"],
    ),
    (
        "tuned on nothing",
        {"baselines": {"b": {"inner": {"kind": "x"}}}},
        [],
        ["baselines.b: is tuned on the selection"],
    ),
    ("interpolation", {}, ["inner.gain=${budget.chnk}"], ["Interpolation key 'budget.chnk' not found"]),
    (
        "environment variables",
        {"description": "${oc.env:HOME}"},
        [],
        ["description", "resolvers are not allowed"],
    ),
    (
        "inner under outer",
        {},
        ["outer.inner={kind: x}"],
        ["outer.inner: stands at the top of the file, under `inner:`"],
    ),
    ("broken in use", {}, ["inner.kind=tests.config_toys:Broken"], ["Broken", "KeyError", "no such table"]),
    ("no gradient", {}, ["inner.differentiable=false"], ["outer loop 'MetaGradient'", "Chaser"]),
]


@pytest.mark.parametrize(
    ("changes", "overrides", "pieces"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
def test_a_mistake_in_a_sweep_file(
    changes: dict[str, Any],
    overrides: list[str],
    pieces: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = write(tmp_path, **changes)
    line = refused(capsys, tmp_path / "runs", "sweep", str(path), *overrides)
    assert "toy.yaml" in line
    for piece in pieces:
        assert piece in line


def test_a_missing_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, tmp_path / "runs", "run", "quikstart")
    assert "there is no sweep file 'quikstart'; expected a path or a name; did you mean 'quickstart'?" in line


@pytest.mark.parametrize(
    ("text", "piece"),
    [
        ("inner: [1", "not YAML: "),
        ("- 1\n- 2\n", "expected a mapping of sections, got list"),
        ("defaults: [nowhere]\nname: x\n", "cannot be composed: "),
        ("seeds: 1\nseeds: 2\n", "duplicate key seeds"),
        (
            "search: {inner.gain: 1,2}\n",
            "search: keys are text, got 2; quote it, and inside braces a text with",
        ),
        ("seeds: 1\n", "this section is required"),
        ("seeds: &a [*a]\n", "is nested too deeply, or an alias (*name) stands inside itself"),
        ("? [a, b]\n: 1\n", "not YAML: "),
        ("2: 3\n", "keys are text, got 2"),
    ],
)
def test_a_file_that_is_no_sweep_file(
    text: str, piece: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(text)
    line = refused(capsys, tmp_path / "runs", "sweep", str(path))
    assert "odd.yaml: " in line
    assert piece in line


@pytest.mark.parametrize(
    ("source", "pieces"),
    [
        (
            "x = 1 / 0\n",
            ["cannot import broken_{n}: ZeroDivisionError: division by zero", "broken_{n}.py, line 1"],
        ),
        ("def f(:\n", ["cannot import broken_{n}: SyntaxError", "broken_{n}.py, line 1"]),
        ("import nowhere_at_all\n", ["cannot import broken_{n}: ModuleNotFoundError", "nowhere_at_all"]),
        ("Loop = 3\n", ["broken_{n}:Loop is not a component"]),
        ("", ["broken_{n} has no 'Loop'"]),
    ],
)
def test_a_broken_component_of_the_users(
    source: str,
    pieces: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    number = abs(hash(request.node.name))  # a module of its own for every case: imports are remembered
    (tmp_path / f"broken_{number}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    path = write(tmp_path, inner={"kind": f"broken_{number}:Loop"})
    line = refused(capsys, tmp_path / "runs", "sweep", str(path))
    assert "toy.yaml: inner.kind: " in line
    for piece in pieces:
        assert piece.format(n=number) in line


def test_a_root_that_is_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "runs"
    root.write_text("")
    assert main(["sweep", str(write(tmp_path)), "--root", str(root)]) == 2
    assert "--root: " in capsys.readouterr().err


@pytest.mark.parametrize("command", [["report", "toy"], ["ui"], ["evaluate", "abc", "--tasks", "catch"]])
def test_commands_on_a_store_that_is_not_there(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "there is no MLflow store in" in refused(capsys, tmp_path / "runs", *command)


def test_an_unknown_suite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mlflow.db").touch()
    assert main(["evaluate", "abc", "--tasks", "cach", "--root", str(tmp_path)]) == 2
    assert "there is no evaluation suite 'cach'; did you mean 'catch'?" in capsys.readouterr().err


def test_numbers_of_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["plan", str(write(tmp_path)), "--devices", "0"])
    assert caught.value.code == 2
    assert "expected a whole number at least 1, got '0'" in capsys.readouterr().err
