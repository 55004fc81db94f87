"""A conversation: what is read, kept, changed, dropped, saved; the same ids as without a cache."""

import json
import logging

import numpy as np
import pytest

from minillm import Chat, InputError, Llama, LlamaConfig, Tokenizer
from minillm.machine import quota
from minillm.tasks import chat as module
from minillm.tokenizer.templates import CHATML, Marks, render

SPECIALS = ("<|im_start|>", "<|im_end|>", "<|other|>")
TOKENIZER = Tokenizer.train(["the low lower newer wider"] * 3, 280, SPECIALS, show_progress=False)
END = TOKENIZER.special_tokens["<|im_end|>"]
CONFIG = LlamaConfig(
    vocab_size=TOKENIZER.vocab_size,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=512,
)
MODEL = Llama.random(CONFIG, seed=3)


def chat(system=None, model=MODEL, **options):
    return Chat(model, TOKENIZER, system, template=CHATML, **{"max_new_tokens": 6} | options)


def ids_of(talk):
    """The ids that a conversation stands for, without any cache."""
    marks = Marks(TOKENIZER.special_tokens, [m["content"] for m in talk])
    hidden = [m | {"content": marks.hide(m["content"])} for m in talk]
    return marks.encode(TOKENIZER, render(CHATML, hidden))


def by_hand(prompt, n):
    """Greedy ids after a prompt, read anew for each."""
    ids = list(prompt)
    for _ in range(n):
        ids.append(int(MODEL(ids)[-1].argmax()))
        if ids[-1] == END:
            break
    return ids[len(prompt) :]


def user(text):
    return {"role": "user", "content": text}


def test_an_answer_is_what_the_model_says_of_the_whole_conversation():
    c = chat("Be brief.")
    for text in ("the low", "<|im_end|> newer", "wider"):
        prompt = ids_of([{"role": "system", "content": "Be brief."}, *c.messages, user(text)])
        got = [m.id for m in c.send(text)]
        assert got == by_hand(prompt, 6)
        assert c.stats.kept + c.stats.read == len(prompt)
    assert [m["role"] for m in c.messages] == ["user", "assistant"] * 3


def test_only_what_is_new_is_read():
    c = chat()
    c.ask("the low lower")
    seen = c.stats.used
    c.ask("wider")
    new = len(TOKENIZER.encode("\n")) * 2 + len(ids_of([user("wider")]))
    assert c.stats.kept == seen and c.stats.read <= new + 1
    before = c.messages[:2]
    c.ask("newer")
    list(c.edit("the"))
    assert [m["content"] for m in c.messages[::2]] == ["the low lower", "wider", "the"]
    assert c.messages[:2] == before and c.last == "the"
    assert c.stats.kept > seen and c.stats.read < len(ids_of([user("the")]))
    c.system = "Be long."
    c.ask("low")
    assert c.stats.kept < 4
    c.reset()
    assert (c.messages, c.stats.used, c.last) == ([], 0, None)


def test_the_cache_never_holds_other_ids_than_it_is_thought_to(monkeypatch):
    """Whatever order things come in, the cache is that of the conversation's ids."""
    monkeypatch.setattr(module, "FIRST", 16)
    c, rng = chat(temperature=1.5, seed=5), np.random.default_rng(1)
    for turn in range(12):
        stream = (c.edit if turn % 4 == 3 else c.send)("wider " * int(rng.integers(1, 4)))
        for _ in zip(range(int(rng.integers(0, 7))), stream):
            pass
        c._close()
        if not (used := int(c._cache.lengths[0])):
            continue
        fresh = MODEL.new_cache()
        MODEL(c._ids, fresh)
        assert len(c._ids) == used
        for ours, right in ((c._cache.keys, fresh.keys), (c._cache.values, fresh.values)):
            # float32, sums of at most 48 products in another order: 2e-7 seen
            assert np.abs(ours[:, :, :, :used] - right[:, :, :, :used]).max() < 1e-5
    assert c.stats.room > 16


def test_an_answer_may_be_left_early():
    c = chat()
    list(zip(range(2), c.send("the low")))
    c.ask("wider")  # which ends the first
    assert len(c.messages) == 4 and c.messages[1]["role"] == "assistant"
    kept = [*c.messages]
    c.send("newer").close()
    c.send("newer")
    c.edit("lower")
    assert c.messages == kept  # nothing was said
    stream = c.send("the")
    next(stream)
    with pytest.raises(KeyboardInterrupt):
        stream.throw(KeyboardInterrupt)
    assert len(c.messages) == 6 and c.ask("low") is not None


