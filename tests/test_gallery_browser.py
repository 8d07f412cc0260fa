"""The gallery in a real browser, opened from a file: search, filters, sorting, items, keys, hostile text.

Needs Chromium (Debian's package, or whatever `chromium` is on the path); skips without it.
"""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlparse

import numpy as np
import pytest
from made_galleries import Asked, write_run
from PIL import Image

from hvx.gallery.build import build_gallery
from hvx.gallery.pictures import PHOTO_SIDE
from hvx.store.reader import RunReader
from hvx.view.heat import overlay
from hvx.view.run_figures import figure_row
from hvx.view.style import Style
from hvx.view.tokens import contrast

sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright here")
expect = sync_api.expect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")

OPTIONS = ["--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update",
           "--disable-sync"]  # fmt: skip
PATIENCE = 60_000
"""Milliseconds that any one wait may take on a machine under load."""

SCRIPT = "<script>alert(1)</script> <img src=x onerror=alert(2)> what ?"
ASKED = [
    Asked("is the cat black ?", "yes", "yes", "yes/no", "is the", 0.9, True, "cat.png"),
    Asked("how many cats are there ?", "two", "three", "number", "how many", 0.4, False, "cat.png"),
    Asked(
        SCRIPT,
        "</script>&amp;",
        'x" onclick="alert(3)',
        "other",
        "<b>what</b>",
        0.2,
        True,
        "odd '\"<&#name.png",
    ),
    Asked("", "no", "", "other", "none", 0.05, True, "cat.png"),
    Asked("猫 は 黒い です か ？", "はい", "はい", "yes/no", "is the", 0.7, True, "cat.png"),
] + [
    Asked(f"what is number {n} ?", "lamp", "lamp", "other", "what is", 0.5, True, "cat.png")
    for n in range(60)
]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("browser")
    run = write_run(folder / "run", ASKED)
    build_gallery(run, folder / "a gallery #1", workers=1)
    return (folder / "a gallery #1" / "index.html").as_uri()


@pytest.fixture(scope="module")
def browser() -> Iterator[sync_api.Browser]:
    with sync_api.sync_playwright() as driver:
        # A new profile each time, gone with the browser.
        started = driver.chromium.launch(executable_path=CHROMIUM, args=OPTIONS, timeout=PATIENCE)
        yield started
        started.close()


@pytest.fixture
def page(browser: sync_api.Browser) -> Iterator[sync_api.Page]:
    """A page of its own, in which no script fails, no file is missing and nothing opens a dialog."""
    expect.set_options(timeout=PATIENCE)
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    context.set_default_timeout(PATIENCE)
    opened = context.new_page()
    wrong: list[str] = []
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    opened.on("requestfailed", lambda request: wrong.append(request.url))
    opened.on("request", lambda request: wrong.append(request.url) if not _is_file(request.url) else None)
    opened.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
    yield opened
    context.close()
    assert wrong == []


def _is_file(url: str) -> bool:
    return url.startswith("file:")


def go(page: sync_api.Page, address: str) -> None:
    page.goto(address)
    expect(page.locator("body[data-ready=true]")).to_be_attached()


def shown(page: sync_api.Page) -> list[str]:
    """The question_ids of the cards."""
    found: list[str] = page.locator(".card").evaluate_all("cards => cards.map(card => card.dataset.id)")
    return found


def test_it_opens_with_its_first_page_of_cards(page: sync_api.Page, address: str) -> None:
    go(page, address)
    assert shown(page) == [str(n) for n in range(1, 25)]
    # Of 65, one has no ground truth and two are wrong.
    expect(page.locator("#status")).to_have_text("1–24 of 65 explanations, 96.9 % right")
    loaded = page.evaluate(
        "Promise.all([...document.images].map((i) => i.decode().then(() => i.naturalWidth)))"
    )
    assert set(loaded) == {427}  # of 40×30 pixels, the shorter side 320


