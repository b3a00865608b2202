from mmunify.tokens import DEFAULT_TOKENS
from mmunify.tokens.scanning import Scanner, is_gap


def scan(text):
    scanner = Scanner(text, DEFAULT_TOKENS)
    scanner.run()
    pairs = [(pair.name, text[pair.inner : pair.inner_end], [p.code for p in pair.own]) for pair in scanner.pairs]
    return pairs, [problem.code for problem in scanner.problems], [text[s:e] for s, e, _ in scanner.markup]


def test_closed_pairs_come_in_order():
    assert scan("a <edit>x</edit> b <box>y</box>") == ([("edit", "x", []), ("box", "y", [])], [], [])


def test_an_open_tag_ends_at_the_next_tag_or_at_the_end():
    assert scan("<edit>x <segment>y") == ([("edit", "x ", ["unclosed"]), ("segment", "y", ["unclosed"])], [], [])


def test_an_open_grounding_pair_ends_after_its_last_box():
    assert scan("<box>red 7[1][2] and so on")[0] == [("box", "red 7[1][2]", ["unclosed"])]


def test_a_pair_inside_a_pair_is_nested_not_unclosed():
    pairs, problems, markup = scan("<segment>x<box>y</box></segment>")
    assert pairs == [("segment", "x", ["nested"]), ("box", "y", [])]
    assert (problems, markup) == ([], ["</segment>"])


def test_stray_closing_tags_and_mismatched_ones():
    assert scan("</edit>x") == ([], ["unopened"], ["</edit>"])
    assert scan("<edit>x</segment>") == ([("edit", "x", ["unclosed"])], ["unopened"], ["</segment>"])


def test_media_strings_are_markup_and_unknown_tags_are_reported_once_per_name():
    _, problems, markup = scan("<img><slot></img><paint>a</paint><paint>b</paint>")
    assert problems == ["unknown_task"]
    assert markup == ["<img>", "<slot>", "</img>", "<paint>", "</paint>", "<paint>", "</paint>"]


def test_what_only_looks_like_a_tag_is_text():
    assert scan("1 < 2 > 0, <two words>, <>, </>, <3>") == ([], [], [])


def test_a_gap_holds_no_words():
    assert is_gap(" ,\n;</segment> ") and not is_gap(" at ")
