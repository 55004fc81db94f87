"""A datasheet from limits that are made up, so that what must come out is known; its pages."""

import json
import math
from dataclasses import replace

import pytest

from minillm import GPT2Config, InputError, LlamaConfig
from minillm.bench.datasheet import (
    FIRST,
    PEERS,
    TOKEN,
    Datasheet,
    by_limits,
    described,
    nodes,
    weight_bytes,
)
from minillm.bench.datasheet_report import DatasheetReport, plain
from minillm.bench.predictions import Point
from minillm.checkpoints.opening import config_of, save_checkpoint
from minillm.clock import Limits, machines
from minillm.clock.machines import Constants, Machine
from minillm.clock.verdict import duration, rate_of
from minillm.families.llama.qwen import Qwen2Config, Qwen3Config
from minillm.model import Model
from minillm.weights import KINDS, store_parameters

GPT2_124M = GPT2Config()
SMALL = {"num_hidden_layers": 2, "vocab_size": 300, "hidden_size": 64, "head_dim": 16}
SMALL |= {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 96}
SHAPES = {
    "gpt2": GPT2Config(vocab_size=300, n_positions=64, n_embd=32, n_layer=3, n_head=2),
    "untied": GPT2Config(300, 64, 32, 3, 2, tie_word_embeddings=False),
    "llama": LlamaConfig(**SMALL),
    "qwen2": Qwen2Config(**SMALL, tie_word_embeddings=False),
    "qwen3": Qwen3Config(**SMALL),
}


def machine(bandwidth=1e10, rate=math.inf, fitted=None, threads=(1, 2)) -> Machine:
    """As many threads, as fast a memory."""
    rates = dict.fromkeys(KINDS, rate)
    limits = tuple(
        Limits({"cores": 2}, n, {2**26: n * bandwidth}, rates, rates, 1e18, 0.0, 0.0, 0.0)
        for n in threads
    )
    return Machine("Made up", "measured here", True, 10**9, limits, fitted or {})


def test_a_token_reads_the_weights_and_a_prompt_computes():
    found = by_limits(GPT2_124M, machine().limits_of(1), "float32", TOKEN, 32)
    assert found.seconds == pytest.approx(124.4e6 * 4 / 1e10, rel=0.02)
    assert found.binds == "reading"
    limits = machine(bandwidth=1e15, rate=1e11).limits_of(1)
    found = by_limits(GPT2_124M, limits, "float32", FIRST, 512)
    blocks = 12 * 2 * (12 * 512 * 768**2 + 2 * 512**2 * 768)
    assert found.seconds == pytest.approx((blocks + 2 * 768 * 50257) / 1e11, rel=0.01)
    assert found.binds == "arithmetic"


def test_a_cache_of_fewer_bits_is_read_faster():
    times = [
        by_limits(GPT2_124M, machine().limits_of(1), "int4", TOKEN, 1024, 1, c) for c in (4, 2)
    ]
    saved = 12 * 768 * 2 * 2 * 1024 / 1e10
    assert times[0].seconds - times[1].seconds == pytest.approx(saved, rel=0.01)


def test_what_a_step_takes_by_itself_is_added_to_our_own_engine_alone():
    by_engine = {
        (engine, "int8", TOKEN): Constants(2.0, 2.0, 0.0) for engine in ("minillm", "llama.cpp")
    }
    for fitted in ({}, by_engine):
        plain = machine(fitted=fitted)
        slow = replace(plain, limits=tuple(replace(n, step=1e-3) for n in plain.limits))
        for engine, n, more in (("minillm", 8, 1e-3), ("minillm", 600, 0.0), ("llama.cpp", 8, 0.0)):
            before, after = (
                Datasheet("a", GPT2_124M, m, engine).predicted("int8", TOKEN, 100, n).seconds
                for m in (plain, slow)
            )
            assert after - before == pytest.approx(more, abs=1e-9)


def test_constants_scale_the_roof_and_count_nodes():
    by_engine = {("minillm", "float32", TOKEN): Constants(2.0, 0.0, 1e-5)}
    sheets = [Datasheet("a", GPT2_124M, machine(fitted=f)) for f in ({}, by_engine)]
    without, with_ = (sheet.predicted("float32", TOKEN, 100).seconds for sheet in sheets)
    assert with_ == pytest.approx(2 * without + 1e-5 * nodes(GPT2_124M))
    assert sheets[0].predicted("int8", TOKEN, 100) == sheets[1].predicted("int8", TOKEN, 100)
    assert nodes(GPT2_124M) == 12 * 12 + 7


@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES)
def test_weights_are_as_large_as_a_model_of_them(config):
    model = Model.random(config)
    for kind in KINDS:
        stored = store_parameters(model.parameters, kind, model.layout)
        assert weight_bytes(config, kind) == sum(p.nbytes for p in stored.values()), kind


