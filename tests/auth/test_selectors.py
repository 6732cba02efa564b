"""What a selector matches, and that it never takes long to tell."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastsse import selectors
from fastsse.selectors import Selector, compile_selector

LETTERS = "abAB01-._~,=/:?#&;%+*{} é"
EXAMPLES = [
    # M1: everything.
    ("*", "anything", True),
    ("*", "", True),
    ("**", "anything", False),
    # M2: its own text, byte for byte.
    ("news", "news", True),
    ("news", "News", False),
    ("news", "news/", False),
    ("a{b}c", "a{b}c", True),
    ("https://example.com/{foo}/bar", "https://example.com/{foo}/bar", True),
    # M3: templates, the whole topic; a simple variable stays between slashes.
    ("https://example.com/{foo}/bar", "https://example.com/foo/bar", True),
    ("https://example.com/{foo}/bar", "https://example.com/foo/bar/baz", False),
    ("https://example.com/{foo}/bar", "https://example.com/a/b/bar", False),
    ("https://example.com/{foo}/bar", "https://other.com/foo/bar", False),
    ("/{a}/{b}", "/one/two", True),
    ("/{a}/{b}", "/one/two/three", False),
    ("/{a}/{b}", "/one", False),
    ("{a}", "", True),
    ("x{a}", "x", True),
    ("{a}b{c}b", "abbb", True),
    ("{a}b{c}b", "abba", False),
    ("x{a}x", "x", False),
    # What a value may hold (§3.2.2): percent-encoded whole, no raw blanks or letters like é.
    ("x{a}", "x%C3%A9", True),
    ("x{a}", "x%C3%A", False),
    ("x{a}", "x%zz", False),
    ("x{a}", "x y", False),
    ("x{a}", "xé", False),
    ("é/{a}", "é/1", True),
    ("{a,b}", "1,2", True),
    ("{a*}", "k=v,l=w", True),
    ("{a}", "k=v", False),
    ("{a:3}", "abc", True),
    # Reserved (§3.2.3) and fragment (§3.2.4).
    ("x{+path}", "x/a/b?c=d#e", True),
    ("x{+path}/here", "x/a/b/here", True),
    ("x{+path}", "x<", False),
    ("x{#f}", "x#a/b", True),
    ("x{#f}", "x", True),
    ("x{#f}", "xa", False),
    # Labels (§3.2.5) and segments (§3.2.6).
    ("www{.dom*}", "www.example.com", True),
    ("www{.dom}", "www", True),
    ("www{.dom}", "wwwexample", False),
    ("x{/a}", "x/1", True),
    ("x{/a}", "x/1/2", False),
    ("x{/a,b}", "x/1/2", True),
    ("x{/a,b}", "x/1/2/3", False),
    ("x{/a*}", "x/1/2/3", True),
    ("x{/a}", "x", True),
    # Parameters (§3.2.7 to §3.2.9): by name, some of them, in any order.
    ("x{;a,b}", "x;a=1;b=2", True),
    ("x{;a}", "x;a", True),
    ("x{;a}", "x;c=1", False),
    ("x{?q,lang}", "x?q=1&lang=de", True),
    ("x{?q,lang}", "x?lang=de", True),
    ("x{?q,lang}", "x", True),
    ("x{?q,lang}", "x?other=1", False),
    ("x{?q}", "x?q", False),
    ("x{?q}", "x?q=", True),
    ("x{?q}", "x?q=a/b", False),
    ("x{?q*}", "x?any=1&other=2", True),
    ("x?fixed=1{&q}", "x?fixed=1&q=2", True),
    ("x?fixed=1{&q}", "x?fixed=1?q=2", False),
    ("x{a.b}", "x1", True),
    ("x{a%20b}", "x1", True),
]
NO_TEMPLATES = [
    "{",
    "}",
    "a{b",
    "a}b{c}",
    "{}",
    "{a b}",
    "{=a}",
    "{!a}",
    "{|a}",
    "{@a}",
    "{a:0}",
    "{a:10000}",
    "{a**}",
    "{a,}",
    "{.}",
    "{a..b}",
    "{%zz}",
    "{{a}}",
    "a b{c}",
    "a%2{c}",
    'a"{c}',
    "a\n{c}",
    "{é}",
    "{a}" * 33,
    "{" + ",".join("a" * 65) + "}",
    "{a}" + "b" * 4096,
]


@pytest.mark.parametrize(("text", "topic", "expected"), EXAMPLES)
def test_a_selector_matches_what_its_template_can_become(
    text: str, topic: str, expected: bool
) -> None:
    selector = Selector(text)
    assert selector.matches(topic) is expected
    assert selector.matches(topic) is expected, "M7: remembered as it was found"
    assert compile_selector(text).matches(topic) is expected


@pytest.mark.parametrize("text", NO_TEMPLATES)
def test_what_is_no_template_is_plain_text(text: str) -> None:
    selector = Selector(text)
    assert selector.is_exact
    assert selector.matches(text)
    for topic in ("", "a", "b", "ac", text.replace("{", "").replace("}", "")):
        assert selector.matches(topic) is (topic == text)


def test_a_template_reports_whether_it_is_exact() -> None:
    assert Selector("a").is_exact
    assert not Selector("*").is_exact
    assert not Selector("{a}").is_exact


def simple_pattern(text: str) -> re.Pattern[str]:
    """The same as a regular expression, for templates of literals, `{a}` and `{+a}`."""
    value = {"{a}": r"(?:[\w\-.~,]|%[0-9A-Fa-f]{2})*", "{+a}": ""}
    value["{+a}"] = r"(?:[\w\-.~,:/?#\[\]@!$&'()*+;=]|%[0-9A-Fa-f]{2})*"
    parts = re.split(r"(\{\+?a\})", text)
    return re.compile("".join(value.get(part) or re.escape(part) for part in parts), re.ASCII)


@given(
    st.lists(st.sampled_from(["{a}", "{+a}", "/", "a", "ab", "-", "%41"]), max_size=8),
    st.lists(st.text(st.sampled_from("ab/-%41é"), max_size=12), max_size=8),
)
def test_simple_and_reserved_variables_match_as_a_regular_expression_would(
    parts: list[str], topics: list[str]
) -> None:
    text = "".join(parts)
    selector, pattern = Selector(text), simple_pattern(text)
    for topic in topics:
        assert selector.matches(topic) is bool(pattern.fullmatch(topic)), topic


@given(
    st.sampled_from(["", "+", "#", ".", "/", ";", "?", "&"]),
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "cd"]),
            st.text(st.sampled_from("ab1.~")),
        ),
        min_size=1,
        max_size=3,
        unique_by=lambda pair: pair[0],
    ),
    st.text(st.sampled_from("xy/"), max_size=3),
)
def test_every_expansion_matches(sign: str, pairs: list[tuple[str, str]], tail: str) -> None:
    first, separator = {"": ("", ","), "+": ("", ","), "#": ("#", ","), "?": ("?", "&")}.get(
        sign, (sign, sign)
    )
    if sign in (";", "?", "&"):
        shown = [f"{n}={v}" if v or sign != ";" else n for n, v in pairs]
    else:
        shown = [v for _, v in pairs]
    text = f"https://h/{{{sign}{','.join(n for n, _ in pairs)}}}{tail}"
    assert Selector(text).matches("https://h/" + first + separator.join(shown) + tail)
    assert Selector(text).matches("https://h/" + tail), "all undefined"


@given(st.text(st.sampled_from(LETTERS), max_size=20), st.text(max_size=20))
def test_any_text_is_a_selector_and_matches_itself(text: str, topic: str) -> None:
    selector = Selector(text)
    assert selector.matches(text)
    assert isinstance(selector.matches(topic), bool)
    assert selector.matches(topic) is Selector(text).matches(topic)


def test_lone_surrogates_do_no_harm() -> None:
    assert not Selector("x{a}").matches("x\ud800")
    assert Selector("\ud800{a}").is_exact


CRUEL = [
    ("{a}" * 32 + "!", "a" * 1000),
    ("{+a}" * 32 + "!", "a" * 1000),
    ("{a}x" * 32 + "!", "ax" * 500),
    ("{+a}" + "a" * 900 + "b", "a" * 1000),
    ("{+a}ab" * 32, "ab" * 500),
    ("{?a*,b*}" * 16 + "!", "?a=&" * 250),
    ("{/a,b,c,d}" * 16 + "!", "/a" * 500),
    ("{a}%41" * 32, "%41" * 330),
    ("{;aa,a,aaa}" * 16 + "!", ";aaa" * 250),
]


@pytest.mark.parametrize(("text", "topic"), CRUEL, ids=lambda value: value[:12])
def test_matching_takes_one_bounded_step_a_byte(
    text: str, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []
    looks: list[int] = []
    step, bits = selectors._Template.step, selectors._bits

    def counted_step(self, state, byte):  # type: ignore[no-untyped-def]
        steps.append(byte)
        return step(self, state, byte)

    def counted_bits(places: int):  # type: ignore[no-untyped-def]
        found = list(bits(places))
        looks.append(len(found))
        return found

    selector = Selector(text)
    assert not selector.is_exact
    selector.matches("")
    selector.matches("!")  # Built now, so that only the matching is counted.
    selector.matches(topic[:1] + topic[-1:] if selector._suffix == "" else selector._suffix)
    monkeypatch.setattr(selectors._Template, "step", counted_step)
    monkeypatch.setattr(selectors, "_bits", counted_bits)
    template = selector._template
    assert template is not None
    template.matches(topic.encode())
    assert len(steps) <= len(topic)
    # No more looks a step than the template has places for values and separators.
    assert max(looks, default=0) <= 4 * selectors.VARIABLES_MAX


def test_what_is_remembered_is_bounded() -> None:
    selector = Selector("{+a}" + "ab" * 100 + "{+b}")
    for number in range(200):
        selector.matches("a" * number + "b" * number + "ab" * number)
    template = selector._template
    assert template is not None
    kept = sum(map(len, template._states.values()))
    assert kept <= 2 * selectors.STEPS_KEPT
    assert compile_selector.cache_parameters()["maxsize"] == selectors.SELECTORS_KEPT
