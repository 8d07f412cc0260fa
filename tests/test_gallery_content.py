"""What a gallery is made of: items read together, partners on an image, the summary, two joined runs."""

from __future__ import annotations

import json
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from made_compare import Made
from made_galleries import Asked, write_run

from hvx.cli import main
from hvx.gallery.build import CHUNK, build_gallery
from hvx.gallery.content import gallery_content
from hvx.gallery.folder import MARK
from hvx.measure.metrics.agreement import pooled, rank_correlation
from hvx.select_items import agreement
from hvx.store.reader import Item, RunReader


def data(gallery: Path, name: str) -> Any:
    match = re.fullmatch(r"[\w.]+\((.*)\);\n", (gallery / name).read_text(encoding="ascii"))
    assert match
    return json.loads(f"[{match[1]}]")[-1]


def same(one: Item, other: Item) -> bool:
    pairs = [(getattr(one, field.name), getattr(other, field.name)) for field in fields(Item)]
    return all(np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b for a, b in pairs)


@pytest.mark.parametrize("numbers", [[], [0], [6, 5, 0], list(range(8)), [2, 3, 4, 7, 0, 1], [3, 3, 4]])
def test_items_read_together_are_those_read_one_by_one(tmp_path: Path, numbers: list[int]) -> None:
    with RunReader(Made(list(range(10, 18)), side=8).write(tmp_path / "run")) as reader:  # in shards of 3
        found = list(reader.items(numbers))
        assert [item.question_id for item in found] == [10 + n for n in numbers]
        assert all(same(item, reader[n]) for item, n in zip(found, numbers, strict=True))


def test_a_partner_is_the_next_other_question_on_the_image(tmp_path: Path) -> None:
    texts = ["a ?", "a ?", "b ?", "c ?", "c ?", "a ?", "a ?"]
    photos = ["0.png", "0.png", "0.png", "1.png", "1.png", "0.png", "2.png"]
    asked = [Asked(text, photo=photo) for text, photo in zip(texts, photos, strict=True)]
    run = write_run(tmp_path / "run", asked)
    with gallery_content([run]) as content:
        (chunk,) = content.chunks()
    assert chunk.partners == ((2, 2, 5, -1, -1, 2, -1),)
    assert chunk.numbers == (tuple(range(7)),)


def test_the_summary_is_what_a_slow_count_finds(tmp_path: Path) -> None:
    kinds = ["yes/no", "number", "other"]
    asked = [
        Asked(f"{'is it' if n % 2 else 'was it'} {n % 3} ?", "yes" if n % 5 else "no",
              "" if n % 7 == 0 else "yes", kinds[n % 3], agreeing=n % 4 > 0, photo=f"{n // 3}.png",
              zero_gradient={4: 1, 9: 2}.get(n, 0))
        for n in range(CHUNK + 9)
    ]  # fmt: skip
    run = write_run(tmp_path / "run", asked)
    build_gallery(run, tmp_path / "gallery", workers=1)
    found = data(tmp_path / "gallery", MARK)["runs"][0]["summary"]
    with RunReader(run) as reader:
        items = [reader[n] for n in range(len(reader))]
    known = [(one, one.answer == one.truth) for one in asked if one.truth]
    assert found["all"] == [["all", len(known), sum(right for _, right in known)]]
    for kind, count, right in found["answer_type"]:
        judged = [good for one, good in known if one.answer_type == kind]
        assert (count, right) == (len(judged), sum(judged))
    z: dict[str, list[float]] = {}
    for item in items:
        for token, value in zip(item.tokens, item.token_z, strict=True):
            if not item.zero_gradient & 2:
                z.setdefault(token, []).append(value)
    expected = {word: (len(own), np.mean(own)) for word, own in z.items() if len(own) >= 5}
    assert {word: n for word, n, _ in found["words"]} == {word: n for word, (n, _) in expected.items()}
    assert [mean for _, _, mean in found["words"]] == sorted((m for _, _, m in found["words"]), reverse=True)
    assert all(mean == pytest.approx(expected[word][1], abs=1e-4) for word, _, mean in found["words"])
    own = [agreement(item) for item in items if not item.zero_gradient & 1]
    assert found["agreement"] == [pytest.approx(np.mean(own), abs=1e-4), len(own)]
    assert found["zero"] == [1, 1]


def test_agreement_and_control_are_those_of_the_run(tmp_path: Path) -> None:
    """With attention that differs between the questions, unlike in most tests here."""
    photo = write_run(tmp_path / "x" / "run", [Asked("is it ?", photo="i.jpg")]).parent / "photos" / "i.jpg"
    made = Made(list(range(6)), side=28, given={"image_path": np.array(["i.jpg"] * 6, object)})
    run = made.write(tmp_path / "run")
    about = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(about | {"images": str(photo.parent)}))
    build_gallery(run, tmp_path / "gallery", workers=1)
    index = data(tmp_path / "gallery", "data/index-0000.js")
    with RunReader(run) as reader:
        for n in range(6):
            item, partner = reader[n], reader[n ^ 1]  # pairs have one digest, and so one photograph
            assert index["agreement"][n] == pytest.approx(agreement(item), abs=1e-4)
            heat = pooled(item.heatmap, item.attention.shape[1:])
            control = rank_correlation(heat, partner.attention.sum(0))
            assert index["control"][n] == pytest.approx(control, abs=1e-4)


def test_two_runs_are_joined_by_question(tmp_path: Path) -> None:
    asked = [Asked(f"is it {n} ?", photo=f"{n // 3}.png") for n in range(8)]
    first = write_run(tmp_path / "first", asked)
    second = write_run(tmp_path / "second", [replace(one, answer="no", agreeing=False) for one in asked[:5]])
    done = CliRunner().invoke(main, ["gallery", str(first), str(second), "-o", str(tmp_path / "gallery")])
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{tmp_path / 'gallery' / 'index.html'}: 5 questions explained by both runs\n"
    index, about = data(tmp_path / "gallery", "data/index-0000.js"), data(tmp_path / "gallery", MARK)
    assert (index["answer"], index["answer2"]) == (["yes"] * 5, ["no"] * 5)
    assert (index["right"], index["right2"]) == ([True] * 5, [False] * 5)
    assert index["alike"] == [-1.0] * 5
    assert index["row"] == index["row2"] == list(range(5))
    assert [(run["label"], run["name"]) for run in about["runs"]] == [("A", "first"), ("B", "second")]
    assert about["columns"][3] == "A: Proposed"
    assert [(run["heatmap"], run["specific"]) for run in about["runs"]] == [(3, 4), (7, 8)]
    tokens, others = data(tmp_path / "gallery", "data/items-000000.js")[0][0::8]
    assert others[0][0] == tokens == ["is", "it", "0", "?"]


def test_runs_without_a_common_question_are_one_line(tmp_path: Path) -> None:
    first = write_run(tmp_path / "first", [Asked("is it ?")])
    done = CliRunner().invoke(main, ["gallery", str(first), str(first), "-o", str(tmp_path / "gallery")])
    assert done.exit_code == 2
    assert done.stderr == f"Error: {first}: given twice; a run is compared with another one\n"
    assert not (tmp_path / "gallery").exists()
