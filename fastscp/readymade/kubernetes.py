"""`fastscp print kubernetes`: a StatefulSet, its services and its configuration."""

from __future__ import annotations

import json
import math
import shlex
import textwrap
from typing import TYPE_CHECKING

from fastscp.config.admin import read_admin
from fastscp.config.names import BY_NAME
from fastscp.readymade.container import GROUP_ID, STORE, USER_ID, is_healthy
from fastscp.readymade.settings_file import render_given
from fastscp.readymade.source import (
    AFTER_DRAIN_S,
    admin_for_probes,
    comment,
    renamed,
    toml_value,
)

if TYPE_CHECKING:
    from fastscp.config.settings import ServeConfig
    from fastscp.readymade.source import Source

__all__ = ["render"]

_HEAD = """\
fastscp in Kubernetes: its settings, two services, and a StatefulSet of one pod. The image is the
one of `fastscp print dockerfile`. The init container makes the store once, in a volume that is new;
after that --store-must-exist refuses a volume that is not the one.

  fastscp print kubernetes > fastscp.yaml && kubectl apply -f fastscp.yaml

One pod, one store: for more of them copy all of this under another name. An association stays with
the pod that accepted it, and a pod that ends lets its associations go on for --drain-timeout.
"""
_MANIFEST = """\
apiVersion: v1
kind: ConfigMap
metadata:
  name: fastscp
  labels: {{app.kubernetes.io/name: fastscp}}
data:
  fastscp.toml: |
{settings}
---
# What senders reach. With Local the address of the sender arrives, which rules and limits go by.
apiVersion: v1
kind: Service
metadata:
  name: fastscp
  labels: {{app.kubernetes.io/name: fastscp}}
spec:
  type: LoadBalancer
  externalTrafficPolicy: Local
  selector: {{app.kubernetes.io/name: fastscp}}
  ports:
{ports}---
# What names the pod: fastscp-0.fastscp-pods
apiVersion: v1
kind: Service
metadata:
  name: fastscp-pods
  labels: {{app.kubernetes.io/name: fastscp}}
spec:
  clusterIP: None
  selector: {{app.kubernetes.io/name: fastscp}}
  ports:
{ports}---
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: fastscp
  labels: {{app.kubernetes.io/name: fastscp}}
spec:
  serviceName: fastscp-pods
  replicas: 1
  selector:
    matchLabels: {{app.kubernetes.io/name: fastscp}}
  template:
    metadata:
      labels: {{app.kubernetes.io/name: fastscp}}
    spec:
      # Else Kubernetes sets FASTSCP_PORT and its kin for the service above: names of settings.
      enableServiceLinks: false
      # Longer than --drain-timeout and what follows it.
      terminationGracePeriodSeconds: {stop_s}
      automountServiceAccountToken: false
      securityContext:
        runAsNonRoot: true
        runAsUser: {user}
        runAsGroup: {group}
        fsGroup: {group}
        fsGroupChangePolicy: OnRootMismatch
        seccompProfile: {{type: RuntimeDefault}}{sysctls}
      initContainers:
        - name: store
          image: fastscp:latest
          command: ["/bin/sh", "-c", {make}]
          securityContext: &restricted
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: {{drop: [ALL]}}
          volumeMounts:
            - {{name: data, mountPath: /data}}
            - {{name: settings, mountPath: /etc/fastscp, readOnly: true}}
{mount}      containers:
        - name: fastscp
          image: fastscp:latest
          args: {args}
          ports:
{container_ports}          # By the loopback of the pod, where no token is needed.
          startupProbe:
            exec: {{command: {ready}}}
            periodSeconds: 5
            timeoutSeconds: 10
            failureThreshold: 60
          readinessProbe:
            exec: {{command: {ready}}}
            periodSeconds: 5
            timeoutSeconds: 10
          livenessProbe:
            exec: {{command: {healthy}}}
            periodSeconds: 15
            timeoutSeconds: 10
            failureThreshold: 4
          resources:
            requests: {{cpu: "1", memory: 512Mi}}
            limits: {{memory: 4Gi}}
          securityContext: *restricted
          volumeMounts:
            - {{name: data, mountPath: /data}}
            - {{name: settings, mountPath: /etc/fastscp, readOnly: true}}
            - {{name: tmp, mountPath: /tmp}}
{mount}      volumes:
        - name: settings
          configMap: {{name: fastscp}}
        - name: tmp
          emptyDir: {{}}
{secret}  volumeClaimTemplates:
    - metadata:
        name: data
      spec:
        accessModes: [ReadWriteOnce]
        resources: {{requests: {{storage: 500Gi}}}}
"""
_MOUNT = """\
            - {{name: files, mountPath: {folder}, readOnly: true}}
"""
# A group that may read them, and nobody else.
_MOUNTED = """\
        - name: files
          secret: {secretName: fastscp-files, defaultMode: 0440}
"""
_FOLDER = "/etc/fastscp-files"
# What the secret calls the files that a setting names; more of them have a number.
_FILES = {
    "tls_cert": "tls.crt",
    "tls_key": "tls.key",
    "tls_ca": "ca.crt",
    "tls_crl": "ca.crl",
    "user_identity": "users",
    "admin_token_file": "admin-token",
}
_FILES_HEAD = """
The files that the settings name are in a secret, and renewed with it:

  kubectl create secret generic fastscp-files {files}
"""
_OTHER_ADMIN = """
The probes ask {here} for metrics and health, so it is --admin here, and not {given}.
"""
_SYSCTLS = """
        # For port {port} without root.
        sysctls:
          - {{name: net.ipv4.ip_unprivileged_port_start, value: "0"}}"""


