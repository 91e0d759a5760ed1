"""What `fastscp top` shows of what it saw, on screens of every size, and what it ends with."""

from __future__ import annotations

import io
import os
import re
import signal
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from rich.console import Console

from fastscp.admin import client
from fastscp.admin.client import NotRunningError, SilentError
from fastscp.admin.place import ControlSocketError
from fastscp.cli import app as cli
from fastscp.cli import top_run
from fastscp.cli.top_run import Looks, Terminal, Watch
from fastscp.messages.control import Overview
from tests.unit.test_operate import ONE, STATUS, Answers

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fastscp.cli.top_screen import Screen
    from fastscp.messages.control import AssociationStatus

replace = msgspec.structs.replace
QUIET = replace(ONE, calling_ae="CT1", host="10.0.0.1", user="", rules="default")


def overview(*associations: AssociationStatus, **status: Any) -> Overview:
    return Overview(status=replace(STATUS, **status), associations=list(associations))


def lines(screen: Screen, width: int = 120, height: int = 40, **console: Any) -> list[str]:
    out = io.StringIO()
    made = Console(
        file=out, width=width, height=height, markup=False, emoji=False, highlight=False, **console
    )
    made.print(screen)
    return out.getvalue().splitlines()


def said(found: list[str]) -> dict[str, str]:
    """The rows above the connections."""
    head = found[: found.index("")]
    return {one[:12].rstrip(): one[14:] for one in head}


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Answers]:
    def answering(*answers: object) -> Answers:
        made = Answers(*answers)
        monkeypatch.setattr(client, "ControlClient", made)
        return made

    return answering


# The screen --------------------------------------------------------------------------------------


def test_before_a_second_look_no_rate_is_known() -> None:
    found = lines(Watch(overview(QUIET)).screen())
    assert said(found) == {
        "state": "accepting",
        "version": "0.1.0, process 7, up 1 h 1 min",
        "free space": "5.0 GiB; nothing is stored below 1.0 GiB",
        "workers": "1 of 2 up",
        "associations": "1,234 of at most 2,000; 1,235 connections in all",
        "received": "-; 1.0 GiB read from connections",
        "stored": "-; 56,789 instances, 1.0 GiB",
        "in flight": "7.0 MiB of complete instances, not committed yet",
        "refused": "-; 3 instances; unfinished 4",
        "rejected": "-; 5 associations",
    }
    assert found[-1].split()[-6:] == ["MiB", "-", "1", "min", "15", "s"]


def test_a_state_of_a_later_release_is_shown_by_its_name(
    answering: Callable[..., Answers], tmp_path: Path
) -> None:
    answering(overview(replace(QUIET, phase="haggling"), state="on fire\x1b"))
    found = lines(Watch(top_run._look(tmp_path)).screen())
    assert said(found)["state"] == "on fire\\x1b"
    assert " haggling " in found[-1]


def test_rates_are_between_two_looks_by_the_clock_of_the_service() -> None:
    watch = Watch(overview(QUIET))
    watch.answered(
        overview(
            replace(QUIET, received_bytes=QUIET.received_bytes + (9 << 20)),
            uptime_s=STATUS.uptime_s + 4, stored=STATUS.stored + 10, refused=STATUS.refused + 2,
            bytes=STATUS.bytes + (8 << 20), received_bytes=STATUS.received_bytes + (12 << 20),
            rejected=STATUS.rejected + 1000,
        )
    )  # fmt: skip
    found = lines(watch.screen())
    shown = said(found)
    assert shown["received"].startswith("3.0 MiB/s; ")
    assert shown["stored"].startswith("2.5/s, 2.0 MiB/s; 56,799 instances, ")
    assert shown["refused"] == "0.5/s; 5 instances; unfinished 4"
    assert shown["rejected"] == "250.0/s; 1,005 associations"
    assert "  2.2 MiB/s  " in found[-1]
    # Two looks of the same moment have none.
    watch.answered(overview(QUIET, uptime_s=STATUS.uptime_s + 4))
    assert said(lines(watch.screen()))["refused"].startswith("-; ")


@pytest.mark.parametrize(("width", "height"), [(120, 24), (80, 24), (40, 24), (40, 12), (9, 3)])
def test_a_thousand_connections_on_a_screen(width: int, height: int) -> None:
    many = [replace(QUIET, id=f"run.{number}") for number in range(1, 1001)]
    # 500 sends the most, its neighbours less and less.
    after = [
        replace(one, received_bytes=one.received_bytes + (1 << 20) * (500 - abs(500 - number)))
        for number, one in enumerate(many, 1)
    ]
    watch = Watch(overview(*many, associations=1000))
    watch.answered(overview(*after, associations=1000, uptime_s=STATUS.uptime_s + 1))
    found = lines(watch.screen("q ends"), width, height)
    assert len(found) <= height
    assert max(map(len, found)) <= width
    if width < 40:
        return
    heads = [at for at, one in enumerate(found) if "CALLING" in one]
    shown = found[heads[0] + 1 : -1] if heads else []
    assert found[-1] == f"and {1000 - len(shown):,} more connections; q ends"
    assert len(shown) == {(120, 24): 11, (80, 24): 11, (40, 24): 11, (40, 12): 3}[width, height]
    rates = [re.findall(r"[0-9.]+ MiB/s", one)[0] for one in shown]
    assert rates[:3] == ["500.0 MiB/s", "499.0 MiB/s", "499.0 MiB/s"]
    if width > 40:
        # Of those alike the oldest first; the number is what `fastscp abort` takes.
        assert [one.split()[0] for one in shown[:3]] == ["500", "499", "501"]


