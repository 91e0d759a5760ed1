"""A changed configuration on its way into a service that runs: whole, or not at all.

Theory of operation: everything that may fail comes first, in threads: reading, checking, looking
up, and what the store has to remember. Then main takes the new limits, tells each worker of the new
generation of rules, and hears from each that it goes by them. Associations keep the rules that they
began with, and a worker that starts meanwhile begins with the newest. Limits of a generation are
known until no worker asks by it any more.

One reload goes at a time. Whoever asks for one meanwhile gets the next, which all of them share.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from fastscp import log as logs
from fastscp.config.changes import changes
from fastscp.errors import ConfigError, FastscpError
from fastscp.main.control import taken
from fastscp.main.exposure import exposed, told_of_users
from fastscp.main.prepared import prepare
from fastscp.main.threads import in_thread
from fastscp.messages.configuration import pack
from fastscp.messages.control import Reloaded

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from fastscp.config.settings import ServeConfig
    from fastscp.main.admission import Admission
    from fastscp.main.control import Facts
    from fastscp.main.prepared import Prepared
    from fastscp.main.storewatch import StoreWatch
    from fastscp.main.workers import Workers
    from fastscp.store.store import Store
    from fastscp_ext import Shared

__all__ = ["AFTER_A_RESTART", "FIRST", "Reloader", "Reloads"]

log = logging.getLogger("fastscp.main")

_T = TypeVar("_T")

# The generation of the rules that a service begins with.
FIRST: Final = 1
# Fields of the settings that a service keeps for as long as it lives.
AFTER_A_RESTART: Final = (
    "host",
    "port",
    "store",
    "store_must_exist",
    "store_new_life",
    "layout_change",
    "umask",
)
# How long workers may take to go by new rules before the log names those that do not.
_ANSWER_S: Final = 5.0
# After so long the log says that a reload waits for the disk.
_WAITS_S: Final = 10.0
# A file may hold as many mistakes as it has lines.
_MISTAKES_SHOWN: Final = 20


class Reloads:
    """Who wants the configuration read anew: one reload at a time.

    background(work): lets a coroutine run beside the others. Until `begin`, a signal waits.
    """

    def __init__(self, background: Callable[[Coroutine[object, object, None]], None]) -> None:
        self._background = background
        self._loop = asyncio.get_running_loop()
        self._reloader: Reloader | None = None
        # Whether a signal came while the service started.
        self._is_wanted = False
        self._next: asyncio.Future[Reloaded] | None = None
        self._is_busy = False

    def begin(self, reloader: Reloader) -> None:
        """The start is through."""
        self._reloader = reloader
        if self._is_wanted:
            self._ask(reloader)

    def hung_up(self) -> None:
        """HUP came; a start goes through with the configuration that it began with."""
        if self._reloader is None:
            self._is_wanted = True
            log.info("HUP: the configuration is read anew once the start is through")
        elif self._reloader.is_over:
            log.warning("HUP: the service is shutting down: its configuration is not read any more")
        else:
            log.info("HUP: reading the configuration anew")
            self._ask(self._reloader)

    async def reload(self) -> Reloaded:
        """Read the configuration anew, and take it whole or not at all."""
        if self._reloader is None:
            return Reloaded(mistakes=("the start is not through yet: try again then",))
        # Others may wait for the same one.
        return await asyncio.shield(self._ask(self._reloader))

    def _ask(self, reloader: Reloader) -> asyncio.Future[Reloaded]:
        """A reload, behind one that is under way; all who ask meanwhile share it."""
        if self._next is None:
            self._next = self._loop.create_future()
        asked = self._next
        if not self._is_busy:
            self._is_busy = True
            self._background(self._run(reloader))
        return asked

    async def _run(self, reloader: Reloader) -> None:
        while self._next is not None:
            asked, self._next = self._next, None
            try:
                done = await reloader.reload()
            except Exception:
                log.exception("a reload failed, which is a bug: see which of the changes hold")
                done = Reloaded(mistakes=("a bug: see the log",), generation=reloader.generation)
            if not asked.done():
                asked.set_result(done)
        self._is_busy = False


class Reloader:
    """Reads the configuration anew, checks it, and has all parts of the service take it.

    config: what the service goes by. load(): reads the same flags, environment and file again;
    raises ConfigError, and runs in a thread. facts: what is told of the service.
    """

    def __init__(
        self,
        config: ServeConfig,
        *,
        load: Callable[[], ServeConfig],
        facts: Facts,
        shared: Shared,
        store: Store,
        store_watch: StoreWatch,
        admission: Admission,
        workers: Workers,
    ) -> None:
        self._config = config
        self.generation = FIRST
        self._load = load
        self._facts = facts
        self._shared = shared
        self._store = store
        self._store_watch = store_watch
        self._admission = admission
        self._workers = workers

    @property
    def is_over(self) -> bool:
        """Whether the service is shutting down."""
        return self._workers.stopping

    async def reload(self) -> Reloaded:
        """Take what is different, or nothing."""
        try:
            self._refuse_at_the_end()
            new = await self._thread(self._load)
            found = await self._thread(lambda: list(changes(self._config, new)))
            waits = tuple(text for name, text in found if name in AFTER_A_RESTART)
            changed = tuple(text for name, text in found if name not in AFTER_A_RESTART)
            if changed:
                kept: dict[str, Any] = {
                    name: getattr(self._config, name) for name in AFTER_A_RESTART
                }
                await self._check_and_take(replace(new, **kept), changed)
            else:
                log.info("reload: nothing is different that can be taken")
        except ConfigError as error:
            return self._refused(error.mistakes)
        except FastscpError as error:
            return self._refused((str(error),))
        except OSError as error:
            return self._refused((f"no means for it ({error.strerror or error}); try again",))
        for one in waits:
            log.warning("reload: %s waits for a restart of the service", one)
        if changed:
            await self._see_that_workers_follow()
        return Reloaded(changed=changed, waits=waits, generation=self.generation)

    def _refuse_at_the_end(self) -> None:
        if self.is_over:
            raise FastscpError("the service is shutting down")

    async def _check_and_take(self, config: ServeConfig, changed: tuple[str, ...]) -> None:
        """All that may fail, then all at once. Raises FastscpError, OSError: nothing changed."""
        retired = self._workers.retired
        new = await self._thread(prepare, config, self.generation + 1, retired)
        with contextlib.ExitStack() as undo:
            fd = pack(new.configuration)
            undo.callback(os.close, fd)
            # Last, for it is noted on the disk.
            await self._thread(self._store.refile, new.filings, new.durabilities)
            self._refuse_at_the_end()
            undo.pop_all()
        self._take(new, fd, changed)

    def _take(self, new: Prepared, fd: int, changed: tuple[str, ...]) -> None:
        """Go by a configuration from now on."""
        config = new.config
        is_quieter = logs.LEVELS[config.log_level] > logs.LEVELS[self._config.log_level]
        if not is_quieter:
            logs.configure("main", config.log_level, config.log_format, queued=True)
        was_exposed = exposed(self._config, self._facts.addresses)
        self._config, self.generation = config, new.generation
        log.info("reload %d: taken: %d differences", new.generation, len(changed))
        for one in changed:
            log.info("reload %d: %s", new.generation, one)
        warning = exposed(config, self._facts.addresses)
        if warning and not was_exposed:
            log.warning("reload %d: %s", new.generation, warning)
        if warning := told_of_users(config):
            log.warning("reload %d: %s", new.generation, warning)
        if is_quieter:
            logs.configure("main", config.log_level, config.log_format, queued=True)
        # Before a worker can ask by them.
        self._admission.limit(new.limits, new.book, new.titles)
        self._shared.store.mixed = self._store.mixed
        self._store_watch.limit(config.min_free_space)
        self._workers.following.configure(new.configuration, fd)
        self._workers.resize(config.workers, config.reload_linger)
        self._facts.workers, self._facts.min_free = config.workers, config.min_free_space
        self._facts.rules = taken(config, new.generation)

    async def _see_that_workers_follow(self) -> None:
        for worker in await self._workers.following.laggards(_ANSWER_S):
            log.warning(
                "reload %d: worker %d does not answer for %g s: until it does, its new "
                "associations get the rules from before",
                self.generation, worker.number, _ANSWER_S, extra=logs.fields(worker=worker.number),
            )  # fmt: skip

    def _refused(self, mistakes: tuple[str, ...]) -> Reloaded:
        for one in mistakes[:_MISTAKES_SHOWN]:
            log.error("reload refused: %s", one)
        if len(mistakes) > _MISTAKES_SHOWN:
            log.error(
                "reload refused: %d mistakes more; `fastscp config --check FILE` shows all",
                len(mistakes) - _MISTAKES_SHOWN,
            )  # fmt: skip
        log.error("reload refused: nothing was changed")
        self._facts.rules = msgspec.structs.replace(
            self._facts.rules, refused=mistakes, refused_at=round(time.time(), 3)
        )
        return Reloaded(mistakes=mistakes, generation=self.generation)

    async def _thread(self, work: Callable[..., _T], *arguments: object) -> _T:
        """What a call returns or raises, in a thread; the log says where it takes long."""
        call = in_thread(work, *arguments)
        while not call.done():
            await asyncio.wait([call], timeout=_WAITS_S)
            if not call.done():
                log.warning(
                    "a reload waits for the disk, at %s or where the configuration is: check them",
                    self._store.path,
                )
        return call.result()
