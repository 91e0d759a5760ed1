"""The examples in the docstrings of the Python API, run as they stand against a real service."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import doctest
import inspect
import io
import re
import socket
import sys
import types
from typing import TYPE_CHECKING, Any

import pytest

from fastscp import scu
from tests.kit import Service, data_set
from tests.scripted import part10
from tests.unit.test_readme import section

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

METHODS = [
    f"{name}.{method}"
    for name in scu.__all__
    if inspect.isclass(value := getattr(scu, name))
    for method, one in vars(value).items()
    if inspect.iscoroutinefunction(one) and not method.startswith("_")
]
# What the examples call the peer, and a port where nobody listens.
HOST, PORT, NOBODY = "pacs", 104, 105


def example_of(name: str) -> str:
    value: Any = scu
    for part in name.split("."):
        value = getattr(value, part)
    return inspect.getdoc(value) or ""


def test_every_public_name_has_an_example() -> None:
    assert set(METHODS) == {f"Association.{name}" for name in ("echo", "store", "release", "abort")}
    for name in (*scu.__all__, *METHODS):
        assert doctest.DocTestParser().get_examples(example_of(name)), name


def test_every_public_attribute_is_described() -> None:
    for name in scu.__all__:
        value = getattr(scu, name)
        if inspect.isclass(value):
            for attribute, one in vars(value).items():
                if isinstance(one, property) and not attribute.startswith("_"):
                    assert one.__doc__, f"{name}.{attribute}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the examples run in."""
    folder = tmp_path_factory.mktemp("examples")
    names = {"image.dcm": "1.2.3.4", "other.dcm": "1.2.3.5"}
    for name, sop in names.items():
        (folder / name).write_bytes(part10(data_set(sop=sop), sop=sop))
    (folder / "nameless.dcm").write_bytes(part10(data_set(study="")))
    (folder / "notes.txt").write_text("not DICOM")
    return folder


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    with Service(folder, "--allow", "FASTSCP@*", workers=1) as service:
        yield service


@pytest.fixture
def pacs(service: Service, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The name and the ports of the examples lead to the service."""
    look_up = socket.getaddrinfo
    free = socket.socket()
    free.bind((service.host, 0))  # bound and not listening: whoever connects is refused
    ports = {PORT: service.port, NOBODY: free.getsockname()[1]}

    def found(host: str, port: int, *rest: Any, **more: Any) -> Any:
        assert host == HOST
        return look_up(service.host, ports[port], *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", found)
    with free:
        yield


@pytest.mark.parametrize("name", [*scu.__all__, *METHODS])
def test_example(name: str, folder: Path, pacs: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {"asyncio": asyncio}
    exec("from fastscp.scu import *", names)
    checker, how = doctest.OutputChecker(), doctest.ELLIPSIS
    with asyncio.Runner() as runner:
        for example in doctest.DocTestParser().get_examples(example_of(name)):
            said = io.StringIO()
            with contextlib.redirect_stdout(said):
                run(example.source, names, runner)
            got = said.getvalue()
            assert checker.check_output(example.want, got, how), f"{example.source}{got}"


@pytest.fixture
def snippets(folder: Path, pacs: None, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The blocks of README, in the folder that they can run in."""
    monkeypatch.chdir(folder)
    return re.findall(r"```python\n(.*?)```", section("Python API"), re.DOTALL)


def test_readme(snippets: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for block in snippets:
        exec(compile(block, "README.md", "exec", dont_inherit=True), {})
    assert capsys.readouterr().out.splitlines() == [
        "image.dcm True 0000 success",
        "other.dcm True 0000 success",
        "image.dcm 0000 success",
        "other.dcm 0000 success",
    ]


def test_what_readme_shows_loses_nothing(
    snippets: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that is no instance, and one that is not there, do not take the others along."""
    for block in snippets:
        bad = block.replace('["image.dcm",', '["image.dcm", "notes.txt", "missing.dcm",')
        assert bad != block
        exec(compile(bad, "README.md", "exec", dont_inherit=True), {})
    said = capsys.readouterr().out.splitlines()
    assert [line for line in said if line.endswith("0000 success")] == [
        "image.dcm True 0000 success",
        "other.dcm True 0000 success",
        "image.dcm 0000 success",
        "other.dcm 0000 success",
    ]
    assert len([line for line in said if "notes.txt is not a DICOM" in line]) == 2
    assert len([line for line in said if "No such file" in line]) == 2


def run(source: str, names: dict[str, Any], runner: asyncio.Runner) -> None:
    """As `python -m asyncio` runs what somebody types."""
    code = compile(source, "<example>", "single", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    shown, sys.displayhook = sys.displayhook, sys.__displayhook__
    try:
        waiting = types.FunctionType(code, names)()
        if inspect.iscoroutine(waiting):
            runner.run(waiting)
    finally:
        sys.displayhook = shown
