"""The run folder: whole files, stamps, resume, locks, and what a kill leaves behind."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys

import pytest

from edgecls.errors import EdgeclsError, MissingError, UsageError
from edgecls.files import sweep
from edgecls.recipe import load_recipe
from edgecls.run import Run, atomic, read_jsonl, sha256
from edgecls.stamps import changes, fingerprint


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = "name: demo\nmodel: {name: MobileNetV3_small_x1_0}\ndata: {source: elpv}\n"
    (tmp_path / "r.yaml").write_text(text)
    return load_recipe("r.yaml")


@pytest.fixture
def run(recipe):
    run = Run.start(recipe)
    yield run
    run.unlock()


def child(code: str, **options) -> subprocess.Popen:
    """A Python process with ``Run`` imported."""
    code = f"import sys, time\nfrom edgecls.run import Run, atomic\n{code}"
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def hidden(folder) -> list[str]:
    return [p.name for p in folder.rglob(".*") if p.name != ".lock"]


# Files


def test_atomic_writes_whole_or_nothing(tmp_path):
    path = tmp_path / "deep" / "model.keras"
    with atomic(path) as part:
        assert part.suffix == ".keras" and part.parent == path.parent
        part.write_text("one")
    with pytest.raises(RuntimeError), atomic(path) as part:
        part.write_text("half")
        raise RuntimeError
    assert path.read_text() == "one" and not hidden(tmp_path)


def test_atomic_folder_replaces_a_folder(tmp_path):
    for text in ("one", "two"):
        with atomic(tmp_path / "saved_model") as part:
            part.mkdir()
            (part / text).write_text(text)
    assert [p.name for p in (tmp_path / "saved_model").iterdir()] == ["two"]


def test_a_folder_that_cannot_be_replaced_stays(tmp_path, monkeypatch):
    old = tmp_path / "saved_model"
    old.mkdir()
    (old / "whole").write_text("old")
    replace = type(old).replace

    def refuse(self, target):
        if self.name.startswith(".saved_model.tmp-"):
            raise OSError(errno.EIO, "no")
        return replace(self, target)

    monkeypatch.setattr(type(old), "replace", refuse)
    with pytest.raises(OSError, match="no"), atomic(old) as part:
        part.mkdir()
    assert (old / "whole").read_text() == "old" and not hidden(tmp_path)


def test_a_folder_whose_replacing_was_killed_comes_back(tmp_path):
    aside = tmp_path / "export" / ".saved_model.aside-1"
    aside.mkdir(parents=True)
    (aside / "whole").write_text("old")
    (tmp_path / "export" / ".saved_model.tmp-1").mkdir()
    sweep(tmp_path)
    assert [p.name for p in (tmp_path / "export").iterdir()] == ["saved_model"]
    aside.mkdir()
    sweep(tmp_path)
    assert (tmp_path / "export/saved_model/whole").exists() and not aside.exists()


def test_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    with pytest.raises(MissingError, match="no disk space left") as error, atomic(tmp_path / "a.npz") as part:
        part.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert error.value.exit_code == 3 and not list(tmp_path.iterdir())


def test_other_os_errors_pass(tmp_path):
    with pytest.raises(PermissionError), atomic(tmp_path / "a"):
        raise PermissionError(errno.EACCES, "no")


def test_full_disk_really(tmp_path):
    if not os.access("/dev/full", os.W_OK):
        pytest.skip("no /dev/full on this system")
    (tmp_path / "log.jsonl").symlink_to("/dev/full")
    with pytest.raises(MissingError, match="no disk space left"):
        Run(tmp_path).log("event")


# Start and find


def test_start_makes_the_folder(run, recipe):
    assert run.recipe == recipe
    assert {p.name for p in run.path.iterdir()} >= {"recipe.yaml", "env.json", "log.jsonl"}
    assert json.loads(run.file("env.json").read_text())["versions"]["keras"]


def finished(run: Run) -> Run:
    run.file("a").write_text("a")
    run.stage("student", {}, ["a"]).finish()
    run.make_latest()
    return run


def test_latest_is_the_run_that_finished_a_stage(run, recipe):
    latest = run.path.parent.parent / "latest"
    assert not latest.exists()
    finished(run)
    other = Run.start(recipe.override(["seed=1"]))
    assert latest.resolve() == Run.find().path == run.path, "the newer run has nothing yet"
    finished(other)
    assert latest.resolve() == Run.find().path == other.path
    finished(Run.find(run.path))
    assert Run.find().path == other.path, "a command on an older run leaves latest alone"


def test_the_same_recipe_goes_on_another_begins_anew(run, recipe):
    assert Run.start(recipe).path == run.path
    other = Run.start(recipe.override(["seed=1"]))
    assert other.path != run.path
    assert Run.start(recipe).path == run.path, "the newest of this very recipe, though another is newer"
    fresh = Run.start(recipe, fresh=True)
    assert fresh.path not in (run.path, other.path)
    assert Run.start(recipe).path == fresh.path


def test_a_run_takes_over_how_its_network_is_quantized_and_measured(run, recipe):
    changed = recipe.override(["quantize.train.epochs=7", "bench.threads=[4]"])
    assert Run.start(changed).path == run.path
    assert run.recipe == changed


def test_runs_begun_in_the_same_second_have_folders_of_their_own(recipe, tmp_path):
    code = (
        "import os, sys, time\nfrom edgecls import run\nfrom edgecls.recipe import load_recipe\n"
        "run._now = lambda: '20260101-000000'\n"
        "recipe = load_recipe('r.yaml', [f'seed={sys.argv[1]}'])\n"
        "print('ready', flush=True)\nsys.stdin.readline()\n"
        "started = run.Run.start(recipe)\nprint(started.path, flush=True)\nsys.stdin.readline()"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(seed)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for seed in range(4)
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:  # all at once
        process.stdin.write("go\n")
        process.stdin.flush()
    paths = [process.stdout.readline().strip() for process in processes]
    seeds = [Run(path).recipe.seed for path in paths]
    for process in processes:
        process.communicate("end\n", timeout=60)
    assert len(set(paths)) == 4 and seeds == [0, 1, 2, 3]


def test_directory(recipe, tmp_path):
    folder = tmp_path / "mine"
    run = Run.start(recipe, directory=folder)
    assert run.path == folder
    assert finished(run) and Run.find().path == folder
    assert Run.start(recipe, directory=folder).path == folder
    other = recipe.override(["seed=1"])
    with pytest.raises(UsageError, match=r"different recipe .*--fresh"):
        Run.start(other, directory=folder)
    run.file("float.keras").write_text("old")
    assert not Run.start(other, directory=folder, fresh=True).file("float.keras").exists()
    assert [p.joinpath("float.keras").read_text() for p in tmp_path.glob("mine.old-*")] == ["old"]
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    with pytest.raises(UsageError, match="not a run folder"):
        Run.start(recipe, directory=tmp_path / "photos", fresh=True)
    assert (tmp_path / "photos" / "a.jpg").exists()


def test_find(recipe, tmp_path):
    with pytest.raises(MissingError, match="there is no run yet"):
        Run.find()
    first = finished(Run.start(recipe))
    second = finished(Run.start(recipe, fresh=True))
    assert Run.find(first.path).path == first.path
    assert Run.find("demo").path == Run.find("runs/demo").path == second.path
    (tmp_path / "runs" / "latest").unlink()
    assert Run.find().path == second.path
    (tmp_path / "runs" / "latest").symlink_to("gone")
    assert Run.find().path == second.path
    (tmp_path / "runs" / "demo" / "99999999-000000").mkdir()
    assert Run.find("demo").path == second.path, "a folder without a recipe is no run"
    with pytest.raises(UsageError, match=r"not a run \(nothing\); known: demo"):
        Run.find("nothing")


def test_a_run_of_another_version_is_not_continued(run, recipe):
    run.file("recipe.yaml").write_text(recipe.dump() + "new_key: 1\n")
    assert Run.start(recipe).path != run.path


# Locks and kills


def test_only_one_process_works_in_a_run(run):
    process = child(f"Run({str(run.path)!r}).lock()")
    errors = process.communicate(timeout=60)[1]
    assert f"process {os.getpid()} works in this run" in errors
    run.unlock()
    process = child(f"Run({str(run.path)!r}).lock()")
    assert process.communicate(timeout=60)[1] == "" and process.returncode == 0


def test_kill_9_frees_the_lock_and_its_torn_file_is_swept(run):
    run.unlock()
    process = child(
        f"Run({str(run.path)!r}).lock()\n"
        f"with atomic({str(run.file('checkpoints', 'float', 'last.npz'))!r}) as part:\n"
        "    part.write_text('half'); print('ready', flush=True); time.sleep(60)"
    )
    assert process.stdout.readline() == "ready\n"
    with pytest.raises(EdgeclsError, match=f"process {process.pid}"):
        run.lock()
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    assert hidden(run.path)
    with run.lock():
        assert not hidden(run.path) and not run.file("checkpoints", "float", "last.npz").exists()


def test_lock_is_released_at_the_end_of_with(run):
    run.unlock()
    with run.lock():
        pass
    assert child(f"Run({str(run.path)!r}).lock()").communicate(timeout=60)[1] == ""


# Stages


def stamped(run: Run, **inputs):
    stage = run.stage(
        "float", {"photos": run.file("in.txt"), "train": run.recipe.train, "seed": 0, **inputs}, ["a", "d"]
    )
    return stage


@pytest.fixture
def done(run):
    run.file("in.txt").write_text("photos")
    run.file("a").write_text("weights")
    run.file("d").mkdir()
    run.file("d", "b").write_text("part")
    stage = stamped(run)
    assert not stage.done and stage.why == "not run yet"
    stage.finish(top1=0.9)
    return run


def test_a_stamped_stage_is_done(done):
    stage = stamped(done)
    assert stage.done and stage.figures == {"top1": 0.9} and stage.stamp["seconds"] >= 0


def test_times_alone_do_not_matter(done):
    for name in ("a", "in.txt"):
        os.utime(done.file(name), (1, 1))
    assert stamped(done).done


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda run: run.file("in.txt").write_text("others"), "changed: photos"),
        (lambda run: run.file("a").write_text("weighty"), "altered: a"),
        (lambda run: run.file("a").write_text(""), "altered: a"),
        (lambda run: run.file("a").unlink(), "missing: a"),
        (lambda run: run.file("d", "b").write_text("trap"), "altered: d"),
        (lambda run: run.file("stamps", "float.json").write_text("{"), "not run yet"),
    ],
)
def test_a_change_undoes_it(done, change, why):
    change(done)
    assert not stamped(done).done and stamped(done).why == why


def test_other_inputs_undo_it(done):
    assert stamped(done, seed=1).why == "changed: seed 0 -> 1"
    assert stamped(done, new=[1, {"a": None}]).why == 'changed: new null -> [1, {"a": null}]'
    other = done.recipe.override(["train.optimizer.lr=0.5"])
    assert stamped(done, train=other.train).why == "changed: train.optimizer.lr 0.05 -> 0.5"


def test_changes_names_a_few_and_counts_the_rest():
    before, now = fingerprint({"a": {"b": 1, "c": {}}, "d": [1], "e": "x" * 50}), fingerprint({"a": {"b": 2}})
    assert before == {"a.b": 1, "a.c": {}, "d": [1], "e": "x" * 50}
    assert changes(before, now) == "a.b 1 -> 2, a.c {} -> null, d [1] -> null and 1 more"
    assert changes(before, before) == ""


def test_what_was_made_from_changed_files_steps_aside(done):
    done.file("qat").write_text("int8 weights")
    done.stage("qat", {"float": done.file("a")}, ["qat"]).finish()
    done.file("file").write_text("tflite")
    done.stage("export", {"model": done.file("qat")}, ["file"]).finish()
    done.stage("other", {"seed": 0}, []).finish()
    assert done.retire_stale()[0] == [] and done.current("export")
    done.file("a").write_text("others")
    assert not done.current("qat") and not done.current("float")
    moved, folder = done.retire_stale()
    assert moved == ["qat", "file"] and set(done.stamps()) == {"float", "other"}
    assert done.file(folder, "file").read_text() == "tflite" and not done.file("file").exists()


def test_promises_are_kept(run):
    with pytest.raises(EdgeclsError, match="did not write a"):
        run.stage("s", {}, ["a"]).finish()
    with pytest.raises(MissingError, match="stage s needs weights"):
        run.stage("s", {"weights": run.file("none")}, [])
    with pytest.raises(MissingError, match="the run has no float"):
        run.require("float.keras", fix="edgecls train")


# Logs


def test_metrics_of_a_resumed_stage_supersede(run):
    for stage, epoch, loss in [
        ("teacher", 0, 1),
        ("float", 0, 1),
        ("float", 1, 2),
        ("float", 2, 3),
        ("float", 1, 4),
    ]:
        run.metric(stage, epoch, loss=loss)
    rows = [(m["stage"], m["epoch"], m["loss"]) for m in run.metrics()]
    assert rows == [("teacher", 0, 1), ("float", 0, 1), ("float", 1, 4)]


def test_a_torn_line_is_left_out_and_closed(run):
    run.metric("float", 0, loss=1.0)
    with run.file("metrics.jsonl").open("a") as file:
        file.write('{"stage": "float", "ep')
    run.metric("float", 1, loss=2.0)
    assert [m["epoch"] for m in run.metrics()] == [0, 1]
    assert read_jsonl(run.file("none.jsonl")) == []


def test_sha256_of_a_file(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_many_starts_in_one_second(recipe, monkeypatch):
    monkeypatch.setattr("edgecls.run._now", lambda: "20260101-000000")
    paths = [Run.start(recipe, fresh=True).path for _ in range(12)]
    assert len(set(paths)) == 12 and Run.find("demo").path == paths[-1]
