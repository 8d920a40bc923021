"""The recipe: what is accepted, what is refused and with which line, inheritance, overrides, round trips."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecls import _yaml, recipe
from edgecls.errors import UsageError
from edgecls.recipe import Recipe, find_recipe, load_recipe, recipe_names

BASIC = """\
name: demo
model:
  name: MobileNetV3_small_x1_0
data:
  path: photos
train:
  epochs: 3
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a recipe under ``folder/`` and stand beside that folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()

    def write(text: str = BASIC, name: str = "r.yaml") -> Path:
        path = Path("folder") / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def refused(path: Path, *overrides: str) -> str:
    with pytest.raises(UsageError) as error:
        load_recipe(path, overrides)
    assert error.value.exit_code == 2
    assert "\n" not in str(error.value)
    return str(error.value)


def test_defaults_and_types(write):
    loaded = load_recipe(write())
    assert loaded.train.epochs == 3
    assert loaded.train.optimizer.momentum == 0.9
    assert loaded.teacher is None and loaded.distill is None
    assert loaded.export.precisions == ["fp32", "int8"]


# (override, what the line must say)
WRONG = [
    ("train.epohcs=3", "unknown key 'train.epohcs'", "did you mean 'train.epochs'?"),
    ("trian.epochs=3", "unknown key 'trian'", "did you mean 'train'?"),
    (
        "train.optimizer.learning=3",
        "unknown key 'train.optimizer.learning'",
        "keys of train.optimizer: name, lr",
    ),
    ("augment.trivialaugment={a: 1}", "unknown key 'augment.trivialaugment.a'", "trivialaugment has no keys"),
    (
        "epochs=5",
        "unknown key 'epochs'",
        "did you mean one of 'train.epochs', 'teacher.train.epochs', 'quant",
    ),
    ("train.lr=1", "unknown key 'train.lr'", "did you mean one of 'train.optimizer.lr', "),
    ("train.lr.x=1", "unknown key 'train.lr'", ""),
    ("resize_shrt=9", "unknown key 'resize_shrt'", "did you mean 'model.resize_short'?"),
    ("train.epochs=many", "train.epochs: expected a whole number", 'got text "many"'),
    ("train.epochs='5'", "train.epochs: expected a whole number", 'got text "5"'),
    ("train.epochs=5.5", "train.epochs: expected a whole number", "got number 5.5"),
    ("train.epochs=true", "train.epochs: expected a whole number", "got boolean true"),
    ("train.epochs=", "train.epochs: expected a whole number", "got null"),
    ("train.epochs=0", "train.epochs: expected greater than or equal to 1", "got whole number 0"),
    ("train.optimizer.lr=yes", "train.optimizer.lr: expected a number", "got boolean true"),
    ("train.optimizer.lr=.inf", "train.optimizer.lr: expected", "got number Infinity"),
    ("train.optimizer.name=adamx", "train.optimizer: expected 'name' to be one of 'sgd'", '"name": "adamx"'),
    ("train=fast", "train: expected a mapping with the keys of Train", 'got text "fast"'),
    ("data.classes=1.5", "data.classes: expected a list or a whole number", "got number 1.5"),
    ("data.classes=1", "classes must be at least 2", ""),
    ("data.classes=[a]", "classes must name at least 2", ""),
    ("data.classes=[a, a]", "classes has a name twice", ""),
    ("data.classes=[a, no]", "data.classes[1]: expected text", "got boolean false"),
    ("data.path=null", "source 'folder' needs path", ""),
    ("augment.crop_scale=[0.5]", "augment.crop_scale: expected a list of at least 2", ""),
    ("augment.crop_scale=[1, 0.5]", "crop_scale must be [low, high]", ""),
    ("bench.threads=[1, 0]", "bench.threads[1]: expected greater than", ""),
    ("bench.threads.0=1", "bench.threads is a list: set it whole", ""),
    ("phases.large.train.epochs=1", "the recipe has no phases", "leave out phases.large to set the key"),
    ("phases.large=1", "the recipe has no phases", "or write phases first"),
    ("train.accumulate=5", "train: a batch of 32 cannot be divided into 5 equal parts", "make batch_size a"),
    ("export.precisions=[]", "export.precisions: expected a list of at least 1", ""),
    ("teacher.weights=imagenet", "teacher: which network? name or file is missing", "add name"),
    ("distill={}", "distill needs a teacher", "add a teacher section"),
    ("teacher={name: EfficientNetLite0, weights: imagenet}", "the teacher would not be used", "distill: {}"),
    ("quantize.distill=teacher", "needs a teacher and a distill section", "set it to float"),
    ("model.std=[0, 0, 0]", "model.std: expected fractions of 255, from 0.001 to 1, got [0, 0, 0]", ""),
    ("model.mean=[123.675, 116.28, 103.53]", "model.mean: expected fractions of 255", "divide them by 255"),
    ("model.std=[58, 57, 57]", "model.std: expected fractions of 255", "divide them by 255"),
    ("model.mean=[0, 0, -0.1]", "model.mean: expected fractions of 255, from 0 to 1", ""),
    (
        "teacher={name: EfficientNetLite0, train: {}, mean: [127, 127, 127]}",
        "teacher.mean: expected",
        "by 255",
    ),
    ('data.path="a\\0b"', "data.path: not a usable path: ", ""),
    ("data.path=~no_such_user/x", "data.path: not a usable path: ", "home"),
    ("data.labels=" + 5000 * "x", "data.labels: not a usable path: File name too long", ""),
    ("name=../up", "name: expected a name of letters", ""),
    ("name=latest", "name 'latest' is taken", ""),
    ("model.name=MobileNetV3_smal_x1_0", "model.name: unknown model", "MobileNetV3_small_x1_0"),
    ("train.epochs=[", "not valid YAML", ""),
    ("train.epochs", "an override is KEY=VALUE", ""),
    ("train..epochs=1", "an override is KEY=VALUE", ""),
    ("=1", "an override is KEY=VALUE", ""),
]


