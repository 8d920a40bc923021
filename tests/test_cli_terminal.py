"""What reaches the terminal: JSON, progress, names that cannot be printed, streams that are closed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import process

from edgecls.console import Console, to_json

pytestmark = pytest.mark.usefixtures("recipe_folder")


def test_json_is_strict_and_alone(run):
    code = (
        "import os, edgecls, types, numpy\nfrom edgecls.cli.main import main\n"
        "def report(run, console):\n"
        "    print('a library prints'); os.write(1, b'C++ prints\\n'); console.say('said'); console.log('logged')\n"
        "    return {'schema': 's', 'nan': float('nan'), 'n': numpy.float32(0.5), 'a': numpy.arange(2), 'p': os.sep}\n"
        "edgecls.workflow = types.SimpleNamespace(report=report)\n"
        "main(['report', '--json'])"
    )
    done = process(code=code)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"schema": "s", "nan": None, "n": 0.5, "a": [0, 1], "p": "/"}
    assert sorted(done.stderr.split("\n")) == ["", "C++ prints", "a library prints", "logged", "said"]


def test_to_json_takes_what_results_hold():
    assert json.loads(to_json({1: (True, None, Path("a"), float("inf"))})) == {"1": [True, None, "a", None]}


def test_progress_without_a_terminal_is_a_line_an_epoch(capsys):
    console = Console()
    with console.progress() as progress:
        task = progress.add_task("student", total=20, text="")
        progress.update(task, completed=10)  # resumed after an epoch
        for _ in range(5):
            progress.advance(task)
        progress.update(task, text="loss 0.5")
        console.say("result")
    out, err = capsys.readouterr()
    assert out == "result\n" and re.fullmatch(r"student  15/20  0:00 left  loss 0\.5\n", err)
    with Console(quiet=True).progress() as progress:
        progress.update(progress.add_task("x"), text="said")
    assert capsys.readouterr() == ("", "")


def test_progress_on_a_terminal_is_drawn(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    console = Console()
    with console.progress() as progress:
        task = progress.add_task("student", total=2)
        progress.update(task, completed=1, text="loss [0.5]")
        console.log("a [remark]")
    err = capsys.readouterr().err
    assert "student" in err and "1/2" in err and "loss [0.5]" in err and "a [remark]\n" in err
    assert not re.search(r"\x1b\[[\d;]*3\d(;\d+)*m", err), "no colours with NO_COLOR"


@pytest.mark.parametrize("total", [None, 0])
def test_a_task_of_unknown_length_shows_its_text_alone(capsys, monkeypatch, total):
    with Console().progress() as progress:
        progress.add_task("student", total=total, text="building the graph")
    assert capsys.readouterr().err == "student  building the graph\n"
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with Console().progress() as progress:
        task = progress.add_task("student", total=total, text="building the graph")
        time.sleep(0.15)  # a drawing or two
        begun = capsys.readouterr().err
        progress.update(task, total=36, completed=1, text="")
    assert "building the graph" in begun and "/" not in begun and "--:--" not in begun
    end = capsys.readouterr().err
    assert "1/36" in end and "--:--" not in end


# Streams and names


NAME = "狗 caf\xe9 \x1b[31mred\x00\x9b line\nbreak \udcb9 \u2028 end"  # a class folder may be called so
SPEAK = f"""
import edgecls, types
from edgecls.cli.main import main
from edgecls.errors import UsageError
name = {NAME!a}
def report(run, console):
    console.say(f"said {{name}}")
    console.log(f"logged {{name}}")
    with console.progress() as progress:
        progress.update(progress.add_task(name), text=name)
    return {{"report": name, "classes": [name]}}
def export(run, console, **kw):
    raise UsageError("no such class", where=name)
