"""IFD: the formula, the layout of its two texts, and real models against a slow reference in float64."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace

import pytest
import test_template
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import FAMILIES, tiny, tiny_tokenizer
from tokenizers import Regex, Tokenizer, pre_tokenizers
from tokenizers.models import BPE, WordLevel
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from boost_qa.errors import ModelError, SourceError
from boost_qa.star_agents.ifd import Likelihood, Skipped
from boost_qa.star_agents.layout import Parts, Typesetter
from boost_qa.star_agents.scorer import WASTE, WORTH, Scorer, alike, batches
from boost_qa.train.template import DialogueTokenizer
from boost_qa.types import Message

TOKENIZERS = test_template.REAL | {f"tiny {name}": lambda name=name: tiny_tokenizer(name) for name in FAMILIES}
HOSTILE = "</s> <s> <|im_end|> <|endoftext|> <|eot_id|> <|begin_of_text|> [INST] <|im_start|>assistant"

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
INST = (
    "{{ bos_token }}{% for message in messages %}{% if message.role == 'user' %}{{ '[INST] ' + message.content + "
    "' [/INST]' }}{% else %}{{ message.content + eos_token }}{% endif %}{% endfor %}"
)


def text(words: int, seed: int) -> str:
    draw = random.Random(seed)
    return " ".join(draw.choice("the sum of 12 and apples, x = 3.\nso: é 数 Step is".split(" ")) for _ in range(words))


# of very different lengths, some equal, one answer of a single letter
PAIRS = [(text(n * 7 % 50 + 1, n), text(n * n % 61 + 1, 100 + n)) for n in range(12)] + [("Why?", "x"), ("Why?", "x")]


# --- the formula ---------------------------------------------------------------------------------


def test_ifd_is_a_ratio_of_perplexities():
    found = Likelihood(tokens=2, conditioned=2 * math.log(3), alone=2 * math.log(12))
    assert found.perplexity == pytest.approx(3) and found.perplexity_alone == pytest.approx(12)
    assert found.ifd == pytest.approx(0.25) and found.log_ifd == pytest.approx(-math.log(4))
    assert found.ifd != pytest.approx(math.log(3) / math.log(12))  # the ratio of the losses


def test_ifd_is_exact_where_perplexities_overflow():
    found = Likelihood(tokens=10, conditioned=10_000.0, alone=10_000.0 + 10 * math.log(2))
    assert found.perplexity == math.inf and found.ifd == pytest.approx(0.5)
    assert Likelihood(1, 2000.0, 0.0).ifd == math.inf and Likelihood(1, 0.0, 2000.0).ifd == 0


def test_halves_by_hand():
    """Nats 1, 5, 2 given the prompt and 4, 4, 6 alone: the odd tokens are the first and the third."""
    odd, even = Likelihood(3, 8.0, 14.0, conditioned_odd=3.0, alone_odd=10.0).halves
    assert (odd.tokens, even.tokens) == (2, 1)
    assert odd.ifd == pytest.approx(math.exp((3 - 10) / 2)) and even.ifd == pytest.approx(math.exp(5 - 4))


def test_what_has_no_halves():
    assert Likelihood(2, 1.0, 1.0).halves is None  # as journals of before have it
    assert Likelihood(1, 1.0, 1.0, conditioned_odd=1.0, alone_odd=1.0).halves is None
    # the even part is nothing, but for how sums round
    even = Likelihood(3, 0.3, 1.0, conditioned_odd=0.1 + 0.2, alone_odd=1.0).halves[1]
    assert even.conditioned == even.alone == 0


@pytest.mark.parametrize("odd", [(1.1, 1.0), (1.0, -0.1), (math.nan, 1.0)])
def test_a_half_that_is_no_part_is_refused(odd):
    with pytest.raises(ValueError, match="_odd"):
        Likelihood(4, 1.0, 1.0, conditioned_odd=odd[0], alone_odd=odd[1])


@pytest.mark.parametrize(
    "values", [(0, 0.0, 0.0), (-1, 1.0, 1.0), (1, math.nan, 1.0), (1, 1.0, math.inf), (1, -0.1, 1.0)]
)
def test_what_is_no_likelihood_is_refused(values):
    with pytest.raises(ValueError):
        Likelihood(*values)


# --- layout --------------------------------------------------------------------------------------


SLOW = {"llama-3", "qwen2.5"}  # seconds to build


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in TOKENIZERS],
)
def tokenizer(request) -> PreTrainedTokenizerFast:
    """Each family's."""
    return TOKENIZERS[request.param]()


