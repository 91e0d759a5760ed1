"""`fastscp send` into other people's receivers and our own, byte for byte."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import threading
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fastscp.cli import app as cli
from tests.conftest import shared
from tests.interop.material import data_set_at, dcmtk, instances_below, made_up
from tests.kit import CT, DEADLINE_S, ELE, Service, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.interop.material import Instance

pytestmark = [
    pytest.mark.interop,
    # pydicom on UIDs that real files have.
    pytest.mark.filterwarnings("ignore:Invalid value for VR:UserWarning"),
]

# Neither is in DCMTK 3.6.7's tables: high-throughput JPEG 2000, and a private one's like.
_UNKNOWN_TO_DCMTK = {"1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.8.1"}


def sent(capsys: pytest.CaptureFixture[str], tmp_path: Path, *arguments: object) -> dict[str, Any]:
    """The summary of a run, with the lines of its report."""
    report = tmp_path / "report.jsonl"
    code = cli.main(["send", *map(str, arguments), "--json", "--report", str(report)])
    summary: dict[str, Any] = json.loads(capsys.readouterr().out)
    summary["code"] = code
    summary["lines"] = [json.loads(line) for line in report.read_text().splitlines()]
    return summary


@contextlib.contextmanager
def program(tmp_path: Path, *command: str) -> Iterator[int]:
    """A receiver that takes its port as the last argument; ready when somebody can connect."""
    log = tmp_path / "receiver.log"
    for _ in range(20):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = int(free.getsockname()[1])
        with log.open("wb") as out:
            process = subprocess.Popen([*command, str(port)], stdout=out, stderr=out, cwd=tmp_path)
        try:
            wait_for(lambda: _connects(port) or process.poll() is not None, "the receiver")  # noqa: B023
        except BaseException:
            process.kill()
            process.wait(DEADLINE_S)
            raise
        # Somebody else may take the port meanwhile, at any address.
        if process.poll() is None or "Address already in use" not in log.read_text():
            break
    try:
        assert process.poll() is None, log.read_text()
        yield port
    finally:
        process.kill()
        process.wait(DEADLINE_S)


def _connects(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def arrived(folder: Path) -> Counter[bytes]:
    """The data sets in a folder of Part 10 files."""
    found: Counter[bytes] = Counter()
    for path in folder.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            found[data[data_set_at(data) :]] += 1
    return found


def by_name(instances: list[Instance]) -> Counter[bytes]:
    """The data sets, the last one of an instance that is there more than once."""
    return Counter({one.sop_instance: one.data_set for one in instances}.values())


@pytest.mark.parametrize("options", [[], ["--window", "4"], ["--associations", "3"]])
def test_shared_data_into_our_own(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, options: list[str]
) -> None:
    instances, others = instances_below(shared("data"))
    with Service(tmp_path, "--durability", "buffered") as service:
        summary = sent(capsys, tmp_path, f"127.0.0.1:{service.port}", shared("data"), *options)
        assert summary["stored"] == len(instances)
        # Those without Study and Series Instance UID are refused, and named.
        assert summary["failed"] == len(others)
        refused = {Path(one["path"]).name for one in summary["lines"] if one["status"] == "C000"}
        assert refused == set(others)
        # Those that differ under one name are kept as versions.
        kept = [service.data_of(path) for path in service.instances()]
        assert Counter(kept) == Counter({one.data_set for one in instances})


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("window", ["1", "8"])
def test_shared_data_into_storescp(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, tls: bool, window: str
) -> None:
    receiver = dcmtk("storescp")
    instances, others = instances_below(shared("data"))
    out = tmp_path / "out"
    out.mkdir()
    # Unique names: instances of one UID and different bytes would overwrite one another.
    command = [receiver, "+B", "+xa", "-od", str(out), "+uf"]
    options: list[str] = ["--window", window]
    if tls:
        key, certificate = certificate_of(tmp_path)
        command += ["+tls", str(key), str(certificate), "-ic"]
        options += ["--tls-ca", str(certificate)]
    with program(tmp_path, *command) as port:
        summary = sent(capsys, tmp_path, f"127.0.0.1:{port}", shared("data"), *options)
        if tls:
            untrusted = sent(capsys, tmp_path, f"127.0.0.1:{port}", shared("data"), "--tls")
            assert untrusted["stored"] == 0
            assert "signed by nobody who is trusted here" in next(iter(untrusted["reasons"]))
    refused = [one for one in summary["lines"] if one["outcome"] == "failure"]
    assert len(refused) == 2
    assert all("transfer syntaxes not supported" in one["error"] for one in refused)
    assert summary["stored"] == len(instances) + len(others) - 2
    found = arrived(out)
    wanted = {one.data_set for one in instances if one.transfer_syntax not in _UNKNOWN_TO_DCMTK}
    assert wanted <= set(found)


def certificate_of(folder: Path) -> tuple[Path, Path]:
    """A key and a certificate for this machine, self-made."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not there")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-keyout", str(key), "-out", str(certificate), "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )
    return key, certificate