@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES)
def test_a_sheet_of_every_family_in_all_its_forms(config):
    sheet = Datasheet("a|<b>", config, machine(), kinds=["float32", "int8"])
    report = DatasheetReport(sheet, "minillm datasheet")
    values = json.loads(json.dumps(report.to_dict()))
    assert len(values["token"]) == 2 * len(sheet.lengths) == len(values["first"])
    assert values["parameters"] == sum(p.size for p in Model.random(config).parameters.values())
    assert values["levers"] == sorted(values["levers"], key=lambda lever: -lever["rate"])
    page, html = report.page("a.png"), report.html("<svg></svg>")
    assert "a\\|\\<b\\>" in page and "a|&lt;b&gt;" in html and "<b>" not in html
    assert page.count("\n## ") == html.count("<h2>") == 7 and "Each token would cost" in page
    assert "![" in page and "![" not in report.page(None)


def test_levers_say_what_each_change_gives():
    sheet = Datasheet("a", GPT2_124M, machine(), kinds=["float32", "int8"], threads=2)
    levers = {lever.what: lever for lever in sheet.levers}
    assert levers["int8 instead of float32"].times == pytest.approx(3.1, abs=0.1)
    assert levers["1 instead of 2 threads"].times == pytest.approx(0.5)
    assert 1.4 < levers["half of the layers"].times < 1.6
    assert 5 < levers["8 texts at once"].times < 8
    sentence = sheet.verdict.sentences["change"]
    assert f"int8 would give {levers['int8 instead of float32'].rate:,.0f} tokens/s" in sentence


def test_the_words_and_the_tables_have_the_same_cache():
    sheet = Datasheet("a", GPT2_124M, machines.find("h100"), "llama.cpp")
    answer, change = (sheet.verdict.sentences[part] for part in ("answer", "change"))
    token = sheet.entry("float32", TOKEN, 512)
    assert f"{token.rate:,.0f} tokens/s" in answer
    levers = {lever.what: lever for lever in sheet.levers}
    assert f"int8 would give {levers['int8 instead of float32'].rate:,.0f} tokens/s" in change


def test_what_is_predicted_would_cost_that():
    """At best, unless it is known what the engine makes of the limits."""
    known = {("minillm", "float32", TOKEN): Constants(2.0, 2.0, 0.0)}
    for fitted, best in (({}, " at best"), (known, "")):
        sheet = Datasheet("a", GPT2_124M, machine(fitted=fitted), threads=1)
        token = sheet.entry("float32", TOKEN, 512)
        assert sheet.verdict.sentences["answer"] == (
            f"Each token would cost{best} {duration(token.seconds)}, which is"
            f" {rate_of(token.rate)}."
        )


def test_an_engine_that_is_faster_than_the_limits_has_no_cause_named():
    fitted = {("minillm", "float32", TOKEN): Constants(0.6, 0.6, 0.0)}
    page = DatasheetReport(Datasheet("a", GPT2_124M, machine(fitted=fitted)), "").page(None)
    assert "Each token would cost" in page and "All of that is" not in page


def test_why_more_texts_may_give_less_is_said():
    sheet = Datasheet("a", SHAPES["gpt2"], machine())
    assert "caches" not in DatasheetReport(sheet, "").page(None)
    (one, *_) = machine().limits
    near = replace(one, bandwidth={2**16: 1e12, 2**18: 1e12, 2**19: 1e9})
    sheet = Datasheet("a", SHAPES["gpt2"], replace(machine(), limits=(near,)))
    assert (
        "Where more texts give less, their keys and values no longer fit into the processor's"
        " caches: each text has 49.2 kB of them, and what memory gives is 1 GB/s."
    ) in DatasheetReport(sheet, "").page(None)


def test_half_of_one_is_no_lever():
    one = GPT2Config(vocab_size=300, n_positions=1, n_embd=32, n_layer=1, n_head=2)
    for config, there in ((SHAPES["gpt2"], True), (one, False)):
        levers = {lever.what for lever in Datasheet("a", config, machine()).levers}
        for half in ("half of the layers", "half of the context"):
            assert (half in levers) == there


def test_one_text_of_a_published_machine():
    sheet = Datasheet("a", GPT2_124M, machines.find("H100"))
    page = DatasheetReport(sheet, "").page(None)
    assert "reading 495 MB of weights and 37.8 MB of keys and values at 3,350 GB/s" in page
    assert "Predicted only, from published figures" in page and "thread" not in page
    assert sheet.predicted("float16", TOKEN, 32).seconds > 124e6 * 2 / 3.35e12


