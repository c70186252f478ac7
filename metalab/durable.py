"""Files that a power cut leaves whole: written beside their place, brought to disk, and then named."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["sync", "written_whole"]


def written_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Writes a file so that it is there whole, under its name, or as it was before.

    Args:
        path: of the file.
        write: writes the whole content to the path it is given, that of a draft beside ``path``.
    """
    draft = path.with_name(path.name + ".new")
    write(draft)
    sync(draft)
    draft.replace(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Brings a file to disk, or a folder: a new file's name outlives a power cut only if its folder was."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
