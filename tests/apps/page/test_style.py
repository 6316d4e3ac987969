from __future__ import annotations

import re
from base64 import b64decode
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.page.style import CSS, note, picture_html, table_html, theme
from tests.apps.page.colours import DARK, LIGHT, contrast, mixed

ODD = ["<script>alert(1)</script>", '" onload="x', "' onload='x", "&amp;", "a < b & c > d", "größe ♪", ""]
texts = st.text(max_size=20) | st.sampled_from(ODD)


class Parsed(HTMLParser):
    """Tags with their attributes, and the text within each."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.texts.append("")
        if tag != "img":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts[-1] += data

    def cells(self, tag: str) -> list[str]:
        return [text for (name, _), text in zip(self.tags, self.texts, strict=True) if name == tag]


# what HTML itself does not hold, such as NUL, is not the page's to carry
plain = texts.map(lambda text: re.sub(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]", "", text))


@given(st.sampled_from(["note", "done", "wrong"]), plain)
def test_a_note_holds_its_text_and_nothing_else(kind: str, text: str) -> None:
    parsed = Parsed(note(kind, text))
    # errors are said at once, all else when the screen reader has time
    assert parsed.tags == [("div", {"class": kind, "role": "alert" if kind == "wrong" else "status"})]
    assert parsed.texts == [text]


@given(plain, st.lists(plain, min_size=2, max_size=3), st.lists(st.lists(plain, min_size=2, max_size=3), max_size=3))
def test_a_table_says_what_its_heads_are_for(caption: str, head: list[str], rows: list[list[str]]) -> None:
    parsed = Parsed(table_html(caption, head, rows))
    assert parsed.cells("caption") == [caption]
    assert parsed.cells("th") == [*head, *(row[0] for row in rows)]
    assert parsed.cells("td") == [cell for row in rows for cell in row[1:]]
    scopes = [attributes for tag, attributes in parsed.tags if tag == "th"]
    assert scopes == [{"scope": "col"}] * len(head) + [{"scope": "row"}] * len(rows)


@given(st.binary(max_size=50), plain)
def test_a_picture_has_its_words_and_can_be_moved_by_keys(data: bytes, words: str) -> None:
    (scroll, around), (image, attributes) = Parsed(picture_html(data, words)).tags
    assert (scroll, around["class"], around["tabindex"]) == ("div", "scroll", "0")
    assert (image, attributes["alt"]) == ("img", words)
    head, _, body = (attributes["src"] or "").partition(",")
    assert head == "data:image/png;base64" and b64decode(body) == data


def test_nothing_is_fetched() -> None:
    assert not re.search(r"url\(|@import|@font-face|https?:", CSS)


# --- colours ---


def test_what_is_marked_can_be_read() -> None:
    marks = re.findall(r"([^\n{]+) \{[^}]*background: color-mix\(in srgb, (#\w{6}) (\d+)%, transparent\)", CSS)
    assert [name.split()[-1] for name, *_ in marks] == ["div.wrong", "div.done", "ins", "del"]
    for _, colour, percent in marks:
        for text, ground in (("#1e293b", LIGHT), ("#f1f5f9", DARK)):
            assert contrast(text, mixed(colour, int(percent) / 100, ground)) >= 7
    # the lines at the side say it once more: 3 : 1
    for colour in re.findall(r"border-color: (#\w{6})", CSS):
        assert min(contrast(colour, ground) for ground in (LIGHT, DARK)) >= 3


def colour_of(looks: object, name: str) -> str:
    """A colour of a theme, through the names that stand for others."""
    value = str(getattr(looks, name))
    return (
        colour_of(looks, value.removeprefix("*")) if value.startswith("*") else {"white": "#ffffff"}.get(value, value)
    )


@pytest.mark.parametrize("dark", ["", "_dark"])
def test_the_themes_colours_can_be_read(dark: str) -> None:
    pytest.importorskip("gradio", reason="extra demo")
    looks = theme()
    page = colour_of(looks, f"background_fill_primary{dark}")
    assert page == (DARK if dark else LIGHT)
    # of gradio's blocks, in dark too
    grounds = [page, *([colour_of(looks, f"block_background_fill{dark}")] if dark else [])]
    for name in ("body_text_color", "body_text_color_subdued", "block_label_text_color", "block_title_text_color"):
        for ground in grounds:
            assert contrast(colour_of(looks, f"{name}{dark}"), ground) >= 4.5, name
    for state in ("", "_hover"):
        fill = colour_of(looks, f"button_primary_background_fill{state}{dark}")
        assert contrast(colour_of(looks, f"button_primary_text_color{dark}"), fill) >= 4.5


def test_the_theme_names_no_fonts_that_are_fetched() -> None:
    pytest.importorskip("gradio", reason="extra demo")
    looks = theme()
    assert "system-ui" in looks.font and "ui-monospace" in looks.font_mono
    assert not looks._font_css and not looks._stylesheets
