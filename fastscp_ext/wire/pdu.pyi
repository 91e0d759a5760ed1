"""A-ASSOCIATE, A-RELEASE, A-ABORT and P-DATA-TF, whole: bytes to values and back.

Decoding takes one whole PDU, its 6 byte header included, in anything with the buffer interface, and
copies what it keeps. It raises PDUError and nothing else, whatever the bytes are: `reason` is 1 for
a type that does not exist, 2 for another type than asked for, 6 for everything inside the PDU.
Encoding raises ValueError for what the fields of the PDU cannot hold.
"""

from collections.abc import Iterable

from typing_extensions import Buffer

from fastscp_ext.wire.pdus import (
    PDU,
    Abort,
    AssociateAC,
    AssociateRJ,
    AssociateRQ,
    ReleaseRP,
    ReleaseRQ,
)

__all__ = [
    "decode_abort",
    "decode_associate_ac",
    "decode_associate_rj",
    "decode_associate_rq",
    "decode_pdata",
    "decode_pdu",
    "decode_release_rp",
    "decode_release_rq",
    "encode_abort",
    "encode_associate_ac",
    "encode_associate_rj",
    "encode_associate_rq",
    "encode_pdata",
    "encode_release_rp",
    "encode_release_rq",
]

def decode_pdu(data: Buffer) -> PDU | list[tuple[int, int, bytes]]:
    """Decode a PDU by its type; a P-DATA-TF as `decode_pdata` does.

    Source: PS3.8 9.3.1.
    """

def decode_associate_rq(data: Buffer) -> AssociateRQ:
    """Decode an A-ASSOCIATE-RQ whose body has 68 bytes to 1 MiB.

    Not an error, because the association can be judged all the same: missing items (None, "", ()),
    UIDs over 64 characters, repeated context ids (all kept), sub-items 51 and 53 of a wrong length
    (absent), unknown items, up to 3 zero bytes after the last item of a list.
    At most 256 contexts, and 256 transfer syntaxes in each.
    Source: PS3.8 9.3.2, PS3.7 D.3.3.
    """

def decode_associate_ac(data: Buffer) -> AssociateAC:
    """Decode an A-ASSOCIATE-AC under the rules of `decode_associate_rq`.

    Source: PS3.8 9.3.3, PS3.7 D.3.3.
    """

def decode_associate_rj(data: Buffer) -> AssociateRJ:
    """Decode an A-ASSOCIATE-RJ.

    Source: PS3.8 9.3.4.
    """

def decode_release_rq(data: Buffer) -> ReleaseRQ:
    """Decode an A-RELEASE-RQ with a body of 0 to 64 bytes, instead of 4.

    Source: PS3.8 9.3.6.
    """

def decode_release_rp(data: Buffer) -> ReleaseRP:
    """Decode an A-RELEASE-RP with a body of 0 to 64 bytes, instead of 4.

    Source: PS3.8 9.3.7.
    """

def decode_abort(data: Buffer) -> Abort:
    """Decode an A-ABORT with a body of 0 to 64 bytes, instead of 4; missing fields are 0.

    Source: PS3.8 9.3.8.
    """

def decode_pdata(data: Buffer) -> list[tuple[int, int, bytes]]:
    """Decode a P-DATA-TF into its PDVs: context id, message control header, fragment.

    Neither context id nor header bits are judged. Copies every fragment: not for receiving images.
    Source: PS3.8 9.3.5, Annex E.
    """

def encode_associate_rq(value: AssociateRQ) -> bytes:
    """Encode an A-ASSOCIATE-RQ.

    Raises ValueError: an AE field not of 16 bytes, a reserved field not of 32, a UID over 64
    characters or not ASCII, a version name over 16, a number too large for its field, more than
    256 contexts or transfer syntaxes, a user identity response.
    Source: PS3.8 9.3.2, PS3.7 D.3.3.
    """

def encode_associate_ac(value: AssociateAC) -> bytes:
    """Encode an A-ASSOCIATE-AC; every context gets its transfer syntax sub-item, refused or not.

    Raises ValueError as `encode_associate_rq` does, and for what only a request may carry: user
    identity and common extended negotiation.
    Source: PS3.8 9.3.3, PS3.7 D.3.3.
    """

def encode_associate_rj(value: AssociateRJ) -> bytes:
    """Encode an A-ASSOCIATE-RJ.

    Source: PS3.8 9.3.4.
    """

def encode_release_rq(value: ReleaseRQ | None = None) -> bytes:
    """Encode an A-RELEASE-RQ, which is always the same 10 bytes.

    Source: PS3.8 9.3.6.
    """

def encode_release_rp(value: ReleaseRP | None = None) -> bytes:
    """Encode an A-RELEASE-RP, which is always the same 10 bytes.

    Source: PS3.8 9.3.7.
    """

def encode_abort(value: Abort) -> bytes:
    """Encode an A-ABORT.

    Source: PS3.8 9.3.8.
    """

def encode_pdata(pdvs: Iterable[tuple[int, int, bytes]]) -> bytes:
    """Encode PDVs (context id, message control header, fragment) into one P-DATA-TF.

    The peer's maximum length limits the result without its 6 byte header: 6 bytes and the fragment
    for each PDV. Keeping to it is the caller's part. Raises ValueError without any PDV.
    Source: PS3.8 9.3.5, D.1.
    """
