"""The page of the real service in a real browser: Chromium, without a window."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import json
import os
import re
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.kit import (
    CT,
    DEADLINE_S,
    ELE,
    MR,
    SOP,
    Peer,
    Service,
    associate_rq,
    data_set,
    reject,
    store,
    wait_for,
)
from tests.measures import address_of, samples
from tests.process.test_control import told

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, ConsoleMessage, Dialog, Locator, Page

CHROMIUM = Path("/usr/bin/chromium")
TOKEN = "s3cr3t-s3cr3t-s3cr3t"
MS = 1000.0
# What fits an AE title, and would be a document's if anybody took it for one.
HOSTILE = "<b>x</b>'\"&lt;"
# Told by the browser to the page alone, and by it to us.
WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation",
  (event) => window.violations.push(`${event.violatedDirective}: ${event.blockedURI}`));
"""


def need_browser() -> None:
    for what, is_there in {
        "Chromium (Debian's package chromium)": CHROMIUM.exists(),
        "playwright (dependency group test)": importlib.util.find_spec("playwright") is not None,
    }.items():
        if not is_there:
            if os.environ.get("CI"):
                pytest.fail(f"{what} is not there")
            pytest.skip(f"{what} is not there")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    need_browser()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as player:
        made = player.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that asks for a token, and lets pages do something."""
    folder = tmp_path_factory.mktemp("guarded")
    token = folder / "token"
    token.write_text(TOKEN, "ascii")
    token.chmod(0o600)
    flags = ("--admin", "127.0.0.1:0", "--admin-token-file", str(token))
    with Service(folder, *flags, "--sop-classes", "CTImageStorage", workers=2) as service:
        yield service


@dataclass
class Shown:
    """A page, and what it complained of. allowed: of what it may, as a pattern."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    allowed: str = "(?!)"

    def console(self, told: ConsoleMessage) -> None:
        if told.type in ("error", "warning"):
            self.complaints.append(told.text)

    def dialog(self, dialog: Dialog) -> None:
        # The page has none of these: somebody's text was run.
        self.complaints.append(dialog.message)
        dialog.dismiss()

    def log_in(self, token: str = TOKEN) -> None:
        self.page.get_by_label("Token", exact=True).fill(token)
        self.page.get_by_role("button", name="Show the page").click()

    def tile(self, name: str) -> Locator:
        return self.page.locator("#tiles div", has=self.page.get_by_text(name, exact=True))

    def row(self, table: str, words: str) -> Locator:
        return self.page.locator(f"#{table} tbody tr", has_text=words).first

    def value(self, name: str) -> float:
        text = self.tile(name).locator("dd").first.text_content() or ""
        found = re.match(r"[\d,.]+", text)
        return float(found[0].replace(",", "")) if found else 0.0

    def says(self, locator: Locator, words: str) -> None:
        """Wait until it does; the page's own waits are for what is there once."""
        wait_for(
            lambda: self._pumped() and locator.count() and words in self._text(locator),
            f"{words!r}",
        )

    @staticmethod
    def _text(locator: Locator) -> str:
        return locator.first.text_content() or ""

    def until(self, look: Any, what: str) -> None:
        wait_for(lambda: self._pumped() and look(), what)

    def _pumped(self) -> bool:
        # The browser's events come while something is asked of it.
        self.page.wait_for_timeout(20)
        return True


@contextlib.contextmanager
def shown(
    browser: Browser, service: Service, *, width: int = 1240, height: int = 900,
    theme: str = "light",
) -> Iterator[Shown]:  # fmt: skip
    """The page of a service; at the end it has complained of nothing."""
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if theme == "dark" else "light",
    )
    context.set_default_timeout(DEADLINE_S * MS)
    context.add_init_script(WATCH)
    page = context.new_page()
    made = Shown(page)
    page.on("console", made.console)
    page.on("pageerror", lambda error: made.complaints.append(str(error)))
    page.on("dialog", made.dialog)
    try:
        page.goto(f"http://{address_of(service)}/")
        yield made
        assert page.evaluate("window.violations") == []
        assert [one for one in made.complaints if not re.search(made.allowed, one)] == []
    finally:
        context.close()


