"""The report page, the model card and the comparison, from run folders of JSON files."""

import base64
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pages import Page, read
from run_folders import (
    RECIPE,
    finished_run,
    scores,
    stamp,
    stamp_reports,
    timing,
    trained_run,
    write,
)

from edgecls.data.resizing import describe_interpolation
from edgecls.files import sha256
from edgecls.report import compare, plots, sections, write_card, write_report
from edgecls.report.facts import Facts
from edgecls.report.figures import headline
from edgecls.report.units import duration, mebibytes, megabytes, milliseconds, percent, points
from edgecls.run import Run

EVIL = "<script>alert('x')</script>|*`\n\"&amp;"
DRAWN: dict[str, list] = {}


@pytest.fixture(autouse=True)
def curves_are_drawn_once(monkeypatch):
    """Most runs of these tests have the same training curves; drawing them takes longer than all the rest."""

    def remembered(metrics):
        key = json.dumps([row | {"time": ""} for row in metrics])
        if key not in DRAWN:
            DRAWN[key] = draw(metrics)
        return DRAWN[key]

    draw = plots.curves
    monkeypatch.setattr(plots, "curves", remembered)


@pytest.fixture
def trained(tmp_path) -> Run:
    return trained_run(tmp_path / "demo" / "20260102-030405")


@pytest.fixture
def finished(trained) -> Run:
    return finished_run(trained)


def test_headline_figures_come_from_the_files(finished):
    text = read(write_report(finished)).text
    for figure in ("85.0 %", "81.2 %", "80.8 %", "77.8–83.8 % (95 %)", "−0.4 points", "0.28", "0.40"):
        assert figure in text
    assert "1.68 MB of 6.00 MB" in text and "3.20 ms of 8.00 ms" in text


def test_every_part_is_there(finished):
    page = read(write_report(finished))
    for said in (
        "taught by EfficientNetLite0, on 400 images of elpv. 1 of 2 parity checks failed",
        "✗ fails",
        "✓ holds",
        "3 steps",
        "22 delegate partitions",
        "float operators left: LOGISTIC",
        "rounds differ by 12 %",
        "worker was killed",
        "bench-box, Test CPU, 2 cores",
        "cracked ✗",
        "1 min 35 s",
        "versions.keras",
        "1 unreadable file left out",
        "hard_weight",
    ):
        assert said in page.text, said
    assert (
        sum(tag == "svg" for tag, _ in page.tags) == 3 * 3 + 3
    )  # three stages of three plots; latency, accuracy against it, sizes
    assert sum(tag == "img" for tag, _ in page.tags) == 1
    assert "Make it with" not in page.text
    assert "somebody" not in page.text


def test_a_trained_run_names_the_commands_that_are_left(trained):
    text = read(write_report(trained)).text
    train = f"edgecls train {trained.path}/recipe.yaml --run {trained.path}"
    for command in (train, f"edgecls quantize {trained.path}"):  # edgecls eval writes no eval.json
        assert command in text
    assert train in write_card(trained).read_text()
    for name in ("qat.keras", "export/model_int8.tflite", "answers.npz"):
        trained.file(name).touch()
    text = read(write_report(trained)).text
    for command in ("edgecls quantize", "edgecls verify", "edgecls bench", "edgecls report"):
        assert f"{command} {trained.path}" in text
    trained.file("answers.npz").unlink()  # only scoring makes it, and the report needs it
    assert f"edgecls report {trained.path}" not in read(write_report(trained)).text


def test_without_test_images_no_command_can_make_scores(trained):
    write(trained, "split.json", {"splits": {"test": {"count": 0, "per_class": [0, 0]}}})
    page = read(write_report(trained)).text
    assert "No evaluation yet. The split has no test images." in page and "edgecls eval" not in page
    assert "Not evaluated: The split has no test images." in write_card(trained).read_text()


