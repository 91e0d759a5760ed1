"""`fastscp reload`: a running service takes its configuration anew."""

from __future__ import annotations

import sys
from pathlib import Path

from fastscp.cli.operate import running_service
from fastscp.cli.options import JSON, Store, StoreConfigFile  # noqa: TC001 - cyclopts reads them
from fastscp.cli.output import print_json
from fastscp.errors import ConfigError
from fastscp.log import counted, escape

__all__ = ["reload"]


def reload(
    *,
    store: Store | None = None,
    config: StoreConfigFile | None = None,
    json: JSON = False,
) -> int:
    """Have a running service take its configuration anew, whole or not at all.

    It reads the file and the environment that it was started with. Prints what changed, what waits
    for a restart, and which file it read. The --config here only finds the store: a service that
    was started without a file needs a restart to get one.

    Exit code: 0 taken, 1 the service does not answer within 10 s, 2 there are mistakes, all of them
    printed, and nothing was changed, 3 no service runs on the store.
    """
    from fastscp.messages.control import Reload, Reloaded

    with running_service(store, config) as service:
        done = service.ask(Reload(), Reloaded)
    if json:
        print_json(done)
    elif done.mistakes:
        for one in done.mistakes:
            print(f"fastscp: {escape(one)}", file=sys.stderr)
        if done.mistakes_more:
            print(
                f"fastscp: and {counted(done.mistakes_more, 'more mistake')}; `fastscp config "
                f"--check FILE` shows all",
                file=sys.stderr,
            )
        print("fastscp: the reload is refused, and nothing was changed", file=sys.stderr)
    else:
        for one in done.changed:
            print(escape(one))
        for one in done.waits:
            print(f"waits for a restart: {escape(one)}", file=sys.stderr)
        number = len(done.changed)
        what = f"taken: {counted(number, 'change')}" if number else "nothing has changed"
        source = f"read from {escape(done.file)}" if done.file else "the service reads no file"
        print(f"{what}; generation {done.generation}; {source}")
    if config is not None and not json and not _is_same(Path(config), done.file):
        why = "it was started with another file" if done.file else "it was started without a file"
        print(
            f"fastscp: --config here only finds the store, and the service did not read "
            f"{escape(config)}: {why}; restart it with this one",
            file=sys.stderr,
        )
    return ConfigError.exit_code if done.mistakes else 0


def _is_same(file: Path, read: str) -> bool:
    return bool(read) and file.resolve() == Path(read).resolve()
