"""Personal data: what is somebody's, what only looks like it, and that masking changes nothing else."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boost_qa.checks import personal_data
from boost_qa.checks.keys import SHAPES
from boost_qa.checks.personal_data import LABELS, masked
from boost_qa.types import Dialogue, Record, Turn

LETTERS = "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7cF0hJ" * 3
# put together here, so that nothing that looks for tokens takes this file for one
KEYS = {
    "a Hugging Face token": "hf_" + LETTERS[:34],
    "an Anthropic key": "sk-ant-" + "api03-" + LETTERS[:90] + "-_AA",
    "an OpenAI key": "sk-" + "proj-" + LETTERS[:40] + "_-" + LETTERS[:30],
    "a GitHub token": "ghp_" + LETTERS[:36],
    "an AWS access key id": "AKIA" + "ABCDEFGH23456789",
    "a Google API key": "AIza" + LETTERS[:33] + "_-",
    "a Slack token": "xoxb-" + "123456789012-" + LETTERS[:24],
    "a private key": "-----BEGIN " + "RSA PRIVATE KEY-----\nMIIEow\nIBAAKC\n-----END " + "RSA PRIVATE KEY-----",
}
THEIRS = {
    "mail address": [
        "jane.doe@corp-mail.de", "j+news@sub.mail.co.uk", "J_D%x@MAIL.ORG", "joerg@müller.de", "a@b.io",
        "jane [at] mailbox [dot] org", "jane(at)mailbox.org", "me@xn--mller-kva.de", "1234567@qq.com",
    ],
    "phone number": [
        "+1 650 253 0000", "+1 (650) 253-0000", "+44 20 7031 3000", "+49-30-303986300", "+33 1 42 68 53 00",
        "(650) 253-0000", "650-253-0000", "650.253.0000", "1-650-253-0000",
    ],
    "IP address": [
        "93.184.216.34", "52.95.110.1", "185.199.108.153", "2a00:1450:4001:81b::200e",
        "2606:2800:220:1:248:1893:25c8:1946",
    ],
    "key": [
        *KEYS.values(), "eyJhbGciOiJIUzI1NiJ9" + ".eyJzdWIiOiIxMjM0In0" + ".dozjgNryP4J3jVmNHl0w5N",
        "-----BEGIN " + "OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA\nb3BlbnNzaC1rZXktdjEAAAAA",
    ],
    "bank account": ["DE89 3704 0044 0532 0130 00", "GB82WEST12345698765432", "FR14 2004 1010 0505 0001 3M02 606"],
    "card number": ["4539 1488 0343 6467", "4539148803436467", "5425-2334-3010-9903", "3700 000000 00002"],
}  # fmt: skip
EVERY = [(label, text) for label, texts in THEIRS.items() for text in texts]
NOBODYS = [
    # mail: files, hosts, code
    "a@b @ 5 c[@id=3]", "x@y.z1 user@host:/path", "@types/node@12.0 @app.route(x)", "git@github.com:a/b.git",
    "scores = q@k.transpose(-2, -1)", "A@x.reshape(-1)", "y = X@W.values + b", "X@W.to(device)", "q@k.mT", "X@W.int()",
    "systemctl start getty@tty1.service", "wg-quick@wg0.service", "openvpn@server.socket", "return@forEach.map",
    "this@MainActivity.id", "x@W.name = 1",
    # phone: mathematics, dates, versions, tables, numbers for fiction
    "12 + 345 678 9012 = 3456789024", "x = 5 +4915112345678", "f(2) +14155552671", "f(2)+14155552671", "3+6502530000",
    "2024-01-15 10:30:00 +0000", "ISBN 978-3-16-148410-0", "650-253-0000-1", "1.650.253.0000.2", "$650-253-0000",
    "650 - 253 - 0000", "12 650 253 0000 15", "0 1 0 0 1 10 200 300 4000", "650-253-0000 = -603", "650-253-0000+4",
    "650-253-0000 * x", "650-253-0000*x", "650-253-0000 - 4", "650-253-0000 / (4)", "650-253-0000 = x",
    "x_650-253-0000", "x_4539148803436467", "x_93.184.216.34",
    "+1 555 0100", "(555) 123-4567", "+1 212 555 0123", "212-555-0199", "$+1 650 253 0000$", "\\(650-253-0000\\)",
    "line\n+16502530000\n", "+1 650 253 0000%", "3.14159265358979 2.71828182845 -0.95337325 1663739000",
    "+999 123 456 789", "++1 650 253 0000", "a+1 650 253 0000", "x=+16502530000",
    # IP addresses: versions, sections
    "version 93.184.216.34", "v93.184.216.34", "Chrome/93.184.216.34", "lib-93.184.216.34", "==93.184.216.34",
    "Version=41.0.2228.7", "8.3.110.13-electron", "93.184.216.34.5 1.3.6.1.4.1.311", "10:11:12 2023:10:11 12:30:45",
    "std::cout a::b x[2000::2]", "2001:2002:2003",
    "\u0661\u0669\u0662.\u0662\u0660\u0660.\u0661\u0660\u0660.\u0665\u0660",
    # keys: names, examples
    'api_key = "YOUR_API_KEY_GOES_HERE_1234"', 'api_key = os.environ["API_KEY"]', "secret_key = aaaaaaaaaaaaaaaaaaaa",
    "api_key=xxxxxxxxxxxxxxxxxxxxxxxxxxxx1a2b3", "access_token: getAccessTokenFromServerOrCache()",
    'password = "hunter2"', "-----BEGIN PUBLIC KEY-----",
    # accounts and cards: the check digits are wrong, the numbers are for tests, or they are part of others
    "DE88 3704 0044 0532 0130 00", "AB12 CDEF 3456 GHIJ", "4111 1111 1111 1111", "5555-5555-5555-4444",
    "4539 1488 0343 6468", "1234 5678 9012 3452",
    *("jane@example.com jane@mail.example.org x@example.net me@example root@localhost bob@test.example a@host.invalid "
      "you@yourdomain.com you@domain.com name@company.com icon@2x.png logo@3x.jpg styles@print.css uuid@7.1.0 "
      "pkg@latest @property a@b.c 1234567890 6502530000 127.0.0.1 10.1.2.3 192.168.1.77 172.16.200.3 169.254.99.1 "
      "100.64.88.1 0.0.0.0 255.255.255.255 224.0.0.251 240.9.9.99 192.0.2.44 198.51.100.44 203.0.113.44 8.8.8.8 "
      "1.1.1.1 9.9.9.9 208.67.222.222 1.2.3.4 5.6.7.8 10.11.12.13 12.14.1.30 93.184.216.0 52.0.0.0 256.300.1.99 "
      "093.184.216.34 93.184.216 fe80::1ff:fe23:4567:890a ::1 2001:db8::8a2e:370:7334 fd12:3456:789a:1::1 "
      "2001:4860:4860::8888 AA:BB:CC:DD:EE:FF hf_hub_download sk-learn ghp_ AKIAIOSFODNN7EXAMPLE "
      "d41d8cd98f00b204e9800998ecf8427e postgres://user:password@db.example/x http://admin:admin@localhost "
      "mysql://root:${PASS}@db redis://:@h http://host:8080@x 0.4539148803436467 4539148803436467.5 "
      "45391488034364670 4242424242424242").split(),
]  # fmt: skip


@pytest.mark.parametrize("label,text", EVERY)
def test_what_is_somebodys_is_masked_and_nothing_around_it(label, text):
    for before, after in (
        ("", ""),
        ("My ", " is it."),
        ("(", ")"),
        ('"', '"'),
        ("<", ">"),
        ("a\n", "\nb"),
        ("x: ", ", y"),
        ("«", "»"),
        ("My ", "."),
        ("**", "**"),
        ("*", "*, or"),
        ("_", "_"),
        ("__", "__."),
        ("***", "***\n* and"),
        ("- ", "\n- b"),
    ):
        if not (label == "key" and "_" in after):  # it may be a part of the key
            assert masked(f"{before}{text}{after}") == (f"{before}[{label}]{after}", Counter({label: 1}))
    assert masked(f"Ask {text}, {text}!")[1] == Counter({label: 2})


def test_a_number_without_a_space_is_a_phone_number_but_in_a_diff():
    number = "+14153862671"
    assert masked(f"Call {number}.")[0] == "Call [phone number]."
    assert masked(f"tel:{number}")[0] == "tel:[phone number]"
    assert masked(f"-1\n{number}\n")[1] == Counter()


def test_a_phone_number_may_stand_before_a_dash_and_in_a_list():
    assert masked("650-253-0000 - ask for Ann")[0] == "[phone number] - ask for Ann"
    assert masked("- 650-253-0000\n- 650-253-0001")[0] == "- [phone number]\n- [phone number]"


def test_a_mail_address_before_a_bracket_is_one_under_the_usual_domains():
    assert masked("jane@mailbox.org(at work), joe@mail.com[1]")[0] == "[mail address](at work), [mail address][1]"


def test_a_private_key_without_its_end_goes_with_its_headers_and_body():
    begin, body = "-----BEGIN " + "RSA PRIVATE KEY-----", f"{LETTERS[:64]}\n{LETTERS[:64]}"
    headers = "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,0123456789ABCDEF0123456789ABCDEF"
    for text in (f"{begin}\n{headers}\n\n{body}", f"{begin}\r\n{headers}\r\n\r\n{body}", f"{begin}\n{body}"):
        assert masked(f"{text}\nIt ends here.")[0] == "[key]\nIt ends here."
        assert masked(text.replace("\n", "\\n").replace("\r", ""))[0] == "[key]"
    assert masked(f"{begin}\nNote: this is how it begins.")[0] == "[key]\nNote: this is how it begins."


@pytest.mark.parametrize("text", NOBODYS)
def test_what_is_nobodys_stays(text):
    assert masked(text) == (text, Counter())


@pytest.mark.parametrize("kind", SHAPES)
def test_every_shape_of_a_key_is_masked_whole(kind):
    assert masked(f"it is {KEYS[kind]}.")[0] == "it is [key]."
    assert masked(f'{{"a": "\\n{KEYS[kind]}"}}')[0] == '{"a": "\\n[key]"}'


def test_keys_that_are_called_so_and_passwords_in_addresses():
    random = "Zk3vQ9xT7bLm2NpR8sWd"
    assert masked(f'api_key = "{random}"')[0] == 'api_key = "[key]"'
    assert masked(f"client-secret: {random}\n")[0] == "client-secret: [key]\n"
    assert masked(f"{{'accessToken': '{random}'}}".replace("accessT", "access_t"))[0] == "{'access_token': '[key]'}"
    assert masked(f"name = {random}")[1] == masked(f"api_key = {random}(")[1] == Counter()
    assert masked("https://bob:s3cr3tPw@db.corp.io/x") == ("https://[key]@db.corp.io/x", Counter(key=1))


def test_a_look_counts_and_never_quotes():
    mail, phone = "jane@mailbox.org", "+1 650 253 0000"
    record = Record("s:1", "s", f"Who is {mail}?", f"{mail} is Jane, {phone}", "1")
    other = Record("s:2", "s", "And who else?", f"{mail}", "2")
    turns = (
        Turn("question", "human", record.question),
        Turn("student", "gpt", f"Call {phone}", "m"),
        Turn("student", "gpt", "No."),
    )
    found = personal_data.look(Dialogue(record, "x", turns, other))
    assert [(one.label, one.turn, one.detail) for one in found] == [
        ("mail address", None, "3"), ("phone number", None, "1"), ("mail address", 0, "1"), ("phone number", 1, "1"),
    ]  # fmt: skip
    assert "jane" not in repr(found) and "650" not in repr(found)
    assert personal_data.look(Dialogue(other, "x", ())) == [personal_data.Finding("mail address", None, "1")]


# --- any text ------------------------------------------------------------------------------------

PIECES = st.sampled_from(
    [*(text for _, text in EVERY), *NOBODYS, *" \n@[]:.-+1xé\ud800`$", "", "%20", "[key]", "[mail address]", "api_key="]
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, max_size=7).map("".join))
def test_masking_twice_is_masking_once_and_only_places_change(text):
    once, counts = masked(text)
    assert masked(once) == (once, Counter())
    assert set(counts) <= set(LABELS)
    placed = re.compile(rf"\[({'|'.join(LABELS)})\]")
    assert Counter(placed.findall(once)) == counts + Counter(placed.findall(text))
    # what stands between the labels stood there before, in the same order
    pieces, place = re.split("|".join(re.escape(f"[{label}]") for label in LABELS), once), 0
    for piece in pieces:
        place = text.index(piece, place) + len(piece)
    assert once == text or counts


@given(st.text(max_size=80))
def test_any_text_can_be_masked(text):
    once, counts = masked(text)
    assert (once == text) == (not counts)


@given(
    st.lists(
        st.integers(0, 10**12).map(str) | st.sampled_from([" ", " + ", " - ", " = ", ".", ",", "/", "\n", " * "]),
        max_size=30,
    )
)
def test_arithmetic_is_no_phone_number(pieces):
    text = "".join(pieces)
    assert "phone number" not in masked(text)[1] and "mail address" not in masked(text)[1]


@pytest.mark.parametrize(
    "piece",
    [
        "a.",
        "a@",
        "1",
        "1 ",
        "+1 ",
        "1.",
        "2000:",
        "-----BEGIN ",
        "x://a:b",
        "api_key=",
        "AB12",
        "(at)",
        "a@b.io ",
        "_",
        "*_",
        "a@b.io_",
        "**+1 ",
        "-----BEGIN " + "PRIVATE KEY-----\na: b: c: ",
    ],
)
def test_long_text_of_one_kind_ends_in_time(piece):
    """Patterns that go back and forth would take hours here."""
    text = piece * 20_000
    assert masked(text)[0]
