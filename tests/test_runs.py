"""The list of runs: their states from files, and what damaged or foreign folders do to it."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from run_folders import RECIPE, make_models, scores, stamp, timing, write

from edgecls.cli.runs import command, show_runs
from edgecls.files import sha256
from edgecls.report.runs import list_runs
from edgecls.run import Run


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


def make(root, name: str, epochs: int = 0) -> Run:
    run = Run(root / name)
    run.path.mkdir(parents=True)
    run.file("recipe.yaml").write_text(RECIPE)
    for epoch in range(epochs):
        run.metric("student", epoch, loss=1.0)
    return run


def trained(root, name: str) -> Run:
    run = make(root, name, epochs=3)
    run.log("stage", stage="student")
    make_models(run)
    for name in ("qat.keras", "export/model_fp32.tflite", "export/model_int8.tflite"):
        run.file(name).unlink()
    stamp(run, "student", [], ["float.keras"], seconds=95.2, finished="2126-01-02T03:04:05+0000")
    entry = scores(0.812) | {"sha256": sha256(run.file("float.keras"))}
    write(
        run, "eval.json", {"split": "test", "count": 100, "classes": ["a", "b"], "models": {"float": entry}}
    )
    return run


def only(root) -> dict:
    (entry,) = list_runs(root)["runs"]
    return entry


def test_states_of_a_run(root):
    run = make(root, "demo/20260102-030405")
    assert (only(root)["state"], only(root)["stage"]) == ("empty", None)
    run.log("stage", stage="student")
    run.metric("student", 0, loss=1.0)
    run.metric("student", 1, loss=1.0)
    entry = only(root)
    assert [entry[k] for k in ("state", "stage", "epoch", "epochs")] == ["interrupted", "student", 2, 3]
    make_models(run)
    stamp(run, "student", [], ["float.keras"], seconds=95.2, finished="2126-01-02T03:04:05+0000")
    entry = only(root)
    assert [entry[k] for k in ("state", "stage", "epoch", "seconds")] == ["trained", None, None, 95.2]
    stamp(run, "qat", ["float.keras"], ["qat.keras"])
    assert only(root)["state"] == "quantized"
    row = timing("int8", 2, 3.2) | {"sha256": sha256(run.file("export/model_int8.tflite"))}
    write(run, "bench.json", {"device": {"name": "box"}, "results": [row]})
    entry = only(root)
    assert [entry[k] for k in ("state", "int8_ms", "int8_threads", "device")] == [
        "benchmarked",
        3.2,
        2,
        "box",
    ]
    run.log("stage", stage="verify")
    run.file("log.jsonl").write_text(run.file("log.jsonl").read_text().replace("20", "22", 1))
    run.log("stage", stage="qat")
    row = json.loads(run.file("log.jsonl").read_text().splitlines()[-1])
    assert row["event"] == "stage"
    assert (only(root)["state"], only(root)["stage"]) == ("interrupted", "qat")  # begun after its stamp


def test_a_stage_without_the_student_is_interrupted(root):
    run = make(root, "demo/20260102-030405")
    make_models(run)
    stamp(run, "teacher", [], ["teacher.keras"])
    assert only(root)["state"] == "interrupted"


def test_a_locked_run_is_running_and_stays_lockable(root):
    run = make(root, "demo/20260102-030405", epochs=1)
    run.log("stage", stage="student")
    with run.lock():
        entry = only(root)
        assert [entry[k] for k in ("state", "stage", "epoch", "epochs")] == ["running", "student", 1, 3]
    assert only(root)["state"] == "interrupted"
    with run.lock():
        pass


def test_the_list_is_newest_first_with_figures_of_present_files_only(root):
    old, new = trained(root, "demo/20260102-030405"), trained(root, "other/20260201-000000")
    new.file("float.keras").write_bytes(b"trained again")
    runs = list_runs(root)["runs"]
    assert [r["name"] for r in runs] == ["other/20260201-000000", "demo/20260102-030405"]
    assert runs[1]["balanced_accuracy"]["float"] == {"value": 0.812, "ci95": pytest.approx([0.782, 0.842])}
    assert runs[0]["balanced_accuracy"]["float"] is None and runs[1]["balanced_accuracy"]["int8"] is None
    assert runs[1]["bytes"] == sum(p.stat().st_size for p in old.path.rglob("*") if p.is_file())


def test_latest_is_what_commands_take(root):
    trained(root, "demo/20260102-030405")
    assert only(root)["latest"]
    make(root, "demo/20260301-000000")  # newer, but no stage of it has finished
    assert [r["latest"] for r in list_runs(root)["runs"]] == [False, True]
    elsewhere = trained(root.parent, "elsewhere/mine")
    (root / "latest").symlink_to(elsewhere.path)
    runs = list_runs(root)["runs"]
    assert [r["latest"] for r in runs] == [True, False, False] and runs[0]["path"] == str(elsewhere.path)


def test_foreign_and_torn_folders_stop_nothing(root):
    run = trained(root, "demo/20260102-030405")
    (root / "notes.txt").write_text("mine")
    (root / "photos" / "cat").mkdir(parents=True)
    (root / "demo" / ".20260102.tmp-77").mkdir()
    (root / "demo" / ".20260102.tmp-77" / "recipe.yaml").write_text(RECIPE)
    (root / "gone").symlink_to(root / "nowhere")
    for i, content in enumerate(["a: [", "", "3", "[1, 2]", "model: 3\ntrain: x", "\x00"]):
        make(root, f"torn/2026010{i}-000000").file("recipe.yaml").write_text(content)
    torn = make(root, "torn/20260109-000000")
    for name in ("eval.json", "bench.json", "verify.json", "split.json", "log.jsonl", "metrics.jsonl"):
        torn.file(name).write_text('{"event": "stage", "results": [3], "models": 3, "device": 3, "stage": [')
    torn.file("stamps").mkdir()
    for i, stamped in enumerate([3, [], {"stage": 3}, {"stage": "student", "seconds": "x", "inputs": 3}]):
        write(torn, f"stamps/{i}.json", stamped)
    torn.file(".lock").mkdir()
    folders = make(root, "torn/20260110-000000")
    for name in ("eval.json", "bench.json", "log.jsonl", "metrics.jsonl", "stamps/student.json"):
        folders.file(name).mkdir(parents=True)
    result = list_runs(root)
    assert len(result["runs"]) == 9
    assert len(show_runs(result).splitlines()) > 8
    assert next(r for r in result["runs"] if r["path"] == str(run.path))["state"] == "trained"


def test_the_table_fits_80_columns(root, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    run = trained(root, "mv3_ssld/20260102-030405")
    make_models(run)
    stamp(run, "student", [], ["float.keras"], seconds=36_000, finished="2126-01-02T03:04:05+0000")
    entries = {
        kind: scores(0.912) | {"sha256": sha256(run.file(name))}
        for kind, name in (("float", "float.keras"), ("int8", "export/model_int8.tflite"))
    }
    write(run, "eval.json", {"split": "test", "count": 100, "classes": ["a", "b"], "models": entries})
    row = timing("int8", 1, 123.4) | {"sha256": entries["int8"]["sha256"]}
    write(run, "bench.json", {"device": {"name": "box"}, "results": [row]})
    interrupted = make(root, "mv3_ssld/20260103-030405", epochs=2)
    interrupted.log("stage", stage="student")
    text = show_runs(list_runs(root))
    assert max(map(len, text.splitlines())) <= 80
    for part in ("interrupted:", "student 2/3", "91.2", "(88-94)", " 123 ", " 600 ", "latest"):
        assert part in text, part


def test_the_command(root):
    done = CliRunner().invoke(command, [])
    assert done.exit_code == 0 and "start one with: edgecls train" in done.output
    trained(root, "demo/20260102-030405")
    done = CliRunner().invoke(command, ["--json"])
    result = json.loads(done.output)
    assert result["schema"] == "edgecls.runs/1" and result["runs"][0]["state"] == "trained"
    assert Path(result["runs"][0]["path"]).is_dir()