edgecls.workflow = types.SimpleNamespace(report=report, export=export)
"""
ENCODINGS = {
    "utf-8": {"PYTHONIOENCODING": "utf-8"},
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}


def raw_process(code: str, **env: str) -> subprocess.CompletedProcess:
    clean = {k: v for k, v in os.environ.items() if k not in ("LANG", "LC_ALL", "PYTHONIOENCODING")}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env=clean | env, timeout=120, check=False
    )


@pytest.mark.parametrize("terminal", ENCODINGS)
def test_any_name_is_printed_on_any_terminal(run, terminal):
    done = raw_process(SPEAK + "main(['report'])", **ENCODINGS[terminal])
    assert done.returncode == 0, done.stderr
    encoding = {"C": "ascii"}.get(terminal, terminal)
    out, err = done.stdout.decode(encoding), done.stderr.decode(encoding)
    safe = r"\x1b[31mred\x00\x9b"
    dog = {"utf-8": "狗 café", "latin-1": r"\u72d7 café"}.get(terminal, r"\u72d7 caf\xe9")
    assert f"{dog} {safe}" in out and f"logged {dog} {safe}" in err
    assert rf"report: {dog} {safe} line\nbreak \udcb9 \u2028 end" in out
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028]", out + err)


@pytest.mark.parametrize("terminal", ENCODINGS)
def test_json_is_valid_on_any_terminal(run, terminal):
    done = raw_process(SPEAK + "main(['report', '--json'])", **ENCODINGS[terminal])
    assert json.loads(done.stdout.decode("utf-8"))["classes"] == [NAME]
    assert not set(done.stdout) & {0, 0x1B, 0x9B}
    done = raw_process(SPEAK + "main(['export', '--json'])", **ENCODINGS[terminal])
    assert done.returncode == 2 and json.loads(done.stdout)["exit_code"] == 2


@pytest.mark.parametrize("debug", [[], ["--debug"]])
def test_an_error_with_any_name_is_printed(run, debug):
    done = raw_process(SPEAK + f"main(['export', *{debug}])", PYTHONIOENCODING="ascii")
    assert done.returncode == 2 and done.stdout == b""
    assert done.stderr.decode("ascii").splitlines()[-1] == (
        r"edgecls: error: no such class (\u72d7 caf\xe9 \x1b[31mred\x00\x9b line break \udcb9 end)"
    )
    assert b"\x1b" not in done.stderr and (b"Traceback" in done.stderr) == bool(debug)


def test_colons_and_brackets_of_a_name_are_kept_beside_a_bar(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    console = Console()
    with console.progress() as progress:
        progress.update(progress.add_task("a\x1b[2J"), text=":dog: \x1b[2J")
        console.log(":cat: [bold] \x1b[2J")
    err = capsys.readouterr().err
    assert r":cat: [bold] \x1b[2J" in err and r":dog: \x1b[2J" in err and r"a\x1b[2J" in err
    assert "\x1b[2J" not in err


@pytest.mark.parametrize(
    ("command", "code", "out", "err"),
    [
        ("models >&-", 0, "", ""),
        ("models ResNet5 >&-", 2, "", "unknown model"),
        ("models ResNet18 2>&-", 0, "11,693,736", ""),
        ("models ResNet5 2>&-", 2, "", ""),
        ("models >&- 2>&-", 0, "", ""),
        ("models ResNet5 >&- 2>&-", 2, "", ""),
        ("models --json >&- 2>&- <&-", 0, "", ""),
        ("models ResNet5 --json 2>&-", 2, '"exit_code": 2', ""),
        ("models > /dev/full", 3, "", "no disk space left"),
        ("models --json > /dev/full", 3, "", "no disk space left"),
        ("models ResNet5 2> /dev/full", 2, "", ""),
        ("--help >&-", 0, "", ""),
    ],
)
def test_closed_and_full_streams(command, code, out, err):
    done = subprocess.run(
        f"{sys.executable} -m edgecls {command}", shell=True, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    assert out in done.stdout and err in done.stderr
    assert bool(done.stdout) == bool(out) and done.stderr.count("\n") == bool(err)


def test_a_file_never_takes_the_place_of_a_closed_stream(run):
    code = (
        "import os, edgecls, types\nfrom edgecls.cli.main import main\n"
        "def report(run, console):\n"
        "    with open('precious', 'w') as file:\n"
        "        os.write(1, b'C++ prints'); os.write(2, b'C++ warns'); os.system('echo child'); file.write('content')\n"
        "    return {}\n"
        "edgecls.workflow = types.SimpleNamespace(report=report)\nmain(['report'])"
    )
    Path("code.py").write_text(code)
    done = subprocess.run(f"{sys.executable} code.py >&- 2>&- <&-", shell=True, check=False)
    assert done.returncode == 0 and Path("precious").read_text() == "content"


def test_remarks_that_nobody_can_read_do_not_stop_the_work(run):
    code = (
        "import edgecls, types\nfrom edgecls.cli.main import main\n"
        "def report(run, console):\n    console.log('remark')\n    return {'report': 'done'}\n"
        "edgecls.workflow = types.SimpleNamespace(report=report)\nmain(['report'])"
    )
    Path("code.py").write_text(code)
    done = subprocess.run(
        f"{sys.executable} code.py 2> /dev/full", shell=True, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "report: done\n")


def test_tensorflow_is_imported_quietly_under_a_closed_stderr():
    code = "import sys\nsys.modules['tensorflow'] = None\nfrom edgecls.quiet import _stderr_discarded\nwith _stderr_discarded(): print(1)"
    Path("code.py").write_text(code)
    done = subprocess.run(
        f"{sys.executable} code.py 2>&-", shell=True, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "1\n")


def test_the_bench_table_is_safe_too(call, workflow, run):
    row = {"model": "a\x1b[31m.tflite", "threads": 1, "bytes": 1, "n": 9, "status": "ok", "why": "b\x1b[2J"}
    row |= {f"{k}_ms": 1.0 for k in ("median", "p90", "min", "init", "first")} | {"ci95_ms": [1, 1]}
    protocol = {"warmup": 10, "warmup_s": 0.5, "runs": 30, "run_s": 0.5, "rounds": 5}
    document = {"schema": "x", "device": {"name": "host"}, "protocol": protocol, "results": [row]}
    row |= {"peak_mb": 5.0, "peak_mib": 5.0}
    workflow.bench = lambda targets, console, **options: document
    out = call("bench")[1]
    assert r"a\x1b[31m.tflite" in out and r"b\x1b[2J" in out and "\x1b" not in out


# A user without a home and without an entry in the list of users, as in many containers


HOMELESS = """
import pwd, sys
def getpwuid(uid):
    raise KeyError(uid)
pwd.getpwuid = getpwuid
from edgecls.cli.main import main
main(sys.argv[1:])
"""


@pytest.mark.parametrize(
    ("args", "code", "err"),
    [
        ("models ResNet18", 0, ""),
        ("devices 127.0.0.1:1", 0, ""),
        ("bench nothing.tflite", 2, "edgecls: error: not a run"),
        ("bench m.tflite --device 127.0.0.1:1", 3, "edgecls: error: "),
        ("completion bash", 0, ""),
        ("init ~/photos", 2, "edgecls: error: this user has no home (~/photos); write the whole path"),
        ("init ~nobody_here/photos", 2, "edgecls: error: this user has no home"),
        ("train ~/r.yaml", 2, "edgecls: error: "),
        ("train r.yaml -o data.path=~/photos", 2, "edgecls: error: "),
    ],
)
def test_a_user_without_a_home(recipe_folder, args, code, err):
    Path("m.tflite").write_bytes(b"\0\0\0\0TFL3")
    env = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        "TMPDIR": str(recipe_folder),
    }
    done = subprocess.run(
        [sys.executable, "-c", HOMELESS, *args.split()],
        env=env | {"ANDROID_ADB_SERVER_PORT": "1"}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith(err) and "internal" not in done.stderr
