"""How the values of settings are read from text and TOML, and shown to people.

A reader returns the value or raises ValueError with the second half of a sentence ("is odd"): the
caller knows what was tried and where, and what to write instead. `ExplainedError` says all of that.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from fastscp.log.text import cut
from fastscp.titles import title_bytes, title_text
from fastscp.tls.names import asked_for
from fastscp.users.identities import UserIdentities
from fastscp.users.keys import Keys, read_keys
from fastscp.users.passwords import read_passwords

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = [
    "AllowRule",
    "Choice",
    "ExplainedError",
    "Kind",
    "Many",
    "Parsed",
    "Switch",
    "Whole",
    "quoted",
    "read_allow_rule",
    "read_called_title",
    "read_certificate_rule",
    "read_compress",
    "read_file_name",
    "read_host",
    "read_move_originator",
    "read_network",
    "read_own_title",
    "read_path",
    "read_peer",
    "read_text",
    "read_title",
    "read_umask",
    "read_user_identity",
    "read_written_title",
]


# Characters of a value in a message.
_SHOWN: Final = 200


def quoted(value: object) -> str:
    """A value as a message shows it, cut."""
    try:
        return cut(repr(value), _SHOWN)
    except ValueError:
        # Python writes no number of so many digits.
        return "a number of thousands of digits"


class ExplainedError(ValueError):
    """A reason that needs no more words around it: it names the value and the way out."""


class Kind(Protocol):
    """How the values of a setting are read and shown.

    `accepts` ends an error message ("give ..."); `limits` is its short form for help, or empty.
    """

    @property
    def metavar(self) -> str: ...
    @property
    def accepts(self) -> str: ...
    @property
    def limits(self) -> str: ...

    def read(self, raw: object) -> object:
        """The value of a text (flag, environment) or a TOML value. Raises ValueError: why not."""

    def show(self, value: Any) -> str:
        """The value as a person would write it."""


def read_text(raw: object) -> str:
    """A text without control characters, and without the blanks around it."""
    if not isinstance(raw, str):
        raise ValueError("is not a text")
    if not raw.strip():
        raise ValueError("is empty")
    if not raw.isprintable():
        raise ValueError("has control characters in it")
    return raw.strip()


@dataclass(frozen=True)
class Switch:
    """Off or on."""

    metavar: str = ""
    accepts: str = "true or false"
    limits: str = ""

    def read(self, raw: object) -> bool:
        word = str(raw).strip().lower() if isinstance(raw, (bool, int, str)) else ""
        # On and off are what `show` says.
        if word in ("true", "1", "yes", "on"):
            return True
        if word in ("false", "0", "no", "off"):
            return False
        raise ValueError("is neither true nor false")

    def show(self, value: bool) -> str:
        return "on" if value else "off"


@dataclass(frozen=True)
class Whole:
    """A whole number within bounds."""

    low: int
    high: int
    even: bool = False
    metavar: str = "N"

    @property
    def accepts(self) -> str:
        return f"{'an even' if self.even else 'a whole'} number from {self.low} to {self.high}"

    @property
    def limits(self) -> str:
        return f"{self.low} to {self.high}" + (", even" if self.even else "")

    def read(self, raw: object) -> int:
        if isinstance(raw, str) and re.fullmatch(r"-?[0-9]{1,18}", raw.strip()):
            raw = int(raw)
        if not isinstance(raw, int) or isinstance(raw, bool):
            raise ValueError("is not a whole number")
        if raw < self.low:
            raise ValueError(f"is less than {self.low}")
        if raw > self.high:
            raise ValueError(f"is more than {self.high}")
        if self.even and raw % 2:
            raise ValueError("is odd")
        return raw

    def show(self, value: int) -> str:
        return str(value)


@dataclass(frozen=True)
class Choice:
    """One of a few words, in any case. also: what others call them, and which of them it is."""

    words: tuple[str, ...]
    also: tuple[tuple[str, str], ...] = ()

    @property
    def metavar(self) -> str:
        return "|".join(self.words)

    @property
    def accepts(self) -> str:
        return ", ".join(self.words[:-1]) + f" or {self.words[-1]}"

    limits: str = ""

    def read(self, raw: object) -> str:
        word = read_text(raw).lower()
        word = dict(self.also).get(word, word)
        if word not in self.words:
            raise ValueError("is not known")
        return word

    def show(self, value: str) -> str:
        return value


def read_title(raw: object) -> str:
    """An AE title. Source: PS3.5 6.2 (AE)."""
    title = read_text(raw)
    if len(title) > 16:
        raise ValueError(f"has {len(title)} characters")
    if not title.isascii() or "\\" in title:
        raise ValueError("has a backslash or a character outside ASCII in it")
    return title


def read_written_title(raw: object) -> str:
    """An AE title in its written form, in which %XX is a byte; returned in that form, too."""
    title = title_bytes(read_text(raw))
    if not title:
        raise ValueError("is empty")
    return title_text(title)


def read_own_title(raw: object) -> str:
    """An AE title as `read_written_title` takes it, and as no standard forbids one."""
    title = read_written_title(raw)
    if "\\" in title:
        raise ValueError("has a backslash in it")
    return title


def read_called_title(raw: object) -> str:
    """A title that a table is for, in its written form. A pattern is none."""
    title = read_written_title(raw)
    if "*" in title:
        raise ValueError("has a * in it, which stands for nothing here")
    return title


def read_certificate_rule(raw: object) -> str:
    """What a certificate has to show: `subject=NAME`, `san=NAME` or `sha256=FINGERPRINT`.

    All spellings that mean the same give the same: see `fastscp.tls.names`.
    """
    return asked_for(read_text(raw))


def read_compress(raw: object) -> str:
    """`none`, `zstd` or `zstd:LEVEL`."""
    text = read_text(raw).lower()
    form, colon, level = text.partition(":")
    if text == "none" or (form == "zstd" and not colon):
        return text
    if form == "zstd" and level.isascii() and level.isdigit() and 1 <= int(level) <= 19:
        return f"zstd:{int(level)}"
    raise ValueError("is no form of compression")


def read_host(raw: object) -> str:
    """An address (IPv6 also in brackets) or a host name; whoever binds resolves names."""
    host = read_text(raw)
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    try:
        ipaddress.ip_address(host)
    except ValueError:
        labels = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,62})(?:\.[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,62}))*\.?"
        # All digits and dots is an address gone wrong, whatever the resolver makes of it.
        if not re.fullmatch(labels, host) or re.fullmatch(r"[0-9.]+", host):
            raise ValueError("is no address and no host name") from None
    return host


def read_peer(raw: object) -> tuple[str, int]:
    """`HOST:PORT`, an IPv6 address in brackets."""
    text = read_text(raw)
    if "://" in text:
        raise ValueError("is a URL")
    host, colon, port = text.rpartition(":")
    if not colon:
        raise ValueError("has no port")
    if ":" in host and not host.startswith("["):
        raise ValueError("has an IPv6 address without brackets")
    try:
        number = Whole(1, 65535).read(port)
    except ValueError as error:
        raise ValueError(f"has a port that {error}") from None
    return read_host(host), number


def read_move_originator(raw: object) -> tuple[str, int]:
    """`AE:ID`, the title and message id of a C-MOVE. Source: PS3.7 9.3.1.1."""
    title, colon, number = read_text(raw).rpartition(":")
    if not colon:
        raise ValueError("has no message id")
    return read_title(title), Whole(0, 65535).read(number)


def read_path(raw: object) -> Path:
    """A path, relative to where the program was started."""
    text = read_text(raw)
    # In a file, a variable, or behind a `=` no shell has put the home directory in its place.
    if text == "~" or text.startswith("~/"):
        raise ExplainedError(
            f"{quoted(text)} begins with ~, which only a shell knows, and not here; write the home "
            f"directory out"
        )
    return Path(text)


def read_file_name(raw: object) -> str:
    """A path of a file, as it was written; what is in it is for others to read."""
    return str(read_path(raw))


def read_log_file(raw: object) -> str:
    """The path of a file, absolute: processes with folders of their own open it, and again."""
    return str(read_path(raw).absolute())


def read_user_identity(raw: object) -> UserIdentities:
    """`off`, `password:FILE` or `jwt:FILE`, with a `?` before the colon where none may be shown.

    Behind the file of `jwt` may stand ` issuer=TEXT` and ` audience=TEXT`. What is in the file now
    comes with it.
    """
    text = read_text(raw)
    word, _colon, rest = text.partition(":")
    word = word.strip().lower()
    if text.lower() == "off":
        return UserIdentities()
    kind = word.removesuffix("?")
    if kind not in ("password", "jwt"):
        raise ValueError("says of no file who may log in")
    file, *claims = _CLAIM.split(rest) if kind == "jwt" else (rest,)
    if not file.strip():
        raise ValueError("says of no file who may log in")
    issuers, audiences = (_claimed(claims, name) for name in ("issuer", "audience"))
    # As messages name it.
    path = read_path(file).absolute()
    required = word == kind
    try:
        if kind == "password":
            entries, warning = read_passwords(path)
            return UserIdentities(file.strip(), required, entries, warning)
        keys, warning = read_keys(path)
    except ValueError as error:
        raise ExplainedError(str(error)) from None
    return UserIdentities(file.strip(), required, (), warning, Keys(keys, audiences, issuers))


# What is asked of tokens, behind the name of the file, which may have blanks in it.
_CLAIM: Final = re.compile(r"\s+(issuer|audience)=")


def _claimed(claims: Sequence[str], name: str) -> tuple[str, ...]:
    """What is written of one claim, of names and texts in turns."""
    pairs = zip(claims[::2], claims[1::2], strict=True)
    texts = tuple(text.strip() for one, text in pairs if one == name)
    if "" in texts:
        raise ValueError(f"has an empty {name}")
    return texts


def read_umask(raw: object) -> str:
    """Bits that files and folders are not to have, in octal; returned with four digits."""
    # A number of a file would be decimal, and mean something else.
    if not isinstance(raw, str):
        raise ValueError("is not a text in quotes")
    text = read_text(raw)
    if not re.fullmatch("[0-7]{1,4}", text):
        raise ValueError("is no octal number of up to 4 digits")
    number = int(text, 8)
    if number > 0o777:
        raise ValueError("is more than 0777")
    if number & 0o700:
        raise ExplainedError(
            f"{quoted(text)} would keep the service from its own files; leave the owner's bits 0, "
            f"as in "
            f"0027 or 0077"
        )
    return f"{number:04o}"


@dataclass(frozen=True)
class AllowRule:
    """Who may associate: one AE title or anyone (`*`), from one network or anywhere (None).

    ae: in its written form (fastscp.titles), and so are the titles that `matches` is given.
    """

    ae: str
    network: ipaddress.IPv4Network | ipaddress.IPv6Network | None

    def __str__(self) -> str:
        return f"{self.ae}@{self.network or '*'}"

    def matches(self, calling_ae: str, address: str) -> bool:
        """Whether a peer falls under the rule. address: numeric, as the socket reports it."""
        if self.ae not in ("*", calling_ae):
            return False
        if self.network is None:
            return True
        try:
            peer = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        # A socket that serves both families shows an IPv4 peer as ::ffff:a.b.c.d.
        if isinstance(peer, ipaddress.IPv6Address) and peer.ipv4_mapped is not None:
            peer = peer.ipv4_mapped
        return peer in self.network


def read_allow_rule(raw: object) -> AllowRule:
    """`AE@NETWORK`. Host bits in the network are refused: they show a wrong prefix length."""
    ae, at, network = read_text(raw).rpartition("@")
    if not at:
        raise ValueError("has no @")
    if ae != "*":
        ae = read_written_title(ae)
        if "*" in ae:
            raise ValueError("mixes * with other characters of an AE title")
    if network.strip() == "*":
        return AllowRule(ae, None)
    return AllowRule(ae, _network(network.strip()))


def read_network(raw: object) -> str:
    """A network, or an address for that alone; as ADDRESS/PREFIX, without host bits."""
    return str(_network(read_text(raw)))


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        network = ipaddress.ip_network(text, strict=True)
    except ValueError:
        pass
    else:
        return _as_seen(network)
    try:
        wider = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"names no network ({quoted(text)})") from None
    raise ValueError(f"has bits set behind the prefix (the network would be {wider})")


# The IPv4 addresses as IPv6 writes them. No peer has such an address: it counts as an IPv4 one.
_MAPPED: Final = ipaddress.IPv6Network("::ffff:0:0/96")
# A network that begins with so many zeros, and is no longer, is one of IPv6 (`::/0`: all of it).
_ZEROS: Final = 80


def _as_seen(
    network: ipaddress.IPv4Network | ipaddress.IPv6Network,
) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """The network as peers are seen to be in it: an IPv4-mapped one is an IPv4 network.

    Raises ValueError for one of which the mapped addresses are a part.
    """
    if not isinstance(network, ipaddress.IPv6Network):
        return network
    if network.subnet_of(_MAPPED):
        bits = int(network.network_address) & 0xFFFFFFFF
        return ipaddress.IPv4Network((bits, network.prefixlen - _MAPPED.prefixlen))
    if network.prefixlen > _ZEROS and network.supernet_of(_MAPPED):
        raise ValueError(
            f"holds all IPv4 addresses in their IPv6 form ({_MAPPED}) and others; write 0.0.0.0/0 "
            f"for all of IPv4, and IPv6 networks by themselves"
        )
    return network


@dataclass(frozen=True)
class Parsed:
    """A text that one function reads."""

    parse: Callable[[object], object]
    metavar: str
    accepts: str
    limits: str = ""

    def read(self, raw: object) -> object:
        return self.parse(raw)

    def show(self, value: object) -> str:
        return str(value)


@dataclass(frozen=True)
class Many:
    """A tuple of values: a repeated flag, commas in any text, an array in TOML.

    check: looks at the whole tuple; what it raises is `ExplainedError`. commas: whether they part
    values; else they belong to them.
    """

    each: Parsed
    check: Callable[[tuple[Any, ...]], object] | None = None
    limits: str = ""
    commas: bool = True

    @property
    def metavar(self) -> str:
        return self.each.metavar

    @property
    def accepts(self) -> str:
        return self.each.accepts

    def read(self, raw: object) -> tuple[object, ...]:
        parts = raw if isinstance(raw, list) else [raw]
        items = [item for part in parts for item in self.parts(part)]
        # An unset variable in a script must not turn a list into "no restriction".
        if not items:
            raise ValueError("names nothing (leave the setting out instead)")
        values = tuple(self._one(item, alone=len(items) == 1) for item in items)
        if self.check is not None:
            try:
                self.check(values)
            except ValueError as error:
                raise ExplainedError(str(error)) from None
        return values

    def parts(self, entry: object) -> list[object]:
        """The values that one entry of a list holds, unread."""
        return [*entry.split(",")] if self.commas and isinstance(entry, str) else [entry]

    def _one(self, item: object, *, alone: bool) -> object:
        try:
            return self.each.read(item)
        except ValueError as error:
            if alone:
                raise
            raise ValueError(f"has {quoted(item)} in it, which {error}") from None

    def show(self, value: tuple[object, ...]) -> str:
        return ",".join(self.each.show(item) for item in value)
