"""`fastscp print systemd-unit`: a unit file for systemd, and a socket for it in a comment."""

from __future__ import annotations

import math
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fastscp.main.listening import DICOM, TLS
from fastscp.readymade.source import AFTER_DRAIN_S, comment, open_files

if TYPE_CHECKING:
    from fastscp.config.settings import ServeConfig
    from fastscp.readymade.source import Source

__all__ = ["render"]

# Where the store is if nobody says otherwise: systemd makes the folder for the user.
_STATE: Final = "/var/lib/fastscp"
_LOGS: Final = "/var/log/fastscp"
# Main names a worker whose loop hangs after 10 s and replaces it after 60 s; this comes later.
_WATCHDOG_S: Final = 120
_HOMES: Final = ("/home", "/root", "/run/user")

_HEAD = """\
Unit file for fastscp. Write it to /etc/systemd/system/fastscp.service.

Before the first start make the user, and the store. Its files outlive the service, and others may
be let in by the group: hence a user with a name, not DynamicUser=.

  useradd --system --home-dir {state} --shell /usr/sbin/nologin fastscp
  install -d -o fastscp -g fastscp -m 0750 {folder}
{logs}  {cd}runuser -u fastscp -- timeout --preserve-status 10 {make}

Then: systemctl daemon-reload && systemctl enable --now fastscp

--store-must-exist keeps the service from filling the folder below a mount that is not there.
"""
_READS = """
The user has to be able to read these files, as by its group:
{}
"""
_UNIT = """\
[Unit]
Description=fastscp, a DICOM storage SCP
Documentation=man:systemd.service(5)
Wants=network-online.target
After=network-online.target
RequiresMountsFor={store}
StartLimitIntervalSec=300
StartLimitBurst=10

[Service]
# From systemd 253 on write Type=notify-reload, and leave ExecReload= out: `systemctl reload` waits
# then until the configuration is taken.
Type=notify
ExecReload=/bin/kill -HUP $MAINPID
# To upgrade, install the new version, then: systemctl kill --kill-whom=main -s USR2 fastscp
# The new process is the main one (MAINPID) before it says anything itself.
NotifyAccess=main
ExecStart={start}
User=fastscp
Group=fastscp
{folder}{folders}UMask=0027
Restart=on-failure
RestartSec=2
# Of a wrong configuration: to try again would not help.
RestartPreventExitStatus=2
TimeoutStartSec=120
# Longer than --drain-timeout and what follows it.
TimeoutStopSec={stop_s}
WatchdogSec={watchdog_s}
# TERM is for the main process: it tells the workers.
KillMode=mixed
LimitNOFILE={files}
# Many large instances in flight must not make the kernel kill what can wait.
OOMPolicy=continue

# What it may do: receive, and write below its store.
{capabilities}NoNewPrivileges=yes
ProtectSystem=strict
{writable}ProtectHome={home}
PrivateTmp=yes
PrivateDevices=yes
DevicePolicy=closed
ProtectHostname=yes
ProtectClock=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectProc=invisible
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RemoveIPC=yes
KeyringMode=private
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
"""
_SOCKET_HEAD = """
With a socket the port stays open while the service restarts, and systemd binds it{why}. Write the
lines below to {files} without their `#`, add
Requires={units} and After={units} to [Unit] above, take --host, --port
and --tls-port out of ExecStart= and of the file of --config, where they are there, for the service
ends with code 2 if it has both, and enable what is new: systemctl enable --now {units}
"""
_SOCKET = """\
[Unit]
Description=fastscp, the port for DICOM{secured}

[Socket]
{listen}FileDescriptorName={name}
Service=fastscp.service
Backlog=1024
NoDelay=yes

[Install]
WantedBy=sockets.target
"""


