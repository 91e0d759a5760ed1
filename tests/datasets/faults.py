"""The ways in which data sets are broken, one small function each; a fault can be taken back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from tests.datasets.tree import (
    ITEM,
    ITEM_END,
    SEQUENCE_END,
    SHORT_FORM,
    UNDEFINED,
    WANTED,
    Element,
    Item,
    Tree,
)

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

__all__ = ["BAD_VRS", "KINDS", "Fault", "damage"]

BAD_VRS: Final = (
    *(b"--", b"  ", b"\0\0", b"??", b"us", b"lo", b"sq", b"Us", b"\xff\xff", b"\xe4\xf6"),
    *(b"AA", b"RE", b"ZZ", b"XX", b"SX", b"U\0", b"U ", b" U", b"12", b"\0U", b"\r\n", b"OX"),
)
PLACE: Final = ("StudyInstanceUID", "SeriesInstanceUID")  # the instance, in the default layout


@dataclass
class Fault:
    """changes: (node, field, value before, value since)."""

    kind: str
    changes: list[tuple[Any, str, Any, Any]] = field(default_factory=list)

    def undo(self) -> None:
        for node, name, before, _ in reversed(self.changes):
            setattr(node, name, before)

    def redo(self) -> None:
        for node, name, _, since in self.changes:
            setattr(node, name, since)


class Damage:
    """One fault about to be done: picks places, and keeps what it changed.

    focus: a sequence in which it is to be, so that several meet.
    """

    def __init__(self, rng: random.Random, tree: Tree, kind: str, focus: Element | None) -> None:
        self.rng = rng
        self.tree = tree
        self.inside = Tree(tree.coding, tree.elements if focus is None else [focus])
        self.fault = Fault(kind)

    def set(self, node: Element | Item | Tree, name: str, value: object) -> bool:
        self.fault.changes.append((node, name, getattr(node, name), value))
        setattr(node, name, value)
        return True

    def elements(self) -> list[Element]:
        return [node for node, _ in self.inside.nodes() if isinstance(node, Element)]

    def items(self) -> list[Item]:
        return [node for node, _ in self.inside.nodes() if isinstance(node, Item)]

    def element(self, wanted: Callable[[Element], object] = bool) -> Element | None:
        """One of those; every other time of the outermost level."""
        outer = [one for one in self.inside.elements if wanted(one)]
        if outer and self.rng.random() < 0.5:
            return self.rng.choice(outer)
        found = [one for one in self.elements() if wanted(one)]
        return self.rng.choice(found) if found else None

    def sequence(self, wanted: Callable[[Element], object] = bool) -> Element | None:
        return self.element(lambda one: one.items is not None and wanted(one))

    def item(self, wanted: Callable[[Item], object] = bool) -> Item | None:
        found = [one for one in self.items() if wanted(one)]
        return self.rng.choice(found) if found else None


def un_explicit(d: Damage) -> bool:
    """UN of undefined length whose items are explicit."""
    one = d.sequence()
    if one is None or d.tree.coding.implicit:
        return False
    d.set(one, "vr", "UN")
    d.set(one, "defined", d.rng.random() < 0.1)
    return d.set(one, "inside", False)


def bare_sequence(d: Damage) -> bool:
    """A sequence of undefined length without an end, without items, or both."""
    one = d.sequence()
    if one is None:
        return False
    d.set(one, "defined", False)
    if d.rng.random() < 0.7:
        d.set(one, "items", [])
    return d.set(one, "end", ())


def bare_item(d: Damage) -> bool:
    """An item without its header, and with or without its end."""
    item = d.item()
    if item is None:
        return False
    d.set(item, "bare", True)
    return d.rng.random() < 0.5 or d.set(item, "end", ())


def other_header(d: Damage) -> bool:
    """An element without a VR among those with one, or the reverse."""
    one = d.element()
    if one is None:
        return False
    if one.items and d.rng.random() < 0.5:
        d.set(one, "inside", not d.tree.coding.implicit)
    return d.set(one, "other", True)


def short_form(d: Damage) -> bool:
    """A 16-bit length where the VR has one of 32 bits, or is not known."""
    one = d.element(lambda one: one.vr not in SHORT_FORM)
    if one is None or d.tree.coding.implicit:
        return False
    if d.rng.random() < 0.3:
        d.set(one, "vr_bytes", d.rng.choice((b"RE", b"ZZ", b"OX", b"UT", b"OB", b"UN", b"OW")))
    return d.set(one, "long", False)


def long_form(d: Damage) -> bool:
    """Two reserved bytes and 32 bits where the VR has a length of 16."""
    one = d.element(lambda one: one.vr in SHORT_FORM)
    if one is None or d.tree.coding.implicit:
        return False
    return d.set(one, "long", True)


def missing_end(d: Damage) -> bool:
    if d.rng.random() < 0.5:
        one = d.element(lambda one: one.fragments is not None or (one.items is not None
                        and not one.defined))  # fmt: skip
        return one is not None and d.set(one, "end", ())
    item = d.item(lambda item: not item.defined)
    return item is not None and d.set(item, "end", ())


def extra_mark(d: Damage) -> bool:
    """An end, both, or an item's header where it does not belong."""
    marks = d.rng.choice(
        (
            ((ITEM_END, 0),), ((SEQUENCE_END, 0),), ((ITEM_END, 0), (SEQUENCE_END, 0)),
            ((SEQUENCE_END, 0),) * 2, ((ITEM_END, 0),) * 2, ((ITEM, 0),), ((ITEM, UNDEFINED),),
            ((ITEM, d.rng.randrange(60)),),
        )
    )  # fmt: skip
    if d.rng.random() < 0.25 and (item := d.item()):
        return d.set(item, "behind", marks)
    one = d.element()
    return one is not None and d.set(one, d.rng.choice(("before", "behind")), marks)