@pytest.mark.parametrize(("override", "what", "also"), WRONG)
def test_wrong_override(write, override, what, also):
    text = write(BASIC + "bench: {threads: [1]}\n")
    line = refused(text, override)
    assert what in line and also in line
    if not line.startswith("key"):
        assert f"(-o {override})"[:200] in line and len(line) < 500


def test_line_and_key_in_the_file(write):
    path = write(BASIC + "  optimizer:\n    momentun: 0.5\n")
    assert refused(path) == (
        "unknown key 'train.optimizer.momentun' (folder/r.yaml:9); did you mean 'train.optimizer.momentum'?"
    )
    path = write(BASIC.replace("epochs: 3", "epochs: three"))
    assert refused(path) == 'train.epochs: expected a whole number, got text "three" (folder/r.yaml:7)'


def test_line_in_the_file_that_is_inherited_from(write):
    write(BASIC + "seeed: 1\n", "base.yaml")
    assert "(folder/base.yaml:8)" in refused(write("base: base.yaml\nname: other\n"))


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "the recipe is empty"),
        ("# only a comment\n", "the recipe is empty"),
        ("- a\n", "a recipe is a mapping"),
        ("just text", "a recipe is a mapping"),
        ("name: demo\nmodel: {name: x\n", "not valid YAML"),
        ("name: demo\n\tmodel: x\n", "folder/r.yaml:2"),
        ("name: a\nname: b\n", "key 'name' is written twice (folder/r.yaml:2)"),
        ("name: !!python/object/apply:os.system ['true']\n", "not valid YAML"),
        ("name: &a [*a]\n", "circle"),
        ("? [a, b]\n: c\n", "a key must be a plain name"),
        ("name: demo\n", "key 'model' is missing"),
        ("a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
            f"{n}: &{n} [{','.join([f'*{p}'] * 10)}]\n" for p, n in zip("abcdef", "bcdefg", strict=True)
        ), "too large"),
    ],
)  # fmt: skip
def test_bad_files(write, text, what):
    assert what in refused(write(text))


