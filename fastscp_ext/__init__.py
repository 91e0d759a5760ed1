"""The codec core: the only door to it. Nothing in here knows the package around it."""

from importlib.util import find_spec as _find_spec

if _find_spec("fastscp_ext.status") is None:
    # Else Python says that an import is circular, which is no help.
    raise ImportError(
        f"fastscp is not built in {__path__[0]}, its source folder, which Python found first: "
        f"run Python in another folder to use the installed one, or build it here with "
        f"`pip install -e .`"
    )

from fastscp_ext import status
from fastscp_ext.commit.beneath import open_beneath
from fastscp_ext.commit.commit import flush_file_system, nameless_way, rename_noreplace
from fastscp_ext.commit.folders import exchange, mount_of
from fastscp_ext.commit.journal_scan import index_lines, lines_about
from fastscp_ext.dataset.digest import crc32c
from fastscp_ext.dataset.head import file_mark, part10_head, part10_head_of_file
from fastscp_ext.dataset.layout import Layout, LayoutError
from fastscp_ext.dataset.part10 import build_meta, meta_values, strip_embedded
from fastscp_ext.dataset.syntaxes import encoding_of
from fastscp_ext.dataset.tap import Tap
from fastscp_ext.dataset.uid import UID_AS_NAME, UID_NONE, UID_STRICT, UID_USABLE, uid_grade
from fastscp_ext.errors import (
    CodecError,
    CommandError,
    PDUContextsError,
    PDUError,
    PDULimitError,
    ProxyHeaderError,
)
from fastscp_ext.receive.receiver import Receiver
from fastscp_ext.receive.reception import (
    Compression,
    Duplicate,
    HeldBack,
    Reception,
    Replacement,
)
from fastscp_ext.receive.rules import Rules
from fastscp_ext.receive.secure import Ciphertext, Secured
from fastscp_ext.send.parcel import Parcel
from fastscp_ext.send.sender import Sender
from fastscp_ext.shared.counts import Counts, Tally, Times
from fastscp_ext.shared.line_index import LineIndex
from fastscp_ext.shared.liveness import Liveness
from fastscp_ext.shared.rows import Rows
from fastscp_ext.shared.shared import Shared
from fastscp_ext.shared.tables import reason_of, status_name
from fastscp_ext.shared.tallies import Tallies
from fastscp_ext.shared.unflushed import Doubts
from fastscp_ext.wire.command import CommandSet, decode_command, encode_command
from fastscp_ext.wire.framing import PDUStream
from fastscp_ext.wire.judgement import judge_response
from fastscp_ext.wire.pdu import (
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
from fastscp_ext.wire.pdus import (
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
from fastscp_ext.wire.proxy import ProxyHeader

__all__ = [
    "PDU",
    "UID_AS_NAME",
    "UID_NONE",
    "UID_STRICT",
    "UID_USABLE",
    "Abort",
    "AssociateAC",
    "AssociateRJ",
    "AssociateRQ",
    "AsyncWindow",
    "Ciphertext",
    "CodecError",
    "CommandError",
    "CommandSet",
    "CommonExtendedNegotiation",
    "Compression",
    "Counts",
    "Doubts",
    "Duplicate",
    "ExtendedNegotiation",
    "HeldBack",
    "Layout",
    "LayoutError",
    "LineIndex",
    "Liveness",
    "PDUContextsError",
    "PDUError",
    "PDULimitError",
    "PDUStream",
    "Parcel",
    "PresentationContextAC",
    "PresentationContextRQ",
    "ProxyHeader",
    "ProxyHeaderError",
    "Receiver",
    "Reception",
    "ReleaseRP",
    "ReleaseRQ",
    "Replacement",
    "RoleSelection",
    "Rows",
    "Rules",
    "Secured",
    "Sender",
    "Shared",
    "Tallies",
    "Tally",
    "Tap",
    "Times",
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
    "exchange",
    "file_mark",
    "flush_file_system",
    "index_lines",
    "judge_response",
    "lines_about",
    "meta_values",
    "mount_of",
    "nameless_way",
    "open_beneath",
    "part10_head",
    "part10_head_of_file",
    "reason_of",
    "rename_noreplace",
    "status",
    "status_name",
    "strip_embedded",
    "uid_grade",
]
