"""The scripts that make lists of published data sets, on small files of the official formats."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from photos import picture

from edgecls.data.sources import load_dataset
from edgecls.recipe import Data

savemat = pytest.importorskip("scipy.io").savemat
SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGECLS_CACHE", str(tmp_path / "cache"))


def prepare(name, root):
    command = [sys.executable, str(SCRIPTS / f"prepare_{name}.py"), str(root)]
    return subprocess.run(command, check=False, capture_output=True, text=True)


@pytest.fixture
def flowers(tmp_path):
    root = tmp_path / "flowers"
    for i in range(1, 25):
        picture(root / "jpg" / f"image_{i:05}.jpg", i)
    labels = np.array([[1 + i % 3 for i in range(24)]], np.uint8)  # 1 to 3, a row as in the official file
    savemat(root / "imagelabels.mat", {"labels": labels}, do_compression=True)
    sets = {"trnid": np.arange(24, 12, -1), "valid": np.arange(1, 7), "tstid": np.arange(7, 13)}
    savemat(root / "setid.mat", {key: ids[None].astype(np.uint16) for key, ids in sets.items()})
    return root


def test_flowers(flowers):
    done = prepare("flowers102", flowers)
    assert done.returncode == 0 and "train_list.txt: 12 images of 3 classes" in done.stdout
    assert (flowers / "val_list.txt").read_text().splitlines()[:2] == [
        "jpg/image_00001.jpg 0",
        "jpg/image_00002.jpg 1",
    ]
    found = load_dataset(Data(source="list", path=str(flowers), classes=3))
    assert [len(split) for split in (found.train, found.val, found.test)] == [12, 6, 6]
    for name, label in zip(found.train.names, found.train.labels, strict=True):
        assert label == (int(name[-9:-4]) - 1) % 3


def test_flowers_that_are_not_whole(flowers):
    (flowers / "jpg" / "image_00020.jpg").unlink()
    done = prepare("flowers102", flowers)
    assert done.returncode == 3 and "1 of 12 images are not there, such as jpg/image_00020.jpg" in done.stderr
    savemat(flowers / "imagelabels.mat", {"labels": np.ones((1, 9))})
    assert "setid.mat names image 24, imagelabels.mat has 9" in prepare("flowers102", flowers).stderr
    (flowers / "setid.mat").write_text("no MATLAB")
    assert "not a MATLAB file" in prepare("flowers102", flowers).stderr
    (flowers / "setid.mat").unlink()
    done = prepare("flowers102", flowers)
    assert done.returncode == 3 and "no such file" in done.stderr and len(done.stderr.splitlines()) == 1


SYNSETS = {"n02012849": (3, "crane"), "n03126707": (1, "crane"), "n01440764": (2, "tench, Tinca tinca")}


@pytest.fixture
def imagenet(tmp_path):
    root = tmp_path / "imagenet"
    for number, wnid in enumerate(SYNSETS):
        for i in range(4):
            picture(root / "train" / wnid / f"{wnid}_{i}.JPEG", 10 * number + i, format="JPEG")
    for i in range(1, 7):
        picture(root / "val" / f"ILSVRC2012_val_{i:08}.JPEG", 100 + i, format="JPEG")
    kit = root / "ILSVRC2012_devkit_t12" / "data"
    kit.mkdir(parents=True)
    (kit / "ILSVRC2012_validation_ground_truth.txt").write_text("1\n2\n3\n3\n2\n1\n")
    kind = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")]
    rows = [(i, wnid, words, 0) for wnid, (i, words) in sorted(SYNSETS.items(), key=lambda item: item[1])]
    savemat(kit / "meta.mat", {"synsets": np.array(rows, kind)[:, None]})
    return root


def test_imagenet(imagenet):
    done = prepare("imagenet", imagenet)
    assert done.returncode == 0, done.stderr
    assert (imagenet / "labels.txt").read_text().splitlines() == [
        "tench",
        "crane (n02012849)",
        "crane (n03126707)",
    ]
    lines = (imagenet / "val_list.txt").read_text().splitlines()
    assert lines == [
        f"val/ILSVRC2012_val_{i + 1:08}.JPEG {label}" for i, label in enumerate([2, 0, 1, 1, 0, 2])
    ]
    recipe = Data(source="list", path=str(imagenet), labels=str(imagenet / "labels.txt"), test_fraction=0.0)
    found = load_dataset(recipe)
    assert len(found.train) == 12 and len(found.val) == 6 and found.classes[0] == "tench"
    for name, label in zip(found.train.names, found.train.labels, strict=True):
        assert sorted(SYNSETS).index(name.split("/")[1]) == label


def test_imagenet_with_validation_folders_and_without_a_kit(imagenet):
    for i, wnid in enumerate(SYNSETS):
        (imagenet / "val" / wnid).mkdir()
        (imagenet / "val" / f"ILSVRC2012_val_{i + 1:08}.JPEG").rename(imagenet / "val" / wnid / f"{i}.JPEG")
    next(imagenet.rglob("meta.mat")).unlink()
    done = prepare("imagenet", imagenet)
    assert done.returncode == 0 and "there is no meta.mat" in done.stdout
    assert (imagenet / "val_list.txt").read_text().splitlines()[0] == "val/n01440764/2.JPEG 0"
    assert (imagenet / "labels.txt").read_text().splitlines() == sorted(SYNSETS)


def test_imagenet_that_is_not_whole(imagenet):
    truth = next(imagenet.rglob("*ground_truth.txt"))
    truth.write_text("1\n2\n")
    assert "6 validation images, 2 labels" in prepare("imagenet", imagenet).stderr
    truth.write_text("1\n2\n3\n3\n2\n9\n")
    assert "class 9 of the ground truth has no folder in train" in prepare("imagenet", imagenet).stderr
    truth.unlink()
    done = prepare("imagenet", imagenet)
    assert done.returncode == 3 and "unpack ILSVRC2012_devkit_t12.tar.gz" in done.stderr
    (imagenet / "train").rename(imagenet / "training")
    assert "no folder train with synset folders" in prepare("imagenet", imagenet).stderr
