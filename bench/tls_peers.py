"""Peers that speak TLS, for what the generator in C, which does not, cannot measure.

python -m bench.tls_peers shake PORT SECONDS: connect, shake hands, close, over and over, and print
how often that was.
python -m bench.tls_peers hold PORT COUNT [TEMPLATE NUMBER]: so many associations, of which each
has sent an instance of that template, if there is one; prints `ready`, and keeps them until stdin
ends.
"""

from __future__ import annotations

import json
import socket
import ssl
import sys
import threading
import time
from pathlib import Path

from bench.crowd import CT, RQ
from bench.workloads import SOP, Template, uid
from fastscp_ext import encode_command, encode_pdata

# Shaking hands at a time: the receiver has always one to go on with.
AT_A_TIME = 4
TAG = "3"
FRAGMENT = 16000


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _connected(context: ssl.SSLContext, port: int) -> ssl.SSLSocket:
    sock = socket.create_connection(("127.0.0.1", port), timeout=60)
    try:
        return context.wrap_socket(sock)
    except BaseException:
        sock.close()
        raise


def shake(port: int, seconds: float) -> dict[str, float]:
    """Handshakes without an association. Raises OSError."""
    context = _context()
    counts: list[int] = []
    errors: list[OSError] = []
    began = time.perf_counter()

    def one_after_the_other() -> None:
        count = 0
        try:
            while time.perf_counter() < began + seconds:
                _connected(context, port).close()
                count += 1
        except OSError as error:
            errors.append(error)
        counts.append(count)

    threads = [threading.Thread(target=one_after_the_other) for _ in range(AT_A_TIME)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return {"handshakes": sum(counts), "seconds": time.perf_counter() - began}


def _answer(sock: ssl.SSLSocket) -> int:
    """The type of the next PDU. Raises ConnectionError."""
    head = _exactly(sock, 6)
    _exactly(sock, int.from_bytes(head[2:], "big"))
    return head[0]


def _exactly(sock: ssl.SSLSocket, size: int) -> bytes:
    got = b""
    while len(got) < size:
        more = sock.recv(size - len(got))
        if not more:
            raise ConnectionError("the receiver hung up")
        got += more
    return got


def _message(template: Template, data: bytes, number: int) -> bytes:
    """A C-STORE-RQ and its data set. Source: PS3.7 9.3.1."""
    name = uid(TAG, SOP, number)
    data = template.patched(data, {SOP: name.encode("ascii")})
    command = encode_command(
        {0x0002: CT, 0x0100: 1, 0x0110: 1, 0x0700: 0, 0x0800: 1, 0x1000: name}
    )  # fmt: skip
    last = (len(data) - 1) // FRAGMENT
    fragments = (
        encode_pdata([(1, 2 * (at == last), data[at * FRAGMENT : (at + 1) * FRAGMENT])])
        for at in range(last + 1)
    )
    return encode_pdata([(1, 3, command)]) + b"".join(fragments)


def hold(port: int, count: int, template: Template | None) -> None:
    """Associations that stay until stdin ends. Raises OSError."""
    context = _context()
    data = template.data_set() if template is not None else b""
    held = []
    for number in range(count):
        sock = _connected(context, port)
        held.append(sock)
        sock.sendall(RQ)
        if _answer(sock) != 2:
            raise ConnectionError("the receiver refuses an association")
        if template is not None:
            sock.sendall(_message(template, data, number))
            if _answer(sock) != 4:
                raise ConnectionError("the receiver stores nothing")
    print("ready", flush=True)
    sys.stdin.read()
    for sock in held:
        sock.close()
    print(json.dumps({"there": len(held)}))


def main(words: list[str]) -> None:
    """Run the command line."""
    what, port, amount, *rest = words
    if what == "shake":
        print(json.dumps(shake(int(port), float(amount))))
        return
    template = Template("", Path(rest[0]), int(rest[1]), 0) if rest else None
    hold(int(port), int(amount), template)


if __name__ == "__main__":
    main(sys.argv[1:])
