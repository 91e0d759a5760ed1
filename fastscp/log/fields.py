"""What a line tells as fields, beside its words: the members of a JSON line that have a name."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypedDict, Unpack

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["FIELDS", "Fields", "fields", "fields_table"]


class Fields(TypedDict, total=False):
    """The fields there are; FIELDS says what each holds."""

    association: str
    calling_ae: str
    called_ae: str
    user: str
    tls: str
    certificate: str
    peer: str
    ended: str
    code: str
    reason: str
    rules: str
    contexts_accepted: int
    contexts_proposed: int
    refused_classes: list[str]
    window: int
    peer_max_pdu_length: int
    implementation: str
    stored: int
    refused: int
    unfinished: int
    unanswered: int
    bytes: int
    received_bytes: int
    seconds: float
    rate: int
    truncated: int
    mislabelled: int
    embedded_headers: int
    odd_uids: int
    identical: int
    versions: int
    replaced: int
    kept: int
    sop_instance_uid: str
    status: str
    worker: int
    associations_begun: int
    associations_ended: int
    associations_open: int
    associations_rejected: int
    lines_hidden: int
    lines_lost: int


# In the order in which the README shows them.
FIELDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "association": "id of the association, as in the journal",
        "calling_ae": "AE title of the sender",
        "called_ae": "AE title that the sender called",
        "user": "user whose passcode or token was right (`--user-identity`)",
        "tls": "version and cipher of TLS: `TLSv1.3 TLS_AES_256_GCM_SHA384`",
        "certificate": "subject of the certificate that the sender showed (`--tls-client-auth`)",
        "peer": "address and port of the sender; the address alone where several are counted",
        "ended": "how the association ended: `released`, `rejected`, `aborted`, "
        "`aborted by the peer`, `connection closed`, `lost with its worker`, ...",
        "code": "the numbers of the A-ASSOCIATE-RJ or A-ABORT: `2,3,1`",
        "reason": "why: of an end, or the Error Comment of a refused instance",
        "rules": "the rules of the association",
        "contexts_accepted": "presentation contexts accepted",
        "contexts_proposed": "presentation contexts answered",
        "refused_classes": "abstract syntaxes of the refused ones, by name, 8 at most",
        "window": "operations that the sender may have outstanding",
        "peer_max_pdu_length": "bytes of a P-DATA-TF that the sender takes; 0: any number",
        "implementation": "implementation version name of the sender",
        "stored": "instances answered with success",
        "refused": "instances refused",
        "unfinished": "instances that broke off before their last byte",
        "unanswered": "instances that nobody was answered about when the association ended",
        "bytes": "bytes of the data sets that were stored, or of the one that the line is about",
        "received_bytes": "bytes read from connections",
        "seconds": "from the connection to the end, or of the time that is summed up",
        "rate": "received_bytes a second",
        "truncated": "stored instances whose data set ends inside an element",
        "mislabelled": "stored instances that are not in the transfer syntax that was negotiated",
        "embedded_headers": "stored instances that had a file header inside the data set",
        "odd_uids": "stored instances with a UID that is not made of digits and dots",
        "identical": "stored instances that were there already",
        "versions": "stored instances kept beside another one of their path",
        "replaced": "stored instances that took the place of another one",
        "kept": "instances not stored, for `--on-duplicate keep`",
        "sop_instance_uid": "SOP Instance UID of the instance that the line is about",
        "status": "status of its response, four hexadecimal digits",
        "worker": "number of the worker that the line is about",
        "associations_begun": "associations begun in the time that is summed up",
        "associations_ended": "associations ended in it",
        "associations_open": "associations there are at its end",
        "associations_rejected": "associations rejected in it",
        "lines_hidden": "lines of this kind from this address that are not shown",
        "lines_lost": "lines that were dropped, for nobody read the log in time",
    }
)


def fields(*told: Fields, **more: Unpack[Fields]) -> Mapping[str, object]:
    """`extra` for a line that tells of these. What a peer sent is escaped when it is written."""
    values: dict[str, object] = {}
    for one in (*told, more):
        values.update(one)
    return {"fields": values}


def fields_table() -> str:
    """The README's table of the fields."""
    rows = "".join(f"| `{name}` | {text} |\n" for name, text in FIELDS.items())
    return f"| field | what it holds |\n| --- | --- |\n{rows}"
