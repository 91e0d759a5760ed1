"""Tables of called AE titles and of senders, in the whole service: all at once."""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import json
import os
import re
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pytest
import zstandard

from fastscp.cli import app as cli
from fastscp_ext import crc32c
from tests.kept.kit_kept import Item, Sent, data_in, items, send_all, versions_of
from tests.kit import (
    CT,
    DEADLINE_S,
    DEFLATED,
    ELE,
    ILE,
    MR,
    VERIFICATION,
    Peer,
    Service,
    abort,
    associate_rq,
    data_set,
    echo,
    reject,
    store,
    store_rq,
    wait_for,
)
from tests.kit import message as message_of
from tests.scripted import part10
from tests.unit.test_readme import section

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

KEPT: Final = 0xB006
JPEG2000_LOSSLESS: Final = "1.2.840.10008.1.2.4.90"
PRIVATE_CLASS: Final = "1.2.3.4.5.6"


class Table(NamedTuple):
    """How a called AE title is to be treated: what the file below says, in another form."""

    folder: str
    suffix: str
    digest: str
    buffered: bool
    policy: str

    def path(self, item: Item) -> str:
        study, series, name = item.path.split("/")
        middle = {"": f"{study}/{series}", "_research": f"_research/KIT-1/{study}"}
        return f"{middle.get(self.folder, f'{self.folder}/20240229')}/{name}" + self.suffix


TABLES: Final = {
    "ROUTER": Table("", "", "crc32c", buffered=False, policy="version"),
    "RESEARCH": Table("_research", ".zst", "sha256", buffered=True, policy="keep"),
    "ARCHIVE": Table("_archive", "", "sha256", buffered=False, policy="replace"),
}
SIDE_BY_SIDE: Final = """
ae-title = "ROUTER"

[ae.RESEARCH]
layout = "_research/{PatientID}/{StudyInstanceUID}/{SOPInstanceUID}.dcm"
durability = "buffered"
on-duplicate = "keep"
digest = "sha256"
compress = "zstd:1"

[ae.ARCHIVE]
layout = "_archive/{StudyDate}/{SOPInstanceUID}.dcm"
on-duplicate = "replace"
digest = "sha256"

[from.kit]
who = ["KIT@127.0.0.0/8"]

[from.sender]
who = ["FASTSCP@*"]
called = ["RESEARCH", "ARCHIVE"]
"""


def service_of(tmp_path: Path, text: str, *flags: str, **more: Any) -> Service:
    """A service with this file."""
    tmp_path.mkdir(exist_ok=True)
    file = tmp_path / "rules.toml"
    file.write_text(text, "utf-8")
    return Service(tmp_path, "--config", str(file), *flags, **more)


def not_started(tmp_path: Path, text: str) -> str:
    """What a start with this file says that ends with 2."""
    with (
        pytest.raises(AssertionError, match="ended with 2") as ended,
        service_of(tmp_path, text),
    ):
        pass
    return str(ended.value)


def asked(service: Service, *contexts: tuple[int, str, str], source: str = "", **more: Any) -> Peer:
    """A peer that has sent its request."""
    peer = Peer(service.host, service.port, source=source)
    peer.send(associate_rq(*contexts, **more))
    return peer


def associated(service: Service, *contexts: tuple[int, str, str], **more: Any) -> Peer:
    """source: the address it comes from; the rest as `associate_rq` takes it."""
    peer = asked(service, *contexts, **more)
    answer = peer.read_pdu()
    assert answer is not None
    assert answer[0] == 2, answer
    return peer


def refused(service: Service, **more: Any) -> tuple[int, ...]:
    """Result, source and reason of the rejection."""
    with asked(service, **more) as peer:
        answer = peer.read_pdu()
        assert answer is not None
        assert answer[0] == 3, answer
        assert answer == reject(*answer[7:10])
        return tuple(answer[7:10])


def stored(peer: Peer, data: bytes, sop: str, message_id: int = 1) -> int:
    """The status of its C-STORE."""
    peer.send(store(message_id, data, sop=sop))
    return peer.read_response().status


