"""A changed configuration on its way into a service that runs: whole, or not at all.

Theory of operation: everything that may fail comes first, in threads: reading, checking, looking
up, and last of all what the store has to remember. Then main takes the new limits, tells each
worker of the new generation of rules, and hears from each that it goes by them. Associations keep
the rules that they began with, and a worker that starts meanwhile begins with the newest. Limits of
a generation are known until no worker asks by it any more.

What the store remembers is taken, also where the service begins to end meanwhile: the log never
says that nothing was changed where the store was. The service does not leave its store before the
reload in hand is taken or refused.

One reload goes at a time. Whoever asks for one meanwhile gets the next, which all of them share.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from fastscp import log as logs
from fastscp.config.changes import changes
from fastscp.config.contradictions import log_in_store
from fastscp.config.settings import TLS_FIELDS
from fastscp.errors import ConfigError, FastscpError, reason_for
from fastscp.log.text import cut, escape
from fastscp.main.control import taken
from fastscp.main.expiry import expiring
from fastscp.main.exposure import exposed, overheard, told_of_files
from fastscp.main.loss import told_of_loss
from fastscp.main.notify import Notify
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
    from fastscp.tls.material import Material
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
    "tls_port",
    "no_plain",
    "admin",
    "admin_token_file",
    "store",
    "store_must_exist",
    "store_new_life",
    "layout_change",
    "redo",
    "log_instance_size",
    "umask",
    "discard",
    "fault",
)
# The same where it began without TLS, or has it and is to have none: nobody can listen later.
_OF_TLS: Final = (*TLS_FIELDS, "tls")
# How long workers may take to go by new rules before the log names those that do not.
_ANSWER_S: Final = 5.0
# After so long the log says that a reload waits for the disk.
_WAITS_S: Final = 10.0
# Before a part of the service that failed to take a configuration is told again.
_AGAIN_S: Final = 1.0
_AT_THE_END: Final = "the service is shutting down"
# What it may wait for, and what to do.
_ITS_FILE: Final = "{}, or a file that this names: check where they are"
_WHAT_IT_NAMES: Final = "what the settings name to be looked up: check where fastscp is installed"
# A file may hold as many mistakes as it has lines, each as long as a line. So many are told of, and
# so many characters of each; every status has them until the next reload.
_MISTAKES_SHOWN: Final = 20
_MISTAKE_MOST: Final = 1000


def _try_log_file(config: ServeConfig) -> None:
    """Raises ConfigError where a log cannot go there. Blocks on the disk."""
    if why := log_in_store(config):
        raise ConfigError("--log-file", why)
    try:
        os.close(logs.open_log_file(config.log_file))
    except logs.LogFileError as error:
        why = str(error.strerror)
        # The file that the log goes on in may be gone from its folder, and nobody reads it there.
        logs.beside(f"--log-file: {why}; then reload")
        raise ConfigError("--log-file", why) from None


class Reloads:
    """Who wants the configuration read anew: one reload at a time.

    background(work): lets a coroutine run beside the others. reopen(): has all processes open the
    file of their log anew, whatever comes of the reload. notify: is told of each. Until `begin`, a
    signal waits.
    """

    def __init__(
        self,
        background: Callable[[Coroutine[object, object, None]], None],
        reopen: Callable[[], None] = lambda: None,
        notify: Notify | None = None,
    ) -> None:
        self._background = background
        self._reopen = reopen
        self._notify = notify or Notify()
        self._loop = asyncio.get_running_loop()
        self._reloader: Reloader | None = None
        # Whether a signal came while the service started.
        self._is_wanted = False
        self._next: asyncio.Future[Reloaded] | None = None
        # Set while there is no reload.
        self._idle = asyncio.Event()
        self._idle.set()
        self._task: asyncio.Task[Any] | None = None

    def begin(self, reloader: Reloader) -> None:
        """The start is through."""
        self._reloader = reloader
        if self._is_wanted:
            self._ask(reloader)

    @property
    def is_under_way(self) -> bool:
        return not self._idle.is_set()

    def hung_up(self) -> None:
        """HUP came; a start goes through with the configuration that it began with."""
        self._reopen()
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
        self._reopen()
        if self._reloader is None:
            return Reloaded(mistakes=("the start is not through yet: try again then",))
        # Others may wait for the same one.
        return await asyncio.shield(self._ask(self._reloader))

    def _ask(self, reloader: Reloader) -> asyncio.Future[Reloaded]:
        """A reload, behind one that is under way; all who ask meanwhile share it."""
        if self._next is None:
            self._next = self._loop.create_future()
        asked = self._next
        if self._idle.is_set():
            self._idle.clear()
            self._background(self._run(reloader))
        return asked

    async def end(self, seconds: float) -> bool:
        """See the reload in hand through; whether it is. The service is shutting down by now.

        What only reads is given up at once. What is being noted in the store goes on; where it
        takes longer than so many seconds, it is left to its thread, and nobody takes it.
        """
        if self._reloader is not None:
            self._reloader.give_up()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        is_through = self._idle.is_set()
        if not is_through and self._task is not None:
            self._task.cancel()
        return is_through

    async def _run(self, reloader: Reloader) -> None:
        self._task = asyncio.current_task()
        while self._next is not None:
            asked, self._next = self._next, None
            self._notify.reloading()
            try:
                done = await reloader.reload()
            except Exception:
                log.exception("a reload failed, which is a bug: see which of the changes hold")
                done = Reloaded(mistakes=("a bug: see the log",), generation=reloader.generation)
            # Also where it is refused: the service goes on as before, and says so elsewhere.
            self._notify.ready()
            if not asked.done():
                asked.set_result(done)
        self._idle.set()


def _refuse_out_of_date(before: Material | None, new: Material | None) -> None:
    """Refuse a new certificate or list that nobody could be served with; what is there goes on.

    Raises ConfigError.
    """
    if before is None or new is None:
        return
    now = time.time()
    for what, _level, text in expiring(new, now):
        if what == "certificate" and new.chain != before.chain:
            is_valid = new.begins <= now < new.expires
        elif what == "lists" and new.crl != before.crl:
            is_valid = now < new.crl_expires
        else:
            continue
        if is_valid:
            continue
        if what == "certificate":
            raise ConfigError("--tls-cert", f"{text}; until then the one from before is shown")
        why = (
            f"{escape(new.crl_file) or 'a list'} is out of date: get it anew, then "
            f"`fastscp reload`; until then the lists from before are in force"
        )
        raise ConfigError("--tls-crl", why)


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
        self._loop = asyncio.get_running_loop()
        # What it is at, in words for the log.
        self._waits_for = ""
        # Memory with a configuration that the workers are not told of yet; -1: they are.
        self._untaken_fd = -1
        # Done as soon as nobody waits any more for what only reads.
        self._given_up: asyncio.Future[None] = self._loop.create_future()

    @property
    def config(self) -> ServeConfig:
        """The configuration in force."""
        return self._config

    @property
    def is_over(self) -> bool:
        """Whether the service is shutting down."""
        return self._workers.stopping

    def give_up(self) -> None:
        """Wait no more for what only reads, and tell no part of the service again."""
        if not self._given_up.done():
            self._given_up.set_result(None)

    async def reload(self) -> Reloaded:
        """Take what is different, or nothing."""
        try:
            self._refuse_at_the_end()
            if self._facts.upgrading:
                raise FastscpError(self._facts.upgrading)
            self._waits_for = _ITS_FILE.format(self._facts.rules.file or "its settings")
            new = await self._thread(self._load)
            found = await self._thread(lambda: list(changes(self._config, new)))
            later: tuple[str, ...] = AFTER_A_RESTART
            if (new.tls is None) != (self._config.tls is None):
                later += _OF_TLS
            waits = tuple(text for name, text in found if name in later)
            changed = tuple(text for name, text in found if name not in later)
            kept: dict[str, Any] = {name: getattr(self._config, name) for name in later}
            new = replace(new, **kept)
            # All processes open it anew now, also where nothing is different.
            if new.log_file:
                self._waits_for = f"{new.log_file}: check the disk"
                await self._thread(_try_log_file, new)
            if changed:
                _refuse_out_of_date(self._config.tls, new.tls)
                await self._check_and_take(new, changed)
            else:
                log.info("reload: nothing is different that can be taken")
        except ConfigError as error:
            return self._refused(error.mistakes)
        except FastscpError as error:
            return self._refused((str(error),))
        except OSError as error:
            return self._refused((f"no means for it ({reason_for(error)}); try again",))
        self._facts.rules = msgspec.structs.replace(
            self._facts.rules, waits=waits, refused=(), refused_at=0.0
        )
        for one in waits:
            log.warning("reload: %s waits for a restart of the service", one)
        if changed:
            await self._see_that_workers_follow()
        return Reloaded(changed=changed, waits=waits, generation=self.generation)

    def _refuse_at_the_end(self) -> None:
        if self.is_over:
            raise FastscpError(_AT_THE_END)

    async def _check_and_take(self, config: ServeConfig, changed: tuple[str, ...]) -> None:
        """All that may fail, then all at once. Raises FastscpError, OSError: nothing changed.

        The last that may fail is noted on the disk. Once it is, the configuration is taken, though
        the service may be shutting down by then.
        """
        retired, redo_files = self._workers.retired, self._workers.redo.files
        self._waits_for = _WHAT_IT_NAMES
        new = await self._thread(prepare, config, self.generation + 1, retired, redo_files)
        with contextlib.ExitStack() as undo:
            # Revocation lists and all: as long as a copy of them takes. Where the service ends
            # meanwhile, the memory goes with it.
            fd = await self._thread(pack, new.configuration)
            undo.callback(os.close, fd)
            self._refuse_at_the_end()
            self._waits_for = f"the disk of {self._store.path}: check it"
            await self._noted(in_thread(self._store.refile, new.filings, new.durabilities))
            undo.pop_all()
        self._take(new, fd, changed)

    def _take(self, new: Prepared, fd: int, changed: tuple[str, ...]) -> None:
        """Go by a configuration from now on. Raises nothing: see `_go_on`."""
        before, config = self._config, new.config
        self._config, self.generation = config, new.generation
        if self._untaken_fd >= 0:
            # Of the one before, which the workers were never told of.
            os.close(self._untaken_fd)
        self._untaken_fd = fd
        is_quieter = logs.LEVELS[config.log_level] > logs.LEVELS[before.log_level]
        speak = partial(
            logs.configure, "main", config.log_level, config.log_format, queued=True,
            file=config.log_file,
        )  # fmt: skip
        tell = partial(self._tell, before, new, changed)
        self._go_on(new.generation, [
            *((tell, speak) if is_quieter else (speak, tell)),
            # Before a worker can ask by them.
            partial(self._admission.limit, new.limits, new.book, new.titles),
            partial(setattr, self._shared.store, "mixed", self._store.mixed),
            partial(self._store_watch.limit, config.min_free_space),
            partial(self._configure, new, fd),
            partial(self._workers.resize, config.workers, config.reload_linger),
            partial(self._note, new),
        ])  # fmt: skip

    def _go_on(
        self, generation: int, steps: list[Callable[[], object]], *, failed: int = 0
    ) -> None:
        """Have the parts of the service take a configuration, in this order.

        A step that fails is tried again until it is through, or a newer configuration is taken, and
        those behind it wait for it: no worker goes by rules whose limits main does not know. Each
        step can be taken twice. failed: how many tries at the first of them have failed.
        """
        if failed and (generation != self.generation or self._given_up.done()):
            return
        while steps:
            try:
                steps[0]()
            except Exception:
                if not failed:
                    log.exception(
                        "reload %d: a part of the service failed to take it, which is a bug: it "
                        "and those behind it go on as before; tried again every %g s",
                        generation, _AGAIN_S,
                    )  # fmt: skip
                again = partial(self._go_on, generation, steps, failed=failed + 1)
                self._loop.call_later(_AGAIN_S, again)
                return
            if failed:
                log.error("reload %d: the part that failed has taken it now", generation)
            del steps[0]
            failed = 0

    def _configure(self, new: Prepared, fd: int) -> None:
        """Let the workers know. The memory is theirs from here on."""
        self._workers.following.configure(new.configuration, fd)
        self._untaken_fd = -1

    def _note(self, new: Prepared) -> None:
        """Let the status tell of it."""
        config = new.config
        self._facts.workers, self._facts.min_free = config.workers, config.min_free_space
        self._facts.tls = config.tls
        before = self._facts.rules
        rules = taken(config, new.generation, before.file)
        self._facts.rules = msgspec.structs.replace(rules, waits=before.waits)

    def _tell(self, before: ServeConfig, new: Prepared, changed: tuple[str, ...]) -> None:
        """Let the log tell what is different, and what an operator may not expect of it."""
        config = new.config
        said = logs.counted(len(changed), "difference")
        # Whoever wants to know of trouble alone looks for what changed before it, too.
        log.warning("reload %d: taken: %s", new.generation, said)
        for one in changed:
            log.warning("reload %d: %s", new.generation, one)
        if self.is_over:
            log.warning(
                "reload %d: the service is shutting down: this is for what there still is, and for "
                "the next start", new.generation,
            )  # fmt: skip
        facts = self._facts
        warnings = [*told_of_files(config), told_of_loss(config, before)]
        for look in (
            partial(exposed, addresses=facts.addresses, tls_addresses=facts.tls_addresses),
            partial(overheard, addresses=facts.addresses),
        ):
            if not look(before):
                warnings.insert(0, look(config))
        for warning in filter(None, warnings):
            log.warning("reload %d: %s", new.generation, warning)
        facts.expiry.look(config.tls)

    async def _see_that_workers_follow(self) -> None:
        for worker in await self._workers.following.laggards(_ANSWER_S):
            log.warning(
                "reload %d: worker %d does not answer for %g s: until it does, its new "
                "associations get the rules from before",
                self.generation, worker.number, _ANSWER_S, extra=logs.fields(worker=worker.number),
            )  # fmt: skip

    def _refused(self, mistakes: tuple[str, ...]) -> Reloaded:
        more = max(0, len(mistakes) - _MISTAKES_SHOWN)
        mistakes = tuple(cut(one, _MISTAKE_MOST) for one in mistakes[:_MISTAKES_SHOWN])
        for one in mistakes:
            log.error("reload refused: %s", one)
        if more:
            log.error(
                "reload refused: and %s; `fastscp config --check FILE` shows all",
                logs.counted(more, "more mistake"),
            )  # fmt: skip
        log.error("reload refused: nothing was changed")
        self._facts.rules = msgspec.structs.replace(
            self._facts.rules,
            refused=mistakes, refused_more=more, refused_at=round(time.time(), 3),
        )  # fmt: skip
        return Reloaded(mistakes=mistakes, mistakes_more=more, generation=self.generation)

    async def _thread(self, work: Callable[..., _T], *arguments: object) -> _T:
        """What a call that only reads returns or raises, in a thread.

        Raises FastscpError where the service ends before it is through.
        """
        call = in_thread(work, *arguments)
        await self._waited_for(call, self._given_up)
        if not call.done():
            call.cancel()
            raise FastscpError(_AT_THE_END)
        return call.result()

    async def _noted(self, call: asyncio.Future[_T]) -> _T:
        """What a call that notes something on the disk returns or raises."""
        await self._waited_for(call)
        return call.result()

    async def _waited_for(self, *calls: asyncio.Future[Any]) -> None:
        """Wait for the first of these; the log says where it takes long."""
        while not any(call.done() for call in calls):
            done, _ = await asyncio.wait(
                calls, timeout=_WAITS_S, return_when=asyncio.FIRST_COMPLETED
            )
            if not done:
                log.warning("a reload waits for %s", self._waits_for)
