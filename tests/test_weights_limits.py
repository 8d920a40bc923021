"""A small weights file that would use up the memory or the time is refused in one line, before it is unpacked."""

from __future__ import annotations

import pickle
import resource
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from edgecls.weights import hdf5, readers
from edgecls.weights.readers import WeightsError

HUGE = 120 * 10**6  # bytes


@pytest.fixture(autouse=True)
def little_memory() -> Iterator[None]:
    """Whatever is unpacked all the same fails here, instead of filling the machine."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, limits)


def refused(read: Callable[[Path], object], path: Path, match: str) -> None:
    with pytest.raises(WeightsError, match=match) as caught:
        read(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def zip_of_zeros(path: Path, name: str) -> None:
    """A zip file with one member of HUGE zeros."""
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open(name, "w", force_zip64=True) as file,
    ):
        chunk = bytes(10**7)
        for _ in range(HUGE // len(chunk)):
            file.write(chunk)


@pytest.mark.parametrize(
    ("read", "name"),
    [
        (readers.read_npz, "fc.weight.npy"),
        (readers.read_torch, "archive/data.pkl"),
        (hdf5.read_keras, "model.weights.h5"),
    ],
)
def test_a_zip_bomb(read: Callable[[Path], object], name: str, tmp_path: Path) -> None:
    zip_of_zeros(tmp_path / "bomb", name)
    assert (tmp_path / "bomb").stat().st_size < 4e5
    refused(read, tmp_path / "bomb", "would unpack to 120 MB")


def test_an_array_that_is_nothing_but_its_fill_value(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("fc/kernel", (HUGE // 4,), "float32", chunks=(1000,))
    refused(hdf5.read_h5, tmp_path / "a.h5", "would unpack to 120 MB")


def test_a_pickle_that_numbers_an_object_so_high_that_memory_runs_out(tmp_path: Path) -> None:
    (tmp_path / "a.pdparams").write_bytes(b"\x80\x02}r\xff\xff\xff\x7f.")  # LONG_BINPUT 2147483647
    refused(readers.read_pdparams, tmp_path / "a.pdparams", "numbers an object 2147483647")


@pytest.mark.parametrize("inside", [[np.zeros(1)], []])
def test_lists_of_equal_lists(inside: list[object], tmp_path: Path) -> None:
    nested = inside
    for _ in range(30):
        nested = [nested] * 10
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"a": nested}))
    refused(readers.read_pickle, tmp_path / "a.pkl", "more than 65,536 entries")


def test_a_tensor_of_one_number_repeated() -> None:
    storage = readers._Storage("f4", 1)
    storage.fill(bytes(4))
    with pytest.raises(WeightsError, match=r"a tensor \[1000000000\] has only 1 numbers"):
        readers._Tensor(storage, 0, (10**9,), (0,)).array()


def test_weights_that_compress_well_are_read(tmp_path: Path) -> None:
    """Of a network that was never trained, half of the arrays are zero."""
    arrays = {"fc.weight": np.random.default_rng(0).normal(size=10**6), "fc.bias": np.zeros(10**6)}
    np.savez_compressed(tmp_path / "a.npz", **arrays)  # type: ignore[arg-type]
    assert np.array_equal(readers.read_npz(tmp_path / "a.npz")["fc.bias"], arrays["fc.bias"])
