"""Paths of instances as a log may show them: without what is a patient's."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from fastscp.log import shown

__all__ = ["path_shown"]

# Keys of a layout whose values belong to a patient.
_PATIENT: Final = ("{PatientID}", "{AccessionNumber}")
# One component of a path is 255 bytes at most; these are what a peer may have chosen.
_COMPONENT: Final = 100
# A folder's name of fewer characters than this is never cut.
_WHOLE: Final = 60
# No folder is called so.
_FILE: Final = re.compile(r"\.dcm(?:\.zst)?(?:~[2-9])?\Z")


def path_shown(path: str, layouts: tuple[str, ...]) -> str:
    """The path with a layout's own words where a value in it may belong to a patient.

    path: below the store, of a folder or a file, made by any of `layouts`: no value adds a
    component. Where it may be of several of them, a word of any hides the value. The journal has
    the path as it is.
    """
    parts = path.split("/")
    said = [shown(part, _COMPONENT) for part in parts]
    for templates in reversed(_of_patients(layouts)):
        if not _is_none_of(parts, templates):
            for n, template in enumerate(templates[: len(parts)]):
                if any(key in template for key in _PATIENT):
                    said[n] = template
    return "/".join(part for part in said if part)


@lru_cache(maxsize=8)
def _of_patients(layouts: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """The components of those layouts that have a patient's value in them; few have."""
    return tuple(
        tuple(layout.split("/")) for layout in layouts if any(key in layout for key in _PATIENT)
    )


def _is_none_of(parts: list[str], templates: tuple[str, ...]) -> bool:
    """Whether a path is surely of another layout: of other length, or by a folder without a key.

    A folder's dot may be encoded, and a long name is cut.
    """
    if len(parts) > len(templates) or (_FILE.search(parts[-1]) and len(parts) < len(templates)):
        return True
    return any(
        "{" not in template and len(template) < _WHOLE and part.replace("%2E", ".") != template
        for part, template in zip(parts[:-1], templates, strict=False)
    )
