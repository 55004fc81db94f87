"""What is said of a run, each sentence of times that are made so that it is true."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import minillm
from minillm import GPT2Config, recording
from minillm.clock import Clock, Evidence, Limits, predict, verdict
from minillm.clock.clock import CycleTimes
from minillm.clock.costs import formed
from minillm.clock.prediction import predicted_seconds
from minillm.clock.verdict import duration, percent, size
from minillm.decoding import ModelDraft, Options
from minillm.decoding.generate import moments

CONFIG = GPT2Config()
RECORDED = Path(__file__).parents[1] / "data" / "recordings" / "tales-draft.recording"
NAMES = tuple(formed(CONFIG))
FAST = 1e18


def limits(bandwidth=FAST, row=FAST, meet=0.0, threads=2, cores=2) -> Limits:
    rates = {"float32": row, "int8": row}
    return Limits({"cores": cores}, threads, {2**26: bandwidth}, rates, rates, FAST, 0.0, 0.0, meet)


def run(limits, kind="float32", slower=1.0, tokens=12, busy=None) -> Evidence:
    """A run whose decode cycles took `slower` times what the limits say."""
    cycles = []
    for past in range(31, 31 + tokens):
        found = predict(CONFIG, limits, NAMES, 1, past, kind=kind)
        net = slower * 1e9 * np.array([found[name].seconds for name in NAMES])
        cycles.append(CycleTimes("decode", 1, 1, past, 0.0, NAMES, np.cumsum(net), net))
    return Evidence(CONFIG, kind, cycles, limits, busy)


def test_reading_binds():
    found = verdict(run(limits(bandwidth=3e10, row=1e11)))
    assert found.binds == "reading" and found.shares["reading"] > 0.98
    assert found.sentences["answer"] == "Each token costs 16.7 ms, which is 60 tokens/s."
    assert found.sentences["binds"] == (
        "All of that is reading 495 MB of weights at 30 GB/s, the most that the memory gives 2"
        " threads."
    )
    assert found.sentences["change"] == (
        "Matrices in int8 would give 219 tokens/s, with 27 % of the bytes in 27 % of the time; more"
        " threads will not help."
    )
    assert found.sentences["uncertain"] == ""
    told = predict(CONFIG, limits(3e10, 1e11), NAMES, 1, 37, kind="int8")
    assert found.levers["int8"] == pytest.approx(1 / predicted_seconds(told), rel=0.01)


def test_what_the_limits_do_not_explain_stays():
    found = verdict(run(limits(bandwidth=3e10, row=1e11), slower=1.25))
    assert found.shares["reading"] == pytest.approx(0.8, abs=0.01)
    assert 1 / found.levers["int8"] > (0.27 + 0.14) * found.seconds


def test_narrow_weights_have_texts_at_once():
    found = verdict(run(limits(bandwidth=3e10).with_kinds(["int4"], "int8"), "int4"))
    assert "narrow already; 8 texts at once would give" in found.sentences["change"]
    assert found.levers["batch of 8"] > 5 / found.seconds


def test_keys_and_values_are_read_too():
    config = replace(CONFIG, n_positions=2**20)
    names = tuple(formed(config))
    found = predict(config, limits(bandwidth=3e10), names, 1, 2**19)
    net = 1e9 * np.array([found[name].seconds for name in names])
    cycle = CycleTimes("decode", 1, 1, 2**19, 0.0, names, np.cumsum(net), net)
    said = verdict(Evidence(config, "float32", [cycle], limits(bandwidth=3e10))).sentences
    assert "495 MB of weights and 38.7 GB of keys and values" in said["binds"]
    assert "shorter context" in said["change"]


def test_caches_are_told_from_memory():
    near = replace(limits(), bandwidth={2**20: 1e11, 2**29: 1e11, 2**35: 1e10})
    assert "the processor's caches give" in verdict(run(near)).sentences["binds"]


def test_arithmetic_binds():
    found = verdict(run(limits(bandwidth=1e12, row=1e10)))
    assert found.binds == "arithmetic" and found.shares["arithmetic"] > 0.9
    assert (
        "is arithmetic: 250 MFLOP, at 10.0 GFLOP/s at most on 2 threads" in found.sentences["binds"]
    )
    assert "fewer bytes will not help" in found.sentences["change"].lower() and not found.levers


def test_overhead_binds():
    found = verdict(run(limits(bandwidth=1e12, row=1e13, meet=1e-4)))
    assert found.binds == "overhead" and found.shares["overhead"] > 0.8
    assert "overhead, what minillm takes longer than the limits" in found.sentences["binds"]
    assert "for each of the 89 steps that were timed, 7 a layer" in found.sentences["binds"]
    assert "8 texts at once would give" in found.sentences["change"]
    assert "threads that wait for one another explain 100 % of it" in found.sentences["binds"]
    alone = verdict(run(limits(bandwidth=1e12, row=1e13, meet=1e-4, threads=1)))
    assert "calls explain 100 % of it" in alone.sentences["binds"]
    assert found.levers["batch of 8"] > 4 / found.seconds


def test_what_helps_beside_the_largest_part():
    least = run(limits(bandwidth=1e12, row=1e13, meet=1e-4)).limits
    assert (
        "narrower matrices and more threads would hardly help"
        in verdict(run(least)).sentences["change"]
    )
    found = verdict(run(limits(bandwidth=3e10, threads=1, cores=4), slower=2.2))
    assert found.binds == "overhead" and found.shares["reading"] > 0.4
    assert found.levers["int8"] > 1.4 / found.seconds
    assert "int8 would give" in found.sentences["change"]
    assert "4 threads instead of 1 would give" in found.sentences["change"]
    assert "hardly" not in found.sentences["change"]
    mixed = limits(bandwidth=1e11, row=1e11)
    mixed = replace(mixed, row=mixed.row | {"int8": 4e11}, rows=mixed.rows | {"int8": 4e11})
    mixed = replace(mixed, row=mixed.row | {"float32": 4e10}, rows=mixed.rows | {"float32": 4e10})
    found = verdict(run(mixed))
    assert found.binds == "arithmetic" and found.levers["int8"] > 1.1 / found.seconds
    assert "fewer bytes will not help" not in found.sentences["change"].lower()


def test_a_token_in_each_of_several_texts():
    one = run(limits(bandwidth=3e10, meet=1e-4)).cycles[0]
    found = predict(CONFIG, limits(bandwidth=3e10, meet=1e-4), NAMES, 1, 31, 4)
    net = 1e9 * np.array([found[name].seconds for name in NAMES])
    cycle = replace(one, rows=4, ends=np.cumsum(net), net=net)
    found = verdict(Evidence(CONFIG, "float32", [cycle], limits(bandwidth=3e10, meet=1e-4)))
    together = 4 / found.seconds
    assert found.sentences["answer"] == (
        f"A token in each of 4 texts costs {duration(found.seconds)}, which is"
        f" {together:,.0f} tokens/s together."
    )
    assert found.levers["int8"] > 2 * together


def test_a_cache_of_16_bits_is_read_as_such():
    evidence = run(limits(bandwidth=3e10), tokens=1)
    cycles = [replace(evidence.cycles[0], past=1000)]
    wide = verdict(replace(evidence, cycles=cycles)).sentences["binds"]
    half = verdict(replace(evidence, cycles=cycles, cached=2)).sentences["binds"]
    assert "495 MB of weights and 73.9 MB of keys and values" in wide
    assert "495 MB of weights and 36.9 MB of keys and values" in half


def test_a_busy_machine_is_said():
    found = verdict(run(limits(bandwidth=3e10), busy=0.2))
    assert found.sentences["uncertain"] == (
        "Measured while the machine was 20 % busy with other work."
    )
    assert found.levers and "int8 would give" in found.sentences["change"]
    assert not verdict(run(limits(bandwidth=3e10), busy=0.02)).sentences["uncertain"]


@pytest.mark.parametrize(("busy", "slower"), [(0.25, 1.0), (0.05, 1.5)])
def test_nothing_is_said_of_causes_where_others_may_be_the_cause(busy, slower):
    found = verdict(run(limits(bandwidth=3e10), slower=slower, busy=busy))
    assert [*found.sentences] == ["answer", "uncertain"]
    assert not found.levers and not found.shares and not found.binds
    assert found.sentences["uncertain"] == (
        f"Measured while the machine was {percent(busy)} busy with other work, too busy to tell"
        " what binds it and what would help: measure it when it is idle."
    )


@pytest.mark.parametrize("slower", [1.0, 4.0])
def test_what_is_predicted_of_minillm_is_said_of_no_other_engine(slower):
    evidence = replace(run(limits(bandwidth=3e10), slower=slower), engine="llama.cpp")
    found = verdict(evidence)
    assert not found.levers and found.sentences["change"] == (
        "What llama.cpp would gain from fewer bits, more threads or several texts is not predicted."
    )
    assert ("reading 495 MB of weights" in found.sentences["binds"]) == (slower == 1)
    assert (slower == 1) or found.sentences["binds"] == (
        "75 % of that is what llama.cpp takes longer than the limits of reading and arithmetic: in"
        " its kernels, in its calls, and where its threads wait for one another."
    )


def test_what_the_limits_do_not_explain_is_no_reason_to_give_up():
    """Overhead that is neither calls nor waiting may be the kernels', which fewer bytes shorten."""
    said = verdict(run(limits(bandwidth=3e10), slower=20.0)).sentences
    assert "the limits do not tell how much narrower matrices and more threads" in said["change"]
    assert "explain 0 % of it" in said["binds"] and "hardly" not in said["change"]


