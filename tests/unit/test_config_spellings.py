"""Whatever tables a file has, and however TOML lets one write them: they are read as they are."""

from __future__ import annotations

import ipaddress
import json
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fastscp.config.file import check_file
from fastscp.config.layers import load
from fastscp.config.tables import AeTable, FromTable, Tables
from fastscp.config.values import AllowRule

if TYPE_CHECKING:
    import pytest

# Of settings for both kinds of tables: a value, and how a file may write it.
BOTH: dict[str, tuple[Any, list[str]]] = {
    "min-rate": (2048, ["2048", '"2K"', "'2 KiB/s'", "0x800"]),
    "idle-timeout": (300.0, ["300", "3e2", '"5m"']),
    "max-associations": (5, ["5", '"5"', "+5"]),
    "sop-classes": (
        ("storage", "CT*"),
        ['["storage", "CT*"]', '"storage,CT*"', "[\n \"storage\", # [a = {\n\n  'CT*',\n]"],
    ),
    "max-instance-size": (1 << 30, ['"1GiB"', "1_073_741_824", '"""1G"""']),
}
ONLY_AE: dict[str, tuple[Any, list[str]]] = {
    "durability": ("buffered", ['"buffered"', "'BUFFERED'", '"\\u0062uffered"']),
    "strict": (True, ["true", '"yes"', "1"]),
    "layout": (
        "{Modality}/{SOPInstanceUID}.dcm",
        ['"{Modality}/{SOPInstanceUID}.dcm"', "'''{Modality}/{SOPInstanceUID}.dcm'''"],
    ),
}

# No comma in a list of titles; a star is no title in a table.
_TITLE_CHARS = [chr(code) for code in range(33, 127) if chr(code) not in "*,%"]
titles = st.text(st.sampled_from(_TITLE_CHARS), min_size=1, max_size=5)
networks = st.sampled_from([None, "10.1.0.0/16", "192.168.7.9/32", "2001:db8::/32"])


def respelled(draw: st.DrawFn, title: str) -> str:
    """A title with some of its bytes as %XX."""
    return "".join(f"%{ord(char):02x}" if draw(st.integers(0, 5)) == 0 else char for char in title)


def key_of(draw: st.DrawFn, name: str) -> str:
    """A key, quoted in one of the ways that its characters allow."""
    forms = [json.dumps(name)]
    if "'" not in name:
        forms.append(f"'{name}'")
    if name.isascii() and name.replace("-", "").replace("_", "").isalnum():
        forms += [name] * 4
    return draw(st.sampled_from(forms))


def some(draw: st.DrawFn, known: dict[str, tuple[Any, list[str]]]) -> dict[str, tuple[Any, str]]:
    """Some settings: what is to be read, and how it is written here."""
    names = draw(st.lists(st.sampled_from(sorted(known)), unique=True, max_size=4))
    return {name: (known[name][0], draw(st.sampled_from(known[name][1]))) for name in names}


def listed(draw: st.DrawFn, entries: list[str]) -> str:
    forms = [json.dumps(entries), "[\n" + "".join(f"  {json.dumps(x)},\n" for x in entries) + "]"]
    forms.append(json.dumps(", ".join(entries)))
    return draw(st.sampled_from(forms))


# A table: its key in the file, and its keys with their values, as they are written.
Written = list[tuple[str, list[tuple[str, str]]]]


def ae_tables(draw: st.DrawFn) -> tuple[tuple[AeTable, ...], Written]:
    tables: list[AeTable] = []
    written: Written = []
    for title in draw(st.lists(titles, unique=True, max_size=4)):
        keys = some(draw, BOTH | ONLY_AE)
        tables.append(
            AeTable(title, {n.replace("-", "_"): value for n, (value, _) in keys.items()})
        )
        written.append(
            (key_of(draw, respelled(draw, title)), [(n, text) for n, (_, text) in keys.items()])
        )
    return tuple(tables), written


