"""Export and the parity ladder of a run: what the recipe asks for, what the run has, nothing stale."""

from __future__ import annotations

import io
import json
import re
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from PIL import Image
from quantization import BLOCKS, EQUAL, SIZE, network
from quantization import photos as blobs

from edgecls import quantize, workflow
from edgecls.console import Console
from edgecls.data.preprocess import Preprocess
from edgecls.errors import MissingError
from edgecls.export import npm, web
from edgecls.files import read_json, write_json
from edgecls.labels import write_labels
from edgecls.recipe import load_recipe
from edgecls.run import Run
from edgecls.workflow.deploying import exported

CLASSES = ["blue", "red"]
IMAGES = blobs(SIZE, 12)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twelve photos of two classes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGECLS_CACHE", str(tmp_path / "cache"))
    for i, pixels in enumerate(IMAGES):
        path = tmp_path / "photos" / CLASSES[i % 2] / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return tmp_path


def make_run(folder: Path, precisions: str = "[fp32, int8]", qat: bool = True, seed: int = 0) -> Run:
    """A run as training leaves it, without training."""
    (folder / "recipe.yaml").write_text(
        f"name: tiny\nseed: {seed}\n"
        f"model: {{name: MobileNetV3_small_x0_35, input_size: {SIZE}, resize_short: {SIZE}}}\n"
        "data: {source: folder, path: photos, test_fraction: 0.5}\n"
        f"export: {{precisions: {precisions}}}\n"
    )
    run = Run.start(load_recipe(folder / "recipe.yaml"), directory=folder / "run", fresh=True)
    run.unlock()
    write_labels(run.file("labels.txt"), CLASSES)
    write_json(run.file("preprocess.json"), Preprocess(SIZE, SIZE).to_dict())
    model = network(BLOCKS["conv"], **EQUAL, classes=2)
    model.get_layer("fc").bias.assign([0.0, float(seed)])
    model.save(run.file("float.keras"))
    if qat:
        save_qat(run, model)
    return run


def save_qat(run: Run, model: keras.Model) -> None:
    twin = quantize.quantize_model(model)
    quantize.calibrate(twin, [IMAGES.astype(np.float32)])
    quantize.finalize(twin)
    twin.save(run.file("qat.keras"))


def rungs(run: Run, **options: Any) -> dict[str, Any]:
    return {r["name"]: r.get("ok") for r in workflow.verify(run, Console(), **options)["rungs"]}


def test_the_recipe_says_what_is_exported_and_the_ladder_has_those_rungs(folder: Path) -> None:
    run = make_run(folder, "[int8]")
    assert list(workflow.export(run, Console())["files"]) == list(exported(run)) == ["int8"]
    assert rungs(run) == {"qat.keras = model_int8.tflite": True, "float.keras ~ model_int8.tflite": None}
    assert list(workflow.export(run, Console(), ["fp16"])["files"]) == ["fp16"]
    assert "float.keras ~ model_fp16.tflite" in rungs(run)
    assert list(exported(run)) == ["fp16", "int8"]
    names = ["dynamic_wi8_afp32", "weight_only_wi8"]
    assert list(workflow.export(run, Console(), names)["files"]) == names
    assert {f"float.keras ~ model_{name}.tflite" for name in ("fp16", "int8", *names)} < rungs(run).keys()


def test_a_run_that_is_not_quantized(folder: Path) -> None:
    run = make_run(folder, "[int8, fp32]", qat=False)
    with pytest.raises(MissingError, match=r"not exported.*edgecls export"):
        workflow.verify(run, Console())
    with pytest.raises(MissingError, match=r"no qat\.keras.*edgecls quantize"):
        workflow.export(run, Console(), ["int8"])
    assert list(workflow.export(run, Console())["files"]) == ["fp32"]
    assert workflow.explain(run)["plan"][-1].startswith("fc: Dense")
    assert rungs(run) == {"float.keras = model_fp32.tflite": True}
    run = make_run(folder, "[int8]", qat=False, seed=1)
    with pytest.raises(MissingError, match=r"asks for int8, and the run has no qat\.keras.*edgecls quantize"):
        workflow.export(run, Console())


def test_the_plan_by_command(folder: Path, call) -> None:
    run = make_run(folder, qat=False)
    before = sorted(run.path.rglob("*"))
    code, out, err = call("quantize", str(run.path), "--explain")
    assert code == 0, err
    assert out.splitlines() == workflow.explain(run)["plan"]
    code, out, err = call("quantize", str(run.path), "--explain", "--json")
    assert (code, json.loads(out)) == (0, workflow.explain(run)), err
    assert sorted(run.path.rglob("*")) == before