def test_an_empty_run_and_broken_files_still_give_a_page(tmp_path):
    run = Run(tmp_path)
    read(write_report(run))
    write_card(run)
    for name in ("eval.json", "verify.json", "bench.json", "split.json", "predictions.json", "env.json"):
        run.file(name).write_text('{"torn": ')
    run.file("recipe.yaml").write_text("a: [")
    assert "eval.json cannot be read" in read(write_report(run)).text
    write_card(run)
    for name in ("eval.json", "verify.json", "bench.json", "predictions.json", "split.json"):
        keys = ("models", "classes", "files", "rungs", "results", "device", "photos", "splits", "count")
        for junk in (None, 3, "x", [1, None], {"a": 1}, {"a": [None]}):
            write(run, name, dict.fromkeys(keys, junk))
            stamp(run, {"verify.json": "verify"}.get(name, "photos"), [], [name])
            read(write_report(run))
            write_card(run)


def test_hostile_names_are_text(finished):
    for name in ("eval.json", "split.json", "verify.json", "bench.json", "predictions.json", "env.json"):
        text = finished.file(name).read_text()
        for harmless in (
            "cracked",
            "float.keras",
            "model_int8.tflite",
            "CONV_2D",
            "Test CPU",
            "a.jpg",
            "rounds",
            "keras",
        ):
            text = text.replace(harmless, json.dumps(harmless + EVIL)[1:-1])
        finished.file(name).write_text(text)
    stamp_reports(finished)
    finished.metric(EVIL, 0, **{"loss": 1.0, f"loss{EVIL}": 2.0})
    finished.file("recipe.yaml").write_text(RECIPE.replace("name: demo", f"name: {json.dumps(EVIL)}"))
    assert "alert('x')" in read(write_report(finished)).text
    Page(compare([finished]))
    card = write_card(finished).read_text()
    assert "<script" not in card
    for row in re.findall(r"^\|.*\|$", card, re.M):  # a name cannot add a cell
        assert len(re.findall(r"(?<!\\)\|", row)) in (5, 7)


def test_names_that_no_terminal_should_obey(finished):
    name = "caf\udce9\x1b[31m\u202e"
    for file in ("eval.json", "split.json", "predictions.json"):
        finished.file(file).write_text(
            finished.file(file).read_text().replace("cracked", json.dumps(name)[1:-1])
        )
    stamp_reports(finished)
    read(write_report(finished))
    card = write_card(finished).read_text(encoding="utf-8")
    assert "\x1b" not in card and "\u202e" not in card and r"caf\\udce9\\x1b" in card


def test_only_jpegs_become_images(tmp_path):
    run = Run(tmp_path)
    for data in ("javascript:alert(1)", base64.b64encode(b"<svg onload=alert(1)>").decode(), None, '"><b>'):
        write(run, "predictions.json", {"photos": [{"file": "a", "label": "b", "jpeg_base64": data}]})
        stamp(run, "photos", [], ["predictions.json"])
        assert not [tag for tag, _ in read(write_report(run)).tags if tag == "img"]


def test_a_photo_without_a_label_is_not_judged(tmp_path):
    run = Run(tmp_path)
    write(run, "predictions.json", {"photos": [{"file": "a.jpg", "label": None, "int8": {"class": "good"}}]})
    stamp(run, "photos", [], ["predictions.json"])
    text = read(write_report(run)).text
    assert "good" in text and "None" not in text and "✗" not in text


def test_a_class_without_test_images_is_not_in_the_mean(finished):
    assert "is the mean recall of the classes." in read(write_report(finished)).text
    document = json.loads(finished.file("eval.json").read_text())
    for model in document["models"].values():
        model["per_class"].append({"class": "torn", "count": 0, "recall": None, "precision": None})
    write(finished, "eval.json", document | {"classes": ["good", "cracked", "torn"]})
    assert "of the classes that have test images; 1 class has none." in read(write_report(finished)).text


def test_many_classes_list_the_confusions(finished):
    classes = [f"c{i}" for i in range(30)]
    entry = scores(0.7) | {"confusion": None, "confused": [[i, 0, i + 1] for i in range(29, 0, -1)]}
    entry["confused"] += [[30, 0, 1], [0, -1, 1], [1, 2], "ab", None]  # no classes: a file that was edited
    entry["per_class"] = [
        {"class": c, "count": 9, "recall": i / 30, "precision": None} for i, c in enumerate(classes)
    ]
    entry["sha256"] = sha256(finished.file("export/model_int8.tflite"))
    write(finished, "eval.json", {"count": 270, "classes": classes, "models": {"int8": entry}})
    text = read(write_report(finished)).text
    assert "c29 c0 30 c28 c0 29" in text
    assert "the 20 with the lowest recall" in text and "top-5" in text


