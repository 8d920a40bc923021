"""The list of commands: help, usage errors, completion; what must not load TensorFlow."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from commands import one_line, process

import edgecls
from edgecls.cli.main import COMMANDS, cli
from edgecls.recipe import load_recipe
from edgecls.run import Run

pytestmark = pytest.mark.usefixtures("recipe_folder")

NAMES = [name for section in COMMANDS.values() for name in section]


# Help and laziness


@pytest.mark.parametrize(
    "args", [["--help"], ["models"], ["models", "ResNet50_vd"], ["train", "--help"], ["--version"]]
)
def test_nothing_heavy_is_imported(args):
    code = (
        "import sys\nfrom edgecls.cli.main import main\n"
        f"try:\n    main({args!r})\nexcept SystemExit as e:\n    assert not e.code\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    done = process(code=code)
    assert done.returncode == 0 and done.stdout
    top = {name.split(".")[0] for name in done.stderr.split()}
    assert not top & {"tensorflow", "keras", "tf_keras", "numpy", "pydantic", "rich", "PIL", "matplotlib"}
    assert "--version" in args or "email" not in top, "importlib.metadata, a third of the time of a help text"


def test_help_lists_every_command(call):
    code, out, _ = call("--help")
    assert code == 0 and all(re.search(rf"^  {name} ", out, re.MULTILINE) for name in NAMES)
    assert call() == (0, out, "")


@pytest.mark.parametrize("name", NAMES)
def test_every_help_ends_with_an_example(call, name):
    code, out, _ = call(name, "--help")
    assert code == 0
    assert re.search(rf"Examples?:\n(  edgecls {name}.*\n)+\Z", out)
    assert "--json" in out and "--debug" in out


def test_the_list_says_what_the_commands_say():
    assert set(NAMES) == {p.stem for p in Path(edgecls.__file__).parent.glob("cli/*.py")} - {
        "__init__", "main", "common", "completers", "show",
    }  # fmt: skip
    for name in NAMES:
        command = cli.get_command(None, name)
        assert command.name == name and command.help


# Usage errors: exit code 2 and one line


@pytest.mark.parametrize(
    ("args", "what"),
    [
        ("trian", "no command 'trian'; did you mean 'train'?"),
        ("xyz", "no command 'xyz'; edgecls --help lists"),
        ("train", "Missing argument 'RECIPE'; see edgecls train --help"),
        ("train r.yaml --frehs", "--fresh"),
        ("train none.yaml", "no such recipe (none.yaml)"),
        ("train r.yaml -o train.epohcs=1", "did you mean 'train.epochs'?"),
        ("train r.yaml -o model.name=ResNet5", "unknown model 'ResNet5'"),
        ("bench --threads 0,x", "--threads"),
        ("bench --threads 1,x", "threads must be numbers from 1 to 64, not 'x'"),
        ("bench --threads ,", "--threads"),
        ("bench --max-ms 0 x", "--max-ms"),
        ("predict none.tflite r.yaml", "not a run (none.tflite)"),
        ("predict r.yaml none.jpg", "none.jpg"),
        ("export --precision fp64", "fp64"),
        ("eval --split dev", "dev"),
        ("models ResNet5", "did you mean"),
        ("models --family Nonet", "no family 'Nonet' (--family); there are: "),
        ("models zzz*", "no network is called like 'zzz*'"),
        ("completion tcsh", "tcsh"),
        ("convert x.pdparams", "which network are these weights of?"),
        ("convert x.pdparams --model ResNet5", "unknown model 'ResNet5'; did you mean"),
    ],
)
def test_usage_errors(call, args, what):
    code, out, err = call(*args.split())
    assert code == 2 and not out
    assert what in one_line(err) and "edgecls: error: " in err


@pytest.mark.parametrize("name", ["quantize", "export", "verify", "report", "eval", "bench"])
def test_without_a_run(call, name):
    code, out, err = call(name)
    assert (code, out) == (3, "")
    assert (
        one_line(err) == "edgecls: error: there is no run yet (runs/); start one with: edgecls train RECIPE\n"
    )
    assert not Path("runs").exists()


# Completion


@pytest.mark.parametrize(
    ("words", "offers"),
    [
        ("edgecls tr", {"train"}),
        ("edgecls models EfficientNetLite", {f"EfficientNetLite{i}" for i in range(5)}),
        ("edgecls models --family MobileNetV3", {"MobileNetV3"}),
        ("edgecls train recipes/a", {"recipes/a.yaml"}),
        ("edgecls quantize de", {"demo"}),
        ("edgecls bench --device ho", {"host"}),
        ("edgecls bench --device sd85", {"sd855", "sd855p"}),
        ("edgecls export --precision fp3", {"fp32"}),
    ],
)
def test_completion(words, offers):
    Path("recipes").mkdir()
    Path("recipes/a.yaml").touch()
    Run.start(load_recipe("r.yaml")).unlock()
    number = str(len(words.split()) - 1)
    done = process(_EDGECLS_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=number)
    assert {line.split(",")[1] for line in done.stdout.splitlines()} == offers


@pytest.mark.parametrize("shell", ["zsh", "fish", "bash"])
def test_completion_script(call, shell):
    code, out, _ = call("completion", shell)
    assert code == 0 and f"_EDGECLS_COMPLETE={shell}_complete" in out
