"""`fastscp echo`: C-ECHO."""

from __future__ import annotations

import logging
from dataclasses import dataclass
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
    FileName,
    MaxPDULength,
    TLSCert,
    TLSKey,
    TLSNoVerify,
    TLSProfile,
    VerboseRequestor,
    as_written,
)
from fastscp.cli.output import print_json
from fastscp.config.settings import read_value
from fastscp.errors import FastscpError

if TYPE_CHECKING:
    import ssl

    from fastscp.scu import Response
    from fastscp_ext import UserIdentity

__all__ = ["Answer", "echo", "run_echo"]

# Characters of a text of the peer that are shown: as many as a UID may have.
_SHOWN: Final = 64
# How much later than the first step that waits for too long all of them together do.
_GRACE_S: Final = 0.2


def echo(
    peer: Annotated[str, Parameter(name="HOST:PORT", help="Who to ask.")],
    /,
    *,
    called_ae: CalledAE = "ANY-SCP",
    calling_ae: CallingAE = "FASTSCP",
    timeout: Annotated[
        str, Parameter(metavar="TIME", help="How long the whole exchange may take.")
    ] = "10s",
    max_pdu_length: MaxPDULength = "131072",
    tls: TLS = False,
    tls_ca: TLSCA = None,
    tls_cert: TLSCert = None,
    tls_key: TLSKey = None,
    tls_profile: TLSProfile = None,
    tls_no_verify: TLSNoVerify = False,
    user: Annotated[str | None, Parameter(metavar="NAME", help="User identity: name.")] = None,
    password_file: Annotated[
        FileName | None,
        Parameter(metavar="FILE", converter=as_written, help="User identity: file with passcode."),
    ] = None,
    jwt_file: Annotated[
        FileName | None,
        Parameter(
            metavar="FILE", converter=as_written, help="User identity: file with a JSON Web Token."
        ),
    ] = None,
    json: JSON = False,
    verbose: VerboseRequestor = 0,
) -> int:
    """Ask a peer whether it is there (C-ECHO).

    Exit code 0 if it answered with success, 1 if it did not.
    """
    host, port = read_value("HOST:PORT", peer, PEER)
    log.configure("echo", ("warning", "debug", "trace")[min(verbose, 2)])
    # What the event loop says of itself at level debug helps nobody.
    logging.getLogger("asyncio").setLevel(logging.INFO)
    from fastscp.cli.security import tls_context, user_identity

    answer = run_echo(
        host,
        port,
        called_ae=read_value("--called-ae", called_ae, TITLE),
        calling_ae=read_value("--calling-ae", calling_ae, TITLE),
        timeout_s=read_value("--timeout", timeout, TIMEOUT),
        max_pdu_length=read_value("--max-pdu-length", max_pdu_length, MAX_PDU_LENGTH),
        tls=tls_context(tls, tls_ca, tls_cert, tls_key, tls_profile, no_verify=tls_no_verify),
        identity=user_identity(user, password_file, jwt_file),
    )
    if json:
        print_json(answer.as_json())
    else:
        print(answer)
    return 0


@dataclass(frozen=True)
class Answer:
    """What a peer answered, a success. milliseconds: of the whole exchange."""

    peer: str
    response: Response
    implementation_class_uid: str | None
    implementation_version_name: str | None
    milliseconds: float

    def __str__(self) -> str:
        name = self.implementation_version_name
        who = f" ({log.shown(name, _SHOWN)})" if name else ""
        return f"{self.peer}{who}: {self.response} in {self.milliseconds:.1f} ms"

    def as_json(self) -> dict[str, object]:
        """For `--json`."""
        return {
            "peer": self.peer,
            "status": f"{self.response.status:04X}",
            "meaning": self.response.meaning,
            "implementation_class_uid": _shown(self.implementation_class_uid),
            "implementation_version_name": _shown(self.implementation_version_name),
            "milliseconds": round(self.milliseconds, 3),
        }


def _shown(text: str | None) -> str | None:
    return None if text is None else log.shown(text, _SHOWN)


def run_echo(
    host: str,
    port: int,
    *,
    called_ae: str,
    calling_ae: str,
    timeout_s: float,
    max_pdu_length: int,
    tls: ssl.SSLContext | None = None,
    identity: UserIdentity | None = None,
) -> Answer:
    """Ask a peer whether it is there.

    timeout_s: for the whole exchange. Raises FastscpError if the answer is anything but success.
    """
    import asyncio
    import time

    from fastscp.scu import PeerTimeout, Timeouts, associate
    from fastscp.scu.pdulog import PDULog
    from fastscp.status import StatusClass

    async def ask() -> Answer:
        began = time.perf_counter()
        association = await associate(
            host,
            port,
            called_ae=called_ae,
            calling_ae=calling_ae,
            max_pdu_length=max_pdu_length,
            # Whichever ends first says what was waited for; the outer limit is one for all.
            timeouts=Timeouts(
                connect=timeout_s, associate=timeout_s, send=timeout_s, response=timeout_s,
                release=timeout_s,
            ),
            on_pdu=PDULog("association 1").saw if PDULog.wanted() else None,
            tls=tls,
            identity=identity,
        )  # fmt: skip
        async with association:
            response = await association.echo()
            if response.status_class is not StatusClass.SUCCESS:
                raise FastscpError(f"the peer answered {response}")
        return Answer(
            f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
            response,
            association.implementation_class_uid,
            association.implementation_version_name,
            (time.perf_counter() - began) * 1000,
        )

    async def within() -> Answer:
        try:
            async with asyncio.timeout(timeout_s + _GRACE_S):
                return await ask()
        except TimeoutError:
            raise PeerTimeout("complete the exchange", timeout_s) from None

    return asyncio.run(within())
