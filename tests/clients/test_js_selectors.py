"""A subscription of the JavaScript client gets the events that the server's selector matches."""

import json
import random
from pathlib import Path

from fastsse.selectors import compile_selector
from tests.clients.javascript import MODULES, copy_of_package, run

SELECTORS = [
    *(
        "*",
        "a",
        "a/b",
        "a b",
        "{",
        "}",
        "a{",
        "a{}",
        "{id",
        "{ id}",
        "{i-d}",
        "{id}}",
        "a{b{c}",
        "ä{x}",
    ),
    *(
        "{id}",
        "orders/{id}",
        "orders/{id}/x",
        "{a}{b}",
        "{a,b}",
        "{a}/{b}",
        "a {id}",
        "a<{id}",
        "%41{id}",
    ),
    *(
        "{+path}",
        "x{+path}y",
        "{#frag}",
        "a{#x,y}",
        "{.ext}",
        "file{.a,b}",
        "{/seg}",
        "{/a,b}",
        "a{/a,b,c}/z",
    ),
    *(
        "{/list*}",
        "{;p}",
        "{;p,q}",
        "{;p*}",
        "{?q}",
        "s{?q,r}",
        "s{?m*}",
        "{&q}",
        "s?x=1{&q,r}",
        "{id:3}",
    ),
    *(
        "{list*}",
        "{+list*}",
        "{a.b}",
        "{%41}",
        "{=x}",
        "{!x}",
        "{id*:3}",
        "{id:0}",
        "(a){id}",
        "a+{id}$",
    ),
    *("^{id}|x", "[{id}]", "a\\{id}", "a.{id}", "{a_b}-{c}", "rooms/{room}{?page,size}", "☃{id}"),
]
PARTS = [
    *(
        "a",
        "b",
        "orders",
        "x",
        "y",
        "z",
        "id",
        "p",
        "q",
        "r",
        "m",
        "1",
        "~",
        "-",
        "_",
        ".",
        ",",
        "=",
    ),
    *(
        "/",
        "//",
        ";",
        "?",
        "&",
        "#",
        "%41",
        "%zz",
        "%",
        "ä",
        "☃",
        "😀",
        " ",
        "<",
        "(",
        ")",
        "[",
        "]",
    ),
    *(
        "p=1",
        "q=",
        "?q=1",
        "&r=2",
        ";p",
        ";q=3",
        "/a",
        ".tar",
        "a=b",
        "orders/7",
        "|",
        "$",
        "+",
        "^",
        "\\",
    ),
]
BUILD = """
const [from, to, esbuild] = {files};
require(esbuild).buildSync({{ entryPoints: [from], outfile: to, format: "esm" }});
"""
SCRIPT = """
import { readFileSync } from "node:fs";
import { matcher } from "./selector.js";
const [selectors, topics] = JSON.parse(readFileSync(process.argv[2], "utf8"));
console.log(JSON.stringify(selectors.map((selector) => topics.map(matcher(selector)).map(Number))));
"""


def topics() -> list[str]:
    rand = random.Random(6570)
    made = {"".join(rand.choices(PARTS, k=rand.randint(1, 5))) for _ in range(4_000)}
    return [*SELECTORS, *sorted(made)]


def test_selectors_match_the_topics_that_those_of_the_server_match(tmp_path: Path) -> None:
    package = copy_of_package(tmp_path)
    files = json.dumps(["src/selector.ts", str(tmp_path / "selector.js"), str(MODULES / "esbuild")])
    run("-e", BUILD.format(files=files), cwd=package)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "match.js").write_text(SCRIPT)
    asked = topics()
    (tmp_path / "cases.json").write_text(json.dumps([SELECTORS, asked]))
    found = json.loads(run(tmp_path / "match.js", tmp_path / "cases.json", cwd=tmp_path))
    matched = 0
    for selector, row in zip(SELECTORS, found, strict=True):
        wanted = [int(compile_selector(selector).matches(topic)) for topic in asked]
        wrong = [
            topic for topic, one, other in zip(asked, row, wanted, strict=True) if one != other
        ]
        assert not wrong, (selector, wrong[:5])
        matched += sum(wanted)
    assert matched > 5_000