def send(service: Service, number: int, title: str = "CT1") -> None:
    with service.peer((1, CT, ELE), calling=title) as peer:
        sop = f"{SOP}.{title.encode().hex()}.{number}"[:64]
        peer.send(store(1, data_set(sop=sop), sop=sop))
        assert peer.read_statuses(1) == [(1, 0)]
        peer.release()


def followed(service: Service) -> Iterator[dict[str, Any]]:
    """What a page without a token is told."""
    with socket.create_connection(address_of(service).split(":"), DEADLINE_S) as sock:  # type: ignore[arg-type]
        sock.sendall(b"GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        stream = sock.makefile("rb")
        for line in stream:
            if line.startswith(b"data: "):
                yield json.loads(line[len(b"data: ") :])


def test_the_numbers_are_those_of_the_status_and_the_metrics(tmp_path: Path) -> None:
    flags = ("--admin", "127.0.0.1:0", "--sop-classes", "CTImageStorage")
    with Service(tmp_path, *flags, workers=1) as service:
        views = followed(service)
        first = next(views)
        assert (first["whole"], first["actions"], first["stored"]) == (True, False, [])
        for number in range(3):
            send(service, number, "CT_SENT")
        with service.peer((1, CT, ELE), (3, MR, ELE), calling="CT_OPEN") as peer:
            peer.send(store(1, data_set(sop="a/b"), sop="a/b"))
            assert peer.read_statuses(1) == [(1, 0x0117)]
            # Points before it have come, and the journal was read.
            view = next(
                one for one in views
                if len(one["stored"]) == 3 and one["status"]["refused"] and one["connections"]
            )  # fmt: skip
            shown = json.loads(told(service, "status", "--json")[1])
            for moving in ("uptime_s", "received_bytes", "store"):
                del shown[moving], view["status"][moving]
            assert view["status"] == shown
            (listed,) = json.loads(told(service, "associations", "--once", "--json")[1])
            del listed["rate"], listed["age_s"], view["connections"][0]["about"]["age_s"]
            assert view["connections"][0]["about"] == listed
            now = samples(service)
            refused = {(one["what"], one["why"]): one["count"] for one in view["refused"]}
            reason = "SOP Instance UID is not usable"
            key = "fastscp_instances_total", (("reason", reason), ("status", "0117"))
            assert refused["instance answered 0117", reason] == now[key] == 1
            assert refused["presentation context refused", "MRImageStorage"] == 1
            peer.release()
        assert {one["calling_ae"] for one in view["stored"]} == {"CT_SENT"}
        assert {one["sop_class"] for one in view["stored"]} == {"CTImageStorage"}
        # Who it was about is nobody's business here.
        assert not {"path", "sop_instance_uid", "study_instance_uid"} & view["stored"][0].keys()
        views.close()  # type: ignore[attr-defined]


def test_a_token_is_wanted(browser: Browser, guarded: Service) -> None:
    with shown(browser, guarded) as page:
        page.says(page.page.get_by_role("status"), "token wanted")
        assert page.page.locator("#all").is_hidden()
        assert page.page.locator("#switch").is_hidden()
        # The browser itself tells of an answer 401.
        page.allowed = "401"
        page.log_in("another-token-than-that")
        page.says(page.page.locator("#login-why"), "That is not the token.")
        assert page.page.locator("#all").is_hidden()
        assert page.page.locator("#tiles").text_content() == ""
        page.log_in()
        page.says(page.page.get_by_role("status"), "accepting")
        # This tab keeps it, and no cookie does.
        page.page.reload()
        page.says(page.page.get_by_role("status"), "accepting")
        assert page.page.context.cookies() == []
        page.page.get_by_role("button", name="Forget the token").click()
        page.says(page.page.get_by_role("status"), "token wanted")


def test_what_can_be_no_token_is_not_tried(browser: Browser, guarded: Service) -> None:
    """Who pastes a word with it, or a character that nobody sees, is told so."""
    with shown(browser, guarded) as page:
        for wrong in (f"{TOKEN}\N{ZERO WIDTH SPACE}", f"token {TOKEN}"):
            page.log_in(wrong)
            page.says(page.page.locator("#login-why"), "no blanks")
            assert page.page.locator("#trouble").is_hidden()
        page.log_in()
        page.says(page.page.get_by_role("status"), "accepting")
        assert page.page.locator("#login").is_hidden()


def test_whoever_presses_twice_follows_once(browser: Browser, guarded: Service) -> None:
    asked: list[str] = []
    with shown(browser, guarded) as page:
        # No answer comes, so the form stays.
        page.page.route("**/events", lambda route: asked.append(route.request.url))
        for _ in range(3):
            page.log_in()
        page.until(lambda: asked, "a request")
        page.page.evaluate("new Promise((go) => { setTimeout(go, 200); })")
        assert len(asked) == 1


def test_a_page_that_fails_hangs_up(browser: Browser, guarded: Service) -> None:
    """It says what is wrong, and does not keep a connection with each new try."""
    with shown(browser, guarded) as page:
        page.log_in()
        page.says(page.page.get_by_role("status"), "accepting")
        ended: list[str] = []
        page.page.on("requestfailed", lambda request: ended.append(request.url))
        page.page.evaluate("document.getElementById('tiles').id = 'gone'")
        page.until(lambda: ended, "the end of a request")
        assert ended[0].endswith("/events")
        trouble = page.page.locator("#trouble").text_content() or ""
        assert "cannot be asked" in trouble
        assert "does not answer" not in trouble


def test_values_move_under_load(browser: Browser, guarded: Service) -> None:
    with shown(browser, guarded) as page:
        page.log_in()
        page.says(page.page.get_by_role("status"), "accepting")
        before = page.value("Instances"), page.tile("Instances").text_content()
        with guarded.peer((1, CT, ELE), calling="CT_ROOM") as peer:
            number = 0

            def moves() -> bool:
                nonlocal number
                for _ in range(5):
                    number += 1
                    sop = f"{SOP}.77.{number}"
                    peer.send(store(number, data_set(sop=sop), sop=sop))
                    assert peer.read_statuses(1) == [(number, 0)]
                return page.value("Instances") > 0

            page.until(moves, "instances a second")
            assert page.tile("Instances").text_content() != before[1]
            page.until(lambda: page.value("Associations") == 1, "the association")
            row = page.row("connections", "CT_ROOM \u203a FASTSCP")
            page.says(row, f"{peer.socket.getsockname()[0]}:{peer.socket.getsockname()[1]}")
            times = page.tile("Response, p50")
            page.until(lambda: moves() and "ms" in (times.text_content() or ""), "times")
            page.says(page.row("stored", "CT_ROOM"), "CTImageStorage")
            page.says(page.row("stored", "CT_ROOM"), "0000")
            for chart in ("rate", "volume", "times"):
                drawn = page.page.locator(f"#chart-{chart} svg .line").first
                assert len(drawn.get_attribute("d") or "") > 3
                summary = page.page.locator(f"#chart-{chart}-text").text_content() or ""
                assert "The last 5 minutes" in summary
                assert "now" in summary
            peer.release()
        page.says(page.page.locator("#log"), "CT_ROOM")
        page.says(page.page.locator("#log"), "released")
        # The same numbers as a table, for whoever sees no picture.
        page.page.locator("#chart-rate summary").click()
        page.until(lambda: page.page.locator("#chart-rate tbody tr").count() > 1, "a table")
        page.page.get_by_role("button", name="1 hour").click()
        assert "60 minutes" in (page.page.locator("#chart-rate-text").text_content() or "")


# What a chart shows of one point, whose bucket has another value than the last look.
DRAWN = """async ([now, seconds, width, isOld]) => {
  const { Chart } = await import("/charts.js");
  const room = document.createElement("div");
  room.style.width = `${width}px`;
  document.body.append(room);
  const chart = new Chart(room, {
    id: "tried", title: "Tried", told: (value) => `${value}/s`,
    series: [{ name: "stored", of: (one) => one.value }],
  });
  chart.draw([{ at: now - 9, value: 858 }], now, seconds, { at: now, value: 0 }, isOld);
  const found = {
    times: [...room.querySelectorAll("text.time")].map((one) => one.textContent),
    ages: [...room.querySelectorAll("text.time")].map(
      (one) => seconds * (1 - (one.getAttribute("x") - 52) / (chart.plot.clientWidth - 60))),
    said: room.querySelector(".readout").textContent,
    texts: [...room.querySelectorAll("svg text")].map((one) => one.textContent),
    boxes: [...room.querySelectorAll("text.time, text:last-of-type")].map((one) => {
      const { left, right } = one.getBoundingClientRect();
      return [left, right];
    }),
  };
  room.remove();
  return found;
}"""


def test_the_times_of_a_chart_stand_where_they_are(browser: Browser, guarded: Service) -> None:
    # 2026-11-26 18:07:46 UTC.
    now = 1795716466
    with shown(browser, guarded) as page:
        for seconds, width, step in ((300, 380, 60), (300, 250, 120), (3600, 380, 600)):
            drawn = page.page.evaluate(DRAWN, [now, seconds, width, False])
            assert len(drawn["times"]) >= 2
            for text, age in zip(drawn["times"], drawn["ages"], strict=True):
                at = now - age
                # Within what a pixel is of the real time, and that is a whole one.
                assert abs(at - step * round(at / step)) < 0.5, (text, age)
                assert text == time.strftime("%H:%M", time.gmtime(step * round(at / step)))
            for (_left, right), (left, _right) in itertools.pairwise(drawn["boxes"]):
                assert right + 2 < left, drawn
            # The last look, not the mean of the bucket before it.
            assert drawn["said"] == "now: 0/s"
        drawn = page.page.evaluate(DRAWN, [now, 3600, 380, True])
        assert drawn["said"] == "no answer since 18:07:46; then: 0/s"
        assert "now" not in drawn["texts"]
        assert "18:07:46" in drawn["texts"]


def test_a_time_is_utc_wherever_it_is_read(browser: Browser, guarded: Service) -> None:
    context = browser.new_context(timezone_id="Asia/Tokyo")
    try:
        page = context.new_page()
        page.goto(f"http://{address_of(guarded)}/")
        text = "(await import('/charts.js')).clock(1795716466)"
        assert page.evaluate(f"(async () => {text})()") == "18:07:46"
        # A scale of bytes ends at a round number of a unit, and none has four digits.
        ends = """async (numbers) => {
          const { above } = await import('/charts.js');
          return numbers.map((one) => above(one, 1024) / 1024);
        }"""
        given = [3 << 10, 400 << 10, 600 << 10, 1 << 20, 3 << 20]
        assert page.evaluate(ends, given) == [5, 500, 1024, 1024, 5 * 1024]
        assert page.evaluate("async () => (await import('/charts.js')).above(700)") == 1000
        assert page.get_by_text("All times are UTC.").is_visible()
    finally:
        context.close()


def test_nothing_is_cut(browser: Browser, guarded: Service) -> None:
    """Neither in a tile, nor, on a phone, in a box that scrolls inside the page."""
    for number in range(12):
        send(guarded, number, "CUT")
    broken = """() => [...document.querySelectorAll("#tiles dd:first-of-type")].filter((one) => {
      one.textContent = "999.9\\u00a0MiB/s";
      return one.scrollWidth > one.clientWidth;
    }).length"""
    with shown(browser, guarded, width=390, height=844) as page, guarded.peer(calling="LAST"):
        page.log_in()
        page.says(page.row("connections", "LAST"), "idle")
        visible = page.page.locator("#stored tbody tr:visible")
        page.until(lambda: visible.count() == 10, "as many rows as are shown")
        page.says(page.row("stored", "CUT"), "0000")
        for box in ("connections", "stored"):
            scrolls = f"(() => {{ const one = document.querySelector('#{box} .scroll');"
            scrolls += " return one.scrollHeight > one.clientHeight + 1; })()"
            assert page.page.evaluate(scrolls) is False
        assert visible.count() == 10
        for width in (390, 1121, 1217, 1280):
            page.page.set_viewport_size({"width": width, "height": 844})
            assert page.page.evaluate(broken) == 0, width


def test_abort(browser: Browser, guarded: Service) -> None:
    with shown(browser, guarded) as page, guarded.peer(calling="STUCK_ONE") as peer:
        page.log_in()
        button = page.page.get_by_role("button", name="Abort the association of STUCK_ONE")
        button.click()
        dialog = page.page.get_by_role("dialog")
        page.says(dialog, "STUCK_ONE at 127.0.0.1:")
        # Whoever changes their mind has done nothing.
        page.page.get_by_role("button", name="Leave it").click()
        assert dialog.is_hidden()
        assert "Abort" in (page.page.evaluate("document.activeElement.textContent") or "")
        button.click()
        page.page.get_by_role("button", name="Abort it").click()
        assert peer.read_until_close()[:1] == b"\x07"
        page.until(lambda: page.row("connections", "STUCK_ONE").count() == 0, "its end")
        said = guarded.in_log("aborted (0,0): by the operator (page, 127.0.0.1)")
        assert "STUCK_ONE" in said


def test_stop_and_start(browser: Browser, guarded: Service) -> None:
    with shown(browser, guarded) as page:
        page.log_in()
        page.page.get_by_role("button", name="Stop accepting").click()
        page.page.get_by_label("Reason").fill("a drill <i>")
        page.page.get_by_role("dialog").get_by_role("button", name="Stop accepting").click()
        try:
            page.says(page.page.get_by_role("status"), "paused")
            page.says(page.page.get_by_role("status"), "a drill <i>")
            with Peer(guarded.host, guarded.port) as peer:
                assert peer.associate(associate_rq(calling="TURNED_AWAY")) == reject(2, 3, 1)
            row = page.row("refusals", "TURNED_AWAY")
            page.says(row, "association rejected (2,3,1)")
            page.says(row, "a drill <i>")
            page.says(row, "the sender tries again later")
            page.until(lambda: page.value("Rejected") >= 1, "the rejection")
        finally:
            page.page.get_by_role("button", name="Start accepting").click()
            page.page.get_by_role("dialog").get_by_role("button", name="Start accepting").click()
        page.says(page.page.get_by_role("status"), "accepting")
        send(guarded, 1, "LET_IN")


def test_without_a_token_nothing_can_be_done(browser: Browser, tmp_path: Path) -> None:
    with Service(tmp_path, "--admin", "127.0.0.1:0", workers=1) as service:
        with shown(browser, service) as page, service.peer(calling="SEEN"):
            page.says(page.page.get_by_role("status"), "accepting")
            page.says(page.row("connections", "SEEN"), "idle")
            assert page.page.locator("#login").is_hidden()
            names = page.page.get_by_role("button").all_inner_texts()
            assert names == ["5 minutes", "1 hour", "Hold"]
        with shown(browser, service) as page:
            page.says(page.page.get_by_role("status"), "accepting")
            service.stop()
            # It says so, and its figures are marked as older ones.
            page.allowed = "ERR_|Failed to load|network error"
            page.says(page.page.get_by_role("status"), "no answer")
            page.says(page.page.get_by_role("alert").first, "The page asks again.")
            page.says(page.page.locator("#chart-rate .readout"), "no answer since")
            page.page.get_by_role("button", name="1 hour").click()
            page.says(page.page.locator("#chart-rate .readout"), "no answer since")


def test_hostile_text_is_only_text(browser: Browser, guarded: Service) -> None:
    with shown(browser, guarded) as page:
        page.log_in()
        page.says(page.page.get_by_role("status"), "accepting")
        send(guarded, 1, HOSTILE)
        hostile = "<img src=x onerror=alert(1)>"
        with guarded.peer((1, CT, ELE), (3, "1.2<script>", ELE), calling=HOSTILE) as peer:
            # A UID that nobody takes is in the log with the refusal.
            peer.send(store(1, data_set(sop=hostile), sop=hostile))
            assert peer.read_statuses(1) == [(1, 0x0117)]
            page.says(page.row("connections", HOSTILE), "idle")
            peer.release()
        page.says(page.row("stored", HOSTILE), "0000")
        page.says(page.row("refusals", f"{HOSTILE}@"), "instance answered 0117")
        page.says(page.page.locator("#refusals"), "1.2<script>")
        page.says(page.page.locator("#log"), hostile)
        document = page.page.evaluate(
            "[document.querySelectorAll('b, img, i, script:not([src])').length,"
            " document.scripts.length]"
        )
        assert document == [0, 1]


def test_it_is_for_everybody(browser: Browser, guarded: Service) -> None:
    """By axe-core, in both themes, on a screen and on a phone, where nothing is wider than that."""
    from axe_playwright_python.sync_playwright import Axe

    def check() -> None:
        found = Axe().run(page.page)
        assert found.violations_count == 0, found.generate_report()

    send(guarded, 1, "ACCESS")
    with (
        shown(browser, guarded, width=390, height=844) as page,
        guarded.peer(calling="A_LONG_AE_TITLE_"),
    ):
        page.says(page.page.get_by_role("status"), "token wanted")
        check()
        page.log_in()
        page.says(page.row("connections", "A_LONG_AE_TITLE_"), "idle")
        page.says(page.row("stored", "ACCESS"), "CTImageStorage")
        table = page.page.locator("#chart-rate tbody tr")
        page.page.locator("#chart-rate summary").click()
        page.until(lambda: table.count() > 0, "the table of a chart")
        for theme in ("light", "dark"):
            # A colour on its way from one theme to the other is none of either.
            page.page.emulate_media(
                color_scheme="dark" if theme == "dark" else "light", reduced_motion="reduce"
            )
            for width in (390, 1240):
                page.page.set_viewport_size({"width": width, "height": 844})
                check()
                assert page.page.evaluate("document.documentElement.scrollWidth") <= width
            page.page.get_by_role("button", name="Stop accepting").click()
            check()
            page.page.get_by_role("button", name="Leave it").click()


def test_it_goes_by_keyboard(browser: Browser, guarded: Service) -> None:
    with shown(browser, guarded) as page:
        keys = page.page.keyboard
        page.says(page.page.get_by_role("status"), "token wanted")
        # The field has the focus already.
        keys.type(TOKEN)
        keys.press("Enter")
        page.says(page.page.get_by_role("status"), "accepting")
        page.page.evaluate("document.activeElement.blur()")
        seen = []
        for _ in range(40):
            keys.press("Tab")
            if page.page.evaluate("document.activeElement === document.body"):
                # Between the end of the page and its beginning.
                continue
            seen.append(
                page.page.evaluate(
                    "[document.activeElement.id || document.activeElement.textContent,"
                    " getComputedStyle(document.activeElement).outlineStyle]"
                )
            )
            if seen[-1][0] == "toggle":
                break
        assert seen[-1][0] == "toggle"
        assert all(style == "solid" for _name, style in seen), seen
        keys.press("Enter")
        dialog = page.page.get_by_role("dialog")
        dialog.wait_for()
        keys.press("Escape")
        assert dialog.is_hidden()
        assert page.page.evaluate("document.activeElement.id") == "toggle"
