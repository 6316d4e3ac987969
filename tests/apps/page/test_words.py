from __future__ import annotations

import re
from html import unescape
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.page.words import NOTHING, marked

for package in ("whisper", "jiwer"):
    pytest.importorskip(package, reason="extra whisper: what counts word errors")

word = st.sampled_from(
    ["one", "Two,", "twenty", "five", "25", "um", "won't", "[noise]", "…", "<b>", "&amp;", '"', "größe"]
)
texts = st.one_of(st.lists(word, max_size=12).map(" ".join), st.text(max_size=40))


class Tags(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)


def without_marks(html: str) -> str:
    """What is left when what went is taken out and what came is kept."""
    html = re.sub(r"<del>.*?</del> ?", "", html)
    return unescape(re.sub(r'<span class="spoken">.*?</span>|</?ins>', "", html)).strip(" ")


@given(texts, texts)
@settings(deadline=None)  # the first call loads the normaliser
def test_without_its_marks_it_is_the_text(before: str, after: str) -> None:
    html = marked(before, after)
    assert without_marks(html) == (" ".join(after.split()) or NOTHING)
    assert set(Tags(html).names) <= {"ins", "del", "span"}


@given(texts)
def test_equal_texts_have_no_marks(text: str) -> None:
    assert Tags(marked(text, text)).names == []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("Hello, world!", "hello world"),
        ("twenty five cats", "25 cats"),
        ("I won't go", "i will not go"),
        ("um so it is", "so it is"),
        ("the colour", "the color"),
        ("", "..."),
    ],
)
def test_what_is_no_word_error_is_not_marked(before: str, after: str) -> None:
    assert marked(before, after) == after


def test_marks_stand_where_the_words_changed() -> None:
    gone = '<del><span class="spoken">removed: </span>{}</del>'
    new = '<ins><span class="spoken">added: </span>{}</ins>'
    assert marked("the cat sat", "the dog sat") == f"the {gone.format('cat')} {new.format('dog')} sat"
    assert marked("it is so", "it is") == f"it is {gone.format('so')}"
    assert marked("", "a<b") == new.format("a&lt;b")
    assert marked("Thank you.", "") == f"{gone.format('Thank you.')} {NOTHING}"
    assert marked("", " ") == NOTHING


def test_a_recogniser_that_repeats_itself_is_aligned_too() -> None:
    assert marked("you " * 4000, "you know " * 2000).count("<ins>") == 2000