def test_the_plain_layout_is_that_of_training(tokenizer):
    """Before the answer and in it; sentencepiece alone may write a space before the first line of a text."""
    plain, training = Typesetter(tokenizer), DialogueTokenizer(tokenizer, "plain")
    question = "What is\nHuman: 6 x 7?"
    for answer in (each for each in test_template.ANSWERS if "</s>" not in each):
        encoded = training.encode([{"role": "user", "content": question}, {"role": "assistant", "content": answer}])
        (begin, end) = encoded.turns[0]
        parts = plain((question, answer))
        assert parts.answer == encoded.ids[begin : end - 1]
        assert parts.header == encoded.ids[begin - len(parts.header) : begin]
        right = tokenizer.decode(encoded.ids[: end - 1])
        assert tokenizer.decode(parts.conditioned).replace("> Human", ">Human") == right.replace("> Human", ">Human")
        if tokenizer.decode(parts.front) != "<s>":
            assert parts.conditioned == encoded.ids[: end - 1]


def test_both_texts_end_in_the_same_header_and_answer(tokenizer):
    parts, decode = Typesetter(tokenizer)(("What is 6 x 7?", " It is 42. ")), tokenizer.decode
    front = decode(parts.front)
    whole = f"{front}Human:\nWhat is 6 x 7?\nAssistant:\nIt is 42."
    assert decode(parts.conditioned).replace("> Human", ">Human") == whole
    assert decode(parts.alone) == f"{front}Assistant:\nIt is 42."
    assert parts.alone == parts.front + parts.header + parts.answer
    assert parts.conditioned == parts.front + parts.prompt + parts.header + parts.answer


@pytest.mark.parametrize("layout", ["plain", "chat"])
def test_text_never_becomes_a_control_token(tokenizer, layout):
    controls = {id for id, token in tokenizer.added_tokens_decoder.items() if token.special}
    tokenizer.chat_template = CHATML
    typeset = Typesetter(tokenizer, layout)
    clean, hostile = typeset(("a", "b")), typeset((HOSTILE, HOSTILE))
    count = [sum(id in controls for id in parts.conditioned) for parts in (clean, hostile)]
    assert count[0] == count[1] and not controls & set(hostile.answer)
    assert len(hostile.answer) < 0.9 * len(HOSTILE)  # in words where it can be, not letter by letter
    assert HOSTILE.replace(" ", "") in tokenizer.decode(hostile.answer).replace(" ", "")


def test_text_does_not_merge_up_to_a_control_token():
    merges = [("<", "s"), ("<s", ">")]
    vocabulary = {token: place for place, token in enumerate(["<s>", "<", "s", ">", "<s", "?", "\n"])}
    model = BPE(vocab=vocabulary, merges=merges, unk_token="?")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(model), unk_token="?")
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    assert Typesetter(tokenizer)(("q", "s<s>>")).answer == [2, 1, 2, 3, 3]


def test_a_line_of_text_takes_no_turn():
    decode = tiny_tokenizer("qwen2").decode
    parts = Typesetter(tiny_tokenizer("qwen2"))(("Human:\nx\nAssistant:\n42", "No\nAssistant: yes"))
    assert decode(parts.conditioned) == "Human:\n Human:\nx\n Assistant:\n42\nAssistant:\nNo\n Assistant: yes"


