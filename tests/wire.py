"""Bytes of the wire, written by hand and annotated field by field.

PDU and item headers are big endian: type, reserved, length. Command elements are little endian:
group, element, 32 bit length, value. All names, UIDs and titles are made up.
"""

from __future__ import annotations

__all__ = [
    "ABORT_EMPTY",
    "ABORT_PROVIDER",
    "ABORT_USER",
    "ASSOCIATE_AC_ECHO",
    "ASSOCIATE_AC_FULL",
    "ASSOCIATE_RJ",
    "ASSOCIATE_RQ_BARE",
    "ASSOCIATE_RQ_ECHO",
    "ASSOCIATE_RQ_FULL",
    "ASSOCIATE_RQ_ODD",
    "COMMANDS",
    "C_ECHO_RQ",
    "C_ECHO_RSP",
    "C_STORE_RQ",
    "C_STORE_RQ_ODD",
    "C_STORE_RSP_FAILURE",
    "N_ACTION_RQ",
    "N_EVENT_REPORT_RQ",
    "PDATA_ECHO",
    "PDATA_TWO_PDVS",
    "PDUS",
    "RELEASE_RP",
    "RELEASE_RQ",
    "RELEASE_RQ_EMPTY",
]

# --- A-ASSOCIATE-RQ (PS3.8 9.3.2) -----------------------------------------------------------------

# As small as a useful one gets: Verification in Implicit VR Little Endian.
ASSOCIATE_RQ_ECHO = (
    b"\x01\x00\x00\x00\x00\xb1"  # A-ASSOCIATE-RQ, 177 bytes
    b"\x00\x01"  # protocol version 1
    b"\x00\x00"  # reserved
    b"RECEIVER        "  # called AE title
    b"SENDER          "  # calling AE title
    b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"  # reserved, 32 bytes
    b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
    b"\x10\x00\x00\x15"  # application context, 21 bytes
    b"1.2.840.10008.3.1.1.1"
    b"\x20\x00\x00\x2e"  # presentation context, 46 bytes
    b"\x01\x00\x00\x00"  # id 1, reserved
    b"\x30\x00\x00\x11"  # abstract syntax, 17 bytes: Verification
    b"1.2.840.10008.1.1"
    b"\x40\x00\x00\x11"  # transfer syntax, 17 bytes: Implicit VR Little Endian
    b"1.2.840.10008.1.2"
    b"\x50\x00\x00\x1e"  # user information, 30 bytes
    b"\x51\x00\x00\x04"  # maximum length
    b"\x00\x00\x40\x00"  # 16384
    b"\x52\x00\x00\x07"  # implementation class UID, 7 bytes
    b"1.2.3.4"
    b"\x55\x00\x00\x07"  # implementation version name, 7 bytes
    b"MADE_UP"
)

# The fixed fields and not one item.
ASSOCIATE_RQ_BARE = (
    b"\x01\x00\x00\x00\x00\x44"  # A-ASSOCIATE-RQ, 68 bytes
    b"\x00\x01"  # protocol version 1
    b"\x00\x00"  # reserved
    b"RECEIVER        "  # called AE title
    b"SENDER          "  # calling AE title
    b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"  # reserved, 32 bytes
    b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
)