def test_one_thread_of_several():
    found = verdict(run(limits(bandwidth=1e10, threads=1, cores=8)))
    assert "the memory gives 1 thread." in found.sentences["binds"]
    assert (
        "8 threads instead of 1 help as far as they read faster together: --threads 8 tells"
        in found.sentences["change"]
    )
    found = verdict(run(limits(bandwidth=1e12, row=1e9, threads=2, cores=8)))
    assert found.levers["8 threads"] == pytest.approx(4 / found.seconds, rel=0.05)
    assert "8 threads instead of 2 would give up to" in found.sentences["change"]


def test_few_tokens_and_uneven_ones():
    assert (
        "Only 3 tokens after the first"
        in verdict(run(limits(3e10), tokens=3)).sentences["uncertain"]
    )
    uneven = run(limits(bandwidth=3e10))
    cycles = [replace(c, net=c.net * (1 + i % 3)) for i, c in enumerate(uneven.cycles)]
    assert (
        "Half of the tokens took" in verdict(replace(uneven, cycles=cycles)).sentences["uncertain"]
    )


def test_faster_than_the_limits():
    """No cause is named: the memory gave more than the most that it gives."""
    found = verdict(run(limits(bandwidth=3e10), slower=0.5))
    assert [*found.sentences] == ["answer", "uncertain"] and not found.levers
    assert found.sentences["uncertain"].startswith("It was 2.0 times as fast as the limits allow")