def from_tables(draw: st.DrawFn) -> tuple[tuple[FromTable, ...], Written]:
    tables: list[FromTable] = []
    written: Written = []
    for number in range(draw(st.integers(0, 4))):
        name = draw(st.sampled_from(["a", "Gate-way", "research_", "9"])) + str(number)
        # Titles of its own, so that no table takes all senders of another.
        senders = [
            (f"{number}{draw(titles)}", draw(networks)) for _ in range(draw(st.integers(0, 3)))
        ]
        called = draw(st.lists(titles, max_size=2, min_size=0 if senders else 1))
        called = called if senders else [f"{number}{title}" for title in called]
        keys = some(draw, BOTH)
        lines = [(n, text) for n, (_, text) in keys.items()]
        if senders:
            texts = [f"{respelled(draw, ae)}@{network or '*'}" for ae, network in senders]
            lines.insert(draw(st.integers(0, len(lines))), ("who", listed(draw, texts)))
        if called:
            texts = [respelled(draw, title) for title in called]
            lines.insert(draw(st.integers(0, len(lines))), ("called", listed(draw, texts)))
        who = tuple(AllowRule(ae, ipaddress.ip_network(n) if n else None) for ae, n in senders)
        values = {n.replace("-", "_"): value for n, (value, _) in keys.items()}
        tables.append(FromTable(name, who, tuple(called), values=values))
        written.append((key_of(draw, name), lines))
    return tuple(tables), written


def inline(lines: list[tuple[str, str]]) -> str:
    return "{" + ", ".join(f"{name} = {text}" for name, text in lines) + "}"


def in_a_file(draw: st.DrawFn, kind: str, tables: Written) -> tuple[list[str], list[str]]:
    """The statements that make the tables: those at the top of the file, and those below."""
    top: list[str] = []
    below: list[str] = []
    style = draw(st.sampled_from(["headers", "dotted first", "inline", "all in one"]))
    dotted = draw(st.integers(0, len(tables))) if style == "dotted first" else 0
    if style == "inline" and tables:
        below.append(f"[ {kind} ] # all of them")
    if style == "all in one" and tables:
        return [f"{kind} = {inline([(key, inline(lines)) for key, lines in tables])}"], []
    for number, (key, lines) in enumerate(tables):
        if style == "inline" and draw(st.booleans()):
            below.append(f"{key} = {inline(lines)}")
        elif style == "inline" and lines:
            below += [f"{key}.{name} = {text}" for name, text in lines]
        elif style == "inline":
            below.append(f"{key}={{}}")
        elif number < dotted and lines:
            top += [f"{kind}.{key} . {name} = {text} # and so on" for name, text in lines]
        elif number < dotted:
            top.append(f'"{kind}".{key} = {{ }}')
        else:
            below.append(f"[{kind}.{key}]" + draw(st.sampled_from(["", "  # [ae.X]"])))
            below += [f"{name} = {text}" for name, text in lines]
            below += [""] * draw(st.integers(0, 1))
    return top, below


@st.composite
def files(draw: st.DrawFn) -> tuple[str, Tables]:
    ae, ae_written = ae_tables(draw)
    senders, from_written = from_tables(draw)
    parts = [in_a_file(draw, "ae", ae_written), in_a_file(draw, "from", from_written)]
    if draw(st.booleans()):
        parts.reverse()
    lines = ["# the port", "port = 1", *parts[0][0], *parts[1][0], *parts[0][1], *parts[1][1]]
    ending = draw(st.sampled_from(["\n", "\r\n"]))
    return ending.join("\n".join(lines).split("\n")) + ending, Tables(ae, senders)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(given_file=files())
def test_tables_are_read_as_they_are(
    given_file: tuple[str, Tables], tmp_path_factory: pytest.TempPathFactory
) -> None:
    text, tables = given_file
    file = tmp_path_factory.getbasetemp() / "spelled.toml"
    file.write_bytes(text.encode())
    assert check_file(file, "--check").mistakes == []
    loaded = load({}, {}, file)
    # Values are mappings, of which == says nothing of the order; the tables have one.
    assert loaded.config.tables == tables
    check_places(text, tables, loaded.table_sources)


def check_places(text: str, tables: Tables, sources: Any) -> None:
    """Each key is in the line that is said to hold it, or in an inline table that begins there."""
    lines = text.split("\n")
    both: list[AeTable | FromTable] = [*tables.ae, *tables.senders]
    for table in both:
        for field in table.values:
            name = field.replace("_", "-")
            line = int(sources[table.key, name].rpartition(":")[2])
            assert f"{name} = " in lines[line - 1] or " = {" in lines[line - 1]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(given_file=files(), cut=st.integers(0, 1000))
def test_no_broken_file_is_a_crash(
    given_file: tuple[str, Tables], cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A file cut anywhere, and one with a bracket too many: mistakes, each with a line."""
    text, _ = given_file
    file = tmp_path_factory.getbasetemp() / "broken.toml"
    at = len(text) * cut // 1000
    for broken in (text[:at], text[:at] + "]\n" + text[at:]):
        file.write_bytes(broken.encode())
        for one in check_file(file, "--check").mistakes:
            assert 0 < one.line <= broken.count("\n") + 1
