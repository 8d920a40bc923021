"""Every way a command can end: exit codes and one-line errors."""

from __future__ import annotations

import errno
import json
import signal
import subprocess
import sys

import pytest
from commands import process

from edgecls.errors import EdgeclsError

pytestmark = pytest.mark.usefixtures("recipe_folder")


class AnyonesError(Exception):
    exit_code = 3


class Stopped(Exception):
    exit_code = 130


class ResourceExhaustedError(Exception):
    """As TensorFlow's."""


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (EdgeclsError("it\nbroke", where="here", fix="mend it"), 1, "error: it broke (here); mend it"),
        (AnyonesError("no phone"), 3, "error: no phone"),
        (OSError(errno.ENOSPC, "No space", "x.npz"), 3, "error: no disk space left (x.npz); free some space and run again"),
        (RuntimeError("write: No space left on device"), 3, "error: no disk space left; free some space and run again"),
        (PermissionError(errno.EACCES, "Permission denied", "runs"), 1, "error: Permission denied (runs)"),
        (MemoryError(), 1, "error: not enough memory; lower the batch size, e.g. -o train.batch_size=16"),
        (ResourceExhaustedError("OOM"), 1, "error: not enough memory; lower the batch size, e.g. -o train.batch_size=16"),
        (ModuleNotFoundError("x", name="elpv_dataset"), 3,
         "error: package 'elpv_dataset' is not installed; pip install '.[all]' in the checkout brings the "
         "whole kit, and edgecls doctor says what is missing"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (Stopped("interrupted after epoch 3; run the same command to continue"), 130,
         "interrupted after epoch 3; run the same command to continue"),
        (UnicodeEncodeError("ascii", "photos/é", 7, 8, "ordinal not in range(128)"), 2,
         "error: a name does not fit the encoding ascii (photos/é); set LC_ALL=C.UTF-8"),
        (UnicodeEncodeError("utf-8", "caf\udce9", 3, 4, "surrogates not allowed"), 2,
         r"error: a name is not UTF-8 (caf\udce9); rename it or set LC_ALL=C.UTF-8"),
        (EdgeclsError("no photo", where="a\x1b[2Jb"), 1, r"error: no photo (a\x1b[2Jb)"),
        (ValueError("odd\nthing"), 1, "internal error: ValueError: odd thing; run again with --debug"),
        (AssertionError(), 1, "internal error: AssertionError; run again with --debug"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)  # fmt: skip
def test_exit_codes(call, workflow, error, code, line):
    def fail(*args, **kwargs):
        raise error

    workflow.train = fail
    got, out, err = call("train", "r.yaml")
    assert (got, out) == (code, "")
    assert err.strip().splitlines()[-1] == f"edgecls: {line}"
    assert "Traceback" not in err
    got, _, err = call("train", "r.yaml", "--debug")
    assert got == code and "Traceback" in err and "in fail" in err
    got, out, _ = call("train", "r.yaml", "--json")
    assert got == code
    assert json.loads(out) == {
        "schema": "edgecls.error/1",
        "exit_code": code,
        "error": line.removeprefix("error: "),
    }


@pytest.mark.parametrize("package", ["edgecls", "android_bench"])
def test_an_interruption_in_the_code_of_a_string_has_the_code_too(package, tmp_path):
    """As in a dataclass that is being made: there ``python -m`` ends by SIGINT, if nobody prevents that."""
    (tmp_path / "stopped.py").write_text(
        "import sys\nimport click\n"
        "click.Command.main = lambda *a, **kw: exec('raise KeyboardInterrupt')\n"
        f"from {package}.{'cli.main' if package == 'edgecls' else '__main__'} import main\n"
        "sys.exit(main([]))\n"
    )
    done = subprocess.run([sys.executable, "-m", "stopped"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 130, done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals(number):
    code = (
        "import os, edgecls, types\nfrom edgecls.cli.main import main\n"
        f"edgecls.workflow = types.SimpleNamespace(train=lambda *a, **kw: os.kill(os.getpid(), {int(number)}))\n"
        "main(['train', 'r.yaml'])"
    )
    done = process(code=code)
    assert done.returncode == 130
    assert done.stderr.strip().splitlines()[-1] == "edgecls: interrupted"


def test_a_reader_that_goes_away():
    done = subprocess.run(
        f"{sys.executable} -m edgecls models --json | head -c 1",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "{" and done.stderr == ""


def test_an_error_after_tensorflow_is_imported_is_one_line():
    command = [sys.executable, "-m", "edgecls", "models", "InceptionV3", "--input-size", "64"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "edgecls: error: 64 pixels are too few for InceptionV3, made for 299\n"
