"""What the log says of an association: who it is, what was negotiated, what it did, how it ended.

A worker tells of its associations, and main of those whose worker has died: in the same words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

from fastscp.log import Fields, printable
from fastscp.store.filing import TOP_LEVEL

if TYPE_CHECKING:
    from fastscp_ext import Tally

__all__ = ["ENDS_SHOWN", "KINDS", "Account", "Ending", "Terms", "Who", "in_bytes"]

# So many ends of associations without an instance the log shows from one address in an interval.
ENDS_SHOWN: Final = 20

# How an association can end, as its slot in the shared block numbers it, from 1.
KINDS: Final = (
    "released", "aborted", "aborted by the peer", "connection closed",
    "connection lost inside a message", "cannot send", "the peer does not read what we send",
)  # fmt: skip
# Of such a number: the kind, whether there are numbers of the PDU, and these.
_KIND_BITS: Final = 8
_CODE_BITS: Final = 8

# Members of a tally that make a flag, in words; those in the first set are an operator's business.
_WRONG: Final = {"truncated": "truncated", "mislabelled": "mislabelled"}
_FLAGS: Final = {
    **_WRONG,
    "headers": "with a file header inside",
    "odd_uids": "with odd UIDs",
    "identical": "there already",
    "versions": "kept as versions",
    "replaced": "in place of others",
    "kept": "not stored (keep)",
}


@dataclass(frozen=True, slots=True)
class Who:
    """Whom a line of the log is about.

    association: its id, as in the journal. peer: address and port. calling_ae, called_ae: as
    `title_text` gives them; None while the request is not there.
    """

    association: str
    peer: str
    calling_ae: str | None = None
    called_ae: str | None = None

    @property
    def name(self) -> str:
        """What the line begins with."""
        if self.calling_ae is None:
            return f"{self.association} {self.peer}"
        return f"{self.association} {printable(self.calling_ae)}@{self.peer}"

    def fields(self) -> Fields:
        told = Fields(association=self.association, peer=self.peer)
        if self.calling_ae is not None:
            told["calling_ae"] = self.calling_ae
        if self.called_ae is not None:
            told["called_ae"] = self.called_ae
        return told


class Terms(msgspec.Struct, frozen=True):
    """What was negotiated, as far as the log tells of it.

    accepted, proposed: presentation contexts. peer_max_pdu_length: bytes, 0 for any number.
    implementation: version name of the peer's, fit to be shown; "" where it gave none. user: whose
    passcode or token was right; "" where none was checked. tls: version and cipher; "" without TLS.
    certificate: subject of the one the peer showed, fit to be shown; "": it showed none.
    """

    accepted: int = 0
    proposed: int = 0
    window: int = 1
    peer_max_pdu_length: int = 0
    implementation: str = ""
    user: str = ""
    tls: str = ""
    certificate: str = ""

    def text(self) -> str:
        takes = self.peer_max_pdu_length or "any number of"
        name = f" ({self.implementation})" if self.implementation else ""
        user = f"user '{printable(self.user)}', " if self.user else ""
        return (
            f"{user}{self.accepted} of {self.proposed} presentation contexts, window "
            f"{self.window}, peer takes {takes} bytes{name}"
        )

    def fields(self) -> Fields:
        told = Fields(
            contexts_accepted=self.accepted,
            contexts_proposed=self.proposed,
            window=self.window,
            peer_max_pdu_length=self.peer_max_pdu_length,
        )
        if self.implementation:
            told["implementation"] = self.implementation
        if self.user:
            told["user"] = self.user
        told.update(self.of_tls())
        return told

    def of_tls(self) -> Fields:
        """What is known before there is a request."""
        told = Fields()
        if self.tls:
            told["tls"] = self.tls
        if self.certificate:
            told["certificate"] = self.certificate
        return told


@dataclass(frozen=True, slots=True)
class Ending:
    """How an association, or a connection that became none, ended.

    kind: a few words of ours, the same for all alike. code: the numbers in the PDU that said so,
    comma separated. why: the rest, fit to be shown.
    """

    kind: str
    code: str = ""
    why: str = ""

    @property
    def number(self) -> int:
        """It as a number above 0, without `why`: see `numbered`."""
        kind = KINDS.index(self.kind) + 1 if self.kind in KINDS else len(KINDS) + 1
        if self.code:
            source, reason = (int(one) & 0xFF for one in self.code.split(","))
            kind |= (1 | source << 1 | reason << _CODE_BITS + 1) << _KIND_BITS
        return kind

    @classmethod
    def numbered(cls, number: int, why: str = "") -> Ending:
        """The ending that a number stands for."""
        kind, code = number & (1 << _KIND_BITS) - 1, number >> _KIND_BITS
        source, reason = code >> 1 & 0xFF, code >> _CODE_BITS + 1 & 0xFF
        words = KINDS[kind - 1] if 0 < kind <= len(KINDS) else "ended"
        return cls(words, f"{source},{reason}" if code & 1 else "", why)

    @property
    def text(self) -> str:
        """`rejected (2,3,1): disk full`."""
        return f"{self.kind}{self.code and f' ({self.code})'}{self.why and f': {self.why}'}"

    def fields(self) -> Fields:
        told = Fields(ended=self.kind)
        if self.code:
            told["code"] = self.code
        if self.why:
            told["reason"] = self.why
        return told


@dataclass(frozen=True, slots=True)
class Account:
    """What an association was and did, at its end.

    seconds: since its connection was there.
    """

    who: Who
    rules: str
    terms: Terms
    done: Tally
    seconds: float

    @property
    def is_costly(self) -> bool:
        """Whether an operator has to know: instances are missing, or not as they should be."""
        return bool(self.done.unfinished or any(getattr(self.done, name) for name in _WRONG))

    @property
    def rate(self) -> int:
        """Bytes a second."""
        return round(self.done.received / self.seconds) if self.seconds > 0 else 0

    def text(self) -> str:
        """`stored 12, refused 0, 6300000 bytes received in 1.203 s (5.2 MiB/s); ...`."""
        done = self.done
        counts = [f"stored {done.stored}", f"refused {done.refused}"]
        if done.unfinished:
            counts.append(f"unfinished {done.unfinished}")
        if done.unanswered:
            counts.append(f"not answered {done.unanswered}")
        counts.append(
            f"{done.received} bytes received in {self.seconds:.3f} s ({in_bytes(self.rate)}/s)"
        )
        flags = [
            f"{getattr(done, name)} {words}"
            for name, words in _FLAGS.items()
            if getattr(done, name)
        ]
        parts = [", ".join(counts), *([", ".join(flags)] if flags else [])]
        called = printable(self.who.called_ae or "")
        rules = "" if self.rules == TOP_LEVEL else f"rules {printable(self.rules)}, "
        parts.append(f"called '{called}', {rules}{self.terms.text()}")
        return "; ".join(parts)

    def fields(self) -> Fields:
        done = self.done
        told = Fields(
            rules=self.rules,
            stored=done.stored,
            refused=done.refused,
            unfinished=done.unfinished,
            unanswered=done.unanswered,
            bytes=done.bytes,
            received_bytes=done.received,
            seconds=round(self.seconds, 3),
            rate=self.rate,
            truncated=done.truncated,
            mislabelled=done.mislabelled,
            embedded_headers=done.headers,
            odd_uids=done.odd_uids,
            identical=done.identical,
            versions=done.versions,
            replaced=done.replaced,
            kept=done.kept,
        )
        told.update(self.terms.fields())
        told.update(self.who.fields())
        return told


def in_bytes(number: float) -> str:
    """A number of bytes for people, in the units that settings are written in: `5.2 MiB`."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        # From 1000 on already: three digits and a decimal at most.
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "bytes" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"
