"""Where an instance is stored: a template compiled once, rendered per instance without Python."""

from collections.abc import Mapping
from typing import Final, Self, final

from typing_extensions import Buffer

__all__ = ["KEYS", "Layout", "LayoutError"]

KEYS: Final[tuple[str, ...]]

class LayoutError(ValueError):
    """No path for an instance: `key` is the value at fault, None if the path is too long."""

    key: str | None
    why: str
    def __init__(self, key: str | None, why: str) -> None: ...

@final
class Layout:
    """A compiled template of paths below the store.

    template: components between `/`, keys in braces, e.g. `{Modality}/{SOPInstanceUID}.dcm`.
    suffix: `.dcm` or `.dcm.zst`, what the files end in; it takes the place of the template's
    `.dcm`. Raises ValueError, saying what is wrong with the template.
    """

    def __new__(cls, template: str, suffix: bytes = b".dcm") -> Self: ...
    @property
    def template(self) -> str: ...
    @property
    def suffix(self) -> bytes: ...
    def render(self, values: Mapping[str, Buffer]) -> str:
        """The path of an instance, relative to the store.

        values: the raw bytes of each key without padding, by name; a key left out is empty.
        A folder's name over 255 bytes, or the file's over 245 without its suffix, is cut and gets a
        hash: a version mark and `.zst` fit behind any file's name. Raises LayoutError: a UID unfit
        as a name, Study or Series Instance UID empty, or a path too long. ValueError: a key this
        knows nothing of.
        """
