"""The report of a sweep: one HTML page that needs nothing else, the same as Markdown, figures and tables."""

from __future__ import annotations

import base64
import html
import io
import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from analysis.frames import SweepData, load_sweep
from analysis.points import counts_in_words
from analysis.sections import Section, sections
from analysis.store import open_store
from analysis.tables import markdown
from metalab.tracking import safe_name

__all__ = ["write_report"]

_DPI = 160
_VERSIONS = ("python", "metalab", "jax", "jaxlib", "optax", "flax", "gymnax", "optuna", "mlflow", "numpy")


def write_report(root: Path, sweep: str) -> Path:
    """Writes ``<root>/<sweep>/report/`` and attaches it to the sweep's MLflow run.

    ``report.html`` (self-contained), ``report.md``, ``figures/*.png`` and ``tables/*.csv``. The numbers
    depend on the store alone: writing it twice gives the same.

    Args:
        root: folder that holds ``mlflow.db``.
        sweep: name of the sweep.

    Returns:
        The HTML page.

    Raises:
        MetalabError: there is no store, or it has no such sweep.
    """
    data = load_sweep(root, sweep, drawn_only=True)
    folder = Path(root) / safe_name(sweep) / "report"
    # What an earlier report drew and this one does not must not stay.
    shutil.rmtree(folder, ignore_errors=True)
    found = sections(data)
    facts = provenance(data)
    images = _write_figures(folder / "figures", found)
    _write_tables(folder / "tables", found)
    (folder / "report.md").write_text(_markdown(data, found, facts), encoding="utf-8")
    page = folder / "report.html"
    page.write_text(_html(data, found, facts, images), encoding="utf-8")
    _attach(data, folder)
    return page


def _attach(data: SweepData, folder: Path) -> None:
    """Puts the report among the artifacts of the sweep's run; in a copied store, among the copy's."""
    below = data.folder is not None and data.folder.is_relative_to(Path(data.root).resolve())
    if data.folder is None or below:
        open_store(data.root).log_artifacts(data.parent_id, str(folder), "report")
    else:
        shutil.copytree(folder, data.folder / "report", dirs_exist_ok=True)


def provenance(data: SweepData) -> list[tuple[str, str]]:
    """What is needed to repeat the sweep: command, code, versions, machine."""
    noted = data.hardware
    git, versions = _mapping(noted.get("git")), _mapping(noted.get("versions"))
    changed = {True: " with uncommitted changes", False: "", None: ""}[git.get("changed")]
    known = [f"{name} {versions[name]}" for name in _VERSIONS if name in versions]
    memory = noted.get("memory_bytes")
    machine = [
        noted.get("processor"),
        f"{noted['cores']} cores" if noted.get("cores") else None,
        f"{memory / 2**30:.0f} GiB" if memory else None,
        f"{noted['devices']} x {noted.get('device_kind', 'device')}" if noted.get("devices") else None,
        noted.get("platform"),
    ]
    resolved = Path(data.root) / data.name / "sweep.yaml"
    return [
        ("command", str(noted.get("command") or f"metalab sweep {resolved}")),
        ("git revision", f"{git['commit']}{changed}" if git.get("commit") else "not noted"),
        ("versions", ", ".join(known) or "not noted"),
        ("machine", ", ".join(str(part) for part in machine if part) or "not noted"),
        ("MLflow run", data.parent_id),
    ]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _write_figures(folder: Path, found: Sequence[Section]) -> dict[str, str]:
    """Writes the PNG files; returns each picture's name with its image as base64 text."""
    folder.mkdir(parents=True, exist_ok=True)
    images = {}
    for section in found:
        for picture in section.pictures:
            content = _png(picture.static)
            (folder / f"{picture.name}.png").write_bytes(content)
            images[picture.name] = base64.b64encode(content).decode("ascii")
    return images


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    # Without the writer's version, so that the same numbers give the same file.
    figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    return buffer.getvalue()


def _write_tables(folder: Path, found: Sequence[Section]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for section in found:
        for table in section.tables:
            table.frame.to_csv(folder / f"{_file_name(table.name)}.csv", index=False)


def _file_name(name: str) -> str:
    """A table's name carries a baseline's, which a file chose."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)


def _html(
    data: SweepData, found: Sequence[Section], facts: Sequence[tuple[str, str]], images: Mapping[str, str]
) -> str:
    import jinja2
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("analysis"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["prose"] = _prose
    environment.filters["file_name"] = _file_name
    return environment.get_template("report.html.j2").render(
        name=data.name,
        description=str(data.config.get("description") or "The sweep file gives no description."),
        counts=counts_in_words(data),
        sections=found,
        facts=facts,
        images=images,
        plots={name: Markup(text) for name, text in _plots(found)},
        plotly=Markup(get_plotlyjs()),
    )


def _plots(found: Sequence[Section]) -> Iterator[tuple[str, str]]:
    """Each picture's plotly figure as JSON that cannot end the script element it stands in."""
    for section in found:
        for picture in section.pictures:
            figure = json.loads(picture.interactive.to_json())
            yield picture.name, json.dumps(figure).replace("<", "\\u003c").replace("&", "\\u0026")


def _prose(text: str) -> Any:
    """Escaped text in which `this` is code."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _markdown(data: SweepData, found: Sequence[Section], facts: Sequence[tuple[str, str]]) -> str:
    description = str(data.config.get("description") or "The sweep file gives no description.")
    blocks = [f"# {data.name}", _plain(description), counts_in_words(data)]
    for section in found:
        blocks.append(f"## {section.title}")
        blocks += [_plain(text) for text in section.words]
        for table in section.tables:
            blocks += [markdown(table), f"*{_plain(table.caption)}*"]
        for picture in section.pictures:
            blocks += [f"![{picture.title}](figures/{picture.name}.png)", f"*{_plain(picture.caption)}*"]
    blocks.append("## To repeat it")
    blocks.append("\n".join(f"- {name}: {_plain(value)}" for name, value in facts))
    return "\n\n".join(blocks) + "\n"


def _plain(text: str) -> str:
    return html.escape(text, quote=False)