def test_same_files_same_page(finished):
    first = write_report(finished).read_bytes()
    assert write_report(finished).read_bytes() == first
    assert len(first) < 300_000


def test_a_failed_write_leaves_the_old_page(finished, monkeypatch):
    path = write_report(finished)
    before = path.read_bytes()
    monkeypatch.setattr(Path, "write_text", lambda *a, **k: (_ for _ in ()).throw(RuntimeError("no")))
    with pytest.raises(RuntimeError):
        write_report(finished)
    assert path.read_bytes() == before
    assert sorted(p.name for p in finished.path.glob("*.html")) == ["report.html"]


def test_card_says_what_a_reader_must_know(finished):
    card = write_card(finished).read_text()
    for said in (
        "CC BY-NC-SA 4.0",
        "train: 270 images (good 260, cracked 10)",
        "Weakest class: cracked, recall 56.0 %",
        "−0.4 points",
        "| 1.68 MB | 22 | 1 |",
        "EfficientNetLite0, starting from imagenet; 3 epochs",
        "js loss",
        "edgecls predict",
        "bench-box",
    ):
        assert said in card, said


def change(run: Run, name: str, edit) -> None:
    """Write a JSON file of the run again after ``edit(document)``."""
    document = json.loads(run.file(name).read_text())
    edit(document)
    write(run, name, document)


def test_figures_of_a_file_that_has_changed_are_left_out(finished):
    finished.file("export/model_int8.tflite").write_bytes(b"exported again")
    page = read(write_report(finished)).text
    assert "int8 TFLite was scored on another export/model_int8.tflite" in page
    assert "3 rows of another model_int8.tflite" in page and "8.00 ms" in page and "3.20 ms" not in page
    figures = {f.label: f.text for f in headline(Facts(finished))}
    assert figures["Balanced accuracy, int8 TFLite"] == figures["int8 minus float"] == "–"
    assert figures["Balanced accuracy, float student"] == "81.2 %"
    assert "another model\\_int8.tflite" in write_card(finished).read_text()


def test_scores_on_other_test_images_are_left_out(finished):
    change(finished, "split.json", lambda split: split["splits"]["test"].update(sha256="of others"))
    page = read(write_report(finished)).text
    assert "float student was scored on other test images" in page and "81.2 %" not in page


def test_bench_rows_without_a_digest_are_left_out(finished):
    change(finished, "bench.json", lambda bench: [row.pop("sha256") for row in bench["results"]])
    page = read(write_report(finished)).text
    assert "Not benchmarked yet" in page and "2 rows of another model_fp32.tflite" in page


def test_parity_and_photographs_of_former_files_are_not_shown(finished):
    finished.file("float.keras").write_bytes(b"trained again")
    page = read(write_report(finished))
    for name in ("verify.json", "predictions.json"):
        assert f"{name} is of files that have changed since" in page.text
    assert "✓ holds" not in page.text and not [tag for tag, _ in page.tags if tag == "img"]
    assert "✓ holds" not in write_card(finished).read_text()


def test_the_card_says_what_is_known_of_the_test_images(finished):
    assert "read only the images of train and val" in write_card(finished).read_text()
    change(finished, "split.json", lambda split: split["splits"]["train"].update(sha256="relabelled"))
    assert "test images may have been among its training images" in write_card(finished).read_text()
    assert "may have been among" in read(write_report(finished)).text
    stamp(finished, "student", [], ["float.keras"])
    assert "is not known: the student's stamp does not say" in write_card(finished).read_text()
    text = RECIPE.replace("source: elpv", "source: folder, path: a, test_path: b")
    finished.file("recipe.yaml").write_text(text)
    images = {"images.train.sha256": "relabelled", "images.val.sha256": "of val"}
    stamp(finished, "student", [], ["float.keras"], inputs=images)
    assert "test images come from a folder of their own" in write_card(finished).read_text()


