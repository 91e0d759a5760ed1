"""What the README says of options, journal and numbers is what the code does."""

from __future__ import annotations

import ast
import inspect
import os
import re
import shlex
import subprocess
from functools import cache
from typing import TYPE_CHECKING

import pytest

from fastscp import __version__, uids
from fastscp.admin.exposition import families_table
from fastscp.cli import app as cli
from fastscp.cli.echo import echo
from fastscp.cli.send import send
from fastscp.config.contradictions import COMBINATIONS_MOST
from fastscp.config.file_tables import MATCHERS
from fastscp.config.settings import SETTINGS, ServeConfig, options_table, where_table
from fastscp.main import descriptors
from fastscp.main.admission import PENDING_MOST
from fastscp.main.descriptors import REDO_MOST, log_needs, worker_needs
from tests.unit.test_linters import ROOT
from tests.unit.test_status import sent

if TYPE_CHECKING:
    from pathlib import Path

    from tests.certificates import Certificates

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


def test_the_families_are_current() -> None:
    found = re.search(r"<!-- families: .*? -->\n(.*?)<!-- end of families -->", README, re.DOTALL)
    assert found is not None
    assert found[1] == families_table(), "write what fastscp.admin.exposition.families_table() says"


def test_what_may_be_set_where_is_current() -> None:
    found = re.search(r"<!-- where: .*? -->\n(.*?)<!-- end of where -->", README, re.DOTALL)
    assert found is not None
    assert found[1] == where_table(), "write what fastscp.config.settings.where_table() returns"
    named = set(re.findall(r"`([a-z-]+)`", found[1]))
    assert named == {one.name for one in SETTINGS if one.tables} | set(MATCHERS)


def _options(command: str) -> set[str]:
    """The long options of a command of the requestor."""
    parameters = inspect.signature({"send": send, "echo": echo}[command]).parameters.values()
    return {
        f"--{one.name.replace('_', '-')}"
        for one in parameters
        if one.kind is one.KEYWORD_ONLY and one.name not in ("quiet", "verbose")
    }


def test_every_option_of_the_requestor_is_described() -> None:
    text = section("Sending files")
    table, _, behind = text.partition("`fastscp echo` has")
    assert set(re.findall(r"--[a-z][a-z-]+", table)) == _options("send")
    echoed = set(re.findall(r"`(--[a-z-]+)`", behind.partition("The exit code")[0]))
    tls = {"--tls-ca", "--tls-cert", "--tls-key", "--tls-profile", "--tls-no-verify"}
    assert echoed | tls == _options("echo")


def test_nothing_is_installed_from_an_index() -> None:
    """The project is on none: a package of its name there is somebody else's."""
    texts = [README, *(path.read_text("utf-8") for path in (ROOT / "fastscp").rglob("*.py"))]
    named = [one for text in texts for one in re.findall(r"pip install [^`\n\"]*", text)]
    assert named
    assert not [one for one in named if re.search(r"[\s']fastscp\b", one)]


def test_every_option_it_mentions_exists() -> None:
    known = {setting.flag for setting in SETTINGS}
    known |= {"--help", "--config", "--once", "--json", "--version", "--allow"}
    known |= {"--file", "--report", "--retries", "--adopt", "--repair-journal", "--accept-damage"}
    known |= (
        {"--check", "--study", "--since", "--max-rate", "--reason", "--who", "--certificate"}
        | {"--interval"}
        | _options("send")
        | _options("echo")
    )
    # In code and prose; the one-line commands and the benchmark are other programs.
    prose = re.sub(r"```sh\n.*?\n```", "", README, flags=re.DOTALL)
    prose = re.sub(r"`python\s-m\sbench[^`]*`", "", prose)
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
            "fastscp/association/identity.py",
            "fastscp/association/negotiation.py",
            "fastscp/main/admission.py",
            "fastscp/rules/book.py",
            "fastscp/worker/association.py",
            "fastscp/worker/requested.py",
        )
    )
    refused = r"(?:(?:Rejected|Refusal)\(|Verdict\(\s*(?:self\.)?number,)\s*(\d), (\d), (\d)"
    sent = re.findall(refused, source)
    assert rejections == {tuple(map(int, one)) for one in sent}


