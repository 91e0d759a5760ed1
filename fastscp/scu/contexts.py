"""Presentation contexts: what was proposed, and what the peer made of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fastscp.scu.errors import ContextRefused

if TYPE_CHECKING:
    from collections.abc import Collection

    from fastscp_ext import AssociateAC, AssociateRQ

__all__ = ["MAX_CONTEXTS", "Context", "answered", "context_for"]

# Their ids are the odd numbers of a byte (PS3.8 9.3.2.2).
MAX_CONTEXTS: Final = 128


@dataclass(frozen=True, slots=True)
class Context:
    """A presentation context as the peer answered it. result: 0 is accepted.

    transfer_syntaxes: as proposed; of an accepted one, `transfer_syntax` is the peer's choice.

    >>> async with associate("pacs", 104, [("CTImageStorage", ["ExplicitVRLittleEndian"])]) as pacs:
    ...     for context in pacs.contexts.values():
    ...         print(context.id, context.abstract_syntax, context.transfer_syntax)
    1 1.2.840.10008.5.1.4.1.1.2 1.2.840.10008.1.2.1

    Source: PS3.8 9.3.3.2.
    """

    id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]
    result: int
    transfer_syntax: str


def answered(request: AssociateRQ, answer: AssociateAC) -> list[Context]:
    """The proposed contexts with their results; one that was not answered counts as refused."""
    results = {one.id: one for one in reversed(answer.presentation_contexts)}
    contexts = []
    for proposed in request.presentation_contexts:
        found = results.get(proposed.id)
        result = 2 if found is None else found.result
        syntax = found.transfer_syntax if found is not None and result == 0 else ""
        if result == 0 and syntax not in proposed.transfer_syntaxes:
            # Accepted in a transfer syntax that nobody proposed: of no use.
            result, syntax = 4, ""
        contexts.append(
            Context(
                proposed.id, proposed.abstract_syntax, proposed.transfer_syntaxes, result, syntax
            )
        )
    return contexts


def context_for(
    accepted: Collection[Context],
    refused: Collection[Context],
    abstract_syntax: str,
    transfer_syntax: str | None,
) -> int:
    """The id of an accepted context for these; for any transfer syntax if it is None.

    Raises ContextRefused with what the peer made of such a context.
    """
    for context in accepted:
        if context.abstract_syntax == abstract_syntax and (
            transfer_syntax in (None, context.transfer_syntax)
        ):
            return context.id
    proposed = [
        context.result
        for context in (*refused, *accepted)
        if context.abstract_syntax == abstract_syntax
        and (transfer_syntax is None or transfer_syntax in context.transfer_syntaxes)
    ]
    # A context that was accepted with another transfer syntax refuses this one.
    result = (proposed[0] or 4) if proposed else None
    raise ContextRefused(abstract_syntax, transfer_syntax or "", result)
