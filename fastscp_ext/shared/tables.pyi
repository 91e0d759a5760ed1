"""The fixed tables of rows: transfer syntaxes, statuses and reasons."""

__all__ = ["status_name", "syntax_name"]

def syntax_name(row: int) -> str | None:
    """The transfer syntax of a row; None for all others, and where there is no such row."""

def status_name(row: int) -> tuple[int | None, str | None]:
    """The status of a row and the reason for it.

    (None, text) for instances that ended without a status, (status, None) for the other reasons
    of that status, (None, None) for all others, and where there is no such row.
    """
