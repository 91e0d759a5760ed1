"""Paths of instances as a log may show them: without what is a patient's."""

from __future__ import annotations

from itertools import zip_longest
from typing import Final

from fastscp.log import shown

__all__ = ["path_shown"]

# Keys of a layout whose values belong to a patient.
_PATIENT: Final = ("{PatientID}", "{AccessionNumber}")
# One component of a path is 255 bytes at most; these are what a peer may have chosen.
_COMPONENT: Final = 100


def path_shown(path: str, layout: str) -> str:
    """The path with the layout's own words where a value in it belongs to a patient.

    path: below the store, made by `layout`: no value adds a component. The journal has the path
    as it is.
    """
    return "/".join(
        template if any(key in template for key in _PATIENT) else shown(part, _COMPONENT)
        for part, template in zip_longest(path.split("/"), layout.split("/"), fillvalue="")
        if part
    )