def test_the_card_tells_what_was_done_not_what_the_recipe_says_now(trained, finished):
    recipe = RECIPE + "quantize: {train: {epochs: 9, batch_size: 8}}\n"
    finished.file("recipe.yaml").write_text(recipe)
    card = write_card(finished).read_text()
    assert (
        "Quantization-aware training: MobileNetV3\\_small\\_x1\\_0, starting from the float student; 4 epochs"
        in card
    )
    assert "3 epochs, batch 8, sgd at 0.1, cosine schedule, weights of epoch 2" in card
    finished.file("stamps/qat.json").unlink()
    assert "Quantization-aware training: not done yet" in write_card(finished).read_text()


def test_stages_stand_in_the_order_in_which_they_finished(finished):
    stamp(finished, "stage_of_the_future", finished="2026-01-02T03:15:00+0000")
    write(finished, "stamps/torn.json", {"stage": "torn", "seconds": 1, "finished": None})
    names = list(Facts(finished).stamps)
    assert names == ["teacher", "stage_of_the_future", "student", "qat", "verify", "photos", "torn"]


def test_warnings_are_shown(finished):
    text = "predicts 1 of 2 classes; lower quantize.train.optimizer.lr"
    change(finished, "eval.json", lambda e: e["models"]["int8"].update(warnings=[text]))
    change(finished, "verify.json", lambda v: v.update(warnings=["one op is outside of the delegate"]))
    stamp_reports(finished)
    page = read(write_report(finished)).text
    assert f"Warning: int8 TFLite: {text}" in page and "Warning: one op is outside" in page
    assert "Warning: int8 TFLite: predicts 1 of 2 classes" in write_card(finished).read_text()
    assert {f.label: f.tone for f in headline(Facts(finished))}["Balanced accuracy, int8 TFLite"] == "bad"


@pytest.mark.parametrize(
    ("int8", "tone", "detail"),
    [
        ({"median_ms": 3.2, "ci95_ms": [3.0, 3.4]}, "good", ""),
        ({"median_ms": 12.0, "ci95_ms": [11.0, 13.0]}, "bad", ""),
        ({"median_ms": 3.2, "ci95_ms": [3.0, 3.4], "status": "unsure"}, "", "unsure"),
        ({"median_ms": 7.5, "ci95_ms": [7.0, 8.1]}, "", "the intervals overlap"),
        ({"median_ms": 3.2, "ci95_ms": None}, "", "no interval"),
    ],
)
def test_a_ratio_is_judged_only_where_the_intervals_leave_no_doubt(finished, int8, tone, detail):
    def edit(bench):
        bench["results"][2].update({"p90_ms": None, "min_ms": None} | int8)

    change(finished, "bench.json", edit)
    figure = next(f for f in headline(Facts(finished)) if f.label.startswith("Latency"))
    assert (figure.tone, figure.label) == (tone, "Latency, int8 / fp32, 1 thread")
    assert detail in figure.detail


def test_a_small_loss_of_accuracy_is_no_judgement(finished):
    figure = next(f for f in headline(Facts(finished)) if f.label == "int8 minus float")
    assert (figure.tone, figure.detail) == ("", "95 %: −4.6 points to +3.8 points, same images")
    change(finished, "eval.json", lambda e: e["models"]["int8"].update(scores(0.5)))
    assert next(f for f in headline(Facts(finished)) if f.label == "int8 minus float").tone == "bad"


def test_images_that_int8_changed_are_shown(finished):
    def edit(predictions):
        photo = predictions["photos"][0]
        predictions.update(changed=[photo | {"file": "b.jpg"}] * 12, changed_count=15)

    change(finished, "predictions.json", edit)
    stamp_reports(finished)
    page = read(write_report(finished))
    assert "15 images of 100; 12 are shown." in page.text
    assert sum(tag == "img" for tag, _ in page.tags) == 13
    wrong = [{"file": "c.jpg", "label": "cracked"}]
    change(finished, "predictions.json", lambda p: p.update(mistakes=wrong, mistakes_count=4))
    stamp_reports(finished)
    assert "4 images of 100; 1 are shown." in read(write_report(finished)).text
    change(finished, "predictions.json", lambda p: p.update(changed=[], changed_count=0))
    stamp_reports(finished)
    assert "None of 100 images." in read(write_report(finished)).text