def test_numbers() -> None:
    assert uids.IMPLEMENTATION_CLASS_UID in README
    assert uids.IMPLEMENTATION_VERSION_NAME in README
    text = " ".join(README.split())
    assert f"At most {PENDING_MOST} connections have no association" in text
    assert f"may have {COMBINATIONS_MOST:,} combinations" in text
    default = ServeConfig()
    needed = worker_needs(default, default.max_associations)
    assert f"{default.max_associations:,} associations these are {needed:,}" in text
    log_takes = f"{log_needs(default, REDO_MOST):,}"
    assert f"A redo log (`--redo`) takes up to {log_takes} more of a worker" in text
    assert f"and {log_takes} open files of a worker" in text
    assert f"With fewer than {log_needs(default, descriptors._REDO_LEAST)} there is no" in text
    assert f"(each folder more in `--layout` adds {descriptors._REDO_FOLDERS})" in text
    assert f"### {__version__}" in README


def anchors() -> set[str]:
    """What links inside the page may point at: the headings, as GitHub names them."""
    headings = re.findall(
        r"^#+ (.+)$", re.sub(r"```.*?```", "", README, flags=re.DOTALL), re.MULTILINE
    )
    return {re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") for one in headings}


def test_links_lead_somewhere() -> None:
    inside = re.findall(r"\]\(#([^)]+)\)", README)
    assert len(inside) > 20
    assert set(inside) <= anchors()
    for path in re.findall(r"\]\(([^#)][^)]*)\)", README):
        assert "://" in path or (ROOT / path).exists(), path


def test_the_files_it_names_are_there() -> None:
    named = re.findall(r"`((?:tests|bench|fastscp|fastscp_ext)/[\w./]+)`", README)
    named += re.findall(r"\bpytest (?:-m long )?(tests/[\w./]+)", README)
    assert len(named) > 5
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_commands_can_be_given_as_they_stand(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    certificates: Certificates,
) -> None:
    """`serve` takes its lines; every shell block is one that a shell can read."""
    for name in [name for name in os.environ if name.startswith("FASTSCP_")]:
        monkeypatch.delenv(name)
    lines = re.findall(r"^fastscp serve( .*)$", README, re.MULTILINE)
    assert lines
    c = certificates
    files = {"server.pem": c.server.cert, "key.pem": c.server.key, "ca.pem": c.ca.cert}
    for name, path in (files | {"ca.crl": c.crl}).items():
        (tmp_path / name).symlink_to(path)
    (tmp_path / "token").write_text("s3cr3t-s3cr3t-s3cr3t", "ascii")
    (tmp_path / "token").chmod(0o600)
    monkeypatch.chdir(tmp_path)
    for line in lines:
        # It shows what `serve` would run with.
        assert cli.main(["config", *shlex.split(line)]) == 0, line
        assert shlex.split(line)[1] in capsys.readouterr().out
    for block in re.findall(r"^```sh\n(.*?)^```$", README, re.MULTILINE | re.DOTALL):
        subprocess.run(["sh", "-nc", block], check=True)


def test_every_command_is_in_the_table() -> None:
    shown = {re.findall(r"`fastscp (\w+)", cells[0])[0] for cells in rows("Running it")}
    assert shown == {name for name in cli.app if not name.startswith("-")}


# What a peer or a fault can do -------------------------------------------------------------------

THREATS = "What a peer or a fault can do, and what stops it"
MIB = 1 << 20
# Words of the table, and the constant that their number is: its file, its name, its unit.
BOUNDS = (
    ("{} at a time, then the oldest", "fastscp/main/admission.py", "PENDING_MOST", 1),
    ("{} bytes of version 1", "fastscp_ext/wire/proxy.pyx", "LINE_MOST", 1),
    ("{} and 4096 of version 2", "fastscp_ext/wire/proxy.pyx", "FIXED_SIZE", 1),
    ("16 and {} of version 2", "fastscp_ext/wire/proxy.pyx", "BLOCK_MOST", 1),
    ("{} KiB of records", "fastscp_ext/receive/secure.pyx", "HANDSHAKE_MOST", 1024),
    ("{} of a connection at a time", "fastscp_ext/receive/secure.pyx", "RECORDS_MOST", 1),
    ("{} sessions of connections", "fastscp_ext/receive/secure.pyx", "SESSIONS_MOST", 1),
    ("longer than {} bytes, or begins", "fastscp/association/identity.py", "_NAME_SHOWN_MOST", 1),
    ("{} log files of", "fastscp_ext/commit/redo.pxd", "LOG_FILES", 1),
    ("log files of {} MiB", "fastscp_ext/commit/logfile.pxd", "LOG_BYTES", MIB),
    ("each for {} instances", "fastscp_ext/commit/logfile.pxd", "LOG_RECORDS", 1),
    ("{} MiB each, and room grows", "fastscp_ext/wire/framing.pxd", "ASSOCIATE_CAP", MIB),
    ("those above {} KiB", "fastscp_ext/receive/unfinished.pyx", "ORDINARY", 1024),
    ("may hold {} MiB", "fastscp_ext/receive/unfinished.pyx", "UNFINISHED_MOST", MIB),
    ("{} presentation contexts", "fastscp_ext/wire/pdu.pyx", "CONTEXTS_CAP", 1),
    ("{} transfer syntaxes", "fastscp_ext/wire/pdu.pyx", "TRANSFER_SYNTAXES_CAP", 1),
    ("{} in all; each", "fastscp_ext/wire/pdu.pyx", "PROPOSALS_CAP", 1),
    ("{} KiB of them are decoded", "fastscp/worker/requests.py", "PASS_BYTES", 1024),
    ("{} are decided", "fastscp/worker/requests.py", "DECIDING_MOST", 1),
    ("is answered after {} s", "fastscp/worker/usercheck.py", "_FAILED_S", 1),
    ("after {} failures", "fastscp/worker/identities.py", "FAILURES_MOST", 1),
    ("of an address within {} s", "fastscp/worker/identities.py", "FAILURES_WITHIN_S", 1),
    ("known of {} addresses", "fastscp/worker/identities.py", "HOSTS_MOST", 1),
    ("{} checks wait", "fastscp/worker/identities.py", "WAITING_MOST", 1),
    ("checks wait, {} of", "fastscp/worker/identities.py", "WAITING_OF_ONE_MOST", 1),
    ("{} associations share", "fastscp/worker/identities.py", "SHARING_MOST", 1),
    ("{} associations of strangers", "fastscp/worker/identities.py", "CHECKED_MOST", 1),
    ("{} that were right", "fastscp/worker/identities.py", "KNOWN_MOST", 1),
    ("clocks may differ by {} s, `aud`", "fastscp/users/tokens.py", "LEEWAY_S", 1),
    ("{} KiB each, and RSA", "fastscp/users/tokens.py", "TOKEN_MOST", 1024),
    ("RSA keys up to {} bits", "fastscp/users/keys.py", "RSA_MOST", 1),
    ("are known, for {} s", "fastscp/worker/identities.py", "KNOWN_FOR_S", 1),
    ("{} wait for one", "fastscp/main/dispatch.py", "WAITING_MOST", 1),
    ("{} are turned away", "fastscp/main/dispatch.py", "TURNED_AWAY_MOST", 1),
    ("{} offered", "fastscp/main/dispatch.py", "OFFERED_MOST", 1),
    ("wait for one, {} s", "fastscp/main/dispatch.py", "_NOBODY_S", 1),
    ("{} addresses are remembered", "fastscp/main/rate.py", "KEPT_MOST", 1),
    ("keeps {} open files back", "fastscp/main/acceptor.py", "_RESERVE", 1),
    ("if it has at least {},", "fastscp/main/admission.py", "CROWD_LEAST", 1),
    ("without a byte for {} s", "fastscp_ext/receive/pace.pyx", "STUCK_S", 1),
    ("{} newcomers", "fastscp/main/places.py", "NEWCOMERS_MOST", 1),
    ("wait for that, {} s", "fastscp/main/places.py", "_PLACE_S", 1),
    ("left after {} s", "fastscp/worker/association.py", "_HANG_UP_S", 1),
    ("or {} MiB", "fastscp/worker/association.py", "_HANG_UP_BYTES", MIB),
    ("{} rows of counters", "fastscp_ext/shared/rows.pyx", "OTHERS_MOST", 1),
    ("P-DATA-TF up to {} MiB", "fastscp_ext/receive/receiver.pyx", "pdata_cap", MIB),
    ("{} instances of a worker wait for it", "fastscp/store/index.py", "WAITING_MOST", 1),
    ("wait for it, {} s", "fastscp/store/index.py", "WAIT_S", 1),
    ("{} KiB", "fastscp_ext/wire/framing.pxd", "COMMAND_CAP", 1024),
    ("{} responses owed to an association", "fastscp_ext/receive/reception.pxd", "OWED_MOST", 1),
    ("{} instances uncommitted", "fastscp_ext/receive/reception.pxd", "UNCOMMITTED_MOST", 1),
    ("({} of one association", "fastscp_ext/receive/reception.pxd", "SHARE", 1),
    ("once there are {})", "fastscp_ext/receive/reception.pxd", "CROWDED", 1),
    ("{} of an association with the helper", "fastscp_ext/receive/reception.pxd", "SHARE", 1),
    ("the next read is of {} KiB", "fastscp_ext/receive/receiver.pyx", "SHORT_READ", 1024),
    ("beyond {} MiB of rests", "fastscp_ext/receive/reception.pxd", "RESTS_MOST", MIB),
    ("once {} KiB of answers", "fastscp/worker/association.py", "_UNSENT_BYTES", 1024),
    ("aborted after {} s", "fastscp/worker/association.py", "_SEND_S", 1),
    ("{} GiB is read and dropped", "fastscp_ext/receive/receiver.pyx", "DRAIN_MOST", 1024 * MIB),
    ("{}, then the association is aborted", "fastscp/worker/association.py", "_STRAY_RESPONSES", 1),
    ("{} MiB in a read", "fastscp_ext/receive/reception.pyx", "RECEIVE_BYTES", MIB),
    ("a data set {} KiB in a read", "fastscp_ext/receive/receiver.pyx", "BESIDE_READ", 1024),
    ("{} characters of", "fastscp/uids.py", "LONGEST_UID", 1),
    ("a path at {}", "fastscp_ext/receive/instance.pxd", "PATH_ROOM", 1),
    ("inflated {} bytes of the stream", "fastscp_ext/dataset/inflate.pxd", "INFLATE_SLICE", 1),
    ("{}, then C000", "fastscp/store/duplicates.py", "_LAST_VERSION", 1),
    ("{} characters of a text", "fastscp/log/text.py", "_SHOWN", 1),
    ("{} of a line", "fastscp/log/form.py", "_MESSAGE", 1),
    ("from one address {} in", "fastscp/log/repeats.py", "_SHOWN", 1),
    ("in {} s, 20 refusals", "fastscp/log/repeats.py", "_INTERVAL_S", 1),
    ("{} refusals, then", "fastscp/worker/telling.py", "_SHOWN", 1),
    ("{} MiB of lines", "fastscp/log/writer.py", "_MOST_BYTES", MIB),
    ("in a file call for {} ms", "fastscp/main/dispatch.py", "_BLOCKED_MS", 1),
    ("below {} free", "fastscp/main/storewatch.py", "_INODES", 1),
    ("{} parts wait to be removed", "fastscp_ext/commit/remover.h", "REMOVALS_MOST", 1),
    ("counts as gone after {} s", "fastscp/main/storewatch.py", "HANGS_S", 1),
    ("the end waits {} s", "fastscp/main/leaving.py", "LEAVE_S", 1),
    ("`--durability buffered` {} s", "fastscp/main/leaving.py", "FLUSH_S", 1),
    ("doubling up to {} s", "fastscp/main/backoff.py", "_LONGEST_S", 1),
    ("named after {} s", "fastscp/main/loopwatch.py", "named_s", 1),
    ("replaced after {} s", "fastscp/main/loopwatch.py", "hangs_s", 1),
    ("within {} s, and leave", "fastscp/worker/process.py", "_LAST_MESSAGE_S", 1),
    ("does not take in {} s", "fastscp/main/dispatch.py", "_CLAIM_S", 1),
    ("after {} folders all do", "fastscp_ext/shared/block.pxd", "UNFLUSHED_SLOTS", 1),
    ("after {} folders and files all is", "fastscp_ext/shared/block.pxd", "UNFLUSHED_SLOTS", 1),
    ("{} MiB of them in memory", "fastscp/store/records.py", "_CACHE_KIB", 1024),
    ("{} files that may be on", "fastscp/store/compare.py", "_DOUBTS_MOST", 1),
    ("{} at a time; a request", "fastscp/admin/control.py", "CONNECTIONS_MOST", 1),
    ("a request has {} KiB", "fastscp/admin/control.py", "REQUEST_BYTES", 1024),
    ("and {} s to come", "fastscp/admin/control.py", "REQUEST_S", 1),
    ("the client has {} s", "fastscp/admin/control.py", "ANSWER_S", 1),
    ("for each {} KiB of", "fastscp/admin/control.py", "_CHUNK_BYTES", 1024),
    ("a segment has {} MiB", "fastscp_ext/receive/reception.pyx", "journal_limit", MIB),
    ("{} at a time, then the oldest that", "fastscp/admin/listener.py", "HTTP_CONNECTIONS_MOST", 1),
    ("{} new ones a second", "fastscp/admin/listener.py", "_RATE", 1),
    ("a request has {} KiB, and 10", "fastscp/admin/web.py", "_HEAD_BYTES", 1024),
    ("and {} s with its answer", "fastscp/admin/web.py", "_EXCHANGE_S", 1),
    ("a connection rests for {} s", "fastscp/admin/web.py", "_IDLE_S", 1),
    ("{} pages at a time", "fastscp/admin/listener.py", "PAGES_MOST", 1),
    ("who reads nothing for {} s", "fastscp/admin/web.py", "_EXCHANGE_S", 1),
    ("{} lines and 100", "fastscp/main/refusals.py", "LINES_MOST", 1),
    ("and {} refusals are kept", "fastscp/main/refusals.py", "REFUSALS_MOST", 1),
    ("of each process {} lines a second", "fastscp/log/copies.py", "A_SECOND", 1),
    ("{} bytes of a request", "fastscp/admin/page/actions.py", "BODY_MOST", 1),
)
DEFAULTS = ("artim_timeout", "message_timeout", "min_rate", "idle_timeout", "min_free_space",
            "max_associations")  # fmt: skip


def constant(file: str, name: str) -> float:
    """A number that a source file gives a name, in Python or Cython."""
    text = (ROOT / file).read_text("utf-8")
    found = re.search(
        rf"(?<!\w){name}(?:(?:: Final|: float)?\s*=)?\s*([0-9][0-9_.<\s]*[0-9]|[0-9])", text
    )
    assert found is not None, f"{file}: no {name}"
    number, shift, by = found[1].replace("_", "").partition("<<")
    return int(number) << int(by) if shift else float(number)


@cache
def functions_of(file: str) -> frozenset[str]:
    tree = ast.parse((ROOT / "tests" / file).read_text("utf-8"))
    return frozenset(one.name for one in tree.body if isinstance(one, ast.FunctionDef))


def threats() -> list[list[str]]:
    """The rows that say something: a heading inside the table has one cell alone."""
    return [cells for cells in rows(THREATS) if cells[1]]


def test_every_threat_has_its_tests() -> None:
    for what, bound, tests in [*threats(), *rows("Security")]:
        named = re.findall(r"`([\w/]+\.py)::(\w+)`", tests)
        assert named, what
        assert len(named) == tests.count("`") // 2, tests
        assert bound
        for file, name in named:
            assert name in functions_of(file), f"{file}::{name}"


@pytest.mark.parametrize(("words", "file", "name", "unit"), BOUNDS, ids=str)
def test_the_bounds_are_the_codes(words: str, file: str, name: str, unit: int) -> None:
    number = constant(file, name) / unit
    assert number == int(number)
    shown = words.format(f"{int(number):,}" if number >= 10_000 else int(number))
    bounds = [bound for _what, bound, _tests in threats()]
    assert any(re.search(rf"(?<![\d,]){re.escape(shown)}(?![\d])", bound) for bound in bounds), (
        shown
    )


@pytest.mark.parametrize("name", DEFAULTS)
def test_the_bounds_that_options_set(name: str) -> None:
    flag = f"--{name.replace('_', '-')}"
    default = next(cells[1] for cells in rows("Options of `fastscp serve`") if flag in cells[0])
    shown = f"{int(default):,}" if default.isdigit() else default
    bound = next(bound for _what, bound, _tests in threats() if f"(`{flag}`)" in bound)
    assert shown in bound


def test_the_way_from_a_checkout_to_a_service(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its settings are such, and what makes the store is what the unit says of that."""
    found = re.search(r"<!-- service -->\n```sh\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert found is not None
    block, file = found[1], tmp_path / "fastscp.toml"

    def shown(command: str) -> str:
        line = next(one for one in block.splitlines() if one.startswith(f"fastscp {command}"))
        line = line.partition(" | ")[0].replace("/etc/fastscp.toml", str(file))
        assert cli.main(shlex.split(line)[1:]) == 0, line
        return capsys.readouterr().out

    into = r"^printf '(.*)' \| sudo tee (?:-a )?/etc/fastscp.toml$"
    first, rule = re.findall(into, block, re.MULTILINE)
    file.write_text(first.replace("\\n", "\n"), encoding="utf-8")
    unit = shown("print systemd-unit")
    assert "--config" in unit
    making = [line.removeprefix("#   ") for line in unit.splitlines() if line.startswith("#   ")]
    for command in making[:3]:
        own = re.sub(r"\S+( -m fastscp)? serve ", "fastscp serve ", command)
        own = own.replace(str(file), "/etc/fastscp.toml")
        assert f"sudo {own}\n" in block, own
    with file.open("a", encoding="utf-8") as more:
        more.write(rule.replace("\\n", "\n"))
    shown("config --check")
    assert "from.ct" in shown("config --config")
    assert "FastscpDown" in shown("print prometheus-rules")
    # What the alerts expect, and where the service answers.
    assert "job_name: fastscp" in block
    assert str(ServeConfig().admin) in block
