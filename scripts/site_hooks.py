"""Hooks of MkDocs for `make docs`: pages for files outside docs/, and no page that fetches from elsewhere.

The pages of docs/ link to source files and configs by relative paths, which lead to the files in a clone and
on the repository's web page. On the site each such file has a page of its own, `source/PATH`, so that a link
shows the version that the page was written for.
"""

from __future__ import annotations

import logging
import os
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
SOURCE = "source"
"""The site's folder of pages that show files outside docs/."""
LANGUAGES = {".py": "python", ".yaml": "yaml", ".json": "json"}

_FENCE = re.compile(r"^(`{3,}|~{3,}).*?^\1", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)#\s]+)")
_NAMED = re.compile(r"\[([\w/]+\.md)\]\((?=\1[)#])")
_NOTEBOOK_LINK = re.compile(r'href="(?![a-z]+:|#|/)([^"]+\.(?:md|ipynb|py|yaml)[^"]*)"')
_FETCHED = re.compile(
    r"<(?:script|img|iframe|source|video)\b[^>]*\ssrc=[\"']?(?:https?:)?//"
    r"|<link\b(?![^>]*rel=[\"']?(?:canonical|prev|next))[^>]*\shref=[\"']?(?:https?:)?//"
    r"|@import\s+(?:url\()?[\"']?(?:https?:)?//"
)

log = logging.getLogger("mkdocs.hooks.site")


def site_page(path: PurePosixPath) -> str | None:
    """Where the site shows a file or folder of the repository, as a path below docs/; None: nowhere.

    Args:
        path: below the repository's root.
    """
    if ".." in path.parts or not (ROOT / path).exists():
        return None
    inside = path.parts[:1] == ("docs",)
    if inside and path.suffix not in LANGUAGES:
        return str(path.relative_to("docs"))
    return f"{SOURCE}/{path}.md"


def relink(text: str, file: PurePosixPath, page: str) -> str:
    """A Markdown text whose relative links lead to pages of the site; those in blocks of code stay.

    Args:
        text: of the file.
        file: whose links they are, below the repository's root.
        page: the page that shows the text, below docs/.
    """

    def moved(link: re.Match[str]) -> str:
        target = site_page(_resolved(file, link[1]))
        return link[0] if target is None else os.path.relpath(target, PurePosixPath(page).parent)

    return _outside_code(text, lambda part: _LINK.sub(moved, part))


def name_links(text: str, file: PurePosixPath) -> str:
    """A Markdown text in which a link that is written as a page's file name has the page's heading."""

    def named(link: re.Match[str]) -> str:
        path = _resolved(file, link[1])
        if not (ROOT / path).is_file():
            return link[0]
        heading = re.search(r"^# (.+)$", _read(path), re.MULTILINE)
        return f"[{heading[1]}](" if heading else link[0]

    return _outside_code(text, lambda part: _NAMED.sub(named, part))


def linked(text: str, file: PurePosixPath) -> Iterator[PurePosixPath]:
    """The files and folders that a Markdown text links to, and that need a page of their own."""
    for link in _LINK.finditer(_outside_code(text, lambda part: part, code="")):
        path = _resolved(file, link[1])
        if (site_page(path) or "").startswith(f"{SOURCE}/"):
            yield path


def source_pages(files: Iterable[PurePosixPath]) -> dict[str, str]:
    """The pages of the files that these Markdown files, and those pages, link to: page → text."""
    pages: dict[str, str] = {}
    waiting = [path for file in files for path in linked(_read(file), file)]
    while waiting:
        file = waiting.pop()
        page = f"{SOURCE}/{file}.md"
        if page in pages:
            continue
        text = _shown(file)
        pages[page] = f"---\ntitle: {file}\nsearch:\n  exclude: true\n---\n\n{relink(text, file, page)}"
        waiting += linked(text, file)
    return pages


def on_files(files: Files, config: MkDocsConfig) -> Files:
    from mkdocs.structure.files import File, InclusionLevel

    documents = [PurePosixPath("docs", file.src_uri) for file in files.documentation_pages()]
    for page, text in source_pages(path for path in documents if path.suffix == ".md").items():
        files.append(File.generated(config, page, content=text, inclusion=InclusionLevel.NOT_IN_NAV))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    if page.file.generated_by:
        return markdown
    file = PurePosixPath("docs", page.file.src_uri)
    return relink(name_links(markdown, file), file, page.file.src_uri)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """A notebook, whose links MkDocs neither rewrites nor checks, with links to the site's pages."""
    if not page.file.src_uri.endswith(".ipynb"):
        return html

    def moved(link: re.Match[str]) -> str:
        file = files.get_file_from_path(posixpath.join(posixpath.dirname(page.file.src_uri), link[1]))
        if file is None:
            log.warning("%s: a link to no page of the site: %s", page.file.src_uri, link[1])
            return link[0]
        return f'href="{file.url_relative_to(page.file)}"'

    return _NOTEBOOK_LINK.sub(moved, html)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    for found in _FETCHED.finditer(output):
        log.warning("%s: fetches from elsewhere: %s", page.file.src_uri, output[found.start() :][:120])
    return output


def _shown(file: PurePosixPath) -> str:
    """The Markdown that shows a file or a folder."""
    path = ROOT / file
    if path.is_dir():
        names = sorted(child.name for child in path.iterdir() if child.suffix in LANGUAGES)
        return f"# {file}/\n\n" + "".join(f"- [{name}]({file.name}/{name})\n" for name in names)
    if file.suffix == ".md":
        return _read(file)
    fence = "`" * 5
    return f"# {file}\n\n{fence}{LANGUAGES.get(file.suffix, 'text')}\n{_read(file)}\n{fence}\n"


def _resolved(file: PurePosixPath, link: str) -> PurePosixPath:
    return PurePosixPath(os.path.normpath(file.parent / link))


def _read(file: PurePosixPath) -> str:
    return (ROOT / file).read_text(encoding="utf-8")


def _outside_code(text: str, change: Callable[[str], str], code: str | None = None) -> str:
    """A text changed outside of its fenced blocks of code, which stay or become ``code``."""
    done, at = [], 0
    for block in _FENCE.finditer(text):
        done += [change(text[at : block.start()]), block[0] if code is None else code]
        at = block.end()
    return "".join([*done, change(text[at:])])
