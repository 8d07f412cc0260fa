"""What is measured: the sample of a run, its batches, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Tiny
from PIL import Image

from hvx.config import ImageConfig
from hvx.data.images import load_input
from hvx.errors import HvxError, ReplacedImage
from hvx.measure.metrics.human_attention import HumanMaps
from hvx.measure.sample import EvaluationSample, draw
from hvx.store.reader import RunReader

IDS = np.array([30, 10, 20, 10, 40, 20, 10, 50, 40])
SIZES = {30: 1, 10: 3, 20: 2, 40: 2, 50: 1}


def by_hand(count: int, seed: int) -> list[int]:
    """Whole images in the order of the draw while they fit, the first one anyhow; then in rounds."""
    rng = np.random.default_rng(seed)
    images = [sorted(SIZES)[k] for k in rng.permutation(len(SIZES))]
    taken: list[int] = []
    for image in images:
        if taken and count and sum(SIZES[own] for own in taken) + SIZES[image] > count:
            break
        taken.append(image)
    numbers = [number for number, image in enumerate(IDS) if image in taken]
    order = [numbers[k] for k in rng.permutation(len(numbers))]
    by_image = {image: [number for number in order if IDS[number] == image] for image in taken}
    rounds = range(max(SIZES.values()))
    return [own[k] for k in rounds for own in by_image.values() if k < len(own)]


# Seeds 11 and 13 draw an image of several questions first.
@pytest.mark.parametrize("seed", [0, 1, 2, 3, 11, 13])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 50])
def test_the_sample_is_that_of_a_loop(count: int, seed: int) -> None:
    found = draw(IDS, count, seed)
    assert found == by_hand(count, seed)
    assert all(type(number) is int for number in found)


def test_all_are_drawn_where_all_fit_and_another_seed_draws_others() -> None:
    for count in (0, 9, 10):
        assert sorted(draw(IDS, count, 0)) == list(range(9))
    assert len({tuple(draw(IDS, 4, seed)) for seed in range(9)}) > 3


@pytest.fixture
def sample(finished_run: Path) -> EvaluationSample:
    return EvaluationSample(RunReader(finished_run), [], torch.device("cpu"), 0, 1)


def test_batches_hold_each_question_with_its_image_words_and_answer(sample: EvaluationSample) -> None:
    places = list(range(0, len(sample), 2))
    found = list(sample.batches(places))
    assert sorted(place for batch in found for place in batch.positions) == places
    images = Path(sample.reader.about["images"])
    counts = []
    for batch in found:
        assert len(batch) == len(batch.positions) == len(batch.images) == len(batch.answers)
        assert len(batch.inputs) <= 3  # explain.batch_images of the run
        for row, place in enumerate(batch.positions):
            item = sample.item(place)
            assert item.question_id == sample.reader[sample.numbers[place]].question_id
            wanted = load_input(images / item.image_path, sample.model.config.image)
            assert torch.equal(batch.inputs[batch.images[row]], wanted)
            assert batch.own_inputs()[row].equal(wanted)
            length = int(batch.lengths[row])
            assert length == len(item.tokens)
            rows = sample.model.vocabulary.rows(item.tokens)
            assert batch.rows[row, :length].tolist() == list(rows)
            assert sample.model.answers[int(batch.answers[row])] == item.answer
        _, own = np.unique(batch.images.numpy(), return_counts=True)
        counts += own.tolist()
    assert counts == sorted(counts, reverse=True)  # images with others of as many questions
    assert sample.batch_count(places) == len(found)
    assert sample.batch_count([]) == 0
    assert sample.batch_count([0]) == 1


def test_a_subject_knows_the_size_of_its_maps_and_checks_at_each_batch(sample: EvaluationSample) -> None:
    assert sample.size == (64, 64) and sample.glimpses == 2
    calls: list[int] = []
    sample.check = lambda: calls.append(1)
    assert len(list(sample.batches(range(len(sample))))) == len(calls) > 1


@pytest.mark.parametrize(
    ("explain", "about", "step", "workers", "turned"),
    [
        ({"batch_images": 3, "workers": 0}, {"exif_orientation": True}, 3, 0, True),
        ({"batch_images": None, "workers": None}, {"exif_orientation": False}, 8, 1, False),
        ({"batch_images": 1, "workers": 2}, {}, 1, 2, False),
        ({"batch_images": 2, "workers": 1}, {"exif_orientation": "True"}, 2, 1, False),
    ],
)
def test_images_are_decoded_as_the_run_decoded_them(
    sample: EvaluationSample,
    finished_run: Path,
    monkeypatch: pytest.MonkeyPatch,
    explain: dict[str, object],
    about: dict[str, object],
    step: int,
    workers: int,
    turned: bool,
) -> None:
    calls: list[tuple[object, ...]] = []

    def decoded(paths: list[Path], image: object, batches: list[list[int]], *more: object) -> list[object]:
        assert image == sample.model.config.image
        assert [place for batch in batches for place in batch] == list(range(len(paths)))
        calls.append(({*map(len, batches[:-1])}, 1 <= len(batches[-1]) <= step, len(batches), *more))
        return []

    reader = RunReader(finished_run)
    reader.about["config"]["explain"].update(explain)
    reader.about.pop("exif_orientation", None)
    reader.about.update(about)
    monkeypatch.setattr("hvx.measure.sample.input_batches", decoded)
    own = EvaluationSample(reader, [], torch.device("cpu"), 0, 1)
    places = range(len(own))
    assert list(own.batches(places)) == []
    images = len(set(own.images.tolist()))
    assert images == 8
    sizes = {step} if images > step else set()
    assert calls == [(sizes, True, -(-images // step), workers, turned)]
    assert own.batch_count(places) == -(-images // step)


def changed(finished_run: Path, folder: Path, **about: object) -> RunReader:
    run = Path(shutil.copytree(finished_run, folder / "run"))
    tree = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(tree | about))
    return RunReader(run)


@pytest.mark.parametrize("config", [None, [], {}, {"explain": None}, {"explain": 3}])
def test_a_run_without_its_config_is_refused(finished_run: Path, tmp_path: Path, config: object) -> None:
    reader = changed(finished_run, tmp_path, config=config)
    with pytest.raises(HvxError) as raised:
        EvaluationSample(reader, [], torch.device("cpu"), 0, 0)
    wanted = f"{tmp_path / 'run' / 'run.json'}: config: expected the config that the run was made with"
    assert str(raised.value) == wanted


def test_an_answer_that_the_model_lacks_is_named(sample: EvaluationSample) -> None:
    item = sample.item(0)
    del sample._answers[item.answer]
    with pytest.raises(HvxError) as raised:
        list(sample.batches([0]))
    path = sample.reader.path
    assert str(raised.value) == f"{path}: the model has no answer {item.answer!r}, which the run gives"


@pytest.mark.parametrize("name", ["../a.png", "/a.png", "a/../../b.png"])
def test_an_image_outside_of_the_images_folder_is_refused(sample: EvaluationSample, name: str) -> None:
    sample._paths[:] = name
    with pytest.raises(HvxError) as raised:
        list(sample.batches([0]))
    path = sample.reader.path
    assert str(raised.value) == f"{path}: image_path: '{name}' leads out of the images' folder"


def test_an_image_replaced_between_the_check_and_the_batch_is_refused(sample: EvaluationSample) -> None:
    sample.check_images()
    sample._digests[sample.numbers[3]] = "another"
    with pytest.raises(ReplacedImage, match="another image than the one explained"):
        list(sample.batches([3]))


def test_images_that_are_missing_are_left_to_what_needs_them(
    sample: EvaluationSample, tmp_path: Path
) -> None:
    sample._images = tmp_path
    calls: list[int] = []
    sample.check = lambda: calls.append(1)
    sample.check_images()
    assert len(calls) == len(set(sample.images.tolist()))


def test_the_checkpoint_must_be_the_runs(finished_run: Path, tiny: Tiny, tmp_path: Path) -> None:
    reader = RunReader(finished_run)
    cpu = torch.device("cpu")
    with pytest.raises(HvxError) as raised:
        EvaluationSample(reader, [f"checkpoint={tmp_path / 'gone'}"], cpu, 0, 0)
    assert str(raised.value) == (
        f"{tmp_path / 'gone'}: no such checkpoint, which made the run; if it moved: --set checkpoint=FILE or "
        "--set root=FOLDER"
    )
    other = tmp_path / "other"
    other.write_bytes(b"x")
    wanted = reader.about["identity"]["checkpoint_sha256"]
    with pytest.raises(HvxError) as raised:
        EvaluationSample(reader, [f"checkpoint={other}"], cpu, 0, 0)
    assert str(raised.value) == (
        f"{other}: not the checkpoint that the run was made with (sha256 2d711642b726…, the run's "
        f"{wanted[:12]}…); --set checkpoint=FILE names another"
    )


# Maps of where people look


def test_people_are_told_apart_by_question_and_cropped_as_photographs(tmp_path: Path) -> None:
    wide = np.zeros((10, 30), np.uint8)
    wide[:, 10:20] = 200  # the center square
    wide[:, 20:] = 90
    Image.fromarray(wide).save(tmp_path / "12_2.png")
    Image.fromarray(np.full((10, 10), 7, np.uint8)).save(tmp_path / "12_1.png")
    Image.fromarray(np.full((10, 10), 9, np.uint8)).save(tmp_path / "0002_1.png")
    for name in ("x12_1.png", "12_1.png.bak", "12.png", "12_1.jpg", "12_a.png"):
        (tmp_path / name).write_text("x")
    people = HumanMaps(tmp_path, ImageConfig(size=10))
    found = people.of(12)
    assert [own.shape for own in found] == [(10, 10), (10, 10)]
    assert (found[0] == 7).all() and (found[1] == 200).all()
    assert found[0].dtype == np.float64
    assert [own[0, 0] for own in people.of(2)] == [9] == [own[0, 0] for own in people.of("0002")]
    assert people.of(1) == [] == people.of(3) == people.of("2")
    assert len(people.of("12")) == 2


def test_folders_without_such_maps_are_refused(tmp_path: Path) -> None:
    with pytest.raises(HvxError) as raised:
        HumanMaps(tmp_path / "gone", ImageConfig(size=10))
    assert str(raised.value) == f"{tmp_path / 'gone'}: no such folder of human attention maps"
    with pytest.raises(HvxError) as raised:
        HumanMaps(tmp_path, ImageConfig(size=10))
    assert str(raised.value) == (
        f"{tmp_path}: no human attention map; expected files named as {{question_id}}_1.png"
    )
