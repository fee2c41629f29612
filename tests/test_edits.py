from collections import Counter

import pytest
import yaml
from fabricate import make_run
from hypothesis import example, given, settings
from hypothesis import strategies as st

from boost_qa.export import export
from boost_qa.publish.edits import OWNED, Merged, merge

FRONT = (
    "license: other\ntags:\n- synthetic\n- boost-qa\npretty_name: BOOST-QA (made-up)\nconfigs:\n- config_name: all\n"
)
BODY = "\n# Title\n\nFirst.\n\nSecond.\n\nThird.\n"


def card(front: str = FRONT, body: str = BODY) -> str:
    return f"---\n{front}---\n{body}"


def keys(text: str) -> dict:
    return yaml.safe_load(text.split("---\n")[1])


def body(text: str) -> str:
    return text.split("---\n", 2)[2]


# --- any card ------------------------------------------------------------------------------------

plain = st.sampled_from(["mit", "other", "a\u2028b", "no", True, 7, 0.5, "üñí 🦜", "two words: and more", "- x", ""])
values = st.one_of(plain, st.lists(plain, max_size=4), st.none(), st.just({"nested": ["x", {"y": None}]}))
owned = st.dictionaries(st.sampled_from(sorted(OWNED)), values, max_size=3)
free = st.dictionaries(st.sampled_from(["license", "tags", "language", "pretty_name", "thumbnail"]), values, max_size=4)
lines = st.lists(st.sampled_from(["", "a", "b", "c", "| x | 1 |", "\u2028d\x0be", "---", "# T"]), max_size=8)


@st.composite
def cards(draw, owned=owned, ends=("\n", "")):
    front = yaml.safe_dump({"base_model": "o/m"} | draw(owned) | draw(free), sort_keys=False, allow_unicode=True)
    return card(front, "\n".join(draw(lines)) + draw(st.sampled_from(ends)))


@settings(deadline=None)
@given(cards(), cards())
def test_a_card_that_nobody_edited_is_ours(base, ours):
    assert merge(base, base, ours) == merge(None, None, ours) == merge(base, ours, ours) == Merged(ours, [])
    assert merge(base, base.replace("\n", "\r\n"), ours) == Merged(ours, [])
    assert merge(None, " \r\n", ours) == Merged(ours, [])


@settings(deadline=None)
@given(cards(st.just({})), cards(st.just({})), st.sampled_from(["\n", "\r\n"]))
def test_where_we_change_nothing_theirs_stays_byte_for_byte(base, theirs, end):
    theirs = theirs.replace("\n", end)
    if theirs.replace("\r\n", "\n").removesuffix("\n") != base.removesuffix("\n"):
        assert merge(base, theirs, base) == Merged(theirs, [])


@settings(deadline=None)
@given(st.none() | cards(), st.one_of(cards(), st.text(), lines.map("\n".join)), cards())
@example(card("a: 1\n", "a\n\na\na\n\n"), card("a: 1\n", "a\n\na\na\n"), card("a: 1\n", "\n\n"))
def test_merging_again_changes_nothing(base, theirs, ours):
    text = merge(base, theirs, ours).text
    assert merge(ours, text, ours) == Merged(text, []) and keys(text)


@settings(deadline=None)
@given(st.none() | cards(), cards(), cards())
def test_a_line_that_somebody_wrote_is_in_the_card_or_named(base, theirs, ours):
    merged = merge(base, theirs, ours)
    old, hub, new, found = (
        Counter(body(text).split("\n")) for text in (base or card("", ""), theirs, ours, merged.text)
    )
    assert hub - old - Counter([""]) <= found
    assert merged.kept or set(new - old) <= set(found) | {""}


# --- edits in different places -------------------------------------------------------------------

edits = st.sampled_from(["nothing", "add", "remove", "replace"])


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), edits, st.integers(1, 3)), min_size=1, max_size=12))
def test_edits_in_different_places_are_all_in_the_result(places):
    """Each place has lines of its own, and an unchanged line parts it from the next."""

    def version(*editors: bool) -> str:
        found = []
        for number, (editor, edit, size) in enumerate(places):
            own = [f"place {number} line {line}" for line in range(size)]
            new = [f"place {number} new {line}" for line in range(size)]
            if editor in editors:
                own = {"nothing": own, "add": own + new, "remove": [], "replace": new}[edit]
            found += [*own, f"between {number}"]
        return card(body="\n".join(found) + "\n")

    base, theirs, ours, both = version(), version(True), version(False), version(True, False)
    assert merge(base, theirs, ours) == Merged(both, [])


