"""The commit: flush, name, flush the directories, journal, and only then a status of 0000.

A batch is what the committer has gathered, its data flushed. Buffered durability takes the same
steps in the same order without the flushes.

A final name is never unlinked here. What fails before naming costs its part; what fails after
leaves the file, which the sender's next try finds and adopts. A failed flush is never repeated as
if it might succeed: the kernel may have dropped the pages with the error.
"""

__all__ = ["flush_file_system", "nameless_way", "rename_noreplace"]

def flush_file_system(fd: int) -> None:
    """Flush all of the file system that a descriptor is on. Blocks on the disk.

    Raises OSError, also for what could not be written since the descriptor was opened: unlike
    sync(2), which tells nobody.
    """

def nameless_way(folder_fd: int) -> int:
    """How a file without a name gets one in a folder: 0 in no way, 1 by its descriptor, 2 by /proc.

    1 needs Linux 6.10, or CAP_DAC_READ_SEARCH. Leaves a file `f` in the folder, where nothing may
    have that name before. Raises nothing: what does not work is no way. Whether what was flushed of
    such a file is kept, `fastscp.store.nameless` knows.
    """

def rename_noreplace(old: str, new: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
    """Give `old` the name `new` unless something has it; both relative to their directories.

    Raises FileExistsError, or OSError as the system says; EINVAL where the file system cannot.
    """
