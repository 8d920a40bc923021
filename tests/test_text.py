"""Plurals, escaped names, tables that fit a terminal."""

from __future__ import annotations

import doctest

import pytest

from edgecls import text
from edgecls.cli import common
from edgecls.cli.common import table
from edgecls.text import display_width, escape, plural


@pytest.mark.parametrize("module", [text, common])
def test_examples(module):
    result = doctest.testmod(module)
    assert result.attempted and not result.failed


def test_plural():
    assert [plural(n, "round") for n in (0, 1, 2)] == ["0 rounds", "1 round", "2 rounds"]
    assert plural(1, "class", "classes") == "1 class" and plural(1200, "class", "classes") == "1,200 classes"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\x1b[2Jb", r"a\x1b[2Jb"),
        ("nul\0", r"nul\x00"),
        ("line\nbreak\r", r"line\nbreak\r"),
        ("sep\u2028", r"sep\u2028"),
        ("csi\x9b", r"csi\x9b"),
        ("gbk\udcb9\udcb7", r"gbk\udcb9\udcb7"),
        ("\u202egpj.exe", r"\u202egpj.exe"),
        ("狗 é 🐕", "狗 é 🐕"),
    ],
)
def test_escape(name, shown):
    assert escape(name) == shown
    assert escape("x\n" + name, keep="\n") == "x\n" + (shown if "\n" not in name else "line\nbreak\\r")


def test_a_table_that_fits_is_one_line_a_row():
    out = table(("name", "long header", "n"), [("a", 1, 2), ("bcd", None, 3)], width=80)
    assert out == "name  long header  n\na               1  2\nbcd             -  3"


def test_a_wide_table_breaks_headers_before_cells():
    rows = [("MobileNetV3_large_x1_0", 224, "imagenet, ssld"), ("b", 3, None)]
    header = ("name", "input px", "weights")
    wide = table(header, rows, width=80).splitlines()
    assert len(wide) == 3 and len(wide[0]) == 48
    narrow = table(header, rows, width=45).splitlines()
    assert narrow == [
        "name                    input         weights",
        "                           px",
        "MobileNetV3_large_x1_0    224  imagenet, ssld",
        "b                           3               -",
    ]
    narrower = table(header, rows, width=40).splitlines()
    assert max(map(len, narrower)) <= 40 and "MobileNetV3_large_x1_0    224  imagenet," in narrower
    assert narrower[-2].strip() == "ssld"
    never_cut = table(header, rows, width=1)
    assert "MobileNetV3_large_x1_0 " in never_cut and "imagenet," in never_cut


def test_the_width_is_that_of_the_terminal_and_80_without_one(monkeypatch):
    rows = [("word " * 30, 1)]
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr("sys.__stdout__", None)
    assert 70 < max(map(len, table(("a", "b"), rows).splitlines())) <= 80
    monkeypatch.setenv("COLUMNS", "40")
    assert 30 < max(map(len, table(("a", "b"), rows).splitlines())) <= 40


def test_a_table_is_aligned_for_wide_characters_and_broken_by_none():
    lines = table(("class", "n"), [("狗", 1), ("cat\nend\x1b", 2)], width=80).splitlines()
    assert len(lines) == 3 and len({display_width(line) for line in lines}) == 1
    assert lines[2].startswith(r"cat\nend\x1b")
    assert display_width("e\u0301") == 1
