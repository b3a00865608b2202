from hypothesis import example, given, settings
from hypothesis import strategies as st

from mmunify.tokens.entities import escape, unescape


@settings(deadline=None)
@given(st.text())
@example("&#32;")
@example("&amp;lt;")
@example(" \n a & b <segment> [1] &#9999999; ")
def test_unescape_inverts_escape_and_no_markup_is_left(text):
    written = escape(text, "[]")
    assert unescape(written) == text
    assert not set(written) & set("<>[]")
    assert written == written.strip()


def test_ordinary_words_stay_as_they_are():
    assert escape("salt & pepper, the 7th, 100 %") == "salt & pepper, the 7th, 100 %"
    assert unescape("AT&T; &nbsp; &#1114112;") == "AT&T; &nbsp; &#1114112;"
