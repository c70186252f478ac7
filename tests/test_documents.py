from __future__ import annotations

from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from metalab.documents import find_files, read_documents, told
from metalab.errors import ConfigError


def read(files, column: str = "text"):
    skipped: Counter[str] = Counter()
    return [(Path(one.name).name, one.text) for one in read_documents(files, column, skipped)], skipped


def test_every_format_gives_its_documents_in_order(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("whole file")
    (tmp_path / "a.jsonl").write_text('{"text": "one", "id": 1}\n\n{"text": "two"}\n')
    pd.DataFrame({"body": ["x", "y"], "text": ["three", "four"]}).to_parquet(tmp_path / "c.parquet")
    found, skipped = read(find_files([str(tmp_path)]))
    expected = [("a.jsonl#0", "one"), ("a.jsonl#2", "two"), ("b.txt", "whole file")]
    assert found == [*expected, ("c.parquet#0", "three"), ("c.parquet#1", "four")]
    assert told(skipped) == ""


def test_what_cannot_be_read_is_counted_by_its_reason(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("  \n")
    (tmp_path / "b.txt").write_bytes(b"\x00\x01")
    (tmp_path / "c.txt").write_bytes(b"\xff\xfe\xfa")
    (tmp_path / "d.jsonl").write_text('{"text": "kept"}\n{"text": \n[1]\n{"body": "x"}\n')
    pd.DataFrame({"text": ["kept", None]}).to_parquet(tmp_path / "e.parquet")
    found, skipped = read(find_files([str(tmp_path / "*")]))
    assert [text for _, text in found] == ["kept", "kept"]
    assert told(skipped) == "1 binary, 1 empty, 2 invalid JSON line, 1 not UTF-8, 2 without text in 'text'"


def test_a_missing_column_names_those_that_are_there(tmp_path: Path) -> None:
    pd.DataFrame({"body": ["x"], "id": [1]}).to_parquet(tmp_path / "e.parquet")
    with pytest.raises(ConfigError, match=r"e\.parquet: has no column 'text'.*body, id"):
        read([tmp_path / "e.parquet"])


def test_a_broken_parquet_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "e.parquet").write_text("no table")
    with pytest.raises(ConfigError, match=r"e\.parquet: is no Parquet file"):
        read([tmp_path / "e.parquet"])


def test_a_pattern_without_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"corpus: '.*none.*' matches no file"):
        find_files([str(tmp_path / "none*.txt")])


def test_globs_reach_into_folders_and_name_each_file_once(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("a")
    patterns = [str(tmp_path / "**" / "*.txt"), str(tmp_path)]
    assert [path.name for path in find_files(patterns)] == ["a.txt"]
