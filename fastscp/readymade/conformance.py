"""`fastscp print conformance`: the DICOM conformance statement of a receiver as it is configured.

The sections have the numbers of the template, PS3.2 Annex N, and say in our own words what holds.
Every figure comes from the configuration, from its rules, or from the code that acts on it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fastscp import __version__, uids
from fastscp.association.negotiation import SMALLEST_MAX_PDU_LENGTH
from fastscp.config.settings import SETTINGS
from fastscp.readymade.statuses import rejections, statuses
from fastscp.rules.book import RuleBook
from fastscp.rules.build import build

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from fastscp.config.settings import ServeConfig
    from fastscp.readymade.source import Source
    from fastscp.rules.rule import Rule

__all__ = ["render"]

_BY_FIELD: Final = {setting.field: setting for setting in SETTINGS}
# PS3.7 A.2.1.
_APPLICATION_CONTEXT: Final = "1.2.840.10008.3.1.1.1"
# What is configured, in the order of N.6.
_PARAMETERS: Final = (
    "ae_title", "check_called_ae", "host", "port", "allow", "max_pdu_length",
    "max_async_operations", "max_associations", "max_associations_per_host",
    "max_associations_per_ae", "max_association_rate", "max_instance_size", "artim_timeout",
    "message_timeout", "idle_timeout", "min_rate", "drain_timeout", "sop_classes",
    "transfer_syntaxes", "strict", "durability", "on_duplicate", "digest", "compress",
    "user_identity", "proxy_protocol_from",
)  # fmt: skip


def render(source: Source) -> str:
    """The statement, in Markdown. Cost: imports pydicom."""
    config = source.config
    book = RuleBook(build(config, 1))
    parts: tuple[Callable[[], str], ...] = (
        lambda: _overview(config, book),
        _introduction,
        lambda: _model(config),
        lambda: _services(config, book),
        lambda: _configuration(config),
        lambda: _details(config, book),
        lambda: _security(config),
    )
    return "\n".join(part() for part in parts)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    cells = [head, ("---",) * len(head), *rows]
    return "".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |\n" for row in cells
    )


def _shown(config: ServeConfig, field: str) -> str:
    setting = _BY_FIELD[field]
    return setting.kind.show(getattr(config, field)) or setting.default_text


# N.1 to N.4 --------------------------------------------------------------------------------------


def _overview(config: ServeConfig, book: RuleBook) -> str:
    classes = _classes(book.rules.top)
    services = [("Verification", uids.VERIFICATION, "no", "yes")]
    services += [(_name(uid, keyword), uid, "no", "yes") for uid, keyword in classes.items()]
    return f"""\
# DICOM Conformance Statement: fastscp {__version__}, AE title {config.ae_title}

Rendered by `fastscp print conformance` from the configuration of this receiver. Print it anew when
the configuration changes. The numbers of the sections are those of PS3.2 Annex N.

## N.1 Conformance statement overview

fastscp receives DICOM composite instances over the network (C-STORE) and keeps them as DICOM files.
It is no archive: it has no query, no retrieve and no viewer, and changes nothing in a data set.
{_more_classes(book.rules.top)}

### N.1.1 Content and transfer

{_table(("SOP Class", "UID", "User of service (SCU)", "Provider of service (SCP)"), services)}
### N.1.2 DIMSE services

Verification and Storage, as SCP. `fastscp echo` and `fastscp send`, which belong to the same
program, are SCUs of both, and not what this statement is about.

### N.1.3 DICOM web services

None.

### N.1.4 Media services

None: the files are Part 10 files, and there is no DICOMDIR.

### N.1.5 Real-time video

None.

### N.1.6 De-identification profiles

None: no attribute is removed or replaced.

### N.1.7 Specific character sets

All: texts are kept as the bytes that came, whatever Specific Character Set (0008,0005) says.
"""


def _introduction() -> str:
    return """\
## N.2 Table of contents

N.1 Overview; N.3 Introduction; N.4 Implementation model; N.5 Services; N.6 Configuration; N.7
Network details; N.8 Security.

## N.3 Introduction