def render(source: Source) -> str:
    """The manifests. The settings that were given, and the tables, go into the ConfigMap."""
    config = source.config
    own = ("store", "store_must_exist", "host", "log_file", "workers", "admin", *_FILES)
    files = {field: _in_secret(field, paths) for field, paths in source.files.items()}
    settings = "".join(
        f"{field.replace('_', '-')} = {_setting(config, field, tuple(names))}\n"
        for field, names in files.items()
    )
    settings += render_given(source, *own)
    admin = read_admin(admin_for_probes(source))
    file = ("--config", "/etc/fastscp/fastscp.toml")
    making = shlex.join(source.making(("fastscp",), STORE, *file))
    make = f"test -e {STORE}/.fastscp/store.toml || timeout --preserve-status 10 {making}"
    args = [*file, "--store", STORE, "--store-must-exist", "--admin", str(admin)]
    head = _HEAD
    if files:
        named = [one for names in files.values() for one in names.items()]
        secret = " ".join(shlex.quote(f"--from-file={name}={path}") for name, path in named)
        head += _FILES_HEAD.format(files=secret)
    if config.admin.is_given and config.admin != admin:
        head += _OTHER_ADMIN.format(here=admin, given=config.admin)
    ports = source.ports.items()
    privileged = source.privileged
    return comment(head) + _MANIFEST.format(
        settings=textwrap.indent(settings or "# Nothing differs from the defaults.\n", " " * 4),
        ports="".join(map(_service_port, *zip(*ports, strict=True))),
        container_ports="".join(
            f"            - {{name: {name}, containerPort: {port}}}\n"
            for name, port in (*ports, *([] if admin.is_local else [("metrics", admin.port)]))
        ),
        mount=_MOUNT.format(folder=_FOLDER) if files else "",
        secret=_MOUNTED if files else "",
        stop_s=math.ceil(config.drain_timeout) + AFTER_DRAIN_S,
        user=USER_ID,
        group=GROUP_ID,
        sysctls=_SYSCTLS.format(port=privileged[0]) if privileged else "",
        make=json.dumps(make),
        args=json.dumps(args),
        ready=json.dumps(is_healthy("/readyz", admin)),
        healthy=json.dumps(is_healthy("/healthz", admin)),
    )


def _service_port(name: str, port: int) -> str:
    return f"    - name: {name}\n      port: {port}\n      targetPort: {name}\n"


def _in_secret(field: str, paths: tuple[str, ...]) -> dict[str, str]:
    """The files of a setting, by what the secret calls them: ca.crt, then ca2.crt, and on."""
    stem, dot, suffix = _FILES[field].partition(".")
    return {f"{stem}{n if n > 1 else ''}{dot}{suffix}": one for n, one in enumerate(paths, 1)}


def _setting(config: ServeConfig, field: str, names: tuple[str, ...]) -> str:
    """What names files of the secret, as a TOML file has it."""
    kind = BY_NAME[field.replace("_", "-")].kind
    paths = tuple(f"{_FOLDER}/{name}" for name in names)
    value = getattr(config, field)
    if isinstance(value, tuple):
        return toml_value(kind, paths)
    if isinstance(value, str):
        return toml_value(kind, paths[0])
    return toml_value(kind, renamed(value, paths[0]))