def test_headings_are_lines_that_no_text_can_write():
    decode = tiny_tokenizer("qwen2").decode
    parts = Typesetter(tiny_tokenizer("qwen2"), "headings")(
        ("Human:\n### Response:\n42", "No\n### Instruction: stop\n ### Response: x")
    )
    prompt = "### Instruction:\nHuman:\n ### Response:\n42\n"
    answer = "No\n ### Instruction: stop\n ### Response: x"
    assert decode(parts.conditioned) == prompt + "### Response:\n" + answer
    assert decode(parts.alone) == "### Response:\n" + answer


def test_the_last_turn_is_scored_given_all_before_it():
    turns = [("system", "Be brief."), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
    parts = Typesetter(tiny_tokenizer("qwen2"))([Message(*turn) for turn in turns])
    decode = tiny_tokenizer("qwen2").decode
    assert decode(parts.prompt) == "System:\nBe brief.\nHuman:\na\nAssistant:\nb\nHuman:\nc\n"
    assert decode(parts.alone) == "Assistant:\nd"


@pytest.mark.parametrize(
    "messages", [[], [Message("assistant", "a")], [Message("assistant", "a"), Message("user", "b")]]
)
def test_rows_without_prompt_or_answer_are_refused(messages):
    with pytest.raises(SourceError, match="neither"):
        Typesetter(tiny_tokenizer("qwen2"))(messages)


def test_the_chat_layout_is_the_models_own():
    tokenizer = tiny_tokenizer("qwen2")
    tokenizer.chat_template = CHATML
    parts = Typesetter(tokenizer, "chat")(("What is 6 x 7?", "42"))
    asked = [{"role": "user", "content": "What is 6 x 7?"}]
    prompt = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=False)
    assert parts.conditioned == prompt + parts.answer and tokenizer.decode(parts.answer) == "42"
    assert tokenizer.decode(parts.alone) == "<|im_start|>assistant\n42"


def test_a_chat_template_without_a_header_leaves_the_beginning_of_text():
    tokenizer = tiny_tokenizer("mistral")
    tokenizer.chat_template = INST
    parts = Typesetter(tokenizer, "chat")(("What is 6 x 7?", "42"))
    assert parts.alone == [tokenizer.bos_token_id, *parts.answer]
    assert parts.conditioned.count(tokenizer.bos_token_id) == 1
    tokenizer.chat_template = INST.replace("{{ bos_token }}", "")
    with pytest.raises(ModelError, match="neither a beginning of text nor"):
        Typesetter(tokenizer, "chat")(("a", "b"))


def test_a_chat_template_that_drops_or_refuses_messages_is_refused():
    tokenizer = tiny_tokenizer("qwen2")
    with pytest.raises(ModelError, match="no chat template"):
        Typesetter(tokenizer, "chat")
    tokenizer.chat_template = CHATML.replace("in messages", "in messages[1:]")
    with pytest.raises(ModelError, match="leaves out"):
        Typesetter(tokenizer, "chat")(("a", "b"))
    tokenizer.chat_template = "{{ raise_exception('no system role') }}"
    with pytest.raises(ModelError, match="no system role"):
        Typesetter(tokenizer, "chat")(("a", "b"))


def test_a_chat_template_prints_the_same_date_on_any_day():
    tokenizer = tiny_tokenizer("qwen2")
    tokenizer.chat_template = "{{ strftime_now('%d %B %Y') + '\n' }}" + CHATML
    assert tokenizer.decode(Typesetter(tokenizer, "chat")(("a", "b")).prompt).startswith("01 January 2026\n")


def test_a_cut_row_keeps_the_answers_beginning_and_the_prompts_end():
    parts = Parts([0], [*range(10, 30)], [1, 2], [*range(50, 70)])
    cut = parts.cut(23)  # twenty within; the prompt is sure of five
    assert cut.answer == [*range(50, 65)] and cut.prompt == [*range(25, 30)]
    assert (cut.prompt_left_out, cut.answer_left_out) == (15, 5)
    cut = Parts([0], [*range(10, 30)], [1, 2], [50]).cut(13)
    assert cut.answer == [50] and cut.prompt == [*range(21, 30)] and cut.answer_left_out == 0
    cut = Parts([0], [10], [1, 2], [*range(50, 70)]).cut(13)
    assert cut.prompt == [10] and len(cut.answer) == 9
    with pytest.raises(ValueError, match="no answer has room"):
        parts.cut(3)


