"""A folder of text for runs of seconds."""

import numpy as np
import pytest


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """40 documents of 60 words each in one file."""
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(1)
    words = (
        "the",
        "old",
        "king",
        "and",
        "a",
        "young",
        "wolf",
        "saw",
        "one",
        "fox",
        "in",
        "wood",
        "who",
        "was",
        "proud",
    )
    (folder / "tales.txt").write_text(
        "<|endoftext|>\n".join(" ".join(rng.choice(words, 60)) + ".\n" for _ in range(40))
    )
    return folder
