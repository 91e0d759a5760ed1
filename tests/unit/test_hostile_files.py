"""Files with settings that are made to cost time or memory, or to break what reads them."""

from __future__ import annotations

import contextlib
import random
import tomllib
from typing import TYPE_CHECKING

import pytest

from fastscp.config.file import check_file
from fastscp.config.layers import load
from fastscp.config.nesting import DEPTH_MOST, too_deep
from fastscp.config.settings import SETTINGS, read_value
from fastscp.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fastscp.config.settings import Setting

DEEP = 100_000


@pytest.fixture
def toml(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        file = tmp_path / "c.toml"
        file.write_text(text)
        return file

    return write


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is given to tomllib."""
    given: list[str] = []
    whole = tomllib.loads

    def noted(text: str) -> object:
        given.append(text)
        return whole(text)

    monkeypatch.setattr(tomllib, "loads", noted)
    return given


@pytest.mark.parametrize(
    "text",
    [
        ".".join(["a"] * DEEP) + " = 1",
        " . ".join(["a"] * DEEP) + " = 1",
        " .".join(["a"] * DEEP),
        ".".join(['"a"'] * DEEP) + " = 1",
        ".".join(["'.'"] * DEEP) + " = 1",
        "[" + ".".join(["a"] * DEEP) + "]",
        "[[" + ".".join(["a"] * DEEP) + "]]",
        "x = {" + ".".join(["a"] * DEEP) + " = 1}",
        "x = " + "[" * DEEP + "]" * DEEP,
        "x = " + "{a=" * DEEP + "1" + "}" * DEEP,
        "x.[" * DEEP,
        "x = '''it's''' # ]\ny = " + "[" * DEEP,
    ],
    ids=lambda text: text[:12].replace("\n", " "),
)
@pytest.mark.parametrize("behind", ["", "\n[broken\n"])
def test_what_nests_too_deep_never_comes_to_the_parser(
    toml: Callable[[str], Path], parsed: list[str], text: str, behind: str
) -> None:
    line = 2 if text.startswith("x = '''") else 1
    with pytest.raises(ConfigError, match=rf"nested too deeply; .*line {line + 1} has more"):
        load({}, {}, toml("port = 1\n" + text + behind))
    assert parsed == []


@pytest.mark.parametrize("open_text", ['"""', "'''"])
def test_a_text_that_never_ends_hides_nothing(
    toml: Callable[[str], Path], parsed: list[str], open_text: str
) -> None:
    """Each statement is looked at by itself then, and none goes to the parser unseen."""
    deep = ".".join(["a"] * DEEP) + " = 1\n"
    found = check_file(toml(f"x = {open_text}\n{deep}[{deep}"), "--config").mistakes
    assert found
    assert all(len(one.why) < 500 for one in found)
    assert [text for text in parsed if too_deep(text)] == []


def test_what_only_looks_deep() -> None:
    dots, signs = "." * DEEP, "[" * DEEP
    for text in (
        f'x = "{dots}{signs}"',
        f"x = '{dots}{signs}'",
        f'x = """{dots}\n"" {signs}\\""" """\ny = 1',
        f"x = '''{dots}\n'{signs}'''\ny = 1",
        f"x = 1 # {dots}{signs}",
        "x = [" + "1.5, " * DEEP + "]",
        "x.y = 1.5\n" * DEEP,
        "x = [\n" * DEEP,
        "x = {\n" * DEEP,
        "x = [[1.5], [2.5]]\n" * DEEP,
        ".".join(["a"] * DEPTH_MOST) + " = 1",
        "x = " + "[" * DEPTH_MOST + "]" * DEPTH_MOST,
    ):
        assert too_deep(text) == 0, text[:20]
    assert too_deep("\n" + ".".join(["a"] * (DEPTH_MOST + 1)) + " = 1") == 2
    assert too_deep("x = " + "[" * (DEPTH_MOST + 1)) == 1


LONG = "0x" + "f" * 5000


@pytest.mark.parametrize("form", ["{}", "[{}]", "[[1, {}]]", "{{ a = {} }}"])
def test_a_number_of_thousands_of_digits_is_a_mistake(
    toml: Callable[[str], Path], form: str
) -> None:
    for name in (setting.name for setting in SETTINGS):
        with pytest.raises(ConfigError) as refused:
            load({}, {}, toml(f"{name} = {form.format(LONG)}"))
        assert all(len(one) < 2000 for one in refused.value.mistakes)


def test_a_number_in_a_table_too(toml: Callable[[str], Path]) -> None:
    text = f'[ae.X]\nstrict = {LONG}\n[from.y]\nwho = ["*@*", {LONG}]\nport = {LONG}\n'
    found = check_file(toml(text), "--config").mistakes
    numbers = [one for one in found if "a number of more than 64 bits" in one.why]
    assert [(one.line, one.key) for one in numbers] == [
        (2, "ae.X.strict"),
        (4, "from.y.who"),
        (5, "from.y.port"),
    ]


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_a_value_is_shown_cut(setting: Setting) -> None:
    """Whatever the kind of its setting, and whatever it is."""
    text = "\x01" + "x" * 100_000
    for raw in (text, [text], [[text]], {text: text}, 16**9000, [16**9000], [text, "b"]):
        with pytest.raises(ConfigError) as refused:
            read_value("--x", raw, setting.kind)
        assert len(str(refused.value)) < 1000


PIECES = (
    "x = ", "y.z = ", "[", "]", "{", "}", "[a", "[[b]]", '"', "'", '"""', "'''", "#", ".", ",", "=",
    "\n", "\n", " ", "\\", "a.b", "1", "0xff", "[ae.X]\n", "strict = true\n", "who = [", "\t",
    "\x7f",
)  # fmt: skip


@pytest.mark.parametrize("seed", range(8))
def test_what_comes_to_the_parser_is_bounded(
    toml: Callable[[str], Path], parsed: list[str], seed: int
) -> None:
    """Whatever stands in a file: all together is some times the file, and no crash."""
    some = random.Random(seed)
    for _ in range(40):
        pieces = some.sample(PIECES, some.randint(1, 5))
        text = "".join(some.choices(pieces, k=some.choice((20, 400))))
        parsed.clear()
        with contextlib.suppress(ConfigError):
            check_file(toml(text), "--config")
        # The whole, each statement, and what a line may have meant.
        assert sum(map(len, parsed)) <= 12 * len(text) + 200, text