def test_missing_file_and_folder(write, tmp_path):
    assert "no such recipe (folder/none.yaml); give a YAML file, or one of: base, " in refused(
        Path("folder/none.yaml")
    )
    assert "is a folder" in refused(tmp_path)
    (tmp_path / "b.yaml").write_bytes(b"name: \xff\xfe")
    assert "not UTF-8" in refused(tmp_path / "b.yaml") and "b.yaml:1)" in refused(tmp_path / "b.yaml")


@pytest.mark.parametrize("character", ["\0", "\x1b", "\f", "\x7f", "\ufffe"], ids=ascii)
def test_a_control_character_in_a_recipe_is_named_with_its_line(write, character):
    line = refused(write(BASIC + f"seed: 1 # {character}\n"))
    assert line == f"not valid YAML: the character U+{ord(character):04X} is not allowed (folder/r.yaml:8)"


def test_lines_are_counted_as_editors_count_them(write):
    path = write(BASIC.replace("path: photos", "path: 'photos\u2028\x85of me'") + "seeed: 1\n")
    assert "(folder/r.yaml:8)" in refused(path)


@pytest.mark.parametrize("name", ["photos\udcff", "a\u2028b", "\u2029", "日本", "a b", "it's"], ids=ascii)
def test_a_path_of_any_name(write, tmp_path, name):
    """Also one whose bytes are not UTF-8, as Python hands it over from the command line."""
    value = f'"{name}"' if "\u2028" in name or "\u2029" in name or "'" in name else name
    loaded = load_recipe(write(), [f"data.path={value}"])
    assert loaded.data.path == str(tmp_path / name)
    (tmp_path / "again.yaml").write_text(loaded.dump(), encoding="utf-8")
    assert load_recipe(tmp_path / "again.yaml") == loaded
    assert len(loaded.hash()) == len(loaded.training_hash()) == 64


def test_base_merges_in_order(write):
    write(BASIC + "  optimizer: {lr: 0.5, nesterov: true}\n", "a.yaml")
    write("train: {epochs: 7, optimizer: {lr: 0.25}}\n", "b.yaml")
    loaded = load_recipe(write("base: [a.yaml, b.yaml]\nname: c\ntrain: {batch_size: 8}\n", "c.yaml"))
    assert (loaded.name, loaded.train.epochs, loaded.train.batch_size) == ("c", 7, 8)
    assert (loaded.train.optimizer.lr, loaded.train.optimizer.nesterov) == (0.25, True)


def test_base_in_a_circle_or_missing(write):
    write("base: b.yaml\n", "a.yaml")
    assert "b.yaml -> a.yaml -> b.yaml" in refused(write("base: a.yaml\n", "b.yaml"))
    assert "no such recipe: none.yaml (folder/r.yaml:2)" in refused(write("name: x\nbase: none.yaml\n"))
    assert "did you mean 'base'?" in refused(write("name: x\nbase: bse\n"))
    assert "base: expected a file name" in refused(write("base: {a: b}\n"))


def test_recipes_that_come_with_the_package_have_names(write, tmp_path):
    folder = Path(__file__).parents[1] / "recipes"
    for name in ("mv3_ssld", "mv3_ssld.yaml", "recipes/mv3_ssld.yaml"):
        assert find_recipe(name) == folder / "mv3_ssld.yaml"
    assert recipe_names() == sorted(p.relative_to(folder).as_posix()[:-5] for p in folder.rglob("*.yaml"))
    loaded = load_recipe(write("base: base\nname: mine\ndata: {path: photos}\n"))
    assert (loaded.name, loaded.model.weights) == ("mine", "imagenet")
    assert loaded.data.path == str(tmp_path / "folder" / "photos")
    assert load_recipe("base", ["data.path=x"]).name == "photos"
    Path("base").mkdir()  # a folder of that name is no recipe
    Path("mv3_ssld").write_text(BASIC, encoding="utf-8")  # a file is the one that is meant
    assert find_recipe("base") == folder / "base.yaml"
    assert load_recipe("mv3_ssld").name == "demo"
    for nowhere in (5000 * "x", "a\0b", "~no_such_user/r.yaml"):
        assert "recipe: not a usable path" in refused(Path(nowhere))
    for elsewhere in ("../recipes/base.yaml", "x/base.yaml", "recipes/../base", "/base"):
        assert "no such recipe" in refused(Path(elsewhere))