# --- edits in the same place ---------------------------------------------------------------------


def changed(**changes: str) -> str:
    """The card with words of its body replaced."""
    text = BODY
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    return card(body=text)


def test_people_win_where_both_changed_and_the_passage_is_named():
    theirs = changed(Second=f"Their \x1b[31m{'long ' * 30}second", Third="Theirs")
    text, kept = merge(changed(), theirs, changed(First="Our first", Second="Our second", Third="Theirs"))
    assert text == theirs.replace("First", "Our first")
    assert len(kept) == 1 and kept[0].startswith("Their  [31mlong long") and len(kept[0]) <= 72


def test_what_people_took_out_stays_out():
    base, theirs = changed(), changed(**{"Second.\n\n": ""})
    assert merge(base, theirs, changed(First="Ours")) == Merged(theirs.replace("First", "Ours"), [])
    text, kept = merge(base, theirs, changed(Second="Our second"))
    assert text == theirs and kept == ["removed: Second."]


def test_of_two_insertions_theirs_come_first():
    base, theirs, ours = (changed(**{"Third.\n": f"Third.\n{more}"}) for more in ("", "\nTheirs.\n", "\nOurs.\n"))
    assert merge(base, theirs, ours) == Merged(changed(**{"Third.\n": "Third.\n\nTheirs.\n\nOurs.\n"}), [])
    assert merge(base, theirs.removesuffix("\n"), ours).text.endswith("\nTheirs.\n\nOurs.\n")


def test_the_same_change_of_both_is_there_once():
    both = changed(Second="Same", Third="Third.\n\nAdded")
    assert merge(changed(), both.removesuffix("\n"), both.replace("First", "Ours")) == Merged(
        both.replace("First", "Ours"), []
    )


def test_a_long_card_of_equal_lines():
    base = ["same"] * 600
    theirs, ours = ["first", *base, "last"], [*base[:300], "ours", *base[300:]]
    text, kept = merge(*(card(body="\n".join(lines) + "\n") for lines in (base, theirs, ours)))
    assert body(text).split("\n") == ["first", *ours, "last", ""] and kept == []


def test_changes_that_touch_are_one_passage():
    base, theirs, ours = (card(body=f"\n{text}\n") for text in ("a\nb\nc\nd", "a\nB\nc\nd", "a\nb\nC\nd"))
    assert merge(base, theirs, ours) == Merged(theirs, ["B"])


# --- YAML ----------------------------------------------------------------------------------------


def yaml_of(base: str | None, theirs: str, ours: str) -> tuple[dict, list[str]]:
    text, kept = merge(None if base is None else card(base), card(theirs), card(ours, BODY.replace("Third", "New")))
    return keys(text), kept


@pytest.mark.parametrize(
    ("base", "theirs", "ours", "expected"),
    [
        ("configs: 1", "configs: 2", "configs: 3", {"configs": 3}),
        ("configs: 1", "configs: 2", "a: 1", {"a": 1}),
        ("a: 1", "a: 1\nbase_model: x", "a: 1", {"a": 1, "base_model": "x"}),
        ("configs: 1", "a: 1", "configs: 1", {"a": 1, "configs": 1}),
        ("a: 1", "a: 1 # comment", "a: 2", {"a": 2}),
        ("a: 1", "a: 2", "a: 1", {"a": 2}),
        ("a: 1\nb: 1", "b: 1", "a: 1\nb: 2", {"b": 2}),
        ("a: 1\nb: 1", "a: 1\nb: 1\nc: 1", "b: 1", {"b": 1, "c": 1}),
        ("a: [x, y, z]", "a: [y, z, mine]", "a: [z, new, x]", {"a": ["z", "new", "mine"]}),
        ("a: [x]", "a: [x, mine]", "a: [x, x]", {"a": ["x", "mine"]}),
        ("a: en", "a: [en, de]", "a: fr", {"a": ["fr", "de"]}),
        ("b: 1", "a: [mine]\nb: 1", "a: [ours]\nb: 1", {"a": ["ours", "mine"], "b": 1}),
        (None, "a: 2\nb: [x, y]\nconfigs: 2", "b: [y, z]\nconfigs: 1", {"b": ["y", "z", "x"], "configs": 1, "a": 2}),
        ("language: en", "language: no\nx: 1", "language: en\ny: 1", {"language": "no", "x": 1, "y": 1}),
        ("a: 1", "x: &x [1]\ny: *x\na: 1", "a: 2", {"a": 2, "x": [1], "y": [1]}),
    ],
)  # fmt: skip
def test_keys(base, theirs, ours, expected):
    assert yaml_of(base and base + "\n", theirs + "\n", ours + "\n") == (expected, [])