This is for whoever connects a sender to this receiver, and knows DICOM. It does not replace a test
of both together. SCU and SCP, association, presentation context, abstract and transfer syntax, and
the names of attributes are used as PS3.5, PS3.7 and PS3.8 define them. References: PS3.2, PS3.4
Annex B, PS3.5, PS3.7, PS3.8, PS3.10, PS3.15.
"""


def _model(config: ServeConfig) -> str:
    titles = [config.ae_title, *(table.title for table in config.tables.ae)]
    compressed = config.compress != "none"
    form = "compressed with Zstandard, which `fastscp cat` undoes" if compressed else "uncompressed"
    return f"""\
## N.4 Implementation model

### N.4.1 Application entities and data flow

One application entity accepts associations; it answers to {_listed(titles)}. A sender's instance
becomes a file below the store, named by the layout `{config.layout}` and {form}. Success is
answered when {_when_kept(config.durability)}.

### N.4.1.1 Functional definition

The receiver waits for associations on {_addresses(config)}. For each C-STORE it checks the command
set and the UIDs, writes the data set byte for byte as it came behind File Meta Information of its
own, and answers. It starts no association.
"""


def _when_kept(durability: str) -> str:
    if durability == "stable":
        return "file, folder and journal are on stable storage"
    return "the file has its name; a power cut may still lose it (--durability buffered)"


def _addresses(config: ServeConfig) -> str:
    hosts = [f"[{host}]" if ":" in host else host for host in config.host]
    return _listed(f"{host}:{config.port}" for host in hosts)


def _listed(texts: Iterable[str]) -> str:
    return ", ".join(f"`{text}`" for text in texts)


# N.5 ---------------------------------------------------------------------------------------------


def _services(config: ServeConfig, book: RuleBook) -> str:
    rules = [("all others", book.rules.top)]
    rules = [
        *((f"calls {title}", book.rule(title, None)) for title in book.rules.ae),
        *(
            (f"{sender.key.partition('.')[2]} ({_who(config, place)})", book.rule("", place))
            for place, sender in enumerate(book.rules.senders)
        ),
        *rules,
    ]
    duplicates = {
        "version": "kept beside the older one, nine times at most",
        "replace": "takes the place of the older one",
        "keep": "not stored; the older one stays, and B006 is answered",
        "refuse": "refused with C000",
    }
    rows = [
        (who, rule.on_duplicate + ": " + duplicates[rule.on_duplicate], rule.durability,
         rule.digest, "yes" if rule.strict else "no", _limit(rule.max_instance_size))
        for who, rule in rules
    ]  # fmt: skip
    head = ("association", "another instance of the same path", "durability", "digest", "strict",
            "largest data set in bytes")  # fmt: skip
    return f"""\
## N.5 Service and interoperability description

### N.5.1 Mapping of services to application entities

The one application entity provides Verification and Storage.

### N.5.2 DIMSE services

#### N.5.2.1 Verification as SCP

C-ECHO is answered with 0000, on every association that has a context for it.

#### N.5.2.5 Storage service

#### N.5.2.5.2 Storage as SCP

Level 2 (full): all attributes are kept, private ones too. No data element is coerced, so digital
signatures stay valid. An instance that was sent before, byte for byte, is answered with 0000, and
there is one file of it. How instances are treated depends on the association:

{_table(head, rows)}
A data set in another transfer syntax than the negotiated one, or one that ends inside an element,
is kept as it came where its UIDs can be read, except where the table says strict.

Storage commitment, query and retrieve are not provided.

### N.5.7 Specific character sets

See N.1.7. Values that the layout puts into paths are escaped byte by byte, and never interpreted.
"""


def _who(config: ServeConfig, place: int) -> str:
    table = config.tables.senders[place]
    return ", ".join(map(str, (*table.who, *table.called, *table.certificate))) or "anyone"


def _limit(number: int) -> str:
    return f"{number:,}" if number else "no limit"


# N.6 ---------------------------------------------------------------------------------------------


def _configuration(config: ServeConfig) -> str:
    rows = [
        (_BY_FIELD[field].name, _shown(config, field), _BY_FIELD[field].default_text,
         _BY_FIELD[field].help)
        for field in _PARAMETERS
    ]  # fmt: skip
    tables = len(config.tables.ae) + len(config.tables.senders)
    more = f"\n{tables} tables of the file set some of these for senders or called AE titles.\n"
    return f"""\
## N.6 Configuration

### N.6.1 General parameters

