"""The disk of `redo_model`: the one of `kit_kept` that forgets what was not flushed, with paths.

Every name and every piece of 4 KiB survives a power cut or not on its own. A failed flush drops
what it was for: the page cache still shows it, and no later flush brings it to the medium.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.kept.kit_kept import Disk, Node, Tree
from tests.redo_files import BLOCK

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

__all__ = ["Medium"]


class Medium:
    """A disk: folders and files, as they are and as they are on the medium."""

    def __init__(self) -> None:
        self.disk = Disk(0)

    def node(self, path: str) -> Node | None:
        found: Node | None = self.disk.root
        for name in path.split("/") if path else ():
            found = found.entries.get(name) if found is not None and found.is_folder else None
        return found

    def folder(self, path: str) -> Node:
        """The folder at a path; it and those above it are made where they are missing."""
        found = self.disk.root
        for name in path.split("/") if path else ():
            if name not in found.entries:
                found.set(name, Node(True))
            found = found.entries[name]
        return found

    def place(self, node: Node, path: str) -> None:
        above, _slash, name = path.rpartition("/")
        self.folder(above).set(name, node)

    def remove(self, path: str) -> None:
        above, _slash, name = path.rpartition("/")
        self.folder(above).set(name, None)

    def make(self, path: str) -> Node:
        node = Node(False)
        self.place(node, path)
        return node

    @staticmethod
    def write(node: Node, at: int, data: bytes) -> None:
        """Every block of it is a write of its own, and an end of a file is two."""
        done = 0
        while done < len(data):
            n = min(BLOCK - (at + done) % BLOCK, len(data) - done)
            if at + done + n < at + BLOCK and n < BLOCK:
                n = (n + 1) // 2
            node.write(at + done, data[done : done + n])
            done += n

    def flush(self, node: Node) -> None:
        self.disk.flushed(node, len(node.pending), dict(node.changed))

    @staticmethod
    def spoil(node: Node) -> None:
        """A flush that fails: what it was for is not written, and counts as written."""
        node.pending.clear()
        node.changed.clear()

    def flush_way(self, path: str) -> Iterator[Node]:
        """The folders of a path, from the last one up to the store."""
        above = path
        while above:
            above = above.rpartition("/")[0]
            node = self.node(above)
            if node is not None:
                yield node

    def cut(self, luck: float, rng: random.Random) -> None:
        """Cut the power."""
        self.load(self.disk.after_cut(luck, rng))

    def load(self, tree: Tree) -> None:
        """Have this on the medium, and nothing else."""
        self.disk = Disk(0)

        def fill(node: Node, entries: Tree) -> None:
            for name, entry in entries.items():
                if isinstance(entry, bytes):
                    child = Node(False, bytearray(entry), entry)
                else:
                    child = Node(True)
                    fill(child, entry)
                node.entries[name] = node.kept_entries[name] = child

        fill(self.disk.root, tree)

    def tree(self) -> Tree:
        """What is seen of it now."""

        def look(node: Node) -> Tree:
            return {
                name: look(entry) if entry.is_folder else bytes(entry.data)
                for name, entry in node.entries.items()
            }

        return look(self.disk.root)

    def files(self) -> dict[str, bytes]:
        """What everybody sees of a store, by its path."""
        found: dict[str, bytes] = {}

        def walk(node: Node, path: str) -> None:
            for name, entry in node.entries.items():
                if entry.is_folder:
                    walk(entry, f"{path}{name}/")
                else:
                    found[path + name] = bytes(entry.data)

        for name, entry in self.disk.root.entries.items():
            if name != ".fastscp":
                walk(entry, f"{name}/")
        return found
