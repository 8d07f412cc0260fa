"""The gallery's JavaScript without a browser, in an embedded V8: search, filters, sorting, links, cards.

What needs a browser is in test_gallery_browser.py.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_galleries import Asked, write_run

from hvx.gallery.build import CHUNK, build_gallery
from hvx.gallery.pictures import drawn_maps, outline_path, picture_path
from hvx.select_items import agreement
from hvx.store.reader import RunReader
from hvx.view.tokens import HIGH, LOW, NEUTRAL, Z_LIMIT, chip_color, ink_on, value_text

py_mini_racer = pytest.importorskip("py_mini_racer", reason="no mini-racer here")

STATIC = Path(__file__).resolve().parents[1] / "hvx" / "gallery" / "static"

BROWSER = """
// What the scripts use of a browser, as far as they do without a page.
class URLSearchParams {
  constructor(text = "") {
    const decoded = (part) => decodeURIComponent(part.replace(/\\+/g, " "));
    this.pairs = new Map(text.split("&").filter(Boolean).map((pair) => {
      const [name, ...rest] = pair.split("=");
      return [decoded(name), decoded(rest.join("="))];
    }));
  }
  get(name) { return this.pairs.get(name) ?? null; }
  set(name, value) { this.pairs.set(name, String(value)); }
  toString() {
    return [...this.pairs].map((pair) => pair.map(encodeURIComponent).join("=")).join("&");
  }
}
class Node {
  constructor(tag) {
    const style = { setProperty(name, value) { this[name] = value; } };
    Object.assign(this, { tag, attributes: {}, children: [], style, dataset: {} });
  }
  setAttribute(name, value) { this.attributes[name] = String(value); }
  addEventListener() {}
  removeAttribute(name) { delete this.attributes[name]; }
  cloneNode() {
    const clone = new Node(this.tag);
    clone.children = this.children.map((child) => child.cloneNode());
    return clone;
  }
  append(...children) { this.children.push(...children); }
  replaceChildren(...children) { this.children = children; }
  get textContent() { return this.children.map((child) => child.textContent ?? child).join(""); }
  toJSON() {
    const { setProperty, ...style } = this.style;
    return [this.tag, this.attributes, style, ...this.children];
  }
}
const byId = { outline: new Node("svg") };
byId.outline.append(new Node("path"), new Node("path"));
const document = {
  createElement: (tag) => new Node(tag),
  getElementById: (id) => (byId[id] ??= new Node(`#${id}`)),
  addEventListener() {},
};
"""

Run = Callable[[str], Any]


def evaluator(gallery: Path | None = None) -> Run:
    """Evaluates an expression to what JSON can say of it; over the data of a gallery, if given."""
    context = py_mini_racer.MiniRacer()
    context.eval(BROWSER)
    for name in ("store.js", "state.js", "cards.js", "words.js", "summary.js", "selection.js"):
        context.eval((STATIC / name).read_text(encoding="utf-8"))
    if gallery:
        context.eval("hvx.load = async () => {};")  # all data are loaded here
        for path in [gallery / "hvx-gallery.js", *sorted((gallery / "data").iterdir(), reverse=True)]:
            context.eval(path.read_text(encoding="utf-8"))
        context.eval("hvx.open()").get()
        context.eval("hvx.missingPhotos = new Map(hvx.about.missingPhotos)")

    def run(expression: str) -> Any:
        return json.loads(context.eval(f"JSON.stringify([{expression}])"))[0]

    run.context = context  # type: ignore[attr-defined]
    return run


ASKED = [
    Asked("is the cat black ?", "yes", "yes", "yes/no", "is the", 0.9, True, "cat.png"),
    Asked("how many cats are there ?", "two", "three", "number", "how many", 0.4, False, "cat.png"),
    Asked("<b>what</b> & ?", "</script>", 'x" onclick="y', "other", "<i>", 0.2, True, "dog.png"),
    Asked("", "no", "", "other", "none", 0.05, True, "cat.png"),
    Asked("ﬁnd 猫 は ？", "はい", "はい", "yes/no", "is the", 0.4, False, "cat.png"),
    Asked("what is number 10 ?", "lamp", "Lamp ", "other", "what is", 0.5, True, "cat.png"),
    Asked("what is number 9 ?", "lamp", "bed", "other", "what is", 0.75, True, "cat.png", 0, ("9", "?")),
] + [Asked(f"so {n} ?", "a", "", "other", "so", 0.5) for n in range(CHUNK)]  # fmt: skip
ZERO = {2: 1, 4: 2, 5: 3, len(ASKED) - 1: 1}
"""Items without a gradient of the image (1), of the words (2), of both."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("script")
    run = write_run(
        folder / "run", [replace(one, zero_gradient=ZERO.get(n, 0)) for n, one in enumerate(ASKED)]
    )
    build_gallery(run, folder / "gallery", workers=1)
    return run, folder / "gallery"