def swapped_ends(d: Damage) -> bool:
    """An item's end instead of a sequence's, the reverse, or twice."""
    item_end, sequence_end = (ITEM_END, 0), (SEQUENCE_END, 0)
    if d.rng.random() < 0.5:
        one = d.sequence(lambda one: not one.defined)
        marks = d.rng.choice(((item_end,), (sequence_end,) * 2, (item_end, sequence_end)))
        return one is not None and d.set(one, "end", marks)
    item = d.item(lambda item: not item.defined)
    marks = d.rng.choice(((sequence_end,), (item_end,) * 2, (sequence_end, item_end)))
    return item is not None and d.set(item, "end", marks)


def end_with_length(d: Damage) -> bool:
    length = d.rng.choice((1, 2, 4, 8, 20, 0x20, 0xFFFF, UNDEFINED))
    if d.rng.random() < 0.5:
        one = d.element(lambda one: one.fragments is not None or (one.items is not None
                        and not one.defined))  # fmt: skip
        return one is not None and d.set(one, "end", ((SEQUENCE_END, length),))
    item = d.item(lambda item: not item.defined)
    return item is not None and d.set(item, "end", ((ITEM_END, length),))


def bad_vr(d: Damage) -> bool:
    """A VR of dashes, blanks, zeros, small letters, unknown capitals or other bytes."""
    if d.tree.coding.implicit:
        return False
    one = d.tree.elements[0] if d.rng.random() < 0.2 else d.element()
    if one is None:
        return False
    if d.rng.random() < 0.4:
        d.set(one, "long", d.rng.random() < 0.5)
    elif one.items is None and one.fragments is None:
        d.set(one, "long", False)
    return d.set(one, "vr_bytes", d.rng.choice(BAD_VRS))


def level_length(d: Damage) -> bool:
    """A sequence or an item shorter or longer than it says."""
    by = d.rng.choice((-8, -18, 8, 18, -2, 2, -16, 16, d.rng.randrange(-60, 200)))
    if d.rng.random() < 0.5:
        one = d.sequence(lambda one: one.defined)
        return one is not None and d.set(one, "by", by)
    item = d.item(lambda item: item.defined)
    return item is not None and d.set(item, "by", by)


def value_length(d: Damage) -> bool:
    """A value shorter or longer than it says; not one in which another data set may lie."""
    one = d.element(lambda one: one.value and one.vr in SHORT_FORM)
    if one is None:
        return False
    by = d.rng.choice((-1, 1, -2, 2, 4, -4, 8, d.rng.randrange(-len(one.value), 40)))
    return d.set(one, "by", by)


def reserved(d: Damage) -> bool:
    """The two bytes behind a VR with a 32-bit length are not zero."""
    one = d.element(lambda one: one.vr not in SHORT_FORM)
    if one is None or d.tree.coding.implicit:
        return False
    return d.set(one, "reserved", d.rng.choice((b"\0\1", b"\1\0", b"\xff\xff", b"  ", b"\4\0")))


