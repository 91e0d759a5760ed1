"""The receivers that are compared, with their command lines.

A receiver appears at its defaults and at the best its documentation offers, and says what is on
stable storage when it answers 0000. That sentence is what strace showed while it received (fsync,
fdatasync, syncfs, sync_file_range, msync, files opened O_SYNC), not what a manual promises.
"""

from __future__ import annotations

import functools
import json
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from bench import programs
from bench.receiver import HERE, Receiver, Setup, Word, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


# --- command lines ---


def _fastscp(durability: str) -> Callable[[Setup], Sequence[Word]]:
    def command(setup: Setup) -> Sequence[Word]:
        words: list[Word] = [sys.executable, "-m", "fastscp", "serve", "--host", "127.0.0.1"]
        words += ["--port", "0", "--store", setup.store, "--durability", durability]
        words += ["--log-level", "warning"]
        return words if setup.workers is None else [*words, "--workers", str(setup.workers)]

    return command


def _storescp(*options: str) -> Callable[[Setup], Sequence[Word]]:
    return lambda setup: [
        programs.dcmtk("storescp"), *options, "-od", setup.store, str(setup.port)
    ]  # fmt: skip


def _dcmrecv(*options: str) -> Callable[[Setup], Sequence[Word]]:
    # Without a profile it knows Verification only; its manual says to use this one.
    def command(setup: Setup) -> Sequence[Word]:
        words: list[Word] = [programs.dcmtk("dcmrecv"), "-xf", programs.dcmtk_profile(), "Default"]
        return [*words, *options, "-od", setup.store, str(setup.port)]

    return command


ORTHANC_BEST = {
    # What the book of Orthanc advises for large archives, and what its configuration calls slow.
    "StorageCompression": False,
    "LimitFindResults": 100,
    "LimitFindInstances": 100,
    "StorageAccessOnFind": "Never",
    "SaveJobs": False,
    "StoreMD5ForAttachments": False,
    "MaximumStorageCacheSize": 0,
    "MaximumPduLength": 131072,
    "MetricsEnabled": False,
    "HttpServerEnabled": False,
}


def _orthanc_command(setup: Setup) -> Sequence[Word]:
    configuration = {
        "StorageDirectory": str(setup.store),
        "DicomPort": setup.port,
        # Its web server is on by default; only its port must not be in use.
        "HttpPort": free_port(),
        **setup.settings,
    }
    path = setup.folder / "orthanc.json"
    if setup.folder.is_dir():
        path.write_text(json.dumps(configuration, indent=2))
    return [programs.program("Orthanc"), path]


def _pynetdicom(setup: Setup) -> Sequence[Word]:
    words: list[Word] = [sys.executable, "-m", "pynetdicom", "storescp", "-ba", "127.0.0.1"]
    return [*words, "-od", setup.store, str(setup.port)]


def _pynetdicom_best(setup: Setup) -> Sequence[Word]:
    return [sys.executable, HERE / "pynetdicom_scp.py", str(setup.port), setup.store]


def _dcm4che_with(*options: str) -> Callable[[Setup], Sequence[Word]]:
    def command(setup: Setup) -> Sequence[Word]:
        jars = programs.dcm4che_jars()
        settings = jars.parent / "etc" / "storescp"
        words: list[Word] = [programs.program("java"), "-cp", f"{jars}/*:{settings}"]
        words += ["org.dcm4che3.tool.storescp.StoreSCP", "-b", str(setup.port)]
        # The list of SOP classes it accepts is part of the distribution, not of the jars.
        if not (settings / "sop-classes.properties").exists():
            words.append("--accept-unknown")
        return [*words, "--directory", setup.store, *options]

    return command


def _dicom_storescp(*options: str) -> Callable[[Setup], Sequence[Word]]:
    return lambda setup: [
        programs.program("dicom-storescp"), *options, "-o", setup.store, "-p", str(setup.port)
    ]  # fmt: skip


def _floor(setup: Setup) -> Sequence[Word]:
    return [programs.compiled(HERE / "floor.c"), "0", setup.store]


def _sink(_: Setup) -> Sequence[Word]:
    return [programs.compiled(HERE / "sink.c"), "0"]


# --- the list ---

NOTHING = "nothing flushed"
NO_DELAY = {"TCP_NODELAY": "1"}
FORK = ("--fork", "-pdu", "131072")


