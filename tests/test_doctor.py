"""The doctor: versions against the ranges of setup.py, the computer, and what to do about what is missing."""

from __future__ import annotations

import json
from email.message import Message

import pytest
from commands import process

from edgecls import doctor, environment

pytestmark = pytest.mark.usefixtures("recipe_folder")


@pytest.fixture
def light(monkeypatch):
    """A doctor that starts no TensorFlow and looks for no phones."""
    monkeypatch.setattr(doctor, "_stack", list)
    monkeypatch.setattr(doctor, "_phones", list)


def installed(monkeypatch, requirements, versions, python=">=3.8"):
    """Pretend that edgecls requires this and that these versions are installed."""
    about = Message()
    about["Requires-Python"] = python
    about["Provides-Extra"] = "demo"
    about["Provides-Extra"] = "dev"
    monkeypatch.setattr(doctor.metadata, "metadata", lambda name: about)
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: requirements)
    monkeypatch.setattr(doctor, "version", versions.get)


REQUIREMENTS = [
    "within<2.22,>=2.20",
    "newer<2.22,>=2.20",
    "older>=3.12",
    "candidate>=1.9",
    "not-equal!=1.5,>=1",
    "compatible~=1.4",
    "exact==0.4.4",
    'absent-extra==2; extra == "demo"',
    "absent>=3,<4",
    'mypy>=1; extra == "dev"',
    'elsewhere>=1; sys_platform == "win32"',
    "anything",
]
VERSIONS = {
    "within": "2.21.0", "newer": "2.22.0", "older": "3.9.2", "candidate": "2.0rc1", "not-equal": "1.5",
    "compatible": "1.10", "exact": "0.4.4", "anything": "0.1",
}  # fmt: skip


def test_versions_are_compared_with_the_ranges(call, monkeypatch, light):
    installed(monkeypatch, REQUIREMENTS, VERSIONS)
    code, out, err = call("doctor", "--json")
    found = {c["name"]: (c["status"], c["fix"]) for c in json.loads(out)["checks"]}
    assert found["newer"] == ("warn", "pip install 'newer<2.22,>=2.20'")
    assert found["older"] == ("warn", "pip install 'older>=3.12'")
    assert found["not-equal"] == ("warn", "pip install 'not-equal!=1.5,>=1'")
    assert {found[name] for name in ("within", "candidate", "compatible", "exact", "anything")} == {
        ("ok", "")
    }
    assert found["absent-extra"] == ("warn", "pip install 'edgecls[demo]'")
    assert found["absent"] == ("missing", "pip install 'absent<4,>=3'")
    assert "mypy" not in found and "elsewhere" not in found
    assert code == 3 and err.endswith("edgecls: error: missing: absent; see the lines above\n")


def test_the_measured_version_is_a_note(call, monkeypatch, light, tmp_path):
    installed(
        monkeypatch,
        ["within>=2", "under_score>=1", "same>=1"],
        {**VERSIONS, "under_score": "1.1", "same": "1.0"},
    )
    constraints = tmp_path / "constraints.txt"
    constraints.write_text(
        "# the measured set\nWithin==2.20.1  # why\nunder-score==1.2 ; python_version > '3'\nsame==1.0\n"
    )
    monkeypatch.setattr(doctor, "CONSTRAINTS", constraints)
    code, out, _ = call("doctor", "--json")
    checks = {c["name"]: c for c in json.loads(out)["checks"]}
    assert code == 0 and checks["within"]["found"] == "2.21.0 (measured with 2.20.1)"
    assert checks["under_score"]["found"] == "1.1 (measured with 1.2)" and checks["same"]["found"] == "1.0"
    assert {checks[n]["status"] for n in ("within", "under_score", "same")} == {"ok"}
    monkeypatch.setattr(doctor, "CONSTRAINTS", tmp_path / "none.txt")
    assert "2.21.0 " not in call("doctor")[1].replace("2.21.0  ", "")


def test_python_is_compared_too(call, monkeypatch, light):
    installed(monkeypatch, [], {}, python=">=2.7,<3")
    check = json.loads(call("doctor", "--json")[1])["checks"][0]
    assert check["name"] == "python" and check["status"] == "warn" and check["fix"] == "use >=2.7,<3"


@pytest.mark.parametrize(
    ("flags", "note"),
    [
        ("fpu sse2 avx2", doctor.NO_VNNI),
        ("sse2 avx2 avx512_vnni", ""),
        ("sse2 avx_vnni", ""),
        ("asimd fphp asimddp", ""),
        ("", ""),
    ],
)
def test_int8_on_this_processor(call, monkeypatch, light, flags, note):
    monkeypatch.setattr(environment, "_cpuinfo", lambda *names: flags if "flags" in names else "A Processor")
    checks = {c["name"]: c for c in json.loads(call("doctor", "--json")[1])["checks"]}
    assert checks["processor"]["fix"] == note and "A Processor" in checks["processor"]["found"]


@pytest.mark.slow
def test_doctor_really():
    done = process("doctor", "--json")
    checks = {c["name"]: c["status"] for c in json.loads(done.stdout)["checks"]}
    assert done.returncode == 0 and checks["tensorflow import"] == checks["litert run"] == "ok"
