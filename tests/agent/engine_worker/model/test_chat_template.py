"""Chat templates give the text that `transformers` gives, and none of them can take the worker's memory or time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from edgewright_agent.engine_worker.model.backend import ChatPrompt, InvalidRequestError
from edgewright_agent.engine_worker.model.tokenizer import ModelText

SPECIAL = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
    "sep_token": "<sep>",
    "image_token": "<image>",  # of a model's own
}
# As published models write them, each with what it is known for.
TEMPLATES = {
    "chatml": (
        "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message['content'] | trim }}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    "instruct": (
        "{{ bos_token }}{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('Roles must alternate!') }}{% endif %}"
        "{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]{% else %}{{ m.content }}{{ eos_token }}{% endif %}"
        "{% endfor %}"
    ),
    "headers and a date": (
        "{{- bos_token }}\n{%- if not date_string is defined %}{%- set date_string = strftime_now('%d %b %Y') %}"
        "{%- endif %}\nToday: {{ date_string }}\n"
        "{%- if messages[0]['role'] == 'system' %}{%- set system = messages[0]['content']|trim %}"
        "{%- set messages = messages[1:] %}{%- else %}{%- set system = '' %}{%- endif %}\n{{ system }}"
        "{%- for message in messages %}{{ '<|' + message.role + '|>\n\n' + message.content|trim + '<|eot|>' }}"
        "{%- endfor %}{%- if add_generation_prompt %}{{ '<|assistant|>' }}{%- endif %}"
    ),
    "thinking switch": (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if enable_thinking is defined and "
        "enable_thinking is false %}<think>\n\n</think>{% endif %}"
    ),
    "reasoning of earlier turns": (
        "{% for m in messages %}{% if m.reasoning_content is defined %}<think>{{ m.reasoning_content }}</think>"
        "{% endif %}{{ m.content.split('</think>')[-1].lstrip('\\n') }}{% endfor %}"
    ),
    "generation": (
        "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}<a>{{ m.content }}</a>"
        "{% set inside = 1 %}{% endgeneration %}{{ inside }}{% else %}<{{ m.role }}>\n{{ m.content }}\n{% endif %}"
        "{% endfor %}"
    ),
    "tools are none": "{% if tools is not none %}[tools]{% endif %}{% if documents is none %}-{% endif %}{{ tools }}",
    "tojson": (
        "{{ messages | tojson }}{{ messages | tojson(indent=2, ensure_ascii=False, sort_keys=True) }}"
        "{{ messages[0] | tojson(ensure_ascii=true, separators=(',', ':')) }}{{ '<&>' | tojson }}"
    ),
    "special tokens": "{{ bos_token }}{{ eos_token }}{{ unk_token }}{{ pad_token }}{{ sep_token }}{{ cls_token }}"
    "{{ image_token }}{% if mask_token is defined %}mask{% endif %}",
    "loop controls": (
        "{% for m in messages %}{% if m.role == 'system' %}{% continue %}{% endif %}{{ m.content }}"
        "{% if loop.index > 2 %}{% break %}{% endif %}{% endfor %}"
    ),
    "namespace": (
        "{% set ns = namespace(text='', count=0) %}{% for m in messages %}{% set ns.count = ns.count + 1 %}"
        "{% set ns.text = ns.text ~ m.role ~ ns.count ~ ';' %}{% endfor %}{{ ns.text }}"
        "{{ dict(a=ns.count).items() | list }}"
    ),
    "macro": (
        "{% macro turn(m, last=false) %}<{{ m.role }}{{ ' name=' + m.name if m.name else '' }}>{{ caller() if caller "
        "else m.content }}{% endmacro %}{% for m in messages %}{{ turn(m) }}{{ turn(m, last=loop.last) }}{% endfor %}"
        "{% call turn(messages[-1]) %}called{% endcall %}"
    ),
    "filters": (
        "{{ messages | map(attribute='role') | unique | sort | join('|') }}{{ messages | length }}"
        "{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | join(', ') | upper }}"
        "{{ '%s-%03d' | format('x', 7) }}{{ 'a,b'.split(',') | last }}{{ ('ab' * 3) | replace('ab', 'c') }}"
        "{{ 'text' | indent(4, true) }}{{ 7 // 2 ** 2 % 5 }}{{ '{:>6}'.format('x') }}{{ [1, 2] + [3] }}"
    ),
    "whitespace": "  {% for m in messages %}\n    {{ m.content }}\n  {% endfor %}\n\n{# nobody sees this #}\n  end\n",
    "index of the messages": "{{ messages[99].content }}",
    "an attribute of nothing": "{{ nothing.at.all }}",
    "a division": "{{ 1 / 0 }}",
    "json of nothing": "{{ nothing | tojson }}",
    "recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "include": "{% include 'other' %}",
    "an unknown tag": "{% wizard %}",
    "no end": "{% for m in messages %}",
    "underscore": "{% set ns = namespace(_x=1) %}{{ ns._x }}",
    "python": "{{ ''.__class__.__mro__ }}",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    words = [*SPECIAL.values(), *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={word: index for index, word in enumerate(words)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    # Older tokenizers spell a token as an object.
    spelled = {**SPECIAL, "pad_token": {"content": "<pad>", "lstrip": False, "__type": "AddedToken"}}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "added_tokens_decoder": {}, **spelled}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


Render = Callable[..., str]


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Render:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)

    def render(template: str, messages: list[dict[str, Any]], **variables: Any) -> str:
        text: str = tokenizer.apply_chat_template(
            messages, chat_template=template, tokenize=False, add_generation_prompt=True, **variables
        )
        return text

    return render


@pytest.fixture(scope="module")
def ours(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Render:
    texts: dict[str, ModelText] = {}

    def render(template: str, messages: list[dict[str, Any]], **variables: Any) -> str:
        if template not in texts:
            copy = tmp_path_factory.mktemp("text")
            for name in ("tokenizer.json", "tokenizer_config.json"):
                (copy / name).write_bytes((folder / name).read_bytes())
            (copy / "chat_template.jinja").write_text(template, encoding="utf-8")
            texts[template] = ModelText(copy)
        documents = variables.pop("documents", None)
        return texts[template].chat(ChatPrompt(messages, documents, variables))

    return render


def outcome(render: Render, error: type[Exception], *args: Any, **variables: Any) -> str | None:
    """The text; None if it is refused."""
    try:
        return render(*args, **variables)
    except error:
        return None


def message(**fields: Any) -> dict[str, Any]:
    return {"role": "user", "content": "größe <b>", **fields}


CHATS = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant"]), "content": st.text(max_size=20)},
        optional={"name": st.text(max_size=5), "reasoning": st.text(max_size=5)},
    ),
    min_size=1,
    max_size=5,
)
VARIABLES = st.dictionaries(
    st.sampled_from(["enable_thinking", "date_string", "custom", "bos_token", "image_token"]),
    st.one_of(
        st.booleans(), st.text(max_size=5), st.integers(), st.none(), st.lists(st.integers(), max_size=2)
    ),
    max_size=3,
)


@settings(max_examples=300, deadline=None)
@given(template=st.sampled_from(sorted(TEMPLATES.values())), messages=CHATS, variables=VARIABLES)
def test_a_template_gives_the_text_that_transformers_gives(
    ours: Render, theirs: Render, template: str, messages: list[dict[str, Any]], variables: dict[str, Any]
) -> None:
    expected = outcome(theirs, Exception, template, messages, **variables)
    assert outcome(ours, InvalidRequestError, template, messages, **variables) == expected


@settings(max_examples=150, deadline=None)
@given(
    parts=st.lists(st.sampled_from(sorted(TEMPLATES.values())), min_size=2, max_size=4),
    between=st.sampled_from(["", "\n", "  \n", "{#- -#}", "x"]),
    messages=CHATS,
)
def test_so_do_templates_put_together_from_others(
    ours: Render, theirs: Render, parts: list[str], between: str, messages: list[dict[str, Any]]
) -> None:
    template = between.join(parts)
    expected = outcome(theirs, Exception, template, messages)
    assert outcome(ours, InvalidRequestError, template, messages) == expected


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_each_template_renders_a_plain_chat_as_transformers_does(
    ours: Render, theirs: Render, name: str
) -> None:
    messages = [message(role="system"), message(name="operator"), message(role="assistant"), message()]
    expected = outcome(theirs, Exception, TEMPLATES[name], messages)
    assert outcome(ours, InvalidRequestError, TEMPLATES[name], messages) == expected


def test_documents_reach_a_template_that_takes_them(ours: Render, theirs: Render) -> None:
    documents = [{"title": "t", "text": "the gate opens at six"}]
    template = "{% for d in documents %}{{ d.title }}: {{ d.text }}{% endfor %}"
    assert ours(template, [message()], documents=documents) == "t: the gate opens at six"
    assert theirs(template, [message()], documents=documents) == "t: the gate opens at six"
    with pytest.raises(InvalidRequestError, match="documents: this model's chat template takes none"):
        ours(TEMPLATES["chatml"], [message()], documents=documents)


def test_a_variable_that_the_request_has_a_field_for_is_refused(ours: Render) -> None:
    with pytest.raises(InvalidRequestError, match=r"chat_template_kwargs\.tools"):
        ours("{{ messages }}", [message()], tools=[])


def test_of_several_templates_the_default_is_taken(folder: Path, tmp_path: Path) -> None:
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    config["chat_template"] = [
        {"name": "tool_use", "template": "tools"},
        {"name": "default", "template": "{{ pad_token }}"},
    ]
    (tmp_path / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    assert ModelText(tmp_path).chat(ChatPrompt([message()])) == "<pad>"


def test_special_tokens_of_an_older_tokenizer_come_from_its_map(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": "{{ bos_token }}{{ pad_token }}"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    tokens = {"bos_token": {"content": "<s>", "lstrip": False}, "pad_token": "<pad>"}
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(tokens), encoding="utf-8")
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(tmp_path)
    expected = theirs.apply_chat_template([message()], tokenize=False)
    assert ModelText(tmp_path).chat(ChatPrompt([message()])) == expected == "<s><pad>"


@pytest.mark.parametrize(
    "template",
    [
        "{{ 'x' * 10 ** 12 }}",
        "{{ 10 ** 12 * 'x' }}",
        "{{ [1] * 10 ** 9 }}",
        "{{ 9 ** (9 ** 9) }}",
        "{{ 'x' | center(10 ** 10) }}",
        "{{ 'x'.ljust(10 ** 10) }}",
        "{{ 'x' | indent(10 ** 10) }}",
        "{{ messages | tojson(indent=10 ** 10) }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '%1000000000d' | format(1) }}",
        "{{ '{:>1000000000}'.format(1) }}",
        "{{ (['x' * 10 ** 6] * 10 ** 4) | join(',') }}",
        "{{ ','.join(['x' * 10 ** 6] * 10 ** 4) }}",
        "{{ ('x' * 10 ** 4) | replace('x', 'y' * 10 ** 6) }}",
        "{{ ('x' * 10 ** 4).replace('x', 'y' * 10 ** 6) }}",
        "{% set ns = namespace(s='x') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
        "{% set ns = namespace(s='x') %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
        "{% set ns = namespace(s=[1]) %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
        "{% set ns = namespace(s='x') %}{% for i in range(60) %}{% set s %}{{ ns.s }}{{ ns.s }}{% endset %}"
        "{% set ns.s = s %}{% endfor %}",
        "{% for i in range(100000) %}{% for j in range(100000) %}x{% endfor %}{% endfor %}",
        "{% for i in range(100000) %}{{ 'x' * 1000 }}{% endfor %}",
    ],
)
def test_a_template_that_builds_without_end_is_refused_before_it_takes_the_memory(
    ours: Render, template: str
) -> None:
    with pytest.raises(InvalidRequestError, match="chat template refuses these messages"):
        ours(template, [message()])