@pytest.fixture(scope="module")
def js(built: tuple[Path, Path]) -> Run:
    return evaluator(built[1])


EMPTY = {
    "q": "",
    "question_type": "",
    "answer_type": "",
    "only": "",
    "versus": "",
    "gradient": "",
    "min": "",
    "max": "",
    "sort": "",
    "per": "",
}


def selected(js: Run, **state: str) -> list[int]:
    found: list[int] = js(f"hvx.select({json.dumps(EMPTY | state)})")
    return found


REST = list(range(7, len(ASKED)))


@pytest.mark.parametrize(
    ("state", "found"),
    [
        ({}, list(range(len(ASKED)))),
        ({"q": "cat"}, [0, 1]),
        ({"q": "cats"}, [1]),
        ({"q": "  CATS   how "}, [1]),
        ({"q": "cats black"}, []),
        ({"q": "three"}, [1]),
        ({"q": "two"}, [1]),
        ({"q": "find"}, [4]),  # the question has a ligature
        ({"q": "猫"}, [4]),
        ({"q": "<B>"}, [2]),
        ({"q": "onclick"}, [2]),
        ({"q": "so 1"}, [8, *range(17, 27), 28, 38, 48]),
        ({"question_type": "is the"}, [0, 4]),
        ({"question_type": "<i>"}, [2]),
        ({"question_type": "no such"}, []),
        ({"answer_type": "number"}, [1]),
        ({"answer_type": "yes/no"}, [0, 4]),
        ({"answer_type": "yes/no", "question_type": "how many"}, []),
        ({"only": "right"}, [0, 4, 5]),
        ({"only": "wrong"}, [1, 2, 6]),
        ({"only": "unknown"}, [3, *REST]),
        ({"only": "no such"}, list(range(len(ASKED)))),
        ({"gradient": "zero"}, [2, 4, 5, len(ASKED) - 1]),
        ({"gradient": "nonzero", "only": "right"}, [0]),
        ({"gradient": "no such", "only": "right"}, [0, 4, 5]),
        ({"min": "75"}, [0, 6]),
        ({"min": "75.1"}, [0]),
        ({"max": "40"}, [1, 2, 3, 4]),
        ({"max": "39.9"}, [2, 3]),
        ({"min": "20", "max": "40"}, [1, 2, 4]),
        ({"min": "x"}, list(range(len(ASKED)))),
        ({"only": "wrong", "min": "30", "q": "number"}, [6]),
    ],
)
def test_search_and_filters_find_what_fits_in_the_order_of_the_run(
    js: Run, state: dict[str, str], found: list[int]
) -> None:
    assert selected(js, **state) == found


@pytest.mark.parametrize(
    ("sort", "only", "found"),
    [
        ("-probability", "", [0, 6, 5, *REST, 1, 4, 2, 3]),
        ("probability", "", [3, 2, 1, 4, 5, *REST, 6, 0]),
        # Items without a heat map have no agreement and come last, either way.
        ("-agreement", "", [0, 3, 6, *REST[:-1], 1, 4, 2, 5, REST[-1]]),
        ("agreement", "", [1, 4, 0, 3, 6, *REST[:-1], 2, 5, REST[-1]]),
        ("question", "wrong", [2, 1, 6]),
        ("answer", "wrong", [2, 6, 1]),
        ("__proto__", "wrong", [1, 2, 6]),
        ("-no such", "wrong", [1, 2, 6]),
    ],
)
def test_sorting_is_stable_and_goes_both_ways(js: Run, sort: str, only: str, found: list[int]) -> None:
    assert selected(js, sort=sort, only=only) == found


def test_numbers_in_texts_sort_as_numbers(js: Run) -> None:
    assert selected(js, sort="question", q="number") == [6, 5]
    assert selected(js, sort="question", q="so") == REST


def test_agreement_is_that_of_all_glimpses_together(js: Run, built: tuple[Path, Path]) -> None:
    reader = RunReader(built[0])
    assert js("hvx.index.agreement") == [
        None if ZERO.get(n, 0) & 1 else 1.0 if one.agreeing else -1.0 for n, one in enumerate(ASKED)
    ]
    assert js("hvx.index.agreement.slice(0, 2)") == [round(agreement(reader[n]), 4) for n in range(2)]