def data_at(service: Service, path: str) -> bytes:
    """The data set of a file, decompressed where it is compressed."""
    raw = (service.store / path).read_bytes()
    if ".zst" in path:
        raw = zstandard.ZstdDecompressor().decompressobj().decompress(raw)
    return data_in(raw)


def verified(service: Service, *words: str) -> tuple[int, str]:
    """Exit code and output of `fastscp verify`."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        code = cli.main(["verify", "--store", str(service.store), *words])
    return code, out.getvalue()


def ends(service: Service) -> list[dict[str, Any]]:
    """The lines of a JSON log that tell the end of an association."""
    lines = [json.loads(line) for line in service.log().splitlines() if line.startswith("{")]
    return [line for line in lines if "rules" in line]


# Side by side -------------------------------------------------------------------------------------


def to_all_at_once(service: Service, what: Sequence[Item]) -> dict[str, Sent]:
    """Send the same instances to each called AE title, over two associations each."""
    with ThreadPoolExecutor(len(TABLES)) as pool:
        sending = {
            title: pool.submit(send_all, service.port, what, associations=2, called=title)
            for title in TABLES
        }
        return {title: one.result() for title, one in sending.items()}


def sent_by_program(service: Service, folder: Path, title: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*Service.program(), "send", f"127.0.0.1:{service.port}", str(folder),
         "--called-ae", title, "-q"],
        env=Service.environment(), stdin=subprocess.DEVNULL,
    )  # fmt: skip


def has_digest(table: Table, fact: dict[str, Any], data: bytes) -> bool:
    if table.digest == "sha256":
        return bool(fact["digest"] == f"sha256:{hashlib.sha256(data).hexdigest()}")
    return bool(fact["digest"] == f"crc32c:{crc32c(data):08x}")


def as_its_table_says(
    service: Service, title: str, first: Sequence[Item], others: Sequence[Item]
) -> None:
    """Check files and lines. others: sent later, with the UIDs of some of the first."""
    table = TABLES[title]
    by_sop = {item.sop: item for item in others}
    facts: dict[str, list[dict[str, Any]]] = {}
    for fact in service.journal():
        if fact["called_ae"] == title:
            facts.setdefault(fact["sop_instance_uid"], []).append(fact)
            assert fact.get("durability") == ("buffered" if table.buffered else None), fact
            assert fact["bytes"] > 0
    for item in first:
        path, other = table.path(item), by_sop.get(item.sop)
        lines = facts[item.sop]
        assert lines[0]["path"] == path
        assert has_digest(table, lines[0], item.data)
        newest = data_at(service, path)
        if other is None:
            # It came twice as it was.
            assert [line.get("duplicate") for line in lines] == [None, "identical"]
            assert newest == item.data
            continue
        duplicate = {"version": "version", "keep": "kept", "replace": "replaced"}[table.policy]
        assert [line.get("duplicate") for line in lines] == [None, duplicate]
        assert newest == (other.data if table.policy == "replace" else item.data)
        beside = (service.store / f"{path}~2").exists()
        assert beside == (table.policy == "version")
        if beside:
            assert (lines[1]["path"], data_at(service, f"{path}~2")) == (f"{path}~2", other.data)
            assert has_digest(table, lines[1], other.data)


@pytest.mark.timeout(300)
def test_each_instance_is_kept_as_its_table_says(tmp_path: Path) -> None:
    """The same instances to three titles at once, by several senders; then the store is sound."""
    first = [*items("1", 12, pixels=34_000), *items("2", 12)]
    half = first[::2]
    others = [versions_of(item, 1, 500)[0] for item in half]
    files = tmp_path / "files"
    files.mkdir()
    by_program = items("3", 4, pixels=34_000)
    for number, item in enumerate(by_program):
        (files / f"{number}.dcm").write_bytes(part10(item.data, sop=item.sop))
    with service_of(tmp_path, SIDE_BY_SIDE, "--log-format", "json") as service:
        programs = [sent_by_program(service, files, title) for title in ("RESEARCH", "ARCHIVE")]
        for sent in to_all_at_once(service, first).values():
            assert not sent.broken
            assert sent.acknowledged == {item.sop for item in first}
        again = to_all_at_once(service, [*others, *first[1::2]])
        for title, sent in again.items():
            status = KEPT if TABLES[title].policy == "keep" else 0
            assert sent.statuses == {item.sop: [status if item in half else 0] for item in first}, (
                title
            )
        assert [program.wait(DEADLINE_S) for program in programs] == [0, 0]
        for title in TABLES:
            as_its_table_says(service, title, first, others)
        for title in ("RESEARCH", "ARCHIVE"):
            for item in by_program:
                assert data_at(service, TABLES[title].path(item)) == item.data
        of_all = {
            ("KIT", "ROUTER", "from.kit"),
            ("KIT", "RESEARCH", "ae.RESEARCH+from.kit"),
            ("KIT", "ARCHIVE", "ae.ARCHIVE+from.kit"),
            ("FASTSCP", "RESEARCH", "ae.RESEARCH+from.sender"),
            ("FASTSCP", "ARCHIVE", "ae.ARCHIVE+from.sender"),
        }
        # The line of an end may come behind it.
        wait_for(
            lambda: {
                (end["calling_ae"], end["called_ae"], end["rules"]) for end in ends(service)
            } == of_all,
            "the ends of all",
        )  # fmt: skip
        assert (service.store / ".fastscp/buffered").exists()
        code, said = verified(service)
        assert code == 0, said
    assert not (service.store / ".fastscp/buffered").exists()
    sound(service, first)


def sound(service: Service, first: Sequence[Item]) -> None:
    """What `verify` says of the whole and of a study, and what `cat` gives of each table."""
    code, said = verified(service)
    assert code == 0, said
    study = first[0].path.partition("/")[0]
    code, said = verified(service, "--study", study)
    assert code == 0, said
    for title in ("RESEARCH", "ARCHIVE"):
        path = TABLES[title].path(first[1])
        done = subprocess.run(
            [*Service.program(), "cat", path, "--store", str(service.store)],
            env=Service.environment(), capture_output=True, timeout=DEADLINE_S, check=True,
        )  # fmt: skip
        assert data_in(done.stdout) == first[1].data


def test_the_store_remembers_how_each_title_is_filed(tmp_path: Path) -> None:
    (item,) = items("1", 1)
    with service_of(tmp_path, SIDE_BY_SIDE) as service:
        assert send_all(service.port, [item], called="RESEARCH").acknowledged == {item.sop}
    path = TABLES["RESEARCH"].path(item)
    # The same file again: nothing to consent to, and what is there is found.
    with service_of(tmp_path, SIDE_BY_SIDE) as service:
        assert send_all(service.port, [item], called="RESEARCH").acknowledged == {item.sop}
        assert (service.instances(), service.journal()[-1]["duplicate"]) == ([path], "identical")
    # No changed layout is taken, nor a table that is dropped; a new one is.
    for changed in (
        SIDE_BY_SIDE.replace("_research/", "_imports/"),
        SIDE_BY_SIDE.replace("[ae.RESEARCH]", "[ae.OTHER]"),
    ):
        why = not_started(tmp_path, changed)
        assert "--layout-change" in why
        assert "RESEARCH" in why
    with service_of(tmp_path, SIDE_BY_SIDE + "[ae.MORE]\nlayout = '_more/{SOPInstanceUID}.dcm'\n"):
        pass


def test_two_layouts_that_can_give_one_path_are_refused(tmp_path: Path) -> None:
    text = '[ae.A]\nlayout = "{SOPInstanceUID}/{SeriesInstanceUID}/{StudyInstanceUID}.dcm"\n'
    assert "rules.toml:2: ae.A.layout: " in not_started(tmp_path, text)
    assert not (tmp_path / "store").exists()


# Who is let in, with what, how often and for how long ---------------------------------------------

LIMITED: Final = """
ae-title = "ROUTER"
check-called-ae = true
allow = ["*@*"]
max-associations-per-ae = 3

