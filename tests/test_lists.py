"""List files as people write them: what is understood, what is said, what is refused. No TensorFlow."""

import pytest
from photos import folder

from edgecls.data.lists import read_list
from edgecls.data.regular import plain_lines
from edgecls.data.sources import load_dataset
from edgecls.errors import EdgeclsError, MissingError, UsageError
from edgecls.recipe import Data


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGECLS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def photos(tmp_path):
    root = folder(tmp_path / "photos", {"cat": 6, "dog": 6})
    (root / "cat" / "005.png").rename(root / "cat" / "a, b; c.png")
    return root


NAMES = [f"cat/{i:03}.png" for i in range(5)] + ["cat/a, b; c.png"] + [f"dog/{i:03}.png" for i in range(6)]
WORDS = [name.split("/")[0] for name in NAMES]


def written(photos, lines, name="list.txt", encoding="utf-8", newline="\n"):
    path = photos / name
    path.write_bytes(newline.join(lines).encode(encoding))
    return path


def lines(form, names=NAMES, words=WORDS):
    return [form.format(name, word) for name, word in zip(names, words, strict=True)]


def csv(sep):
    return [f'"{n}"{sep}{w}' if sep in n else f"{n}{sep}{w}" for n, w in zip(NAMES, WORDS, strict=True)]