def test_the_axis_of_accuracy_holds_intervals_and_shows_no_noise():
    points = [plots.Point("a", 1.0, 76.5), plots.Point("b", 2.0, 76.6)]
    low, high = plots._score_range(points)
    assert high - low == pytest.approx(10) and low < 76.5 < 76.6 < high
    points[0] = plots.Point("a", 1.0, 76.5, y_interval=(60.0, 88.0))
    low, high = plots._score_range(points)
    assert low < 60 and high > 88


def test_a_scatter_of_one_network_names_its_points_and_has_no_legend():
    groups = {kind: [plots.Point("model", x, 80.0)] for kind, x in (("fp32", 8.0), ("int8", 3.0))}
    drawn = plots.scatter(groups, "accuracy, %", "ms")
    assert drawn.count(">fp32<") == drawn.count(">int8<") == 1 and ">model<" not in drawn
    groups = {kind: [plots.Point(name, 8.0, 80.0) for name in ("one", "two")] for kind in ("fp32", "int8")}
    drawn = plots.scatter(groups, "accuracy, %", "ms")
    assert drawn.count(">one<") == 1  # named once for both precisions
    legend = drawn.index(">fp32<")
    assert legend > drawn.index(">ms<")  # outside, below the axis, not among the points


def test_validation_loss_is_a_curve():
    rows = [{"stage": "student", "epoch": i, "loss": 1.0, "val_loss": 2.0 - i / 9} for i in range(3)]
    (stage,) = plots.curves(rows)
    assert len(stage["plots"]) == 1 and ">validation<" in stage["plots"][0]


def test_losses_of_very_different_size_are_all_seen():
    rows = [{"stage": "student", "epoch": i, "loss": 1.0, "val_loss": 1e5 / (i + 1)} for i in range(3)]
    (stage,) = plots.curves(rows)
    assert ">1000<" in stage["plots"][0] and "10^" not in stage["plots"][0]
    wide, narrow = (plots._spans_wide([plots.Line("a", [1, 2], [1.0, top])]) for top in (1e5, 2.0))
    assert wide and not narrow and not plots._spans_wide([plots.Line("a", [1, 2], [0.0, 9e9])])


def test_the_card_says_how_photos_are_prepared(finished):
    assert "Not known yet: `edgecls train" in write_card(finished).read_text()
    settings = {"size": 224, "resize_short": 256, "interpolation": "bilinear"}
    write(finished, "preprocess.json", settings)
    card = write_card(finished).read_text()
    assert f"2. Resize to a short side of 256 pixels: {describe_interpolation(settings)}" in card
    assert "no anti-aliasing; OpenCV INTER_LINEAR" in card and "3. Cut 224 x 224 pixels" in card
    assert "uint8 RGB `[1, 224, 224, 3]` and gives" in card and "samples" not in card
    finished.file("export/samples").mkdir()
    assert "`export/samples/` has photographs with the pixels" in write_card(finished).read_text()
    for junk in (
        {"size": 3, "resize_short": 4},
        {"size": "x"},
        {"size": 3, "resize_short": 4, "interpolation": []},
    ):
        write(finished, "preprocess.json", junk)
        write_card(finished)
    write(finished, "preprocess.json", settings | {"antialias": True})
    assert "half-pixel centers, anti-aliasing; PIL resize(BILINEAR)" in write_card(finished).read_text()


def test_names_break_between_words_only(finished):
    change(finished, "eval.json", lambda e: e.update(classes=["good", "crack_closed-hairline"]))
    page = write_report(finished).read_text()
    assert "crack_<wbr>closed-<wbr>hairline" in page
    assert "&#39;<wbr>" not in page and "td.name { overflow-wrap" not in page


