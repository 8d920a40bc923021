"""What --device means, against an adb server, USB and phones that the test plays itself."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from android_bench import BenchError, BenchUsageError, DeviceMissing
from android_bench import attached as seen
from android_bench.attached import Attached, from_adb_server, from_usb, split_address
from android_bench.devices import profiles, resolve


@contextlib.contextmanager
def server(answer: Callable[[bytes], bytes]) -> Iterator[tuple[str, int]]:
    """Listens on a free local port and sends ``answer(first bytes received)`` to each caller."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        connection.settimeout(2)
                        connection.sendall(answer(connection.recv(4096)))

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[:2]


def adb(lines: str) -> Callable[[bytes], bytes]:
    def answer(request: bytes) -> bytes:
        assert request == b"000chost:devices"
        return b"OKAY%04x%s" % (len(lines), lines.encode())

    return answer


@pytest.fixture(autouse=True)
def nothing_attached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No adb server (a port nobody listens on) and no USB, whatever this computer has."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(port))
    monkeypatch.setattr(seen, "_USB", tmp_path)
    monkeypatch.setattr("android_bench.devices.attached", lambda: seen.attached(seen._USB))


def test_profiles() -> None:
    assert len(profiles()) == 16
    for key, profile in profiles().items():
        masks = [cluster.mask for cluster in profile.clusters]
        assert sum(masks) == 0xFF, key  # eight cores, each in one cluster
        clocks = [cluster.max_khz for cluster in profile.clusters if cluster.max_khz]
        assert clocks == sorted(clocks), key
    sd855 = profiles()["sd855"]
    assert (sd855.soc_model, sd855.platform) == ("SM8150", "msmnile")
    assert [(c.mask, c.max_khz) for c in sd855.clusters] == [
        (0x0F, 1785600),
        (0x70, 2419200),
        (0x80, 2841600),
    ]


def test_host() -> None:
    assert resolve("host").kind == resolve("HOST").kind == "host"


@pytest.mark.parametrize("device", ["sd855", "SD855", "sd8elite", "R58M12345", "127.0.0.1:1"])
def test_nothing_attached_says_what_to_do(device: str) -> None:
    with pytest.raises(DeviceMissing) as error:
        resolve(device)
    assert error.value.exit_code == 3
    assert error.value.fix and "\n" not in str(error.value)


def test_near_names_are_offered() -> None:
    with pytest.raises(DeviceMissing, match=r"did you mean .*sd855"):
        resolve("sd-855")


@pytest.mark.parametrize("device", ["", " ", "sd 855", "a\nb"])
def test_not_a_name(device: str) -> None:
    with pytest.raises(BenchUsageError):
        resolve(device)


def test_adb_server(monkeypatch: pytest.MonkeyPatch) -> None:
    with server(adb("R58M\tdevice\n192.168.0.9:5555\toffline\n")) as (_, port):
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(port))
        assert [phone.state for phone in from_adb_server()] == ["device", "offline"]
        assert resolve("R58M").serial == "R58M"
        with pytest.raises(BenchError, match="several phones"):
            resolve("sd855")
        with pytest.raises(DeviceMissing, match=r"'offline'.*unlock"):
            resolve("192.168.0.9:5555")
        with pytest.raises(DeviceMissing, match="only R58M"):
            resolve("OTHER")


def test_one_phone_stands_for_its_soc(monkeypatch: pytest.MonkeyPatch) -> None:
    with server(adb("R58M\tdevice\n")) as (_, port):
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(port))
        target = resolve("sd855")
        assert target.serial == "R58M" and target.profile is profiles()["sd855"]


def test_unauthorised(monkeypatch: pytest.MonkeyPatch) -> None:
    with server(adb("R58M\tunauthorized\n")) as (_, port):
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(port))
        with pytest.raises(DeviceMissing, match="accept the USB debugging prompt"):
            resolve("sd855")


@pytest.mark.parametrize(
    "reply", [b"", b"OKAY", b"FAIL0003bad", b"OKAYzzzz", b"OKAY0010short", b"HTTP/1.1 400"]
)
def test_something_else_on_the_port(reply: bytes) -> None:
    with server(lambda request: reply) as address:
        assert from_adb_server(address) == []


def test_usb(tmp_path: Path) -> None:
    for name, fields in {
        "1-1": {"serial": "R58M"},
        "1-1:1.0": {"bInterfaceClass": "06", "bInterfaceSubClass": "01", "bInterfaceProtocol": "01"},
        "1-1:1.1": {"bInterfaceClass": "ff", "bInterfaceSubClass": "42", "bInterfaceProtocol": "01"},
        "2-1:1.0": {"bInterfaceClass": "ff", "bInterfaceSubClass": "42", "bInterfaceProtocol": "03"},
    }.items():
        (tmp_path / name).mkdir()
        for field, value in fields.items():
            (tmp_path / name / field).write_text(value + "\n")
    assert from_usb(tmp_path) == [Attached("R58M", "usb", "USB")]
    assert resolve("sd855").serial == "R58M"


def test_network_address() -> None:
    with server(lambda hello: b"AUTH" + bytes(20) if hello[:4] == b"CNXN" else b"") as (host, port):
        assert resolve(f"{host}:{port}").serial == f"{host}:{port}"
    with (
        server(lambda hello: b"HTTP/1.1 400 Bad Request\r\n\r\n") as (host, port),
        pytest.raises(DeviceMissing),
    ):
        resolve(f"{host}:{port}")


@pytest.mark.parametrize(
    ("text", "address"),
    [("a.b:5555", ("a.b", 5555)), ("[::1]:5555", ("::1", 5555)), ("R58M", None), (":1", None), ("a:0", None)],
)
def test_split_address(text: str, address: tuple[str, int] | None) -> None:
    assert split_address(text) == address