FORMS = {
    "space": lines("{} {}"),
    "two spaces": lines("{}  {} "),
    "tab": lines("{}\t{}"),
    "comma": csv(","),
    "comma and space": csv(", "),
    "semicolon": csv(";"),
    "pipe": csv("|"),
    "quotes everywhere": lines('"{}","{}"'),
    "quotes and space": lines('"{}" {}'),
    "single quotes": lines("'{}' {}"),
    "quotes around both": lines('"{}" "{}"'),
    "quotes around labels": lines("{} '{}'"),
    "backslashes": [line.replace("/", "\\") for line in lines("{} {}")],
    "dot": lines("./{} {}"),
    "drive": ["C:\\Users\\me\\photos\\" + line.replace("/", "\\") for line in lines("{}\t{}")],
    "other computer": lines("/home/me/photos/{}\t{}"),
    "another computer's folder": lines("elsewhere/{}\t{}"),
    "without ending": [line.replace(".png", "") for line in lines("{}\t{}")],
    "comments": ["# made by hand", *lines("{} {}"), "", "# the end", "#cat/gone.png cat"],
    "one comment": ["# made by hand", *lines("{} {}")],
    "header": ["image,label", *csv(",")],
    "header, names without ending": [
        "id,breed",
        *(f'"{n.removesuffix(".png")}",{w}' for n, w in zip(NAMES, WORDS, strict=True)),
    ],
    "header twice": ["image,label", *csv(",")[:7], "image,label", *csv(",")[7:]],
    "header twice, with spaces": ["path label", *lines("{} {}")[:7], "path label", *lines("{} {}")[7:]],
    "header of a list": ["path label", *lines("{} {}")],
    "header in another order": [
        "id,class,file",
        *(f'{i},{w},"{n}"' for i, (n, w) in enumerate(zip(NAMES, WORDS, strict=True))),
    ],
    "label first": lines("{1} {0}"),
    "label first, comma": [f'{w},"{n}"' for n, w in zip(NAMES, WORDS, strict=True)],
    "pandas": [",path,label", *(f'{i},"{n}",{w}' for i, (n, w) in enumerate(zip(NAMES, WORDS, strict=True)))],
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_images_and_labels(photos, form, newline, encoding):
    rows = read_list(written(photos, FORMS[form], newline=newline, encoding=encoding))
    shown = [name.removeprefix("./") for name in rows.names]
    assert shown == NAMES and rows.labels == WORDS and not rows.bad
    assert all(open(file, "rb").read(4) == b"\x89PNG" for file in rows.files)  # noqa: PTH123, SIM115


SAID = {
    "comma": "columns are separated by a comma",
    "backslashes": "backslashes are read as slashes",
    "drive": "the first 4 folders of each path are left out (C:/Users/me/photos)",
    "other computer": "the first 3 folders of each path are left out (home/me/photos)",
    "another computer's folder": "the first folder of each path is left out (elsewhere)",
    "one comment": "1 line that begins with # is a comment",
    "header, names without ending": "the first line is a header (id, breed)",
    "header twice": "the header is left out where it comes again: 1 line",
    "without ending": ".png was added to the names",
    "comments": "3 lines that begin with # are comments",
    "header": "the first line is a header (image, label)",
    "header in another order": "images from column 'file', labels from column 'class'",
    "label first": "the label is written before the path",
}


@pytest.mark.parametrize("form", SAID)
def test_what_was_assumed_is_said(photos, form):
    assert f"list.txt: {SAID[form]}" in read_list(written(photos, FORMS[form])).notes
    assert read_list(written(photos, FORMS["space"])).notes == []


def test_paths_may_start_from_the_folder_above(photos):
    (photos / "lists").mkdir()
    rows = read_list(written(photos, lines("{} {}"), "lists/train.txt"))
    assert rows.names == NAMES and rows.notes == [f"train.txt: paths start from {photos}"]


def test_columns_are_chosen_by_name_or_number(photos):
    table = [
        "file,mask,species,place",
        *(f"dog/{i:03}.png,cat/{i:03}.png,s{i % 2},p{i % 3}" for i in range(5)),
    ]
    path = written(photos, table)
    assert read_list(path).names == [f"dog/{i:03}.png" for i in range(5)]  # "file" before "mask"
    assert read_list(path).labels == [f"s{i % 2}" for i in range(5)]  # "species" is known
    for image, label in (("mask", "place"), (2, 4), ("MASK", "Place")):
        rows = read_list(path, image, label)
        assert rows.names == [f"cat/{i:03}.png" for i in range(5)]
        assert rows.labels == [f"p{i % 3}" for i in range(5)]
    with pytest.raises(
        UsageError, match=r"no column 'plaice'.*data.label_column: file, mask, species, place"
    ):
        read_list(path, None, "plaice")
    path = written(photos, [line.replace(",", " ") for line in lines("{} 3 {}", NAMES[:5], WORDS[:5])])
    assert read_list(path, None, 3).labels == WORDS[:5]


def test_lines_without_a_label_are_unlabeled_and_counted(photos):
    rows = read_list(
        written(photos, [*lines("{},{}", NAMES[:5], WORDS[:5]), "dog/000.png,", "dog/001.png, "])
    )
    assert rows.labels == [*WORDS[:5], None, None]
    assert "list.txt: 2 of 7 lines have no label" in rows.notes
    rows = read_list(written(photos, NAMES))
    assert rows.names == NAMES and set(rows.labels) == {None}


def test_labels_may_have_spaces(photos):
    rows = read_list(written(photos, lines("{} great dane", NAMES[:5], WORDS[:5])))
    assert rows.names == NAMES[:5] and set(rows.labels) == {"great dane"}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be"])
def test_lists_of_windows_programs_are_read(photos, encoding):
    (photos / "cat" / "000.png").rename(photos / "cat" / "Kätzchen.png")
    text = "\ufeff" * (encoding == "utf-16-be") + "".join(
        f"{line}\r\n" for line in lines("{}\t{}", ["cat/Kätzchen.png", *NAMES[1:]])
    )
    (photos / "list.txt").write_bytes(text.encode(encoding))
    rows = read_list(photos / "list.txt")
    assert rows.names == ["cat/Kätzchen.png", *NAMES[1:]] and rows.labels == WORDS
    (photos / "list.txt").write_bytes(text.lstrip("\ufeff").encode("utf-16-be"))  # nothing says what it is
    with pytest.raises(UsageError, match="not a UTF-8 text file"):
        read_list(photos / "list.txt")


@pytest.mark.parametrize("text", ["", "\n \n", "# later\n", "image,label\n"])
def test_a_list_without_images_says_what_a_list_is(photos, text):
    (photos / "list.txt").write_text(text)
    with pytest.raises(MissingError, match=r"no images found.*a list has a line `path label`"):
        load_dataset(Data(source="list", path=str(photos / "list.txt")))


def test_classes_without_training_images_are_said(photos):
    path = written(photos, lines("{} {}", NAMES, [str(int(word == "dog")) for word in WORDS]))
    held_out = written(photos, ["cat/000.png 2", "dog/000.png 1"], "val.txt")
    data = {"source": "list", "path": str(path), "val_path": str(held_out)}
    assert "no training images of 2" in load_dataset(Data(**data)).notes
    named = load_dataset(Data(path=str(photos), classes=["dog", "cow", "cat"]))
    assert named.notes == ["1 class has no images (cow)"]


def test_a_hash_may_begin_a_name(photos):
    (photos / "cat" / "000.png").rename(photos / "#1.png")
    rows = read_list(written(photos, ["#1.png cat", "dog/000.png dog", "#2.png cat"]))
    assert rows.names == ["#1.png", "dog/000.png"]


def test_an_image_with_two_labels_is_said(photos):
    rows = read_list(written(photos, ["dog/000.png dog", "cat/000.png cat", "dog/000.png cat"]))
    assert "list.txt: 1 image is listed with different labels, such as dog/000.png" in rows.notes


REFUSED = {
    "columns": (
        [f"{n};{i};x{i}" for i, n in enumerate(NAMES[:5])],
        UsageError,
        "3 columns, and it is not clear which one is the label.*set data.label_column, one of 1 to 3",
    ),
    "two images": (
        ["left,right,label", *(f"cat/00{i}.png,dog/00{i}.png,x" for i in range(5))],
        UsageError,
        "column 'left' and column 'right' both name images.*data.image_column",
    ),
    "several labels": (lines("{} 0 1 0"), UsageError, "several labels, such as '0 1 0'"),
    "nothing there": (
        lines("elsewhere{} {}"),
        MissingError,
        "none of the 12 images is there, for example elsewherecat",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_can_mean_several_things_is_refused(photos, case):
    text, kind, message = REFUSED[case]
    with pytest.raises(kind, match=message) as caught:
        read_list(written(photos, text))
    assert "\n" not in str(caught.value) and str(photos) in str(caught.value)


def test_a_label_that_is_no_number_is_a_bad_line(photos):
    numbers = lines("{} {}", NAMES[:11], [str(int(word == "dog")) for word in WORDS[:11]])
    path = written(photos, [*numbers, "dog/005.png dig"])
    found = load_dataset(Data(source="list", path=str(path), max_bad_fraction=0.1))
    assert found.bad == [("dog/005.png", "label 'dig' is no number")] and found.classes == ["0", "1"]
    with pytest.raises(EdgeclsError, match=r"1 of 12 images cannot be used.*label 'dig' is no number"):
        load_dataset(Data(source="list", path=str(path)))


def test_a_folder_of_lists_has_its_splits(photos):
    for name, chosen in (
        ("train_list.txt", slice(0, 12, 2)),
        ("Val.txt", slice(1, 12, 4)),
        ("test.csv", slice(3, 12, 4)),
    ):
        written(photos, lines("{}\t{}", NAMES[chosen], WORDS[chosen]), name)
    found = load_dataset(Data(source="list", path=str(photos)))
    assert [len(split) for split in (found.train, found.val, found.test)] == [6, 3, 3]
    assert "lists: Val.txt to val, test.csv to test, train_list.txt to train" in found.notes


@pytest.mark.parametrize("form", FORMS)
def test_regular_lists_are_read_as_columns_to_the_same_rows(photos, form, monkeypatch):
    path = written(photos, FORMS[form])
    fast = read_list(path)
    monkeypatch.setattr("edgecls.data.lists.plain_lines", lambda data: None)
    slow = read_list(path)
    assert (fast.names, fast.files, fast.labels, fast.notes) == (
        slow.names,
        slow.files,
        slow.labels,
        slow.notes,
    )
    assert [fast.where(i) for i in range(12)] == [slow.where(i) for i in range(12)]


def test_which_lists_are_regular():
    for data, separator, expected in (
        (b"a.png 0\nb.png 1", " ", [["a.png", "b.png"], ["0", "1"]]),
        (b"0,a b.png,x\n1,c.png,y\n", ",", [["0", "1"], ["a b.png", "c.png"], ["x", "y"]]),
        (b"a.png,0\nb.png,1,2\nc.png\n", ",", None),
        (b"a.png, 0\nb.png, 1\n", ",", None),
    ):
        found = plain_lines(data).columns(separator)
        assert (found and found.columns) == expected
    for odd in (b"", b"a 0\n\nb 1\n", b"# a 0\n", b'"a",0\n', b" a 0\n", b"a 0 \n", b"'a' 0\n"):
        assert plain_lines(odd) is None