def test_search_finds_words_of_questions_and_answers_in_any_order(page: sync_api.Page, address: str) -> None:
    go(page, address)
    page.fill("#q", "CATS how")
    expect(page.locator("#status")).to_contain_text("1–1 of 1 explanations (of 65 in all)")
    assert shown(page) == ["2"]
    page.fill("#q", "three")
    expect(page.locator("#status")).to_contain_text("1–1 of 1 ")
    assert shown(page) == ["2"]
    page.fill("#q", "黒い")
    expect(page.locator(".card")).to_have_count(1)
    assert shown(page) == ["5"]
    page.fill("#q", "no such words")
    expect(page.locator("#status")).to_have_text("No explanation fits.")
    page.click("#clear")
    expect(page.locator("#status")).to_contain_text("of 65 ")


def test_filters_work_together(page: sync_api.Page, address: str) -> None:
    go(page, address)
    page.select_option("#only", "wrong")
    expect(page.locator(".card")).to_have_count(2)
    page.select_option("#answer_type", "number")
    expect(page.locator(".card")).to_have_count(1)
    assert shown(page) == ["2"]
    page.click("#clear")
    page.select_option("#only", "unknown")
    expect(page.locator(".card")).to_have_count(1)
    assert shown(page) == ["4"]
    page.click("#clear")
    page.fill("#min", "60")
    page.fill("#max", "80")
    expect(page.locator(".card")).to_have_count(1)
    assert shown(page) == ["5"]
    page.click("#clear")
    page.select_option("#question_type", "<b>what</b>")
    expect(page.locator(".card")).to_have_count(1)
    assert shown(page) == ["3"]


def test_sorting(page: sync_api.Page, address: str) -> None:
    go(page, address)
    page.select_option("#sort", "-probability")
    expect(page.locator(".card").first).to_have_attribute("data-id", "1")
    assert shown(page)[:3] == ["1", "5", "6"]
    page.select_option("#sort", "probability")
    expect(page.locator(".card").first).to_have_attribute("data-id", "4")
    assert shown(page)[:3] == ["4", "3", "2"]
    page.select_option("#sort", "agreement")
    expect(page.locator(".card").first).to_have_attribute("data-id", "2")
    page.select_option("#sort", "question")
    page.fill("#q", "number")
    expect(page.locator("#status")).to_contain_text("of 60 ")
    # Numbers in texts count as numbers: 2 before 10.
    assert shown(page) == [str(n) for n in range(6, 30)]


def test_pages(page: sync_api.Page, address: str) -> None:
    go(page, address)
    expect(page.locator("#previous")).to_be_disabled()
    page.click("#next")
    expect(page.locator("#page")).to_have_text("page 2 of 3")
    assert shown(page)[0] == "25"
    page.click("#last")
    expect(page.locator(".card")).to_have_count(17)
    expect(page.locator("#next")).to_be_disabled()
    page.go_back()
    expect(page.locator("#page")).to_have_text("page 2 of 3")
    page.select_option("#per", "96")
    expect(page.locator(".card")).to_have_count(65)


def test_an_item_opens_and_has_a_link_of_its_own(page: sync_api.Page, address: str) -> None:
    go(page, address)
    page.fill("#q", "cat")
    expect(page.locator(".card")).to_have_count(2)
    page.locator(".card .open").nth(1).click()
    dialog = page.locator("dialog[open]")
    expect(dialog.locator("h2")).to_have_text("how many cats are there ?")
    expect(dialog.locator("figcaption")).to_have_text(
        ["Original", "First Attention", "Second Attention", "Proposed", "Question-specific (Eq. 2)"]
    )
    assert dialog.locator("#item-tokens .token").all_inner_texts() == ASKED[1].question.split()
    assert dialog.locator("#item-tokens .value").all_inner_texts()[0] == "−2"
    assert dialog.locator("#item-answers bdi").all_inner_texts() == ["two", "no", "two"]
    expect(dialog.locator("#item-about")).to_contain_text("two (three) 40.0 %")
    expect(dialog.locator("#item-about")).to_contain_text("-1.000")
    link = dialog.locator("#item-link").evaluate("link => link.href")
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(page).not_to_have_url(re.compile("item"))
    page.goto("about:blank#")
    go(page, link)
    expect(page.locator("dialog[open] h2")).to_have_text("how many cats are there ?")