{_table(("parameter", "value", "default", "what it is"), rows)}{more * bool(tables)}"""


# N.7 ---------------------------------------------------------------------------------------------


def _details(config: ServeConfig, book: RuleBook) -> str:
    return "\n".join((
        (f"## N.7 Network and media communication details\n\n### N.7.1 General\n\n"
        f"#### N.7.1.1 General association parameters\n\n{_parameters(config)}"),
        f"### N.7.2 Specifications\n\n{_acceptance(config)}\n{_contexts(book)}",
        (f"### N.7.3 Status codes\n\n#### N.7.3.1 General communication\n\n{_rejected(config)}\n"
        f"#### N.7.3.2 DIMSE services\n\nA C-ECHO is answered with 0000. A C-STORE is answered "
        f"with:\n\n{_statuses(book)}"),
    ))  # fmt: skip


def _parameters(config: ServeConfig) -> str:
    seconds = {"0": "no limit"}
    idle = _shown(config, "idle_timeout")
    window = config.max_async_operations
    rows = [
        ("Application Context Name", _APPLICATION_CONTEXT),
        ("Implementation Class UID", uids.IMPLEMENTATION_CLASS_UID),
        ("Implementation Version Name", uids.IMPLEMENTATION_VERSION_NAME),
        ("AE title", config.ae_title),
        ("Other called AE titles", "rejected" if config.check_called_ae else "accepted"),
        ("Maximum PDU length offered, in bytes", f"{config.max_pdu_length:,}"),
        (
            "Smallest maximum PDU length of a requestor, in bytes",
            f"{SMALLEST_MAX_PDU_LENGTH}; 0 is any length",
        ),
        ("Associations at a time", _limit(config.max_associations)),
        ("Associations at a time from one address", _limit(config.max_associations_per_host)),
        ("Associations at a time of one AE title", _limit(config.max_associations_per_ae)),
        ("New associations in a second from one address", _limit(config.max_association_rate)),
        (
            "Asynchronous operations",
            f"{window} invoked and 1 performed at most, where the requestor asks for more than one",
        ),
        ("Time for a complete A-ASSOCIATE-RQ (ARTIM)", _shown(config, "artim_timeout")),
        ("Silence inside a message", _shown(config, "message_timeout")),
        ("Least rate inside a message", f"{_shown(config, 'min_rate')} a second"),
        ("Silence between messages", seconds.get(idle, idle)),
        ("Role selection", "SCU, as proposed; never SCP"),
        ("SOP class extended negotiation", "answered for storage: level 2, no coercion"),
        ("Port", str(config.port)),
    ]
    return _table(("parameter", "value"), rows)


def _acceptance(config: ServeConfig) -> str:
    if config.allow or config.tables.senders:
        names = [str(rule) for rule in config.allow]
        names += [str(who) for table in config.tables.senders for who in table.who]
        who = f"Only these are let in, by calling AE title and network: {_listed(names)}."
    else:
        who = "Any calling AE title from any address is let in."
    order = (
        "Of the transfer syntaxes that a presentation context proposes the first is taken, except "
        "that Explicit VR Little Endian goes before the other uncompressed ones, and that deflated "
        "and JPIP ones are taken only where there is nothing else."
    )
    return f"""\
#### N.7.2.1.3 Association initiation

None.

#### N.7.2.1.4 Association acceptance

