"""The options of the two programs that measure, and what they write."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from adbd import Adbd

from android_bench import BenchUsageError
from android_bench.__main__ import command, main
from android_bench.measure.protocol import Protocol
from android_bench.options import bench_options
from android_bench.output.documents import require_writable, write_all
from edgecls.cli.bench import command as edgecls_command

Call = Callable[..., tuple[int, str, str]]
QUICK = ("--runs", "5", "--warmup", "1", "--rounds", "1", "--threads", "1")
pytestmark = pytest.mark.usefixtures("alone")


def shared() -> dict[str, click.Option]:
    @click.command
    @bench_options(device="host", threads="1")
    def only(**options: Any) -> None:
        """Nothing but the options of a measurement."""

    return {option.name or "": option for option in only.params if isinstance(option, click.Option)}


@pytest.mark.parametrize("program", [command, edgecls_command])
def test_both_programs_have_every_option(program: click.Command) -> None:
    theirs = {option.name: option for option in program.params}
    for name, option in shared().items():
        assert theirs[name].opts == option.opts and theirs[name].help == option.help  # type: ignore[attr-defined]


def test_defaults_are_those_of_the_protocol() -> None:
    defaults = {name: option.default for name, option in shared().items()}
    for name in ("warmup", "runs", "rounds", "spacing_s", "repeats", "seed"):
        assert defaults[name] == getattr(Protocol, name), name
    assert defaults["protocol"] == Protocol.name


def test_threads_may_be_given_several_times() -> None:
    @click.command
    @bench_options(device=None, threads=None)
    def asked(threads: list[int] | None, **options: Any) -> list[int] | None:
        """Returns the thread counts."""
        return threads

    for arguments, threads in (
        ([], None),
        (["--threads", "4,1"], [4, 1]),
        (["--threads", "1", "--threads", "2,1"], [1, 2]),
    ):
        assert asked.main(arguments, standalone_mode=False) == threads


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys, edgecls.cli.bench, android_bench.options\n"
        "assert not {'tensorflow', 'keras', 'numpy', 'rich', 'yaml', 'adb_shell'} & sys.modules.keys(), sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])


@pytest.mark.parametrize("option", ["--json", "--csv", "--text"])
def test_a_place_that_cannot_be_written_is_refused_first(
    option: str, pixel: Adbd, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("folder").mkdir()
    for path, says in (
        ("folder", "a folder"),
        ("nowhere/x", "no such folder"),
        ("x" * 300, "File name too long"),
    ):
        assert main(["a.tflite", "--device", pixel.where, *QUICK, option, path]) == 2
        captured = capsys.readouterr()
        assert captured.out == "" and captured.err.count("\n") == 1
        assert says in captured.err and f"{option} {path}" in captured.err
    assert not pixel.phone.commands  # nobody was measured


@pytest.mark.parametrize("end", ["json", "csv", "txt", "html"])
def test_save_is_checked_first(end: str, call: Call, pixel: Adbd) -> None:
    Path(f"folder.{end}").mkdir()
    where = ("a.tflite", "--device", pixel.where, *QUICK, "--save")
    for path, says in ((f"folder.{end}", "folder"), (f"nowhere/x.{end}", "no such folder")):
        code, out, err = call("bench", *where, path)
        assert code == 2 and out == "" and says in err.splitlines()[-1]
    assert not pixel.phone.commands


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="no folder that not even root may write in")
def test_a_folder_without_permission() -> None:
    with pytest.raises(BenchUsageError, match=r"cannot write: .*--save /proc/x\.json"):
        require_writable("/proc/x.json", "--save")


def test_only_ordinary_files_are_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(BenchUsageError, match="not an ordinary file"):
        require_writable(tmp_path / "pipe.json", "--save")
    (tmp_path / "old.json").write_text("kept until there is a new one")
    require_writable(tmp_path / "old.json", "--save")
    assert (tmp_path / "old.json").read_text() == "kept until there is a new one"
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("end", ["json", "csv", "txt", "html"])
def test_figures_are_printed_though_they_cannot_be_written(
    end: str, call: Call, pixel: Adbd, monkeypatch: pytest.MonkeyPatch
) -> None:
    from android_bench.measure.phone import PhoneRunner

    measure = PhoneRunner.measure

    def spoil(self: Any, protocol: Any) -> Any:
        """Puts a folder where the file should be, while the phone is measured."""
        (Path(f"x.{end}") / "occupied").mkdir(parents=True, exist_ok=True)
        return measure(self, protocol)

    monkeypatch.setattr(PhoneRunner, "measure", spoil)
    saves = ("--save", f"x.{end}", "--save", "whole.json", "--save", "whole.csv")
    code, out, err = call("bench", "a.tflite", "--device", pixel.where, *QUICK, *saves)
    assert code != 0 and "8.000" in out
    line = err.splitlines()[-1]
    assert line.startswith("edgecls: error: ") and f"x.{end}" in line and "Traceback" not in err
    assert json.loads(Path("whole.json").read_text())["complete"] and Path("whole.csv").is_file()


def test_the_first_error_of_several_files_is_raised_after_all_were_tried(tmp_path: Path) -> None:
    written: list[Path] = []

    def fail(document: dict[str, Any], path: Path) -> None:
        raise BenchUsageError(f"cannot write {path}")

    files = [(Path("a"), fail), (Path("b"), lambda document, path: written.append(path)), (Path("c"), fail)]
    with pytest.raises(BenchUsageError, match="cannot write a"):
        write_all({}, files)
    assert written == [Path("b")]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("a.tflite --nonsense", "No such option"),
        ("a.tflite --threads 0", "threads must be numbers from 1 to 64"),
        ("a.tflite --compare a.tflite b.tflite", "takes two files, not 3"),
        ("a.tflite --protocol fast", "'fast' is not one of"),
    ],
)
def test_wrong_usage_is_one_line(arguments: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments.split()) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and says in err and err.count("\n") == 1


def test_folders_with_a_bench_json_are_compared(
    call: Call, pixel: Adbd, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("run").mkdir()
    assert call("bench", "a.tflite", "--device", pixel.where, *QUICK, "--save", "run/bench.json")[0] == 0
    capsys.readouterr()
    assert main(["--compare", "run", "run/bench.json"]) == 0
    assert "not known" in capsys.readouterr().out