def test_keys_that_both_changed_are_theirs_and_named():
    theirs = "license: mit\nd: {x: [1]}\n"
    found, kept = yaml_of("license: other\ngone: 1\nd: [1]\n", theirs, "license: apache-2.0\ngone: 2\nd: [2]\n")
    assert found == {"license": "mit", "d": {"x": [1]}} and kept == ["license: mit", "removed: gone: 1", "d:"]
    assert yaml_of(None, "license: mit\n", "license: other\n") == ({"license": "mit"}, ["license: mit"])


def test_yaml_that_people_left_alone_is_ours_to_the_letter():
    ours = card("tags: [ 'a' ,b]   # why\nconfigs:  {x:   1}\n")
    assert merge(card(), changed(First="Theirs"), ours).text == ours.replace("First", "Theirs")
    same = card(FRONT.replace("other", '"other"'))
    assert merge(card(), changed(First="Theirs"), same).text == same.replace("First", "Theirs")
    with_comment = card("# nothing else is changed\n" + FRONT)
    assert merge(card(), with_comment, ours).text == ours and merge(card(), with_comment, card()).text == with_comment


def test_yaml_that_is_merged_is_plain_block_style():
    added = FRONT + "thumbnail: über\n"
    ours = FRONT.replace("boost-qa", "more")
    assert merge(card(), card(added), card(ours)).text == card(ours + "thumbnail: über\n")
    long = FRONT + f"description: {'word ' * 60}end\nlist:\n- &a [x]\n- *a\n"
    assert f"\ndescription: {'word ' * 60}end\nlist:\n- - x\n- - x\n---\n" in merge(card(), card(long), card(ours)).text


@pytest.mark.parametrize(
    "broken",
    ("tags: [a", "- list", "only text", "# comment", "a: 2024-13-01", "a: &a [*a]", "a: !!bool x", "[" * 1000),
)
def test_yaml_that_cannot_be_read_stops_nothing_and_is_kept_as_text(broken):
    theirs = card(broken + "\n", BODY.replace("Third", "Theirs"))
    ours = card(FRONT.replace("other", "mit"), BODY.replace("First", "Ours"))
    for base in (card(), None):
        text, kept = merge(base, theirs, ours)
        assert text.startswith(card(FRONT.replace("other", "mit"), "")) and broken in text and "Theirs." in text
        assert len(kept) == 1 and kept[0][:50] == broken[:50]
        assert merge(ours, text, ours) == Merged(text, [])


def test_yaml_that_is_not_closed_is_kept_as_text():
    theirs = card().replace("made-up)", "mine)").replace("---\n\n# Title", "\n# Title")
    text, kept = merge(card(), theirs, card())
    assert text.startswith(card()[: card().index("# Title")].rstrip("\n")) and theirs.strip() in text
    assert kept == ["license: other"]


def test_yaml_that_is_empty():
    theirs = "---\n---\nTheirs.\n---\n"
    assert merge(None, theirs, card()).text == card(body="Theirs.\n---\n" + BODY)


def test_yaml_that_people_took_out_stays_out_but_for_what_the_release_is():
    text, kept = merge(card(), BODY, card(FRONT.replace("all", "every")))
    assert text == card("configs:\n- config_name: every\n") and kept == []


# --- no base, line ends --------------------------------------------------------------------------


