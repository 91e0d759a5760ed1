"""The commit: flush, name, flush the directories, journal, and only then a status of 0000."""

__all__ = ["rename_noreplace"]

def rename_noreplace(old: str, new: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
    """Give `old` the name `new` unless something has it; both relative to their directories.

    Raises FileExistsError, or OSError as the system says; EINVAL where the file system cannot.
    """
