"""Chat templates: ChatML without Jinja, where it is ChatML; specials in a message are text; live:
equal to transformers' apply_chat_template."""

import pytest

from minillm import InputError, Tokenizer
from minillm.tokenizer.templates import (
    CHATML,
    FORM,
    Marks,
    _squeezed,
    render,
    require_renderer,
    template_of,
)

PLAIN = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] +"
    " '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SENTENCE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou help.<|im_end|>\n' }}{% endif %}"
)
FORMS = {
    "plain": PLAIN,
    "escapes": PLAIN.replace("\n", r"\n"),
    "one literal": PLAIN.replace("'<|im_end|>' + '\n'", "'<|im_end|>\n'"),
    "line ends after blocks": PLAIN.replace("%}", "%}\n"),
    "closed blanks": PLAIN.replace("{% ", "{%").replace(" }}", "}}"),
    "a sentence": SENTENCE + PLAIN.partition(" %}")[2],
    "a prompt by default": "{% if not add_generation_prompt is defined %}"
    "{% set add_generation_prompt = false %}{% endif %}" + PLAIN,
}
OTHERS = {
    "no line end after the role": PLAIN.replace("['role'] + '\n'", "['role'] + ' '"),
    "a system message left out": PLAIN.replace("<|im_end|>' + '\n'", "<|im_end|>'"),
    "trimmed": PLAIN.replace("message['content']", "message['content'] | trim"),
    "text between": PLAIN.replace("{% endfor %}", r"{% endfor %}\n"),
    "a blank before": " " + PLAIN,
    "braces in the sentence": FORMS["a sentence"].replace("You help.", "You }} help."),
    "llama 3": (
        "{{ bos_token }}{% for message in messages %}{{ '<|start_header_id|>' + message['role'] +"
        " '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
        "{% endif %}"
    ),
    "qwen without tools": (
        "{%- if tools %}{{- '<|im_start|>system\\n' + (tools | tojson) }}\n"
        "{%- elif messages[0].role == 'system' %}\n"
        "    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}\n{%- endif %}\n"
        "{%- set ns = namespace(last=messages|length - 1) %}\n"
        "{%- for message in messages[::-1] %}{%- set index = loop.index0 %}{%- endfor %}\n"
        "{%- for message in messages %}\n"
        "    {%- if message.role == 'system' and loop.first %}{% continue %}{%- endif %}\n"
        "    {%- if message.role == 'assistant' and '</think>' in message.content %}\n"
        "    {{- message.content.split('</think>')[-1].lstrip('\\n') }}\n    {%- else %}\n"
        "    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}\n"
        "    {%- endif %}\n{%- endfor %}\n"
        "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}\n"
    ),
    "marked for training": (
        "{% for message in messages %}{% generation %}{{ message.content }}{% endgeneration %}"
        "{{ eos_token }}{% endfor %}{{ {'é': 1} | tojson }}"
    ),
}
TALKS = {
    "a question": [("user", "Hi")],
    "with a system message": [("system", "Be brief."), ("user", " Why?\n")],
    "two turns": [("user", "a"), ("assistant", "b"), ("user", "é {{ 7 * 7 }} <x>")],
    "an empty system message": [("system", ""), ("user", "%}'\\n")],
}


def messages(name):
    return [{"role": role, "content": content} for role, content in TALKS[name]]


def recognised(template):
    return bool(FORM.fullmatch(_squeezed(template)))


def test_chatml_needs_no_jinja(monkeypatch):
    monkeypatch.setattr("minillm.machine.jinja.render", None)
    monkeypatch.setattr("minillm.machine.jinja.find_spec", lambda name: None)
    for template in (CHATML, *FORMS.values()):
        require_renderer(template)
    with pytest.raises(InputError, match="needs jinja2"):
        require_renderer(OTHERS["llama 3"])
    expected = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert render(CHATML, messages("a question")) == expected
    for name, form in FORMS.items():
        system = "<|im_start|>system\nYou help.<|im_end|>\n" if name == "a sentence" else ""
        assert render(form, messages("a question")) == system + expected, name


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_not_quite_chatml_is_not_taken_for_it(name):
    assert not recognised(OTHERS[name])


@pytest.mark.parametrize("talk", TALKS)
def test_all_forms_of_chatml_are_what_jinja_makes_of_them(talk):
    pytest.importorskip("jinja2")
    from minillm.machine import jinja

    values = {"messages": messages(talk), "add_generation_prompt": True}
    for name, form in FORMS.items():
        assert render(form, messages(talk)) == jinja.render(form, values), name


def test_a_special_that_is_typed_is_text():
    specials = ("<|im_start|>", "<|im_end|>", "@")
    tokenizer = Tokenizer.train(["the low lower"] * 3, 300, specials, show_progress=False)
    known = tokenizer.special_tokens
    typed = "a <|im_end|> b @ \ue000 <|im_<|im_start|>"
    marks = Marks(known, [typed])
    ids = marks.encode(tokenizer, "<|im_start|>" + marks.hide(typed) + "<|im_end|>")
    assert ids == [known["<|im_start|>"], *tokenizer.encode(typed), known["<|im_end|>"]]
    assert marks.show(marks.hide(typed)) == typed
    assert Marks({}, ["x"]).hide("x") == "x"


def test_of_several_templates_the_default_counts():
    several = [{"name": "rag", "template": "r"}, {"name": "default", "template": "d"}]
    assert template_of({"chat_template": several}) == "d"
    assert template_of({"chat_template": several[:1]}) == "r"
    assert template_of({}) is template_of({"chat_template": ""}) is None
    with pytest.raises(InputError, match="chat_template is 7; it must be a text"):
        template_of({"chat_template": 7})


@pytest.mark.live
@pytest.mark.parametrize("name", [*FORMS, *OTHERS])
def test_equal_to_transformers(name, tmp_path):
    transformers = pytest.importorskip("transformers")
    specials = ("<|im_start|>", "<|im_end|>", "<|eot_id|>", "<|start_header_id|>", "<s>")
    tokenizer = Tokenizer.train(["the low lower"] * 3, 300, specials, show_progress=False)
    template = (FORMS | OTHERS)[name]
    config = {"bos_token": "<s>", "eos_token": "<|im_end|>"}
    tokenizer.config |= config | {"chat_template": template}
    tokenizer.save(tmp_path)
    theirs = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(tmp_path / "tokenizer.json"), **config
    )
    for talk in TALKS:
        how = {"chat_template": template, "add_generation_prompt": True}
        text = theirs.apply_chat_template(messages(talk), tokenize=False, **how)
        assert render(template, messages(talk), tokenizer.config) == text, talk
        marks = Marks(tokenizer.special_tokens, [])
        ids = theirs.apply_chat_template(messages(talk), return_dict=False, **how)
        assert marks.encode(tokenizer, text) == list(ids), talk
