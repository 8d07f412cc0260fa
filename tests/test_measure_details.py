"""Constants, bounds and single rules of the measures, each against its definition."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from test_measure_methods import BATCH, IMAGES, MODEL, SIZE
from torch import nn

from hvx import __version__
from hvx.errors import HvxError, Interrupted
from hvx.explain.threshold import DEVIATIONS, attention_threshold
from hvx.measure import evaluate
from hvx.measure.cache import ResultCache
from hvx.measure.evaluate import Options
from hvx.measure.methods import registry
from hvx.measure.methods.computer import SaliencyComputer
from hvx.measure.methods.registry import METHODS
from hvx.measure.metrics import faithfulness, pos_tags, sanity
from hvx.measure.metrics.faithfulness import SHARES, area, blurred, curves
from hvx.measure.metrics.localization import attended, energy_inside, enlarged, overlap, points_inside
from hvx.measure.metrics.results import MetricResults
from hvx.measure.metrics.scores import LOCAL, METRICS, Agreement, Regions, Scores, cropped
from hvx.measure.metrics.words import CONTENT, FAMILIES
from hvx.measure.report import paper
from hvx.measure.sample import Batch, EvaluationSample
from hvx.store.reader import RunReader

# Thresholds and maps


def test_the_threshold_of_attention_is_the_mean_and_two_sample_deviations() -> None:
    values = np.array([[1.0, 2.0], [4.0, 9.0]])
    deviation = np.sqrt(((values - 4) ** 2).sum() / 3)
    assert attention_threshold(values) == pytest.approx(4 + 2 * deviation)
    assert attention_threshold(values.astype(np.float16)) == pytest.approx(4 + 2 * deviation)
    assert attention_threshold(np.array([[3.0]])) == 3
    assert DEVIATIONS == 2


def test_attended_is_what_exceeds_the_threshold() -> None:
    map = np.zeros((5, 5))
    map[2, 3] = 1
    assert np.argwhere(attended(map)).tolist() == [[2, 3]]
    assert not attended(np.full((5, 5), 0.1)).any() and not attended(np.array([[2.0]])).any()
    # The population deviation would let this one pass: 1 > 1/5 + 2 * 0.4, but not > 1/5 + 2 * 0.447.
    assert not attended(np.array([[0, 0, 0, 0, 1.0]])).any()


def test_a_map_points_by_rows_and_columns_of_its_own() -> None:
    saliency = np.zeros((2, 4))
    saliency[1, 2] = 5
    inside = np.zeros((8, 12), bool)
    inside[6, 7] = True  # (1 + 1/2) * 8/2 and (2 + 1/2) * 12/4, rounded down
    assert points_inside(saliency, inside)
    assert not points_inside(saliency, ~inside)
    assert not points_inside(np.full((2, 4), 3.0), np.ones((8, 12), bool))
    assert points_inside(np.array([[-2.0, -1.0]]), np.array([[False, True]]))


def test_energy_and_overlap_of_small_maps() -> None:
    inside = np.array([[True, False, False]])
    assert energy_inside(np.array([[3.0, 1.0, -7.0]]), inside) == 0.75
    assert energy_inside(np.zeros((1, 3)), inside) == 0
    assert energy_inside(np.full((1, 3), -1.0), inside) == 0
    hot = np.zeros((4, 10))
    hot[0, :2] = 1
    region = np.zeros((4, 10), bool)
    region[0, 1:4] = True
    assert overlap(hot, region) == pytest.approx(1 / 4)


def test_a_lattice_is_enlarged_bilinearly() -> None:
    found = enlarged(np.array([[0.0, 4.0]]), (2, 4))
    assert found.tolist() == [[0, 1, 3, 4]] * 2
    same = enlarged(np.array([[0.1, 0.2]], np.float32), (1, 2))
    assert same.dtype == np.float64 and same.tolist() == np.array([[0.1, 0.2]], np.float32).tolist()


@pytest.mark.parametrize(("shape", "left", "top"), [((4, 10), 3, 0), ((10, 4), 0, 3)])
def test_a_mask_is_cropped_to_its_center_square(shape: tuple[int, int], left: int, top: int) -> None:
    inside = np.random.default_rng(0).random(shape) < 0.5
    assert (cropped(inside, (4, 4)) == inside[top : top + 4, left : left + 4]).all()
    twice = np.kron(inside[top : top + 4, left : left + 4], np.ones((2, 2), bool))
    assert (cropped(inside, (8, 8)) == twice).all()


# Deletion and insertion


def test_shares_and_blur() -> None:
    assert SHARES == (0, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1)
    assert faithfulness.BLUR == 0.1


@pytest.mark.parametrize("shape", [(20, 20), (12, 40), (40, 12), (3, 3)])
def test_the_blur_is_a_gaussian_of_a_tenth_of_the_shorter_side(shape: tuple[int, int]) -> None:
    height, width = shape
    sigma = 0.1 * min(shape)
    image = np.random.default_rng(0).random((1, 2, height, width))
    wanted = image.copy()
    for axis, side in ((2, height), (3, width)):
        reach = min(round(3 * sigma), side - 1)
        kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
        padding = [(reach, reach) if k == axis else (0, 0) for k in range(4)]
        windows = np.lib.stride_tricks.sliding_window_view(
            np.pad(wanted, padding, "reflect"), len(kernel), axis
        )
        wanted = windows @ (kernel / kernel.sum())
    assert blurred(torch.from_numpy(image)).numpy() == pytest.approx(wanted, abs=1e-9)


def test_curves_replace_the_most_salient_share_of_pixels_in_one_call() -> None:
    places = np.random.default_rng(0).permutation(400).reshape(20, 20)
    image, blur = torch.ones(1, 20, 20), torch.zeros(1, 20, 20)
    calls: list[torch.Tensor] = []

    def score(images: torch.Tensor) -> torch.Tensor:
        calls.append(images)
        return images.sum((1, 2, 3)) / 1000

    deletion, insertion = curves(score, image, blur, (0.9, 0.2), places)
    counts = [4, 8, 16, 32, 64, 128, 256]
    assert deletion == pytest.approx([0.9, *((400 - n) / 1000 for n in counts), 0.2])
    assert insertion == pytest.approx([0.2, *(n / 1000 for n in counts), 0.9])
    (images,) = calls
    for row, count in enumerate(counts):
        first = torch.from_numpy(places < count)
        assert torch.equal(images[row, 0], (~first).float())
        assert torch.equal(images[7 + row, 0], first.float())


def test_the_area_is_by_trapezoids() -> None:
    curve = np.random.default_rng(0).random(9).tolist()
    wanted = sum(
        (b - a) * (p + q) / 2 for a, b, p, q in zip(SHARES, SHARES[1:], curve, curve[1:], strict=False)
    )
    assert area(curve) == pytest.approx(wanted)


# Methods


def test_methods_their_titles_and_what_they_share() -> None:
    assert [(name, own.title, own.family) for name, own in METHODS.items()] == [
        ("proposed", "Proposed (Eq. 2)", "run"), ("attention", "Summed attention", "run"),
        ("question-specific", "Question-specific (Eq. 2)", "specific"),
        ("question-specific-attention", "Question-specific attention", "specific"),
        ("unguided", "Eq. 2 unguided", "plain"), ("free-product", "Eq. 2 with F free", "guided"),
        ("grad-cam", "Grad-CAM", "head"), ("grad-cam-attention", "Grad-CAM × attention", "head"),
        ("hirescam", "HiResCAM", "head"), ("cam", "CAM", "head"),
        ("guided-grad-cam", "Guided Grad-CAM", "guided"),
        ("guided-backpropagation", "Guided backpropagation", "guided"), ("gradient", "Gradient", "plain"),
        ("input-x-gradient", "Input × gradient", "plain"),
        ("integrated-gradients", "Integrated gradients", "path"), ("center", "Center", "floor"),
        ("random", "Random", "floor"),
    ]  # fmt: skip
    assert registry.PATH_STEPS == 16
    assert "16 steps" in METHODS["integrated-gradients"].definition


def test_a_wrong_method_is_named_with_all_that_are_known() -> None:
    with pytest.raises(HvxError) as raised:
        registry.chosen(["random", "zzz", "xxx"], 2)
    assert str(raised.value) == f"--methods: no method 'xxx'; known are: {', '.join(METHODS)}"
    with pytest.raises(HvxError) as raised:
        registry.chosen(["attention"], 0)
    assert str(raised.value) == ("--methods: the run is of a model without attention; leave 'attention' out")
    assert registry.chosen(["attention"], 1) == ["proposed", "attention"]
    assert registry.chosen(["proposed"], 0) == ["proposed"]


@pytest.mark.parametrize(
    ("module", "package", "line"),
    [
        (sanity, "skimage", "SSIM needs scikit-image: pip install 'hvx[measure]', or give --sanity 0"),
        (pos_tags, "textblob", "the part of speech of a word needs TextBlob: pip install 'hvx[measure]'"),
    ],
)
def test_what_is_not_installed_is_named(
    monkeypatch: pytest.MonkeyPatch, module: Any, package: str, line: str
) -> None:
    module.check_installed()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(HvxError) as raised:
        module.check_installed()
    assert str(raised.value) == line


def test_scikit_image_is_needed_only_for_sanity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage", None)
    evaluate.check_installed(Options(sanity=0))
    with pytest.raises(HvxError, match="SSIM needs scikit-image"):
        evaluate.check_installed(Options(sanity=1))


def test_floors_are_a_gaussian_and_seeded_noise() -> None:
    found = SaliencyComputer(MODEL, 5).maps(["center", "random"], BATCH)
    steps = np.linspace(-2, 2, SIZE)
    wanted = np.exp(-(steps[:, None] ** 2 + steps**2) / 2)
    for place in range(len(IMAGES)):
        assert found["center"][place] == pytest.approx(wanted, abs=1e-6)
        noise = np.random.default_rng([5, place]).random((SIZE, SIZE), np.float32)
        assert (found["random"][place] == noise).all()
    assert all(own.dtype == np.float32 for own in found.values())


def test_only_the_methods_that_were_asked_for_are_made() -> None:
    for name, own in METHODS.items():
        if own.family != "specific":
            assert list(SaliencyComputer(MODEL, 0).maps([name], BATCH)) == [name]
    assert SaliencyComputer(MODEL, 0).maps([], BATCH) == {}


# Sanity


def test_ssim_is_scikit_images_of_maps_scaled_to_1() -> None:
    chance = np.random.default_rng(0)
    for side, window in ((20, 7), (7, 7), (6, 5), (5, 5), (4, 3)):
        one, other = chance.random((side, side + 3)) * 9 - 3, chance.random((side, side + 3)) * 2
        scaled = [(map - map.min()) / (map.max() - map.min()) for map in (one, other)]
        wanted = structural_similarity(*scaled, win_size=window, data_range=1.0)
        assert sanity.similarity(one, other)[1] == pytest.approx(wanted)
    assert sanity._unit(np.full((2, 2), 4.0)).tolist() == [[0, 0], [0, 0]]
    assert sanity._unit(np.array([1.0, 3.0, 5.0])).tolist() == [0, 0.5, 1]


def test_which_methods_are_randomized() -> None:
    assert sanity.CHECKED == (
        "proposed", "attention", "unguided", "grad-cam", "guided-backpropagation", "gradient"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("child", "block"),
    [
        ("classifier", "classifier"), ("output", "classifier"), ("attention_visual", "attention"),
        ("memory", "attention"), ("output_attention", "attention"), ("encoder", "question"),
        ("from_the_end", "question"), ("visual", "V and Q"), ("textual", "V and Q"), ("outputs", "V and Q"),
    ],
)  # fmt: skip
def test_modules_of_a_head_belong_to_blocks_by_name(child: str, block: str) -> None:
    assert sanity._part(child) == block


def test_randomization_is_seeded_and_ends_with_the_backbones_first_block() -> None:
    def classifier(seed: int) -> torch.Tensor:
        _, model = next(sanity.randomized(MODEL, seed))
        return cast(torch.Tensor, model.head.classifier.weight)

    assert torch.equal(classifier(0), classifier(0)) and not torch.equal(classifier(0), classifier(1))
    names = ["classifier", "V and Q", "attention", "question", "layer1", "bn1", "conv1"]
    assert sanity.stages(MODEL) == names
    assert [name for name, _ in sanity.randomized(MODEL, 0)] == names


def other_images(images: list[int], count: int) -> list[int]:
    return sanity._on_another_image(cast(EvaluationSample, SimpleNamespace(images=np.array(images))), count)


def test_maps_are_compared_with_the_next_explanation_of_another_image() -> None:
    assert other_images([5, 5, 7, 5, 9], 5) == [2, 2, 3, 4, 0]
    assert other_images([5, 5, 7, 5, 9], 3) == [2, 2, 0]
    assert other_images([5, 5], 2) == [0, 1]
    assert other_images([5], 1) == [0]
    assert other_images([70001, 70001, 70002], 3) == [2, 2, 0]  # equal, yet not the same objects


class OneBatch:
    """The questions of ``test_measure_methods`` as a sample."""

    def __init__(self) -> None:
        self.model, self.size, self.images = MODEL, (SIZE, SIZE), np.array(IMAGES)

    def batches(self, places: Sequence[int]) -> Iterator[Batch]:
        at = torch.tensor(list(places)[::-1])
        yield Batch(
            at.tolist(), BATCH.inputs, BATCH.images[at], BATCH.rows[at], BATCH.lengths[at], BATCH.answers[at]
        )


def test_similarities_are_of_each_explanation_before_and_after() -> None:
    count = 3
    found = sanity.make_similarities(
        cast(EvaluationSample, OneBatch()), ["gradient", "random", "proposed"], count, 2
    )
    assert list(found) == ["gradient", "proposed"]
    before = SaliencyComputer(MODEL, 0).maps(["gradient", "proposed"], BATCH)
    after = {
        stage: SaliencyComputer(model, 0).maps(["gradient", "proposed"], BATCH)
        for stage, model in sanity.randomized(MODEL, 2)
    }
    for name, stages in found.items():
        assert list(stages) == ["another image", *after]
        for place, other in enumerate((1, 2, 1)):  # images 0, 1, 0
            wanted = sanity.similarity(before[name][place], before[name][other])
            assert stages["another image"][place] == pytest.approx(wanted, abs=1e-5)
            for stage, maps in after.items():
                wanted = sanity.similarity(before[name][place], maps[name][place])
                assert stages[stage][place] == pytest.approx(wanted, abs=1e-4), (name, stage, place)


def test_few_blocks_are_told_apart_by_two_parts_of_their_names() -> None:
    def blocks(network: nn.Module) -> list[str]:
        return [name for name, _ in sanity._backbone_blocks(torch.fx.symbolic_trace(network))]

    three = nn.ModuleDict({name: nn.Linear(2, 2) for name in ("a", "b", "c")})
    two = nn.ModuleDict({name: nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)) for name in "ab"})
    assert blocks(nn.Sequential(*three.values())) == ["2", "1", "0"]
    assert blocks(nn.Sequential(*two.values())) == ["1.2", "1.0", "0.2", "0.0"]
    inner = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)))
    assert blocks(nn.Sequential(inner)) == ["0.1", "0.0"]  # never by three


# Words


@pytest.mark.parametrize(
    ("word", "guess", "tags", "before", "following", "wanted"),
    [
        ("?", "NOUN", [], [], "", "PUNCT"), ("_", "NOUN", [], [], "", "PUNCT"),
        ("a1", "NOUN", [], [], "", "NOUN"),
        ("2", "ADP", [], [], "", "NUM"),
        ("'s", "PART", ["WH"], ["what"], "", "AUX"), ("'s", "AUX", ["PRON"], ["he"], "", "AUX"),
        ("'s", "AUX", ["NOUN"], ["dog"], "", "PART"), ("'s", "AUX", [], [], "", "PART"),
        ("this", "X", [], [], "NOUN", "DET"), ("those", "X", [], [], "ADJ", "DET"),
        ("that", "X", [], [], "NUM", "DET"),
        ("these", "X", [], [], "VERB", "PRON"), ("this", "X", [], [], "", "PRON"),
        ("do", "X", ["WH"], ["what"], "", "AUX"), ("have", "X", ["AUX", "NOUN"], ["does", "it"], "", "VERB"),
        ("left", "X", [], [], "NOUN", "ADV"), ("left", "X", ["ADP"], ["on"], "NOUN", "ADV"),
        ("left", "X", ["DET"], ["the"], "NOUN", "ADJ"), ("right", "X", ["DET"], ["the"], "ADP", "NOUN"),
        ("red", "NOUN", [], [], "", "ADJ"), ("tan", "VERB", ["DET"], ["the"], "", "ADJ"),
        ("cross", "VERB", ["DET"], ["the"], "", "NOUN"), ("cross", "VERB", ["ADJ"], ["many"], "", "NOUN"),
        ("cross", "VERB", ["AUX", "DET"], ["is", "the"], "", "NOUN"),
        ("cross", "VERB", ["DET", "NOUN"], ["the", "dog"], "", "VERB"),
        ("cross", "VERB", ["ADP"], ["of"], "", "NOUN"), ("cross", "VERB", ["ADP"], ["to"], "", "VERB"),
        ("cross", "VERB", ["AUX", "ADP"], ["is", "to"], "", "VERB"),
        ("cross", "VERB", ["ADP", "ADP"], ["to", "of"], "", "NOUN"),
        ("cross", "VERB", ["NOUN"], ["dog"], "", "VERB"), ("cross", "VERB", [], [], "", "VERB"),
        ("big", "ADJ", ["DET"], ["the"], "NOUN", "ADJ"), ("fast", "ADV", ["ADJ"], ["many"], "", "ADV"),
        ("left", "X", ["AUX", "DET"], ["is", "the"], "NOUN", "ADJ"),
        ("left", "X", ["DET", "NOUN"], ["the", "dog"], "NOUN", "ADV"),
        ("running", "VERB", ["DET"], ["the"], "", "VERB"), ("used", "VERB", ["DET"], ["the"], "", "VERB"),
        ("taken", "VERB", ["DET"], ["the"], "", "VERB"),
        ("close", "ADJ", [], [], "", "ADV"), ("not", "X", [], [], "", "PART"),
        ("and", "X", [], [], "", "CONJ"),
        ("dog", "NOUN", [], [], "", "NOUN"), ("what", "X", [], [], "", "WH"), ("of", "X", [], [], "", "ADP"),
    ],
)  # fmt: skip
def test_each_rule_of_the_tagger(
    word: str, guess: str, tags: list[str], before: list[str], following: str, wanted: str
) -> None:
    def own(text: str) -> str:
        """Equal, yet not the same object as the text in hvx."""
        return "".join([*text])

    made = own(word), own(guess), [*map(own, tags)], [*map(own, before)], own(following)
    assert pos_tags._tag(*made) == wanted


def test_signs_that_textblob_takes_apart_are_tagged_one_by_one() -> None:
    assert len(pos_tags._guessed(["a/b", "c"])) == 2
    assert pos_tags._guessed(["dog", "runs"]) == ["NOUN", "VERB"]
    assert pos_tags._guessed([]) == []


def test_families_and_content() -> None:
    assert CONTENT == ("NOUN", "VERB", "ADJ", "ADV")
    cases = {
        "wh-words": ("what", "WH"), "auxiliaries": ("is", "AUX"), "nouns": ("dog", "NOUN"),
        "verbs": ("run", "VERB"),
        "adjectives": ("big", "ADJ"), "articles": ("the", "DET"), "colors": ("teal", "X"),
    }  # fmt: skip
    assert list(FAMILIES) == list(cases)
    for name, is_one in FAMILIES.items():
        assert [other for other, (token, tag) in cases.items() if is_one(token, tag)] == [name]
    assert FAMILIES["articles"]("an", "DET") and FAMILIES["articles"]("a", "DET")
    assert not FAMILIES["articles"]("this", "DET")


def test_the_papers_rows_are_read_once_and_cannot_be_changed() -> None:
    rows = paper.printed_rows()
    assert rows is paper.printed_rows()
    assert [row.figure for row in rows] == [2, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5]
    with pytest.raises(AttributeError):
        rows[0].figure = 3  # type: ignore[misc]


def test_metrics_and_which_of_them_are_merits() -> None:
    assert {name: (own.title, own.more_is_better) for name, own in METRICS.items()} == {
        "pointing": ("Pointing game", True), "energy": ("Energy inside", True), "overlap": ("IoU", True),
        "attention": ("ρ with attention", None), "human": ("ρ with people", True),
        "deletion": ("Deletion area", False), "insertion": ("Insertion area", True),
    }  # fmt: skip


# What is said of a run


@pytest.fixture(scope="module")
def sample(finished_run: Path) -> EvaluationSample:
    return EvaluationSample(RunReader(finished_run), [], torch.device("cpu"), 7, 3)


def test_defaults_of_what_is_measured() -> None:
    assert Options() == Options((), 1000, 200, 50, None, 0)


def test_about_says_what_was_measured_with_what(sample: EvaluationSample) -> None:
    about = evaluate._about(sample.reader, sample, Options(seed=3), evaluate._Truth(sample, Options()))
    packages = ("torch", "torchvision", "scikit-image", "textblob")
    assert about["run"] == str(sample.reader.path)
    assert about["explanations"] == len(sample) <= 7
    assert about["of"] == len(sample.reader) > 7
    assert about["images"] == len(set(sample.images.tolist()))
    assert (about["seed"], about["device"]) == (3, "cpu")
    assert about["versions"] == {"hvx": __version__} | {name: version(name) for name in packages}
    assert about["model"]["glimpses"] == 2
    assert len(about["date"]) == 10
    assert evaluate._version("no-such-package-at-all") == "absent"


def test_all_that_decides_a_result_is_in_the_caches_key(sample: EvaluationSample, finished_run: Path) -> None:
    def key(sample: EvaluationSample, /, **options: Any) -> dict[str, Any]:
        return evaluate._key(sample.reader, sample, Options(**options))

    own = key(sample)
    assert sorted(own) == ["blur", "made", "path_steps", "questions", "run", "seed", "shares"]
    assert own == key(sample) == key(sample, methods=("cam",), sample=9, curves=1, sanity=0, human=Path("x"))
    assert own["run"] == sample.reader.about["identity"]
    assert own["made"] == [sample.reader.about["versions"], sample.reader.about["finished"]]
    assert (own["blur"], own["path_steps"], own["shares"]) == (0.1, 16, SHARES)
    assert key(sample, seed=1) == own | {"seed": 1}
    other = EvaluationSample(RunReader(finished_run), [], torch.device("cpu"), 7, 4)
    assert key(other) | {"questions": own["questions"]} == own
    assert key(other)["questions"] != own["questions"]


def test_each_thing_left_out_has_its_reason(sample: EvaluationSample) -> None:
    def left_out(options: Options, **changes: object) -> list[str]:
        said: list[str] = []
        made = SimpleNamespace(split=sample.split, explain=sample.explain, glimpses=2, reader=sample.reader)
        vars(made).update(changes)
        found = MetricResults({}, [])
        evaluate._leave_out(found, cast(EvaluationSample, made), options, said.append)
        assert said == [f"left out: {line}" for line in found.left_out]
        return found.left_out

    all_of_it = Options(human=Path("maps"))
    assert left_out(all_of_it) == []
    no_human = "agreement with people: no folder of their attention maps was given (--human)"
    assert left_out(Options()) == [no_human]
    assert left_out(replace(all_of_it, curves=0)) == ["deletion and insertion: not asked for"]
    assert left_out(replace(all_of_it, sanity=0)) == ["sanity: not asked for"]
    without = sample.split.model_copy(update={"objects": None})
    assert left_out(Options(curves=0, sanity=0), glimpses=0, split=without) == [
        "localization: split 'val' has no table of objects with masks",
        "agreement with the attention: the model has none", no_human,
        "deletion and insertion: not asked for", "sanity: not asked for",
    ]  # fmt: skip


def test_an_interrupt_is_told_from_an_error(sample: EvaluationSample) -> None:
    with pytest.raises(Interrupted) as raised, evaluate._interruptible(sample):
        raise KeyboardInterrupt
    assert str(raised.value) == (
        f"{sample.reader.path}: interrupted; what is done is kept, the same command resumes"
    )
    with pytest.raises(HvxError, match="a reason"), evaluate._interruptible(sample):
        raise HvxError("a reason")


def test_an_error_that_a_request_to_stop_led_to_is_an_interrupt(sample: EvaluationSample) -> None:
    def killed() -> None:
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        raise HvxError("a decoding process was killed")  # by the same Ctrl-C

    with pytest.raises(Interrupted, match="what is done is kept"), evaluate._interruptible(sample):
        killed()
    with pytest.raises(HvxError, match="a reason"), evaluate._interruptible(sample):
        raise HvxError("a reason")
    with evaluate._interruptible(sample):
        sample.check()


class MadeCache:
    """What is kept, in memory."""

    def __init__(self, kept: dict[str, Any]) -> None:
        self.kept = kept

    def result(self, name: str) -> Any:
        return self.kept.get(name)

    def keep(self, name: str, value: Any) -> None:
        self.kept[name] = value


def test_only_similarities_that_are_not_kept_are_computed_and_then_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sanity, "stages", lambda model: ["top"])
    whole = {"another image": [[0.5, 0.25]], "top": [[0.125, 1.0]]}
    calls: list[object] = []

    def similarities(sample: object, names: list[str], count: int, seed: int) -> dict[str, Any]:
        del sample
        calls.append((names, count, seed))
        return {name: {**whole, "top": [[1.0, 1.0]]} for name in names}

    monkeypatch.setattr(sanity, "make_similarities", similarities)
    own = MadeCache({"sanity-1/gradient": whole, "sanity-1/grad-cam": {"top": [[1, 1]]}})
    sample, names = (
        cast(EvaluationSample, SimpleNamespace(model=None)),
        ["proposed", "grad-cam", "cam", "gradient"],
    )
    found = evaluate._similarities(sample, cast(ResultCache, own), names, 1, 7)
    assert calls == [(["proposed", "grad-cam"], 1, 7)]
    made = {**whole, "top": [[1.0, 1.0]]}
    assert list(found) == ["proposed", "grad-cam", "gradient"]  # CAM is not put to the test
    assert found == {"proposed": made, "grad-cam": made, "gradient": whole}
    assert own.kept == {f"sanity-1/{name}": value for name, value in found.items()}
    assert evaluate._similarities(sample, cast(ResultCache, own), names, 1, 7) == found
    assert len(calls) == 1


NOTHING_THERE = "localization: no question of the sample asks about an object that is there"
NOBODY = "agreement with people: none of their maps is of a question of the sample"


class Sample:
    """Explanations, each of an image of its own."""

    def __init__(self, count: int) -> None:
        self.images, self.glimpses = np.arange(count), 0

    def __len__(self) -> int:
        return len(self.images)


@pytest.mark.parametrize(
    ("masks", "regions", "people", "seen", "left_out"),
    [
        (True, True, True, True, []), (False, False, False, False, []),
        (True, False, True, True, [NOTHING_THERE]), (True, True, True, False, [NOBODY]),
        (True, False, True, False, [NOBODY, NOTHING_THERE]), (False, False, True, True, []),
    ],
)  # fmt: skip
def test_masks_and_people_that_tell_nothing_of_the_sample_are_said_to_be_left_out(
    monkeypatch: pytest.MonkeyPatch, masks: bool, regions: bool, people: bool, seen: bool, left_out: list[str]
) -> None:
    places = np.arange(2)
    scores = Scores(places, {"proposed": np.array([0.5, 1.0])})
    local = dict.fromkeys(LOCAL, scores) if regions else {}
    agreement = Agreement(["proposed"], np.ones((2, 1, 1)))
    asked = Regions(places, np.array(["count", "shape"]), np.array([0.1, 0.2])) if regions else None
    scored = local | ({"human": scores} if seen else {})
    monkeypatch.setattr(evaluate, "make_maps", lambda *arguments: None)
    monkeypatch.setattr(evaluate, "Maps", lambda *arguments: None)
    monkeypatch.setattr(evaluate, "image_use", lambda *arguments: {"with another image": None})
    monkeypatch.setattr(evaluate, "score_maps", lambda *arguments: (scored, agreement, asked))

    found = MetricResults({}, ["proposed"])
    truth = SimpleNamespace(table="masks" if masks else None, human="people" if people else None)
    evaluate._measure(
        found,
        cast(EvaluationSample, Sample(2)),
        cast(Any, None),
        Options(curves=0, sanity=0),
        cast(Any, truth),
    )
    assert found.left_out == left_out
    assert list(found.means) == list(scored)
    assert list(found.by_kind) == (["count", "shape"] if regions else [])
    assert found.agreement == {} and found.ends is None and found.sanity == {}


@pytest.mark.parametrize(
    ("asked", "there", "taken"), [(3, 5, 3), (5, 5, 5), (6, 5, 5), (1, 5, 1), (0, 5, None), (7, 1, 1)]
)
def test_curves_and_sanity_are_of_no_more_explanations_than_the_sample_has(
    monkeypatch: pytest.MonkeyPatch, asked: int, there: int, taken: int | None
) -> None:
    counts: dict[str, int] = {}

    def ends(sample: object, cache: object, count: int) -> list[tuple[float, float]]:
        counts["ends"] = count
        return [(0.9, 0.1)] * count

    def curves_of(sample: object, cache: object, names: object, ends: list[Any], seed: int) -> dict[str, Any]:
        counts["curves"] = len(ends)
        return {"proposed": [([0.5] * 9, [0.25] * 9)] * len(ends)}

    def similarities(sample: object, cache: object, names: object, count: int, seed: int) -> dict[str, Any]:
        counts["sanity"] = count
        return {"proposed": {"top": [[0.5, 0.25]] * count}}

    agreement = Agreement(["proposed"], np.ones((there, 1, 1)))
    monkeypatch.setattr(evaluate, "make_maps", lambda *arguments: None)
    monkeypatch.setattr(evaluate, "make_baseline_probabilities", ends)
    monkeypatch.setattr(evaluate, "make_curves", curves_of)
    monkeypatch.setattr(evaluate, "_similarities", similarities)
    monkeypatch.setattr(evaluate, "Maps", lambda *arguments: None)
    monkeypatch.setattr(evaluate, "image_use", lambda *arguments: {"with another image": None})
    monkeypatch.setattr(evaluate, "score_maps", lambda *arguments: ({}, agreement, None))
    sample = cast(EvaluationSample, Sample(there))
    found = MetricResults({}, ["proposed"])
    truth = cast(Any, SimpleNamespace(table=None, human=None))
    evaluate._measure(found, sample, cast(Any, None), Options(curves=asked, sanity=asked), truth)
    assert counts == ({} if taken is None else {"ends": taken, "curves": taken, "sanity": taken})
    assert ("deletion" in found.means) is bool(taken)
