"""Where android_bench keeps its files, for every user that a system may have."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from android_bench import DeviceMissing, folders
from android_bench.devices.binary import find_binary


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    names = ("CACHE", "CONFIG")
    for name in (
        f"{prefix}{n}{suffix}" for n in names for prefix, suffix in (("EDGECLS_", ""), ("XDG_", "_HOME"))
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A user without HOME and without an entry in the list of users."""

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(folders.Path, "home", no_home)
    monkeypatch.setattr(folders.tempfile, "gettempdir", lambda: str(tmp_path))
    return tmp_path / f"edgecls-{os.getuid()}"


def test_the_first_that_is_set_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert folders.cache_dir() == tmp_path / "home/.cache/edgecls"
    assert folders.config_folder() == tmp_path / "home/.config/edgecls"
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/xdg")
    assert folders.cache_dir() == folders.config_folder() == Path("/xdg/edgecls")
    monkeypatch.setenv("EDGECLS_CACHE", "/cache")
    monkeypatch.setenv("EDGECLS_CONFIG", "/config")
    assert (folders.cache_dir(), folders.config_folder()) == (Path("/cache"), Path("/config"))


def test_both_packages_have_one_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgecls.files import cache_dir

    for name, value in (("HOME", "/somewhere"), ("XDG_CACHE_HOME", "/xdg"), ("EDGECLS_CACHE", "/cache")):
        monkeypatch.setenv(name, value)
        assert cache_dir() == folders.cache_dir()


def test_programs_are_looked_for_in_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGECLS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("EDGECLS_BENCHMARK_MODEL", raising=False)
    program = tmp_path / "cache/benchmark_model/arm64-v8a/benchmark_model"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    assert find_binary(None, ("arm64-v8a",)) == program


def test_a_user_without_a_home_has_a_folder_of_their_own(homeless: Path) -> None:
    assert folders.cache_dir() == homeless / ".cache/edgecls"
    assert homeless.stat().st_mode & 0o777 == 0o700


def test_a_folder_of_someone_else_is_not_trusted(homeless: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    homeless.mkdir()
    monkeypatch.setattr(folders.os, "getuid", lambda: homeless.stat().st_uid + 1)
    (homeless.parent / f"edgecls-{os.getuid()}").mkdir()
    with pytest.raises(DeviceMissing, match=r"belongs to another user.*set HOME"):
        folders.config_folder()


def test_no_place_for_temporary_files(homeless: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders.tempfile, "gettempdir", lambda: "/nowhere")
    with pytest.raises(DeviceMissing, match=r"No such file.*set HOME") as error:
        folders.cache_dir()
    assert error.value.exit_code == 3 and "\n" not in str(error.value)
