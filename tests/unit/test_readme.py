"""What the README says of options, journal and numbers is what the code does."""

from __future__ import annotations

import re

from fastscp import __version__, uids
from fastscp.config.settings import SETTINGS, ServeConfig, options_table
from fastscp.main.admission import PENDING_MOST
from fastscp.main.descriptors import worker_needs
from tests.unit.test_linters import ROOT
from tests.unit.test_status import sent

README = (ROOT / "README.md").read_text("utf-8")


def section(title: str) -> str:
    """The text below a heading, up to the next one."""
    found = re.search(rf"^#+ {re.escape(title)}$(.*?)(?=^#|\Z)", README, re.MULTILINE | re.DOTALL)
    assert found is not None, title
    return found[1]


def rows(title: str) -> list[list[str]]:
    """The cells of a section's table, without its head."""
    lines = [line for line in section(title).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_options_are_current() -> None:
    found = re.search(r"<!-- options: .*? -->\n(.*?)<!-- end of options -->", README, re.DOTALL)
    assert found is not None
    assert found[1] == options_table(), "write what fastscp.config.settings.options_table() returns"


def test_every_option_it_mentions_exists() -> None:
    known = {setting.flag for setting in SETTINGS}
    known |= {"--help", "--config", "--once", "--json", "--version", "--allow"}
    known |= {"--report", "--retries", "--adopt", "--repair-journal"}
    # In code and prose; the one-line commands call other programs.
    prose = re.sub(r"```sh\n.*?\n```", "", README, flags=re.DOTALL)
    mentioned = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", prose))
    assert mentioned - known == set()


def test_every_field_of_the_journal_is_described() -> None:
    documented = {
        name for cells in rows("The journal") for name in re.findall(r"`(\w+)`", cells[0])
    }
    line = re.sub("#.*", "", (ROOT / "fastscp_ext/commit/journal_line.pyx").read_text("utf-8"))
    written = set(re.findall(r'[,{]"(\w+)":', line))
    association = (ROOT / "fastscp/worker/establish.py").read_text("utf-8")
    members = re.search(r"members = \{(.*?)\n    \}", association, re.DOTALL)
    assert members is not None
    written |= set(re.findall(r'"(\w+)":', members[1]))
    assert documented == written


def test_the_statuses_and_when_they_are_sent() -> None:
    shown = {int(cells[0], 16): cells[1] for cells in rows("Statuses of a C-STORE")}
    assert shown == {status.code: status.condition for status in sent()}


def test_rejections() -> None:
    rejections = {tuple(map(int, cells[0].split(","))) for cells in rows("Rejected associations")}
    source = "".join(
        (ROOT / name).read_text("utf-8")
        for name in (
            "fastscp/association/negotiation.py",
            "fastscp/main/admission.py",
            "fastscp/worker/association.py",
        )
    )
    sent = re.findall(r"(?:Rejected\(|Verdict\(\s*(?:self\.)?number,)\s*(\d), (\d), (\d)", source)
    assert rejections == {tuple(map(int, one)) for one in sent}


def test_numbers() -> None:
    assert uids.IMPLEMENTATION_CLASS_UID in README
    assert uids.IMPLEMENTATION_VERSION_NAME in README
    text = " ".join(README.split())
    assert f"At most {PENDING_MOST} connections have no association" in text
    default = ServeConfig()
    needed = worker_needs(default, default.max_associations)
    assert f"{default.max_associations:,} associations these are {needed:,}" in text
    assert f"### {__version__}" in README