@settings(deadline=None)
@given(st.integers(0, 40), st.integers(1, 40), st.integers(4, 90))
def test_a_cut_row_fills_its_room(prompt, answer, room):
    parts = Parts([0], [1] * prompt, [2, 3], [4] * answer)
    cut = parts.cut(room)
    assert len(cut.conditioned) == min(room, len(parts.conditioned)) and cut.answer
    assert len(cut.prompt) + cut.prompt_left_out == prompt and len(cut.answer) + cut.answer_left_out == answer
    assert len(cut.prompt) >= min(prompt, (room - 3) // 4)


# --- models --------------------------------------------------------------------------------------


def reference(folder, parts: Parts) -> Likelihood:
    """Eq. 4 word by word: one text at a time, every probability of every place, in float64."""
    obvious = {"attn_implementation": "eager", "experts_implementation": "eager"}
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64, **obvious).eval()
    sums, odd = [], []
    for ids in (parts.conditioned, parts.alone):
        with torch.no_grad():
            probabilities = torch.softmax(model(torch.tensor([ids]), use_cache=False).logits[0], dim=-1)
        places = range(len(ids) - len(parts.answer), len(ids))
        nats = [-math.log(probabilities[place - 1, ids[place]].item()) for place in places]
        sums.append(sum(nats))
        odd.append(sum(nats[at] for at in range(0, len(nats), 2)))
    return Likelihood(len(parts.answer), *sums, conditioned_odd=odd[0], alone_odd=odd[1])


def assert_equal(found: list[Likelihood], right: list[Likelihood], tolerance: float = 1e-5) -> None:
    assert len(found) == len(right)
    for mine, other in zip(found, right, strict=True):
        assert mine.tokens == other.tokens
        for name in ("conditioned", "alone", "conditioned_odd", "alone_odd"):
            assert getattr(mine, name) / mine.tokens == pytest.approx(getattr(other, name) / mine.tokens, abs=tolerance)
        assert mine.ifd == pytest.approx(other.ifd, abs=tolerance)


@pytest.fixture(scope="module", params=FAMILIES)
def spread(request, tmp_path_factory):
    """A tiny model whose logits are far apart, and the reference's scores of PAIRS."""
    folder = tiny(request.param, tmp_path_factory.mktemp("spread") / request.param, initializer_range=0.2)
    typeset = Typesetter(tiny_tokenizer(request.param))
    return folder, [reference(folder, typeset(pair)) for pair in PAIRS]


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return tiny("llama", tmp_path_factory.mktemp("llama"), initializer_range=0.2)


@pytest.mark.parametrize("batch_tokens, window", [(1, 1), (150, 5), (4096, 256)])
def test_scores_are_those_of_the_reference_in_any_batches(spread, batch_tokens, window):
    folder, right = spread
    scorer = Scorer(str(folder), dtype="float32", batch_tokens=batch_tokens, window=window, device="cpu")
    assert_equal(list(scorer.score(iter(PAIRS))), right)


def test_scores_depend_on_no_order(spread):
    folder, right = spread
    places = list(range(len(PAIRS)))
    random.Random(1).shuffle(places)
    scorer = Scorer(str(folder), dtype="float32", device="cpu")
    assert_equal(list(scorer.score([PAIRS[place] for place in places])), [right[place] for place in places])
    assert list(scorer.score(PAIRS)) == list(scorer.score(PAIRS))


# of three records, one with a prompt too short to be worth anything, and in no order; two answers are the same
CANDIDATES = [(text(words, words), text(3 + 7 * n % 31, n % 5)) for n in range(6) for words in (60, 1, 25)]
CANDIDATES[3] = (CANDIDATES[3][0], "x")


