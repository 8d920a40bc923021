"""Defaults of a place and error texts, for sections of every form: also forms that the recipe does not have yet."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field, ValidationError

from edgecls import _load, _schema, _yaml
from edgecls._explain import usage_error
from edgecls._schema import OnDisk, Section


class Sgd(Section):
    name: Literal["sgd"] = "sgd"
    lr: float = 0.1
    momentum: float = 0.9


class Adam(Section):
    name: Literal["adam"] = "adam"
    lr: float = 0.1


class Part(Section):
    epochs: int = 1
    file: Annotated[str, OnDisk()] | None = None
    optimizer: Annotated[Sgd | Adam, Field(discriminator="name")] = Sgd()


class Phase(Section):
    part: Part = Part(epochs=7)


class Top(Section):
    part: Part = Part(optimizer=Sgd(lr=0.5))
    made: Part = Field(default_factory=lambda: Part(epochs=3))
    phases: list[Phase] = Field(default=[])
    maybe: Part | None = None
    either: Phase | str | None = None


def read(text: str) -> Top:
    return Top.model_validate(_load.absolute(Top, _yaml.parse(text, "r.yaml", Path("/folder"))))


def refused(text: str) -> str:
    tree = _yaml.parse(text, "r.yaml", Path())
    with pytest.raises(ValidationError) as error:
        Top.model_validate(_load.absolute(Top, tree))
    return str(usage_error(error.value, tree, Top))


def test_a_place_keeps_its_defaults():
    assert read("part: {epochs: 2}").part == Part(epochs=2, optimizer=Sgd(lr=0.5))
    assert read("part: {optimizer: {momentum: 0.1}}").part.optimizer == Sgd(lr=0.5, momentum=0.1)
    assert (
        read("part: {optimizer: {name: adam}}").part.optimizer == Adam()
    )  # another section: its own defaults
    assert read("made: {file: null}").made.epochs == 3
    assert [p.part.epochs for p in read("phases: [{part: {file: null}}, {part: {epochs: 2}}]").phases] == [
        7,
        2,
    ]
    assert read("maybe: {}").maybe == Part()
    assert read("either: {part: {file: null}}").either == Phase()
    assert Top(part=Part()).part.optimizer.lr == 0.1  # given whole, in Python


def test_paths_inside_lists_of_sections_are_absolute():
    assert read("phases: [{part: {file: a.txt}}]").phases[0].part.file == "/folder/a.txt"
    assert read("either: {part: {file: a.txt}}").either.part.file == "/folder/a.txt"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("part: {optimizer: {name: adam, lr: x}}", "part.optimizer.lr: expected a number"),
        ("part: {optimizer: {name: adm}}", "part.optimizer: expected 'name' to be one of 'sgd', 'adam'"),
        ("part: {optimizer: {name: adam, lrr: 1}}", "unknown key 'part.optimizer.lrr'"),
        ("part:\n  optimizer: {name: adam}\n  epochz: 1", "(r.yaml:3); did you mean 'part.epochs'?"),
        ("phases:\n- part: {}\n- part: {epochs: x}", "phases[1].part.epochs: expected a whole number"),
        ("phases:\n- part: {}\n- part: {epochz: 1}", "'phases[1].part.epochz' (r.yaml:3)"),
        ("maybe: {epochz: 1}", "did you mean 'maybe.epochs'?"),
        ("either: {part: {epochs: x}}", "either.part.epochs: expected a whole number"),
        ("momentum: 1.0", "did you mean one of 'part.optimizer.momentum', 'made.optimizer.momentum', "),
    ],
)
def test_errors_name_the_key(text, line):
    assert line in refused(text)


def test_walking_finds_the_keys_of_every_form():
    defaults = [(key.dotted, key.default) for key in _schema.keys(Top)]
    assert {("part.optimizer.lr", 0.5), ("part.optimizer.lr", 0.1), ("made.epochs", 3)} <= set(defaults[1:12])
    assert ("phases.part.epochs", 7) in defaults and ("maybe.epochs", 1) in defaults