{who} {order} A context whose abstract syntax is not accepted gets result 3, one without an
acceptable transfer syntax result 4.
"""


def _contexts(book: RuleBook) -> str:
    rules = [("Top level", book.rules.top)]
    rules += [(f"[ae.{title}]", book.rule(title, None)) for title in book.rules.ae]
    rules += [
        (f"[{sender.key}]", book.rule("", place)) for place, sender in enumerate(book.rules.senders)
    ]
    told: dict[tuple[object, object], str] = {}
    text = "##### Presentation contexts\n"
    for name, rule in rules:
        key = (rule.sop_classes, rule.transfer_syntaxes)
        if key in told:
            text += f"\n{name}: as {told[key]}.\n"
            continue
        told[key] = name
        text += f"\n{name}: {_more_classes(rule)} {_more_syntaxes(rule)}\n\n{_of_rule(rule)}"
    return text


def _of_rule(rule: Rule) -> str:
    verification = ((_name(uids.VERIFICATION, "Verification"), uids.VERIFICATION),)
    classes = ((_name(uid, word), uid) for uid, word in _classes(rule).items())
    syntaxes = (
        (_name(uid, word), uid)
        for uid, word in uids.transfer_syntaxes().items()
        if rule.transfer_syntaxes.accepts(uid)
    )
    return (
        _table(("abstract syntax", "UID"), (*verification, *classes))
        + "\n"
        + _table(("transfer syntax, with each of them", "UID"), syntaxes)
    )


def _rejected(config: ServeConfig) -> str:
    rows = [(f"{a},{b},{c}", why) for (a, b, c), why in rejections(config)]
    return (
        "An association that is not accepted gets an A-ASSOCIATE-RJ:\n\n"
        + _table(("result, source, reason", "when"), rows)
        + "\nA PDU that breaks PS3.8 is answered with an A-ABORT of its Table 9-26, and so is a "
        "message that makes no progress.\n"
    )


def _statuses(book: RuleBook) -> str:
    rows = [(f"{status:04X}", kind, why) for status, kind, why in statuses(book)]
    return _table(("status", "meaning", "when (the Error Comment of a refusal)"), rows)


def _classes(rule: Rule) -> Mapping[str, str]:
    """The storage classes of the dictionary that a rule accepts, UID to keyword."""
    return {
        uid: keyword
        for uid, keyword in sorted(uids.storage_sop_classes().items(), key=lambda one: one[1])
        if rule.sop_classes.accepts(uid)
    }


def _name(uid: str, keyword: str) -> str:
    return keyword or uid


def _more_classes(rule: Rule) -> str:
    if rule.sop_classes.any:
        return (
            "Besides the storage classes listed, private ones are accepted, and those that are "
            "younger than this version."
        )
    if rule.sop_classes.storage:
        return "Besides the storage classes listed, those are accepted that declare themselves so."
    return "Storage classes that are not listed are refused."


def _more_syntaxes(rule: Rule) -> str:
    if rule.transfer_syntaxes.any:
        return "Besides the transfer syntaxes listed, private and unknown ones are accepted."
    return "Transfer syntaxes that are not listed are refused."


# N.8 ---------------------------------------------------------------------------------------------


def _security(config: ServeConfig) -> str:
    user = _identity(config)
    proxies = (
        f"Connections from {_listed(config.proxy_protocol_from)} are those of proxies, which may "
        "end TLS and pass on what the sender's certificate shows."
        if config.proxy_protocol_from
        else "No proxy is believed."
    )
    return f"""\
## N.8 Security

### N.8.2 External network requirements

None besides the port below.

### N.8.3 TCP ports

{_ports(config)}

### N.8.4 Security profiles

{_transport(config)}

{proxies} No digital signature is made or checked; those in data sets stay valid. No attribute
confidentiality profile.

### N.8.5 User identity negotiation

{user}
"""


def _tls(config: ServeConfig) -> dict[str, str]:
    """The settings of TLS there are, as they are set; empty without a certificate."""
    names = [one.field for one in SETTINGS if one.name.startswith("tls-")]
    has_any = any(getattr(config, field) for field in names if field == "tls_cert")
    return {_BY_FIELD[field].name: _shown(config, field) for field in names} if has_any else {}


def _ports(config: ServeConfig) -> str:
    tls = _tls(config)
    plain = f"{config.port}, for DICOM without TLS."
    if not tls:
        return plain
    secure = f"{tls['tls-port']}, for DICOM with TLS."
    return secure if getattr(config, "no_plain", False) else f"{plain} {secure}"


def _transport(config: ServeConfig) -> str:
    tls = _tls(config)
    if not tls:
        return (
            "No secure transport connection profile (PS3.15 Annex B): this receiver is configured "
            "without TLS."
        )
    return "Secure transport connection (PS3.15 Annex B), as it is set here:\n\n" + _table(
        ("parameter", "value"), tls.items()
    )


def _identity(config: ServeConfig) -> str:
    identity = config.user_identity
    if not identity:
        return "User identities are ignored, and no response is sent."
    # `password?:FILE`
    word = str(identity).partition(":")[0]
    kinds = {"password": "type 2, a user name with a passcode,", "jwt": "type 5, a JSON Web Token,"}
    need = "has to show one" if identity.required else "may show one"
    return (
        f"User identity {kinds[word.rstrip('?')]} is checked; a requestor {need}. A positive "
        "response is sent where it is asked for. Other types are "
        f"{'rejected' if identity.required else 'ignored'}."
    )
