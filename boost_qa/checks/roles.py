"""Roles: does everybody speak as himself, of his own, to the end, and without telling what was to be kept?

Prompts have patterns (`never`) for which a reply is asked again. Here is looked at what got through, in what agents
said: a turn without a model, the question itself, is nobody's fault. A fault that the question asks for (it wants a
dialogue, a translation, or speaks of language models) is none.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache

from boost_qa.checks.finding import Finding, excerpt
from boost_qa.checks.speech.endings import cut_off
from boost_qa.checks.speech.language import other_language
from boost_qa.checks.speech.prose import prose, without_code, words
from boost_qa.checks.speech.withheld import gives_away
from boost_qa.types import Dialogue, Turn

NAME = "roles"
VERSION = "3"
LABELS = {
    "speaks for another": "writes lines of other speakers, or more than one round of its own",
    "breaks the frame": "speaks of itself as a model or a role, of its prompt, or of the solution that it was shown",
    "reveals the prompt": "has a run of 12 words or more, or a heading, of what an agent was told",
    "gives the result away": "a teacher says the result that the student is to find",
    "repeats another": "says what somebody else has said before, nearly word for word",
    "repeats itself": "says its own sentences again",
    "other language": "is in another language than the recipe's, or has letters of another script",
    "truncated": "ends in the middle of code, of a formula, of a list or of a sentence",
    "refuses": "declines to answer",
}
RUN = 12
"""Words in a row that are nobody's own when a prompt has them, too."""
COPIED = 0.8
"""The share of runs of five words from which a turn is a copy."""
SHORT = 12
"""Words; a turn with fewer copies nothing."""

_LINE = re.compile(
    r"^[ \t>*_#-]*(?:(?:the|weak|strong) ){0,2}(teacher|student|pupil|user|human|assistant)([ _][abc])?"
    r"(?:[\u2019']s (?:turn|reply|response|answer|hint))?(?: (?:said|says|asks|answers|replies))?[*_ ]*:",
    re.IGNORECASE | re.MULTILINE,
)
_ITEM = re.compile(r"([ \t>*_#-]*)([^\W\d_][^\s:*]*(?: [^\s:*]+){0,3})([*_ ]*):(.*)")
_NO_ITEM = re.compile(
    r"\b(?:answer|solution|result|step|hint|note|question|explanation|reasoning|conclusion|example|check|feedback"
    r"|guidance|correction|reply|response|turn|round|system|ai|bot|model|tutor|professor|learner|narrator|me|you)s?\b",
    re.IGNORECASE,
)
"""What stands before a colon beside lines of speakers, too."""
_INLINE = re.compile(r"[.!?][\"\u201d)]? +(Teacher|Student)( [ABC])?(?: said)?: ")
_MARKS = re.compile(
    r"<\|(?:im_start|im_end|start_header_id|eot_id|user|assistant|system)\|>|\[/?INST\]|<(?:start|end)_of_turn>"
    r"|^#{2,4} ?(?:Instruction|Human|Assistant|User|Response|Input):",
    re.MULTILINE,
)
_WANTS_LINES = re.compile(
    r"\b(?:dialogues?|conversations?|screenplay|script|interview|role-?play|chat)\b", re.IGNORECASE
)
_HEADINGS = re.compile(
    r"^[ \t*#]*(?:MY FIRST ANSWER|THE TEACHER'S HINT|CORRECT SOLUTION|THE STUDENT'S ANSWER|SOLUTION \(secret\)"
    r"|EARLIER QUESTION|YOUR ANSWER TO IT|END OF THE MATERIAL)\b",
    re.MULTILINE,
)
_FRAME = re.compile(
    r"\bas an? (?:ai|artificial intelligence|(?:large )?language model|chat ?bot|virtual assistant)\b"
    r"|\bi(?: am|[\u2019']m) (?:just |only |merely )?an? (?:ai\b|(?:large )?language model|chat ?bot|virtual assistant)"
    r"|\b(?:as|in) (?:a|the|my|this) (?:weak |strong )?(?:teacher|student)(?:'s)? role\b|\bin my role as\b"
    r"|\bin this scenario,? i(?: am|[\u2019']m)\b|\b(?:role|system) prompt\b"
    r"|\bi was (?:told|instructed|asked|prompted) (?:not )?to (?!find|solve|calculate|compute|determine)"
    r"|\b(?:my|these|the given) instructions (?:say|tell|ask|state|require|are to)\b"
    r"|\b(?:reference|model|secret|provided) (?:answer|solution)\b"
    r"|\b(?:the )?(?:correct )?(?:answer|solution) (?:that )?(?:i was|was|you) (?:given|shown|provided)(?: to me)?\b"
    r"|\bwhat(?: is|[\u2019']s) your question\b|\bi(?: am|[\u2019']m) ready to (?:help|assist)\b"
    r"|\bhow (?:can|may) i (?:help|assist) you\b",
    re.IGNORECASE,
)
_REFUSES = re.compile(
    r"\b(?:i(?: am|[\u2019']m) (?:very |really |so )?(?:sorry|afraid)|(?:my )?apolog(?:y|ies|i[sz]e))\b[^.\n;:]{0,60}"
    r"\b(?:i (?:cannot|can[\u2019']t|can not|am (?:unable|not able)|won[\u2019']t)|i[\u2019']m (?:unable|not able)"
    r"|(?:it|that) is not (?:possible|allowed))\b"
    r"|\bi (?:cannot|can[\u2019']t|can not|am unable to|am not able to|will not|won[\u2019']t) "
    r"(?:help\b(?! but\b| (?:it|myself)\b)|assist|comply|fulfil+|engage|answer (?:this|that|the|your)|"
    r"provide (?:an? )?(?:answer|solution|response))\b",
    re.IGNORECASE,
)


