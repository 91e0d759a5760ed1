"""From files to parcels: the command of each instance, and fresh UIDs if there are to be any."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING

from fastscp.scu.commands import C_STORE_RQ, Request
from fastscp.scu.heads import open_decompressed
from fastscp.scu.send.fresh import UidPlace, fresh_uid, uid_places
from fastscp_ext import Parcel

if TYPE_CHECKING:
    from fastscp.scu.send.files import File
    from fastscp.scu.send.group import FileParcel
    from fastscp.scu.send.options import Options

__all__ = ["ParcelMaker"]


class ParcelMaker:
    """Makes the parcels of one run."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._seed = os.urandom(32)
        self._commands: dict[tuple[str, int], tuple[bytes, bytes]] = {}
        self._places: dict[bytes, tuple[UidPlace, ...]] = {}

    def make(self, file: File, context_id: int, round_number: int) -> FileParcel:
        """The parcel of a file for a round. Raises UnusableInstance, OSError under --new-uids."""
        path, head = file
        patches: tuple[tuple[int, bytes], ...] = ()
        if self._options.new_uids:
            command, patches = self._renamed(file, round_number)
        else:
            command = self._command(head.sop_class, head.sop_instance)
        if head.compressed:
            opener = functools.partial(open_decompressed, path, head)
            return Parcel(
                file, path, command, context_id, head.offset, head.size, patches, opener=opener
            )
        return Parcel(file, path, command, context_id, head.offset, head.size, patches, head.mark)

    def _command(self, sop_class: str, sop_instance: str) -> bytes:
        """The command set of an instance; those of a class differ in nothing except their UIDs."""
        key = (sop_class, len(sop_instance))
        around = self._commands.get(key)
        if around is None:
            stand_in = "?" * len(sop_instance)
            options = self._options
            request = Request(
                C_STORE_RQ, sop_class, stand_in, options.priority, options.move_originator
            )
            # The sender puts the message id in.
            before, _, after = request.encode(0).partition(stand_in.encode())
            around = self._commands[key] = (before, after)
        return around[0] + sop_instance.encode("latin-1") + around[1]

    def _renamed(
        self, file: File, round_number: int
    ) -> tuple[bytes, tuple[tuple[int, bytes], ...]]:
        """Command and patches of an instance that nobody has seen before.

        Instances of one series stay in one series, in each round another.
        """
        path, head = file
        places = self._places.get(path)
        if places is None:
            places = uid_places(path, head)
            if self._options.repeat > 1:
                self._places[path] = places
        seed = self._seed + round_number.to_bytes(8)
        fresh = {uid: fresh_uid(uid, seed) for uid in {place.uid for place in places}}
        own = head.sop_instance
        renamed = fresh.get(own) or fresh_uid(own, seed)
        return (
            self._command(head.sop_class, renamed),
            tuple((place.at, fresh[place.uid].encode()) for place in places),
        )
