"""Chats to tokens and labels, with a tokenizer whose tokens are bytes."""

from __future__ import annotations

import copy
import hashlib
from typing import Any

import pytest

from hpcbench.catalog.models import TEMPLATES
from hpcbench.errors import WorkerError
from hpcbench.schemas.arguments import SftArgs
from hpcbench.worker.data.chat_templates import pick_chat_template
from hpcbench.worker.data.encoded import Encoded
from hpcbench.worker.data.rendered import AnswerEnds
from hpcbench.worker.data.templates import Template
from tests.support.tiny_models import CHATML, make_tokenizer

CHAT = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]
TWO_ROUNDS = [*CHAT, {"role": "user", "content": "bye"}, {"role": "assistant", "content": "ciao"}]
THINKING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.last %}<t>{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""As Qwen3's: only the last answer carries its thinking."""


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return make_tokenizer()


def text_of(tokenizer: Any, encoded: Encoded) -> tuple[str, str]:
    """Return the whole text and the part that loss is taken on."""
    learnt = [token for token, label in zip(encoded.input_ids, encoded.labels, strict=True) if label != -100]
    return tokenizer.decode(encoded.input_ids), tokenizer.decode(learnt)


def test_loss_is_on_the_last_answer_and_its_end_token_only(tokenizer: Any) -> None:
    whole, learnt = text_of(tokenizer, Template(tokenizer).encode(TWO_ROUNDS))
    assert learnt == "ciao<|im_end|>"
    assert whole == (
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nyo<|im_end|>\n"
        "<|im_start|>user\nbye<|im_end|>\n<|im_start|>assistant\nciao<|im_end|>"
    )


def test_loss_is_on_every_answer_when_asked_for(tokenizer: Any) -> None:
    whole, learnt = text_of(tokenizer, Template(tokenizer, loss_on_all_rounds=True).encode(TWO_ROUNDS))
    assert learnt == "yo<|im_end|>ciao<|im_end|>"
    assert whole.endswith("bye<|im_end|>\n<|im_start|>assistant\nciao<|im_end|>")


def test_training_prefix_is_the_evaluations_prompt_token_by_token(tokenizer: Any) -> None:
    template = Template(tokenizer, system="be brief")
    encoded = template.encode(TWO_ROUNDS)
    prompt = tokenizer.apply_chat_template(
        [{"role": "system", "content": "be brief"}, *TWO_ROUNDS[:-1]], add_generation_prompt=True, return_dict=False
    )
    assert encoded.input_ids[: len(prompt)] == prompt
    assert encoded.labels[: len(prompt)] == [-100] * len(prompt)
    assert encoded.labels[len(prompt)] == encoded.input_ids[len(prompt)]
    assert template.prefix_ids(TWO_ROUNDS[:-1]) == prompt
    assert tokenizer.decode(prompt) == template.prefix_text(TWO_ROUNDS[:-1])


def test_a_rows_system_prompt_comes_before_the_arguments(tokenizer: Any) -> None:
    chat = [{"role": "system", "content": "row"}, *CHAT]
    whole, _ = text_of(tokenizer, Template(tokenizer, system="args").encode(chat))
    assert whole.startswith("<|im_start|>system\nrow<|im_end|>")
    assert "args" not in whole


def test_too_long_samples_keep_their_last_tokens(tokenizer: Any) -> None:
    full = Template(tokenizer).encode(CHAT)
    cut = Template(tokenizer, max_length=10).encode(CHAT)
    assert cut.truncated
    assert not full.truncated
    assert cut.input_ids == full.input_ids[-10:]
    assert cut.labels == full.labels[-10:]


def test_delete_drops_too_long_samples(tokenizer: Any) -> None:
    template = Template(tokenizer, max_length=10, truncation_strategy="delete")
    assert template.encode(CHAT) == Encoded(input_ids=[], labels=[], truncated=True)


def test_a_template_that_drops_the_end_gets_an_end_token(tokenizer: Any) -> None:
    no_end = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
    whole, learnt = text_of(tokenizer, Template(tokenizer, chat_template=no_end).encode(CHAT))
    assert learnt == "yo\n<|im_end|>"
    assert whole.startswith("user: hi\nassistant: yo")


def test_a_template_that_rewrites_the_prompt_is_refused(tokenizer: Any) -> None:
    rewriting = "{% for m in messages %}{{ m.content }}|{% endfor %}{% if add_generation_prompt %}ANSWER{% endif %}"
    with pytest.raises(WorkerError, match="differently from the prompt"):
        Template(tokenizer, chat_template=rewriting).encode(CHAT)


def test_a_template_that_rewrites_earlier_answers_serves_the_last_round_but_not_all(tokenizer: Any) -> None:
    _, learnt = text_of(tokenizer, Template(tokenizer, chat_template=THINKING).encode(TWO_ROUNDS))
    assert learnt == "<t>ciao<|im_end|>"
    with pytest.raises(WorkerError, match="differently from the prompt"):
        Template(tokenizer, chat_template=THINKING, loss_on_all_rounds=True).encode(TWO_ROUNDS)


def test_without_a_chat_template_messages_are_lines() -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = None
    template = Template(tokenizer, system="be brief")
    assert not template.has_chat_template
    whole, learnt = text_of(tokenizer, template.encode(TWO_ROUNDS))
    assert whole == "be brief\nhi\nyo\nbye\nciao<|im_end|>"
    assert learnt == "ciao<|im_end|>"
    assert template.prefix_text(CHAT[:1]) == "be brief\nhi\n"


def test_a_chat_must_end_with_an_answer(tokenizer: Any) -> None:
    with pytest.raises(WorkerError, match="must end with an assistant message"):
        Template(tokenizer).encode(CHAT[:1])


def test_the_catalogs_template_stands_in_for_a_tokenizer_without_one() -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = None
    args = SftArgs(model_type="qwen-7b-chat", dataset="x")
    text = Template.from_args(args, tokenizer).prefix_text(CHAT[:1])
    assert text == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    )