def test_a_narrow_screen_spares_columns() -> None:
    wide, middle, narrow = (
        [
            one.split()
            for one in lines(Watch(overview(QUIET)).screen(), width)
            if "CALLING" in one or "CT1" in one
        ]
        for width in (120, 80, 40)
    )
    assert wide[0] == [
        "ID", "CALLING", ">", "CALLED", "ADDRESS", "RULES", "PHASE", "STORED", "REFUSED", "BYTES",
        "RATE", "AGE",
    ]  # fmt: skip
    assert middle[0] == [
        "ID", "CALLING", ">", "CALLED", "ADDRESS", "PHASE", "STORED", "REFUSED", "RATE",
    ]  # fmt: skip
    assert narrow[0] == ["CALLING", ">", "CALLED", "STORED", "RATE"]
    assert narrow[1] == ["CT1", ">", "FASTSCP", "1,200", "-"]


@pytest.mark.parametrize("width", [120, 40, 25])
def test_hostile_text_is_only_text(width: int) -> None:
    hostile = replace(
        ONE, calling_ae="[bold]X[/]", called_ae=":smile:\r\n", user="\x1b[2J漢字漢字\u202e",
        rules="[link=x]",
    )  # fmt: skip
    watch = Watch(overview(hostile, state="paused", why="[red]a\nb\x1b]0;x\x07[/red]", since=1.0))
    watch.failed(ControlSocketError("[/nonsense] \x1b[H"))
    found = lines(watch.screen(), width, 50, force_terminal=True, color_system="truecolor")
    # What remains is what rich itself writes: colours.
    text = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(found))
    assert text.replace("\n", "").isprintable()
    assert "[bold]X" in text
    assert ":smile:" in text or width < 120
    found = lines(Watch(overview(hostile, state="paused", why="[red]a\nb", since=1.0)).screen())
    assert "[red]a\\nb" in said(found)["state"]


def test_cells_that_are_two_wide_are_counted_so() -> None:
    wide = replace(QUIET, user="漢" * 40)
    (row,) = (one for one in lines(Watch(overview(wide)).screen(), 60) if "CT1" in one)
    assert len(row) + row.count("漢") <= 60
    assert "..." in row


def test_no_colour_where_none_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(variable, raising=False)
    screen = Watch(overview(QUIET, state="draining")).screen()
    coloured = lines(screen, force_terminal=True, color_system="standard")
    assert "\x1b[1;31mdraining" in coloured[0]
    monkeypatch.setenv("NO_COLOR", "1")
    plain = lines(screen, force_terminal=True, color_system="standard")
    assert re.search(r"\x1b\[[0-9;]*3[0-9]", "\n".join(plain)) is None
    assert "draining" in plain[0]


def test_nobody_is_connected() -> None:
    assert lines(Watch(overview()).screen("q ends"))[-2:] == ["no connections", "q ends"]


# What happens to the service ---------------------------------------------------------------------


def test_a_service_that_does_not_answer_and_comes_back() -> None:
    now = 60.0
    watch = Watch(overview(QUIET), clock=lambda: now)
    watch.answered(overview(QUIET, uptime_s=STATUS.uptime_s + 2))
    watch.failed(NotRunningError("no service runs"))
    now = 90.0
    watch.failed(SilentError("it hangs"))
    shown = said(lines(watch.screen(), 200))
    assert shown["state"] == (
        "no answer since 1970-01-01 00:01:00 UTC, and asked again; the figures are older: it hangs"
    )
    # What was seen last stays, without rates.
    assert shown["refused"] == "-; 3 instances; unfinished 4"
    watch.answered(overview(QUIET, uptime_s=STATUS.uptime_s + 60, refused=63))
    shown = said(lines(watch.screen()))
    assert (shown["state"], shown["refused"]) == ("accepting", "-; 63 instances; unfinished 4")
    watch.answered(overview(QUIET, uptime_s=STATUS.uptime_s + 62, refused=65))
    assert said(lines(watch.screen()))["refused"].startswith("1.0/s; ")


