"""Phases: which recipe each is, what they may not change, and what a run, its report and its card make of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from run_folders import make_models, stamp
from tiny_run import RECIPE as TINY
from tiny_run import edgecls, photos, succeed

from edgecls.errors import UsageError
from edgecls.recipe import Recipe, load_recipe
from edgecls.report.card import card
from edgecls.report.facts import Facts
from edgecls.report.runs import list_runs
from edgecls.run import Run

TWO = """\
name: demo
seed: 3
model: {name: MobileNetV1_x0_25, weights: null}
teacher: {name: EfficientNetLite0, weights: imagenet}
distill: {loss: js}
data: {path: photos}
train: {epochs: 3, batch_size: 8, optimizer: {lr: 0.2, momentum: 0.5}}
quantize: {train: {epochs: 9}}
phases:
- name: large
  data: {extra: [{path: more, labels: false}]}
- name: fix
  model: {input_size: 320, resize_short: 320}
  train: {epochs: 1, optimizer: {name: adam}}
  distill: null
"""
ONE = TWO.partition("phases:")[0]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()

    def write(text: str) -> Path:
        path = Path("folder/r.yaml")
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_a_phase_is_the_whole_recipe_with_its_changes(write: Any) -> None:
    recipe = load_recipe(write(TWO))
    large, fix = recipe.parts
    assert (large.stage, large.before, large.network) == ("student.large", None, "phases/large.keras")
    assert (fix.stage, fix.before, fix.network) == ("student.fix", "phases/large.keras", "float.keras")
    assert not large.is_last and fix.is_last
    more = str(Path("folder/more").absolute())
    by_hand = load_recipe(write(ONE), [f"data.extra=[{{path: {more}, labels: false}}]"])
    only_later = {"seed", "quantize", "export", "bench"}
    assert large.recipe.model_dump(exclude=only_later) == by_hand.model_dump(exclude=only_later)
    assert large.recipe.quantize.train.epochs == 3 and fix.recipe.quantize.train.epochs == 9
    adam = ONE.replace("optimizer: {lr: 0.2, momentum: 0.5}", "optimizer: {name: adam}")
    changes = ("model.input_size=320", "model.resize_short=320", "train.epochs=1")
    by_hand = load_recipe(write(adam), [*changes, "distill=null", "teacher=null"])
    assert fix.recipe.model_dump(exclude={"seed"}) == by_hand.model_dump(exclude={"seed"})
    assert recipe.final == fix.recipe
    assert len({large.recipe.seed, fix.recipe.seed, recipe.seed}) == 3


def test_a_key_of_one_phase_is_overridden_by_the_name_of_the_phase(write: Any) -> None:
    path = write(TWO)
    changes = ["phases.fix.train.epochs=7", "phases.fix.train.optimizer.lr=0.5", "phases.fix.distill={}"]
    changes += ["phases.large.data.max_images=9", "phases.fix.train.optimizer={name: adamw}"]
    large, fix = load_recipe(path, changes).parts
    assert (large.recipe.train.epochs, fix.recipe.train.epochs) == (3, 7)
    assert fix.recipe.distill is not None and large.recipe.data.max_images == 9 and large.recipe.data.extra
    assert fix.recipe.train.optimizer.name == "adamw" and fix.recipe.train.optimizer.lr != 0.5
    assert load_recipe(path, changes[:2]).parts[1].recipe.train.optimizer.lr == 0.5
    assert load_recipe(path, ["phases.fix.name=last"]).phases[1].name == "last"


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("phases.fxi.train.epochs=7", "phases has no 'fxi' (-o {}); it has large, fix"),
        ("phases.0.train.epochs=7", "phases has no '0' (-o {}); it has large, fix"),
        ("phases.fix=7", "phases.fix is a section (-o {}); name a key in it"),
        ("phases.fix.train.epohcs=7", "unknown key 'phases[1].train.epohcs' (-o {})"),
        ("phases.fix.teacher=null", "unknown key 'phases[1].teacher' (-o {})"),
        ("phases.fix.model.name=VGG11", "phases[1]: a phase cannot change model.name (-o {})"),
        (
            "phases.fix.train.epochs=many",
            'phases[1].train.epochs: expected a whole number, got text "many" (-o {})',
        ),
    ],
)
def test_a_wrong_override_of_a_phase_names_it(write: Any, override: str, line: str) -> None:
    path = write(TWO)
    with pytest.raises(UsageError) as error:
        load_recipe(path, [override])
    assert str(error.value).startswith(line.format(override))


def test_what_is_drawn_depends_on_the_name_and_not_on_the_place(write: Any) -> None:
    both = load_recipe(write(TWO))
    alone = load_recipe(write(TWO), ["phases=[{name: fix, distill: {loss: js}}]"])
    assert alone.parts[0].recipe.seed == both.parts[1].recipe.seed


def test_without_phases_a_recipe_is_its_only_part(write: Any) -> None:
    recipe = load_recipe(write(ONE))
    (part,) = recipe.parts
    assert part.recipe is recipe and recipe.final is recipe
    assert (part.stage, part.section, part.before, part.network) == ("student", "train", None, "float.keras")


def test_a_resolved_recipe_is_read_back_and_can_be_changed(write: Any) -> None:
    recipe = load_recipe(write(TWO))
    again = load_recipe(write(recipe.dump()))
    assert again == recipe and again.parts == recipe.parts
    changed = recipe.override(["train.optimizer.lr=0.7"])
    assert [p.recipe.train.optimizer.lr for p in changed.parts] == [0.7, 0.001]
    assert changed.training_hash() != recipe.training_hash()
    assert recipe.override(["quantize.train.epochs=2"]).training_hash() == recipe.training_hash()


def test_a_phase_can_begin_to_distill_where_the_others_do_not(write: Any) -> None:
    text = TWO.replace("distill: {loss: js}\n", "").replace("distill: null", "distill: {}")
    large, fix = load_recipe(write(text)).parts
    assert large.recipe.distill is None and large.recipe.teacher is None
    assert fix.recipe.distill is not None and fix.recipe.distill.loss.name == "js"


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("train: {epochs: 1", "train: {lr: 1", 14, "unknown key 'phases[1].train.lr'"),
        ("train: {epochs: 1", "train: {epochs: none", 14, "phases[1].train.epochs: expected a whole number"),
        ("resize_short: 320", "name: ResNet50", 13, "phases[1]: a phase cannot change model.name"),
        ("data: {extra", "data: {classes: 5, extra", 11, "phases[0]: a phase cannot change data.classes"),
        ("data: {extra", "data: {test_fraction: 0.5, extra", 11, "cannot change data.test_fraction"),
        ("name: fix", "name: large", 9, "two phases have one name"),
        ("name: fix", "name: a/b", 12, "phases[1].name: expected"),
        ("name: fix", "teacher: {}\n  name: fix", 12, "unknown key 'phases[1].teacher'"),
        ("- name: large", "- name: large\n  distill: null", 5, "no phase distills"),
        ("path: more", "paht: more", 11, "unknown key 'phases[0].data.extra[0].paht'"),
        (
            "teacher: {name: EfficientNetLite0, weights: imagenet}\n",
            "",
            4,
            "phases[0]: distill needs a teacher",
        ),
    ],
)
def test_what_a_phase_may_not_do_is_named_with_its_line(
    write: Any, old: str, new: str, line: int, says: str
) -> None:
    assert old in TWO
    with pytest.raises(UsageError) as error:
        load_recipe(write(TWO.replace(old, new)))
    assert says in str(error.value) and f"folder/r.yaml:{line})" in str(error.value), error.value


def report_run(tmp_path: Path) -> Run:
    run = Run(tmp_path / "runs/demo/20260102-030405")
    run.path.mkdir(parents=True)
    run.file("recipe.yaml").write_text(TWO, encoding="utf-8")
    make_models(run)
    return run


def test_runs_report_and_card_follow_from_the_list(tmp_path: Path) -> None:
    run = report_run(tmp_path)
    run.log("stage", stage="student.large")
    for epoch in range(2):
        run.metric("student.large", epoch, loss=1.0)
    keys = ("state", "stage", "epoch", "epochs")

    def entry() -> tuple[Any, ...]:
        return tuple(list_runs(tmp_path / "runs")["runs"][0][key] for key in keys)

    assert entry() == ("interrupted", "student.large", 2, 3)
    later = {"finished": "2126-01-02T03:04:05+0000"}
    stamp(run, "student.large", [], ["teacher.keras"], inputs={"preprocess.size": 224}, **later)
    assert entry() == ("interrupted", None, None, None)
    text = card(run)
    assert (
        "Student, phase large: MobileNetV1\\_x0\\_25, starting from random values, 224 pixels; 3 epochs"
        in text
    )
    assert "Student, phase fix: not done yet" in text
    assert "Distillation of the student, phase large: js loss" in text
    run.metric("student.fix", 0, loss=1.0)
    images = {"images.train.sha256": "a", "images.val.sha256": "b", "preprocess.size": 320}
    stamp(run, "student.fix", [], ["float.keras"], inputs=images, **later)
    assert entry()[0] == "trained"
    assert "starting from the student, phase large, 320 pixels; 1 epoch, batch 8, adam at" in card(run)
    splits = {name: {"sha256": digest} for name, digest in (("train", "a"), ("val", "b"))}
    run.file("split.json").write_text(json.dumps({"splits": splits}))
    assert Facts(run).trained_without_test_images() is True


PHASES = """
phases:
- name: small
- name: large
  model: {input_size: 48, resize_short: 48}
  train: {epochs: 1}