# Every sub-item of user information, in an order of its own.
ASSOCIATE_RQ_FULL = (
    b"\x01\x00\x00\x00\x01\x80"  # A-ASSOCIATE-RQ, 384 bytes
    b"\x00\x01"  # protocol version 1
    b"\x00\x00"  # reserved
    b"RECEIVER        "  # called AE title
    b"SENDER          "  # calling AE title
    b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"  # reserved, 32 bytes
    b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
    b"\x10\x00\x00\x15"  # application context, 21 bytes
    b"1.2.840.10008.3.1.1.1"
    b"\x20\x00\x00\x4d"  # presentation context, 77 bytes
    b"\x01\x00\x00\x00"  # id 1, reserved
    b"\x30\x00\x00\x19"  # abstract syntax, 25 bytes: CT Image Storage
    b"1.2.840.10008.5.1.4.1.1.2"
    b"\x40\x00\x00\x13"  # transfer syntax, 19 bytes: Explicit VR Little Endian
    b"1.2.840.10008.1.2.1"
    b"\x40\x00\x00\x11"  # transfer syntax, 17 bytes: Implicit VR Little Endian
    b"1.2.840.10008.1.2"
    b"\x20\x00\x00\x1e"  # presentation context, 30 bytes
    b"\xff\x00\x00\x00"  # id 255, reserved
    b"\x30\x00\x00\x09"  # abstract syntax, 9 bytes: private
    b"1.2.3.4.5"
    b"\x40\x00\x00\x09"  # transfer syntax, 9 bytes: private
    b"1.2.3.4.6"
    b"\x50\x00\x00\xac"  # user information, 172 bytes
    b"\x51\x00\x00\x04"  # maximum length
    b"\x00\x00\x00\x00"  # no limit
    b"\x52\x00\x00\x07"  # implementation class UID, 7 bytes
    b"1.2.3.4"
    b"\x55\x00\x00\x07"  # implementation version name, 7 bytes
    b"MADE_UP"
    b"\x54\x00\x00\x1d"  # role selection, 29 bytes
    b"\x00\x19"  # SOP class UID, 25 bytes
    b"1.2.840.10008.5.1.4.1.1.2"
    b"\x01\x00"  # SCU role yes, SCP role no
    b"\x53\x00\x00\x04"  # asynchronous operations window
    b"\x00\x08\x00\x01"  # 8 invoked, 1 performed
    b"\x58\x00\x00\x0f"  # user identity, 15 bytes
    b"\x02\x01"  # user name and passcode, positive response requested
    b"\x00\x05nurse"  # primary field, 5 bytes
    b"\x00\x04ward"  # secondary field, 4 bytes
    b"\x56\x00\x00\x21"  # extended negotiation, 33 bytes
    b"\x00\x19"  # SOP class UID, 25 bytes
    b"1.2.840.10008.5.1.4.1.1.2"
    b"\x02\x00\x03\x00\x00\x00"  # service class application information, the rest
    b"\x57\x00\x00\x29"  # common extended negotiation, 41 bytes
    b"\x00\x09"  # SOP class UID, 9 bytes
    b"1.2.3.4.5"
    b"\x00\x11"  # service class UID, 17 bytes: Storage
    b"1.2.840.10008.4.2"
    b"\x00\x09"  # related general SOP classes, 9 bytes
    b"\x00\x02"  # 2 bytes
    b"1."
    b"\x00\x03"  # 3 bytes
    b"1.2"
)

# What has been met and must be taken: reserved bytes set, padded and cut titles and UIDs, unknown
# and repeated items, any order, sub-items of a wrong length, padding after the last item.
ASSOCIATE_RQ_ODD = (
    b"\x01\xee\x00\x00\x01\x06"  # A-ASSOCIATE-RQ, reserved byte set, 262 bytes
    b"\x80\x03"  # protocol versions 1 and others
    b"\xee\xee"  # reserved
    b"RECEIVER\x00\x00\x00\x00junk"  # called AE title, ends at the NUL
    b"                "  # calling AE title, none
    b"\xee\xee\xee\xee\xee\xee\xee\xee\xee\xee\xee\xee\xee\xee\xee\xee"  # reserved, 32 bytes
    b"\xee\xee\xee\xee\xee\xee\xee\xee\xee\xee\xee\xee\xee\xee\xee\xee"
    b"\x50\xee\x00\x41"  # user information, before everything else, 65 bytes
    b"\x51\x00\x00\x02"  # maximum length in 2 bytes: absent
    b"\x40\x00"
    b"\x53\x00\x00\x05"  # asynchronous operations window in 5 bytes: absent
    b"\x00\x08\x00\x01\x00"
    b"\x51\x00\x00\x04"  # maximum length
    b"\x00\x00\x80\x00"  # 32768
    b"\x51\x00\x00\x04"  # maximum length again: not used
    b"\x00\x00\x00\x07"
    b"\x5f\x00\x00\x03"  # unknown sub-item, 3 bytes
    b"\xff\xff\xff"
    b"\x52\x00\x00\x08"  # implementation class UID, 8 bytes
    b"1.2.3.4\x00"  # padded with NUL
    b"\x55\x00\x00\x05"  # implementation version name, 5 bytes
    b"OLD\xe9 "
    b"\x59\x00\x00\x01"  # user identity response, which a request has not: not looked into
    b"\xff"
    b"\x00"  # padding
    b"\x20\x00\x00\x1b"  # presentation context, 27 bytes
    b"\x02\xff\xff\xff"  # id 2 (even), reserved
    b"\x40\x00\x00\x03"  # transfer syntax, 3 bytes, before the abstract syntax
    b"1.2"
    b"\x31\x00\x00\x00"  # unknown sub-item
    b"\x30\x00\x00\x08"  # abstract syntax, 8 bytes
    b"1.2.3.4 "  # padded with space
    b"\x20\x00\x00\x0f"  # presentation context, 15 bytes
    b"\x02\x00\x00\x00"  # id 2 again
    b"\x30\x00\x00\x03"  # abstract syntax, 3 bytes
    b"1.3"
    b"\x30\x00\x00\x00"  # abstract syntax again: not used
    b"\x20\x00\x00\x04"  # presentation context, 4 bytes
    b"\x00\x00\x00\x00"  # id 0, no syntaxes at all
    b"\x21\x00\x00\x01"  # presentation context result, which a request has not: not looked into
    b"\xff"
    b"\x10\x00\x00\x16"  # application context, 22 bytes
    b"1.2.840.10008.3.1.1.1\x00"  # padded with NUL
    b"\x10\x00\x00\x03"  # application context again: not used
    b"1.2"
    b"\x50\x00\x00\x08"  # user information again: not used
    b"\x51\x00\x00\x04"  # maximum length
    b"\x00\x00\x00\x08"
    b"\x60\x00\x00\x0a"  # unknown item, 10 bytes
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"
    b"\x00\x00\x00"  # padding
)

