"""Prints what a gallery costs to build and to open.

python scripts/measure_gallery.py PHOTOGRAPHS --items 10000
"""

from __future__ import annotations

import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
from made_up import write_made_up_run
from playwright.sync_api import sync_playwright

ROUNDS = 5
OPTIONS = ["--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update",
           "--disable-sync"]  # fmt: skip


@click.command()
@click.argument("photographs", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--items", default=10_000, show_default=True, help="Explanations.")
@click.option("--side", default=448, show_default=True, help="Heat maps' side in pixels.")
@click.option("--workers", default=2, show_default=True, help="Processes of hvx gallery.")
@click.option("--keep", type=click.Path(path_type=Path), help="Leave the run and the gallery in this folder.")
def main(photographs: Path, items: int, side: int, workers: int, keep: Path | None) -> None:
    """Make up a run over PHOTOGRAPHS, build its gallery and open it in headless Chromium, five times."""
    folder = keep or Path(tempfile.mkdtemp())
    try:
        write_made_up_run(folder / "run", photographs, items, side)
        _build(folder, items, side, workers)
        _open(folder / "gallery" / "index.html")
    finally:
        if keep is None:
            shutil.rmtree(folder)


def _build(folder: Path, items: int, side: int, workers: int) -> None:
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, "-m", "hvx", "gallery", folder / "run", "-o", folder / "gallery"]
    subprocess.run([*map(str, command), "--workers", str(workers)], check=True)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    files = [path for path in (folder / "gallery").rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    click.echo(f"{items:,} explanations, heat maps of {side}×{side}, {workers} processes")
    click.echo(f"built in {wall:.0f} s, {processor:.0f} s of processor time")
    peak = after.ru_maxrss / 1e3
    click.echo(f"{len(files):,} files, {size / 1e6:.0f} MB; memory of the largest process {peak:.0f} MB")


def _open(page: Path) -> None:
    """From the request for the page to its cards on the screen, photographs decoded."""
    chromium = shutil.which("chromium")
    if chromium is None:
        raise click.UsageError("no chromium here; install it to measure how long the gallery takes to open")
    seconds = []
    for _ in range(ROUNDS):
        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=chromium, args=OPTIONS)
            tab = browser.new_page(viewport={"width": 1280, "height": 900})
            start = time.perf_counter()
            tab.goto(page.resolve().as_uri())
            tab.wait_for_selector("body[data-ready=true]")
            tab.evaluate("Promise.all([...document.images].map((image) => image.decode()))")
            seconds.append(time.perf_counter() - start)
            browser.close()
    click.echo(
        f"opened in {statistics.median(seconds):.2f} s (median of {ROUNDS}; worst {max(seconds):.2f} s)"
    )


if __name__ == "__main__":
    main()
