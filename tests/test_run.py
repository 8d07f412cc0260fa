"""A run over a split: what it writes, how it is continued, what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from conftest import Tiny

from hvx.data.images import load_input
from hvx.data.questions import read_questions
from hvx.errors import BadImage, HvxError
from hvx.explain.explainer import Explainer
from hvx.models.checkpoint import load_checkpoint
from hvx.run.explain import explain_split
from hvx.run.local import local_engine
from hvx.store.reader import RunReader
from hvx.store.schema import FIELDS, IDS

CPU = torch.device("cpu")


def _datasets(run: Path) -> dict[str, np.ndarray]:
    with h5py.File(run / "explanations.h5", "r") as file:
        found = {name: file[name][:] for name in FIELDS if name in file}
    return found | {name: found[name].astype(np.int64) for name in IDS}


def test_a_run_holds_every_dataset_of_the_schema_item_by_item(finished_run: Path, tiny: Tiny) -> None:
    questions = {q.question_id: q for q in read_questions(tiny.load(finished_run).split("val"))}
    found = _datasets(finished_run)
    # What only networks of several blocks, with attention to words, of a map for each word, or of a score
    # have: see test_networks.py.
    absent = {"heatmap_scale", "block_heatmaps", "block_heatmap_scale", "textual_attention", "score"}
    absent |= {"word_heatmaps", "word_heatmap_scale", "word_attention", "phrase_attention"}
    assert set(found) == set(FIELDS) - absent
    assert all(len(values) == len(questions) for values in found.values())
    for name, values in found.items():
        assert values.ndim == 1 + len(FIELDS[name].axes), name
    for number, question_id in enumerate(found["question_id"]):
        question = questions.pop(int(question_id))
        assert found["image_id"][number] == question.image_id
        assert found["question"][number].decode() == question.question
        assert found["ground_truth"][number].decode() == question.ground_truth
        length = found["length"][number]
        assert all(found["tokens"][number, :length])
        assert not any(found["tokens"][number, length:])
        assert np.isfinite(found["token_z"][number, :length]).all()
        assert np.isnan(found["token_z"][number, length:]).all()
        assert np.isnan(found["token_saliency"][number, length:]).all()
    assert not questions
    np.testing.assert_allclose(found["attention"].sum((2, 3)), 1, atol=1e-5)
    assert found["answer"].tolist() == found["top_answers"][:, 0].tolist()


def test_stored_heat_map_and_scores_are_those_of_the_explainer(finished_run: Path, tiny: Tiny) -> None:
    """One question explained alone equals its item in the run, which was batched with others."""
    config = tiny.load(finished_run)
    model = load_checkpoint(config.path(config.checkpoint))
    reader = RunReader(finished_run)
    for number in (0, len(reader) - 1):
        item = reader[number]
        inputs = load_input(config.split("val").images / item.image_path, model.config.image)[None]
        alone = Explainer(model).explain(inputs, [0], [item.question])
        assert alone.tokens[0] == item.tokens
        np.testing.assert_allclose(alone.z[0].numpy(), item.token_z, atol=1e-4)
        np.testing.assert_allclose(alone.attention[0].numpy(), item.attention, atol=1e-5)
        np.testing.assert_allclose(alone.heatmap[0].numpy(), item.heatmap, rtol=2e-2, atol=2e-2)
        assert alone.answers[0][0] == item.answer


def test_heat_map_is_the_sum_of_the_stored_gradients_magnitudes(finished_run: Path) -> None:
    found = _datasets(finished_run)
    summed = np.abs(found["gradient"].astype(np.float64)).sum(1)
    np.testing.assert_allclose(found["heatmap"].astype(np.float64), summed, rtol=3e-3, atol=3e-3)


def test_results_are_what_the_official_evaluator_reads(finished_run: Path) -> None:
    results = json.loads((finished_run / "results.json").read_text())
    found = _datasets(finished_run)
    expected = zip(found["question_id"].tolist(), found["answer"].tolist(), strict=True)
    assert results == [{"question_id": q, "answer": a.decode()} for q, a in expected]


def test_run_json_says_what_made_the_run(finished_run: Path) -> None:
    about = json.loads((finished_run / "run.json").read_text())
    assert {"config", "versions", "device", "seed", "started", "finished", "seconds"} <= set(about)
    assert len(about["identity"]["checkpoint_sha256"]) == 64
    assert about["finished"] is not None


def test_the_file_says_how_heat_maps_lie_on_the_photograph(finished_run: Path) -> None:
    with h5py.File(finished_run / "explanations.h5", "r") as file:
        assert file.attrs["schema_version"] == 6
        assert "Kim & Zhang 2017" in file.attrs["method"]
        assert json.loads(file.attrs["crop"])["scaled_to"] == [64, 64]


def test_absent_shards_are_done_and_present_ones_left_alone(
    finished_run: Path, tiny: Tiny, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    (run / "shards" / "00001.h5").unlink()
    (run / "explanations.h5").unlink()
    kept = (run / "shards" / "00000.h5").stat().st_mtime_ns
    summary = explain_split(tiny.load(run, explain__gradient=True), local_engine(CPU))
    assert summary.done_now == 1
    assert (run / "shards" / "00000.h5").stat().st_mtime_ns == kept
    before, after = _datasets(finished_run), _datasets(run)
    assert set(before) == set(after)
    for name, values in before.items():
        np.testing.assert_array_equal(values, after[name], name)


def test_a_finished_run_is_not_computed_again(finished_run: Path, tiny: Tiny) -> None:
    summary = explain_split(tiny.load(finished_run, explain__gradient=True), local_engine(CPU))
    assert (summary.done_now, summary.failed) == (0, 0)


@pytest.mark.parametrize(
    ("changed", "named"),
    [({"explain__shard_questions": 5}, "shard_questions"), ({"splits__val__limit": 3}, "limit")],
)
def test_a_run_of_another_config_is_refused_by_what_differs(
    finished_run: Path, tiny: Tiny, changed: dict[str, object], named: str
) -> None:
    before = (finished_run / "run.json").read_text()
    with pytest.raises(HvxError, match=named):
        explain_split(tiny.load(finished_run, explain__gradient=True, **changed), local_engine(CPU))
    assert (finished_run / "run.json").read_text() == before


def _with_bad_image(tiny: Tiny, tmp_path: Path, data: bytes | None) -> dict[str, object]:
    """The tiny split with one image of val spoilt, as overrides; the image is the second one's."""
    images = tmp_path / "images"
    shutil.copytree(tiny.root / "scenes" / "images", images)
    target = sorted(images.glob("SCENES_val_*"))[1]
    if data is None:
        target.unlink()
    else:
        target.write_bytes(data)
    return {"splits__val__images": images}