[ae.SMALL]
max-instance-size = "2 KiB"
sop-classes = ["CTImageStorage"]

[ae.ONE]
max-associations = 1

[ae."R 1"]
layout = "_room/{CalledAE}/{SOPInstanceUID}.dcm"

[ae."%FF%25"]
layout = "_odd/{CalledAE}/{SOPInstanceUID}.dcm"
durability = "buffered"

[ae.EMPTY]

[from.mr]
who = ["MR@*"]
sop-classes = ["MRImageStorage"]
transfer-syntaxes = ["ImplicitVRLittleEndian"]

[from.few]
who = ["FEW@*"]
max-associations = 2
max-associations-per-ae = 0

[from.hosts]
who = ["HOST@127.0.0.0/8"]
max-associations-per-host = 1

[from.rate]
who = ["RATE@*"]
max-association-rate = 1

[from.brief]
who = ["BRIEF@*"]
called = ["ROUTER", "%FF%25"]
idle-timeout = "0.2 s"

[from.slow]
who = ["SLOW@*"]
message-timeout = "0.2 s"

[from.odd]
who = ["%FE@*"]
called = ["R 1"]
max-instance-size = 2048
"""


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with service_of(tmp_path_factory.mktemp("limited"), LIMITED, "--log-format", "json") as service:
        yield service


def test_the_lists_of_each_table(limited: Service) -> None:
    contexts = ((1, CT, ELE), (3, MR, f"{ELE},{ILE}"), (5, MR, ELE), (7, VERIFICATION, ELE))
    for calling, called, accepted, why in (
        ("CT", "ROUTER", {1, 3, 5, 7}, ""),
        ("CT", "SMALL", {1, 7}, "MRImageStorage (not in [ae.SMALL] sop-classes)"),
        # The sender's table beats that of the title.
        ("MR", "SMALL", {3, 7}, "CTImageStorage (not in [from.mr] sop-classes); MRImageStorage"),
    ):
        with asked(limited, *contexts, calling=calling, called=called) as peer:
            answer = peer.read_pdu()
            assert answer is not None
            assert answer[0] == 2, answer
            results = _results(answer)
            assert {number for number, result in results.items() if not result} == accepted
            if why:
                line = limited.in_log(f"{peer.name}: {len(results) - len(accepted)} of 4")
                assert why in line
                syntaxes = "no transfer syntax in [from.mr] transfer-syntaxes: Explicit"
                assert (syntaxes in line) == (calling == "MR")
            peer.release()


def _results(answer: bytes) -> dict[int, int]:
    """Of each presentation context of an A-ASSOCIATE-AC. Source: PS3.8 9.3.3.2."""
    found, at = {}, 74
    while at < len(answer):
        if answer[at] == 0x21:
            found[answer[at + 4]] = answer[at + 6]
        at += 4 + int.from_bytes(answer[at + 2 : at + 4])
    return found


def test_the_limits_of_each_table(limited: Service) -> None:
    few = [associated(limited, calling="FEW", called="ROUTER") for _ in range(2)]
    assert refused(limited, calling="FEW", called="ROUTER") == (2, 3, 2)
    limited.in_log("rejected (2,3,2): [from.few] max-associations 2 reached")
    with associated(limited, calling="OTHER", called="ONE"):
        # Both tables count: this title's own is full, whoever asks.
        assert refused(limited, calling="MR", called="ONE") == (2, 3, 2)
        limited.in_log("rejected (2,3,2): [ae.ONE] max-associations 1 reached")
        # Nobody else is held back by it.
        associated(limited, calling="MR", called="ROUTER").close()
    for peer in few:
        peer.release()
    one = associated(limited, calling="HOST", called="ROUTER", source="127.0.0.2")
    two = associated(limited, calling="HOST", called="ROUTER", source="127.0.0.3")
    # Whoever has no table of the limit's is counted apart.
    three = associated(limited, calling="CT", called="ROUTER", source="127.0.0.2")
    assert refused(limited, calling="HOST", called="ROUTER", source="127.0.0.2") == (2, 3, 2)
    limited.in_log("[from.hosts] max-associations-per-host 1 reached by 127.0.0.2")
    for peer in (one, two, three):
        peer.release()
    wait_for(
        lambda: _is_refused(limited, calling="RATE", called="ROUTER"), "the second in one second"
    )
    limited.in_log("rejected (2,3,2): [from.rate] max-association-rate 1 reached by 127.0.0.1")
    many = [associated(limited, calling="MANY", called="ROUTER") for _ in range(3)]
    assert refused(limited, calling="MANY", called="R 1") == (2, 3, 2)
    limited.in_log("rejected (2,3,2): --max-associations-per-ae 3 reached by 'MANY'")
    for peer in many:
        peer.release()


def _is_refused(service: Service, **more: Any) -> bool:
    with asked(service, **more) as peer:
        answer = peer.read_pdu()
    assert answer is not None
    return answer == reject(2, 3, 2)


def test_the_times_and_the_size_of_each_table(limited: Service) -> None:
    large = data_set(sop="1.2.9", pixels=3000)
    with (
        associated(limited, calling="PATIENT", called="ROUTER") as patient,
        associated(limited, calling="BRIEF", called="ROUTER") as brief,
        associated(limited, calling="SLOW", called="ROUTER") as slow,
        associated(limited, calling="CT", called="SMALL") as small,
    ):
        brief_name, slow_name = brief.name, slow.name
        # A command without its data set.
        slow.send(message_of(store_rq(sop="1.2.8")))
        assert stored(small, large, "1.2.9") == 0xA700
        limited.in_log("max-instance-size 2048, and it has at least")
        assert stored(patient, large, "1.2.9") == 0
        # Whoever has no table is held to none of their times.
        assert brief.read_until_close() == abort(0, 0)
        assert slow.read_until_close() == abort(0, 0)
        patient.send(echo(2))
        assert patient.read_response().status == 0
        small.release()
        patient.release()
    assert "idle" in limited.in_log(f"BRIEF@{brief_name}: aborted")
    assert "message" in limited.in_log(f"SLOW@{slow_name}: aborted")


def test_called_titles_that_are_known_and_those_that_are_not(limited: Service) -> None:
    """Titles in any bytes; compared byte for byte, without their padding."""
    for called in ("NOBODY", "router", b"\xff", "%FF%25", "R  1", ""):
        assert refused(limited, calling="CT", called=called) == (1, 1, 7)
    limited.in_log("called AE title 'NOBODY' is not ours (--ae-title, --check-called-ae, [ae])")
    for calling, called, path, rules in (
        ("CT", "ROUTER", "1.2.3.1/1.2.3.1.1/1.7.0.dcm", "default"),
        ("CT", "EMPTY", "1.2.3.1/1.2.3.1.1/1.7.1.dcm", "ae.EMPTY"),
        ("CT", "R 1", "_room/R%201/1.7.2.dcm", "ae.R 1"),
        (b"\xfe", " R 1", "_room/R%201/1.7.3.dcm", "ae.R 1+from.odd"),
        ("CT", b"\xff%", "_odd/%FF%25/1.7.4.dcm", "ae.%FF%25"),
    ):
        sop = path.rpartition("/")[2].removesuffix(".dcm")
        with associated(limited, calling=calling, called=called) as peer:
            assert stored(peer, data_set(sop=sop), sop) == 0
            name = peer.name
            peer.release()
        end = json.loads(limited.in_log(f"{name}: released"))
        assert end["rules"] == rules
        (fact,) = (one for one in limited.journal() if one["sop_instance_uid"] == sop)
        assert (fact["path"], limited.data_of(path)) == (path, data_set(sop=sop))
        assert fact.get("durability") == ("buffered" if called == b"\xff%" else None)
        assert (end["stored"], end["called_ae"]) == (1, fact["called_ae"])


# Killed -------------------------------------------------------------------------------------------

KEEPING: Final = """
on-duplicate = "keep"

