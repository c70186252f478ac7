"""The engine: takes a sweep from its file to finished runs, and goes on exactly where it was stopped.

It is a deterministic machine. What it decides (who runs next, who is pruned, which berth takes whom) depends
on the sweep file and on metrics, never on the clock, and a commit writes down all that it knows: the devices'
state, the berths, the study, the position of every run's records. What a killed engine did after its last
commit is done again with the same outcome; nothing of it has left the machine, for only what is committed is
sent to the store.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from metalab import provenance
from metalab.errors import MetalabError
from metalab.histories import use_root
from metalab.outbox import Outbox
from metalab.progress import Progress
from metalab.spec import Baseline, EvaluationSet, Point, SweepSpec
from metalab.spool import acknowledged
from metalab.sweep.context import Context, Options
from metalab.sweep.guard import StopRequest, sweep_lock
from metalab.sweep.ledger import Manifest, admit, forget, read_commit
from metalab.sweep.program import Compiler
from metalab.sweep.records import digest_of
from metalab.sweep.scheduler import Ending, Scheduler
from metalab.sweep.space import parse_space
from metalab.sweep.study import Study
from metalab.tracking import Store, address, check_address, redacted, safe_name

MakePoint = Callable[[int, Mapping[str, Any]], Point]

__all__ = ["Builders", "Options", "SweepResult", "run_sweep"]

# What a file may change without asking another question; points, the search space and what only reports
# read are looked after elsewhere.
_FREE = ("search", "report", "description", "baselines", "smoke", "name")


@dataclasses.dataclass(frozen=True)
class SweepResult:
    """How a sweep ended.

    Attributes:
        parent_run_id: MLflow's id of the sweep's run; empty if the store refused it.
        finished, failed: numbers of points, those of earlier calls included; a pruned point has finished its
            part, a diverged one has failed.
        endings: how the points ended that did not finish, and baselines that failed.
        folder: the sweep's working files.
        compilations: XLA compilations by function name, of this call.
        tallies: see ``metalab.sweep.ledger.Commit``.
    """

    parent_run_id: str
    finished: int
    failed: int
    endings: tuple[Ending, ...]
    folder: Path
    compilations: Mapping[str, int]
    tallies: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Builders:
    """How the engine turns configuration into components: the only seam to ``metalab.config``."""

    point_maker: Callable[[SweepSpec], MakePoint]
    evaluation_sets: Callable[[SweepSpec, Point], Mapping[str, EvaluationSet]]
    baseline_sets: Callable[[SweepSpec, Baseline, Mapping[str, Any]], Mapping[str, EvaluationSet]]

    @classmethod
    def from_config(cls) -> Builders:
        """Those of ``metalab.config``."""
        from metalab import config

        return cls(config.PointMaker, config.build_evaluation_sets, config.build_baseline_sets)


def run_sweep(
    spec: SweepSpec, root: Path, options: Options | None = None, *, builders: Builders | None = None
) -> SweepResult:
    """Runs what is left of a sweep.

    Args:
        spec: the composed sweep file.
        root: folder of the store (``mlflow.db``, ``artifacts``) and of the sweeps' working files.
        options: how.
        builders: in place of those of ``metalab.config``.

    Raises:
        MetalabError: the user can mend it.
        SystemExit: 130 or 143 after Ctrl-C or SIGTERM, everything saved.
    """
    options, made = options or Options(), builders or Builders.from_config()
    use_root(root)
    folder = root.absolute() / safe_name(spec.name)
    spec = _alone(spec) if options.single else spec
    make = made.point_maker(spec)
    mode = _single_name(make) if options.single else "sweep"
    folder = folder / mode if options.single else folder
    folder.mkdir(parents=True, exist_ok=True)
    check_address(address(root))
    progress = Progress(options.progress)
    with contextlib.ExitStack() as stack:
        note = stack.enter_context(sweep_lock(folder))
        stop = stack.enter_context(StopRequest().listening())
        if note:
            progress.say(note)
        manifest = _manifest(spec, mode, make)
        if options.fresh:
            _forget(folder, Store(root, spec.name), manifest.id)
        commit = read_commit(folder)
        study = Study.open(spec.study, parse_space(spec.search), folder / "study.jsonl", commit.study)
        manifest = admit(folder, manifest, options.accept_changes, unfinished=_unfinished(study, options))
        if acknowledged(folder) and Store(root, spec.name).find(manifest.id) is None:
            raise MetalabError(
                f"{folder} holds a sweep whose runs are not in the store {redacted(address(root))}: it is "
                "another one or was made anew; name the right one, or start anew with --fresh"
            )
        outbox = Outbox(folder, lambda: Store(root, spec.name), commit.outbox, progress.say)
        stack.callback(outbox.stop)
        context = Context(
            spec=spec,
            folder=folder,
            manifest=manifest,
            study=study,
            outbox=outbox,
            compiler=Compiler(options.quick),
            progress=progress,
            stop=stop,
            make_point=make,
            evaluation_sets=lambda point: made.evaluation_sets(spec, point),
            baseline_sets=lambda baseline, values: made.baseline_sets(spec, baseline, values),
            options=options,
        )
        return _result(context, Scheduler(context, commit), root)


def _result(context: Context, scheduler: Scheduler, root: Path) -> SweepResult:
    scheduler.run()
    _deliver(context)
    records = context.study.records()
    names = [made.name for made in context.compiler.compilations]
    parent = Store(root, context.spec.name).find(context.manifest.id)
    return SweepResult(
        parent_run_id=parent.run_id if parent is not None else "",
        finished=sum(record.status in ("finished", "pruned") for record in records),
        failed=sum(record.status in ("failed", "diverged") for record in records),
        endings=tuple(scheduler.endings()),
        folder=context.folder,
        compilations={name: names.count(name) for name in dict.fromkeys(names)},
        tallies=dict(scheduler.tallies),
    )


def _deliver(context: Context) -> None:
    """Waits until the store has everything, or the user has had enough of it."""
    told = False
    while not context.outbox.drain(timeout=1.0):
        if context.stop.signum is not None:
            context.progress.say(
                f"all points have ended; {context.outbox.waiting} records wait for the store, and "
                f"{provenance.command_to_go_on()} delivers them"
            )
            raise SystemExit(128 + context.stop.signum)
        if not told:
            context.progress.say(f"delivering {context.outbox.waiting} records to the store")
            told = True


def _alone(spec: SweepSpec) -> SweepSpec:
    """The sweep file without its search and its baselines: one point."""
    pruner = dataclasses.replace(spec.study.pruner, kind="none")
    study = dataclasses.replace(spec.study, sampler="grid", points=None, batch=None, pruner=pruner)
    return dataclasses.replace(spec, search={}, baselines=(), study=study)


def _single_name(make: MakePoint) -> str:
    """The folder of a point that is run alone: another configuration is another run."""
    return f"single-{make(0, {}).digest[:12]}"


def _manifest(spec: SweepSpec, mode: str, make: MakePoint) -> Manifest:
    config = {key: value for key, value in spec.config.items() if key not in _FREE}
    config["study"] = {
        key: value for key, value in dict(config.get("study") or {}).items() if key != "points"
    }
    space = parse_space(spec.search)
    limits = [number for number in (spec.study.points, space.size) if number is not None]
    # A grid holds no more points than it has; any other space as many as are asked for.
    total = min(limits) if spec.study.sampler == "grid" or space.listed is not None else limits[0]
    return Manifest(
        id=digest_of([spec.name, mode]),
        name=spec.name,
        single=mode != "sweep",
        config=config,
        space=space.plain(),
        points=total,
        outer_steps=spec.budget.outer_steps,
        seeds=spec.seeds,
        code=provenance.code_version(_modules(spec, make)),
    )


def _modules(spec: SweepSpec, make: MakePoint) -> Iterable[str]:
    """Modules of the components of point 0, those of the user's own among them."""
    space = parse_space(spec.search)
    values = space.point(0) if space.size else {}
    found: set[str] = set()

    def visit(thing: Any) -> None:
        if dataclasses.is_dataclass(thing):
            found.add(type(thing).__module__)
            for field in dataclasses.fields(thing):
                visit(getattr(thing, field.name))

    with contextlib.suppress(MetalabError):  # a point that cannot be built fails later, alone and by name
        visit(make(0, values).outer)
    return found


def _unfinished(study: Study, options: Options) -> bool:
    records = study.records()
    again = options.retry and any(record.status in ("failed", "diverged") for record in records)
    return study.asked < study.total or again or any(record.status == "running" for record in records)


def _forget(folder: Path, store: Store, parent: str) -> None:
    found = store.find(parent)
    if found is not None:
        store.forget(found.run_id)
    forget(folder)