def test_the_keras_file_has_keras_layers_alone(folder: Path) -> None:
    run = make_run(folder, qat=False)
    result = workflow.export(run, Console(), formats=["keras"])
    assert list(result["files"]) == ["keras"] and result["samples"] is None
    assert b"edgecls" not in zipfile.ZipFile(result["files"]["keras"]).read("config.json")
    images = IMAGES.astype(np.float32)
    expect, found = (
        keras.models.load_model(path).predict(images, verbose=0)
        for path in (run.file("float.keras"), result["files"]["keras"])
    )
    np.testing.assert_allclose(found, expect, atol=1e-5)


def test_a_folder_for_an_app_is_made_around_the_int8_file(folder: Path) -> None:
    run = make_run(folder, "[fp32, int8]")
    files = workflow.export(run, Console(), formats=["android"])["files"]
    assert list(files) == ["fp32", "int8", "android"]
    app = Path(files["android"])
    assert (app / "assets/model.tflite").read_bytes() == Path(files["int8"]).read_bytes()
    assert (app / "assets/labels.txt").read_text() == "blue\nred\n"
    source = (app / "PhotoClassifier.kt").read_text()
    assert f"const val SIZE = {SIZE}\n" in source and "The probabilities of [photo]" in source
    assert "readFloat()" in source and "probabilities, 2 of them" in (app / "README.md").read_text()
    save_qat(run, network(BLOCKS["conv"], **EQUAL, classes=2))
    run.save_recipe(run.recipe.override(["export.output=uint8"]))
    files = workflow.export(run, Console(), ["int8"], formats=["android"])["files"]
    output = Interpreter(files["int8"]).get_output_details()[0]
    scale, zero = output["quantization"]
    source = (app / "PhotoClassifier.kt").read_text()
    assert "The logits of [photo]" in source and f"- {zero}) * {float(np.float32(scale))}f" in source
    assert list(workflow.export(run, Console(), ["fp32"], formats=["android"])["files"]) == [
        "fp32",
        "android",
    ]


def test_a_folder_for_a_browser_by_command(folder: Path, monkeypatch, call) -> None:
    """The archives of npm are made here, with the names that are read from the real ones (test_export_web)."""

    def archive(name: str, version: str, digest: str) -> Path:
        path = folder / f"{name.replace('/', '-')}.tgz"
        with tarfile.open(path, "w:gz") as tar:
            for member in web._FILES[name]:
                info = tarfile.TarInfo(f"package/{member}")
                info.size = len(member)
                tar.addfile(info, io.BytesIO(member.encode()))
        return path

    run = make_run(folder, "[fp32, int8]")
    monkeypatch.setattr(npm, "archive", archive)
    code, out, err = call("export", str(run.path), "--format", "web", "--json")
    assert code == 0, err
    files = json.loads(out)["files"]
    app = Path(files["web"])
    assert app == run.file("export/web")
    assert (app / "model.tflite").read_bytes() == Path(files["int8"]).read_bytes()
    facts = read_json(app / "model.json")
    assert (facts["labels"], facts["scores"], facts["scale"]) == (CLASSES, "probabilities", None)
    assert facts["preprocess"] == read_json(run.file("preprocess.json"))
    assert (app / "litert/wasm/litert_wasm_internal.wasm").read_text() == "wasm/litert_wasm_internal.wasm"
    named = re.findall(r'"(?:\./)?([\w/.-]+\.(?:js|css))"', (app / "index.html").read_text())
    assert named and all((app / name).is_file() for name in named), named

    def unreachable(*_: str) -> Path:
        raise MissingError("npm cannot fetch it")

    monkeypatch.setattr(npm, "archive", unreachable)
    assert call("export", str(run.path), "--format", "web")[0] == 3
    assert (app / "model.json").is_file()  # what was there stays


def test_files_of_another_network_are_not_the_runs(folder: Path) -> None:
    run = make_run(folder)
    workflow.export(run, Console())
    save_qat(run, network(BLOCKS["relu6_depthwise"], **EQUAL, classes=2))
    assert list(exported(run)) == ["fp32"]
    assert rungs(run) == {"float.keras = model_fp32.tflite": True}


@pytest.mark.parametrize("output", ["float", "uint8"])
def test_samples_are_what_the_files_compute(folder: Path, output: str) -> None:
    """The scores by an interpreter of its own, from the PNG; the pixels by Pillow, as photo and input are of one size."""
    run = make_run(folder, f"[fp32, int8], output: {output}")
    where = Path(workflow.export(run, Console())["samples"])
    document = read_json(where / "samples.json")
    assert document["preprocess"] == read_json(run.file("preprocess.json"))
    assert "OpenCV INTER_LINEAR" in document["preprocess_text"]
    assert len(document["samples"]) == 6  # the test split
    for sample in document["samples"]:
        pixels = np.asarray(Image.open(where / sample["pixels"]))
        assert np.array_equal(pixels, np.asarray(Image.open(where / sample["photo"])))
        for name, file in document["files"].items():
            interpreter = Interpreter(str(run.file("export", name)))
            kind = "logits" if file["output"] == "uint8" else "probabilities"
            assert file["scores"] == kind
            found = interpreter.get_signature_runner()(image=pixels[None])[kind][0]
            if file["output"] == "uint8":
                found = (found.astype(float) - file["zero_point"]) * file["scale"]
            scores = sample["scores"][name]
            np.testing.assert_allclose(scores, found, rtol=1e-6, atol=1e-6)
            assert sample["top1"][name] == CLASSES[int(np.argmax(found))]
            assert 0 < file["tolerance"] < np.ptp(scores)
    labels = [sample["label"] for sample in document["samples"]]
    assert sorted(labels) == ["blue"] * 3 + ["red"] * 3


