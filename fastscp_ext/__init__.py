"""The codec core: the only door to it. Nothing in here knows the package around it."""

from fastscp_ext.command import CommandSet, decode_command, encode_command
from fastscp_ext.commit import rename_noreplace
from fastscp_ext.digest import crc32c
from fastscp_ext.errors import CodecError, CommandError, PDUError
from fastscp_ext.framing import PDUStream
from fastscp_ext.head import part10_head, part10_head_of_file
from fastscp_ext.intake import Compression, Duplicate, Intake
from fastscp_ext.judgement import judge_response
from fastscp_ext.layout import Layout, LayoutError, valid_uid
from fastscp_ext.part10 import build_meta, strip_embedded
from fastscp_ext.pdu import (
    decode_abort,
    decode_associate_ac,
    decode_associate_rj,
    decode_associate_rq,
    decode_pdata,
    decode_pdu,
    encode_abort,
    encode_associate_ac,
    encode_associate_rj,
    encode_associate_rq,
    encode_pdata,
    encode_release_rp,
    encode_release_rq,
)
from fastscp_ext.pdus import (
    PDU,
    Abort,
    AssociateAC,
    AssociateRJ,
    AssociateRQ,
    AsyncWindow,
    CommonExtendedNegotiation,
    ExtendedNegotiation,
    PresentationContextAC,
    PresentationContextRQ,
    ReleaseRP,
    ReleaseRQ,
    RoleSelection,
    UserIdentity,
    UserInformation,
    ae_title,
)
from fastscp_ext.receiver import Receiver
from fastscp_ext.sender import Parcel, Sender
from fastscp_ext.shared import Shared
from fastscp_ext.syntaxes import encoding_of
from fastscp_ext.tap import Tap

__all__ = [
    "PDU",
    "Abort",
    "AssociateAC",
    "AssociateRJ",
    "AssociateRQ",
    "AsyncWindow",
    "CodecError",
    "CommandError",
    "CommandSet",
    "CommonExtendedNegotiation",
    "Compression",
    "Duplicate",
    "ExtendedNegotiation",
    "Intake",
    "Layout",
    "LayoutError",
    "PDUError",
    "PDUStream",
    "Parcel",
    "PresentationContextAC",
    "PresentationContextRQ",
    "Receiver",
    "ReleaseRP",
    "ReleaseRQ",
    "RoleSelection",
    "Sender",
    "Shared",
    "Tap",
    "UserIdentity",
    "UserInformation",
    "ae_title",
    "build_meta",
    "crc32c",
    "decode_abort",
    "decode_associate_ac",
    "decode_associate_rj",
    "decode_associate_rq",
    "decode_command",
    "decode_pdata",
    "decode_pdu",
    "encode_abort",
    "encode_associate_ac",
    "encode_associate_rj",
    "encode_associate_rq",
    "encode_command",
    "encode_pdata",
    "encode_release_rp",
    "encode_release_rq",
    "encoding_of",
    "judge_response",
    "part10_head",
    "part10_head_of_file",
    "rename_noreplace",
    "strip_embedded",
    "valid_uid",
]