# --- A-ASSOCIATE-AC (PS3.8 9.3.3) -----------------------------------------------------------------

ASSOCIATE_AC_ECHO = (
    b"\x02\x00\x00\x00\x00\x91"  # A-ASSOCIATE-AC, 145 bytes
    b"\x00\x01"  # protocol version 1
    b"\x00\x00"  # reserved
    b"RECEIVER        "  # called AE title, as in the request
    b"SENDER          "  # calling AE title, as in the request
    b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"  # reserved, 32 bytes
    b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
    b"\x10\x00\x00\x15"  # application context, 21 bytes
    b"1.2.840.10008.3.1.1.1"
    b"\x21\x00\x00\x19"  # presentation context, 25 bytes
    b"\x01\x00\x00\x00"  # id 1, reserved, accepted, reserved
    b"\x40\x00\x00\x11"  # transfer syntax, 17 bytes
    b"1.2.840.10008.1.2"
    b"\x50\x00\x00\x13"  # user information, 19 bytes
    b"\x51\x00\x00\x04"  # maximum length
    b"\x00\x02\x00\x00"  # 131072
    b"\x52\x00\x00\x07"  # implementation class UID, 7 bytes
    b"1.2.3.9"
)

# Both kinds of result, and answers to everything that was offered.
ASSOCIATE_AC_FULL = (
    b"\x02\x00\x00\x00\x00\xf6"  # A-ASSOCIATE-AC, 246 bytes
    b"\x00\x01"  # protocol version 1
    b"\x00\x00"  # reserved
    b"RECEIVER        "  # called AE title, as in the request
    b"SENDER          "  # calling AE title, as in the request
    b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"  # reserved, 32 bytes
    b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
    b"\x10\x00\x00\x15"  # application context, 21 bytes
    b"1.2.840.10008.3.1.1.1"
    b"\x21\x00\x00\x1b"  # presentation context, 27 bytes
    b"\x01\x00\x00\x00"  # id 1, reserved, accepted, reserved
    b"\x40\x00\x00\x13"  # transfer syntax, 19 bytes
    b"1.2.840.10008.1.2.1"
    b"\x21\x00\x00\x04"  # presentation context, 4 bytes
    b"\xff\x00\x03\x00"  # id 255, reserved, abstract syntax not supported, reserved; no syntax
    b"\x50\x00\x00\x6e"  # user information, 110 bytes
    b"\x51\x00\x00\x04"  # maximum length
    b"\x00\x02\x00\x00"  # 131072
    b"\x52\x00\x00\x07"  # implementation class UID, 7 bytes
    b"1.2.3.9"
    b"\x53\x00\x00\x04"  # asynchronous operations window
    b"\x00\x08\x00\x01"  # 8 invoked, 1 performed
    b"\x54\x00\x00\x1d"  # role selection, 29 bytes
    b"\x00\x19"  # SOP class UID, 25 bytes
    b"1.2.840.10008.5.1.4.1.1.2"
    b"\x01\x00"  # SCU role yes, SCP role no
    b"\x56\x00\x00\x21"  # extended negotiation, 33 bytes
    b"\x00\x19"  # SOP class UID, 25 bytes
    b"1.2.840.10008.5.1.4.1.1.2"
    b"\x02\x00\x03\x00\x00\x00"  # service class application information, the rest
    b"\x59\x00\x00\x05"  # user identity response, 5 bytes
    b"\x00\x03"  # server response, 3 bytes
    b"yes"
    b"\x58\x00\x00\x00"  # user identity, which an acceptance has not: not looked into
)

