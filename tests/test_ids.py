"""Ids as a model reads them; what is refused is in test_model.py, by every entry in
test_options.py."""

import numpy as np
import pytest

from minillm import InputError
from minillm.ids import checked_ids


@pytest.mark.parametrize("ids", [[0, 6], (0, 6), np.array([0, 6], np.uint8), [[0, 6]]], ids=repr)
def test_ids_become_rows_of_int64(ids):
    rows, single = checked_ids(ids, 7)
    assert rows.dtype == np.int64 and rows.tolist() == [[0, 6]] and single == (np.ndim(ids) == 1)


def test_a_vocabulary_ends_before_its_size():
    with pytest.raises(InputError, match="id 7 is outside the vocabulary of 7"):
        checked_ids([0, 7], 7)
