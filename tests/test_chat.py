"""Prompts: no text of a message becomes a control token, and ordinary text is tokenised as usual."""

import json
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boost_qa import models
from boost_qa.engines.chat import ChatTokenizer
from boost_qa.engines.control import control_text
from boost_qa.errors import ModelError
from boost_qa.types import Message

SMALL, TEACHER = "smollm2-135m-instruct", "qwen2.5-coder-1.5b-instruct"

ORDINARY = [
    "Hello world",
    "What is 12345 + 678,901?",
    "  two  spaces  7 and\t8",
    "def f(x):\n    return x**2\n\n\n# done",
    "naïve café — “quotes” …",
    "数学题：小明有12个苹果",
    "🙂👩‍👩‍👧 مرحبا בעולם",
    "I'll we've DON'T it's",
    "a\r\nb\n\n\nc   \n d",
    "$\\frac{a}{b}=0.5$ × 3²",
    "x" * 300,
]


@pytest.fixture(scope="module")
def fetched():
    """Names to models: the small one, and the teacher where it is in the cache already."""
    here = {listing.name for listing in models.catalogue() if listing.fetched}
    return {name: models.fetch(name) for name in (SMALL, TEACHER) if name == SMALL or name in here}


@pytest.fixture(scope="module")
def tokenizers(fetched):
    return {name: ChatTokenizer(model.tokenizer) for name, model in fetched.items()}


def _planted():
    """Text with control tokens and pieces of them in it."""
    tokens = ["<|im_end|>", "<|im_start|>system\n", "<|endoftext|>", "<tool_call>", "</tool_call>", "<filename>"]
    tokens += ["<|im_", "start|>", "<|", "|>", "im_end", "<", "\n", "assistant", "<empty_output>", "<|fim_prefix|>"]
    # the small model has no tokens for a few ASCII controls, nor for planes 4 and above, where nothing is assigned
    letters = st.characters(exclude_categories=["Cs", "Cc"], include_characters="\t\n\r", max_codepoint=0x3FFFF)
    text = st.text(letters, max_size=20)
    return st.lists(st.one_of(st.sampled_from(tokens), text), max_size=8).map("".join)


def _reference(tokenizer, text):
    """What our tokenizer is promised to give back: ends stripped, and composed where the model's normalizer does so."""
    composes = tokenizer._without.normalizer is not None
    return unicodedata.normalize("NFC", text.strip()) if composes else text.strip()


@settings(deadline=None, max_examples=300)
@given(st.lists(_planted(), min_size=1, max_size=4))
def test_no_text_becomes_a_control_token(tokenizers, texts):
    roles = ["system", "user", "assistant", "user"]
    for tokenizer in tokenizers.values():
        asked = [Message(role, text) for role, text in zip(roles, texts, strict=False)]
        empty = [Message(role, "x") for role in roles[: len(texts)]]
        controls = [number for number in tokenizer.encode(asked) if number in tokenizer._forbidden]
        assert controls == [number for number in tokenizer.encode(empty) if number in tokenizer._forbidden]


@settings(deadline=None, max_examples=300)
@given(_planted())
def test_content_survives(tokenizers, text):
    for tokenizer in tokenizers.values():
        whole = tokenizer.decode(tokenizer.encode([Message("system", "s"), Message("user", text)]))
        begin, end = "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"
        assert whole[whole.index(begin) + len(begin) :] == _reference(tokenizer, text) + end


@pytest.mark.parametrize("name", [SMALL, TEACHER])
def test_ordinary_text_gives_the_usual_ids(fetched, tokenizers, tmp_path, name):
    from tokenizers import pre_tokenizers
    from transformers import AutoTokenizer

    if name not in fetched:
        pytest.skip(f"{name} is not in the cache")
    (tmp_path / "model.gguf").symlink_to(fetched[name].path)
    usual = AutoTokenizer.from_pretrained(tmp_path, gguf_file="model.gguf")
    if name == SMALL:  # transformers forgets that this model reads digits one by one
        usual.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
    for text in ORDINARY:
        for roles in (["user"], ["system", "user"], ["system", "user", "assistant", "user"]):
            asked = [Message(role, text.strip()) for role in roles]
            plain = [{"role": message.role, "content": message.content} for message in asked]
            expected = usual.apply_chat_template(plain, add_generation_prompt=True, return_dict=False)
            assert tokenizers[name].encode(asked) == list(expected), text


def test_what_the_folder_says(tokenizers):
    small = tokenizers[SMALL]
    assert small.context == 8192
    assert small.stop_ids == set(range(17))


def test_half_a_surrogate_pair_is_text_too(tokenizers):
    ids = tokenizers[SMALL].encode([Message("user", "broken \ud83d here")])
    assert "broken ? here" in tokenizers[SMALL].decode(ids)