def test_everything_goes_by_keyboard(page: sync_api.Page, address: str) -> None:
    go(page, address)
    page.keyboard.press("j")
    expect(page.locator(".card .open").first).to_be_focused()
    page.keyboard.press("/")
    page.keyboard.type("number")
    expect(page.locator("#status")).to_contain_text("of 60 ")
    expect(page.locator("#q")).to_have_value("number")  # within the field, letters are letters
    page.keyboard.press("Enter")
    expect(page.locator(".card .open").first).to_be_focused()
    page.keyboard.press("n")
    expect(page.locator("#page")).to_have_text("page 2 of 3")
    page.keyboard.press("p")
    expect(page.locator("#page")).to_have_text("page 1 of 3")
    expect(page.locator(".card .open").first).to_be_focused()  # whoever was on a card is on one again
    page.keyboard.press("j")
    expect(page.locator(".card .open").nth(1)).to_be_focused()
    page.keyboard.press("k")
    page.keyboard.press("ArrowRight")
    expect(page.locator(".card .open").nth(1)).to_be_focused()
    page.keyboard.press("Enter")
    title = page.locator("dialog[open] h2")
    expect(title).to_have_text("what is number 1 ?")
    page.keyboard.press("ArrowRight")
    expect(title).to_have_text("what is number 2 ?")
    page.keyboard.press("ArrowLeft")
    expect(title).to_have_text("what is number 1 ?")
    page.keyboard.press("Escape")
    expect(page.locator("dialog[open]")).to_have_count(0)
    page.keyboard.press("h")
    expect(page.locator("#maps")).to_have_attribute("aria-pressed", "false")
    page.locator("#keys summary").click()
    page.uncheck("#shortcuts")
    page.locator("#next").focus()
    page.keyboard.press("h")
    expect(page.locator("#maps")).to_have_attribute("aria-pressed", "false")


def test_looks_chosen_in_an_item_or_while_it_closes_stay(page: sync_api.Page, address: str) -> None:
    # Closing goes back in the browser's history, to an address from before the choice.
    go(page, address)
    page.locator(".card .open").first.click()
    expect(page.locator("dialog[open]")).to_be_attached()
    page.keyboard.press("c")
    expect(page.locator("#style")).to_have_attribute("aria-pressed", "false")
    page.evaluate(
        """() => {
          document.querySelector("dialog").close();
          document.getElementById("maps").click();
        }"""
    )
    expect(page.locator("body[data-style=paper][data-maps=hover]")).to_be_attached()
    expect(page).not_to_have_url(re.compile("item="))
    expect(page).to_have_url(re.compile("maps=hover&style=paper"))
    expect(page.locator(".card .open").first).to_be_focused()
    page.evaluate(
        """() => {
          document.querySelector(".card .open").click();
          const dialog = document.querySelector("dialog");
          const closing = () => {
            if (!dialog.open) { setTimeout(closing, 20); return; }
            dialog.addEventListener("close", () => setTimeout(() => {
              document.getElementById("maps").click();
            }));
            dialog.close();
          };
          addEventListener("hashchange", () => setTimeout(closing, 200), { once: true });
        }"""
    )
    expect(page.locator("body[data-style=paper][data-maps=always]")).to_be_attached()
    expect(page.locator("dialog[open]")).to_have_count(0)
    expect(page).not_to_have_url(re.compile("item=|maps="))


def test_who_goes_to_the_first_card_before_the_cards_have_come_stays_on_the_first(
    page: sync_api.Page, address: str
) -> None:
    go(page, address)
    page.evaluate(
        """() => {
          const read = hvx.detail;
          hvx.detail = async (number) => {
            await new Promise((done) => { setTimeout(done, 300); });
            return read(number);
          };
        }"""
    )
    page.keyboard.press("/")
    page.keyboard.type("number 59")
    page.keyboard.press("Enter")
    expect(page.locator(".card .open")).to_have_text(["what is number 59 ?"])
    expect(page.locator(".card .open")).to_be_focused()


