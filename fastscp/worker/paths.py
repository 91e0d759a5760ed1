"""Paths of instances as a log may show them: without what is a patient's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fastscp.log import shown

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["path_shown"]

# Keys of a layout whose values belong to a patient.
_PATIENT: Final = ("{PatientID}", "{AccessionNumber}")
# One component of a path is 255 bytes at most; these are what a peer may have chosen.
_COMPONENT: Final = 100


def path_shown(path: str, layouts: Collection[str]) -> str:
    """The path with a layout's own words where a value in it belongs to a patient.

    path: below the store. layouts: all that may have made it; no value adds a component. Where one
    of them has a patient's value, it is not shown, whichever made the path. The journal has the
    path as it is.
    """
    parts = [part for part in path.split("/") if part]
    templates = [layout.split("/") for layout in layouts]
    return "/".join(
        next(
            (
                template[at]
                for template in templates
                if at < len(template) and any(key in template[at] for key in _PATIENT)
            ),
            shown(part, _COMPONENT),
        )
        for at, part in enumerate(parts)
    )