def test_many_random_filters_find_what_a_slow_search_finds(js: Run) -> None:
    chance = random.Random(0)
    kinds = {
        "q": ["", "cat", "what", "is", "a ?", "yes"],
        "question_type": ["", "is the", "what is", "so"],
        "answer_type": ["", "yes/no", "other"],
        "only": ["", "right", "wrong", "unknown"],
        "min": ["", "20", "50"],
        "max": ["", "50", "90"],
    }
    for _ in range(200):
        state = {name: chance.choice(values) for name, values in kinds.items()}
        assert selected(js, **state) == [n for n, one in enumerate(ASKED) if fits(one, state)], state


def fits(one: Asked, state: dict[str, str]) -> bool:
    text = f"{one.question} {one.answer} {one.truth}".lower()
    right = one.answer == one.truth.strip().lower() if one.truth else None
    kind = {"right": True, "wrong": False, "unknown": None}
    return (
        all(word in text for word in state["q"].split())
        and state["question_type"] in ("", one.question_type)
        and state["answer_type"] in ("", one.answer_type)
        and (not state["only"] or right is kind[state["only"]])
        and 100 * one.probability >= float(state["min"] or 0)
        and 100 * one.probability <= float(state["max"] or 100)
    )


LOOKS = dict.fromkeys(("maps", "style", "show", "row", "group"), "")
STATE = {**EMPTY, **LOOKS, "page": 1, "item": ""}


@pytest.mark.parametrize(
    ("address", "state"),
    [
        ("", {}),
        ("#", {}),
        ("#item=17", {"item": "17"}),
        ("#q=black%20cat&page=3", {"q": "black cat", "page": 3}),
        ("#q=black+cat", {"q": "black cat"}),
        ("#q=a%26b%3D%23&only=wrong&min=10&max=90.5&sort=-agreement&per=48&item=5&page=2",
         {"q": "a&b=#", "only": "wrong", "min": "10", "max": "90.5", "sort": "-agreement", "per": "48",
          "item": "5", "page": 2}),
        ("#question_type=what%20is&answer_type=yes%2Fno",
         {"question_type": "what is", "answer_type": "yes/no"}),
        ("#maps=hover&style=paper&show=0.3&row=4&group=image&versus=only-a",
         {"maps": "hover", "style": "paper", "show": "0.3", "row": "4", "group": "image",
          "versus": "only-a"}),
        ("#page=0", {}),
        ("#page=-2", {}),
        ("#page=x", {}),
        ("#page=2x", {"page": 2}),
        ("#__proto__=1&other=2", {}),
    ],
)  # fmt: skip
def test_a_link_holds_the_whole_state(js: Run, address: str, state: dict[str, Any]) -> None:
    read = js(f"hvx.readState({json.dumps(address)})")
    assert read == STATE | state
    written = js(f"hvx.address({json.dumps(read)})")
    assert js(f"hvx.readState({json.dumps(written)})") == read
    assert written.startswith("#")
    assert len(written) <= max(1, len(address.replace("+", "%20")))  # nothing that says nothing


def test_a_link_names_only_what_is_set(js: Run) -> None:
    assert js(f"hvx.address({json.dumps(STATE)})") == "#"
    state = STATE | {"item": "17", "page": 2, "q": "a b", "per": "48"}
    assert js(f"hvx.address({json.dumps(state)})") == "#q=a%20b&per=48&page=2&item=17"


@pytest.mark.parametrize(
    ("count", "per", "page", "shown"),
    [
        (0, "", 1, (1, 1, 0, [])),
        (24, "", 1, (1, 1, 0, [0, 23])),
        (25, "", 1, (2, 1, 0, [0, 23])),
        (25, "", 2, (2, 2, 24, [24])),
        (25, "", 9, (2, 2, 24, [24])),
        (100, "48", 2, (3, 2, 48, [48, 95])),
        (100, "48", 3, (3, 3, 96, [96, 99])),
        (100, "96", 1, (2, 1, 0, [0, 95])),
        (100, "x", 5, (5, 5, 96, [96, 99])),
    ],
)
def test_pages(js: Run, count: int, per: str, page: int, shown: tuple[int, int, int, list[int]]) -> None:
    found, state = f"[...Array({count}).keys()]", json.dumps({"per": per, "page": page})
    pages, number, start, ends = shown
    assert js(f"hvx.pageCount({found}, {state})") == pages
    got = js(f"hvx.pageOf({found}, {state})")
    assert (got["page"], got["start"]) == (number, start)
    assert sorted({*got["numbers"][:1], *got["numbers"][-1:]}) == ends
    assert got["numbers"] == list(range(start, start + len(got["numbers"])))


