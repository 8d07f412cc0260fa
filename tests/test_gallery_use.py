"""The gallery in a real browser: looks in the address, keys and Back, groups, selection, phones, two runs.

Needs Chromium, as test_gallery_browser.py, whose fixtures it uses.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import h5py
import pytest
from made_galleries import Asked, write_run
from test_gallery_browser import CHROMIUM, browser, expect, go, page, shown, sync_api

from hvx.gallery.build import build_gallery
from hvx.store.reader import RunReader

__all__ = ["browser", "page"]
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")

NAME = "it's <b>a run"
SIZES = [(390, 844), (1280, 900)]


def asked(answer: str = "yes", agreeing: bool = True) -> list[Asked]:
    return [
        Asked(f"is it {n} ?", answer if n % 3 else "yes", "yes", probability=0.5, agreeing=agreeing or n > 4,
              photo=f"{n // 4}.png")
        for n in range(60)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two runs, the gallery ``one`` of the first and ``two`` of both."""
    folder = tmp_path_factory.mktemp("use")
    first = write_run(folder / NAME, asked())
    second = write_run(folder / "other", asked("no", agreeing=False))
    build_gallery(first, folder / "one", workers=1)
    build_gallery(first, folder / "two", workers=1, other=second)
    return folder


@pytest.fixture
def one(made: Path) -> str:
    return (made / "one" / "index.html").as_uri()


@pytest.fixture
def two(made: Path) -> str:
    return (made / "two" / "index.html").as_uri()


def focused(page: sync_api.Page) -> str | None:
    """The question_id of the card that has the focus."""
    found: str | None = page.evaluate("document.activeElement.closest('.card')?.dataset.id ?? null")
    return found


def test_a_link_opens_the_same_view(page: sync_api.Page, one: str) -> None:
    go(page, one)
    page.click("#style")
    page.click("#group")
    page.get_by_label("Original").check()
    page.select_option("#row", "2")
    page.fill("#q", "it 1")
    expect(page).to_have_url(re.compile("group=image"))
    link = page.url
    before = page.locator("main").aria_snapshot()
    page.goto("about:blank")
    go(page, link)
    assert page.locator("main").aria_snapshot() == before
    assert page.evaluate("[...document.body.attributes].map((one) => one.value)")[:2] == ["always", "paper"]
    expect(page.locator("#q")).to_have_value("it 1")
    expect(page.get_by_label("Original")).to_be_checked()
    expect(page.locator("#row")).to_have_value("2")
    assert len(page.locator("#cards").evaluate("e => getComputedStyle(e).gridTemplateColumns").split()) == 2


@pytest.mark.parametrize("size", SIZES)
def test_closing_returns_to_the_item_that_was_reached(
    page: sync_api.Page, one: str, size: tuple[int, int]
) -> None:
    page.set_viewport_size({"width": size[0], "height": size[1]})
    go(page, one)
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    title = page.locator("dialog[open] h2")
    expect(title).to_have_text("is it 0 ?")
    for n in range(1, 31):
        page.keyboard.press("ArrowRight")
        expect(title).to_have_text(f"is it {n} ?")
    page.keyboard.press("Escape")
    expect(page.locator("#page")).to_have_text("page 2 of 3")
    page.wait_for_function("document.activeElement.closest('.card')?.dataset.id === '31'")
    assert page.evaluate(
        """(() => { const box = document.activeElement.closest('.card').getBoundingClientRect();
           return box.top < innerHeight && box.bottom > 0; })()"""
    )
    page.keyboard.press("j")
    assert focused(page) == "32"


