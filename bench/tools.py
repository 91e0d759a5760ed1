"""Which receivers are here, and how to get the others: python -m bench.tools [--install]"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

from bench.receivers import receivers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.receiver import Receiver

# The clients that can install without being asked anything, and what stands before their words.
CLIENTS = {
    "apt-get": ([] if os.geteuid() == 0 else ["sudo"], ["-y"]),
    "pip": ([sys.executable, "-m"], []),
    "cargo": ([], []),
}


def installation(receiver: Receiver) -> list[str] | None:
    """The command that installs a receiver; None if that is a matter of reading and clicking."""
    words = receiver.install.split()
    if words[0] not in CLIENTS:
        return None
    before, after = CLIENTS[words[0]]
    return [*before, *words, *after]


def install(absent: Sequence[Receiver]) -> bool:
    """Install what package clients can; True if all of them did."""
    found = [installation(receiver) for receiver in absent]
    done = True
    for command in dict.fromkeys(tuple(words) for words in found if words is not None):
        print("$", *command, flush=True)
        if shutil.which(command[0]) is None:
            print(f"there is no {command[0]} here", file=sys.stderr)
            done = False
        elif subprocess.run(command, check=False).returncode:
            done = False
    return done


def show() -> list[Receiver]:
    """Print a line per receiver; gives those that are absent."""
    absent = []
    width = max(len(receiver.name) for receiver in receivers())
    for receiver in receivers():
        presence = receiver.find()
        print(f"{receiver.name:{width}}  ", end="")
        if presence:
            print(f"{presence.version}: {receiver.durability}; {receiver.shape}")
            print(f"{'':{width}}  $ {receiver.command_line()}")
        else:
            absent.append(receiver)
            print(f"absent, {presence.reason}")
            print(f"{'':{width}}  to install it: {receiver.install}")
    return absent


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 if every receiver is here, or was installed; 1 if not."""
    parser = argparse.ArgumentParser(prog="python -m bench tools", description=__doc__)
    parser.add_argument(
        "--install",
        action="store_true",
        help="install what is absent with apt-get, pip and cargo",
    )
    options = parser.parse_args(arguments)
    absent = show()
    if options.install and absent:
        done = install(absent)
        # Programs are looked for once; the second look is another process's.
        again = subprocess.run([sys.executable, "-m", "bench.tools"], check=False)
        return again.returncode if done else 1
    return 1 if absent else 0


if __name__ == "__main__":
    raise SystemExit(main())
