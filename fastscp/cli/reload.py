"""`fastscp reload`: a running service takes its configuration anew."""

from __future__ import annotations

import sys

from fastscp.cli.operate import running_service
from fastscp.cli.options import JSON, Store, StoreConfigFile  # noqa: TC001 - cyclopts reads them
from fastscp.cli.output import print_json
from fastscp.errors import ConfigError
from fastscp.log import escape

__all__ = ["reload"]


def reload(
    *,
    store: Store | None = None,
    config: StoreConfigFile | None = None,
    json: JSON = False,
) -> int:
    """Have a running service take its configuration anew, whole or not at all.

    It reads the file and the environment that it was started with. Prints what changed, and what
    waits for a restart. The --config here only names the store.

    Exit code: 0 taken, 2 there are mistakes, all of them printed, and nothing was changed, 3 no
    service runs on the store.
    """
    from fastscp.messages.control import Reload, Reloaded

    with running_service(store, config) as service:
        done = service.ask(Reload(), Reloaded)
    if json:
        print_json(done)
    elif done.mistakes:
        for one in done.mistakes:
            print(f"fastscp: {escape(one)}", file=sys.stderr)
        print("fastscp: the reload is refused, and nothing was changed", file=sys.stderr)
    else:
        for one in done.changed:
            print(escape(one))
        for one in done.waits:
            print(f"waits for a restart: {escape(one)}", file=sys.stderr)
        number = len(done.changed)
        what = f"taken: {number} change{'s' * (number > 1)}" if number else "nothing has changed"
        print(f"{what}; generation {done.generation}")
    return ConfigError.exit_code if done.mistakes else 0
