"""DCMTK and pynetdicom as senders of two called AE titles with tables of their own, at once."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

import pytest

from fastscp.store.verify import verify
from tests.interop.material import made_up
from tests.interop.senders import associated, run
from tests.kit import Service

if TYPE_CHECKING:
    from pathlib import Path

    from tests.interop.material import Instance

pytestmark = pytest.mark.interop

RULES: Final = """
check-called-ae = true

[ae.RESEARCH]
layout = "_research/{CallingAE}/{SOPInstanceUID}.dcm"
durability = "buffered"
digest = "sha256"

[ae.ARCHIVE]
layout = "_archive/{CallingAE}/{SOPInstanceUID}.dcm"

[from.dcmtk]
who = ["STORESCU@127.0.0.0/8"]
called = ["RESEARCH", "ARCHIVE"]

[from.pynetdicom]
who = ["PYNETDICOM@*"]
max-associations = 2
"""
TITLES: Final = ("RESEARCH", "ARCHIVE")


def _by_dcmtk(service: Service, title: str, instances: list[Instance]) -> None:
    run("storescu", "-aec", title, service.host, str(service.port), *(i.path for i in instances))


def _by_pynetdicom(service: Service, title: str, instances: list[Instance]) -> None:
    with associated(service, ae_title=title) as scu:
        for one in instances:
            assert scu.send_c_store(one.path).Status == 0


def test_other_senders_at_once(tmp_path: Path) -> None:
    """The same instances from both to both titles: each is where its title's table says."""
    instances = made_up(tmp_path / "files", "1.2.3.70", 3)
    file = tmp_path / "rules.toml"
    file.write_text(RULES, "utf-8")
    with Service(tmp_path, "--config", str(file)) as service:
        with ThreadPoolExecutor(4) as pool:
            sending = [
                pool.submit(send, service, title, instances)
                for send in (_by_dcmtk, _by_pynetdicom)
                for title in TITLES
            ]
            for done in sending:
                done.result()
        facts = {fact["path"]: fact for fact in service.journal()}
        assert len(facts) == 4 * len(instances)
        for title in TITLES:
            for calling in ("STORESCU", "PYNETDICOM"):
                for one in instances:
                    path = f"_{title.lower()}/{calling}/{one.sop_instance}.dcm"
                    assert service.data_of(path) == one.data_set
                    fact = facts[path]
                    assert (fact["called_ae"], fact["calling_ae"]) == (title, calling)
                    is_research = title == "RESEARCH"
                    assert fact.get("durability") == ("buffered" if is_research else None)
                    sha256 = hashlib.sha256(one.data_set).hexdigest()
                    assert (fact["digest"] == f"sha256:{sha256}") == is_research
        said = run("storescu", "-aec", "NOBODY", service.host, str(service.port),
                   instances[0].path, code=1)  # fmt: skip
        assert "Called AE Title Not Recognized" in said
        said = run("storescu", "-aet", "OTHER", "-aec", "ARCHIVE", service.host,
                   str(service.port), instances[0].path, code=1)  # fmt: skip
        assert "Calling AE Title Not Recognized" in said
    assert verify(service.store, patience_s=0.0).clean
