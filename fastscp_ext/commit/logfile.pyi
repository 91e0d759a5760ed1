"""The files of a redo log, and the batch that is about to be written to one.

Compiled code alone uses it. A log file is `.fastscp/redo/<life>-<number>.log`, 8 MiB. While it is
made its name ends with `.new`; it is zeroed, has its header, and is flushed before it gets the
other name, and that is flushed before it is used. All numbers are little-endian, all checksums
CRC-32C.

Block 0, of 4096 bytes: magic "FSCPREDO"; version, number (4 bytes each); salt, mark of the inode,
bytes of the file (8 each); id of the store (40), boot (48), life (64), mount (48) and file system
(24) as text; checksum of all that. The salt is another one for each use of the file. The mark is
the inode number, with its generation (FS_IOC_GETVERSION, 0 where there is none) put to its upper 32
bits by exclusive or: it tells the file from a copy of it, beside which may be other things than
beside the file.

A batch begins at a multiple of 4096 and is padded to one: magic "FSCPBTCH"; salt, number of the
batch, bytes of its payload (8 each); records, checksum of the payload (4 each); 20 zeros; checksum
of these 60 bytes. The payload follows: records, packed.

A record: kind (1: put, 2: void), 0 (1 byte each), bytes of the path (2) and of the line (4), number
of the journal line (8), bytes and checksum of the file (4 each); path, line, bytes of the file. A
void has no line and no file: the put of that number counts for nothing.
"""

__all__: list[str] = []
