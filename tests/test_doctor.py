"""The doctor: versions, and what to do about what is missing."""

from __future__ import annotations

import json

import pytest
from commands import process

pytestmark = pytest.mark.usefixtures("recipe_folder")


def test_doctor_reads_the_pins(call, monkeypatch):
    from edgecls import doctor

    lines = [
        "click==0.1",
        "rich>=1",
        "no-such-thing==2 ; extra == 'demo'",
        "nothing-like-it==3",
        "mypy; extra == 'dev'",
    ]
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: lines)
    monkeypatch.setattr(doctor, "_stack", list)
    monkeypatch.setattr(doctor, "_phones", list)
    code, out, err = call("doctor", "--json")
    found = {c["name"]: (c["status"], c["fix"]) for c in json.loads(out)["checks"]}
    assert found["click"] == ("warn", "pip install 'click==0.1', the version edgecls was measured with")
    assert found["rich"] == ("ok", "")
    assert found["no-such-thing"] == ("warn", "pip install 'edgecls[demo]'")
    assert found["nothing-like-it"] == ("missing", "pip install 'nothing-like-it==3'") and "mypy" not in found
    assert code == 3 and err.endswith("edgecls: error: missing: nothing-like-it; see the lines above\n")


@pytest.mark.slow
def test_doctor_really():
    done = process("doctor", "--json")
    checks = {c["name"]: c["status"] for c in json.loads(done.stdout)["checks"]}
    assert done.returncode == 0 and checks["tensorflow import"] == checks["litert run"] == "ok"
