"""Each mutant finds the text that it changes: most are built by long tests alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from tests.kept import test_order, test_redo_order, test_replaced
from tests.kept.test_block_device import ANY_EXT4
from tests.kept.test_claims import GIVEN_BACK_EARLY, NO_CLAIM
from tests.kept.test_order import PACKAGES, changed

if TYPE_CHECKING:
    from tests.kept.test_order import Changes

ALL: Final = {
    **test_order.MUTANTS,
    **test_redo_order.MUTANTS,
    **{name: changes for name, (changes, _way) in test_replaced.MUTANTS.items()},
    "any ext4": ANY_EXT4,
    "no claim": NO_CLAIM,
    "claim given back early": GIVEN_BACK_EARLY,
}


@pytest.mark.parametrize("changes", ALL.values(), ids=ALL)
def test_a_mutant_has_the_text_that_it_changes(changes: Changes) -> None:
    for file, text in changed(changes).items():
        assert text != (PACKAGES / file).read_text()
