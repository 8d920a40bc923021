"""What --device means, against an adb server, USB and phones that the test plays itself."""

import contextlib
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from adbd import AdbServer
from phone import Phone, furnish

from android_bench import BenchError, BenchUsageError, DeviceMissing
from android_bench.adb.address import adb_server_address, split_address
from android_bench.adb.link import open_link
from android_bench.devices import attached as seen
from android_bench.devices.attached import Attached, from_adb_server, from_usb
from android_bench.devices.naming import resolve
from android_bench.devices.profiles import called, entries, profiles
from android_bench.devices.survey import survey


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
        if request != b"000chost:devices":
            return b"FAIL0004gone"
        return b"OKAY%04x%s" % (len(lines), lines.encode())

    return answer


@pytest.fixture(autouse=True)
def nothing_attached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No adb server (a port nobody listens on), no USB and no devices.yaml, whatever this computer has."""
    monkeypatch.setenv("EDGECLS_CONFIG", str(tmp_path / "config"))
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(port))
    monkeypatch.delenv("ADB_SERVER_SOCKET", raising=False)
    monkeypatch.delenv("ANDROID_SERIAL", raising=False)
    monkeypatch.setattr(seen, "_USB", tmp_path / "usb")
    monkeypatch.setattr("android_bench.devices.naming.attached", lambda: seen.attached(seen._USB))


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
        resolve("sd-8555")


@pytest.mark.parametrize("device", ["", " ", "a\nb", "ä"])
def test_not_a_name(device: str) -> None:
    with pytest.raises(BenchUsageError):
        resolve(device)


def test_adb_server(monkeypatch: pytest.MonkeyPatch) -> None:
    with server(adb("R58M\tdevice\n192.168.0.9:5555\toffline\n")) as (_, port):
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(port))
        assert [phone.state for phone in from_adb_server()] == ["device", "offline"]
        assert resolve("R58M").serial == "R58M"
        with pytest.raises(
            DeviceMissing, match=r"no attached phone is a Snapdragon 855 .*R58M .*adb says 'offline'"
        ):
            resolve("sd855")
        with pytest.raises(DeviceMissing, match=r"'offline'.*unlock"):
            resolve("192.168.0.9:5555")
        with pytest.raises(DeviceMissing, match="only R58M"):
            resolve("OTHER")


def test_one_phone_stands_for_its_soc(monkeypatch: pytest.MonkeyPatch) -> None:
    with server(adb("R58M\tdevice\n")) as (_, port):
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(port))
        target = resolve("sd855")
        assert target.serial == "R58M" and target.socs == (profiles()["sd855"],)


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
    tmp_path /= "usb"
    tmp_path.mkdir()
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


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("sd855", {"sd855"}),
        ("SD-855", {"sd855"}),
        ("Snapdragon 855+", {"sd855p"}),
        ("sm8150", {"sd855", "sd855p"}),
        ("snapdragon", set()),
    ],
)
def test_what_people_call_a_chip(name: str, keys: set[str]) -> None:
    assert {profile.key for profile in called(name)} == keys


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_own_entries_are_laid_over_the_built_in_ones(tmp_path: Path) -> None:
    chip = 'SD900: {name: Snapdragon 900, match: {soc_model: SM9, platform: p}, clusters: [["0f", null], [f0, 2000000]]}\n'
    write(tmp_path / "config/devices.yaml", f"{chip}mine: {{serial: R58M, soc: SM8150, binary: bin/tool}}\n")
    write(tmp_path / "project/devices.yaml", "Mine: {serial: OTHER}\nsd855: {binary: /opt/tool}\n")
    own = entries()
    assert own["mine"].serial == "OTHER" and own["mine"].soc == "SM8150"
    assert own["mine"].binary == str(tmp_path / "config/bin/tool")
    assert own["sd855"].binary == "/opt/tool" and own["sd855"].profile.name == "Snapdragon 855"
    assert [c.mask for c in own["sd900"].profile.clusters] == [0x0F, 0xF0] and len(profiles()) == 17
    write(tmp_path / "project/devices.yaml", "{}")
    assert entries()["mine"].serial == "R58M"  # read again when it changes


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("mine: {serail: R58M}", r"no field 'serail'.*devices\.yaml.*did you mean serial"),
        ("mine: {serial: 123}", r"mine\.serial: expected text \(in quotes\), not 123"),
        ("mine: R58M", "expected fields such as serial"),
        ("- mine", "must be a mapping"),
        ("a: [", r"not YAML \(.*devices\.yaml:\d\)"),
        ("host: {serial: X}", "cannot be a device's name"),
        ("new: {name: X}", "a chip without match"),
        ("new: {name: X, match: {soc_model: Y}, clusters: []}", "a chip without platform"),
        ("sd855: {clusters: [[xx, 1]]}", "clusters cannot be read"),
        ("mine: {binary: ~nobody-of-this-name/tool}", r"mine\.binary: no home folder.*write the whole path"),
        ("mine: {soc: sd999}", "no chip is called 'sd999'"),
    ],
)
def test_wrong_devices_yaml_is_one_line(text: str, says: str, tmp_path: Path) -> None:
    write(tmp_path / "project/devices.yaml", text)
    assert resolve("host").kind == "host"  # whatever the file says
    with pytest.raises(BenchUsageError, match=says) as error:
        resolve("mine")
    assert "\n" not in str(error.value)


@pytest.fixture
def several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AdbServer]:
    """An adb server with a Pixel 4 (855), a Galaxy (865) and another 855."""
    phones = {serial: Phone(tmp_path / serial) for serial in ("PIXEL", "GALAXY", "MI9")}
    for serial, phone in phones.items():
        furnish(phone.root, ro__soc__model="SM8250" if serial == "GALAXY" else "SM8150")
    for core in range(4):
        clock = tmp_path / f"GALAXY/sys/devices/system/cpu/cpu{core}/cpufreq/cpuinfo_max_freq"
        clock.write_text("1804800\n")
    running = AdbServer(phones).start()
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(running.port))
    yield running
    running.stop()


def test_the_one_of_several_phones_that_has_the_chip(several: AdbServer, tmp_path: Path) -> None:
    assert resolve("sd865").serial == "GALAXY"
    with pytest.raises(
        DeviceMissing, match=r"no attached phone is a Snapdragon 888 .*PIXEL \(Snapdragon 855\)"
    ):
        resolve("sd888")
    with pytest.raises(
        BenchError, match=r"several attached phones.*PIXEL.*GALAXY.*MI9.*by its serial"
    ) as error:
        resolve("sd855")
    assert error.value.exit_code == 1 and "\n" not in str(error.value)
    write(
        tmp_path / "project/devices.yaml",
        "mine: {serial: MI9, soc: sd855}\nsd855: {serial: PIXEL, binary: /b}\n",
    )
    assert resolve("MINE").serial == "MI9" and resolve("MINE").socs == (profiles()["sd855"],)
    assert (resolve("sd855").serial, resolve("sd855").binary) == ("PIXEL", "/b")
    del several.phones["MI9"]
    with pytest.raises(
        DeviceMissing, match=r"no device 'MI9' \(mine in devices\.yaml\) is attached, only PIXEL"
    ):
        resolve("mine")


def test_a_phone_that_is_not_ready_does_not_stand_in_the_way(
    several: AdbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = [Attached("NEW", "unauthorized", "adb server"), Attached("PIXEL", "device", "adb server")]
    monkeypatch.setattr("android_bench.devices.naming.attached", lambda: listed)
    assert resolve("sd855").serial == "PIXEL"
    with pytest.raises(DeviceMissing, match=r"NEW \(.*'unauthorized'\), PIXEL \(Snapdragon 855\)"):
        resolve("sd865")


def test_twins_that_do_not_tell_their_clocks_are_either(several: AdbServer, tmp_path: Path) -> None:
    for clock in (tmp_path / "PIXEL").rglob("cpuinfo_max_freq"):
        clock.unlink()
    for serial in ("GALAXY", "MI9"):
        del several.phones[serial]
    (row,) = survey()["devices"]
    assert row["profile"] is None and row["profiles"] == ["sd855", "sd855p"] and row["soc"] == "SM8150"
    several.phones["SECOND"] = several.phones["PIXEL"]
    with pytest.raises(BenchError, match="could be meant"):
        resolve("sd855")


def test_own_names_are_listed(several: AdbServer, tmp_path: Path) -> None:
    write(tmp_path / "project/devices.yaml", "mine: {serial: MI9}\nold: {serial: '127.0.0.1:1'}\n")
    rows = {row["serial"]: row for row in survey()["devices"]}
    assert rows["MI9"]["entry"] == "mine" and rows["PIXEL"]["entry"] is None and len(rows) == 3


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("tcp:5099", ("127.0.0.1", 5099)),
        ("tcp:desk:5099", ("desk", 5099)),
        ("tcp:[::1]:5099", ("::1", 5099)),
        ("tcp:localhost", ("localhost", 5555)),  # as adb 1.0.41 does
        ("localfilesystem:/run/adb", "/run/adb"),
        ("local:/run/adb", "/run/adb"),
        ("localabstract:adb", "\0adb"),
    ],
)
def test_where_the_adb_server_listens(
    name: str, address: tuple[str, int] | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADB_SERVER_SOCKET", name)  # it goes before the two others
    assert adb_server_address() == address


@pytest.mark.parametrize("name", ["5037", "tcp:", "tcp:0", "tcp:a:99999", "udp:5037", "localfilesystem:"])
def test_a_socket_that_is_none(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADB_SERVER_SOCKET", name)
    with pytest.raises(BenchUsageError, match=r"ADB_SERVER_SOCKET=.*tcp:HOST:PORT") as error:
        resolve("sd855")
    assert error.value.exit_code == 2 and "\n" not in str(error.value)


def test_a_server_at_a_path(several: AdbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The phones are found there and measured through it; the path is a pipe to the test's server."""
    place = tempfile.mkdtemp(prefix="adb-")  # pytest's own folders have names too long for a socket
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(f"{place}/adb")
        listener.listen()
        threading.Thread(target=relay, args=(listener, several.address), daemon=True).start()
        monkeypatch.setenv("ADB_SERVER_SOCKET", f"localfilesystem:{place}/adb")
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", "1")
        assert resolve("sd865").serial == "GALAXY"
        link = open_link("GALAXY", "adb server")
        assert link.run("getprop").code == 0
        link.close()
    shutil.rmtree(place)