def test_a_contradiction_is_shown_at_the_line_that_makes_it(write):
    write("base: mv3_ssld\nname: x\nseed: 1\nteacher: null\n")
    assert refused(Path("folder/r.yaml")).startswith("distill needs a teacher (folder/r.yaml:4); ")
    write("base: mv3_ssld\nname: x\ndistill: null\n")
    assert refused(Path("folder/r.yaml")).startswith(
        "the teacher would not be used: distill is missing (folder/r.yaml:3); "
    )
    write("base: mv3_ssld\nname: x\ndata:\n  source: folder\n")
    assert "(folder/r.yaml:4)" in refused(Path("folder/r.yaml"))
    write("base: mv3_ssld\ndistill: null\nteacher: null\nname: latest\n")
    assert "(folder/r.yaml:4)" in refused(Path("folder/r.yaml"))


def test_overrides(write):
    path = write()
    changes = [
        "train.optimizer.lr=1e-3",
        "teacher={name: EfficientNetLite0, weights: imagenet}",
        "seed=7",
        "distill={}",
    ]
    loaded = load_recipe(path, changes)
    assert loaded.train.optimizer.lr == 1e-3
    assert loaded.teacher is not None and loaded.teacher.weights == "imagenet"
    assert loaded.distill is not None and loaded.distill.weight == 1.0
    assert load_recipe(path).override(changes) == loaded
    assert load_recipe(path, [*changes, "teacher=null", "distill=null"]).teacher is None


def test_paths_are_relative_to_the_recipe_unless_they_exist_here(write, tmp_path):
    assert load_recipe(write()).data.path == str(tmp_path / "folder" / "photos")
    (tmp_path / "photos").mkdir()
    assert load_recipe(write()).data.path == str(tmp_path / "photos")
    assert load_recipe(write(), ["data.path=there"]).data.path == str(tmp_path / "there")
    assert load_recipe(write(), ["model.weights=imagenet"]).model.weights == "imagenet"
    assert load_recipe(write(), ["model.weights=w.npz"]).model.weights == str(tmp_path / "w.npz")
    write(BASIC.replace("  name: Mob", "  weights: w/lite0\n  name: Mob"))
    assert load_recipe("folder/r.yaml").model.weights == str(tmp_path / "folder" / "w" / "lite0")


@pytest.mark.parametrize("place", ["model", "teacher"])
@pytest.mark.parametrize(
    "weights", ["imagenet", "ssld", "http://host/a/w.pth#sha256=" + "0" * 64, "https://host/w.keras"]
)
def test_weights_that_are_no_file_stay_as_they_are(write, place, weights):
    path = write(BASIC + EVERY_SECTION)
    loaded = load_recipe(path, [f"{place}.weights={weights}"])
    assert getattr(loaded, place).weights == weights
    assert load_recipe(path).override([f"{place}.weights={weights}"]) == loaded


def test_dump_loads_back_equal_and_hashes_tell_apart(write, tmp_path):
    first = load_recipe(
        write(), ["data.classes=['no', '1e-3', '1', 'ok: x', 'ä']", "train.optimizer.lr=1e-7"]
    )
    (tmp_path / "again.yaml").write_text(first.dump(), encoding="utf-8")
    again = load_recipe(tmp_path / "again.yaml")
    assert again == first and again.hash() == first.hash()
    assert again.hash() != load_recipe(write(), ["seed=1"]).hash()