def test_empty_message(tokenizers):
    ids = tokenizers[SMALL].encode([Message("system", "s"), Message("user", "  ")])
    assert "<|im_start|>user\n<|im_end|>" in tokenizers[SMALL].decode(ids)


def _folder(fetched, path, template, **settings):
    """A folder as Hugging Face models have it, with the small model's vocabulary and another template."""
    path.mkdir()
    (path / "tokenizer.json").symlink_to(fetched[SMALL].tokenizer / "tokenizer.json")
    facts = {"bos_token": {"content": "<|im_start|>"}, "eos_token": "<|im_end|>", "chat_template": template, **settings}
    (path / "tokenizer_config.json").write_text(json.dumps(facts))
    return path


def test_folder_of_hugging_face_files(fetched, tmp_path):
    template = "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content | trim }}{{ eos_token }}{% endfor %}"
    folder = _folder(fetched, tmp_path / "m", [{"name": "default", "template": template}], model_max_length=10**30)
    (folder / "generation_config.json").write_text('{"eos_token_id": [2, 40]}')
    tokenizer = ChatTokenizer(folder)
    ids = tokenizer.encode([Message("user", "<|im_end|> hi")])
    assert tokenizer.decode(ids) == "<|im_start|>[user] <|im_end|> hi<|im_end|>"
    assert [number for number in ids if number < 17] == [1, 2]
    assert tokenizer.context is None
    assert 40 in tokenizer.stop_ids
    (folder / "config.json").write_text('{"max_position_embeddings": 2048}')
    assert ChatTokenizer(folder).context == 2048


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        ("{{ raise_exception('no system role here') }}", "no system role here"),
        ("{% for m in messages if m.role != 'system' %}{{ m.content }}{% endfor %}", "leaves out a message .system."),
        ("{{ messages[0].content.__class__.__mro__ }}", "unsafe"),
    ],
)
def test_templates_that_cannot_say_it(fetched, tmp_path, template, complaint):
    tokenizer = ChatTokenizer(_folder(fetched, tmp_path / "m", template))
    with pytest.raises(ModelError, match=complaint):
        tokenizer.encode([Message("system", "rules"), Message("user", "hi")])


def test_date_in_a_template_does_not_depend_on_the_day(fetched, tmp_path):
    template = "{{ strftime_now('%d %B %Y') }} {{ messages[0].content }}"
    tokenizer = ChatTokenizer(_folder(fetched, tmp_path / "m", template))
    assert tokenizer.decode(tokenizer.encode([Message("user", "hi")])) == "01 January 2026 hi"


def test_folders_that_are_not_whole(fetched, tmp_path):
    with pytest.raises(ModelError, match=r"tokenizer_config\.json"):
        ChatTokenizer(tmp_path)
    with pytest.raises(ModelError, match="no chat template"):
        ChatTokenizer(_folder(fetched, tmp_path / "a", None))
    pointer = _folder(fetched, tmp_path / "c", "{{ messages }}") / "tokenizer.json"
    pointer.unlink()  # a link to the model in the cache
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 7031645\n")
    with pytest.raises(ModelError, match=r"c/tokenizer\.json: a pointer of Git LFS"):
        ChatTokenizer(pointer.parent)
    pointer.write_text("[]]")
    with pytest.raises(ModelError, match=r"c/tokenizer\.json: .*line 1 column"):
        ChatTokenizer(pointer.parent)
    with pytest.raises(ModelError, match="template is broken"):
        ChatTokenizer(_folder(fetched, tmp_path / "b", "{% for %}"))


@pytest.mark.parametrize(
    "token",
    ["<|im_end|>", "<|eot_id|>", "<|start_header_id|>", "<s>", "</s>", "[INST]", "[/INST]", "<<SYS>>", "<</SYS>>"]
    + ["<start_of_turn>", "<end_of_turn>", "<bos>", "<tool_call>", "</tool_call>", "<think>", "<\uff5cUser\uff5c>"]
    + ["<\uff5cbegin\u2581of\u2581sentence\uff5c>", "<|begin of text|>", "[TOOL_CALLS]", "[gMASK]", "<fim_prefix>"],
)
def test_control_text_is_found(token):
    assert control_text(f"What does {token} mean?") == token


@pytest.mark.parametrize(
    "text",
    ["a < b and |x| > 3", "f <| g |> h", "vector<string> v; if (a<b || c>d)", "x[i] = [INSTALL]", "<strong>hi</strong>"]
    + ["list<int> a(s);", "1 <|2", "P(A|B)", "for (s in <set>)", ""],
)
def test_ordinary_text_is_no_control_text(text):
    assert control_text(text) is None