def gap(d: Damage) -> bool:
    """Bytes between two elements that belong to none."""
    one = d.element()
    size = d.rng.choice((1, 2, 4, 8, 8, 12, 16))
    filled = d.rng.choice((bytes(size), b"\xff" * size, d.rng.randbytes(size)))
    return one is not None and d.set(one, "gap", filled)


def tail(d: Damage) -> bool:
    rng = d.rng
    size = rng.randrange(1, 60)
    last = b"\1" + Tree(d.tree.coding, d.tree.elements[-3:]).data()[-size:]
    return d.set(
        d.tree, "tail", rng.choice((rng.randbytes(size), bytes(size), b"\xff" * size, last))
    )


def cut(d: Damage) -> bool:
    if d.tree.cut is not None:
        return False
    nodes = [node for node, _ in d.tree.nodes()]
    more = d.rng.choice((0, 0, 4, 8, 12, d.rng.randrange(40)))
    return d.set(d.tree, "cut", (d.rng.choice(nodes), more))


def stray_end(d: Damage) -> bool:
    """A sequence of defined length, perhaps an empty one, and then an end."""
    one = d.sequence()
    if one is None:
        return False
    d.set(one, "defined", True)
    return d.set(one, "behind", ((SEQUENCE_END, 0),))


def swapped_bytes(d: Damage) -> bool:
    """The header of an element in the other byte order."""
    one = d.element()
    return one is not None and d.set(one, "swapped", True)


def lying_vr(d: Damage) -> bool:
    """A VR that is another's: SQ with a text in it, LO for a sequence."""
    if d.tree.coding.implicit:
        return False
    if d.rng.random() < 0.5:
        one = d.element(lambda one: one.items is None and one.fragments is None)
        vr = d.rng.choice((b"SQ", b"SQ", b"OB", b"UN", b"UT", b"LO", b"US", b"UI"))
    else:
        one = d.sequence()
        vr = d.rng.choice((b"LO", b"OB", b"UT", b"UI", b"OW"))
    if one is None:
        return False
    was_long = one.vr not in SHORT_FORM
    # The length has the form that the VR calls for, or that of the true one.
    d.set(one, "long", vr.decode() not in SHORT_FORM if d.rng.random() < 0.7 else was_long)
    return d.set(one, "vr_bytes", vr)


def twice(d: Damage) -> bool:
    """An element of the instance with another value as well; of those that place it, behind."""
    at = d.rng.randrange(len(d.tree.elements))
    one, later = d.tree.elements[at], d.tree.elements[at + 1 :]
    if one.tag not in WANTED or not one.value:
        return False
    keyword = WANTED[one.tag]
    other = Element(one.tag, one.vr, b"1.9.9.9.8\0" if keyword.endswith("UID") else b"19")
    if keyword not in PLACE:
        d.set(d.tree, "also", d.tree.also | {keyword: other.value.rstrip(b"\0")})
        later.append(one)
    return bool(later) and d.set(d.rng.choice(later), "extra", (other,))


def same_twice(d: Damage) -> bool:
    """An element of the instance again, as it was."""
    one = d.rng.choice(d.tree.elements)
    if one.tag not in WANTED:
        return False
    return d.set(one, "extra", (Element(one.tag, one.vr, one.value),))


KINDS: Final[dict[str, Callable[[Damage], bool]]] = {
    kind.__name__: kind
    for kind in (
        un_explicit, bare_sequence, bare_item, other_header, short_form, long_form, missing_end,
        extra_mark, swapped_ends, end_with_length, bad_vr, level_length, value_length, reserved,
        gap, tail, cut, stray_end, swapped_bytes, lying_vr, twice, same_twice,
    )
}  # fmt: skip


def damage(rng: random.Random, tree: Tree, count: int) -> list[Fault]:
    """Do `count` faults, or fewer where the tree has no place for them."""
    done = []
    sequences = [one for one in tree.elements if one.items]
    focus = rng.choice(sequences) if count > 1 and sequences and rng.random() < 0.5 else None
    for _ in range(count * 8):
        kind = rng.choice(list(KINDS))
        attempt = Damage(rng, tree, kind, focus)
        if KINDS[kind](attempt):
            done.append(attempt.fault)
        else:
            attempt.fault.undo()
        if len(done) == count:
            break
    return done