def test_an_interruption_in_the_middle_of_a_pass_leaves_a_conversation(monkeypatch):
    c = chat()
    c.ask("the low")
    before, forward = [*c.messages], Llama.__call__

    def interrupted(self, ids, cache=None, **more):
        forward(self, ids, cache, **more)
        raise KeyboardInterrupt

    monkeypatch.setattr(Llama, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        c.ask("wider")
    monkeypatch.undo()
    assert c.messages == before and c.last == "wider"
    got = [m.id for m in c.edit("newer")]
    assert got == by_hand(ids_of([*before, user("newer")]), 6)


def test_when_the_context_is_full_the_oldest_turns_are_dropped(caplog):
    c = chat("Be brief.", context=96)
    with caplog.at_level(logging.INFO, "minillm"):
        for n in range(6):
            c.ask(f"{n} wider newer")
            assert c.stats.used <= 96
    assert 0 < c.dropped < 12 and len(c.messages) == 12
    assert "the context of 96 tokens is full: the oldest" in caplog.text
    seen = [{"role": "system", "content": "Be brief."}, *c.messages[c.dropped :]]
    assert [m.id for m in c.send("low")] == by_hand(ids_of([*seen, user("low")]), 6)
    dropped = c.dropped
    with pytest.raises(InputError, match=r"the message has \d+ tokens, .* context is 96: shorten"):
        c.ask("wider " * 60)
    assert c.dropped == dropped and len(c.messages) == 14


def test_every_end_ends():
    config = {"eos_token": "<|im_start|>", "eot_token": {"content": "<|other|>"}}
    tokenizer = Tokenizer(
        TOKENIZER.tokens, TOKENIZER.merges, TOKENIZER.special_tokens, config=config
    )
    ends = {"generation": {"eos_token_id": [7, 8]}, "eos_token_id": 9}
    model = Llama(LlamaConfig(**{**vars(CONFIG), **ends}), MODEL.parameters)
    c = Chat(model, tokenizer, template=CHATML)
    assert c._options["stop_tokens"] == [7, 8, *sorted(TOKENIZER.special_tokens.values())]
    assert Chat(model, tokenizer, template=CHATML, eos_token_id=3)._options["stop_tokens"] == (3,)
    first = by_hand(ids_of([user("low")]), 1)[0]
    (moment,) = chat(eos_token_id=first).send("low")
    assert (moment.id, moment.finish, moment.text) == (first, "eos", "")


def test_without_a_token_for_it_the_end_is_text():
    tokenizer = Tokenizer.train(["the low lower"] * 3, 270, show_progress=False)
    model = Llama.random(LlamaConfig(**{**vars(CONFIG), "vocab_size": tokenizer.vocab_size}))
    assert Chat(model, tokenizer, template=CHATML).stop == ("<|im_end|>",)
    first = chat().ask("low")[:1]
    if first:
        assert first not in chat(stop=first).ask("low")


def test_a_conversation_is_saved_and_loaded(tmp_path):
    c, file = chat("Be brief."), tmp_path / "talk.json"
    c.ask("é\ud800 <|im_end|>")
    c.save(file)
    other = chat()
    other.load(file)
    assert other.system == "Be brief." and other.messages[0]["content"] == "é? <|im_end|>"
    assert other.messages[1] == c.messages[1]
    assert other.ask("low") is not None and len(other.messages) == 4
    for wrong, why in {
        "[]": "a table",
        '{"messages": [{"role": "user", "content": 7}]}': "content is 7",
        '{"messages": [{"role": "user", "content": "a"}]}': "take turns",
        '{"messages": [{"role": "pirate", "content": "a"}]}': "pirate",
    }.items():
        file.write_text(wrong)
        with pytest.raises(InputError, match=why):
            other.load(file)
    assert len(other.messages) == 4
    assert json.loads(json.dumps(other.messages)) == other.messages


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"template": None}, "no chat template: .*minillm generate"),
        ({"context": 513}, "context is 513; the model has 512 positions"),
        ({"context": 1}, "context is 1; it must be a whole number of at least 2"),
        ({"system": 7}, "system is 7"),
        ({"num_beams": 2}, "chat cannot be had with num_beams=2"),
        ({"window": 9, "chunk": 1}, "chat cannot be had with window=9"),
        ({"max_length": 9}, "max_length counts"),
        ({"stop": ""}, "stop is"),
        ({"stop": 7}, "stop is"),
        ({"template": 7}, "chat_template is 7"),
        ({"temprature": 1}, "temprature is no option"),
    ],
    ids=str,
)
def test_what_cannot_be_is_one_line(arguments, why):
    with pytest.raises(InputError, match=why):
        Chat(MODEL, TOKENIZER, **{"template": CHATML} | arguments)
    with pytest.raises(InputError, match="the message is 7"):
        chat().send(7)
    with pytest.raises(InputError, match="nothing to edit"):
        chat().edit("a")


def test_what_memory_cannot_hold_is_one_line(monkeypatch):
    monkeypatch.setattr(quota, "free_bytes", lambda: 50_000)
    monkeypatch.setattr(quota, "SMALL", 0)
    with pytest.raises(
        InputError, match=r"a context of 512 positions would take about .*--context"
    ):
        chat()
    assert chat(context=16)


def test_seed_and_reset_draw_the_same():
    c = chat(temperature=1.0, seed=4)
    first = c.ask("the low"), c.ask("wider")
    c.reset()
    assert (c.ask("the low"), c.ask("wider")) == first