def test_no_cycles_and_one():
    assert str(verdict(Evidence(CONFIG, "float32", []))) == "Nothing was timed."
    said = verdict(run(limits(3e10), tokens=1)).sentences["uncertain"]
    assert said == "Only 1 token after the first was timed."


def test_no_limits_and_no_decode():
    found = verdict(replace(run(limits(3e10)), limits=None))
    assert found.sentences["uncertain"] == "What binds it is unknown without limits."
    prefill = replace(run(limits(3e10)).cycles[0], kind="prefill")
    assert "The first token took" in str(verdict(Evidence(CONFIG, "float32", [prefill])))
    chunk = replace(prefill, positions=31, names=NAMES[:-1])
    assert "31 positions took" in str(verdict(Evidence(CONFIG, "float32", [chunk])))


def test_guesses_and_their_checks():
    """Per round a draft of 1 ms, a check of four guesses of 3 ms, which gives three tokens."""

    def cycle(kind, start, ms, positions, tokens):
        ends = start * 1e6 + np.linspace(0, ms * 1e6, tokens + 2)[1:]
        names = ("logits", *["next"] * tokens)
        return CycleTimes(kind, 1, positions, 9, start * 1e6, names, ends, np.diff(ends, prepend=0))

    rounds = [
        c
        for start in range(50, 90, 4)
        for c in (cycle("draft", start, 1, 1, 4), cycle("verify", start + 1, 3, 5, 3))
    ]
    prompt = cycle("prefill", 0, 50, 20, 1)
    evidence = Evidence(CONFIG, "int8", [prompt, *rounds], limits(3e10), 0.3)
    assert verdict(evidence).sentences == {
        "answer": "Each token costs 1.33 ms on average, which is 750 tokens/s, guesses and their"
        " checks together.",
        "binds": "10 checks of 40 guessed tokens gave 30 tokens, 3.0 a check; guessing took 25 % of"
        " the time.",
        "uncertain": "Measured while the machine was 30 % busy with other work.",
    }
    found = verdict(replace(evidence, cycles=rounds[:2], busy=None)).sentences
    assert found["uncertain"] == "Only 3 tokens after the first were timed."


ENGINES = RECORDED.parents[1] / "engines"
LONGER = "takes longer than the limits of reading and arithmetic: "
THEIRS = (
    "% of that is what {0} " + LONGER + "in its kernels, in its calls, and where its threads wait"
    " for one another. What {0} would gain from fewer bits, more threads or several texts is not"
    " predicted. Only 5 tokens after the first were timed."
)


