"""scripts/slurm_train.sh gives each node its TF_CONFIG, and the commands of docs/distributed.md have one that edgecls takes."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from edgecls.cluster import VARIABLE, Cluster

ROOT = Path(__file__).parents[1]

# What the script needs of Slurm: the nodes' names, and one process on each with its number.
SCONTROL = '[ "$1 $2" = "show hostnames" ] && printf "%s\\n" node1 node2 node3'
SRUN = 'shift; for i in 0 1 2; do SLURM_PROCID=$i "$@" || exit; done'
EDGECLS = 'printf "%s\\t%s\\n" "$TF_CONFIG" "$*"'


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    for name, body in {"scontrol": SCONTROL, "srun": SRUN, "edgecls": EDGECLS}.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    return os.environ | {"PATH": path, "SLURM_JOB_ID": "31234", "SLURM_JOB_NODELIST": "node[1-3]"}


def test_each_node_is_a_worker(slurm: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["bash", ROOT / "scripts/slurm_train.sh", "recipe.yaml", "-o", "train.epochs=5"]
    out = subprocess.run(command, env=slurm, capture_output=True, text=True, check=True).stdout
    clusters = []
    for line in out.splitlines():
        config, words = line.split("\t")
        assert words == "train recipe.yaml -o train.epochs=5"
        monkeypatch.setenv(VARIABLE, config)
        clusters.append(Cluster.from_environment())
    addresses = ("node1:21234", "node2:21234", "node3:21234")
    assert clusters == [Cluster(index, addresses) for index in range(3)]


def test_the_page_shows_settings_that_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = re.findall(r"export TF_CONFIG='(.*)'", (ROOT / "docs/distributed.md").read_text())
    indices = []
    for config in shown:
        monkeypatch.setenv(VARIABLE, config)
        cluster = Cluster.from_environment()
        indices.append(cluster.index)
        assert cluster.addresses == ("10.0.0.1:12345", "10.0.0.2:12345")
    assert indices == [0, 1]