def look(dialogue: Dialogue, prompts: Mapping[str, str] | None = None, language: str = "English") -> list[Finding]:
    """What the speakers of a dialogue did that was not theirs to do.

    Args:
        dialogue: a finished one.
        prompts: what each speaker was told, by the speaker's name, blocks in braces as they are or filled in; nobody
            may say what anybody was told.
        language: the recipe's; an English name. A name without a code in `language.LANGUAGES` is not looked at.
    """
    record, related = dialogue.record, dialogue.related
    asked = "\n".join([record.question, *([related.question] if related else [])])
    given = "\n".join([asked, record.answer, *([related.answer] if related else [])])
    findings: list[Finding] = []
    said: list[str] = []
    for place, turn in enumerate(dialogue.turns):
        own = _own(turn, record.question)
        if turn.model is not None:
            for label, detail in _faults(dialogue, turn, own, said, asked):
                findings.append(Finding(label, place, excerpt(detail)))
            if (found := revealed(own, prompts or {}, asked)) is not None:
                findings.append(Finding("reveals the prompt", place, excerpt(found)))
            if (found := _copy(dialogue, said, turn, own)) is not None:
                findings.append(Finding("repeats another", place, excerpt(found)))
            if (found := other_language(own, language, given)) is not None:
                findings.append(Finding("other language", place, excerpt(found)))
        said.append(own)
    return findings


def revealed(text: str, prompts: Mapping[str, str], asked: str) -> str | None:
    """The words of a prompt that `text` has, or None; what a prompt puts in quotation marks is there to be said."""
    if heading := _HEADINGS.search(text):
        return heading[0]
    tokens = words(text)
    if len(tokens) < RUN:
        return None
    for prompt in prompts.values():
        runs = _runs(prompt)
        for place in range(len(tokens) - RUN + 1):
            run = tuple(tokens[place : place + RUN])
            if run in runs and " ".join(run) not in " ".join(words(asked)):
                return " ".join(run)
    return None


@cache
def _runs(prompt: str) -> frozenset[tuple[str, ...]]:
    pieces = [words(piece) for piece in re.split(r'"[^"]*"|\{\w*\}', prompt)]
    return frozenset(tuple(piece[at : at + RUN]) for piece in pieces for at in range(len(piece) - RUN + 1))


def _own(turn: Turn, question: str) -> str:
    """What a turn says, without the record's question in front of it: an analogy's first line has both."""
    if turn.text.startswith(question) and len(turn.text) > len(question):
        return turn.text[len(question) :].lstrip()
    return turn.text


def _faults(dialogue: Dialogue, turn: Turn, own: str, said: list[str], asked: str) -> Iterator[tuple[str, str]]:
    """Labels with details, of what can be seen in one turn."""
    if (found := _other_speaker(own, turn.speaker, asked + dialogue.record.answer)) is not None:
        yield "speaks for another", found
    plain = prose(own)
    frame = _FRAME.search(plain)
    if frame and frame[0].lower() not in asked.lower():
        yield "breaks the frame", plain[max(0, frame.start() - 30) : frame.end() + 60]
    final = dialogue.record.final
    if turn.speaker == "teacher" and final is not None:
        before = [text for text in said if text != dialogue.record.question]
        if (found := gives_away(own, final, dialogue.record.question, before)) is not None:
            yield "gives the result away", found
    if (found := _again(plain)) is not None:
        yield "repeats itself", found
    asks = turn.speaker == "teacher" and own.endswith("=")  # "So 93 x 5 =" is left to the student
    if (found := cut_off(own)) is not None and not asks:
        yield "truncated", f"{found}: {own[-60:]}"
    refusal = _REFUSES.search(plain)
    if refusal and refusal[0].lower() not in asked.lower():
        yield "refuses", plain[refusal.start() : refusal.end() + 60]