def test_back_closes_the_item_and_then_undoes_filters(page: sync_api.Page, one: str) -> None:
    go(page, one)
    page.select_option("#only", "right")
    page.fill("#q", "it 5")
    expect(page.locator(".card")).to_have_count(15)  # 5, 15, …, 45, and 50 to 59
    page.locator(".card .open").nth(5).click()
    expect(page.locator("dialog[open]")).to_have_count(1)
    page.keyboard.press("ArrowRight")
    expect(page.locator("dialog[open] h2")).to_have_text("is it 51 ?")
    page.go_back()
    expect(page.locator("dialog[open]")).to_have_count(0)
    page.wait_for_function("document.activeElement.closest('.card')?.dataset.id === '52'")
    expect(page.locator(".card")).to_have_count(15)
    # Closed by a key, it leaves no step behind.
    page.keyboard.press("Enter")
    expect(page.locator("dialog[open]")).to_have_count(1)
    page.keyboard.press("Escape")
    expect(page.locator("dialog[open]")).to_have_count(0)
    expect(page).not_to_have_url(re.compile("item="))
    page.go_back()
    expect(page.locator("#status")).to_contain_text("of 60 ")
    expect(page.locator("#q")).to_have_value("")
    expect(page.locator("#only")).to_have_value("right")
    page.go_back()
    expect(page.locator("#only")).to_have_value("")


def test_groups_show_each_photograph_once(page: sync_api.Page, one: str) -> None:
    go(page, one)
    page.keyboard.press("g")
    expect(page.locator(".group")).to_have_count(15)
    for place in (0, 14):
        group = page.locator(".group").nth(place)
        assert group.locator(".card").evaluate_all("cards => cards.map((one) => one.dataset.id)") == [
            str(4 * place + n) for n in range(1, 5)
        ]
        assert group.locator("> .picture").count() == 1
        assert group.locator(".card .picture").count() == group.locator(".card .map").count() == 4
    expect(page.locator("#status")).to_contain_text("1–60 of 60")


def test_selected_items_are_exported(page: sync_api.Page, one: str, made: Path, tmp_path: Path) -> None:
    go(page, one)
    expect(page.locator("#selection")).to_be_hidden()
    page.get_by_label("Select question 3").check()
    page.locator(".card .open").nth(0).focus()
    page.keyboard.press("x")
    expect(page.locator("#selection-count")).to_have_text("2 selected")
    text = page.locator("#selection-text")
    assert text.input_value() == "1\n3\n"
    page.select_option("#selection-kind", "figure")
    run = str(made / NAME)
    assert shlex.split(text.input_value()) == [
        "hvx", "figure", run, "-o", "figure.png", "--id", "1", "--id", "3"
    ]  # fmt: skip
    page.select_option("#selection-kind", "rows")
    with page.expect_download() as download:
        page.click("#selection-save")
    assert download.value.suggested_filename == "rows.json"
    download.value.save_as(tmp_path / "rows.json")
    assert json.loads((tmp_path / "rows.json").read_text()) == {
        "file": f"{run}/explanations.h5", "rows": [0, 2]
    }  # fmt: skip
    snippet = (
        page.locator("#selection-snippet").inner_text().replace("rows.json", str(tmp_path / "rows.json"))
    )
    assert len(snippet.splitlines()) == 2
    held: dict[str, Any] = {}
    exec(snippet, held)  # as a user would paste it
    with h5py.File(Path(run) / "explanations.h5") as file:
        assert (held["maps"] == file["heatmap"][:][[0, 2]]).all()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.click("#selection-copy")
    expect(page.locator("#selection-copy")).to_have_text("Copied")
    page.click("#selection-all")
    expect(page.locator("#selection-count")).to_have_text("60 selected")
    page.click("#selection-clear")
    expect(page.locator("#selection")).to_be_hidden()


