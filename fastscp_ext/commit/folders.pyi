"""What Python's `os` cannot ask of folders."""

__all__ = ["exchange", "mount_of"]

def exchange(one: str, other: str, *, one_dir_fd: int, other_dir_fd: int) -> None:
    """Let two names, each relative to its directory, lead to what the other one leads to, at once.

    Raises OSError; EINVAL where the file system cannot.
    """

def mount_of(fd: int) -> str:
    """What tells the mount that a descriptor is on from others; "" where the kernel does not say.

    Kernels before 6.8 may give the same to a later mount; those before 5.8 say nothing.
    """
