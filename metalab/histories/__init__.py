"""Recorded learning histories: what learners saw, did and were paid, in the order of their training."""

from metalab.histories.arrays import Histories, compact, compact_reward, returns_of, tenths
from metalab.histories.folder import (
    FOLDER_VARIABLE,
    MANIFEST,
    SCHEMA_VERSION,
    Manifest,
    located,
    missing_parts,
    part_path,
    part_rows,
    read_manifest,
    read_parts,
    recordings,
    use_root,
    write_manifest,
    write_part,
)
from metalab.histories.reading import read_histories

__all__ = [
    "FOLDER_VARIABLE",
    "MANIFEST",
    "SCHEMA_VERSION",
    "Histories",
    "Manifest",
    "compact",
    "compact_reward",
    "located",
    "missing_parts",
    "part_path",
    "part_rows",
    "read_histories",
    "read_manifest",
    "read_parts",
    "recordings",
    "returns_of",
    "tenths",
    "use_root",
    "write_manifest",
    "write_part",
]
