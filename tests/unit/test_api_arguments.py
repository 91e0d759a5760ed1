"""Natural mistakes of those who write against the Python API, and what they are told."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path
from typing import Any

import pytest

from fastscp.errors import FastscpError
from fastscp.scu import (
    Association,
    Priority,
    Sent,
    Timeouts,
    UnusableInstance,
    UsageError,
    arguments,
    associate,
    password_identity,
    send_files,
)
from tests.kit import CT, ELE

CONTEXTS = [("CTImageStorage", ["ExplicitVRLittleEndian"])]


def test_a_usage_error_is_one_of_the_package_and_a_value_error() -> None:
    assert issubclass(UsageError, FastscpError)
    assert issubclass(UsageError, ValueError)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"contexts": [(CT, ELE)]}, rf"{CT} are one string, '{ELE}': write a list, \['{ELE}'\]"),
        ({"contexts": CT}, rf"contexts is '{CT}': write \["),
        ({"contexts": [CT]}, rf"'{CT}' is no presentation context"),
        ({"contexts": [(CT,)]}, "a tuple is no presentation context"),
        ({"contexts": [7]}, "7 is no presentation context"),
        ({"contexts": 7}, "contexts is 7"),
        ({"contexts": [(CT, [])]}, "are none: write at least one"),
        ({"contexts": [(CT, 7)]}, r"are 7: write a list"),
        ({"contexts": [(CT, [7])]}, "7 is no UID"),
        ({"contexts": [(None, [ELE])]}, "None is no UID"),
        ({"contexts": [("CTImage", [ELE])]}, "did you mean .*CTImageStorage"),
        ({"contexts": [("CTImage*", [ELE])]}, "is neither a UID nor a SOP class keyword"),
        ({"contexts": [(CT, ["ExplicitVRLittle"])]}, "did you mean .*ExplicitVRLittleEndian"),
        ({"contexts": [(CT, [ELE])] * 129}, "129 contexts are given: .* at most 128"),
        ({"timeouts": 30}, r"timeouts is 30: write Timeouts\(response=30\)"),
        ({"called_ae": ""}, "called_ae is '': .* 1 to 16 characters"),
        ({"called_ae": "X" * 17}, "1 to 16 characters"),
        ({"calling_ae": b"ME"}, "calling_ae is a bytes"),
        ({"calling_ae": "Ω"}, "one byte"),
        ({"window": 0}, "window is 0: write at least one operation"),
        ({"window": True}, "window is True"),
        ({"window": 70000}, "1 to 65535"),
        ({"max_pdu_length": -1}, "max_pdu_length is -1"),
        ({"max_pdu_length": "16K"}, "max_pdu_length is '16K'"),
        ({"port": "104"}, "port is '104': write a number"),
        ({"port": 0}, "port is 0"),
        ({"host": None}, "host is None"),
        ({"host": ""}, "host is ''"),
        ({"host": "a..b"}, "host is 'a..b', which is no name"),
        ({"host": ".pacs"}, "which is no name"),
        ({"host": "x" * 70}, "which is no name: its parts have 1 to 63 characters"),
        ({"host": "a\0b"}, "which is no name"),
        ({"host": "\ud800"}, "which is no name"),
        ({"tls": True}, r"tls is True: write tls_context\(\)"),
        ({"identity": ("jo", "sesame")}, r"type tuple: write password_identity\(user, password\)"),
        ({"on_pdu": 7}, "on_pdu is 7: write a plain function"),
    ],
)
def test_associate_says_what_to_write(more: dict[str, Any], words: str) -> None:
    """At once, before anything is awaited: there is no loop here."""
    with pytest.raises(UsageError, match=words):
        associate(**({"host": "pacs", "port": 104} | more))  # type: ignore[arg-type]


def test_no_credentials_in_what_is_said() -> None:
    for mistake in (
        lambda: password_identity("jo", b"sesame"),  # type: ignore[arg-type]
        lambda: associate("pacs", 104, identity="sesame"),  # type: ignore[arg-type]
        lambda: password_identity("jo", "sesame" * 20000),
    ):
        with pytest.raises(UsageError) as caught:
            mistake()
        assert "sesame" not in str(caught.value)


async def later(pdu: object) -> None:
    raise AssertionError(pdu)


def test_a_callback_that_nobody_would_await() -> None:
    with pytest.raises(UsageError, match="on_pdu is a coroutine function"):
        associate("pacs", 104, on_pdu=later)


@pytest.mark.parametrize("value", [0, -1, True, "30", None, float("inf"), float("nan"), 10**400])
def test_timeouts_are_seconds(value: Any) -> None:
    with pytest.raises(UsageError, match=r"Timeouts: response is .*: write seconds"):
        Timeouts(response=value)


def test_before_it_is_open() -> None:
    opening: Any = associate("pacs", 104)
    with pytest.raises(
        UsageError, match="store of an association that is not open yet: write `async"
    ):
        opening.store("image.dcm")
    with pytest.raises(AttributeError, match="no attribute 'stor'"):
        opening.stor("image.dcm")
    opening = associate("pacs", 104)
    with pytest.raises(UsageError, match="async with associate"), opening:
        pass


@pytest.mark.parametrize(
    "name",
    [*Association.__annotations__, "echo", "store", "release", "abort", "failure"],
)
def test_what_only_an_open_association_has(name: str) -> None:
    opening = associate("pacs", 104)
    with pytest.raises(UsageError, match=f"{name} of an association that is not open yet"):
        getattr(opening, name)


@pytest.mark.parametrize(
    ("path", "error", "words"),
    [
        ("a.txt", UnusableInstance("a.txt is no regular file"), "a.txt is no regular file"),
        ("a.txt", UnusableInstance("it has no data set"), "a.txt: it has no data set"),
        ("a\n.txt", UnusableInstance("a\n.txt: damaged"), r"a\n.txt: damaged"),
        ("a\x1b", FileNotFoundError(2, "No such file", "a\x1b"), r"a\x1b: No such file"),
    ],
)
def test_what_became_of_a_file_names_it_once(path: str, error: Any, words: str) -> None:
    assert str(Sent(path, error=error)) == words


@pytest.mark.parametrize("host", ["::1", "127.0.0.1", "fe80::1%lo", "pacs.", "münchen.invalid"])
def test_hosts_that_are_names_or_addresses(host: str) -> None:
    assert arguments.address(host, 104) == (host, 104)


def test_never_awaited() -> None:
    with pytest.warns(RuntimeWarning, match="coroutine 'associate' was never awaited"):
        associate("pacs", 104)  # a coroutine says so when nobody has it any more


@pytest.mark.parametrize("value", ["high", 3, True, None, -1])
def test_priority(value: Any) -> None:
    with pytest.raises(UsageError, match=r"priority is .*: write Priority.MEDIUM"):
        arguments.priority(value)
    assert arguments.priority(2) is Priority.LOW


@pytest.mark.parametrize(
    ("ae", "message_id", "words"),
    [
        ("MOVER", None, "move_originator_ae is given without move_originator_message_id"),
        (None, 7, "move_originator_message_id is given without move_originator_ae"),
        ("", 7, "move_originator_ae is ''"),
        ("MOVER", 70000, "move_originator_message_id is 70000"),
        ("MOVER", "7", "move_originator_message_id is '7'"),
    ],
)
def test_move_originator(ae: Any, message_id: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        arguments.move_originator(ae, message_id)


def test_send_files_says_what_to_write() -> None:
    paths: Any
    for paths, words in (
        ("a.dcm", r"paths is 'a.dcm': write a list of paths, \['a.dcm'\]"),
        (Path("a.dcm"), "write a list of paths"),
        (7, "paths is 7"),
        ([7], "paths holds 7"),
        ([io.BytesIO()], "paths holds a BytesIO"),
        (["a\0b"], "contains a NUL"),
    ):
        with pytest.raises(UsageError, match=words):
            send_files("pacs", 104, paths)
    with pytest.raises(UsageError, match="timeouts is 5"):
        send_files("pacs", 104, [], timeouts=5)  # type: ignore[arg-type]


def test_send_files_inside_a_loop() -> None:
    async def script() -> None:
        send_files("pacs", 104, ["a.dcm"])

    with pytest.raises(UsageError, match=r"inside a running event loop .*: write `async with"):
        asyncio.run(script())