def _other_speaker(text: str, speaker: str, given: str) -> str | None:
    """The line that is not the speaker's own. Its own name may stand once, at the beginning."""
    text = without_code(text)
    if (mark := _MARKS.search(text)) and mark[0] not in given:
        return text[mark.start() : mark.end() + 60]
    for line in sorted([*_LINE.finditer(text), *_INLINE.finditer(text)], key=lambda found: found.start()):
        who = (line[1] + (line[2] or "")).lower().replace("_", " ")
        mine = who in _names(speaker) and not text[: line.start()].strip()
        if line.re is _LINE and _in_a_list(text, line.start()):
            continue
        if not mine and f"{who}:" not in given.lower() and not _WANTS_LINES.search(given):
            return text[line.start() :].lstrip()
    return None


def _in_a_list(text: str, start: int) -> bool:
    """Whether the line that begins at `start` is one of a list or form, such as of classes and their fields: a line of
    the same form next to it, with only such lines and what is set in further between, names what is no speaker.

    Without marks around the name (`User: admin`), a line that ends as a sentence does is speech.
    """
    item = _ITEM.match(text, start)
    if item is None or (not item[1].strip() and item[4].rstrip('*_ \t\r"').endswith((".", "!", "?", "\u2026"))):
        return False
    bullet = item[1].lstrip()[:2] in ("- ", "* ")
    for near in (reversed(text[:start].split("\n")[:-1]), text[start:].split("\n")[1:]):
        for line in near:
            other = _ITEM.match(line)
            same = other is not None and (other[1], other[3].strip()) == (item[1], item[3].strip())
            if other is not None and same and not _LINE.match(line) and not _NO_ITEM.search(other[2]):
                return True
            further = len(line) - len(line.lstrip()) > len(item[1]) - len(item[1].lstrip())
            if not (same or (further and line.strip()) or (bullet and not line.strip())):
                break
    return False


def _names(speaker: str) -> set[str]:
    """What a speaker may call himself."""
    name = speaker.replace("_", " ")
    kind = next((kind for kind in ("student", "teacher") if kind in name), "assistant")
    return {name, kind, "assistant"} | ({"pupil"} if kind == "student" else set())


def _copy(dialogue: Dialogue, said: list[str], turn: Turn, own: str) -> str | None:
    """Whose earlier words a turn copies. Somebody who speaks twice may come back to his own, and where the reference
    answer is the question over again (a text to be put right), so may every answer be."""
    if len(words(own)) < SHORT:
        return None
    edits = _share(dialogue.record.answer, dialogue.record.question) >= COPIED / 2
    for earlier, text in zip(dialogue.turns, said, strict=False):
        share = _share(own, text) if earlier.speaker != turn.speaker else 0.0
        if share >= COPIED and not (edits and earlier.model is None):
            return f"{share:.0%} is {earlier.speaker}'s: {own}"
    return None


def _share(text: str, other: str) -> float:
    """The share of a text's runs of five words that the other one has, too."""
    runs, there = _fives(text), frozenset(_fives(other))
    return sum(run in there for run in runs) / len(runs) if runs else 0.0


@lru_cache(256)  # a turn is compared with all that follow
def _fives(text: str) -> list[tuple[str, ...]]:
    """The runs of five words of a text."""
    said = words(text)
    return list(zip(*(said[at:] for at in range(5)), strict=False))


def _again(plain: str) -> str | None:
    """A sentence that comes a third time, or the first one of those that make a third of the text by coming again."""
    sentences = [" ".join(words(sentence)) for sentence in re.split(r"(?<=[.!?])\s+|\n+", plain)]
    long = [sentence for sentence in sentences if sentence.count(" ") >= 6]
    counts = Counter(long)
    again = [sentence for sentence, count in counts.items() if count > 1]
    twice = sum((counts[sentence] - 1) * (sentence.count(" ") + 1) for sentence in again)
    total = sum(sentence.count(" ") + 1 for sentence in sentences if sentence)
    if any(count > 2 for count in counts.values()) or (again and twice >= 15 and 3 * twice >= total):
        return max(again, key=lambda sentence: counts[sentence])
    return None
