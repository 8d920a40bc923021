"""The live table of `--watch`, and what the tables do with names that are long or hostile."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import sys
import termios
from pathlib import Path
from typing import Any

import pytest
from adbd import Adbd

from android_bench.__main__ import main
from android_bench.measure.session import failed_row
from android_bench.output.live import Watch
from android_bench.output.report import print_duel, print_profile, print_table

REPO = Path(__file__).parents[1]
QUICK = ("--threads", "1,2", "--warmup", "1", "--runs", "5", "--rounds", "3", "--spacing", "0")
HOSTILE = "evil\x1b[31m\x9b2J\r\n[red]\u202e.tflite"


class Screen(io.StringIO):
    """A terminal that keeps what is drawn on it."""

    def isatty(self) -> bool:
        return True


def on_terminal(*command: str) -> tuple[int, str]:
    """Runs a program in a terminal of 30 lines and 120 columns; its exit code and all that it wrote there."""
    process, terminal = pty.fork()
    if process == 0:
        os.environ |= {"TERM": "xterm-256color", "COLUMNS": "120", "PYTHONPATH": str(REPO)}
        os.execv(sys.executable, [sys.executable, *command])
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 120, 0, 0))
    written = b""
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # the terminal of a program that has ended
            break
        if not part:
            break
        written += part
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), written.decode()


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("program", ["android_bench", "edgecls"])
def test_a_live_table_on_a_terminal(program: str, pixel: Adbd) -> None:
    command = ["android_bench"] if program == "android_bench" else ["edgecls", "bench"]
    files = ("a.tflite", "b.tflite", "--device", pixel.where)
    code, written = on_terminal("-m", *command, *files, *QUICK, "--watch")
    assert code == 1, written  # b cannot be loaded
    assert "\x1b[1A" in written and "\x1b[2K" in written  # drawn over, and taken away in the end
    frames = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written).split(" of 4 done after ")
    assert len(frames) > 12
    text = "\n".join(frames)
    for found in ("0 of 3", "2 of 3", "3 of 3", "measuring", "waiting", "failed", "8.000", "31.5"):
        assert found in text, found
    assert re.search(r"\d{3,4} - \d{4} ", text)  # clocks of the little and the big cores in MHz
    assert "Google Pixel 4: Snapdragon 855" in frames[-1] and "95 % interval" in frames[-1]


@pytest.mark.usefixtures("alone")
def test_lines_where_there_is_no_terminal(pixel: Adbd, capfd: pytest.CaptureFixture[str]) -> None:
    for watch in ((), ("--watch",)):
        assert main(["a.tflite", "--device", pixel.where, *QUICK, "--fresh", *watch]) == 0
        said = capfd.readouterr().err.splitlines()
        assert [line for line in said if "round" in line] == [
            f"a.tflite, {threads}: round {number} {ms} ms"
            for number in (1, 2, 3)
            for threads, ms in (("1 thread", "8.000"), ("2 threads", "4.000"))
        ]


def test_rows_of_many_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last ones are shown, and what is not known has no column."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("LINES", "20")
    screen = Screen()
    with Watch(print, screen) as watch:
        watch({"event": "plan", "cases": 50, "rounds": 2, "kept": 0})
        for number in range(50):
            case = {"model": f"m{number}.tflite", "threads": 1}
            watch({"event": "load", **case})
            for why in ("", "too warm"):
                watch({"event": "round", **case, "round": 0, "median_ms": 5.0, "why": why, "state": {}})
            watch({"event": "result", **case, "status": "unsure", "why": "too warm"})
        drawn = screen.getvalue()
    last = drawn[drawn.rindex("done after") :]
    assert "m49.tflite" in last and "m30.tflite" not in last and "1 of 2 + 1 disturbed" in last
    assert "MHz" not in last and "temp C" not in last and "50 of 50 done" in drawn


def result(name: str, **fields: Any) -> dict[str, Any]:
    return failed_row({"model": name, "sha256": "", "bytes": 9}, 1, f"no {name}") | fields


def document(*names: str) -> dict[str, Any]:
    protocol = {"rounds": 2, "runs": 30, "run_s": 0.5, "warmup": 10, "warmup_s": 0.5}
    layers = {"by_type_ms": {HOSTILE: 1.0}, "layers": [{"type": HOSTILE, "name": HOSTILE, "avg_ms": 1.0}]}
    device = {"name": HOSTILE, "cpu": HOSTILE, "notes": [HOSTILE]}
    return {"device": device, "protocol": protocol, "results": [result(n, profile=layers) for n in names]}


def test_hostile_names_are_escaped_in_every_table() -> None:
    pair = {"model": HOSTILE, "threads": 1, "a_ms": 1.0, "b_ms": 1.0, "ratio": 1.0, "ci95": None, "sure": None,
            "verdict": "no difference shown"}  # fmt: skip
    text = io.StringIO()
    print_table(document(HOSTILE), text)
    print_profile(document(HOSTILE), text)
    print_duel({"pairs": [pair], "notes": [HOSTILE]}, text)
    assert text.getvalue().replace("\n", "").isprintable()
    assert "\\x1b" in text.getvalue() and "[red]" in text.getvalue()


@pytest.mark.usefixtures("alone")
def test_hostile_file_names_on_the_command_line(pixel: Adbd, capfd: pytest.CaptureFixture[str]) -> None:
    name = HOSTILE.replace("/", "")
    Path(name).write_bytes(b"\0\0\0\0TFL3good")
    where = ("--device", pixel.where, *QUICK)
    for arguments, code in (
        ((name, *where), 0),
        ((name, "--text", "-", *where), 0),
        ((name, "--csv", "-", *where), 0),
        ((name, "--json", "-", *where), 0),
        ((f"no{name}", *where), 2),
        ((name, "--baseline", f"no{name}", *where), 2),
        ((name, "--compare"), 2),
    ):
        assert main(list(arguments)) == code
        printed = "".join(capfd.readouterr())
        assert printed.replace("\n", "").isprintable(), printed


@pytest.mark.parametrize("width", [80, 110, 200])
def test_long_names_are_broken_behind_separators(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    names = (
        "MobileNetV3_large_x1_0_ssld_finetuned_int8.tflite",
        "photos-of-solar-cells.v2_int8.tflite",
        "狗_" * 20,
    )
    text = io.StringIO()
    print_table(document(*names), text)
    table = text.getvalue().split("ms; 2 rounds")[0].splitlines()
    cells = [line[1:].split("  ")[0].rstrip() for line in table[4:] if line.strip()]
    for name in names:
        start = next(i for i, cell in enumerate(cells) if cell and name.startswith(cell))
        cell, parts = cells[start], 1
        while cell != name:
            assert cell[-1] in "_-./", cells
            cell += cells[start + parts]
            parts += 1
        assert width < 200 or parts == 1


def test_a_name_without_separators_is_folded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = io.StringIO()
    print_table(document("y" * 300), text)
    assert text.getvalue().split("ms; 2")[0].count("y") == 300
    assert max(map(len, text.getvalue().split("ms; 2")[0].splitlines())) <= 80