def test_an_unknown_template_type_is_named(tokenizer: Any) -> None:
    args = SftArgs(model_id_or_path="m", template_type="nonsense")
    with pytest.raises(WorkerError, match="no template 'nonsense'; known: baichuan"):
        Template.from_args(args, tokenizer)


def with_templates(**templates: str) -> Any:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = templates
    return tokenizer


def test_a_tokenizer_with_several_chat_templates_renders_chats_by_its_default(tokenizer: Any) -> None:
    several = with_templates(default=CHATML, tool_use="tools", rag="rag")
    assert Template(several).encode(TWO_ROUNDS) == Template(tokenizer).encode(TWO_ROUNDS)
    assert Template(several).has_chat_template


def test_a_chat_with_tools_takes_the_tokenizers_template_for_tools_where_it_has_one() -> None:
    assert pick_chat_template({"default": "d", "tool_use": "t"}, has_tools=True) == "t"
    assert pick_chat_template({"default": "d"}, has_tools=True) == "d"
    assert pick_chat_template({"default": "d", "tool_use": "t"}, has_tools=False) == "d"


def test_chat_templates_without_a_default_are_refused_by_name_and_a_named_template_takes_their_place() -> None:
    several = with_templates(rag="rag", tool_use="tools")
    with pytest.raises(WorkerError, match="the tokenizer has rag, tool_use, and none is named default") as refused:
        Template(several).encode(CHAT)
    assert refused.value.hint == "set template_type to a template of the catalog"
    args = SftArgs(model_id_or_path="any", template_type="chatml", sft_type="lora")
    assert Template.from_args(args, several).encode(CHAT).input_ids


START = "{% for m in messages %}<|im_start|>{{ m.role }}\n"
END = "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
WITHOUT_THINKING = START + "{{ m.content.split('</think>')[-1] }}" + END
"""As DeepSeek-R1's distilled models: no answer keeps its thinking, the one to be learned neither."""
ONLY_PARTS = START + "{% for part in m.content %}{{ part.text }}{% endfor %}" + END
"""As of models with images: of plain text, which is not a list of parts, nothing is written."""
WITHOUT_SYSTEM = START.replace("messages %}", "messages if m.role != 'system' %}") + "{{ m.content }}" + END
NO_SYSTEM_ROLE = "{{ raise_exception('System role not supported') if messages[0].role == 'system' }}" + START
THOUGHT = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "<think>why</think>yo"}]


@pytest.mark.parametrize(
    ("chat_template", "chat", "place"),
    [
        (WITHOUT_THINKING, THOUGHT, "assistant turn 2: '<think>why</think>yo'"),
        (ONLY_PARTS, CHAT, "user turn 1: 'hi'"),
        (WITHOUT_SYSTEM, [{"role": "system", "content": "brief"}, *CHAT], "system turn 1: 'brief'"),
    ],
)
def test_a_template_that_leaves_out_what_is_trained_on_is_refused(
    chat_template: str, chat: list[dict[str, str]], place: str
) -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = chat_template
    with pytest.raises(WorkerError) as caught:
        Template(tokenizer).encode(chat)
    assert caught.value.message == f"the chat template leaves out text of the {place}"
    assert Template(tokenizer, chat_template=CHATML).encode(chat).input_ids  # as the hint says


def test_a_template_may_drop_the_thinking_of_earlier_answers_and_trim_texts() -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = START + "{{ (m.content if loop.last else m.content.split('</think>')[-1]) | trim }}" + END
    chat = [*THOUGHT, {"role": "user", "content": " a\n\nb "}, {"role": "assistant", "content": "\nc"}]
    whole, learnt = text_of(tokenizer, Template(tokenizer).encode(chat))
    assert "why" not in whole
    assert learnt == "c<|im_end|>"


def test_a_template_without_a_system_role_says_what_to_do() -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = NO_SYSTEM_ROLE + "{{ m.content }}" + END
    with pytest.raises(WorkerError) as caught:
        Template(tokenizer, system="brief").encode(CHAT)
    assert str(caught.value) == (
        "the chat template rejects a chat with the roles system, user: System role not supported\n  hint: where it "
        "takes no system turn set system: null and leave such turns out of the rows, or set template_type to a "
        "template of the catalog, such as chatml"
    )
    assert Template(tokenizer, system=None).encode(CHAT).input_ids
    assert Template(tokenizer, system="brief", chat_template=CHATML).encode(CHAT).input_ids