def test_figures_that_are_old_are_not_shown_as_new(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that hangs is said to before patience with it ends."""
    watch = Watch(overview(QUIET))
    keys = [b"", b"q"]
    shown: list[str] = []
    waits: list[float] = []
    looks: Any = SimpleNamespace(waited_s=1.9, is_under_way=True, take=lambda: None)

    def wait(_self: Terminal, seconds: float) -> bytes:
        waits.append(seconds)
        looks.waited_s += seconds
        return keys.pop(0)

    def update(screen: Screen, **_how: bool) -> None:
        shown.append(said(lines(screen))["state"])

    monkeypatch.setattr(Terminal, "wait", wait)
    live: Any = SimpleNamespace(update=update)
    assert top_run._follow(watch, looks, Terminal(), live, 60.0)
    assert shown == ["accepting", "no answer for 3 s; the figures are older"]
    assert waits == [1.0, 1.0]


@pytest.mark.parametrize(("predecessor", "how"), [(7, "took over from"), (0, "serves instead of")])
def test_another_process_serves(predecessor: int, how: str) -> None:
    watch = Watch(overview(QUIET), clock=lambda: 100.0)
    watch.answered(
        overview(QUIET, pid=9, run="other", uptime_s=40.0, stored=1, predecessor=predecessor)
    )
    for _look in range(2):
        shown = said(lines(watch.screen()))
        assert shown["changed"] == (
            f"process 9 {how} process 7; it counts from its start, 1970-01-01 00:01:00 UTC"
        )
        assert ("predecessor" in shown) is bool(predecessor)
        # No difference of two that count each for itself.
        assert shown["stored"].startswith("-; 1 instance, ")


# The command -------------------------------------------------------------------------------------


def test_once(answering: Callable[..., Answers], capsys: pytest.CaptureFixture[str]) -> None:
    made = answering(overview(QUIET), overview(QUIET, uptime_s=STATUS.uptime_s + 1, stored=56790))
    assert cli.main(["top", "--once", "--interval", "0.1", "--store", "/data"]) == 0
    assert str(made.folder) == "/data/.fastscp"
    # One request a look.
    assert [type(one).__name__ for one in made.asked] == ["GetOverview"] * 2
    out = capsys.readouterr().out
    assert "stored        1.0/s, 0 bytes/s; 56,790 instances" in out
    assert "\x1b" not in out


def test_output_that_is_no_terminal_gets_one_screen(
    answering: Callable[..., Answers],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Which has rich take anything for a terminal.
    monkeypatch.setenv("FORCE_COLOR", "1")
    answering(overview(QUIET), overview(QUIET))
    assert cli.main(["top", "--interval", "0.1"]) == 0
    assert capsys.readouterr().out.count("free space") == 1


@pytest.mark.parametrize(
    ("error", "code"),
    [(NotRunningError("none"), 3), (SilentError("hangs"), 1), (ControlSocketError("not you"), 2)],
)
def test_what_cannot_be_asked_ends_it_as_it_ends_status(
    answering: Callable[..., Answers],
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    code: int,
) -> None:
    for answers in ((error,), (overview(), error)):
        answering(*answers)
        assert cli.main(["top", "--once", "--interval", "0.1"]) == code
        assert capsys.readouterr() == ("", f"fastscp: {error}\n")


def test_a_look_holds_up_no_key() -> None:
    woken = threading.Event()
    goes_on = threading.Event()

    def look() -> Overview:
        assert goes_on.wait(60)
        raise SilentError("it hangs")

    looks = Looks(look, woken.set)
    assert looks.waited_s == 0.0
    looks.begin()
    assert looks.take() is None
    assert looks.waited_s > 0.0
    goes_on.set()
    assert woken.wait(60)
    assert isinstance(looks.take(), SilentError)
    assert looks.waited_s == 0.0

    def broken() -> Overview:
        raise AttributeError

    # What is a bug is not hidden.
    looks = Looks(broken, woken.set)
    woken.clear()
    looks.begin()
    assert woken.wait(60)
    with pytest.raises(AttributeError):
        looks.take()


def test_ctrl_z_leaves_the_screen_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it is as it was before: the screen is entered anew when it goes on."""
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=80, height=24)
    keys = [b"", b"\x1a", b"q"]
    seen: list[str] = []
    monkeypatch.setattr(os, "isatty", lambda _fd: False)
    monkeypatch.setattr(os, "kill", lambda *told: seen.append(f"{told} {out.getvalue()[-30:]!r}"))
    monkeypatch.setattr(Terminal, "wait", lambda _self, _seconds: keys.pop(0))
    with Terminal() as terminal:
        looks = Looks(overview, terminal.wake)
        top_run._show_live(console, Watch(overview(QUIET)), looks, terminal, 60.0)
    (suspended,) = seen
    assert suspended.startswith(f"(0, {signal.SIGTSTP!r}) ")
    assert "\\x1b[?1049l" in suspended
    assert out.getvalue().count("\x1b[?1049h") == 2
    assert not keys