def test_on_a_phone_controls_fold_and_two_cards_stand_in_a_row(page: sync_api.Page, one: str) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    go(page, one)
    expect(page.locator("#q")).to_be_hidden()
    tops = page.locator(".card").evaluate_all("cards => cards.map((one) => one.offsetTop)")
    assert tops[0] == tops[1] < tops[2]
    for hash in ("", "#group=image", "#show=0.1.2.3", "#item=1"):
        page.evaluate("hash => { location.hash = hash; }", hash)
        page.wait_for_timeout(200)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, hash


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("hash", ["", "#group=image"])
def test_nothing_moves_while_the_page_loads(
    page: sync_api.Page, one: str, size: tuple[int, int], hash: str
) -> None:
    """Cumulative layout shift, as browsers measure it."""
    page.add_init_script(
        """window.shifts = [];
        new PerformanceObserver((list) => window.shifts.push(...list.getEntries().map((one) => one.value)))
          .observe({ type: "layout-shift", buffered: true });"""
    )
    page.set_viewport_size({"width": size[0], "height": size[1]})
    go(page, one + hash)
    page.evaluate("Promise.all([...document.images].map((one) => one.decode()))")
    page.wait_for_timeout(300)
    assert sum(page.evaluate("window.shifts")) <= 0.1


def test_two_runs_stand_side_by_side(page: sync_api.Page, two: str, made: Path) -> None:
    go(page, two)
    expect(page.locator("#title")).to_have_text(f"Explanations of A {NAME}, B other")
    first = page.locator(".card").nth(1)
    assert first.locator(".map").count() == 2
    assert [one.split() for one in first.locator(".verdict").all_inner_texts()] == [
        ["A", "✓", "right:", "yes", "(yes)", "50.0", "%"], ["B", "✗", "wrong:", "no", "(yes)", "50.0", "%"]
    ]  # fmt: skip
    page.select_option("#versus", "only-a")
    expect(page.locator("#status")).to_contain_text(
        "of 40 explanations (of 60 in all), A 100.0 % right, B 0.0 %"
    )
    page.select_option("#versus", "only-b")
    expect(page.locator("#status")).to_have_text("No explanation fits.")
    page.select_option("#versus", "same")
    expect(page.locator(".card")).to_have_count(20)
    page.click("#clear")
    page.select_option("#sort", "alike")
    expect(page.locator(".card").first).to_contain_text("heat maps of A and B: -1.00")
    assert shown(page)[:6] == ["1", "2", "3", "4", "5", "6"]
    page.locator(".card .open").nth(1).click()
    names = page.locator("dialog[open] figcaption").all_inner_texts()
    assert names[0] == "Original"
    assert names[3] == "A: Proposed"
    assert names[7:] == ["B: Proposed", "B: Question-specific (Eq. 2)"]
    assert page.locator("dialog[open] .scored").count() == 2
    page.keyboard.press("x")
    page.keyboard.press("Escape")
    page.select_option("#selection-kind", "figure")
    lines = page.locator("#selection-text").input_value().splitlines()
    assert [shlex.split(line)[2:5] for line in lines] == [
        [str(made / NAME), "-o", "figure-a.png"], [str(made / "other"), "-o", "figure-b.png"]
    ]  # fmt: skip


def test_the_summary_has_the_numbers_of_the_run(page: sync_api.Page, one: str, made: Path) -> None:
    go(page, one)
    page.click("#summary summary")
    said = page.locator("#summary").inner_text()
    assert re.search(r"all\s+60\s+100.0 %", said)
    reader = RunReader(made / NAME)
    z = [
        z
        for n in range(60)
        for token, z in zip(reader[n].tokens, reader[n].token_z, strict=True)
        if token == "is"
    ]
    assert re.search(rf"is\s+−{-sum(z) / len(z):.2f}\s+60", said)
    assert re.search(r"mean rank correlation\s+1.000\s+60", said)
    assert re.search(r"other question's attention\s+1.000\s+60", said)


def test_the_focus_is_seen_on_every_control(page: sync_api.Page, one: str) -> None:
    """Through the page by Tab: whatever has the focus, or its card, has an outline."""
    go(page, one)
    unseen = []
    for _ in range(30):
        page.keyboard.press("Tab")
        seen = page.evaluate(
            """(() => { const one = document.activeElement; const card = one.closest('.card') ?? one;
               return [one, card].some((it) => getComputedStyle(it).outlineStyle !== 'none')
                 ? '' : one.outerHTML; })()"""
        )
        unseen += [seen] if seen else []
    assert unseen == []