@pytest.mark.parametrize("expression", ["1 / 0", "'a'.index('b')", "[][0].x.y", "'a' + 1", "m | fromjson"])
def test_whatever_a_template_raises_is_a_message(expression: str) -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = START + "{{ " + expression + " }}" + END
    with pytest.raises(WorkerError, match="the chat template rejects a chat with the roles user: "):
        Template(tokenizer).encode(CHAT)


GENERATION = ("default-generation", "default-generation-bos", "chatglm2-generation")


def made(tokenizer: Any, **values: Any) -> Template:
    return Template.from_args(SftArgs(model_id_or_path="m", **values), tokenizer)


@pytest.mark.parametrize("name", GENERATION)
def test_templates_of_base_models_write_question_and_answer_alone(tokenizer: Any, name: str) -> None:
    template = made(tokenizer, template_type=name, system="be brief")
    assert text_of(tokenizer, template.encode(CHAT)) == ("hiyo<|im_end|>", "yo<|im_end|>")
    assert template.prefix_text([{"role": "system", "content": "as a row has it"}, CHAT[0]]) == "hi"
    assert not template.takes_system


@pytest.mark.parametrize("name", sorted(set(TEMPLATES.names()) - set(GENERATION)))
def test_every_other_template_of_the_catalog_has_a_place_for_a_system_prompt(tokenizer: Any, name: str) -> None:
    assert made(tokenizer, template_type=name).takes_system


def test_a_template_that_writes_the_date_writes_the_same_on_every_day(tokenizer: Any) -> None:
    dated = "{{ strftime_now('%d %b %Y') }}|{{ messages[0].content }}{% if add_generation_prompt %}:{% endif %}"
    template = Template(tokenizer, chat_template=dated)
    assert template.prefix_text(CHAT[:1]) == "26 Jul 2024|hi:"
    assert template.description.endswith(", dated 2024-07-26")
    spelt = "\n{{ strftime_now('%A, %-d. %B %y (%j) %H:%M %p') }}"
    assert Template(tokenizer, chat_template=spelt).prefix_text(CHAT[:1]) == "\nFriday, 26. July 24 (208) 00:00 AM"
    in_macro = "{% macro day() %}{{ strftime_now('%d') }}{% endmacro %}{{ day() }}"
    assert Template(tokenizer, chat_template=in_macro).prefix_text(CHAT[:1]) == "26"
    defined = "{% if strftime_now is defined %}{{ strftime_now('%Y-%m-%d') }}{% endif %}"
    assert Template(tokenizer, chat_template=defined).prefix_text(CHAT[:1]) == "2024-07-26"


def test_a_template_is_described_by_its_source_and_hash(tokenizer: Any) -> None:
    digest = hashlib.sha256(tokenizer.chat_template.encode()).hexdigest()[:12]
    assert made(tokenizer).description == f"the tokenizer's, sha256 {digest}"
    assert made(tokenizer, template_type="llama").description.startswith("llama of the catalog, sha256 ")
    plain = copy.deepcopy(tokenizer)
    plain.chat_template = None
    assert made(plain).description == "none: messages joined by line breaks"
    assert made(plain, model_type="qwen-7b").description.startswith("default-generation of the catalog, sha256 ")
    plain.chat_template = {"rag": "{{ messages[0].content }}"}
    assert made(plain).description == "none of the tokenizer's templates is named default"


@pytest.mark.parametrize(
    ("after", "ends_with", "text"),
    [
        ("<|im_end|>\n", "<|im_end|>", ""),
        (" \n<|im_start|>", "<|im_start|>", ""),
        ("<eoa>\n", None, "<eoa>"),
        ("", None, ""),
    ],
)
def test_an_answer_ends_with_what_the_template_writes_after_it(
    tokenizer: Any, after: str, ends_with: str | None, text: str
) -> None:
    written = (
        "{% for m in messages %}{{ m.content }}{% if m.role == 'assistant' %}{{ "
        + repr(after)
        + " }}{% endif %}{% endfor %}"
    )
    ends = Template(tokenizer, chat_template=written).answer_ends
    wanted = [tokenizer.eos_token_id, *([] if ends_with is None else tokenizer(ends_with)["input_ids"])]
    assert ends == AnswerEnds(token_ids=tuple(dict.fromkeys(wanted)), text=text)
    assert ends.cut("yes<eoa>no") == ("yes" if text else "yes<eoa>no")


def test_a_switch_that_the_template_takes_out_is_no_lost_text(tokenizer: Any) -> None:
    obeying = CHATML.replace("['content']", "['content'] | replace('/think', '')")
    chat = [{"role": "user", "content": "hi /think"}, CHAT[1]]
    assert "hi" in text_of(tokenizer, Template(tokenizer, chat_template=obeying).encode(chat))[0]
