"""README and docs: links resolve, and what they tell the reader to type exists."""

from __future__ import annotations

import itertools
import re
import shlex
from pathlib import Path

import click
import pytest

from edgecls.cli.main import cli
from edgecls.errors import UsageError
from edgecls.recipe import load_recipe

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
PLACEHOLDERS = {"COMMAND"}  # `edgecls COMMAND --help`


@pytest.fixture(params=PAGES, ids=NAMES)
def page(request):
    return request.param


def anchors(text: str) -> set[str]:
    """The anchors that GitHub makes of headings."""
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def commands(text: str) -> list[str]:
    """Every `edgecls ...` in code blocks and in code spans."""
    blocks = re.findall(r"^ *```\w*\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    lines = [line.split(" #")[0] for block in blocks for line in block.splitlines()]
    spans = re.findall(r"`([^`\n]+(?:\n[^`\n]+)?)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    parts = [part.strip() for line in lines + spans for part in line.replace("\n", " ").split("&&")]
    return [part for part in parts if re.match(r"(\.venv/bin/)?edgecls [\w-]", part)]


def problems(line: str) -> list[str]:
    """What is wrong with a command line of the docs, as words: its command, an option, an override."""
    _program, name, *words = shlex.split(line)
    if name in PLACEHOLDERS or name.startswith("-"):
        return []
    if name not in cli.list_commands(None):
        return [f"no command {name}"]
    command = cli.get_command(None, name)
    options = {flag for p in command.params for flag in (*p.opts, *p.secondary_opts)} | {"-h", "--help"}
    wrong = [word for word in words if word.startswith("-") and word.split("=")[0] not in options]
    if name in ("train", "quantize"):
        wrong += [text for before, text in itertools.pairwise(words) if before == "-o" and not applies(text)]
    return wrong


def applies(override: str) -> bool:
    """Whether the recipe has the key and takes the value."""
    try:
        load_recipe("base", ["data.path=photos", override])
    except UsageError:
        return False
    return True


def test_links_resolve(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), f"{page.name}: no {target}"
        assert not anchor or anchor in anchors(file.read_text(encoding="utf-8")), f"{page.name}: no #{anchor}"


def test_commands_exist(page):
    wrong = {line: found for line in commands(page.read_text(encoding="utf-8")) if (found := problems(line))}
    assert not wrong


def test_what_the_check_of_commands_sees():
    text = "A `edgecls train x\n-o a=1` b\n```\nedgecls bench --device host  # why\n$ ls\n.venv/bin/edgecls doctor && edgecls x\n```\n"
    assert sorted(commands(text)) == [
        ".venv/bin/edgecls doctor", "edgecls bench --device host", "edgecls train x -o a=1", "edgecls x",
    ]  # fmt: skip
    assert problems("edgecls x") and problems("edgecls bench --treads 1") == ["--treads"]
    assert problems("edgecls train r.yaml -o train.epohcs=3") == ["train.epohcs=3"]
    assert not problems("edgecls train base -o train.epochs=3 --dry-run") and not problems(
        "edgecls COMMAND --help"
    )


def test_every_page_is_in_the_index():
    index = (ROOT / "docs/README.md").read_text(encoding="utf-8")
    missing = [page.name for page in PAGES[1:] if page.name != "README.md" and f"({page.name})" not in index]
    assert not missing


@pytest.fixture(scope="session")
def source():
    """The text of all our programs."""
    files = [p for folder in ("edgecls", "android_bench", "scripts") for p in (ROOT / folder).rglob("*")]
    return "".join(p.read_text(encoding="utf-8") for p in files if p.suffix in (".py", ".sh"))


def test_quoted_errors_exist(source):
    text = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
    quoted = [
        q for q in re.findall(r"^\| `([^`]+ [^`]+)`", text, re.MULTILINE) if not q.startswith("edgecls")
    ]
    assert quoted
    for line in quoted:
        parts = line.split("'x'")  # stands for a name
        assert all(part.strip() in source for part in parts), line


def test_spelling_is_american(page):
    text = re.sub(r"https?://\S+", "", page.read_text(encoding="utf-8"))
    british = (
        r"\b\w*(?:(?:colour|centre|grey|behaviour|neighbour|labelled|licence|isation)\w*|[lmnt]ise[sd]?)\b"
    )
    assert not [w for w in re.findall(british, text, re.IGNORECASE) if w.lower() not in ("noise", "promise")]


def test_environment_variables_exist(page, source):
    for name in set(re.findall(r"EDGECLS_[A-Z_]+", page.read_text(encoding="utf-8"))):
        assert name in source, name


def test_help_texts_are_complete():
    for name in cli.list_commands(None):
        command = cli.get_command(None, name)
        options = [p for p in command.params if isinstance(p, click.Option)]
        assert all(option.help for option in options if option.name != "split"), name
