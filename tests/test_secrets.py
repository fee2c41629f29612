import base64
import json
import os
from urllib.parse import quote

import pytest
import real_tokenizers

from boost_qa.errors import PublishError
from boost_qa.publish.secrets import known_secrets, refuse_secrets, without

LETTERS = "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7cF0hJ" * 4
# put together here, so that nothing that looks for tokens takes this file for one
TOKENS = {
    "hf_" + LETTERS[:34]: "a Hugging Face token",
    "sk-" + LETTERS[:48]: "an OpenAI key",
    "sk-" + LETTERS[:20] + "T3Blbk" + "FJ" + LETTERS[:20]: "an OpenAI key",
    "sk-school-" + LETTERS[:20] + "T3Blbk" + "FJ" + LETTERS[:20]: "an OpenAI key",
    "sk-proj-" + LETTERS[:40] + "_-" + LETTERS[:60]: "an OpenAI key",
    "sk-or-v1-" + "0123456789abcdef" * 4: "an OpenAI key",
    "sk-ant-api03-" + LETTERS[:90] + "-_AA": "an Anthropic key",
    **{f"gh{kind}_" + LETTERS[:36]: "a GitHub token" for kind in "pousr"},
    "github_pat_" + LETTERS[:22] + "_" + LETTERS[:59]: "a GitHub token",
    "AKIA" + "ABCDEFGH23456789": "an AWS access key id",
    "ASIA" + "ABCDEFGH23456789": "an AWS access key id",
    "AIza" + LETTERS[:33] + "_-": "a Google API key",
    **{f"xox{kind}-" + "123456789012-" + LETTERS[:24]: "a Slack token" for kind in "abpr"},
    "-----BEGIN " + "RSA PRIVATE KEY-----": "a private key",
    "-----BEGIN " + "PRIVATE KEY-----": "a private key",
    "-----BEGIN " + "PGP PRIVATE KEY BLOCK-----": "a private key",
}
MINE = 'pass wörd/+"quoted"\\x'


def refused(content, path: str = "a/README.md", known=(), **pieces: int) -> str | None:
    try:
        refuse_secrets({"first.md": b"nothing", path: content}, known=known, **pieces)
    except PublishError as error:
        assert error.exit_code == 2 and error.remedy
        assert not any(secret in str(error) for secret in [*known, *TOKENS])
        return error.what
    return None


# --- shapes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", TOKENS, ids=TOKENS.values())
def test_a_token_is_found_by_its_shape_wherever_it_stands(token):
    expected = f"a/README.md, line 3: {TOKENS[token]}"
    for text in (f"{token}", f'key="{token}"', f"https://user:{token}@host", f"KEY={token};", f"(`{token}`)"):
        assert refused(f"one\ntwo\n{text}\nfour\n".encode()) == expected
        assert refused(f"one\r\ntwo\r\n{text}".encode()) == expected
    for before in "\n\r\t\b\f\u2028":
        assert refused(json.dumps({"log": f"one{before}{token}"}).encode(), "run.json")
    assert refused(f"https://host/?q=%20{token}".encode())
    assert refused(f"{token[:3]} {token[:4]}- {token[:11]} {token}".encode())


