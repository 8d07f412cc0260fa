"""The documentation as a site: its navigation, its links to source files, the messages that it quotes."""

from __future__ import annotations

import ast
import re
import shutil
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import torch
import yaml
from conftest import REPOSITORY, Tiny, hvx
from safetensors.torch import save_file

import hvx as package
from hvx.data import images
from hvx.data.parquet import ParquetRows
from hvx.device import pick_device
from hvx.errors import HvxError
from hvx.run.ray.connection import import_ray
from hvx.run.run_directory import check_same_run

sys.path.insert(0, str(REPOSITORY / "scripts"))
import site_hooks

DOCS = REPOSITORY / "docs"
QUOTED = re.findall(r"^```console\n(.*?)\n```", (DOCS / "troubleshooting.md").read_text("utf-8"), re.M | re.S)
COMPOSED = (
    "no such image (", "a PyTorch pickle", "unknown key", "image-decoding process died", "pip install 'hvx[",
)  # fmt: skip
"""In quoted messages that hvx puts together from several texts: the tests below have hvx give these."""
LEAST = 0.35
"""The share of a quoted message that must be hvx's own words; the rest are the example's names."""


def named_pages(nav: Any) -> Iterator[str]:
    """The pages that a navigation names, in its order."""
    if isinstance(nav, str):
        yield nav
    else:
        for entry in nav.values() if isinstance(nav, dict) else nav:
            yield from named_pages(entry)


def test_the_navigation_names_every_page_once() -> None:
    config = yaml.safe_load((REPOSITORY / "mkdocs.yml").read_text("utf-8"))
    pages = [path for path in DOCS.rglob("*") if path.suffix in (".md", ".ipynb")]
    there = sorted(str(path.relative_to(DOCS)) for path in pages if "checkpoints" not in path.parent.name)
    assert sorted(named_pages(config["nav"])) == there


def test_the_python_reference_has_every_public_name() -> None:
    names = re.findall(r"^::: hvx\.(\w+)$", (DOCS / "reference.md").read_text("utf-8"), re.M)
    assert sorted(names) == sorted(set(package.__all__) - {"__version__"})


def test_links_out_of_docs_lead_to_pages_that_show_the_files() -> None:
    text = "[a](../hvx/errors.py) [b](method.md#networks) [c](https://x.org/y) [d](../LICENSE) [e](no.md)"
    shown = text.replace("../hvx/errors.py", "source/hvx/errors.py.md")
    shown = shown.replace("../LICENSE", "source/LICENSE.md")
    page = PurePosixPath("docs/data.md")
    assert site_hooks.relink(text, page, "data.md") == shown
    block = f"```\n{text}\n```"
    assert site_hooks.relink(f"{block}\n{text}", page, "data.md") == f"{block}\n{shown}"


def test_links_within_a_file_shown_lead_back_to_the_site() -> None:
    text = "[a](docs/method.md) ![b](docs/figure2.png) [c](hvx/errors.py)"
    page = "source/README.md.md"
    shown = "[a](../method.md) ![b](../figure2.png) [c](hvx/errors.py.md)"
    assert site_hooks.relink(text, PurePosixPath("README.md"), page) == shown


def test_a_link_out_of_the_repository_stays_for_mkdocs_to_refuse() -> None:
    text = f"[a](../../{REPOSITORY.name}/README.md) [b](../../../etc/hosts)"
    assert site_hooks.relink(text, PurePosixPath("docs/data.md"), "data.md") == text


def test_every_file_that_the_docs_link_to_has_its_page() -> None:
    pages = site_hooks.source_pages(PurePosixPath("docs", path.name) for path in DOCS.glob("*.md"))
    guided = pages["source/hvx/explain/guided.py.md"]
    assert (REPOSITORY / "hvx/explain/guided.py").read_text("utf-8") in guided
    assert "(capture/graph.py.md)" in pages["source/hvx/capture.md"]  # a folder lists its files
    assert "source/hvx/capture/graph.py.md" in pages


def test_a_link_written_as_a_file_name_gets_the_heading_of_its_page() -> None:
    text = "([method.md](method.md#networks), [here](method.md), [method.md](results.md))"
    named = "([Method](method.md#networks), [here](method.md), [method.md](results.md))"
    assert site_hooks.name_links(text, PurePosixPath("docs/data.md")) == named


@pytest.mark.parametrize(
    "fetched",
    [
        '<script src="https://x.org/a.js">',
        "<link rel=stylesheet href=//x.org/a.css>",
        '<img alt="" src="http://x.org/a.png">',
    ],
)
def test_what_a_page_would_fetch_from_elsewhere_is_seen(fetched: str) -> None:
    assert site_hooks._FETCHED.search(f"<p>{fetched}</p>")
    assert not site_hooks._FETCHED.search('<a href="https://x.org">x</a> <script src="assets/a.js"></script>')


