"""The fixed tables of rows: transfer syntaxes, statuses and reasons."""

__all__ = ["reason_of", "status_name", "syntax_name"]

def reason_of(error_no: int) -> str | None:
    """What a refusal for this error says, in the Error Comment and as the reason that is counted.

    None: it has no words of its own.
    """

def syntax_name(row: int) -> str | None:
    """The transfer syntax of a row; None for all others, and where there is no such row."""

def status_name(row: int) -> tuple[int | None, str | None]:
    """The status of a row and the reason for it.

    (None, text) for instances that ended without a status, (status, None) for the other reasons
    of that status, (None, None) for all others, and where there is no such row.
    """