[ae.STABLE]
layout = "_stable/{StudyInstanceUID}/{SOPInstanceUID}.dcm"

[ae.BUFFERED]
layout = "_buffered/{StudyInstanceUID}/{SOPInstanceUID}.dcm"
durability = "buffered"
compress = "zstd:1"
"""


def sent_until(
    service: Service, what: Sequence[Item], victims: Sequence[int]
) -> dict[str, set[str]]:
    """Send to both titles; kill under way. Returns the UIDs acknowledged to each."""
    killed = threading.Event()

    def clock() -> Callable[[], int]:
        """Told when a sending begins and ends: nobody comes to the last before the kill."""
        asked = itertools.count()

        def now() -> int:
            if next(asked) > len(what):
                killed.wait(DEADLINE_S)
            return time.monotonic_ns()

        return now

    with ThreadPoolExecutor(2) as pool:
        sending = {
            title: pool.submit(send_all, service.port, what, called=title, clock=clock())
            for title in ("STABLE", "BUFFERED")
        }
        folders = {"_stable", "_buffered"}
        try:
            wait_for(
                lambda: {path.partition("/")[0] for path in service.instances()} == folders,
                "instances of both",
            )
            for pid in victims:
                os.kill(pid, signal.SIGKILL)
        finally:
            killed.set()
        sent = {title: one.result() for title, one in sending.items()}
    assert any(one.broken for one in sent.values())
    return {title: one.acknowledged for title, one in sent.items()}


def is_kept(service: Service, what: Sequence[Item], acknowledged: dict[str, set[str]]) -> None:
    """Each acknowledged instance has its file, and its line says what it was worth."""
    by_sop = {item.sop: item for item in what}
    facts = {(one["called_ae"], one["sop_instance_uid"]): one for one in service.journal()}
    for title, sops in acknowledged.items():
        for sop in sops:
            fact = facts[title, sop]
            assert data_at(service, fact["path"]) == by_sop[sop].data
            assert fact.get("durability") == {"BUFFERED": "buffered"}.get(title)


@pytest.mark.timeout(300)
def test_killed_with_a_stable_and_a_buffered_table_under_load(tmp_path: Path) -> None:
    """Nothing acknowledged is lost; then only files with a buffered line, or none, are suspect."""
    what = items("1", 60, pixels=34_000)
    with service_of(tmp_path, KEEPING) as service:
        first = sent_until(service, what, service.worker_pids()[:1])
        service.in_log("ended unexpectedly")
        wait_for(lambda: not service.parts(), "the sweep of the dead worker's parts")
        is_kept(service, what, first)
        second = sent_until(service, items("2", 60, pixels=34_000), [service.pid])
        service.process.wait(DEADLINE_S)
        service.leaves_nothing()
    what = [*what, *items("2", 60, pixels=34_000)]
    both = {title: first[title] | second[title] for title in first}
    with service_of(tmp_path, KEEPING) as service:
        service.in_log("stored buffered, by --durability or a table, did not stop cleanly")
        is_kept(service, what, both)
        again = {title: send_all(service.port, what, called=title) for title in both}
        for title, sent in again.items():
            assert sent.acknowledged == {item.sop for item in what}, title
        only_the_buffered_is_suspect(service, what[0])
        is_kept(service, what[1:], both | {title: {one.sop for one in what[1:]} for title in both})
    code, said = verified(service)
    assert code == 0, said
    assert not (service.store / ".fastscp/suspect").exists()


def only_the_buffered_is_suspect(service: Service, item: Item) -> None:
    """Damage a file of each table, and send another instance with its UIDs: who keeps, keeps."""
    paths = {
        title: next(
            one["path"] for one in service.journal()
            if (one["called_ae"], one["sop_instance_uid"]) == (title, item.sop)
        )
        for title in ("STABLE", "BUFFERED")
    }  # fmt: skip
    whole = {title: (service.store / path).read_bytes() for title, path in paths.items()}
    (other,) = versions_of(item, 1)
    for title, path in paths.items():
        (service.store / path).write_bytes(whole[title][:-20] + bytes(20))
        with associated(service, called=title) as peer:
            status = stored(peer, other.data, other.sop)
            peer.release()
        assert status == (KEPT if title == "STABLE" else 0), title
    assert data_at(service, paths["BUFFERED"]) == other.data
    (service.store / paths["STABLE"]).write_bytes(whole["STABLE"])


# The example of the README ------------------------------------------------------------------------


def example() -> str:
    """The file in the README, with networks of the loopback in the place of its own."""
    found = re.search(r"<!-- rules -->\n```toml\n(.*?)```", section("Rules"), re.DOTALL)
    assert found is not None
    text = found[1].replace("192.0.2.10", "127.2.0.10")
    return re.sub(r"@10\.", "@127.", text)


@pytest.mark.timeout(300)
def test_the_example_of_the_readme(tmp_path: Path) -> None:
    with service_of(tmp_path, example(), "--log-format", "json") as service:
        _modalities(service)
        _research(service)
        _gateway(service)
        for calling, called, source, why in (
            ("OTHER", "ROUTER", "127.1.2.5", (1, 1, 3)),
            ("CT1", "ROUTER", "127.1.3.7", (1, 1, 3)),
            ("CT1", "CLOUD", "127.1.2.5", (1, 1, 3)),
            ("ANY", "ROUTER", "127.9.3.4", (1, 1, 3)),
            ("GATEWAY", "CLOUD", "127.2.0.11", (1, 1, 3)),
            ("CT1", "NOBODY", "127.1.2.5", (1, 1, 7)),
        ):
            assert refused(service, calling=calling, called=called, source=source) == why
    code, said = verified(service)
    assert code == 0, said


def _modalities(service: Service) -> None:
    for number, (calling, source) in enumerate(
        (("CT1", "127.1.2.5"), ("MR1", "127.1.2.6"), ("US1", "127.1.3.7"))
    ):
        sop = f"1.6.{number}"
        party = {"calling": calling, "called": "ROUTER", "source": source}
        with asked(service, (1, CT, ELE), (3, PRIVATE_CLASS, ELE), **party) as peer:
            answer = peer.read_pdu()
            assert answer is not None
            assert _results(answer) == {1: 0, 3: 3}
            assert stored(peer, data_set(sop=sop), sop) == 0
            peer.release()
        (fact,) = (one for one in service.journal() if one["sop_instance_uid"] == sop)
        assert (fact["path"], fact.get("durability")) == (f"1.2.3.1/1.2.3.1.1/{sop}.dcm", None)
        service.in_log(f"'{PRIVATE_CLASS}' (not in [from.modalities] sop-classes)")
    many = [associated(service, **party) for _ in range(10)]
    assert refused(service, **party) == (2, 3, 2)
    service.in_log("--max-associations-per-host 10 reached by 127.1.3.7")
    for peer in many:
        peer.close()


def _research(service: Service) -> None:
    party = {"calling": "ANY%THING", "called": "RESEARCH", "source": "127.9.3.4"}
    many = [associated(service, **party) for _ in range(20)]
    assert refused(service, **party | {"source": "127.9.3.5"}) == (2, 3, 2)
    service.in_log("[from.research] max-associations 20 reached")
    for number, seed in enumerate((0, 0, 1)):
        data = data_set(sop="1.6.9", seed=seed)
        assert stored(many[0], data, "1.6.9", number + 1) == (KEPT if seed else 0)
    for peer in many:
        peer.close()
    path = "+research/KIT-1/1.2.3.1/1.6.9.dcm"
    assert service.data_of(path) == data_set(sop="1.6.9")
    facts = [one for one in service.journal() if one["sop_instance_uid"] == "1.6.9"]
    assert [(one["path"], one.get("duplicate"), one["durability"]) for one in facts] == [
        (path, None, "buffered"), (path, "identical", "buffered"), (path, "kept", "buffered")
    ]  # fmt: skip
    assert all(one["digest"].startswith("sha256:") for one in facts)


def _gateway(service: Service) -> None:
    party = {"calling": "GATEWAY", "called": "CLOUD", "source": "127.2.0.10"}
    contexts = ((1, CT, ELE), (3, CT, JPEG2000_LOSSLESS), (5, CT, ILE), (7, CT, DEFLATED))
    with asked(service, *contexts, **party) as peer:
        answer = peer.read_pdu()
        assert answer is not None
        assert _results(answer) == {1: 0, 3: 0, 5: 0, 7: 4}
        # As the standard wants it: the last element is cut.
        assert stored(peer, data_set(sop="1.6.10")[:-2], "1.6.10") == 0xC000
        assert stored(peer, data_set(sop="1.6.10"), "1.6.10", 2) == 0
        peer.release()
    assert service.data_of("_cloud/1.2.3.1/1.6.10.dcm") == data_set(sop="1.6.10")
    wait_for(lambda: _is_refused(service, **party), "more than 5 in one second")
    service.in_log("[from.gateway] max-association-rate 5 reached by 127.2.0.10")