@pytest.mark.parametrize("message", [each for each in QUOTED if not any(part in each for part in COMPOSED)])
def test_a_message_that_troubleshooting_quotes_is_one_of_hvx(message: str) -> None:
    assert "\n" not in message
    assert best_share(message) >= LEAST, "hvx no longer says this; quote what it says now"


def test_a_message_that_hvx_does_not_say_is_noticed() -> None:
    assert best_share("--device cuda: this machine has 0 CUDA devices; use --device cpu") < LEAST
    assert best_share("runs/daquar/run: locked by another process; delete the file .lock") < LEAST


def test_there_is_something_to_hold_them_to() -> None:
    assert len(QUOTED) >= 20


def best_share(message: str) -> float:
    """The largest share of a message that a text in hvx's source has, letter by letter, around its gaps."""
    fits = [own for pattern, own in templates() if re.fullmatch(pattern, message, re.S)]
    return max(fits, default=0) / len(message)


@cache
def templates() -> list[tuple[str, int]]:
    """Each text in hvx's source as a pattern with gaps for what is computed, and its letters."""
    found = []
    for path in (REPOSITORY / "hvx").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, (ast.JoinedStr, ast.BinOp, ast.Constant)):
                parts = list(_parts(node))
                if any(parts):
                    found.append((".*".join(map(re.escape, parts)), sum(map(len, parts))))
    return found


def _parts(node: ast.expr) -> Iterator[str]:
    """The texts between the gaps of an expression: one more than there are gaps."""
    match node:
        case ast.Constant(value=str(text)):
            yield text
        case ast.JoinedStr(values=values):
            yield from _joined(values)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            yield from _joined([left, right])
        case _:
            yield from ("", "")


def _joined(nodes: list[ast.expr]) -> Iterator[str]:
    texts = [""]
    for node in nodes:
        first, *rest = _parts(node)
        texts[-1] += first
        texts += rest
    yield from texts


def said(message: str) -> None:
    """See that troubleshooting quotes a message that hvx has just given."""
    assert message.strip().removeprefix("Error: ") in QUOTED


def test_the_quoted_messages_about_checkpoints_are_given(tmp_path: Path) -> None:
    (tmp_path / "mlb.pth").write_bytes(b"\x80\x02}q\x00.")
    said(hvx("info", "mlb.pth", cwd=tmp_path).stderr)
    save_file({"a": torch.zeros(1)}, tmp_path / "model.training.safetensors")
    said(hvx("info", "model.training.safetensors", cwd=tmp_path).stderr)


def test_the_quoted_message_about_the_run_folder_is_given(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "daquar" / "run"
    run.mkdir(parents=True)
    (run / "run.json").write_text('{"identity": {"product": "constant"}}')
    with pytest.raises(HvxError) as raised:
        check_same_run(run, {"product": "free"})
    said(str(raised.value).replace(f"{tmp_path}/", ""))


def test_the_quoted_message_about_devices_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(HvxError) as raised:
        pick_device("cuda")
    said(str(raised.value))


def test_the_quoted_messages_about_extras_are_given(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("matplotlib", "contourpy", "scipy", "ray", "pyarrow"):
        monkeypatch.setitem(sys.modules, module, None)
    said(hvx("figure", finished_run, "-o", tmp_path / "a.png").stderr)
    with pytest.raises(HvxError) as raised:
        import_ray(local=False)
    said(str(raised.value))
    with pytest.raises(HvxError) as raised:
        ParquetRows(Path("val.parquet"), None)
    said(str(raised.value))  # that of the training's plot: tests/test_extras.py


def test_the_quoted_message_about_keys_is_given(tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    config = tmp_path / "configs" / "my.yaml"
    config.write_text("checkpoint: a\nsplits: {val: {questions: a, images: b}}\n"
                      "explain: {split: val, run: r, batch_image: 4}\n")  # fmt: skip
    said(hvx("explain", "configs/my.yaml", cwd=tmp_path).stderr)


def test_the_quoted_message_about_decoding_processes_is_given() -> None:
    said(str(images._dead(RuntimeError("DataLoader worker (pid 4242) is killed by signal: Killed. "))))


def test_the_quoted_message_about_words_is_given(tiny: Tiny, tmp_path: Path) -> None:
    photo = next((tiny.root / "scenes" / "images").glob("*.png"))
    asked = hvx(
        "ask", tiny.root / "model.safetensors", photo, "what colour is the zebra?", "-o", tmp_path / "a.png"
    )
    said(next(line for line in asked.stdout.splitlines() if line.startswith("unknown")))


def test_the_quoted_message_about_missing_photographs_is_given(tiny: Tiny, tmp_path: Path) -> None:
    copy = tmp_path / "scenes"
    shutil.copytree(tiny.root / "scenes", copy)
    for photo in sorted((copy / "images").glob("SCENES_val*"))[:3]:
        photo.unlink()
    settings = [
        f"--set={value}"
        for value in tiny.settings(Path("run"), root=".", checkpoint=tiny.root / "model.safetensors")
    ]
    said(hvx("explain", tiny.config, *settings, "--on-error", "stop", cwd=tmp_path).stderr)