# --- A-ASSOCIATE-RJ, A-RELEASE, A-ABORT (PS3.8 9.3.4, 9.3.6 to 9.3.8) -----------------------------

ASSOCIATE_RJ = (
    b"\x03\x00\x00\x00\x00\x04"  # A-ASSOCIATE-RJ, 4 bytes
    b"\x00"  # reserved
    b"\x02"  # result: transient
    b"\x03"  # source: service provider, presentation
    b"\x01"  # reason: temporary congestion
)

RELEASE_RQ = (
    b"\x05\x00\x00\x00\x00\x04"  # A-RELEASE-RQ, 4 bytes
    b"\x00\x00\x00\x00"  # reserved
)

RELEASE_RQ_EMPTY = b"\x05\x00\x00\x00\x00\x00"  # A-RELEASE-RQ, 0 bytes instead of 4

RELEASE_RP = (
    b"\x06\x00\x00\x00\x00\x04"  # A-RELEASE-RP, 4 bytes
    b"\x00\x00\x00\x00"  # reserved
)

ABORT_USER = (
    b"\x07\x00\x00\x00\x00\x04"  # A-ABORT, 4 bytes
    b"\x00\x00"  # reserved
    b"\x00"  # source: service user
    b"\x00"  # reason: none
)

ABORT_PROVIDER = (
    b"\x07\x00\x00\x00\x00\x04"  # A-ABORT, 4 bytes
    b"\x00\x00"  # reserved
    b"\x02"  # source: service provider
    b"\x06"  # reason: invalid PDU parameter value
)

ABORT_EMPTY = b"\x07\x00\x00\x00\x00\x00"  # A-ABORT, 0 bytes instead of 4

# --- Command sets (PS3.7 9.3, 10.3) ---------------------------------------------------------------

C_ECHO_RQ = (
    b"\x00\x00\x00\x00\x04\x00\x00\x00"  # (0000,0000) Command Group Length, 4 bytes
    b"\x38\x00\x00\x00"  # 56
    b"\x00\x00\x02\x00\x12\x00\x00\x00"  # (0000,0002) Affected SOP Class UID, 18 bytes
    b"1.2.840.10008.1.1\x00"
    b"\x00\x00\x00\x01\x02\x00\x00\x00"  # (0000,0100) Command Field, 2 bytes
    b"\x30\x00"  # C-ECHO-RQ
    b"\x00\x00\x10\x01\x02\x00\x00\x00"  # (0000,0110) Message ID, 2 bytes
    b"\x07\x00"  # 7
    b"\x00\x00\x00\x08\x02\x00\x00\x00"  # (0000,0800) Command Data Set Type, 2 bytes
    b"\x01\x01"  # none
)

C_ECHO_RSP = (
    b"\x00\x00\x00\x00\x04\x00\x00\x00"  # (0000,0000) Command Group Length, 4 bytes
    b"\x42\x00\x00\x00"  # 66
    b"\x00\x00\x02\x00\x12\x00\x00\x00"  # (0000,0002) Affected SOP Class UID, 18 bytes
    b"1.2.840.10008.1.1\x00"
    b"\x00\x00\x00\x01\x02\x00\x00\x00"  # (0000,0100) Command Field, 2 bytes
    b"\x30\x80"  # C-ECHO-RSP
    b"\x00\x00\x20\x01\x02\x00\x00\x00"  # (0000,0120) Message ID Being Responded To, 2 bytes
    b"\x07\x00"  # 7
    b"\x00\x00\x00\x08\x02\x00\x00\x00"  # (0000,0800) Command Data Set Type, 2 bytes
    b"\x01\x01"  # none
    b"\x00\x00\x00\x09\x02\x00\x00\x00"  # (0000,0900) Status, 2 bytes
    b"\x00\x00"  # success
)

