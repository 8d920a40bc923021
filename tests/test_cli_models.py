"""What ``edgecls models`` shows fits a terminal and says at which size a figure was published."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

import edgecls
from edgecls.cli.main import main

Show = Callable[..., str]


@pytest.fixture
def show(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Show:
    """Run ``edgecls models`` in a terminal of a width and give what it prints."""

    def run(*args: str, columns: int = 80) -> str:
        monkeypatch.setenv("COLUMNS", str(columns))
        with pytest.raises(SystemExit) as ended:
            main(["models", *args])
        assert not ended.value.code
        return capsys.readouterr().out

    return run


def test_the_list_fits_80_columns_and_shows_more_in_wider_ones(show: Show) -> None:
    narrow, wide = show(), show(columns=120)
    assert max(map(len, narrow.splitlines())) <= 80 and "peak" not in narrow
    assert "peak M" in wide.splitlines()[0] and "alive at once" in wide
    for name in edgecls.list_models():
        assert f"\n{name} " in narrow, "a name is never cut"


@pytest.mark.parametrize("name", ["DeiT_base_distilled_patch16_224", "EfficientNetLite2"])
def test_one_network_fits_80_columns(show: Show, name: str) -> None:
    long = [line.split() for line in show(name).splitlines() if len(line) > 80]
    assert all(len(words) == 1 for words in long), "only an address that has no space"


def test_figures_published_for_another_input_are_marked(show: Show) -> None:
    name = "MobileNetV3_small_x1_0"
    plain, other = show(name), show(name, "--input-size", "96", columns=120)
    assert "published at" not in plain and "224 px, RGB" in plain
    lines = {line[:18].strip(): line[18:] for line in other.splitlines()}
    for key in ("top-1, %", "top-5, %", "SD855 fp32, ms", "file fp32, MB"):
        assert lines[key].endswith(", published at 224 px")
    assert lines["resize"].startswith("shorter side to 110 px") and lines["resize"].endswith("crop 96 px")
    result = json.loads(show(name, "--input-size", "96", "--json"))
    assert (result["input_size"], result["published_input_size"], result["crop"]) == (96, 224, 96)