@pytest.mark.parametrize(
    ("file", "cached", "said"),
    [
        (
            RECORDED,
            4,
            "Each token costs 410 us, which is 2,441 tokens/s. 78 % of that is overhead, what"
            f" minillm {LONGER}some 16.7 us for each of the 19 steps that were timed, 7 a layer;"
            " calls explain 0 % of it. Several texts share it: 8 texts at once would give 13,013"
            " tokens/s together; 2 threads instead of 1 would give 2,749 tokens/s at most; the"
            " limits do not tell how much narrower matrices would help. Half of the tokens took"
            " 334 us to 524 us.",
        ),
        (
            ENGINES / "tales-llama-phases.recording",
            2,
            "Each token costs 279 us, which is 3,590 tokens/s. Measured while the machine was 56 %"
            " busy with other work, too busy to tell what binds it and what would help: measure it"
            " when it is idle. Only 5 tokens after the first were timed.",
        ),
        (
            ENGINES / "tales-llama-steps.recording",
            2,
            "Each token costs 275 us, which is 3,642 tokens/s. 82 " + THEIRS.format("llama.cpp"),
        ),
        (
            ENGINES / "tales-llama-transformers-phases.recording",
            4,
            "Each token costs 2.09 ms, which is 479 tokens/s. 96 " + THEIRS.format("transformers"),
        ),
    ],
    ids=["minillm", "llama.cpp, busy", "llama.cpp", "transformers"],
)
def test_what_is_said_of_recorded_runs(file, cached, said):
    evidence = Evidence.of_recording(recording.read(file))
    assert evidence.cached == cached
    assert str(verdict(evidence)) == said
    if evidence.busy:
        found = verdict(replace(evidence, busy=0.0))
        assert THEIRS.format(evidence.engine) in str(found) and not found.levers


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "guessed",
            "Each token costs 1.92 ms on average, which is 522 tokens/s, guesses and their checks"
            " together. 6 checks of 18 guessed tokens gave 10 tokens, 1.7 a check; guessing took"
            " 26 % of the time.",
        ),
        (
            "batch",
            "A token in each of 4 texts costs 2.05 ms, which is 1,951 tokens/s together. 57 % of"
            f" that is overhead, what minillm {LONGER}some 22.1 us for each of the 53 steps that"
            " were timed, 7 a layer; calls explain 0 % of it. Several texts share it: 32 texts at"
            " once would give 4,999 tokens/s together; matrices in int8 would give 2,209 tokens/s;"
            " 2 threads instead of 1 would give 2,485 tokens/s at most.",
        ),
    ],
)
def test_what_is_said_of_guesses_and_of_several_texts(name, said):
    """As if the machine had been idle, which it was not."""
    evidence = Evidence.of_recording(recording.read(RECORDED.with_name(f"tales-{name}.recording")))
    assert str(verdict(replace(evidence, busy=0.0))) == said


RAN = "Each token costs 1.03 ms, which is 970 tokens/s. "
LIMITS_TOLD = "71 % of that is reading 23.2 MB of weights at 32.1 GB/s, the most that the "
INT8 = "Matrices in int8 would give 1,294 tokens/s, with 28 % of the bytes in 75 % of the time"
SUMS = (
    "83 % of that is arithmetic: 12 MFLOP, at 13.8 GFLOP/s at most on 1 thread. 2 threads instead"
)
SUMS += " of 1 would give up to 1,656 tokens/s; "
CALLS = f"98 % of that is overhead, what minillm {LONGER}some 21.4 us for each of the 47 steps that"
CALLS += " were timed, 7 a layer; calls explain {} of it. Several texts share it: 8 texts at once"
CALLS += " would give 6,710 tokens/s together; "


