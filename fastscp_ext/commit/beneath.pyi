"""Files and directories below a descriptor, reached without a symbolic link on the way.

Whoever may write below a store could otherwise lead what is stored, compared or read out of it. The
system looks after all of a path in one call (openat2). Where it does not have that call, or a
filter of system calls refuses it, the way is walked a name at a time, each opened as no link.
"""

__all__ = ["open_beneath"]

def open_beneath(path: str, flags: int, mode: int = 0, *, dir_fd: int) -> int:
    """Open what is called `path` below a directory; the descriptor is the caller's.

    path: names joined by "/". No name, the last one included, may be a symbolic link. flags, mode:
    as of os.open; the descriptor is never inherited. A FIFO, a device or a socket is opened like
    anything else: pass O_NONBLOCK, and ask what was opened.
    Raises OSError: ELOOP for a symbolic link, EXDEV for a way out, else as the system says.
    """
