"""The docstrings of extension modules: they stand in the stub, and what is built says no other."""

from __future__ import annotations

import ast
import importlib
import inspect
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.unit.test_linters import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STUBS = sorted((ROOT / "fastscp_ext").rglob("*.pyi"))


class Documented(NamedTuple):
    """Something public: where it is, what it is in the stub and, if it is there, as built."""

    name: str
    node: ast.ClassDef | ast.FunctionDef
    built: Any

    @property
    def docstring(self) -> str:
        return ast.get_docstring(self.node) or ""

    @property
    def is_attribute(self) -> bool:
        """Whether the class says what it is, if need be."""
        names = (one.id for one in self.node.decorator_list if isinstance(one, ast.Name))
        return "property" in names


def documented(stub: Path) -> list[Documented]:
    module = ".".join(stub.relative_to(ROOT).with_suffix("").parts)

    def within(body: list[ast.stmt], built: Any, prefix: str) -> Iterator[Documented]:
        for node in body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                # What sets a value is told where it is read.
                if any(isinstance(mark, ast.Attribute) for mark in node.decorator_list):
                    continue
                one = Documented(prefix + node.name, node, getattr(built, node.name, None))
                yield one
                # What a protocol asks for, others have.
                if isinstance(node, ast.ClassDef) and one.built is not None:
                    yield from within(node.body, one.built, f"{one.name}.")

    parsed = ast.parse(stub.read_text("utf-8"))
    return list(within(parsed.body, importlib.import_module(module), ""))


def said(built: Any) -> str:
    """The docstring of an object as built; not that of its class, for a value."""
    return inspect.cleandoc(getattr(built, "__doc__", None) or "")


@pytest.mark.parametrize("stub", STUBS, ids=lambda stub: stub.name)
def test_the_stub_has_every_docstring(stub: Path) -> None:
    missing = [one.name for one in documented(stub) if not one.docstring and not one.is_attribute]
    assert missing == []
    assert ast.get_docstring(ast.parse(stub.read_text("utf-8")))


@pytest.mark.parametrize("stub", STUBS, ids=lambda stub: stub.name)
def test_what_is_built_says_no_other(stub: Path) -> None:
    """The stub's own text, or one line that names the stub."""
    others = [
        one.name
        for one in documented(stub)
        if (text := said(one.built))
        and text != one.docstring
        and ("\n" in text or not text.endswith(f"See {stub.name}."))
    ]
    assert others == []


def test_there_is_something_to_look_at() -> None:
    names = {one.name for stub in STUBS for one in documented(stub)}
    assert {"Receiver.overdue", "Parcel.again", "Layout", "decode_command"} <= names