C_STORE_RQ = (
    b"\x00\x00\x00\x00\x04\x00\x00\x00"  # (0000,0000) Command Group Length, 4 bytes
    b"\x7c\x00\x00\x00"  # 124
    b"\x00\x00\x02\x00\x1a\x00\x00\x00"  # (0000,0002) Affected SOP Class UID, 26 bytes
    b"1.2.840.10008.5.1.4.1.1.2\x00"
    b"\x00\x00\x00\x01\x02\x00\x00\x00"  # (0000,0100) Command Field, 2 bytes
    b"\x01\x00"  # C-STORE-RQ
    b"\x00\x00\x10\x01\x02\x00\x00\x00"  # (0000,0110) Message ID, 2 bytes
    b"\x01\x00"  # 1
    b"\x00\x00\x00\x07\x02\x00\x00\x00"  # (0000,0700) Priority, 2 bytes
    b"\x02\x00"  # low
    b"\x00\x00\x00\x08\x02\x00\x00\x00"  # (0000,0800) Command Data Set Type, 2 bytes
    b"\x01\x00"  # present
    b"\x00\x00\x00\x10\x10\x00\x00\x00"  # (0000,1000) Affected SOP Instance UID, 16 bytes
    b"1.2.3.4.5.6.7.89"
    b"\x00\x00\x30\x10\x08\x00\x00\x00"  # (0000,1030) Move Originator AE Title, 8 bytes
    b"ARCHIVE "
    b"\x00\x00\x31\x10\x02\x00\x00\x00"  # (0000,1031) Move Originator Message ID, 2 bytes
    b"\x4d\x00"  # 77
)

# No group length, no order, odd lengths, a number too long, everything twice, unknown elements.
C_STORE_RQ_ODD = (
    b"\x00\x00\x31\x10\x04\x00\x00\x00"  # (0000,1031) Move Originator Message ID, 4 bytes
    b"\x4d\x00\x00\x00"
    b"\x00\x00\x30\x10\x0b\x00\x00\x00"  # (0000,1030) Move Originator AE Title, 11 bytes
    b" ARCHIVE\x00zz"
    b"\x00\x00\x01\x10\x03\x00\x00\x00"  # (0000,1001) Requested SOP Instance UID, 3 bytes
    b"1.9"
    b"\x00\x00\x00\x10\x06\x00\x00\x00"  # (0000,1000) Affected SOP Instance UID, 6 bytes
    b"1.2.3 "  # padded with space
    b"\x00\x00\x00\x10\x03\x00\x00\x00"  # (0000,1000) again: not used
    b"1.8"
    b"\x00\x00\x00\x08\x02\x00\x00\x00"  # (0000,0800) Command Data Set Type, 2 bytes
    b"\x02\x02"  # present
    b"\x00\x00\x00\x07\x00\x00\x00\x00"  # (0000,0700) Priority, no value
    b"\x00\x00\x10\x01\x02\x00\x00\x00"  # (0000,0110) Message ID, 2 bytes
    b"\x00\x00"  # 0
    b"\x00\x00\x10\x01\x02\x00\x00\x00"  # (0000,0110) again: not used
    b"\x09\x00"
    b"\x00\x00\x00\x01\x02\x00\x00\x00"  # (0000,0100) Command Field, 2 bytes
    b"\x01\x00"  # C-STORE-RQ
    b"\x00\x00\x00\x50\x01\x00\x00\x00"  # (0000,5000), unknown, 1 byte
    b"\xff"
    b"\x00\x00\x03\x00\x03\x00\x00\x00"  # (0000,0003) Requested SOP Class UID, 3 bytes
    b"1.7"
)

C_STORE_RSP_FAILURE = (
    b"\x00\x00\x00\x00\x04\x00\x00\x00"  # (0000,0000) Command Group Length, 4 bytes
    b"\x94\x00\x00\x00"  # 148
    b"\x00\x00\x02\x00\x1a\x00\x00\x00"  # (0000,0002) Affected SOP Class UID, 26 bytes
    b"1.2.840.10008.5.1.4.1.1.2\x00"
    b"\x00\x00\x00\x01\x02\x00\x00\x00"  # (0000,0100) Command Field, 2 bytes
    b"\x01\x80"  # C-STORE-RSP
    b"\x00\x00\x20\x01\x02\x00\x00\x00"  # (0000,0120) Message ID Being Responded To, 2 bytes
    b"\x01\x00"  # 1
    b"\x00\x00\x00\x08\x02\x00\x00\x00"  # (0000,0800) Command Data Set Type, 2 bytes
    b"\x01\x01"  # none
    b"\x00\x00\x00\x09\x02\x00\x00\x00"  # (0000,0900) Status, 2 bytes
    b"\x00\xc0"  # cannot understand
    b"\x00\x00\x01\x09\x08\x00\x00\x00"  # (0000,0901) Offending Element, 8 bytes
    b"\x20\x00\x0d\x00"  # (0020,000D)
    b"\x20\x00\x0e\x00"  # (0020,000E)
    b"\x00\x00\x02\x09\x10\x00\x00\x00"  # (0000,0902) Error Comment, 16 bytes
    b"no study at all "
    b"\x00\x00\x03\x09\x02\x00\x00\x00"  # (0000,0903) Error ID, 2 bytes
    b"\x2a\x00"  # 42
    b"\x00\x00\x00\x10\x10\x00\x00\x00"  # (0000,1000) Affected SOP Instance UID, 16 bytes
    b"1.2.3.4.5.6.7.89"
)