def test_neighbors_are_those_found_and_positions_count_from_1(js: Run) -> None:
    found = "[5, 2, 9]"
    assert [js(f"hvx.neighbor({found}, 2, {by}) ?? null") for by in (-2, -1, 0, 1, 2)] == [
        None,
        5,
        2,
        9,
        None,
    ]
    assert [js(f"hvx.neighbor({found}, {n}, 1) ?? null") for n in (9, 7, "undefined")] == [None] * 3
    assert js(f"hvx.neighbor({found}, 5, -1) ?? null") is None
    assert [js(f"hvx.positionText({found}, {n})") for n in (5, 2, 9, 7)] == ["1 of 3", "2 of 3", "3 of 3", ""]
    assert js("hvx.positionText([...Array(12345).keys()], 9999)") == "10,000 of 12,345"


@pytest.mark.parametrize(
    ("found", "text"),
    [
        ([], "No explanation fits."),
        ([0, 1, 2, 3], "1–4 of 4 explanations (of 57 in all), 33.3 % right"),
        ([3], "1–1 of 1 explanations (of 57 in all)"),
        (list(range(57)), "1–57 of 57 explanations, 50.0 % right"),
    ],
)
def test_the_line_above_the_cards(js: Run, found: list[int], text: str) -> None:
    assert js(f"hvx.foundText({found}, 1, {len(found)})") == text


@pytest.mark.parametrize("number", [0, 7, 999, 1000, 123_456, 9_999_999, 12_345_678])
def test_pictures_lie_where_python_wrote_them(js: Run, number: int) -> None:
    for kind in ("photos", "maps"):
        assert js(f"hvx.picturePath({json.dumps(kind)}, {number})") == picture_path(kind, number)


@pytest.mark.parametrize("z", [-9, -2, -1.999, -1, -0.5, -0.001, 0, 0.00004, 0.3, 1, 1.5, 2, 2.1, None])
def test_tokens_have_the_colors_and_values_of_figures(js: Run, z: float | None) -> None:
    fill, ink = js(f"tokenColors({json.dumps(z)})")
    expected = chip_color(float("nan") if z is None else z)
    assert all(abs(a - b) <= 1 for a, b in zip(map(int, re.findall(r"\d+", fill)), expected, strict=True))
    assert ink == {(0, 0, 0): "#000", (255, 255, 255): "#fff"}[ink_on(expected)]
    text = js(f"valueText({json.dumps(z)})").replace("−", "-")
    assert text == value_text(float("nan") if z is None else z)
    assert js("hvx.about.zColors") == [list(LOW), list(NEUTRAL), list(HIGH)]
    assert js("hvx.about.zLimit") == Z_LIMIT


@pytest.mark.parametrize(("share", "text"), [(0.1234, "12.3 %"), (1, "100.0 %"), (0, "0.0 %"), (None, "n/a")])
def test_shares(js: Run, share: float | None, text: str) -> None:
    assert js(f"percent({json.dumps(share)})") == text


def detail(js: Run, number: int) -> None:
    js.context.eval(f"hvx.detail({number}).then((found) => {{ globalThis.found = found; }})").get()  # type: ignore[attr-defined]


def elements(tree: Any, tag: str) -> list[Any]:
    """The elements of a name in a tree, as [tag, attributes, style, ...children]."""
    if not isinstance(tree, list):
        return []
    return [*([tree] if tree[0] == tag else []), *(one for child in tree[3:] for one in elements(child, tag))]


def text(tree: Any) -> str:
    return tree if isinstance(tree, str) else "".join(text(child) for child in tree[3:])


@pytest.mark.parametrize("number", [0, 2, 56])
def test_an_item_has_its_own_details(js: Run, built: tuple[Path, Path], number: int) -> None:
    item = RunReader(built[0])[number]
    detail(js, number)
    found = js("found")
    assert found["tokens"] == item.tokens
    assert found["z"] == [round(z, 4) for z in item.token_z]
    assert found["path"] == item.image_path
    assert found["imageId"] == str(item.image_id)