@pytest.mark.parametrize("data", [b"not an image", b"\x89PNG\r\n\x1a\n", None])
def test_a_bad_image_stops_the_run_naming_it_and_leaves_no_torn_shard(
    tiny: Tiny, tmp_path: Path, data: bytes | None
) -> None:
    changed = _with_bad_image(tiny, tmp_path, data)
    run = tmp_path / "run"
    with pytest.raises(HvxError, match=r"SCENES_val_000001000001\.png"):
        explain_split(tiny.load(run, explain__on_error="stop", **changed), local_engine(CPU))
    assert not (run / "explanations.h5").exists()
    assert not list(run.rglob("*.part"))


@pytest.mark.parametrize("data", [b"not an image", None])
def test_skipping_costs_a_bad_image_its_questions_alone(
    tiny: Tiny, finished_run: Path, tmp_path: Path, data: bytes | None
) -> None:
    changed = _with_bad_image(tiny, tmp_path, data)
    run = tmp_path / "run"
    config = tiny.load(run, explain__gradient=True, **changed)
    summary = explain_split(config, local_engine(CPU))
    failures = [json.loads(line) for line in (run / "failures.jsonl").read_text().splitlines()]
    questions = read_questions(config.split("val"))
    lost = {q.question_id for q in questions if q.image_id == 1_000_001}
    assert {failure["question_id"] for failure in failures} == lost
    assert all("SCENES_val_000001000001.png" in failure["reason"] for failure in failures)
    assert (summary.failed, summary.explained) == (len(lost), len(questions) - len(lost))
    whole, found = _datasets(finished_run), _datasets(run)
    kept = ~np.isin(whole["question_id"], list(lost))
    np.testing.assert_array_equal(found["question_id"], whole["question_id"][kept])
    # Its neighbors' batch was smaller: the same to rounding in float16.
    np.testing.assert_allclose(
        found["heatmap"].astype(float), whole["heatmap"][kept].astype(float), rtol=2e-2, atol=2e-2
    )


