"""pynetdicom at its best: python pynetdicom_scp.py PORT FOLDER

What its documentation offers to a receiver that is to be fast: the encoded data set is written as
it came, undecoded; no limit to the PDU length; more than the ten associations it serves at a time.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, evt
from pynetdicom.presentation import VerificationPresentationContexts


def store(event: evt.Event, folder: Path) -> int:
    """Write preamble, File Meta Information and the data set of a C-STORE request."""
    name = re.sub(r"[^0-9.]", "_", event.file_meta.MediaStorageSOPInstanceUID)
    (folder / name).write_bytes(event.encoded_dataset())
    return 0x0000


def main() -> None:
    """Serve until a signal ends it."""
    port, folder = int(sys.argv[1]), Path(sys.argv[2])
    ae = AE(ae_title="PYNETDICOM")
    ae.maximum_pdu_size = 0
    ae.maximum_associations = 1000
    for context in AllStoragePresentationContexts:
        ae.add_supported_context(context.abstract_syntax or "", ALL_TRANSFER_SYNTAXES)
    ae.add_supported_context(VerificationPresentationContexts[0].abstract_syntax or "")
    ae.start_server(("127.0.0.1", port), evt_handlers=[(evt.EVT_C_STORE, store, [folder])])


if __name__ == "__main__":
    main()