def test_a_card_shows_its_item_as_text(js: Run) -> None:
    detail(js, 2)
    card = js('card(2, found, "#item=3")')
    assert card[:2] == ["li", {"class": "card", "data-id": "3"}]
    (link,) = elements(card, "a")
    assert link[1] == {"class": "open", "href": "#item=3", "dir": "auto"}
    assert text(link).split() == ["<b>what</b>", "&", "?"]
    assert [token[1]["title"] for token in elements(link, "span")] == ["z −2", "z 0", "z 2"]
    (picture,) = elements(card, "img")
    assert picture[1]["src"] == js('hvx.picturePath("photos", hvx.index.photo[2])')
    assert picture[1]["alt"] == "Proposed: where it lies on the photograph"
    assert text(elements(card, "p")[-1]) == '✗ wrong: </script> (x" onclick="y) 20.0 %'
    assert not {"b", "script", "i"} & {one[0] for one in elements(card, "b") + elements(card, "script")}


@pytest.mark.parametrize(
    ("number", "line", "kind"),
    [
        (0, "✓ right: yes (yes) 90.0 %", "verdict right"),
        (1, "✗ wrong: two (three) 40.0 %", "verdict wrong"),
        (3, "no 5.0 %", "verdict unknown"),
        (5, "✓ right: lamp (Lamp ) 50.0 %", "verdict right"),
    ],
)
def test_a_verdict_is_in_words(js: Run, number: int, line: str, kind: str) -> None:
    verdict = js(f"verdict({number})")
    assert text(verdict) == line
    assert verdict[1]["class"] == kind


def test_a_card_without_details_or_words_has_a_text(js: Run) -> None:
    assert text(elements(js('card(1, null, "#")'), "a")[0]) == "how many cats are there ?"
    assert text(elements(js('card(3, null, "#")'), "a")[0]) == "question 4"


@pytest.mark.parametrize(("column", "position"), [(1, "0%"), (2, f"{100 / 3}%"), (4, "100%")])
def test_each_column_shows_its_own_map(js: Run, column: int, position: str) -> None:
    detail(js, 1)
    box = js(f"picture(1, {column}, found)")
    _, map = elements(box, "div")
    assert map[2]["backgroundImage"] == f'url("{picture_path("maps", 1)}")'
    assert map[2]["backgroundSize"] == "400% 200%"
    assert map[2]["backgroundPositionX"] == position
    assert box[1]["class"] == "picture mapped"


def test_the_heat_map_alone_has_its_outline(js: Run, built: tuple[Path, Path]) -> None:
    detail(js, 1)
    with RunReader(built[0]) as reader:
        (drawn,) = drawn_maps([reader[1].heatmap])
        assert js("found.outline") == outline_path(drawn) == ""  # nothing stands out of a ramp
    expected = "M1 2 3 4Z"
    js(f"(found.outline = {json.dumps(expected)}, 0)")
    for column, shown in ((0, []), (1, []), (2, []), (3, [expected, expected])):
        box = js(f"picture(1, {column}, found)")
        assert [one[1]["d"] for one in elements(box, "path")] == shown


def test_the_first_column_is_the_photograph_alone(js: Run) -> None:
    box = js("picture(1, 0, null)")
    assert box[1]["class"] == "picture whole"
    assert elements(box, "img")[0][1]["alt"] == "The photograph; framed: what the model saw"
    assert len(elements(box, "div")) == 1


def test_a_question_alone_on_its_image_has_no_specific_map(js: Run) -> None:
    """Item 2 has a photograph of its own; the others share theirs."""
    for number, said in ((1, []), (2, ["zero gradient: no heat map"])):
        detail(js, number)
        assert [text(one) for one in elements(js(f"picture({number}, 4, found)"), "p")] == said
    detail(js, 2)
    assert js("found.alone")
    assert js("(found.alone = true, noteOn(1, 4, found))") == "no other question on the image"
    assert js("noteOn(1, 3, found)") == ""


IMAGE_NOTE, WORDS_NOTE = "zero gradient: no heat map", "zero gradient of the words: no z-scores"