def test_a_split_none_of_whose_images_is_there_is_refused_at_once(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    with pytest.raises(HvxError, match=r"no such image \(8 of the split's 8 images are missing\)"):
        explain_split(tiny.load(tmp_path / "run", splits__val__images=tmp_path / "images"), local_engine(CPU))
    assert not (tmp_path / "run").exists()


def test_a_split_none_of_whose_images_can_be_read_is_an_error(tiny: Tiny, tmp_path: Path) -> None:
    shutil.copytree(tiny.root / "scenes" / "images", tmp_path / "images")
    for path in (tmp_path / "images").glob("SCENES_val_*"):
        path.write_bytes(b"not an image")
    with pytest.raises(HvxError, match="not one question"):
        explain_split(tiny.load(tmp_path / "run", splits__val__images=tmp_path / "images"), local_engine(CPU))


def test_bad_images_name_the_way_on(tiny: Tiny, tmp_path: Path) -> None:
    changed = _with_bad_image(tiny, tmp_path, b"nothing")
    with pytest.raises(BadImage, match="--on-error skip"):
        explain_split(tiny.load(tmp_path / "run", explain__on_error="stop", **changed), local_engine(CPU))


def test_a_folder_of_something_else_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(HvxError, match="not empty and not a run"):
        explain_split(tiny.load(tmp_path), local_engine(CPU))
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


def test_a_config_of_another_model_is_refused_by_key(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(HvxError, match=r"model\.joint = 10, the config 11"):
        explain_split(tiny.load(tmp_path / "run", model__joint=11), local_engine(CPU))
    assert not (tmp_path / "run").exists()


def test_an_unfinished_run_says_so_when_read(finished_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    (run / "explanations.h5").unlink()
    with pytest.raises(HvxError, match="not finished"):
        RunReader(run)


def test_missing_images_are_counted_and_named_before_the_work(tiny: Tiny, tmp_path: Path) -> None:
    changed = _with_bad_image(tiny, tmp_path, None)
    said: list[str] = []
    explain_split(tiny.load(tmp_path / "run", **changed), local_engine(CPU), log=said.append)
    assert len(said) == 1
    assert "1 of the split's 8 images are missing: SCENES_val_000001000001.png;" in said[0]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_cuda_run_agrees_with_cpu_run(finished_run: Path, tiny: Tiny, tmp_path: Path) -> None:
    run = tmp_path / "run"
    explain_split(tiny.load(run, explain__gradient=True), local_engine(torch.device("cuda")))
    one, other = _datasets(finished_run), _datasets(run)
    np.testing.assert_allclose(one["token_z"], other["token_z"], atol=1e-2)
    for a, b in zip(one["heatmap"].astype(float), other["heatmap"].astype(float), strict=True):
        assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.999


def test_where_memory_lacks_batches_are_halved_and_the_run_goes_on(
    tiny: Tiny, finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    real = Explainer._explain

    def short_of_memory(self: Explainer, inputs: torch.Tensor, *more: Any) -> Any:
        sizes.append(len(inputs))
        if len(inputs) > 2:
            raise torch.OutOfMemoryError
        return real(self, inputs, *more)

    monkeypatch.setattr(Explainer, "_explain", short_of_memory)
    run = tmp_path / "run"
    summary = explain_split(
        tiny.load(run, explain__gradient=True, explain__batch_images=8), local_engine(CPU)
    )
    assert summary.failed == 0
    assert max(sizes) > 2 and sum(size > 2 for size in sizes) <= 2  # learned once, it is not tried again
    with h5py.File(run / "explanations.h5") as found, h5py.File(finished_run / "explanations.h5") as expected:
        assert found["question_id"][:].tolist() == expected["question_id"][:].tolist()
        np.testing.assert_allclose(found["token_z"][:], expected["token_z"][:], atol=1e-3)


def test_where_memory_lacks_for_one_image_the_run_says_so(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_memory(*given: Any) -> Any:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(Explainer, "_explain", out_of_memory)
    with pytest.raises(HvxError, match="cpu: not enough memory for 1 images of 64×64 pixels"):
        explain_split(tiny.load(tmp_path / "run"), local_engine(CPU))


def test_in_bfloat16_a_run_is_near_and_another_run(tiny: Tiny, finished_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    explain_split(tiny.load(run, explain__precision="bfloat16"), local_engine(CPU))
    with h5py.File(run / "explanations.h5") as found, h5py.File(finished_run / "explanations.h5") as expected:
        pairs = zip(found["heatmap"][:], expected["heatmap"][:], strict=True)
        each = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in pairs]
    assert np.median(each) >= 0.99
    with pytest.raises(HvxError, match="precision"):
        explain_split(tiny.load(run), local_engine(CPU))
