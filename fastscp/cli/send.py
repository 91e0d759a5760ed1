"""`fastscp send`: C-STORE."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Parameter

from fastscp import log
from fastscp.cli.options import (
    JSON,
    MAX_PDU_LENGTH,
    PEER,
    TIMEOUT,
    TITLE,
    TLS,
    TLSCA,
    CalledAE,
    CallingAE,
    MaxPDULength,
    TLSCert,
    TLSKey,
    TLSNoVerify,
    TLSProfile,
    VerboseRequestor,
)
from fastscp.cli.output import INTERRUPTED_CODE, print_json
from fastscp.config.settings import read_value
from fastscp.config.values import Choice, Parsed, Whole, read_move_originator
from fastscp.errors import ConfigError, FastscpError
from fastscp.store.names import HOME

if TYPE_CHECKING:
    from fastscp.cli.send_run import Plan
    from fastscp.scu.send.outcomes import Summary

__all__ = ["send"]

# Reasons of failures in the summary for people.
_REASONS_SHOWN: Final = 10
_TIMEOUTS: Final = ("connect", "associate", "send", "response", "release")
_PRIORITY: Final = Choice(("low", "medium", "high"))
_MOVE_ORIGINATOR: Final = Parsed(read_move_originator, "AE:ID", "AE:ID, the id from 0 to 65535")


# Longer than a screen: most of it is the options.
def send(
    peer: Annotated[str, Parameter(name="HOST:PORT", help="Who to send to.")],
    /,
    *paths: Annotated[
        str,
        Parameter(
            name="PATH",
            help=f"Files, folders (with all below them, {HOME} excepted) or globs; "
            "what is not DICOM is skipped in folders, and fails where it is named.",
        ),
    ],
    called_ae: CalledAE = "ANY-SCP",
    calling_ae: CallingAE = "FASTSCP",
    associations: Annotated[
        str, Parameter(metavar="N", help="Associations in parallel. (1 to 1000)")
    ] = "1",
    window: Annotated[
        str,
        Parameter(
            metavar="N",
            help="Operations outstanding on each, as far as the peer allows. (1 to 65535)",
        ),
    ] = "1",
    max_pdu_length: MaxPDULength = "131072",
    priority: Annotated[
        str, Parameter(metavar="low|medium|high", help="Priority of the operations.")
    ] = "medium",
    move_originator: Annotated[
        str | None,
        Parameter(metavar="AE:ID", help="Move originator and its message id, to be passed on."),
    ] = None,
    retries: Annotated[
        str,
        Parameter(metavar="N", help="Further attempts after a lost connection or A7xx. (0 to 100)"),
    ] = "7",
    timeout: Annotated[
        str | None,
        Parameter(
            metavar="TIME",
            help="How long the peer may be silent, whatever it is to do. (default: 60s; 30s until "
            "an association is answered, 10s to connect and to release)",
        ),
    ] = None,
    repeat: Annotated[
        str, Parameter(metavar="N", help="Send everything N times. (1 to 1000000000)")
    ] = "1",
    new_uids: Annotated[
        bool,
        Parameter(
            negative="", show_default=False, help="Study, series and SOP UIDs fresh each time."
        ),
    ] = False,
    tls: TLS = False,
    tls_ca: TLSCA = None,
    tls_cert: TLSCert = None,
    tls_key: TLSKey = None,
    tls_profile: TLSProfile = None,
    tls_no_verify: TLSNoVerify = False,
    user: Annotated[str | None, Parameter(metavar="NAME", help="User identity: name.")] = None,
    password_file: Annotated[
        str | None, Parameter(metavar="FILE", help="User identity: file with the password.")
    ] = None,
    jwt_file: Annotated[
        str | None, Parameter(metavar="FILE", help="User identity: file with a JSON Web Token.")
    ] = None,
    report: Annotated[
        str | None,
        Parameter(
            metavar="FILE.jsonl", help="Write a line of JSON per instance, and per file skipped."
        ),
    ] = None,
    files_from: Annotated[
        str | None,
        Parameter(
            metavar="FILE|-",
            allow_leading_hyphen=True,
            help="Send what a file (-: stdin) lists, too: a path a line, or each ended by NUL.",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        Parameter(
            negative="",
            show_default=False,
            help="Look at the files and say what would be sent; connect to nobody.",
        ),
    ] = False,
    json: JSON = False,
    quiet: Annotated[
        bool,
        Parameter(
            name="-q",
            negative="",
            show_default=False,
            help="Say nothing unless something did not arrive.",
        ),
    ] = False,
    verbose: VerboseRequestor = 0,
) -> int:
    """Send DICOM files (C-STORE), their data sets byte for byte as they are.

    Exit code 0 only if everything arrived.
    """
    host, port = read_value("HOST:PORT", peer, PEER)
    if not paths and files_from is None:
        raise ConfigError("PATH", "nothing to send; give files, folders or globs")
    if quiet and verbose:
        raise ConfigError("-v", "contradicts -q; give one of them")
    if dry_run and report is not None:
        raise ConfigError("--report", "there is nothing to report with --dry-run; give one of them")
    log.configure("send", "error" if quiet else ("warning", "debug", "trace")[min(verbose, 2)])
    # What the event loop says of itself at level debug helps nobody.
    logging.getLogger("asyncio").setLevel(logging.INFO)
    from fastscp.cli.security import tls_context, user_identity
    from fastscp.cli.send_descriptors import take_descriptors
    from fastscp.cli.send_list import paths_listed
    from fastscp.cli.send_run import plan_send, run_send
    from fastscp.scu import Priority, Timeouts
    from fastscp.scu.send.options import Options

    options = Options(
        host=host,
        port=port,
        called_ae=read_value("--called-ae", called_ae, TITLE),
        calling_ae=read_value("--calling-ae", calling_ae, TITLE),
        associations=read_value("--associations", associations, Whole(1, 1000)),
        window=read_value("--window", window, Whole(1, 65535)),
        max_pdu_length=read_value("--max-pdu-length", max_pdu_length, MAX_PDU_LENGTH),
        priority=Priority[read_value("--priority", priority, _PRIORITY).upper()],
        move_originator=(
            None
            if move_originator is None
            else read_value("--move-originator", move_originator, _MOVE_ORIGINATOR)
        ),
        retries=read_value("--retries", retries, Whole(0, 100)),
        repeat=read_value("--repeat", repeat, Whole(1, 1_000_000_000)),
        new_uids=new_uids,
        timeouts=(
            Timeouts()
            if timeout is None
            else Timeouts(**dict.fromkeys(_TIMEOUTS, read_value("--timeout", timeout, TIMEOUT)))
        ),
        tls=tls_context(tls, tls_ca, tls_cert, tls_key, tls_profile, no_verify=tls_no_verify),
        identity=user_identity(user, password_file, jwt_file),
    )
    with paths_listed(files_from) as listed:
        if dry_run:
            plan = plan_send(paths, repeat=options.repeat, listed=listed)
            if json or not quiet or plan.failed or not plan.instances:
                _print_plan(plan, json)
            return 0 if plan.instances and not plan.failed else FastscpError.exit_code
        take_descriptors(options.associations, tls=options.tls is not None)
        summary = run_send(
            options,
            paths,
            None if report is None else Path(report),
            listed=listed,
            progress=sys.stderr.isatty() and not verbose and not quiet,
        )
    if json or not (quiet and summary.ok):
        _print_summary(summary, json)
    if summary.nothing:
        others = log.counted(summary.skipped, "other")
        raise FastscpError(f"there is no DICOM file to send ({others} skipped)")
    if summary.interrupted:
        return INTERRUPTED_CODE
    return 0 if summary.ok else FastscpError.exit_code


def _print_plan(plan: Plan, json: bool) -> None:
    if json:
        print_json(plan.as_json())
        return
    from fastscp.association.account import in_bytes
    from fastscp.scu.names import name_of

    rows = [("to be sent", f"{log.counted(plan.instances, 'instance')}, {in_bytes(plan.size)}")]
    rows += [
        (f"  {number} x", f"{name_of(sop_class)} in {name_of(syntax)}")
        for (sop_class, syntax), number in plan.contexts.most_common()
    ]
    if plan.failed:
        rows.append(("cannot be sent", str(plan.failed)))
    if plan.skipped:
        rows.append(("skipped, not DICOM", str(plan.skipped)))
    _print_rows(rows)


def _print_summary(summary: Summary, json: bool) -> None:
    if json:
        import msgspec

        print(msgspec.json.encode(summary.as_json()).decode("utf-8"))
        return
    _print_rows(_summary_rows(summary))


def _print_rows(rows: list[tuple[str, str]]) -> None:
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value}")


def _summary_rows(summary: Summary) -> list[tuple[str, str]]:
    """The summary as rows of a table: what, and how much."""
    from fastscp.association.account import in_bytes

    seconds = max(summary.seconds, 1e-9)
    arrived = summary.stored + summary.warned
    rows = [("stored", str(summary.stored))]
    if summary.warned:
        rows.append(("stored with a warning", str(summary.warned)))
    rows.append(("failed", str(summary.failed)))
    if summary.retried:
        rows.append(("tried again", str(summary.retried)))
    if summary.skipped:
        rows.append(("skipped, not DICOM", str(summary.skipped)))
    rows += [
        ("associations", str(summary.associations)),
        ("time", f"{summary.seconds:.3f} s"),
        ("rate", f"{arrived / seconds:.1f} instances/s, {in_bytes(summary.size / seconds)}/s"),
    ]
    if summary.interrupted:
        left = log.counted(summary.left, "instance that was", "instances that were")
        rows.append(("interrupted", f"{left} found and not sent"))
    top, further, theirs = summary.top_reasons(_REASONS_SHOWN)
    rows += [(f"  {count} x", reason) for reason, count in top]
    if further:
        kept = "" if not summary.unlisted else "at least "
        rows.append((f"  {theirs} x", f"and {kept}{further} more reason{'s' * (further > 1)}"))
    return rows