@pytest.mark.parametrize("token", TOKENS, ids=TOKENS.values())
def test_what_only_looks_like_a_token_is_not_one(token):
    for text in (f"x{token}", token[: len(token) // 4], token.lower() if token[0] == "A" else token[1:]):
        assert token.startswith("-----") or refused(text.encode()) is None


@pytest.mark.parametrize(
    "text",
    [
        "hf_hub_download(repo_id)\nhf_transfer",
        "hf_model_name_that_is_quite_long_and_goes_on_and_on",
        "2c7193e6a9b0d4f5c8e1a2b3c4d5e6f708192a3b",
        "sha256:" + "0123456789abcdef" * 4,
        "sk-" + "x" * 50 + " ask-mike-about-the-very-long-name-of-the-file-and-of-2-more-things",
        "sk-learn-compatible-estimators-with-a-very-long-name-indeed",
        "AKIA" + "ABCDEFGH2345678 " + "AKIA" + "ABCDEFGH234567890" + " AIza" + LETTERS[:36],
        "-----BEGIN PUBLIC KEY-----\n-----BEGIN CERTIFICATE-----",
    ],
)
def test_ordinary_text_is_not_refused(text):
    assert refused(text.encode()) is None


@pytest.mark.parametrize("family", real_tokenizers.REAL)
def test_no_tokenizer_is_refused(family):
    content = real_tokenizers.REAL[family]().backend_tokenizer.to_str().encode()
    assert len(content) > 1_000_000 and refused(content, "tokenizer.json", known=["hf_alice"]) is None


# --- secrets that are known ----------------------------------------------------------------------


def test_a_known_secret_is_found_in_text_in_all_its_forms():
    found = "a/README.md, line 2: a token or password of this environment"
    encoded = [base64.b64encode(before + MINE.encode()).decode() for before in (b"", b"u:", b"me:", b"you:")]
    escaped = [json.dumps(MINE), json.dumps(MINE, ensure_ascii=False), quote(MINE), quote(MINE, safe="").lower()]
    for text in (MINE, f"x{MINE}x", *encoded, *escaped):
        assert refused(f"one\n-{text}-\n".encode(), known=["other", MINE]) == found
        assert refused(f"one\n-{text}-\n".encode(), known=["other"]) is None
    shaped = next(iter(TOKENS))
    assert refused(f"\n{shaped}".encode(), known=[shaped]) == found
    assert refused(b"anything", known=["", ""]) is None


@pytest.mark.parametrize("name", ["model.safetensors", "data/all.PARQUET", "plot.png", "weights.bin"])
def test_in_other_files_only_known_secrets_are_looked_for(name, tmp_path):
    token = next(iter(TOKENS))
    file = tmp_path / "file"
    file.write_bytes(b"\0" * 10 * (name == "weights.bin") + b"\n\n" + token.encode() + MINE.encode())
    place = file.read_bytes().index(MINE.encode())
    assert refused(file, name) is None and refused(file, name, known=["", "another one"]) is None
    assert refused(b"\0" + base64.b64encode(MINE.encode()), name, known=[MINE]) is None  # in noise, forms cost time
    assert refused(file, name, known=[MINE]) == f"{name}, byte {place}: a token or password of this environment"


def test_a_nul_after_the_beginning_does_not_hide_text():
    token = next(iter(TOKENS))
    assert refused(b"x" * 4096 + b"\0\n" + token.encode()) == "a/README.md, line 2: a Hugging Face token"
    assert refused(b"x" * 4095 + b"\0\n" + token.encode()) is None


def test_the_name_of_a_file_is_looked_at_too():
    token = next(iter(TOKENS))
    assert refused(b"", f"logs/{token}.txt") == "the name of a file holds a Hugging Face token"
    assert refused(b"", f"logs/{MINE}.txt", known=[MINE]).startswith("the name of a file holds a token or password")


def test_the_first_one_is_named():
    tokens = list(TOKENS)
    text = f"\n{tokens[4]}\n{tokens[0]}\n{MINE}"
    assert refused(text.encode(), known=[MINE]) == "a/README.md, line 2: an OpenAI key"


# --- pieces --------------------------------------------------------------------------------------

PIECE, OVERLAP = 8192, 4096


@pytest.mark.parametrize("token", [next(iter(TOKENS)), "AKIA" + "ABCDEFGH23456789", MINE], ids="abc")
def test_a_secret_on_the_edge_of_a_piece_is_found_once_and_in_its_line(token, tmp_path):
    file = tmp_path / "file"
    for edge in (PIECE, PIECE - OVERLAP, 2 * PIECE, 2 * PIECE - OVERLAP):
        for before in (*range(edge - 70, edge + 12),):
            lines, rest = divmod(before, 64)
            file.write_bytes((b"x" * 63 + b"\n") * lines + b" " * rest + token.encode() + b"\n" * 9000)
            assert refused(file, "a.txt", [MINE], piece_bytes=PIECE).startswith(f"a.txt, line {lines + 1}:")
            place = f"a.png, byte {before}: a token"
            assert token != MINE or refused(file, "a.png", [MINE], piece_bytes=PIECE).startswith(place)


@pytest.mark.parametrize("text", ["xhf_" + LETTERS[:60], "AKIA" + "ABCDEFGH234567890", r"C:\x_hf_" + "y" * 29 + "-"])
def test_the_edge_of_a_piece_makes_no_token_of_what_is_none(text, tmp_path):
    file = tmp_path / "file"
    for edge in (PIECE, PIECE - OVERLAP, 2 * PIECE, 2 * PIECE - OVERLAP):
        for before in range(edge - 70, edge + 2):
            file.write_bytes(b" " * before + text.encode() + b" " * 9000)
            assert refused(file, "a.txt", piece_bytes=PIECE) is None


def test_a_long_secret_is_found_across_pieces(tmp_path):
    long = LETTERS * 60
    file = tmp_path / "file"
    for before in range(8000, 40_000, 997):
        file.write_bytes(b" " * before + long.encode() + b" " * 9000)
        assert refused(file, "a.png", [long], piece_bytes=PIECE).startswith(f"a.png, byte {before}:")


# --- messages, environment -----------------------------------------------------------------------


def test_messages_are_cleaned_of_every_form():
    basic = base64.b64encode(f"alice:{MINE}".encode()).decode()
    text = without(f"<{MINE}> {quote(MINE, safe='')} {json.dumps(MINE)} {basic} {MINE}", [MINE])
    assert text.startswith('<***> *** "***" ') and text.endswith(" ***") and text.count("***") == 5
    assert len(text.split(" ")[3]) < 16 and MINE not in base64.b64decode(text.split(" ")[3][:8]).decode()
    assert without("a token-and-more and a token", ["token", "token-and-more"]) == "a *** and a ***"
    assert without("nothing", ["", "x"]) == "nothing" == without("nothing", [])
    assert without("401 for hf_alice", ["hf_alice"]) == "401 for ***"


def test_secrets_of_the_environment():
    environ = {
        "HF_TOKEN": " hf_alice\n",
        "OPENAI_API_KEY": "sk-much-longer",
        "DB_PASSWORD": "short",
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
        "TOKENIZERS_PARALLELISM": "quite-long-value",
        "EMPTY_TOKEN": "",
        "AGAIN_TOKEN": "hf_alice",
    }
    assert known_secrets(environ) == ["sk-much-longer", "hf_alice"]
    assert known_secrets(environ, "a-token-of-their-own") == ["a-token-of-their-own", "sk-much-longer", "hf_alice"]
    assert known_secrets({}, "tiny") == ["tiny"] and known_secrets({}, "") == known_secrets({}) == []


def test_a_secret_that_is_no_unicode(tmp_path):
    secret = os.fsdecode(b"caf\xe9-password")
    assert refused(b"my caf\xe9-password", known=known_secrets({"MY_PASSWORD": secret}))
    assert without(f"{secret} caf%E9-password", [secret]) == "*** ***"


def test_names_of_secrets_and_words_that_are_none():
    environ = {
        "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI",
        "GH_TOKENS": "abcDEF123",
        "PGPASSWORD": "postgres",
        "KEYS": "12345678",
    }
    assert known_secrets(environ) == ["wJalrXUtnFEMI", "abcDEF123"]