def _keys(section: type[recipe.Section], value: recipe.Section, at: str = "") -> list[tuple[str, object]]:
    """Every key below ``value`` with its value, sections inside sections too: [("train.epochs", 10), ...]."""
    keys: list[tuple[str, object]] = []
    for name in section.model_fields:
        inner = getattr(value, name)
        if isinstance(inner, recipe.Section):
            keys += _keys(type(inner), inner, f"{at}{name}.")
        else:
            keys.append((f"{at}{name}", inner))
    return keys


EVERY_SECTION = """
teacher: {name: EfficientNetLite0, weights: imagenet, train: {}}
distill: {}
"""


def test_writing_a_default_changes_nothing(write):
    """So a section that is given in part keeps the defaults of its own place, at every depth."""
    path = write(BASIC + EVERY_SECTION)
    loaded = load_recipe(path)
    keys = _keys(Recipe, loaded)
    assert ("quantize.train.optimizer.lr", 0.0002) in keys and ("teacher.train.optimizer.lr", 0.05) in keys
    for key, value in keys:
        override = f"{key}={json.dumps(value)}"
        assert load_recipe(path, [override]) == loaded, override


@pytest.mark.parametrize("place", ["train", "quantize.train", "teacher.train"])
def test_a_part_of_a_section_keeps_the_defaults_of_its_place(write, place):
    path = write(BASIC.replace("train:\n  epochs: 3\n", "") + EVERY_SECTION)
    before = dict(_keys(Recipe, load_recipe(path)))
    for key, value in {
        "epochs": 77,
        "optimizer": {"momentum": 0.77},
        "schedule": {"name": "constant"},
    }.items():
        after = dict(_keys(Recipe, load_recipe(path, [f"{place}.{key}={value}"])))
        changed = {k for k in before.keys() & after.keys() if before[k] != after[k]}
        changed |= {
            k for k in before.keys() ^ after.keys() if not k.endswith("schedule.end")
        }  # cosine alone has it
        assert len(changed) == 1 and changed.pop().startswith(f"{place}.{key}")


@pytest.mark.parametrize(
    ("override", "trains_the_same"),
    [
        ("quantize.train.epochs=77", True),
        ("export.precisions=[int8]", True),
        ("bench.runs=77", True),
        ("train.epochs=77", False),
        ("teacher.train.epochs=77", False),
        ("data.val_fraction=0.2", False),
        ("seed=1", False),
    ],
)
def test_the_training_hash_covers_what_is_trained(write, override, trains_the_same):
    path = write(BASIC + EVERY_SECTION)
    before, after = load_recipe(path), load_recipe(path, [override])
    assert (after.training_hash() == before.training_hash()) == trains_the_same
    assert after.hash() != before.hash()


@given(
    st.dictionaries(st.text(min_size=1), st.text() | st.floats(allow_nan=False) | st.integers() | st.none())
)
def test_yaml_round_trip(values):
    assert _yaml.parse(_yaml.dump(values), "x", Path()).values == values


def _sections() -> list[type]:
    return [c for c in vars(recipe).values() if isinstance(c, type) and issubclass(c, recipe.Section)]


@pytest.mark.parametrize("section", _sections(), ids=lambda c: c.__name__)
def test_every_section_is_strict_and_documented(section):
    assert section.__doc__
    assert all(info.description for info in section.model_fields.values())
    assert section.model_config["extra"] == "forbid" and section.model_config["strict"]


@pytest.mark.parametrize(
    "path", sorted(Path(__file__).parents[1].glob("recipes/**/*.yaml")), ids=lambda p: p.stem
)
def test_the_recipes_that_come_with_it_load(path):
    assert isinstance(load_recipe(path, ["data.path=photos"]), Recipe)
    assert path.read_text(encoding="utf-8").startswith("# edgecls train ")
