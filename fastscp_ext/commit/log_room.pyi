"""Room in the files of a worker's redo log.

A log file is free, then written to, then sealed; a checkpoint has it free again. There is room for
an instance where one may be written to and no more descriptors are kept than there may be. The lane
waits a moment for room that a checkpoint is about to give, before it takes anything in hand.
"""

__all__: list[str] = []
