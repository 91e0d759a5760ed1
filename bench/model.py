"""What a larger machine would need: arithmetic from measured costs. A model, not a measurement."""

from __future__ import annotations

from dataclasses import dataclass

# Bytes of data sets per second: what Ethernet, IP and TCP heads leave at an MTU of 1,500, less the
# heads of PDUs.
LINKS = {f"{gigabits} GbE": gigabits * 1e9 / 8 * 0.94 for gigabits in (10, 25, 100)}


@dataclass(frozen=True, slots=True)
class Host:
    """What a machine has. cycle_s: of one group of flushes; outstanding: instances in flight."""

    cores: int = 16
    disk_bytes_per_s: float = 3e9
    cycle_s: float = 0.002
    outstanding: int = 256


@dataclass(frozen=True, slots=True)
class Need:
    """What an instance of one kind costs. size: bytes; cpu_us: of all the receiver's processes."""

    size: float
    cpu_us: float

    def instances_per_s(self, link: float) -> float:
        """Instances that fill a link."""
        return link / self.size

    def cores(self, link: float) -> float:
        """Cores busy with them."""
        return self.instances_per_s(link) * self.cpu_us / 1e6

    def outstanding(self, link: float, cycle_s: float) -> float:
        """Instances that have to be in flight while a group is flushed."""
        return self.instances_per_s(link) * cycle_s

    def limits(self, link: float, host: Host, *, flushed: bool) -> dict[str, float]:
        """Instances per second each part of a machine allows."""
        limits = {
            "network": self.instances_per_s(link),
            "cores": host.cores / (self.cpu_us / 1e6),
            "disk": host.disk_bytes_per_s / self.size,
        }
        if flushed:
            limits["flushes"] = host.outstanding / host.cycle_s
        return limits

    def binds_first(self, link: float, host: Host, *, flushed: bool) -> tuple[str, float]:
        """The part that allows least, and what it allows."""
        limits = self.limits(link, host, flushed=flushed)
        least = min(limits, key=limits.__getitem__)
        return least, limits[least]