def test_the_code_of_the_docs_checks_a_file(folder: Path, monkeypatch) -> None:
    run = make_run(folder)
    workflow.export(run, Console())
    page = (Path(__file__).parents[1] / "docs/preprocessing.md").read_text(encoding="utf-8")
    (block,) = (
        text for text in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "samples.json" in text
    )
    monkeypatch.chdir(run.path)
    exec(block, {})
    document = read_json("export/samples/samples.json")
    document["samples"][3]["scores"]["model_int8.tflite"][0] += 1.0
    write_json("export/samples/samples.json", document)
    with pytest.raises(AssertionError):
        exec(block, {})


def test_samples_are_made_anew_when_a_file_or_a_photo_changes(folder: Path, capsys) -> None:
    run = make_run(folder, "[fp32]")

    def made() -> bool:
        capsys.readouterr()
        workflow.export(run, Console())
        return "samples: done before" not in capsys.readouterr().err

    assert [made(), made()] == [True, False]
    for path in (folder / "photos/red").iterdir():
        Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    assert [made(), made()] == [True, False]
    (folder / "photos").rename(folder / "elsewhere")
    result = workflow.export(run, Console())
    assert result["samples"] is None and "no samples beside the files" in capsys.readouterr().err


def test_the_ladder_is_climbed_again_when_a_photo_changes(folder: Path, capsys) -> None:
    run = make_run(folder, "[fp32]")
    workflow.export(run, Console())

    def climbed() -> bool:
        capsys.readouterr()
        rungs(run, images=folder / "photos")
        return "done before" not in capsys.readouterr().err

    assert [climbed(), climbed()] == [True, False]
    path = folder / "photos/blue/00.png"
    Image.fromarray(255 - IMAGES[0]).save(path)
    assert [climbed(), climbed()] == [True, False]


def test_photos_that_cannot_be_read_are_left_out_and_counted(folder: Path, capsys) -> None:
    run = make_run(folder, "[fp32]")
    workflow.export(run, Console())
    (folder / "photos/._x.jpg").write_bytes(b"resource fork")
    (folder / "photos/a.jpg").write_bytes(b"torn")
    (folder / "photos/b.jpg").mkdir()
    result = workflow.verify(run, Console(), images=folder / "photos")
    assert result["images"] == 12
    assert "1 of 13 photos left out" in (text := capsys.readouterr().err) and "a.jpg: not an image" in text
    for path in (folder / "photos").rglob("*.png"):
        path.unlink()
    with pytest.raises(MissingError, match="no photo can be read"):
        workflow.verify(run, Console(), images=folder / "photos")
    (folder / "photos/a.jpg").unlink()
    with pytest.raises(MissingError, match="no photos"):
        workflow.verify(run, Console(), images=folder / "photos")


def test_each_device_is_judged_by_its_own_rungs(folder: Path, monkeypatch, call) -> None:
    """A phone computes something else: its rung fails, and another phone's verification is not failed by it."""
    run = make_run(folder)
    workflow.export(run, Console())

    def outputs(cases: Any, device: str, **_: Any) -> SimpleNamespace:
        from edgecls.export import inspect

        answers = []
        for path, data, count in cases:
            runner = inspect.Runner(path)
            images = np.frombuffer(data, runner.input["dtype"]).reshape(count, SIZE, SIZE, 3)
            scores = runner.outputs(images)
            answers.append((scores[:, ::-1] if device == "broken" else scores).tobytes())
        return SimpleNamespace(outputs=answers, device=device)

    monkeypatch.setattr("android_bench.measure.accuracy.outputs", outputs)
    assert [call("verify", str(run.path), "--device", name)[0] for name in ("broken", "sound")] == [4, 0]
    devices = [r.get("device") for r in read_json(run.file("verify.json"))["rungs"]]
    assert devices == [None] * 3 + ["broken"] * 2 + ["sound"] * 2
    assert call("verify", str(run.path))[0] == 0
    # What was measured on other files is gone with them.
    save_qat(run, network(BLOCKS["relu6_depthwise"], **EQUAL, classes=2))
    workflow.export(run, Console())
    assert call("verify", str(run.path), "--device", "sound", "--json")[0] == 0
    assert {r.get("device") for r in read_json(run.file("verify.json"))["rungs"]} == {None, "sound"}