def test_what_cannot_be_is_said():
    with pytest.raises(InputError, match="has no limits for 3 threads, but for 1, 2"):
        Datasheet("a", GPT2_124M, machine(), threads=3)
    with pytest.raises(InputError, match="engine is 'x'; it must be one of minillm"):
        Datasheet("a", GPT2_124M, machine(), engine="x")
    with pytest.raises(InputError, match="kind 'int3' is none of float32"):
        Datasheet("a", GPT2_124M, machine(), kinds=["int3"])
    limits = machine().limits_of(1)
    without = replace(limits, row={"float32": 1.0}, rows={"float32": 1.0})
    with pytest.raises(InputError, match="no rate of int8, but of float32"):
        by_limits(GPT2_124M, without, "int8", TOKEN, 10)


@pytest.mark.parametrize("said", ["bfloat16", "int8", None, "float8", ["float16"]])
@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES)
def test_a_config_alone_is_enough(tmp_path, config, said):
    path, kind = tmp_path / "config.json", said if said in ("bfloat16", "int8") else "float32"
    for key in ("dtype", "torch_dtype"):
        path.write_text(json.dumps(config.to_dict() | {key: said}))
        assert described(path) == described(tmp_path) == (config, kind)


@pytest.mark.parametrize("kind", ["float32", "float16", "bfloat16", "int8", "int4", "int4_min"])
@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen2", "qwen3"])
def test_the_beginning_of_a_gguf_file_is_enough(tmp_path, name, kind):
    whole, begun = tmp_path / "whole.gguf", tmp_path / "begun.gguf"
    save_checkpoint(Model.random(SHAPES[name]), whole, kind)
    begun.write_bytes(whole.read_bytes()[:4000])
    assert described(begun) == described(whole) == (config_of(whole), kind)
    with pytest.raises(InputError, match="cut short"):
        config_of(begun)


def test_of_a_folder_its_weights_count(tmp_path):
    """Whatever the config says."""
    Model.random(SHAPES["gpt2"]).save_pretrained(tmp_path, "float16")
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace("float16", "bfloat16"))
    assert described(tmp_path)[1] == "float16"


def test_what_binds_is_said_once_where_a_whole_column_agrees():
    """Of prompts, longer and longer; the kinds multiply at different rates."""
    by_rate = {
        (math.inf, math.inf): ("reading", ""),
        (math.inf, 1e6): ("reading for float32; arithmetic for int8", ""),
        (1e12, math.inf): ("as in brackets for float32; reading for int8", "reading arithmetic"),
        (1e12, 1e12): ("as in brackets", "reading arithmetic"),
    }
    for (one, other), (said, inside) in by_rate.items():
        rates = {"float32": one, "int8": other}
        (limits,) = machine(threads=(1,)).limits
        some = replace(machine(), limits=(replace(limits, row=rates, rows=rates),))
        sheet = Datasheet("a", GPT2_124M, some, kinds=["float32", "int8"])
        found = {s.title: s for s in DatasheetReport(sheet, "").sections()}
        section = found["The first token after a prompt"]
        assert section.text == f"One text, 1 thread. What binds: {said}."
        cells = [cell.partition(" (")[2][:-1] for row in section.rows for cell in row[1:]]
        assert {*cells} - {""} == {*inside.split()}


def test_the_engine_and_the_numbers_of_its_cache_are_named():
    for engine, title, cache in (
        ("minillm", "Datasheet: a on Made up", "minillm keeps them in float32."),
        ("llama.cpp", "Datasheet: a in llama.cpp on Made up", "llama.cpp keeps them in float16."),
    ):
        sheet = Datasheet("a", GPT2_124M, machine(), engine, kinds=["float16", "int8"])
        report = DatasheetReport(sheet, "")
        sections = {section.title: section.text for section in report.sections()}
        assert report.title == title and cache in sections["Memory"]
        # what the other commands do with float16 is of minillm
        assert ("unless --dtype float16 is added" in sections["In words"]) == (engine == "minillm")


def test_nothing_is_markdown():
    assert plain("a|b*c_[d]<e>`") == "a\\|b\\*c\\_\\[d\\]\\<e\\>\\`"


def test_every_kind_of_ours_can_be_measured_and_what_cannot_be_is_said():
    from minillm.bench.peers import PEERS as STARTED

    assert [*PEERS["minillm"]] == [*KINDS]
    for kinds in PEERS.values():
        assert kinds.keys() <= KINDS.keys() and {*kinds.values()} <= STARTED.keys()
    for kind, name in PEERS["minillm"].items():
        assert STARTED[name].dtype == kind
    kinds = ["int4_min", "float32", "bfloat16"]
    for engine, said in (
        ("minillm", "the mean of several."),
        ("llama.cpp", "llama.cpp is not started here with bfloat16."),
        ("transformers", "transformers is not started here with int4_min or bfloat16."),
    ):
        sheet = Datasheet("a", SHAPES["gpt2"], machine(), engine, kinds=kinds)
        point = Point("a", engine, "float32", 32, TOKEN, 1, missing="it was not tried")
        sheet.measured = [point]
        section = DatasheetReport(sheet, "").sections()[-1]
        assert section.text.endswith(said)