def test_wide_tables_scroll_in_their_own_box(finished):
    page = write_report(finished).read_text()
    boxes = re.findall(r'<div class="[^"]*scroll[^"]*" role="region" aria-label="[^"]+" tabindex="0">', page)
    wide = [t for t in re.findall(r"<table.*?</table>", page, re.S) if t.split("</tr>")[0].count("<th") > 3]
    assert len(boxes) >= len(wide) >= 5


def test_what_a_run_may_lack_never_stops_the_page(finished):
    change(finished, "eval.json", lambda e: e["models"].pop("fp32"))
    change(finished, "verify.json", lambda v: [v["files"].pop("model_fp32.tflite"), v.pop("size_ratio")])
    change(finished, "bench.json", lambda b: b.update(results=b["results"][2:]))
    stamp_reports(finished)
    figures = {f.label: f.detail for f in headline(Facts(finished))}
    assert figures["Size, int8 / fp32"] == "only one of the files is there"
    assert figures["Latency, int8 / fp32"] == "only one of the files was measured"
    read(write_report(finished))
    write(finished, "eval.json", {"split": "test", "count": 0, "classes": ["a", "b"], "models": {}})
    read(write_report(finished))
    write_card(finished)


def test_more_classes_than_a_matrix_can_have(finished):
    classes = [f"c{i}" for i in range(2100)]
    entry = scores(0.7) | {"confusion": None, "sha256": sha256(finished.file("float.keras"))}
    entry["per_class"] = [{"class": c, "count": 2, "recall": 0.5, "precision": None} for c in classes]
    write(finished, "eval.json", {"count": 4200, "classes": classes, "models": {"float": entry}})
    assert "4200 images of 2100 classes" in read(write_report(finished)).text
    write_card(finished)


def test_top5_is_left_out_where_it_says_nothing(finished):
    page, card = read(write_report(finished)).text, write_card(finished).read_text()
    for text in (page, card):
        assert "Top-5 is left out: with five classes or fewer" in text and "| top-5" not in text


def test_plots_leave_gaps_for_figures_that_are_not_finite():
    (stage,) = plots.curves(
        [{"stage": "student", "epoch": i, "loss": v} for i, v in enumerate([1, float("nan"), 0.5])]
    )
    assert stage["epochs"] == 3 and len(stage["plots"]) == 1
    assert plots.curves([{"stage": "student", "epoch": 0, "loss": None}])[0]["plots"] == []
    assert plots.latency([timing("int8", 1, 3.0, status="failed")]) == ""


def test_units():
    assert (percent(0.5), percent(None), percent(float("nan"))) == ("50.0 %", "–", "–")
    assert (points(-0.04), points(-1.26), points(2)) == ("0.0 points", "−1.3 points", "+2.0 points")
    assert (milliseconds(0.0969), milliseconds(1.234)) == ("0.097 ms", "1.23 ms")
    assert (milliseconds(12.34), milliseconds(123.4)) == ("12.3 ms", "123 ms")
    assert (mebibytes(40), mebibytes(None)) == ("40.0 MiB", "–")
    assert (megabytes(1_680_000), megabytes(900)) == ("1.68 MB", "0.9 kB")
    assert (duration(9.81), duration(95.2), duration(3725)) == ("9.8 s", "1 min 35 s", "1 h 02 min")


def test_counts_agree_with_their_nouns():
    protocol = sections.protocol_text({"warmup": 1, "runs": 30, "rounds": 1})
    assert protocol == "Each figure: 1 warm-up run, 30 measured runs a round, 1 round."
    assert sections.protocol_text({"rounds": [3]}) == ""
    assert sections.device_text({"name": "box", "cores": 1}) == "box, 1 core"
    assert sections.bench_row(timing("int8", 1, 3.0))["threads_text"] == "1 thread"


def test_no_tensorflow(finished):
    code = (
        "import sys; from edgecls.report import write_report, write_card, compare; from edgecls.run import Run;"
        f"run = Run({str(finished.path)!r}); write_report(run); write_card(run); compare([run]);"
        "print([m for m in ('tensorflow', 'keras', 'pyplot', 'matplotlib.pyplot') if m in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "[]\n"
    )
