"""Whether a command set that came to a requestor answers what it asked."""

from collections.abc import Mapping

__all__ = ["judge_response"]

def judge_response(
    command: bytes, context_id: int, outstanding: Mapping[int, tuple[int, int, bool]]
) -> tuple[int, int]:
    """Message id and status of a response, out of its command set.

    context_id: on which it came. outstanding: message id to Command Field and presentation context
    of the request, and whether all of the message is sent. Raises CommandError for what is no
    usable answer to one of them, with a text for people; the association has to end then. That is
    a command set that cannot be read or is no response; a response to nothing, of another service
    or on another context; a status that is absent; a Message ID, Status or Command Data Set Type
    that is not of 2 bytes; and a success or warning before all of the message was sent.
    Source: PS3.7 9.1.1, 9.3.1.2, 9.3.5.2, Annex C.
    """
