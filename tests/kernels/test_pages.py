"""Memory that is given back: what is read again is 0, and nothing beside it changes."""

import sys

import numpy as np
import pytest

from minillm.kernels.pages import give_back


@pytest.mark.skipif(sys.platform != "linux", reason="other systems keep it")
def test_what_is_given_back_is_zero_and_nothing_beside_it():
    whole = np.ones(100_000)
    give_back(whole[100:90_000])
    give_back(whole[:20].reshape(4, 5))  # less than a page
    give_back(whole[::2])  # which has others' numbers between its own
    assert (whole[:100] == 1).all() and (whole[90_000:] == 1).all()
    assert (whole[100 + 512 : 90_000 - 512] == 0).all()  # pages have 512 of them
