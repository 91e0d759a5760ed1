"""Data sets of all kinds sent to the service: where an instance belongs is never guessed.

Each is filed under its own study, byte for byte as it was sent, or refused and nothing is left of
it; a legal one is never refused.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import pytest

from tests.datasets.case import Case, case
from tests.kit import BIG, DEFLATED, ELE, ILE, Service, path_of, store

if TYPE_CHECKING:
    from pathlib import Path

SYNTAXES = {"Explicit LE": ELE, "Implicit LE": ILE, "Explicit BE": BIG}
# No Study or Series Instance UID found; another UID than in the command; none that can be a name.
REFUSED = (0xC000, 0xA900, 0x0117)
AT_A_TIME = 60  # an association proposes at most 128 contexts


def deflated(data: bytes) -> bytes:
    deflate = zlib.compressobj(wbits=-15)
    packed = deflate.compress(data) + deflate.flush()
    return packed + bytes(len(packed) % 2)


def sent(one: Case) -> tuple[str, bytes]:
    """Transfer syntax and bytes; every third explicit one is deflated."""
    data = one.tree.data()
    if one.family == "Explicit LE" and one.seed % 3 == 0:
        return DEFLATED, deflated(data)
    return SYNTAXES[one.family], data


def send_all(service: Service, seeds: range) -> list[int]:
    """Send these in one association; returns the statuses."""
    cases = [case(seed) for seed in seeds]
    uids = [{key: value.decode() for key, value in one.tree.truth.items() if key[-3:] == "UID"}
            for one in cases]  # fmt: skip
    contexts = [
        (2 * n + 1, uid["SOPClassUID"], sent(one)[0])
        for n, (one, uid) in enumerate(zip(cases, uids, strict=True))
    ]
    statuses = []
    there = set(service.instances())
    with service.peer(*contexts) as peer:
        for n, (one, uid) in enumerate(zip(cases, uids, strict=True)):
            data = sent(one)[1]
            sop = uid["SOPInstanceUID"]
            peer.send(store(n + 1, data, sop=sop, sop_class=uid["SOPClassUID"], context=2 * n + 1))
            status = peer.read_response().status
            statuses.append(status)
            new = set(service.instances()) - there
            there |= new
            about = one.describe([f"status {status:04X}, new {sorted(new)}"])
            if status in REFUSED and one.faults:
                assert not new, about
                continue
            assert status == 0, about
            path = path_of(sop, study=uid["StudyInstanceUID"], series=uid["SeriesInstanceUID"])
            assert new == {path}, about
            assert service.data_of(path) == data, about
        peer.release()
    return statuses


def test_filed_where_it_belongs_or_refused(tmp_path: Path) -> None:
    with Service(tmp_path, "--durability", "buffered", workers=1) as service:
        statuses = send_all(service, range(AT_A_TIME))
    assert 0 in statuses
    assert 0xC000 in statuses


@pytest.mark.long
def test_filed_where_it_belongs_or_refused_at_length(tmp_path: Path) -> None:
    with Service(tmp_path, "--durability", "buffered", workers=1) as service:
        for first in range(1000, 4000, AT_A_TIME):
            send_all(service, range(first, first + AT_A_TIME))