def test_a_card_written_by_hand_comes_first_and_ours_whole_below():
    hand = card("license: mit\n", "\n# By hand\n\nWords.\n\n\n")
    text, kept = merge(None, hand, card())
    assert body(text) == "\n# By hand\n\nWords.\n" + BODY and kept == ["license: mit"]
    assert keys(text) == keys(card()) | {"license": "mit"}
    assert merge(card(), text, card()) == Merged(text, []) and body(merge(None, text, card()).text) == body(text)
    assert merge(card(), text, changed(First="New")).text == text.replace("First", "New")
    assert merge(None, "# By hand", card()).text == card(body="# By hand\n" + BODY)
    assert merge(None, "---\nlicense: mit\n---\n\n", card()).text == card(FRONT.replace("other", "mit"))


def test_line_ends_a_byte_order_mark_and_other_separators():
    base = changed(First="One\u2028two\x0c\x85three")
    mine = base.replace("Third", "Theirs")
    ours = base.replace("Title", "New title")
    crlf, cr = mine.replace("\n", "\r\n"), mine.replace("\n", "\r")
    for theirs in (mine, crlf, cr, "\ufeff" + mine, mine.removesuffix("\n")):
        assert merge(base, theirs, ours) == Merged(mine.replace("Title", "New title"), [])
    assert merge(base, "\ufeff" + crlf, base).text == crlf
    assert merge("\ufeff" + base.replace("\n", "\r\n"), mine, ours).kept == []


# --- a real card ---------------------------------------------------------------------------------


def edited(text: str) -> str:
    """What people do: a section of their own, a sentence in their words, a limitation less."""
    rows = text.split("\n")
    rewritten = next(row for row in rows[rows.index("## Sources") :] if row and row[0].isalpha())
    limitation = next(row for row in rows[rows.index("## Limitations") :] if row.startswith("* "))
    assert all(text.count(row) == 1 for row in (rewritten, limitation))
    text = text.replace(rewritten, "We asked the makers of each source, and they agree.").replace(f"{limitation}\n", "")
    return text.replace("## Citation\n", "## Contact\n\nWrite to the school, | not to us.\n\n## Citation\n")


def test_a_real_card_has_new_figures_and_peoples_prose(tmp_path):
    first, second = (
        (export(make_run(tmp_path / f"run{n}", dialogues=n), tmp_path / f"export{n}") / "README.md").read_text("utf-8")
        for n in (40, 60)
    )
    theirs = edited(first).replace("- boost-qa\n", "- boost-qa\n- school\n").replace("BOOST-QA (made-up)", "School")
    assert "pretty_name: School\n" in theirs and "- school\n" in theirs
    text, kept = merge(first, theirs, second)
    assert kept == [] and body(text) == body(edited(second)) != body(edited(first))
    assert keys(text) == keys(second) | {"pretty_name": "School", "tags": ["synthetic", "boost-qa", "school"]}
    assert "\r" not in text and merge(second, text, second) == Merged(text, [])
    third = second.replace("made-up", "renamed")  # the next release goes on from there
    assert body(merge(second, text, third).text) == body(edited(third))


def test_a_row_that_people_put_beside_rows_that_are_new_stays_with_the_new_ones():
    base = "---\na: 1\n---\n| x | n |\n|---|---|\n| one | 1 |\n| two | 2 |\n\nend\n"
    theirs = base.replace("| two | 2 |\n", "| two | 2 |\n| by hand | 7 |\n").replace("| one |", "| *first* |\n| one |")
    ours = base.replace("| 1 |", "| 10 |").replace("| 2 |", "| 20 |")
    merged = merge(base, theirs, ours)
    rows = ["| *first* |", "| one | 10 |", "| two | 20 |", "| by hand | 7 |"]
    assert merged.text.split("\n")[5:9] == rows and merged.kept == []
    assert merge(ours, merged.text, ours).text == merged.text


def test_configs_that_people_added_stay_beside_ours():
    def card(*configs: str) -> str:
        entries = "".join(f"- config_name: {name}\n  default: true\n" for name in configs)
        return f"---\nconfigs:\n{entries}---\n# Card\n"

    merged = merge(card("all", "debate"), card("all", "debate", "mine"), card("all", "star"))
    found = yaml.safe_load(merged.text.split("---")[1])["configs"]
    assert [each["config_name"] for each in found] == ["all", "star", "mine"]
    assert [each.get("default") for each in found] == [True, True, None]