def relay(listener: socket.socket, address: tuple[str, int]) -> None:
    """Joins each caller with a connection to ``address``."""

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    with contextlib.suppress(OSError):
        while True:
            caller, _ = listener.accept()
            server_side = socket.create_connection(address)
            for ends in ((caller, server_side), (server_side, caller)):
                threading.Thread(target=pump, args=ends, daemon=True).start()


def test_android_serial_says_which_phone_is_meant(
    several: AdbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANDROID_SERIAL", "MI9")
    assert resolve("sd855").serial == "MI9"
    assert resolve("PIXEL").serial == "PIXEL"  # what the command names goes before it, as with adb -s
    assert resolve("sd865").serial == "MI9"  # its chip is checked when it is opened
    monkeypatch.setenv("ANDROID_SERIAL", "OTHER")
    with pytest.raises(DeviceMissing, match=r"ANDROID_SERIAL=OTHER.*attached: PIXEL, GALAXY, MI9") as error:
        resolve("sd855")
    assert "\n" not in str(error.value)
    with server(lambda hello: b"AUTH" + bytes(20)) as (host, port):
        monkeypatch.setenv("ANDROID_SERIAL", f"{host}:{port}")
        assert (resolve("sd855").serial, resolve("sd855").via) == (f"{host}:{port}", "network")


@pytest.mark.parametrize("text", ["192.168.1.7", "pixel.local", "localhost", "[fe80::1]"])
def test_an_address_without_its_port(text: str) -> None:
    with pytest.raises(DeviceMissing) as missing:
        resolve(text)
    assert missing.value.fix == f"an address needs its port, for example {text}:5555"
    with pytest.raises(BenchUsageError) as usage:
        survey([text])
    assert usage.value.fix == f"write {text}:5555"
