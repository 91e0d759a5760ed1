"""What a table of senders asks of a certificate: one spelling for all the ways to write it.

People copy it from `openssl x509`, from our own log, or write a name by hand. What a certificate
shows is written in the same way, so that to compare is to compare texts.

`subject=NAME` is a common name. A subject of more, or of another attribute, is the whole subject,
with its attributes in one order: the common name first, then by name. A common name that could be
read as such a subject is written as `CN=`, with what would part it escaped.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["asked_for", "common_name", "is_common_name", "san", "subject", "written"]

_CN: Final = "CN"
# What each attribute is called here, by what OpenSSL, Python or a bare number call it, in small
# letters; others have one name alone. Source: RFC 4514 3; OpenSSL's objects.txt.
_TYPES: Final = {
    **dict.fromkeys(("cn", "commonname", "2.5.4.3"), _CN),
    **dict.fromkeys(("c", "countryname", "2.5.4.6"), "C"),
    **dict.fromkeys(("l", "localityname", "2.5.4.7"), "L"),
    **dict.fromkeys(("st", "s", "stateorprovincename", "2.5.4.8"), "ST"),
    **dict.fromkeys(("street", "streetaddress", "2.5.4.9"), "STREET"),
    **dict.fromkeys(("o", "organizationname", "2.5.4.10"), "O"),
    **dict.fromkeys(("ou", "organizationalunitname", "2.5.4.11"), "OU"),
    **dict.fromkeys(("dc", "domaincomponent", "0.9.2342.19200300.100.1.25"), "DC"),
    **dict.fromkeys(("uid", "userid", "0.9.2342.19200300.100.1.1"), "UID"),
    **dict.fromkeys(("sn", "surname", "2.5.4.4"), "SN"),
    **dict.fromkeys(("gn", "givenname", "2.5.4.42"), "GN"),
    **dict.fromkeys(("serialnumber", "2.5.4.5"), "serialNumber"),
    **dict.fromkeys(("title", "2.5.4.12"), "title"),
    **dict.fromkeys(("e", "emailaddress", "1.2.840.113549.1.9.1"), "emailAddress"),
}
_TYPE: Final = r"(?:[A-Za-z][A-Za-z0-9-]*|[0-9]+(?:\.[0-9]+)+)"
# An attribute, and what parts it from the next one: a comma or plus sign that stands before none
# belongs to the value.
_ATTRIBUTE: Final = re.compile(
    rf"\s*({_TYPE})\s*=\s*"
    rf'("(?:[^"\\]|\\.)*"|(?:[^\\,+]|\\.|[,+](?!\s*{_TYPE}\s*=))*)'
    r"\s*(?:[,+]|$)"
)
# The form that OpenSSL once had: /C=DE/O=Hospital/CN=GATE-1
_OLD: Final = re.compile(rf"/({_TYPE})=((?:[^/]|/(?!{_TYPE}=))*)")
_ESCAPED: Final = re.compile(r"((?:\\[0-9A-Fa-f]{2})+)|\\(.)")
_SPECIAL: Final = re.compile(r'[\\,+"]')
_BACKSLASHED: Final = r"\\\g<0>"
_KINDS: Final = re.compile(r"(DNS|IP(?: Address)?|email|URI)\s*:\s*", re.IGNORECASE)
# Alternative names that nobody looks at.
_OTHER_KINDS: Final = re.compile(
    r"(?:othername|DirName|Registered ID|X400Name|EdiPartyName)\s*:", re.IGNORECASE
)


def asked_for(text: str) -> str:
    """A rule as `shown_by` writes what it is compared with. Raises ValueError: what is wrong."""
    what, equals, value = text.partition("=")
    what, value = " ".join(what.lower().split()), value.strip()
    if not equals or what not in ("subject", "san", "sha256", "sha256 fingerprint"):
        raise ValueError("says nothing of a certificate")
    if not value:
        raise ValueError(f"has nothing behind {what}=")
    if what == "subject":
        return _subject_asked_for(value)
    if what == "san":
        return _san_asked_for(value)
    value = value.replace(":", "").lower()
    if not re.fullmatch("[0-9a-f]{64}", value):
        raise ValueError("is no fingerprint of 64 hexadecimal digits")
    return f"sha256={value}"


def common_name(name: str) -> str:
    """What a common name shows."""
    return f"subject={written([(_CN, name)])}" if _is_distinguished(name) else f"subject={name}"


def subject(attributes: Iterable[tuple[str, str]]) -> str:
    """What a whole subject shows; "" where it is a common name alone. attributes: name, value."""
    found = sorted(
        ((_type(name), value) for name, value in attributes),
        key=lambda one: (one[0] != _CN, one),
    )
    if not found or [name for name, _value in found] == [_CN]:
        return ""
    return f"subject={written(found)}"


def san(kind: str, value: str) -> str:
    """What an alternative name shows. kind: as OpenSSL names it."""
    return f"san={_address(value) if kind == 'IP Address' else value}"


def written(attributes: Iterable[tuple[str, str]]) -> str:
    """A subject as text, in the order given, as `asked_for` takes it behind `subject=`."""
    return ", ".join(
        f"{_type(name)}={_SPECIAL.sub(_BACKSLASHED, text)}" for name, text in attributes
    )


def is_common_name(rule: str) -> bool:
    """Whether what `asked_for` returned asks for a common name alone."""
    what, _equals, value = rule.partition("=")
    if what != "subject":
        return False
    return not _is_distinguished(value) or [name for name, _ in _attributes(value)] == [_CN]


def _subject_asked_for(value: str) -> str:
    if not _is_distinguished(value):
        return f"subject={value}"
    found = list(_attributes(value))
    if any(not text or text != text.strip() or not text.isprintable() for _name, text in found):
        raise ValueError("has an attribute of the subject without a value that prints")
    return subject(found) or common_name(found[0][1])


def _san_asked_for(value: str) -> str:
    if _OTHER_KINDS.match(value):
        raise ValueError("names what is no DNS name, address, mail address or URI, as san has to")
    kind = _KINDS.match(value)
    name = value[kind.end() :] if kind is not None else value
    if not name:
        raise ValueError("has nothing behind san=")
    if re.search(r"\s", name):
        raise ValueError("has a blank in a name of san, of which each is to be written by itself")
    if kind is not None and kind[1].lower().startswith("ip") and not _is_address(name):
        raise ValueError("names no address")
    if kind is not None and kind[1].lower() == "uri":
        return san("URI", name)
    return san("IP Address", name)


def _is_distinguished(text: str) -> bool:
    """Whether a text is a subject, and no common name: it begins with an attribute's name."""
    first = re.match(rf"/?\s*({_TYPE})\s*=", text)
    return first is not None and (first[1].lower() in _TYPES or first[1][0].isdigit())


def _attributes(text: str) -> Iterator[tuple[str, str]]:
    if text.startswith("/"):
        yield from ((_type(one[1]), one[2].strip()) for one in _OLD.finditer(text))
        return
    for one in _ATTRIBUTE.finditer(text):
        value = one[2].strip()
        if len(value) > 1 and value[0] == value[-1] == '"':
            value = value[1:-1]
        yield _type(one[1]), _ESCAPED.sub(_unescaped, value)


def _unescaped(found: re.Match[str]) -> str:
    if found[1]:
        return bytes.fromhex(found[1].replace("\\", "")).decode("utf-8", "replace")
    return found[2]


def _type(name: str) -> str:
    # An attribute of another name is one whatever its letters.
    return _TYPES.get(name.lower(), name.lower())


def _is_address(value: str) -> bool:
    try:
        ipaddress.ip_address(value.strip())
    except ValueError:
        return False
    return True


def _address(value: str) -> str:
    return str(ipaddress.ip_address(value.strip())) if _is_address(value) else value
