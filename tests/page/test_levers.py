"""Levers: the same text computed in another way, recorded, and named."""

import numpy as np
import pytest

import minillm
from minillm import InputError
from minillm.page.levers import offered, pulled
from minillm.record import record
from minillm.twins.threads import n_threads

PROMPT = "Once upon a time"


@pytest.fixture(scope="module")
def tales():
    return minillm.load("tales", kernels="numpy")


def recorded(lever, tales, **options):
    model, tokenizer = tales
    load = minillm.load
    with pulled(lever, model, tokenizer, load) as (one, draft, more):
        settings = {"max_new_tokens": 4, "do_sample": False} | options | more
        return record(one, tokenizer, PROMPT, draft=draft, **settings)


def test_exact_levers_give_the_same_text(tales):
    plain = recorded("", tales)
    for lever in ("no-cache", "draft:ngram", "draft:tales-draft", "draft:int8"):
        other = recorded(lever, tales)
        assert other.text == plain.text, lever
        # logits of a check are those of its row: float32 rounds otherwise over several rows
        assert other.header["runs"]["difference"] < 1e-3, lever
        np.testing.assert_array_equal(other.arrays["lens.ids"], plain.arrays["lens.ids"])


def test_a_draft_is_recorded_with_its_own_passes(tales):
    made = recorded("draft:tales-draft", tales, max_new_tokens=12)
    assert made.header["options"]["draft"] == "2 \u00d7 128, float32"
    cycles, kinds = made.header["cycles"], {c["kind"] for c in made.header["cycles"]}
    assert {"prefill", "draft", "verify"} <= kinds
    draft, verify = (next(c for c in cycles if c["kind"] == kind) for kind in ("draft", "verify"))
    sizes = tales[0].config.sizes
    for cycle, width in ((draft, 2 * 128), (verify, sizes.L * sizes.C)):
        assert cycle["kept"] == (cycle["past"] + cycle["positions"]) * 2 * width * 4
    brought = [m["cycle"] for m in made.header["moments"]]
    assert brought == sorted(brought) and all(cycles[n]["kind"] != "draft" for n in brought)


def test_the_fastest_of_several_runs_may_have_a_draft(tales):
    made = recorded("draft:tales-draft", tales, tries=3, do_sample=True, seed=1)
    assert [m["id"] for m in made.header["moments"]] and len(made.header["moments"]) == 4


def test_weights_and_cache_are_said(tales):
    assert recorded("int8", tales).header["model"]["stored"] == "int8"
    small, large = recorded("cache:float16", tales), recorded("", tales)
    assert 2 * small.header["cycles"][-1]["kept"] == large.header["cycles"][-1]["kept"]


def test_a_batch_writes_the_same_text_and_beams_the_likeliest(tales):
    plain, batch, beams = (recorded(lever, tales) for lever in ("", "batch:4", "beams:3"))
    assert batch.text == plain.text and batch.header["cycles"][3]["rows"] == 4
    assert beams.header["options"]["num_beams"] == 3

    def score(made):
        return sum(moment["logprob"] for moment in made.header["moments"])

    # the same text, if no other is likelier, in another order of sums: worst seen 1.4e-6
    assert score(beams) > score(plain) - 1e-4


def test_another_model_is_a_lever_if_it_has_the_same_shapes(tales):
    assert recorded("model:tales", tales).text == recorded("", tales).text
    with pytest.raises(InputError, match="steps of other shapes"):
        recorded("model:tales-draft", tales)


def test_what_is_offered_can_be_pulled(tales):
    model, tokenizer = tales
    before = n_threads(model.ops)
    for lever in offered(model, ("tales-draft",)):
        with pulled(lever, model, tokenizer, minillm.load):
            pass
    assert n_threads(model.ops) == before


REFUSED = [
    "int7",
    "draft:",
    "draft:nobody",
    "threads:x",
    "batch:0",
    "batch:-1",
    "beams:x",
    "model:",
]


@pytest.mark.parametrize("lever", [*REFUSED, "batch:99999", "x" * 10_000])
def test_another_lever_is_refused(tales, lever):
    with pytest.raises(InputError) as refused:
        recorded(lever, tales)
    assert len(str(refused.value)) < 500
