"""Class names and the file they are kept in."""

import pytest

from edgecls.errors import MissingError, UsageError
from edgecls.files import append_jsonl, read_json, read_jsonl, write_json
from edgecls.labels import check_labels, parse_labels, read_labels, write_labels
from edgecls.text import first_line

WRONG = {
    "a\nb": r"line break \(U\+000A",
    "a\u2028b": r"line break \(U\+2028",
    "a\x85b": r"line break \(U\+0085",
    "a\x1bb": r"control character \(U\+001B",
    "a\0b": r"control character \(U\+0000",
    "a\udcffb": "not UTF-8",
    " ": "empty name",
}


@pytest.mark.parametrize("name", WRONG, ids=ascii)
def test_names_that_a_text_file_cannot_hold_are_refused(name, tmp_path):
    for work in (check_labels, lambda names: write_labels(tmp_path / "labels.txt", names)):
        with pytest.raises(UsageError, match=WRONG[name]) as caught:
            work(["fine", name])
        str(caught.value).encode("utf-8")
        assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "labels.txt").exists()


def test_names_are_read_as_they_were_written(tmp_path):
    names = ["Köter", "猫", "two words", "a\u00a0b", "'", "👩\u200d🚀"]
    write_labels(tmp_path / "labels.txt", names)
    assert read_labels(tmp_path / "labels.txt") == names
    (tmp_path / "windows.txt").write_bytes(b"\xef\xbb\xbfcat\r\ndog\r\n")
    assert read_labels(tmp_path / "windows.txt") == ["cat", "dog"]
    assert parse_labels("a\u2028b\nc") == ["a\u2028b", "c"] and parse_labels("") == []


def test_files_that_are_no_label_files_are_one_line(tmp_path):
    (tmp_path / "latin.txt").write_bytes("Köter\n".encode("latin-1"))
    with pytest.raises(UsageError, match="not UTF-8"):
        read_labels(tmp_path / "latin.txt")
    with pytest.raises(MissingError, match=r"none\.txt"):
        read_labels(tmp_path / "none.txt")
    with pytest.raises(UsageError, match="cannot read"):
        read_labels(tmp_path)


def test_foreign_file_names_survive_in_json(tmp_path):
    row = {"file": "a\u2028b \udcff\x85.jpg"}
    append_jsonl(tmp_path / "log.jsonl", row)
    append_jsonl(tmp_path / "log.jsonl", {"file": "next"})
    assert read_jsonl(tmp_path / "log.jsonl") == [row, {"file": "next"}]
    write_json(tmp_path / "split.json", row)
    assert read_json(tmp_path / "split.json") == row


def test_first_line_of_an_error():
    assert first_line(ValueError("one\x1b\ntwo")) == "one\\x1b"
    assert first_line(KeyError()) == "KeyError" and len(first_line(ValueError("x" * 999))) == 200