def render(source: Source) -> str:
    """The unit, with what it needs to be told of the machine."""
    config = source.config
    store = _store(source)
    in_state = store.startswith(_STATE + "/")
    logs = str(Path(config.log_file).parent) if config.log_file else ""
    # systemd makes these itself, and lets the service write there.
    folders = "StateDirectory=fastscp\nStateDirectoryMode=0750\n" * in_state
    folders += "LogsDirectory=fastscp\nLogsDirectoryMode=0750\n" * (logs == _LOGS)
    writable = [store] * (not in_state) + [logs] * (logs not in ("", _LOGS))
    own = [["--store", store], ["--store-must-exist"]]
    flags = own + source.flags("store", "store_must_exist")
    ports = _ports(config)
    low = source.privileged
    making = source.making(source.program, store)
    # The start below has this log, too, and systemd makes no folder for it.
    install = "  test -d {0} || install -d -o fastscp -g fastscp -m 0750 {0}\n"
    head = _HEAD.format(
        state=_STATE,
        folder=_STATE if in_state else shlex.quote(store),
        logs=install.format(shlex.quote(logs)) if logs else "",
        cd=f"cd {shlex.quote(source.folder)} && " if source.folder else "",
        make=shlex.join(making),
    )
    if source.files:
        head += _READS.format("\n".join(f"  {one}" for one in source.all_files))
    unit = _UNIT.format(
        store=_of_unit(store),
        start=_command(source, flags),
        folder=f"WorkingDirectory={_of_unit(source.folder)}\n" if source.folder else "",
        folders=folders,
        stop_s=math.ceil(config.drain_timeout) + AFTER_DRAIN_S,
        watchdog_s=_WATCHDOG_S,
        files=open_files(config),
        capabilities=_capabilities(low) if low else "CapabilityBoundingSet=\n",
        writable="".join(f"ReadWritePaths={_of_unit(one)}\n" for one in writable),
        home="read-only" if _is_at_home(source, [store, *writable]) else "yes",
    )
    units = {name: f"fastscp{'-tls' * (name == TLS)}.socket" for name in ports}
    sockets = _SOCKET_HEAD.format(
        why=" as root" if low else "", units=" ".join(units.values()),
        files=" and ".join(f"/etc/systemd/system/{unit}" for unit in units.values()),
    )  # fmt: skip
    for name, port in ports.items():
        secured = " with TLS" * (name == TLS)
        sockets += "\n" + _SOCKET.format(listen=_listen(config, port), name=name, secured=secured)
    return comment(head) + "\n" + unit + "\n" + comment(sockets)


def _ports(config: ServeConfig) -> dict[str, int]:
    """Those that peers come to, by what the sockets are called."""
    ports = {} if config.no_plain else {DICOM: config.port}
    return ports | ({TLS: config.tls_port} if config.tls_cert else {})


def _store(source: Source) -> str:
    if source.is_default("store"):
        return f"{_STATE}/store"
    return str(source.config.store.absolute())


def _capabilities(low: tuple[int, ...]) -> str:
    return (
        f"# For port {' and '.join(map(str, low))}, and nothing else.\n"
        "AmbientCapabilities=CAP_NET_BIND_SERVICE\nCapabilityBoundingSet=CAP_NET_BIND_SERVICE\n"
    )


def _is_at_home(source: Source, writable: list[str]) -> bool:
    paths = [*source.program[:1], *writable, source.loaded.file, *source.all_files, source.folder]
    return any(one == home or one.startswith(home + "/") for one in paths for home in _HOMES)


def _command(source: Source, flags: list[list[str]]) -> str:
    """A command line as ExecStart= takes it, a flag in each line."""
    words = [" ".join(map(_of_unit, (*source.program, "serve")))]
    words += [" ".join(map(_of_unit, one)) for one in flags]
    return " \\\n    ".join(words)


def _of_unit(word: str) -> str:
    """A word as a unit file has it. Source: systemd.syntax(7), systemd.service(5)."""
    text = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return text if re.fullmatch(r"[^\s'\";]+", text) else f'"{text}"'


def _listen(config: ServeConfig, port: int) -> str:
    addresses = [f"[{one}]" if ":" in one else one for one in config.host]
    return "".join(f"ListenStream={one}:{port}\n" for one in addresses)