def test_into_dcmrecv(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    receiver = dcmtk("dcmrecv")
    instances = made_up(tmp_path / "in", "1.2.3.44", 50, pixels=200_000)
    profile = tmp_path / "dcmrecv.cfg"
    profile.write_text(
        "[[TransferSyntaxes]]\n[Any]\nTransferSyntax1 = LittleEndianExplicit\n"
        f"[[PresentationContexts]]\n[Some]\nPresentationContext1 = {CT}\\Any\n"
        "[[Profiles]]\n[Default]\nPresentationContexts = Some\n"
    )
    out = tmp_path / "out"
    out.mkdir()
    command = [receiver, "-xf", str(profile), "Default", "--bit-preserving"]
    with program(tmp_path, *command, "--output-directory", str(out)) as port:
        summary = sent(capsys, tmp_path, f"127.0.0.1:{port}", tmp_path / "in")
    assert (summary["code"], summary["stored"]) == (0, 50)
    assert arrived(out) == by_name(instances)


def test_into_pynetdicom(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from pynetdicom import AE, evt
    from pynetdicom.service_class import StorageServiceClass
    from pynetdicom.sop_class import register_uid

    # Retired, so not in its tables; without an entry it aborts.
    register_uid("1.2.840.10008.5.1.4.1.1.6", "UltrasoundImageStorageRetired", StorageServiceClass)
    instances, others = instances_below(shared("data"))
    taken: Counter[bytes] = Counter()
    lock = threading.Lock()

    def store(event: evt.Event) -> int:
        request: Any = event.request
        with lock:
            taken[request.DataSet.getvalue()] += 1
        return 0x0000

    ae = AE()
    heads = {one.context for one in instances}
    for sop_class, syntax in heads:
        ae.add_supported_context(sop_class, syntax)
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    assert server is not None
    try:
        port = server.server_address[1]
        summary = sent(capsys, tmp_path, f"127.0.0.1:{port}", shared("data"), "--associations", "2")
    finally:
        server.shutdown()
        server.server_close()
    arrivals = [one for one in summary["lines"] if one["status"] == "0000"]
    assert len(arrivals) >= len(instances)
    assert {one.data_set for one in instances} <= set(taken)
    assert sum(taken.values()) == len(arrivals)
    assert len(arrivals) + summary["failed"] == len(instances) + len(others)


@pytest.mark.long
@pytest.mark.parametrize("receiver", ["fastscp", "storescp"])
def test_a_thousand(capsys: pytest.CaptureFixture[str], tmp_path: Path, receiver: str) -> None:
    instances = made_up(tmp_path / "in", "1.2.3.45", 1000, pixels=30_000)
    wanted = by_name(instances)
    if receiver == "fastscp":
        with Service(tmp_path) as service:
            summary = sent(
                capsys, tmp_path, f"127.0.0.1:{service.port}", tmp_path / "in",
                "--window", "16", "--associations", "4",
            )  # fmt: skip
            assert Counter(map(service.data_of, service.instances())) == wanted
    else:
        out = tmp_path / "out"
        out.mkdir()
        with program(tmp_path, dcmtk("storescp"), "+B", "--fork", "-od", str(out)) as port:
            summary = sent(
                capsys, tmp_path, f"127.0.0.1:{port}", tmp_path / "in", "--associations", "4"
            )
            assert arrived(out) == wanted
    assert (summary["code"], summary["stored"]) == (0, 1000)


@pytest.mark.long
def test_into_orthanc(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    orthanc = shutil.which("Orthanc")
    if orthanc is None:
        pytest.skip("Orthanc is not there: install the package orthanc")
    instances = made_up(tmp_path / "in", "1.2.3.46", 100, pixels=30_000)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    (tmp_path / "orthanc.json").write_text(
        json.dumps(
            {
                "StorageDirectory": str(tmp_path / "db"),
                "IndexDirectory": str(tmp_path / "db"),
                "DicomPort": port,
                "HttpServerEnabled": False,
                "DicomServerEnabled": True,
                "StorageCompression": False,
                "Plugins": [],
            }
        )
    )
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [orthanc, str(tmp_path / "orthanc.json")], stdout=log, stderr=log, cwd=tmp_path
        )
    try:
        wait_for(lambda: _connects(port), "Orthanc")
        summary = sent(
            capsys, tmp_path, f"127.0.0.1:{port}", tmp_path / "in", "--associations", "2"
        )
        assert (summary["code"], summary["stored"]) == (0, 100)
    finally:
        process.terminate()
        process.wait(DEADLINE_S)
    kept = set()
    for root, _, files in os.walk(tmp_path / "db"):
        for name in files:
            data = Path(root, name).read_bytes()
            if data[128:132] == b"DICM":
                kept.add(data[data_set_at(data) :])
    assert {one.data_set for one in instances} == kept
    assert {one.transfer_syntax for one in instances} == {ELE}