def _all_receivers() -> Iterator[Receiver]:
    stable = Receiver(
        name="fastscp",
        label="fastscp",
        durability="data, name, folders and journal flushed",
        shape="main process, and an event loop per --workers process",
        install="pip install -e .",
        command=_fastscp("stable"),
        version=programs.fastscp_version,
        picks_port=True,
        has_workers=True,
    )
    yield stable
    yield replace(
        stable,
        name="fastscp-buffered",
        label="fastscp, buffered",
        durability=NOTHING,
        command=_fastscp("buffered"),
    )

    storescp = Receiver(
        name="storescp",
        label="DCMTK storescp",
        durability=NOTHING,
        shape="one process, one association at a time",
        install="apt-get install dcmtk",
        command=_storescp(),
        version=functools.partial(programs.dcmtk_version, "storescp"),
        associations=1,
        rewrites=True,
    )
    yield storescp
    forked = replace(storescp, shape="a process per association", associations=None)
    yield replace(
        forked,
        name="storescp-best",
        label="DCMTK storescp, bit preserving",
        command=_storescp("+B", *FORK),
        environment=NO_DELAY,
        rewrites=False,
    )
    yield replace(
        forked,
        name="storescp-studies",
        label="DCMTK storescp, a folder per study",
        command=_storescp("-su", "study", *FORK),
        environment=NO_DELAY,
    )

    dcmrecv = replace(
        storescp,
        name="dcmrecv",
        label="DCMTK dcmrecv",
        command=_dcmrecv(),
        version=programs.dcmrecv_version,
    )
    yield dcmrecv
    yield replace(
        dcmrecv,
        name="dcmrecv-best",
        label="DCMTK dcmrecv, bit preserving",
        command=_dcmrecv("+B", "-pdu", "131072"),
        environment=NO_DELAY,
        rewrites=False,
    )

    orthanc = Receiver(
        name="orthanc",
        label="Orthanc",
        durability="data of the file flushed, not its folder; SQLite's index at checkpoints only",
        shape="one process, 4 threads take turns at the associations",
        install="apt-get install orthanc",
        command=_orthanc_command,
        version=programs.orthanc_version,
        # It takes more, but some of them may then wait for minutes.
        associations=4,
        rewrites=True,
    )
    yield orthanc
    yield replace(
        orthanc,
        name="orthanc-synced",
        label="Orthanc, tuned, files flushed",
        settings=ORTHANC_BEST,
        environment=NO_DELAY,
    )
    yield replace(
        orthanc,
        name="orthanc-best",
        label="Orthanc, tuned",
        durability="no file flushed; SQLite's index at checkpoints only",
        settings=ORTHANC_BEST | {"SyncStorageArea": False},
        environment=NO_DELAY,
    )

    pynetdicom = Receiver(
        name="pynetdicom",
        label="pynetdicom storescp",
        durability=NOTHING,
        shape="one process, a thread per association",
        install="pip install pynetdicom",
        command=_pynetdicom,
        version=functools.partial(programs.python_module_version, "pynetdicom"),
        associations=10,
        rewrites=True,
    )
    yield pynetdicom
    yield replace(
        pynetdicom,
        name="pynetdicom-best",
        label="pynetdicom, undecoded",
        command=_pynetdicom_best,
        associations=1000,
        rewrites=False,
    )

    dcm4che = Receiver(
        name="dcm4che",
        label="dcm4che storescp",
        durability="nothing flushed, by its source; not traced",
        shape="one process, a thread per association",
        install="unpack dcm4che-5.x-bin.zip of its releases, set FASTSCP_BENCH_DCM4CHE to the"
        " folder; needs java",
        command=_dcm4che_with(),
        version=programs.dcm4che_version,
    )
    yield dcm4che
    yield replace(
        dcm4che,
        name="dcm4che-best",
        label="dcm4che storescp, tuned",
        command=_dcm4che_with("--max-pdulen-rcv", "131072"),
    )

    dicom_rs = Receiver(
        name="dicom-rs",
        label="dicom-rs storescp",
        durability=NOTHING,
        shape="one process, a thread per association",
        install="cargo install dicom-storescp",
        command=_dicom_storescp(),
        version=programs.dicom_rs_version,
        rewrites=True,
    )
    yield dicom_rs
    yield replace(
        dicom_rs,
        name="dicom-rs-best",
        label="dicom-rs storescp, non-blocking",
        shape="one process, a task per association on a thread per CPU",
        # Promiscuous, for in this mode it refuses ultrasound images else.
        command=_dicom_storescp("--non-blocking", "--promiscuous", "--max-pdu-length", "131072"),
    )

    floor = Receiver(
        name="floor",
        label="floor (bench/floor.c)",
        durability=NOTHING,
        shape="one process, one thread",
        install="apt-get install gcc",
        command=_floor,
        version=functools.partial(programs.ours_in_c_version, "floor"),
        picks_port=True,
    )
    yield floor
    yield replace(
        floor,
        name="sink",
        label="sink (bench/sink.c)",
        durability="nothing stored",
        command=_sink,
        version=functools.partial(programs.ours_in_c_version, "sink"),
        stores=False,
    )


@functools.cache
def receivers() -> tuple[Receiver, ...]:
    """All receivers: ours, then the peers, then the two programs that mark the limits."""
    return tuple(_all_receivers())


def present() -> list[Receiver]:
    """Those that can be run here."""
    return [receiver for receiver in receivers() if receiver.find()]


def receiver(name: str) -> Receiver:
    """The receiver of that name. Raises ValueError, with the names there are."""
    for one in receivers():
        if one.name == name:
            return one
    names = ", ".join(one.name for one in receivers())
    raise ValueError(f"no receiver {name!r}; there are {names}")