class Tokens:
    """Counts the tokens that go through a model's layers, padding included."""

    def __init__(self, scorer: Scorer) -> None:
        self.seen = 0
        scorer.model.get_input_embeddings().register_forward_hook(self.count)

    def count(self, module, args, output) -> None:
        self.seen += args[0].numel()


@pytest.mark.parametrize("batch_tokens", [1, 300, 4096])
def test_a_prompt_of_many_answers_is_computed_once_to_the_same_scores(spread, batch_tokens):
    folder, _ = spread
    scorer = Scorer(str(folder), dtype="float32", batch_tokens=batch_tokens, device="cpu")
    right = [reference(folder, scorer.typeset(pair)) for pair in CANDIDATES]
    tokens = Tokens(scorer)
    assert_equal(list(scorer.score(CANDIDATES)), right)
    laid = [scorer.typeset(pair) for pair in CANDIDATES]
    saved = 5 * sum(len(laid[at].conditioned) - len(laid[at].answer) - 1 for at in (0, 2))
    whole = sum(len(parts.conditioned) + len(parts.alone) for parts in laid)
    assert tokens.seen <= (1 + WASTE) * (whole - saved) < whole


def test_prompts_that_were_cut_differently_are_not_taken_for_one(llama):
    pairs = [(text(90, 1), text(words, words)) for words in (2, 4, 20, 20, 20, 60)]
    scorer = Scorer(str(llama), dtype="float32", device="cpu", max_tokens=64)
    found = list(scorer.score(pairs))
    assert len({each.prompt_left_out for each in found}) > 2
    assert_equal(
        [replace(each, prompt_left_out=0, answer_left_out=0) for each in found],
        [reference(llama, scorer.typeset(pair).cut(64)) for pair in pairs],
    )


def test_another_arrangement_is_the_same_model(llama):
    scorer = Scorer(str(llama), dtype="float32", device="cpu")
    again = scorer.arranged("headings")
    assert again.model is scorer.model
    found = list(again.score(PAIRS))
    assert found == list(Scorer(str(llama), dtype="float32", device="cpu", template="headings").score(PAIRS))
    assert [each.tokens for each in found] == [each.tokens for each in scorer.score(PAIRS)]
    assert all(each.ifd != other.ifd for each, other in zip(found, scorer.score(PAIRS), strict=True))


def test_bfloat16_is_near(spread):
    folder, right = spread
    assert_equal(list(Scorer(str(folder), dtype="bfloat16", device="cpu").score(PAIRS)), right, 0.3)


