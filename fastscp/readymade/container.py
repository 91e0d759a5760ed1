"""`fastscp print dockerfile`: an image for containers, built from a checkout."""

from __future__ import annotations

import json
import math
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fastscp.readymade.source import AFTER_DRAIN_S, comment, open_files

if TYPE_CHECKING:
    from fastscp.config.admin import AdminAddress
    from fastscp.readymade.source import Source

__all__ = ["GROUP_ID", "STORE", "USER_ID", "is_healthy", "render"]

# Of the user in the image, and of the volumes it writes to.
USER_ID: Final = 10104
GROUP_ID: Final = 10104
STORE: Final = "/data/store"

_HEAD = """\
An image of fastscp. Build it in a checkout, and make the store once, in the volume, before the
first start: --store-must-exist refuses an empty one, as that of a volume that is not mounted.

  fastscp print dockerfile > Dockerfile
  docker build -t fastscp .
  docker run --rm -v dicom:/data {mount}--ulimit nofile={files} \\
      --entrypoint timeout fastscp --preserve-status 10 {make}
  docker run -d --name fastscp -v dicom:/data {mount}{published}\\
      --stop-timeout {stop_s} --ulimit nofile={files} fastscp
"""
_IMAGE = """\
ARG BASE=python:3.12-slim-bookworm

FROM ${{BASE}} AS build
RUN command -v cc || (apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev)
COPY . /src
RUN python3 -m venv /opt/fastscp && /opt/fastscp/bin/pip install --no-cache-dir /src

FROM ${{BASE}}
COPY --from=build /opt/fastscp /opt/fastscp
RUN groupadd --gid {group} fastscp \\
    && useradd --uid {user} --gid {group} --home-dir /data --no-create-home fastscp \\
    && install -d -o {user} -g {group} -m 0750 /data
ENV PATH=/opt/fastscp/bin:$PATH PYTHONUNBUFFERED=1
USER {user}:{group}
VOLUME /data
EXPOSE {ports}
STOPSIGNAL SIGTERM
{healthcheck}ENTRYPOINT ["fastscp", "serve"]
CMD {command}
"""


_HEALTHCHECK: Final = """\
HEALTHCHECK --interval=15s --timeout=10s --start-period=60s \\
    CMD {healthy}
"""
_NO_HEALTHCHECK: Final = "# No HEALTHCHECK: --admin {admin} leaves no port that it could ask.\n"


def is_healthy(path: str, admin: AdminAddress) -> list[str]:
    """The command that succeeds where the service answers on this path of its admin port.

    From within: on the loopback of the container, if the port is there. Nobody needs a token for
    what these paths tell by their status.
    """
    fetch = f"import urllib.request as r; r.urlopen('http://{admin.from_here}{path}', timeout=5)"
    return ["python3", "-c", fetch]


def _healthcheck(source: Source) -> str:
    admin = source.config.admin
    if not admin or not admin.port:
        return _NO_HEALTHCHECK.format(admin=admin)
    return _HEALTHCHECK.format(healthy=json.dumps(is_healthy("/healthz", admin)))


def _mounts(source: Source) -> str:
    """The options of docker for what the settings name: files to read, the folder of the log."""
    files = [*([source.loaded.file] if source.loaded.file else []), *source.all_files]
    words = [f"-v {shlex.quote(f'{one}:{one}:ro')} " for one in dict.fromkeys(files)]
    if source.config.log_file:
        logs = Path(source.config.log_file).parent
        words.append(f"-v {shlex.quote(f'{logs}:{logs}')} ")
    if source.folder:
        words.append(f"-w {shlex.quote(source.folder)} ")
    return "".join(words)


def _ports(source: Source) -> list[int]:
    """What others reach: on the loopback of the container nobody reaches the admin port."""
    admin = source.config.admin
    return [*source.ports.values(), *([admin.port] if admin.port and not admin.is_local else [])]


def render(source: Source) -> str:
    """The Dockerfile. The flags are those that were given; a file is to be mounted."""
    config = source.config
    flags = [["--store", STORE], ["--store-must-exist"], *source.flags("store", "store_must_exist")]
    head = _HEAD.format(
        mount=_mounts(source),
        make=shlex.join(source.making(("fastscp",), STORE)),
        published="".join(f"-p {port}:{port} " for port in _ports(source)),
        files=open_files(config),
        stop_s=math.ceil(config.drain_timeout) + AFTER_DRAIN_S,
    )
    if source.files or config.log_file:
        head += (
            f"\nUser {USER_ID} of the image has to be able to read the files that are mounted, and"
            f"\nto write where the log is to go."
        )
    for port in source.privileged[:1]:
        head += f"\nFor port {port} without root: --sysctl net.ipv4.ip_unprivileged_port_start=0"
    image = _IMAGE.format(
        user=USER_ID,
        group=GROUP_ID,
        ports=" ".join(map(str, _ports(source))),
        healthcheck=_healthcheck(source),
        command=json.dumps([word for one in flags for word in one]),
    )
    return comment(head) + "\n" + image
