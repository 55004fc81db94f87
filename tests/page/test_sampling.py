"""The handles of the page: what temperature and filters make of ten recorded candidates is what the
decoder makes of all words, or lies within the bounds that the page gives.
"""

from __future__ import annotations

import itertools
import json
import subprocess

import numpy as np
import pytest

from minillm.decoding.options import Options
from minillm.ops import softmax
from minillm.page.static import FILES
from tests.page.test_model_js import node

V, K = 500, 10
SETTINGS = [
    {"temperature": t, "top_k": k, "top_p": p, "min_p": m}
    for t, k, p, m in itertools.product(
        (0, 0.3, 0.8, 1, 1.5, 2), (0, 1, 4, 10, 30), (0.1, 0.5, 0.9, 1), (0, 0.02, 0.3)
    )
]
SCRIPT = """
import {readFileSync} from "node:fs";
const {reshaped} = await import(process.argv[2]);
const {all, V, settings} = JSON.parse(readFileSync(0, "utf-8"));
process.stdout.write(JSON.stringify(settings.map((how) => reshaped(all, V, how))));
"""


@pytest.mark.parametrize("spread", [0.5, 2, 6])
def test_shares_are_the_decoders_or_within_their_bounds(tmp_path, spread):
    logits = (spread * np.random.default_rng(3).standard_normal(V)).astype(np.float32)
    best, before = np.argsort(-logits)[:K], softmax(logits)
    listed = [{"logit": float(logits[i]), "before": float(before[i])} for i in best]
    (tmp_path / "shares.mjs").write_text(SCRIPT)
    done = subprocess.run(
        [node(), tmp_path / "shares.mjs", (FILES / "sampling.js").as_uri()],
        input=json.dumps({"all": listed, "V": V, "settings": SETTINGS}),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    known = 0
    for how, found in zip(SETTINGS, json.loads(done.stdout)):
        options = Options(**(how if how["temperature"] else {"temperature": 0}))
        wanted = options.distribution(logits, []) if how["temperature"] else np.eye(V)[best[0]]
        least, most = np.array(found["after"]).T
        # float32 in the decoder, float64 in the page: 3e-6 is the worst case seen
        assert np.all(least - 1e-5 <= wanted[best]) and np.all(wanted[best] <= most + 1e-5), how
        if found["kept"] is not None:
            assert found["kept"] == np.count_nonzero(wanted), how
            np.testing.assert_allclose(least, most, atol=1e-12)
            known += 1
        if how["top_k"] in range(1, K + 1):
            assert found["kept"] is not None, how
    assert known > len(SETTINGS) / 3
