"""What a sender may be answered, and when: A-ASSOCIATE-RJ and the statuses of a C-STORE."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fastscp_ext import status as codes
from fastscp_ext import status_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastscp.config.settings import ServeConfig
    from fastscp.rules.book import RuleBook

__all__ = ["MEANINGS", "ONLY_STRICT", "rejections", "statuses"]

_ROWS: Final = 64
# Of the test aids, which no statement is about.
_OF_AIDS: Final = frozenset({"refused on purpose", "discarded"})
# Reasons that there are only where harmless violations are refused.
ONLY_STRICT: Final = frozenset(
    {
        "data set ends inside an element",
        "UID is not made of digits and dots",
        "file header in the data set",
    }
)
# And only with one policy for other instances of a path.
_BY_POLICY: Final = {
    "another instance has this UID": "refuse",
    "too many versions of this UID": "version",
    "existing instance kept": "keep",
}
# Source: PS3.4 B.2.3, PS3.7 Annex C.
MEANINGS: Final = {
    codes.SUCCESS: "success",
    codes.ELEMENTS_DISCARDED: "warning: elements discarded",
    codes.INVALID_SOP_INSTANCE: "refused: invalid SOP instance",
    codes.SOP_CLASS_NOT_SUPPORTED: "refused: SOP class not supported",
    codes.DUPLICATE_INVOCATION: "refused: duplicate invocation",
    codes.UNRECOGNIZED_OPERATION: "refused: unrecognized operation",
    codes.OUT_OF_RESOURCES: "refused: out of resources",
    codes.DATA_SET_MISMATCH: "error: data set does not match SOP class",
    codes.CANNOT_UNDERSTAND: "error: cannot understand",
}


def statuses(book: RuleBook) -> Iterator[tuple[int, str, str]]:
    """Each status that there may be with these rules, its meaning, and when it comes."""
    rules = list(book.every_rule())
    policies = {rule.on_duplicate for rule in rules}
    is_strict = any(rule.strict for rule in rules)
    found: dict[int, list[str]] = {codes.SUCCESS: ["the instance is kept"]}
    for row in range(_ROWS):
        status, reason = status_name(row)
        if status is None or reason is None or status == codes.SUCCESS or reason in _OF_AIDS:
            continue
        if reason in ONLY_STRICT and not is_strict:
            continue
        if _BY_POLICY.get(reason, next(iter(policies))) not in policies:
            continue
        reasons = found.setdefault(status, [])
        if reason not in reasons:
            reasons.append(reason)
    found[codes.UNRECOGNIZED_OPERATION] = ["another operation than C-STORE and C-ECHO"]
    for status, reasons in sorted(found.items()):
        yield status, MEANINGS[status], "; ".join(reasons)


def rejections(config: ServeConfig) -> Iterator[tuple[tuple[int, int, int], str]]:
    """Result, source and reason of each A-ASSOCIATE-RJ that there may be, and when it comes.

    Source: PS3.8 Table 9-21.
    """
    yield (1, 1, 2), "another application context than DICOM's"
    if config.allow or config.tables.senders:
        yield (1, 1, 3), "the calling AE title is not allowed from its address, or to call this one"
    if config.check_called_ae:
        yield (1, 1, 7), "the called AE title is not known"
    user = "; no user identity, or a wrong one" if config.user_identity else ""
    yield (
        (1, 2, 1),
        (
            "no presentation context, or more than there are ids for; or a maximum PDU length in "
            f"which nobody can answer{user}"
        ),
    )
    yield (1, 2, 2), "another protocol version"
    yield (
        (2, 3, 1),
        (
            "shutting down, paused, disk full, the store not there or stuck, no worker, or "
            "too many connections or requests: try again later"
        ),
    )
    yield (2, 3, 2), "a limit of associations is reached; try again later"
