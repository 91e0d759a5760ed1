"""What senders are told when something is refused, and what an operator does about it.

The README's tables have the same sentences: a test compares them.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CONTEXTS", "OTHERWISE", "REJECTIONS", "STATUSES", "Told", "advice_for"]


class Told(NamedTuple):
    """when: it is sent. advice: what to do. Both in Markdown."""

    when: str
    advice: str


# By status, four hexadecimal digits. Source: PS3.4 B.2.3, PS3.7 Annex C.
STATUSES: Final[Mapping[str, Told]] = MappingProxyType(
    {
        "0000": Told(
            "the instance is kept",
            "nothing",
        ),
        "B006": Told(
            "`--on-duplicate keep`, and another instance has its path",
            'nothing; the older one stays, and the log counts this one as "not stored (keep)"',
        ),
        "0117": Told(
            "a UID cannot be used as a name (empty, over 64 characters, `/`, `..`, ...)",
            "have the sender corrected; the log names the instance",
        ),
        "0122": Told(
            "the SOP class is not let in on this association",
            "look at `sop-classes`, at the top and in tables; the log names the one",
        ),
        "0210": Told(
            "the Message ID is still in use by an unanswered request",
            "have the sender corrected",
        ),
        "0211": Told(
            "not a C-STORE and not a C-ECHO",
            "the sender is configured for another service",
        ),
        "A700": Told(
            "the file cannot be written (disk full, I/O error, quota, ...), its folder could "
            "not be flushed before, space is below `--min-free-space`, the store is not there, "
            "or the instance is above `--max-instance-size`",
            "the log says which call failed and why, and how large an instance may be; most "
            "senders try again by themselves",
        ),
        "A900": Told(
            "SOP class or instance in the data set differ from the command's",
            "have the sender corrected",
        ),
        "C000": Told(
            "no data set; or no Study or Series Instance UID found in it, or two different "
            "ones, or one that may belong to an item, because the sequences in front of it are "
            "broken; or `cannot be read past (0009,1001) at byte 412`, and they were not found "
            "up to there; or the data set agrees neither with the header inside it nor with the"
            " negotiated transfer syntax; or `--on-duplicate refuse`; or a tenth version of one"
            " path",
            "the Error Comment and the log say which; the Offending Element names the element "
            "that could not be read past, and the UIDs that were not found",
        ),
    }
)

# By result, source and reason. Source: PS3.8 Table 9-21.
REJECTIONS: Final[Mapping[str, Told]] = MappingProxyType(
    {
        "1,1,2": Told(
            "another application context than DICOM's",
            "not a DICOM sender",
        ),
        "1,1,3": Told(
            "the calling AE title is not allowed from its address, or not to call this AE title",
            "add it with `--allow`, or to a `[from]` table",
        ),
        "1,1,7": Told(
            "the called AE title is not ours (`--check-called-ae`)",
            "correct the sender, or `--ae-title`, or add an `[ae]` table",
        ),
        "1,2,1": Told(
            "no presentation context, or more than 256 (there are ids for 128), or a maximum "
            "length nobody can answer in; or no user, or a wrong one (`--user-identity`)",
            "have the sender corrected, or propose fewer classes and transfer syntaxes; the log"
            " has the number, or names the user",
        ),
        "1,2,2": Told(
            "another protocol version",
            "have the sender corrected",
        ),
        "2,3,1": Told(
            "shutting down, paused (`fastscp pause`), disk full, the store not there or"
            " its disk stuck, no worker there, or too many connections, requests, user "
            "identities or open files",
            "the sender tries again later; the log says which",
        ),
        "2,3,2": Told(
            "a limit of `--max-associations` and its kin, or of `--max-association-rate`, is "
            "reached, that of all or of a table, or a request proposes more than 8,192 transfer"
            " syntaxes",
            "raise the limit, or look for a sender that does not release; have it propose fewer",
        ),
    }
)

# Of presentation contexts.
CONTEXTS: Final = (
    "let their SOP classes and transfer syntaxes in (`sop-classes`, `transfer-syntaxes`), at the "
    "top or in tables, or have the sender propose others; the log has the reason for each"
)
# What nobody has written a sentence for.
OTHERWISE: Final = "the log says why"


def advice_for(status: str = "", rejection: str = "") -> str:
    """What to do about a status, or an A-ASSOCIATE-RJ, as plain text."""
    told = STATUSES.get(status) or REJECTIONS.get(rejection)
    return plain(OTHERWISE if told is None else told.advice)


def plain(markdown: str) -> str:
    """Without the marks for code."""
    return markdown.replace("`", "")