@pytest.mark.parametrize(
    ("changes", "cores", "kind", "busy", "said"),
    [
        (
            {}, 2, "float32", 0.0, f"{LIMITS_TOLD}processor's caches give 1 thread. {INT8};"
            " 2 threads instead of 1 help as far as they read faster together: --threads 2 tells.",
        ),
        (
            {}, 1, "float32", 0.2, f"{LIMITS_TOLD}processor's caches give 1 thread. {INT8}; more"
            " threads will not help. Measured while the machine was 20 % busy with other work.",
        ),
        ({}, None, "float32", 0.0, f"{LIMITS_TOLD}processor's caches give. {INT8}."),
        (
            {"bandwidth": 5e9}, 1, "int4", 0.0, "75 % of that is reading 3.33 MB of weights and 221"
            " kB of keys and values at 5 GB/s, the most that the memory gives 1 thread. The weights"
            " are narrow already; 8 texts at once would give 1,770 tokens/s together; more threads"
            " will not help.",
        ),
        (
            {"bandwidth": FAST, "rate": 1.4e10}, 2, "float32", 0.0, f"{SUMS}fewer bytes will not"
            " help, less arithmetic will, as of a smaller model.",
        ),
        (
            {"bandwidth": FAST, "rate": 1.4e10, "int8": 6e10}, 2, "float32", 0.0, f"{SUMS}matrices"
            " in int8 would give 2,504 tokens/s, and less arithmetic will help, as of a smaller"
            " model.",
        ),
        (
            {"bandwidth": FAST, "rate": FAST}, 2, "float32", 0.0, f"{CALLS.format('0 %')}the limits"
            " do not tell how much narrower matrices and more threads would help.",
        ),
        (
            {"bandwidth": FAST, "rate": FAST, "meet": 2e-5}, 2, "float32", 0.0,
            f"{CALLS.format('62 %')}narrower matrices and more threads would hardly help.",
        ),
        (
            {"bandwidth": 1e10}, 2, "float32", 0.0, "It was 2.3 times as fast as the limits allow,"
            " which were slower when they were measured: measure them again.",
        ),
        (
            {}, 2, "float32", 0.3, "Measured while the machine was 30 % busy with other work, too"
            " busy to tell what binds it and what would help: measure it when it is idle.",
        ),
    ],
)  # fmt: skip
def test_each_sentence_of_a_recorded_run(changes, cores, kind, busy, said):
    """Times as they were recorded, on a machine with these limits in the place of its own."""
    evidence = Evidence.of_recording(recording.read(RECORDED.with_name("tales-busy.recording")))
    its = evidence.limits.with_kinds(["int8", "int4"], "float32")
    rates = its.row if "rate" not in changes else dict.fromkeys(its.row, changes["rate"])
    rates |= {"int8": changes["int8"]} if "int8" in changes else {}
    bandwidth = {2**26: changes["bandwidth"]} if "bandwidth" in changes else its.bandwidth
    its = replace(its, machine={"cores": cores}, bandwidth=bandwidth, row=rates, rows=rates)
    its = replace(its, meet=changes.get("meet", its.meet))
    found = verdict(replace(evidence, limits=its, kind=kind, busy=busy))
    assert str(found) == RAN + said


@pytest.mark.parametrize("kind", ["decode", "verify", "draft", "prefill"])
def test_no_recording_is_too_strange_for_words(kind):
    """What recording.read lets through: nothing read, written, or emitted; no time; far too much
    kept."""
    made = recording.read(RECORDED)
    [*cycles] = ({**c, "kind": kind} for c in made.header["cycles"])
    for strange in (
        {"rows": 0, "positions": 0, "past": 0},
        {"kept": 0},
        {"kept": 2**62},
        {"end": 0, "start": 0},
    ):
        header = made.header | {"cycles": [c | strange for c in cycles]}
        for names in (header["names"], [["logits"] * len(n) for n in header["names"]]):
            evidence = Evidence.of_recording(
                recording.Recording(header | {"names": names}, made.arrays)
            )
            assert evidence.cached == 4 or strange.get("kept")
            assert str(verdict(evidence))


def test_guesses_of_a_run():
    """The model guesses for itself, so that all is right: five tokens a check."""
    model, tokenizer = minillm.load("tales-draft", kernels="numpy")
    clock, options = Clock(), Options(max_new_tokens=11, do_sample=False)
    draft = ModelDraft(model, n_tokens=4)
    emitted = list(moments(model, tokenizer.encode("The king"), options, clock, draft))
    assert len(emitted) == 11
    evidence = Evidence(model.config, "float32", clock.cycles())
    assert "2 checks of 8 guessed tokens gave 10 tokens, 5.0 a check; guessing took" in str(
        verdict(evidence)
    )


def test_a_recording_is_evidence():
    made = recording.read(RECORDED)
    found = verdict(Evidence.of_recording(made))
    decode = [c for c in made.header["cycles"] if c["kind"] == "decode"]
    assert 0.5 < found.seconds * 1e9 / np.median([c["end"] - c["start"] for c in decode]) < 1.05
    assert sum(found.shares.values()) == pytest.approx(1) and found.sentences["change"]


def test_numbers_as_they_are_said():
    assert (percent(0.934), duration(0.0084), duration(2e-6)) == ("93 %", "8.4 ms", "2 us")
    assert (duration(0.1234), size(2.5e8), size(1.25e9)) == ("123 ms", "250 MB", "1.25 GB")
