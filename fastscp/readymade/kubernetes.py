"""`fastscp print kubernetes`: a StatefulSet, its services and its configuration."""

from __future__ import annotations

import json
import math
import shlex
import textwrap
from typing import TYPE_CHECKING

from fastscp.readymade.container import GROUP_ID, STORE, USER_ID, is_healthy
from fastscp.readymade.settings_file import render_given
from fastscp.readymade.source import ADMIN_PORT, AFTER_DRAIN_S, comment

if TYPE_CHECKING:
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
{certificates}      containers:
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
{certificates}      volumes:
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
_CERTIFICATES = """\
            - {{name: certificates, mountPath: {folder}, readOnly: true}}
"""
# A group that may read the key, and nobody else.
_MOUNTED = """\
        - name: certificates
          secret: {secretName: fastscp-tls, defaultMode: 0440}
"""
_FOLDER = "/etc/fastscp-tls"
# What names files of TLS, and what the secret calls them.
_FILES = {"tls_cert": "tls.crt", "tls_key": "tls.key", "tls_ca": "ca.crt", "tls_crl": "ca.crl"}
_MAKE_MOUNTED = """
The certificates are in a secret, and renewed with it:

  kubectl create secret generic fastscp-tls {files}
"""
_SYSCTLS = """
        # For port {port} without root.
        sysctls:
          - {{name: net.ipv4.ip_unprivileged_port_start, value: "0"}}"""


def render(source: Source) -> str:
    """The manifests. The settings that were given, and the tables, go into the ConfigMap."""
    config = source.config
    own = ("store", "store_must_exist", "host", "log_file", "workers", "admin", *_FILES)
    files = {field: name for field, name in _FILES.items() if getattr(config, field)}
    settings = "".join(
        f"{field.replace('_', '-')} = {_path(field, name)}\n" for field, name in files.items()
    )
    settings += render_given(source, *own)
    file = ("--config", "/etc/fastscp/fastscp.toml")
    making = shlex.join(source.making(("fastscp",), STORE, *file))
    make = f"test -e {STORE}/.fastscp/store.toml || timeout --preserve-status 10 {making}"
    args = [*file, "--store", STORE, "--store-must-exist", "--admin", f"127.0.0.1:{ADMIN_PORT}"]
    head = _HEAD
    if files:
        secret = " ".join(f"--from-file={to}" for to in files.values())
        head += _MAKE_MOUNTED.format(files=secret)
    ports = source.ports.items()
    privileged = source.privileged
    return comment(head) + _MANIFEST.format(
        settings=textwrap.indent(settings or "# Nothing differs from the defaults.\n", " " * 4),
        ports="".join(map(_service_port, *zip(*ports, strict=True))),
        container_ports="".join(
            f"            - {{name: {name}, containerPort: {port}}}\n" for name, port in ports
        ),
        certificates=_CERTIFICATES.format(folder=_FOLDER) if files else "",
        secret=_MOUNTED if files else "",
        stop_s=math.ceil(config.drain_timeout) + AFTER_DRAIN_S,
        user=USER_ID,
        group=GROUP_ID,
        sysctls=_SYSCTLS.format(port=privileged[0]) if privileged else "",
        make=json.dumps(make),
        args=json.dumps(args),
        ready=json.dumps(is_healthy("/readyz")),
        healthy=json.dumps(is_healthy("/healthz")),
    )


def _service_port(name: str, port: int) -> str:
    return f"    - name: {name}\n      port: {port}\n      targetPort: {name}\n"


def _path(field: str, name: str) -> str:
    """What names a file of the secret, as a TOML file has it."""
    path = f'"{_FOLDER}/{name}"'
    return f"[{path}]" if field in ("tls_ca", "tls_crl") else path
