"""The gallery's accessibility, by axe in headless Chromium: no violation of WCAG 2.2 at the levels A and AA.

Needs Chromium, as test_gallery_browser.py, whose fixtures it uses, and axe-core.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from made_galleries import Asked, write_run
from test_gallery_browser import CHROMIUM, browser, go, page, sync_api

from hvx.gallery.build import build_gallery

axe = pytest.importorskip("axe_playwright_python.base", reason="no axe here")

__all__ = ["browser", "page"]
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")

LEVELS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
VIEWS = ["", "#group=image", "#show=0.1.2.3", "#style=paper&maps=hover", "#item=1", "#item=5"]
RUN = """async (levels) => {
  const found = await axe.run(document, { runOnly: levels, preload: false });
  return found.violations.flatMap(({ id, nodes }) => nodes.map((node) => `${id}: ${node.html}`));
}"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Galleries ``one`` and ``two``: right and wrong answers, no truth, zero gradients, unknown words."""
    folder = tmp_path_factory.mktemp("access")
    asked = [
        Asked(f"is it {n} ?", "yes" if n % 3 else "no", "yes" if n % 4 else "", photo=f"{n // 4}.png",
              zero_gradient=n % 4, unknown=("it",) if n % 2 else ())
        for n in range(30)
    ]  # fmt: skip
    first = write_run(folder / "first", asked)
    second = write_run(folder / "second", [replace(one, answer="no", zero_gradient=0) for one in asked])
    (folder / "photos" / "1.png").unlink()
    build_gallery(first, folder / "one", workers=1)
    build_gallery(first, folder / "two", workers=1, other=second)
    return folder


def violations(page: sync_api.Page) -> list[str]:
    if not page.evaluate("typeof axe !== 'undefined'"):
        page.evaluate(axe.AXE_SCRIPT)
    found: list[str] = page.evaluate(RUN, LEVELS)
    return found


@pytest.mark.parametrize(("size", "theme"), [((390, 844), "light"), ((1280, 900), "dark")])
@pytest.mark.parametrize("gallery", ["one", "two"])
def test_axe_finds_nothing(
    page: sync_api.Page, made: Path, gallery: str, size: tuple[int, int], theme: str
) -> None:
    page.emulate_media(color_scheme=theme, reduced_motion="reduce")
    page.set_viewport_size({"width": size[0], "height": size[1]})
    found = {}
    for view in VIEWS:
        page.goto("about:blank")
        go(page, f"{(made / gallery / 'index.html').as_uri()}{view}")
        found[view] = violations(page)
    page.keyboard.press("Escape")
    # All that folds, open, and the selection.
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    page.locator(".pick input").nth(1).check()
    page.select_option("#selection-kind", "rows")
    found["all open"] = violations(page)
    assert found == {view: [] for view in found}


def test_axe_would_find_something(page: sync_api.Page, made: Path) -> None:
    """A picture without a text, and letters that hardly stand out."""
    go(page, (made / "one" / "index.html").as_uri())
    page.evaluate("document.querySelector('.card img').removeAttribute('alt')")
    page.evaluate("document.querySelector('#status').style.color = '#bbb'")
    assert {line.split(":")[0] for line in violations(page)} == {"image-alt", "color-contrast"}