def test_logits_of_large_vocabularies_come_some_at_a_time(tmp_path):
    """Some eighty at once, of more than two hundred in a batch."""
    shape = {"vocab_size": 100_000, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    folder = tiny("llama", tmp_path / "wide", **shape)
    pairs = [("a", text(60, seed)) for seed in range(2)]
    scorer = Scorer(str(folder), dtype="float32", device="cpu")
    typeset = Typesetter(tiny_tokenizer("llama"))
    assert_equal(list(scorer.score(pairs)), [reference(folder, typeset(pair)) for pair in pairs])


def other_model(folder, kind: str, **shape) -> str:
    config = AutoConfig.for_model(kind, vocab_size=1280, **shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for each in model.parameters():
            each.mul_(5)
    model.save_pretrained(folder)
    tiny_tokenizer("qwen2").save_pretrained(folder)
    return str(folder)


SMALL = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.mark.parametrize(
    "kind, shape",
    [
        ("gemma2", SMALL | {"num_key_value_heads": 1, "head_dim": 16, "final_logit_softcapping": 2.0}),
        ("cohere", SMALL | {"logit_scale": 0.5}),
        ("granite", SMALL | {"logits_scaling": 3.0}),
        ("mistral", SMALL | {"num_key_value_heads": 1, "sliding_window": 8}),
        ("mixtral", SMALL | {"num_key_value_heads": 1, "num_local_experts": 2}),
        ("gpt_neox", SMALL | {"max_position_embeddings": 256}),
        ("opt", {"hidden_size": 32, "ffn_dim": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
                 "word_embed_proj_dim": 32}),
        ("bloom", {"hidden_size": 32, "n_layer": 1, "n_head": 2}),
        ("mamba", {"hidden_size": 32, "num_hidden_layers": 1, "state_size": 4}),
    ],
)  # fmt: skip
def test_what_models_do_to_their_logits_is_kept(tmp_path, kind, shape):
    folder = other_model(tmp_path / kind, kind, **shape)
    typeset, rows = Typesetter(tiny_tokenizer("qwen2")), PAIRS[:4] + CANDIDATES[:9:3]
    scorer = Scorer(folder, dtype="float32", device="cpu")
    assert (scorer._forward.before is None) == (kind == "mamba"), "whether prompts are computed once"
    assert_equal(list(scorer.score(rows)), [reference(folder, typeset(pair)) for pair in rows], 2e-5)


def test_a_model_that_looks_ahead_is_refused(tmp_path):
    folder = other_model(tmp_path / "bert", "bert", **SMALL, is_decoder=False)
    with pytest.raises(ModelError, match="what stands behind a text changes its scores"):
        Scorer(folder, device="cpu")


def test_the_worked_example(tmp_path):
    """A model of three tokens (a, b, and any other character) that looks at nothing but the place.

    Up to place 10 the next token is a, b or another with 1/2, 1/4, 1/4; from place 11 with 1/5, 2/5, 2/5.

    Alone, the eleven characters "Assistant:" and its end of line stand on places 0 to 10. The answer "ab" has
    P(a) = 1/2 from place 10, P(b) = 2/5 from place 11: together 1/5, a perplexity of 5 ** (1/2).
    After "Human:", "q" and their ends of line, nine characters, it has 1/5 from place 19 and 2/5 from place 20:
    2/25, a perplexity of 12.5 ** (1/2). IFD = (12.5 / 5) ** (1/2) = 2.5 ** (1/2).
    """
    config = GPT2Config(vocab_size=3, n_embd=2, n_layer=1, n_head=1, n_positions=64, tie_word_embeddings=False)
    model = GPT2LMHeadModel(config)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            weights.fill_(1.0 if name.endswith("ln_f.weight") else 0.0)
        # the last layer norm makes them (1, -1) and (-1, 1)
        model.transformer.wpe.weight[:11] = torch.tensor([1000.0, -1000.0])
        model.transformer.wpe.weight[11:] = torch.tensor([-1000.0, 1000.0])
        # logits (log 2, 0, 0) and (-log 2, 0, 0)
        model.lm_head.weight[0] = torch.tensor([math.log(2) / 2, -math.log(2) / 2])
    model.save_pretrained(tmp_path)
    letters = Tokenizer(WordLevel({"a": 0, "b": 1, "?": 2}, unk_token="?"))
    letters.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    PreTrainedTokenizerFast(tokenizer_object=letters, unk_token="?").save_pretrained(tmp_path)
    (found,) = Scorer(str(tmp_path), dtype="float32", device="cpu").score([("q", "ab")])
    assert found.tokens == 2
    assert found.alone == pytest.approx(math.log(5), abs=1e-6)
    assert found.alone_odd == pytest.approx(math.log(2), abs=1e-6)
    assert found.conditioned_odd == pytest.approx(math.log(5), abs=1e-6)
    assert found.conditioned == pytest.approx(math.log(12.5), abs=1e-6)
    assert found.ifd == pytest.approx(2.5**0.5, abs=1e-6)


def test_long_rows_are_cut_or_skipped_and_say_so(llama):
    pairs = [("Why?", "Because."), (text(90, 1), "Because."), ("Why?", text(300, 2)), ("Why?", "  \n ")]
    cut = list(Scorer(str(llama), dtype="float32", device="cpu", max_tokens=64).score(pairs))
    assert cut[3] == Skipped("empty")
    assert (cut[0].prompt_left_out, cut[0].answer_left_out) == (0, 0)
    assert cut[1].prompt_left_out > 0 and cut[1].answer_left_out == 0 and cut[1].tokens == cut[0].tokens
    assert cut[2].prompt_left_out == 0 and cut[2].answer_left_out > 0
    typeset = Typesetter(Scorer(str(llama), device="cpu").typeset.tokenizer)
    assert_equal(cut[:3], [reference(llama, typeset(pair).cut(64)) for pair in pairs[:3]])
    skipped = list(Scorer(str(llama), dtype="float32", device="cpu", max_tokens=64, too_long="skip").score(pairs))
    assert skipped[1:] == [Skipped("too_long"), Skipped("too_long"), Skipped("empty")]
    assert_equal(skipped[:1], cut[:1])


def test_a_text_is_never_longer_than_the_models_context(tmp_path):
    folder = tiny("llama", tmp_path / "short", max_position_embeddings=48)
    scorer = Scorer(str(folder), device="cpu")
    (found,) = scorer.score([(text(50, 1), text(50, 2))])
    assert scorer.max_tokens == 48 and found.prompt_left_out > 0 and found.answer_left_out > 0


def test_rows_are_read_a_window_at_a_time(llama):
    read = []
    rows = (read.append(number) or ("Why?", "x") for number in range(9))
    scores = Scorer(str(llama), device="cpu", window=3).score(rows)
    next(scores)
    assert len(read) == 3 and len(list(scores)) == 8


@settings(deadline=None)
@given(st.lists(st.integers(1, 500), max_size=60), st.integers(1, 2000))
def test_batches_hold_every_text_once_and_little_padding(lengths, budget):
    found = batches(lengths, budget)
    assert sorted(place for batch in found for place in batch) == list(range(len(lengths)))
    for batch in found:
        longest = max(lengths[place] for place in batch)
        assert len(batch) == 1 or longest * len(batch) <= budget
        assert min(lengths[place] for place in batch) >= (1 - WASTE) * longest
    assert [lengths[place] for batch in found for place in batch] == sorted(lengths, reverse=True)
    assert batches([10] * 10, 50) == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]  # and fills what it may


@settings(deadline=None)
@given(st.lists(st.tuples(st.text("ab", max_size=3), st.integers(1, 4)), max_size=20))
def test_what_is_computed_once_is_what_texts_share(rows):
    texts = [[ord(letter) for letter in prompt] + [0] * (1 + answer) for prompt, answer in rows]
    answers = [answer for _, answer in rows]
    found = alike(texts, answers)
    assert sorted(place for _, places in found for place in places) == list(range(len(texts)))
    for shared, places in found:
        assert len({tuple(texts[place][:shared]) for place in places}) == 1 and places
        assert not shared or len(places) * shared - shared > WORTH * sum(len(texts[place]) for place in places)
        assert all(not shared or len(texts[place]) == shared + 1 + answers[place] for place in places)


def test_what_is_no_language_model_is_refused(tmp_path, llama):
    folder = tiny("llama", tmp_path / "broken")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "vit"}))
    with pytest.raises(ModelError, match="cannot be loaded as a causal language model"):
        Scorer(str(folder))
    with pytest.raises(ModelError, match="no model that can be trained"):
        Scorer("nothing here")
    with pytest.raises(ValueError, match="template|layout"):
        Scorer(str(llama), template="pain")
    with pytest.raises(ValueError, match="too_long"):
        Scorer(str(llama), too_long="drop")


def test_a_model_that_gives_no_numbers_is_refused(tmp_path):
    folder = tiny("llama", tmp_path / "nan")
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.lm_head.weight[700:] = math.nan
    model.save_pretrained(folder)
    with pytest.raises(ModelError, match="scores in float32 are no numbers"):
        Scorer(str(folder), dtype="float32", device="cpu")