@pytest.mark.parametrize(
    ("number", "notes"), [(0, []), (2, [IMAGE_NOTE]), (4, [WORDS_NOTE]), (5, [IMAGE_NOTE, WORDS_NOTE])]
)
def test_a_gradient_that_is_zero_everywhere_is_said(js: Run, number: int, notes: list[str]) -> None:
    detail(js, number)
    card = js(f'card({number}, found, "#")')
    assert [text(one) for one in elements(card, "p") if one[1]["class"] == "note"] == notes
    js(f"(fillItem({number}, found), 0)")
    about = js('byId["item-about"]')
    said = [text(one) for one in elements(about, "dd") if text(one) in (IMAGE_NOTE, WORDS_NOTE)]
    assert said == notes
    boxes = elements(js('byId["item-pictures"]'), "figure")
    noted = [any(one[1]["class"] == "note" for one in elements(box, "p")) for box in boxes]
    assert noted == [False, False, False, IMAGE_NOTE in notes, IMAGE_NOTE in notes or number == 2]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("unreadable", "The photograph could not be read"),
        ("replaced", "The photograph was replaced after the run: this is not the one that was explained"),
    ],
)
def test_a_photograph_that_is_missing_is_said_and_no_map_lies_on_it(js: Run, kind: str, said: str) -> None:
    detail(js, 1)
    js(f"(hvx.missingPhotos = new Map([[hvx.index.photo[1], {json.dumps(kind)}]]), 0)")
    try:
        for column in (0, 3):
            box = js(f"picture(1, {column}, found)")
            assert [text(one) for one in box[3:]] == [said]
            assert elements(box, "img") == []
        assert elements(js("picture(2, 3, null)"), "img") != []
    finally:
        js("(hvx.missingPhotos = new Map(), 0)")


@pytest.mark.parametrize(
    ("width", "height", "shown"),
    [(40, 30, ["75%"]), (30, 40, ["75%"]), (96, 32, [f"{100 / 3}"[:8]]), (32, 32, [])],
)
def test_the_square_that_the_model_saw_is_framed(js: Run, width: int, height: int, shown: list[str]) -> None:
    image = f"{{naturalWidth: {width}, naturalHeight: {height}}}"
    js(f"(globalThis.box = new Node('div'), frame(box, {image}), 0)")
    squares = js("box")[3:]
    assert [square[1]["class"] for square in squares] == ["square"] * len(shown)
    for square, expected in zip(squares, shown, strict=True):
        assert square[2]["width"].startswith(expected)


def test_words_that_the_model_does_not_know_are_dotted_and_said(js: Run) -> None:
    detail(js, 6)
    tokens = elements(elements(js('card(6, found, "#")'), "a")[0], "span")
    marked = [text(token) for token in tokens if token[1]["class"] == "token unknown"]
    assert marked == ["9", "?"]
    assert [token[1]["title"].endswith("; unknown to the model") for token in tokens] == [
        text(token) in marked for token in tokens
    ]
    js("(fillItem(6, found), 0)")
    assert text(js('byId["item-about"]')).count("Dottedunknown to the model") == 1
    detail(js, 5)
    js("(fillItem(5, found), 0)")
    assert "Dotted" not in text(js('byId["item-about"]'))


COLUMNS = ("Original", "First Attention", "Second Attention", "Proposed", "Question-specific (Eq. 2)")


def test_an_open_item_shows_all_of_it(js: Run) -> None:
    detail(js, 1)
    js("(fillItem(1, found), 0)")
    assert text(js('byId["item-question"]')) == "how many cats are there ?"
    pictures = js('byId["item-pictures"]')
    names = [text(one) for one in elements(pictures, "figcaption")]
    assert names == [*COLUMNS]
    assert [text(one) for one in elements(js('byId["item-tokens"]'), "li")] == [
        "how−2", "many−1.2", "cats−0.4", "are0.4", "there1.2", "?2"
    ]  # fmt: skip
    answers = elements(js('byId["item-answers"]'), "li")
    assert [text(one) for one in answers] == ["two40.0 %", "no10.0 %", "two5.0 %"]
    assert [elements(one, "span")[-1][2]["width"] for one in answers] == ["40%", "10%", "5%"]
    about = js('byId["item-about"]')
    terms = [text(one) for one in elements(about, "dt")]
    values = [text(one) for one in elements(about, "dd")]
    shown = dict(zip(terms, values, strict=True))
    assert shown.pop("… and attention of another question on the image") == "-1.000"
    image_id = shown.pop("Image id")
    assert image_id == str(js("found.imageId"))
    assert shown == {
        "Answer": "✗ wrong: two (three) 40.0 %",
        "Question id": "2",
        "Photograph": "cat.png",
        "Question type": "how many",
        "Answer type": "number",
        "Agreement of heat map and attention": "-1.000",
    }


def test_no_script_makes_html_of_text() -> None:
    for path in STATIC.glob("*.js"):
        found = re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|DOMParser",
            path.read_text(encoding="utf-8"),
        )
        assert found is None, path