"""


def stages(folder: Path) -> dict[str, dict[str, Any]]:
    return Run.find(None, folder / "runs").stamps()


@pytest.mark.slow
def test_each_phase_starts_from_the_one_before_and_is_not_done_again(
    tmp_path: Path,
) -> None:
    photos(tmp_path / "photos")
    (tmp_path / "recipe.yaml").write_text(TINY + PHASES)
    succeed(tmp_path, "train", "recipe.yaml")
    run = Run.find(None, tmp_path / "runs")
    first = run.stamps()
    assert list(first)[:2] == ["student.small", "student.large"]
    assert set(first["student.large"]["reads"]) == {"phases/small.keras"}
    assert json.loads(run.file("preprocess.json").read_text())["size"] == 48
    assert [(row["stage"], row["epoch"]) for row in run.metrics()] == [
        ("student.small", 0),
        ("student.small", 1),
        ("student.large", 0),
    ]
    text = succeed(tmp_path, "train", "recipe.yaml")
    assert text.count("done before, kept") == 2

    other = (TINY + PHASES).replace("train: {epochs: 1}", "train: {epochs: 1, optimizer: {lr: 0.02}}")
    (tmp_path / "recipe.yaml").write_text(other)
    text = succeed(tmp_path, "train", "recipe.yaml")
    assert f"student.small: taken from {run.path}" in text
    changed = Run.find(None, tmp_path / "runs")
    assert changed.path != run.path and run.stamps() == first, "the former run stays as it was"
    assert changed.stamps()["student.small"]["outputs"] == first["student.small"]["outputs"]
    assert [row["stage"] for row in changed.metrics()] == ["student.small", "student.small", "student.large"]


@pytest.mark.slow
def test_phases_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    photos(tmp_path / "photos")
    photos(tmp_path / "three", classes=("blue", "green", "red"))
    (tmp_path / "recipe.yaml").write_text(TINY)
    for phases, says in {
        "[{name: a}, {name: b, data: {val_fraction: 0.5}}]": "that student.b is validated or tested on",
        "[{name: a, data: {path: three}}, {name: b}]": "student.a has 3 classes and student.b 2",
        "[{name: a}, {name: b, train: {batch_size: 500}}]": "(phases[1].train.batch_size)",
        "[{name: a}, {name: b, model: {input_size: 64}}]": "of 64 pixels (phases[1].model); set it to 64",
    }.items():
        done = edgecls(tmp_path, "train", "recipe.yaml", "-o", f"phases={phases}")
        assert done.returncode == 2 and says in done.stderr, done.stderr
    assert not (tmp_path / "runs").exists()
    sized = "[{name: a}, {name: b, model: {input_size: 64, resize_short: 64}}]"
    done = edgecls(
        tmp_path, "train", "recipe.yaml", "-o", "model.name=AlexNet", "-o", f"phases={sized}",
        "-o", "model.input_size=224", "-o", "model.resize_short=224",
    )  # fmt: skip
    assert done.returncode == 2 and "the weights of AlexNet are of one input size" in done.stderr, done.stderr


def test_the_recipe_of_a_run_from_before_there_were_phases_is_of_the_same_training(write: Any) -> None:
    recipe = load_recipe(write(ONE))
    text = "\n".join(line for line in recipe.dump().splitlines() if not line.startswith("phases:"))
    assert load_recipe(write(text)).training_hash() == recipe.training_hash()
    assert isinstance(recipe, Recipe)