N_ACTION_RQ = (
    b"\x00\x00\x00\x00\x04\x00\x00\x00"  # (0000,0000) Command Group Length, 4 bytes
    b"\x62\x00\x00\x00"  # 98
    b"\x00\x00\x03\x00\x14\x00\x00\x00"  # (0000,0003) Requested SOP Class UID, 20 bytes
    b"1.2.840.10008.1.20.1"
    b"\x00\x00\x00\x01\x02\x00\x00\x00"  # (0000,0100) Command Field, 2 bytes
    b"\x30\x01"  # N-ACTION-RQ
    b"\x00\x00\x10\x01\x02\x00\x00\x00"  # (0000,0110) Message ID, 2 bytes
    b"\x03\x00"  # 3
    b"\x00\x00\x00\x08\x02\x00\x00\x00"  # (0000,0800) Command Data Set Type, 2 bytes
    b"\x01\x00"  # present
    b"\x00\x00\x01\x10\x16\x00\x00\x00"  # (0000,1001) Requested SOP Instance UID, 22 bytes
    b"1.2.840.10008.1.20.1.1"
    b"\x00\x00\x08\x10\x02\x00\x00\x00"  # (0000,1008) Action Type ID, 2 bytes
    b"\x01\x00"  # 1
)

N_EVENT_REPORT_RQ = (
    b"\x00\x00\x00\x00\x04\x00\x00\x00"  # (0000,0000) Command Group Length, 4 bytes
    b"\x62\x00\x00\x00"  # 98
    b"\x00\x00\x02\x00\x14\x00\x00\x00"  # (0000,0002) Affected SOP Class UID, 20 bytes
    b"1.2.840.10008.1.20.1"
    b"\x00\x00\x00\x01\x02\x00\x00\x00"  # (0000,0100) Command Field, 2 bytes
    b"\x00\x01"  # N-EVENT-REPORT-RQ
    b"\x00\x00\x10\x01\x02\x00\x00\x00"  # (0000,0110) Message ID, 2 bytes
    b"\x04\x00"  # 4
    b"\x00\x00\x00\x08\x02\x00\x00\x00"  # (0000,0800) Command Data Set Type, 2 bytes
    b"\x01\x00"  # present
    b"\x00\x00\x00\x10\x16\x00\x00\x00"  # (0000,1000) Affected SOP Instance UID, 22 bytes
    b"1.2.840.10008.1.20.1.1"
    b"\x00\x00\x02\x10\x02\x00\x00\x00"  # (0000,1002) Event Type ID, 2 bytes
    b"\x02\x00"  # 2
)

# --- P-DATA-TF (PS3.8 9.3.5, Annex E) -------------------------------------------------------------

PDATA_ECHO = b"".join(
    (
        b"\x04\x00\x00\x00\x00\x4a",  # P-DATA-TF, 74 bytes
        b"\x00\x00\x00\x46",  # PDV, 70 bytes
        b"\x01",  # context id 1
        b"\x03",  # message control header: command, last fragment
        C_ECHO_RQ,
    )
)

PDATA_TWO_PDVS = (
    b"\x04\x00\x00\x00\x00\x10"  # P-DATA-TF, 16 bytes
    b"\x00\x00\x00\x02"  # PDV, 2 bytes: no fragment
    b"\x03"  # context id 3
    b"\xfd"  # message control header: command, not last, reserved bits set
    b"\x00\x00\x00\x06"  # PDV, 6 bytes
    b"\x03"  # context id 3
    b"\x02"  # message control header: data set, last fragment
    b"\x08\x00\x05\x00"  # fragment
)

PDUS = {
    name: value
    for name, value in globals().items()
    if name.startswith(("ASSOCIATE_", "RELEASE_", "ABORT_", "PDATA_"))
}
COMMANDS = {name: value for name, value in globals().items() if name.startswith(("C_", "N_"))}
