"""`fastscp print kubernetes`: a StatefulSet, its services and its configuration."""

from __future__ import annotations

import json
import math
import shlex
import textwrap
from typing import TYPE_CHECKING

from fastscp.readymade.container import GROUP_ID, STORE, USER_ID, is_healthy
from fastscp.readymade.settings_file import render_given
from fastscp.readymade.source import PRIVILEGED, comment

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
    - name: dicom
      port: {port}
      targetPort: dicom
---
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
    - name: dicom
      port: {port}
      targetPort: dicom
---
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
      containers:
        - name: fastscp
          image: fastscp:latest
          args: {args}
          ports:
            - {{name: dicom, containerPort: {port}}}
          # By the loopback of the pod, where no token is needed.
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
      volumes:
        - name: settings
          configMap: {{name: fastscp}}
        - name: tmp
          emptyDir: {{}}
  volumeClaimTemplates:
    - metadata:
        name: data
      spec:
        accessModes: [ReadWriteOnce]
        resources: {{requests: {{storage: 500Gi}}}}
"""
_SYSCTLS = """
        # For port {port} without root.
        sysctls:
          - {{name: net.ipv4.ip_unprivileged_port_start, value: "0"}}"""


def render(source: Source) -> str:
    """The manifests. The settings that were given, and the tables, go into the ConfigMap."""
    config = source.config
    settings = render_given(source, "store", "store_must_exist", "host", "log_file", "workers")
    file = ("--config", "/etc/fastscp/fastscp.toml")
    making = shlex.join(source.making(("fastscp",), STORE, *file))
    make = f"test -e {STORE}/.fastscp/store.toml || timeout --preserve-status 10 {making}"
    args = [*file, "--store", STORE, "--store-must-exist"]
    is_low = 0 < config.port < PRIVILEGED
    return comment(_HEAD) + _MANIFEST.format(
        settings=textwrap.indent(settings or "# Nothing differs from the defaults.\n", " " * 4),
        port=config.port,
        stop_s=math.ceil(config.drain_timeout) + 30,
        user=USER_ID,
        group=GROUP_ID,
        sysctls=_SYSCTLS.format(port=config.port) if is_low else "",
        make=json.dumps(make),
        args=json.dumps(args),
        ready=json.dumps(is_healthy("/readyz")),
        healthy=json.dumps(is_healthy("/healthz")),
    )