def opacity(page: sync_api.Page) -> float:
    return float(page.locator(".card .map").first.evaluate("map => getComputedStyle(map).opacity"))


def test_heat_maps_show_at_once_or_on_hover(page: sync_api.Page, address: str) -> None:
    page.emulate_media(reduced_motion="reduce")
    go(page, address)
    page.mouse.move(0, 0)
    assert opacity(page) > 0.3
    style = "map => getComputedStyle(map).filter"
    assert "color-scale" in page.locator(".card .map").first.evaluate(style)
    page.click("#style")
    expect(page).to_have_url(re.compile("#style=paper$"))
    assert page.locator(".card .map").first.evaluate(style) == "none"
    page.click("#maps")
    page.mouse.move(0, 0)
    expect(page.locator("body")).to_have_attribute("data-maps", "hover")
    assert opacity(page) == 0
    page.locator(".card").first.hover()
    assert opacity(page) > 0.3


@pytest.mark.parametrize("style", ["color", "paper"])
def test_a_map_lies_on_its_photograph_as_in_a_figure(page: sync_api.Page, address: str, style: Style) -> None:
    """But for JPEG, the enlargement of small pictures, and the fewer stops of the color scale."""
    page.emulate_media(reduced_motion="reduce")
    go(page, address)
    if style == "paper":
        page.click("#style")
    run = Path(unquote(urlparse(address).path)).parents[1] / "run"
    with RunReader(run) as reader:
        row = figure_row(reader, 1, PHOTO_SIDE)
    box = page.locator(".card .picture").nth(1)
    outline = box.locator(".outline")
    expect(outline).to_have_css("display", "block" if style == "color" else "none")
    outline.evaluate("drawn => drawn.remove()")
    box.locator("img").evaluate("image => image.decode()")
    with Image.open(io.BytesIO(box.screenshot())) as taken:
        side = taken.width
        found = np.asarray(taken.convert("RGB").resize((side, side)), np.float64)
    expected = np.asarray(overlay(row.photo, row.heatmap, side, style), np.float64)
    inner = slice(side // 20, -side // 20)  # rounded corners, and what lies beside the map in its picture
    apart = np.abs(found - expected)[inner, inner]
    assert apart.mean() < 4
    assert expected[inner, inner].std() > 10


def test_the_first_picture_of_an_open_item_is_the_whole_photograph(page: sync_api.Page, address: str) -> None:
    """40×30 pixels, of which the model saw 30×30."""
    go(page, f"{address}#item=1")
    frame = page.locator("#item-pictures .whole .square")
    expect(frame).to_have_count(1)
    image = page.locator("#item-pictures .whole img")
    assert image.evaluate("image => image.naturalWidth / image.naturalHeight") == pytest.approx(
        4 / 3, abs=0.01
    )
    outer, inner = image.bounding_box(), frame.bounding_box()
    assert inner["width"] == pytest.approx(0.75 * outer["width"], abs=1)
    assert inner["height"] == pytest.approx(inner["width"], abs=1)
    assert inner["x"] + inner["width"] / 2 == pytest.approx(outer["x"] + outer["width"] / 2, abs=1)
    assert page.locator("#item-pictures .mapped .square").count() == 0


def test_tokens_have_the_colors_of_the_figures(page: sync_api.Page, address: str) -> None:
    go(page, address)
    tokens = page.locator(".card").first.locator(".token")
    expect(tokens.first).to_have_css("background-color", "rgb(33, 102, 172)")
    expect(tokens.last).to_have_css("background-color", "rgb(178, 24, 43)")
    expect(tokens.last).to_have_attribute("title", "z 2")


def test_text_of_the_data_is_only_ever_text(page: sync_api.Page, address: str) -> None:
    """No dialog opens, no element comes of it (the fixture sees the dialogs and failed requests)."""
    go(page, address)
    page.fill("#q", "<script>")
    expect(page.locator(".card")).to_have_count(1)
    assert page.locator(".card .open").inner_text().split() == SCRIPT.split()
    page.locator(".card .open").click()
    expect(page.locator("dialog[open] h2")).to_have_text(SCRIPT)
    expect(page.locator("#item-about")).to_contain_text("odd '\"<&#name.png")
    expect(page.locator("#item-about")).to_contain_text("<b>what</b>")
    expect(page.locator("#item-answers bdi").first).to_have_text("</script>&amp;")
    assert page.locator("dialog[open] b, dialog[open] script, .card script").count() == 0
    page.goto("about:blank#")
    hostile = "q=%3Cimg%20onerror%3Dalert(2)%3E&item=%3Cscript%3Ealert(5)%3C%2Fscript%3E&sort=__proto__"
    go(page, f"{address}#{hostile}")
    expect(page.locator(".card")).to_have_count(1)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_theme_follows_the_system_until_it_is_chosen(
    page: sync_api.Page, address: str, scheme: str
) -> None:
    page.emulate_media(color_scheme=scheme)
    go(page, address)
    expect(page.locator("body")).to_have_css(
        "background-color", "rgb(255, 255, 255)" if scheme == "light" else "rgb(22, 22, 23)"
    )
    page.click("#theme")
    expect(page.locator("#theme")).to_have_text("Theme: light")
    expect(page.locator("body")).to_have_css("background-color", "rgb(255, 255, 255)")
    page.click("#theme")
    expect(page.locator("body")).to_have_css("background-color", "rgb(22, 22, 23)")


def test_a_screen_reader_is_told_what_is_there(page: sync_api.Page, address: str) -> None:
    """The accessibility tree: landmarks, names of all controls, cards as a list, verdicts in words."""
    go(page, address)
    tree = page.locator("body").aria_snapshot()
    for role in (
        "banner:", "main:", "contentinfo:", 'search "Search and filters":', 'navigation "Pages":',
        'heading "Explanations of', 'searchbox "Search in questions and answers"', 'combobox "Answer type":',
        'combobox "Sort by":', 'spinbutton "from"', 'button "Heat maps" [pressed]',
        'group "Pictures on a card"', 'list "Explanations":',
        'link "is the cat black ?"', "status: 1–24 of 65 explanations",
    ):  # fmt: skip
        assert role in tree, (role, tree)
    first, second = (page.locator(".card").nth(place).aria_snapshot() for place in (0, 1))
    assert 'img "Proposed: where it lies on the photograph"' in first
    assert "right: yes (yes) 90.0 %" in first
    assert "wrong: two (three) 40.0 %" in second
    page.locator(".card .open").first.click()
    opened = page.locator("dialog[open]").aria_snapshot()
    assert 'dialog "is the cat black ?":' in opened
    for part in (
        'button "Close"',
        'list "Tokens with their z-scores":',
        'heading "Likeliest answers"',
        "figure",
    ):
        assert part in opened, (part, opened)
    expect(page.locator("#item-question")).to_be_focused()


def test_every_control_has_a_name_and_every_picture_a_text(page: sync_api.Page, address: str) -> None:
    go(page, address)
    nameless = page.evaluate(
        """[...document.querySelectorAll("button, input, select, a, img")].filter((one) =>
           !(one.labels?.length || one.alt || one.textContent.trim() || one.getAttribute("aria-label")))
           .map((one) => one.outerHTML)"""
    )
    assert nameless == []


def test_text_stands_out_from_its_ground_in_both_themes(page: sync_api.Page, address: str) -> None:
    """WCAG 2's 4.5:1 for the page's pairs of colors."""
    go(page, address)
    for theme in ("light", "dark"):
        page.evaluate("theme => document.documentElement.dataset.theme = theme", theme)
        names = ("ground", "card", "text", "soft", "accent", "wrong", "right")
        style = "name => getComputedStyle(document.documentElement).getPropertyValue('--' + name).trim()"
        colors = {name: _rgb(page.evaluate(style, name)) for name in names}
        for ground in ("ground", "card"):
            for ink in ("text", "soft", "accent", "wrong", "right"):
                assert contrast(colors[ground], colors[ink]) >= 4.5, (theme, ground, ink)


def _rgb(text: str) -> tuple[int, int, int]:
    digits = re.fullmatch(r"#([0-9a-f]{3}|[0-9a-f]{6})", text)
    assert digits, text
    doubled = digits[1] if len(digits[1]) == 6 else "".join(2 * digit for digit in digits[1])
    red, green, blue = bytes.fromhex(doubled)
    return red, green, blue


def test_a_gallery_that_is_not_whole_says_so(browser: sync_api.Browser, address: str, tmp_path: Path) -> None:
    whole = Path(unquote(urlparse(address).path)).parent
    for name in ("index", "items"):
        shutil.copytree(whole, tmp_path / name)
    (tmp_path / "index" / "data" / "index-0000.js").unlink()
    (tmp_path / "items" / "data" / "items-000000.js").unlink()
    context = browser.new_context()
    context.set_default_timeout(PATIENCE)
    opened = context.new_page()
    opened.goto((tmp_path / "index" / "index.html").as_uri())
    expect(opened.locator("#status")).to_contain_text("data/index-0000.js is missing", timeout=PATIENCE)
    go(opened, (tmp_path / "items" / "index.html").as_uri())
    expect(opened.locator(".card .open").first).to_have_text("is the cat black ?")
    context.close()


@pytest.fixture(scope="module")
def of_words(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A gallery of a network with a heat map for each word."""
    folder = tmp_path_factory.mktemp("words")
    build_gallery(write_run(folder / "run", ASKED[:3], words=True), folder / "gallery", workers=1)
    return (folder / "gallery" / "index.html").as_uri()


def columns_of_light(picture: bytes) -> int:
    """The place, in shares of 12 from the left, of the brightest column of a picture of a map."""
    with Image.open(io.BytesIO(picture)) as taken:
        gray = np.asarray(taken.convert("L"), np.float64)
    middle = gray[len(gray) // 4 : len(gray) * 3 // 4].mean(0)
    smooth = np.convolve(middle, np.ones(len(middle) // 8), "same")
    return int(12 * smooth.argmax() / len(middle))


def test_a_words_map_shows_while_the_pointer_or_the_focus_is_on_it(
    page: sync_api.Page, of_words: str
) -> None:
    page.emulate_media(reduced_motion="reduce")
    go(page, of_words)
    card = page.locator(".card").first
    whole = card.locator(".picture").screenshot()
    found = []
    for place in (0, 2):
        card.locator(".token").nth(place).hover()
        shown = card.locator(".picture .map.word")
        expect(shown).to_have_count(1)
        expect(card.locator(".picture .note.word")).to_have_text(("is", "the", "cat")[place])
        expect(card.locator(".outline")).to_have_css("display", "none")
        card.locator(".note.word").evaluate("note => note.style.display = 'none'")
        found.append(columns_of_light(card.locator(".picture").screenshot()))
    assert found[0] < found[1]
    page.mouse.move(0, 0)
    expect(card.locator(".map.word")).to_have_count(0)
    assert card.locator(".picture").screenshot() == whole
    card.locator("a.open").click()
    page.locator("#item-tokens .token").nth(3).focus()
    expect(page.locator("#item-pictures .map.word")).to_have_count(1)
    expect(page.locator("#item-pictures .note.word")).to_have_text("black")
    page.locator("#item-close").focus()
    expect(page.locator("#item-pictures .map.word")).to_have_count(0)


def test_words_without_maps_take_no_focus(page: sync_api.Page, address: str) -> None:
    go(page, address)
    page.locator(".card .token").first.hover()
    expect(page.locator(".map.word")).to_have_count(0)
    assert page.locator("[data-word], [tabindex='0'].token").count() == 0
