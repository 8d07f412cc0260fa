"""The paper's own figures: the shipped config's numbers, and the road from its picks to four pictures."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import REPOSITORY, hvx
from PIL import ExifTags, Image

from hvx.config import Config, ModelConfig, PickConfig, load
from hvx.data.scenes import draw_scene
from hvx.data.tokenize import Vocabulary, tokenize_mcb, tokenize_nltk
from hvx.errors import BadImage, HvxError
from hvx.files import sha256
from hvx.models.backbone import build_backbone
from hvx.models.checkpoint import VQAModel, save_checkpoint
from hvx.models.mlb import MLB
from hvx.run.explain import explain_split
from hvx.run.local import local_engine
from hvx.store.reader import RunReader
from hvx.view.crop import middle
from hvx.view.figure import FigureLayout, FigureRow, draw_figure
from hvx.view.run_figures import (
    figure_row,
    open_photo_of,
    printed_beside,
    run_picks,
    write_figure,
    write_picked_figures,
)
from hvx.view.style import AS_IN_THE_PAPER

CONFIG = REPOSITORY / "configs" / "paper_figures.yaml"
FIGURES = [f"figure{number}" for number in (2, 3, 4, 5) for _ in range(3)]
WIDTH = 700

# Image, text as VQA writes it, ground truth; the place in the list + 1 is the question_id.
ASKED = [
    (7, "Is the man happy?", "no"),
    (1, "What is the person eating?", "donut"),
    (1, "Is that a bench?", "no"),
    (2, "What is he wearing on his neck?", "scarf"),
    (3, "Is the man happy?", "yes"),
    (3, "What time of day is it?", "noon"),
    (4, "What color is the toddler's hair?", "blonde"),
    (5, "What is color of ball?", "blue"),
    (5, "Is the little boy playing t-ball?", "yes"),
    (6, "What is the color of the bike?", "red"),
    (6, "Is that a bench?", "yes"),
    (8, "What breed of dog is this?", "beagle"),
    (8, "What is the woman carrying?", "dog"),
    (9, "WHAT IS THE WOMAN CARRYING", "Umbrella"),
    (9, "What colors are the backpack?", "red and blue"),
    (10, "Is that a mother and daughter?", "yes"),
    (7, "is the man happy ?", "yes"),
    (2, "Is the man happy?", "yes"),
]
TAKEN = [2, 4, 5, 7, 8, 9, 12, 11, 10, 14, 15, 16]
"""The question that each pick takes, in the config's order."""


@dataclass(frozen=True)
class Paper:
    """The twelve questions among others, and a small MLB of random weights, where the config looks."""

    root: Path

    def load(self, run: str, *more: str) -> Config:
        return load(CONFIG, self.settings(run, *more))

    def settings(self, run: str, *more: str) -> list[str]:
        return [f"root={self.root}", f"explain.run={run}", "explain.workers=0", *more]

    def image(self, image_id: int) -> Path:
        return self.root / "data" / "vqa" / "val2014" / f"COCO_val2014_{image_id:012d}.jpg"


def write_split(paper: Paper) -> None:
    vqa = paper.root / "data" / "vqa"
    paper.image(0).parent.mkdir(parents=True)
    questions, annotations = [], []
    for question_id, (image_id, text, truth) in enumerate(ASKED, start=1):
        questions.append({"question_id": question_id, "image_id": image_id, "question": text})
        people = [{"answer_id": n, "answer": truth, "answer_confidence": "yes"} for n in range(1, 11)]
        kind = {"question_type": "none of the above", "answer_type": "other"}
        told = {"multiple_choice_answer": truth, "answers": people}
        annotations.append({"question_id": question_id, "image_id": image_id, **kind, **told})
    (vqa / "OpenEnded_mscoco_val2014_questions.json").write_text(json.dumps({"questions": questions}))
    (vqa / "mscoco_val2014_annotations.json").write_text(json.dumps({"annotations": annotations}))
    for image_id in {image_id for image_id, _, _ in ASKED}:
        scene = draw_scene(np.random.default_rng(image_id), 120)
        Image.fromarray(scene.image[: 90 + image_id]).save(paper.image(image_id), quality=95)


def write_model(path: Path, tokenizer: str = "nltk") -> None:
    torch.manual_seed(5)
    sizes = {"embedding": 8, "hidden": 12, "tokenizer": tokenizer}
    backbone = {"architecture": "resnet18", "node": "layer1"}
    tree = {"image": {"size": 64}, "backbone": backbone, "encoder": sizes, "joint": 10}
    config = ModelConfig.model_validate(tree)
    words = Vocabulary.from_tokens(tokenize_nltk(text) for _, text, _ in ASKED)
    answers = sorted({truth for _, _, truth in ASKED})
    head = MLB(config, 64, len(words), len(answers)).requires_grad_(False).eval()
    save_checkpoint(path, VQAModel(config, build_backbone(config.backbone), head, words, answers))


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory) -> Paper:
    made = Paper(tmp_path_factory.mktemp("paper"))
    write_split(made)
    write_model(made.root / "checkpoints" / "mlb.safetensors")
    return made


@pytest.fixture(scope="module")
def run(paper: Paper) -> Path:
    """A run of the config's picks; tests do not change it."""
    explain_split(paper.load("runs/picks"), local_engine(torch.device("cpu")))
    return paper.root / "runs" / "picks"


def picks() -> tuple[PickConfig, ...]:
    explain = load(CONFIG).explain
    assert explain is not None
    return explain.pick


def expected_figure(run: Path, name: str) -> Image.Image:
    """A figure drawn from the run's items and the config's numbers, each found by its question_id."""
    reader = RunReader(run)
    items = {item.question_id: item for item in (reader[number] for number in range(len(reader)))}
    rows = []
    for pick, question_id in zip(picks(), TAKEN, strict=True):
        if pick.figure != name or question_id not in items:
            continue
        item = items[question_id]
        with Image.open(Path(reader.about["images"]) / item.image_path) as photo:
            side = min(photo.size)
            left, top = (photo.width - side) / 2, (photo.height - side) / 2
            size = max(FigureLayout(WIDTH, 2).side, 64)
            box = (left, top, left + side, top + side)
            crop = photo.convert("RGB").resize((size, size), Image.Resampling.BICUBIC, box)
            whole = middle(photo.convert("RGB"), size) if photo.width != photo.height else None
        beside: list[float | None] = list(pick.printed_z)
        if "t-ball" in item.tokens:  # one token here, two in the paper
            beside[5:7] = [None]
        if "?" not in item.tokens:
            del beside[-1]
        answer = (item.answer, item.ground_truth)
        maps = item.attention, item.heatmap
        row = FigureRow(crop, *maps, item.tokens, item.token_z, *answer, beside)
        rows.append(replace(row, unknown=item.unknown, whole=whole))
    return draw_figure(rows, WIDTH, f"Figure {name.removeprefix('figure')}", AS_IN_THE_PAPER)


def test_the_configs_numbers_are_those_printed_in_the_paper(shared: Path) -> None:
    printed = json.loads((shared / "paper" / "printed-zscores.json").read_text(encoding="utf-8"))["rows"]
    # Figure 4's rows have no number there; its caption says which is the second and which the third.
    order = ["dog", "bench", "bike"]
    fourth = [row for row in printed if row["figure"] == 4]
    fourth = [next(row for row in fourth if word in row["question"]) for word in order]
    rows = [row for row in printed if row["figure"] < 4] + fourth + [r for r in printed if r["figure"] > 4]
    assert [(pick.figure, pick.question, pick.ground_truth) for pick in picks()] == [
        (f"figure{row['figure']}", row["question"], row["ground_truth"]) for row in rows
    ]
    assert [list(pick.printed_tokens) for pick in picks()] == [row["tokens"] for row in rows]
    assert [list(pick.printed_z) for pick in picks()] == [row["z"] for row in rows]


def test_each_row_of_the_config_is_a_row_of_z_scores_with_the_sample_standard_deviation() -> None:
    assert [pick.figure for pick in picks()] == FIGURES
    for pick in picks():
        z = np.array(pick.printed_z)
        assert " ".join(pick.printed_tokens) == pick.question
        assert z.sum() == pytest.approx(0, abs=len(z) * 0.5e-4)
        assert (z**2).sum() == pytest.approx(len(z) - 1, abs=np.abs(z).sum() * 1e-4)


def test_the_config_asks_for_the_files_of_vqa_v1_val_and_for_no_model_of_its_own() -> None:
    config = load(CONFIG)
    assert "model" not in config.model_fields_set
    split = config.split("val")
    assert split.questions.name == "OpenEnded_mscoco_val2014_questions.json"
    assert split.annotations is not None
    assert split.annotations.name == "mscoco_val2014_annotations.json"
    assert split.image_name.format(image_id=262148) == "COCO_val2014_000000262148.jpg"


def test_the_twelve_questions_are_explained_and_drawn_from_the_config_by_two_commands(
    paper: Paper, tmp_path: Path
) -> None:
    overrides = [part for setting in paper.settings("runs/commands") for part in ("--set", setting)]
    done = hvx("explain", CONFIG, *overrides, "--device", "cpu", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "12 questions explained" in done.stdout
    assert "figure2: 'is the man happy ?' fits 3 questions:" in done.stderr
    listed = [line.strip() for line in done.stderr.splitlines() if "question_id" in line and "image" in line]
    assert listed == [
        "question_id 5, image 3, 'yes'  (taken)",
        "question_id 17, image 7, 'yes'",
        "question_id 18, image 2, 'yes'",
    ]
    run = paper.root / "runs" / "commands"
    done = hvx("figure", run, "-o", f"{tmp_path}/figures/", "--width", WIDTH, "--style", "paper")
    assert done.returncode == 0, done.stderr
    names = ["figure2.png", "figure3.png", "figure4.png", "figure5.png"]
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == names
    assert done.stdout.splitlines() == [
        line
        for place, name in enumerate(names)
        for line in (
            f"{tmp_path / 'figures' / name}: 3 explanations",
            f"question_id: {', '.join(map(str, TAKEN[3 * place : 3 * place + 3]))}",
        )
    ]
    for name in names:
        with Image.open(tmp_path / "figures" / name) as figure:
            expected = expected_figure(run, name.removesuffix(".png"))
            assert figure.size == expected.size
            assert figure.tobytes() == expected.tobytes(), name


def test_a_run_of_picks_holds_just_what_they_take(run: Path) -> None:
    reader = RunReader(run)
    assert sorted(reader.column("question_id").tolist()) == sorted(TAKEN)
    assert [question_id for _, question_id in run_picks(reader)] == TAKEN
    assert [pick for pick, _ in run_picks(reader)] == list(picks())


def test_a_question_id_in_the_config_takes_another_candidate(paper: Paper, tmp_path: Path) -> None:
    tree = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    (happy,) = (pick for pick in tree["explain"]["pick"] if "happy" in pick["question"])
    happy["question_id"] = 18
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(tree))
    config = load(tmp_path / "config.yaml", paper.settings("runs/other"))
    said: list[str] = []
    explain_split(config, local_engine(torch.device("cpu")), log=said.append)
    assert said == []
    assert 18 in RunReader(paper.root / "runs" / "other").column("question_id")


def test_rows_whose_photograph_cannot_be_read_are_missing_and_named(paper: Paper, tmp_path: Path) -> None:
    spoilt = Paper(tmp_path)
    shutil.copytree(paper.root / "data", tmp_path / "data")
    shutil.copytree(paper.root / "checkpoints", tmp_path / "checkpoints")
    spoilt.image(3).unlink()
    for image_id in (9, 10):  # all of figure 5
        spoilt.image(image_id).write_bytes(b"no photograph")
    explain_split(spoilt.load("run", "explain.on_error=skip"), local_engine(torch.device("cpu")))
    options = ["--width", WIDTH, "--style", "paper"]
    done = hvx("figure", tmp_path / "run", "-o", tmp_path / "figures", *options)
    assert done.returncode == 3
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == [
        "figure2.png",
        "figure3.png",
        "figure4.png",
    ]
    assert "figure2.png: 2 explanations" in done.stdout
    missing = done.stderr.splitlines()
    assert [line.split(":")[0] for line in missing] == ["figure2", "figure5", "figure5", "figure5"]
    assert "'is the man happy ?': question_id 5 could not be explained" in missing[0]
    assert missing[0].endswith("failures.jsonl")
    with Image.open(tmp_path / "figures" / "figure2.png") as figure:
        assert figure.tobytes() == expected_figure(tmp_path / "run", "figure2").tobytes()


def test_one_question_in_two_figures_has_the_printed_scores_of_each(paper: Paper, tmp_path: Path) -> None:
    tree = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    first = tree["explain"]["pick"][0]
    tree["explain"]["pick"] = [
        first | {"figure": "as printed"},
        first | {"figure": "zero", "printed_z": [0.0] * 6},
        first | {"figure": "bare", "printed_z": [], "printed_tokens": []},
    ]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(tree))
    config = load(tmp_path / "config.yaml", paper.settings("runs/twice"))
    explain_split(config, local_engine(torch.device("cpu")))
    reader = RunReader(paper.root / "runs" / "twice")
    assert len(reader) == 1
    drawn = write_picked_figures(reader, tmp_path, WIDTH)
    assert list(drawn.files) == [tmp_path / f"{name}.png" for name in ("as printed", "zero", "bare")]
    assert drawn.missing == []
    assert len({path.read_bytes() for path in drawn.files}) == 3


def test_a_single_figure_of_a_picked_question_shows_its_printed_scores_too(run: Path, tmp_path: Path) -> None:
    reader = RunReader(run)
    number = reader.column("question_id").tolist().index(2)
    write_figure(reader, [number], tmp_path / "with.png", WIDTH)
    reader.about["picked"] = None
    write_figure(reader, [number], tmp_path / "without.png", WIDTH)
    with Image.open(tmp_path / "with.png") as shown, Image.open(tmp_path / "without.png") as bare:
        assert shown.height > bare.height


def test_a_photograph_is_turned_in_the_figure_just_where_it_was_turned_for_the_run(
    run: Path, tmp_path: Path
) -> None:
    reader = RunReader(run)
    stored = Image.fromarray(draw_scene(np.random.default_rng(0), 64).image)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # to be turned clockwise by a quarter
    path = tmp_path / reader[0].image_path
    stored.save(path, quality=100, subsampling=0, exif=exif)
    reader.about["images"] = str(tmp_path)
    shown = []
    for turned in (False, True):
        reader.about["exif_orientation"] = turned
        shown.append(open_photo_of(reader, path.name, sha256(path)))
    assert shown[1].tobytes() == shown[0].transpose(Image.Transpose.ROTATE_270).tobytes()
    assert shown[1].tobytes() != shown[0].tobytes()
    with pytest.raises(BadImage, match="another image than the one explained"):
        figure_row(reader, 0, 64)  # of the run's own photograph, which this is not


def test_a_folder_for_a_run_without_picks_is_refused_in_one_line(finished_run: Path, tmp_path: Path) -> None:
    done = hvx("figure", finished_run, "-o", tmp_path / "figures")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "was explained without picks; give FILE.png" in done.stderr
    assert not (tmp_path / "figures").exists()


@pytest.mark.parametrize("option", [("--rows", 2), ("--id", 5)])
def test_a_folder_goes_with_no_choice_of_rows(run: Path, tmp_path: Path, option: tuple[str, int]) -> None:
    done = hvx("figure", run, "-o", tmp_path, *option)
    assert done.returncode == 2
    assert "a choice of rows needs FILE.png" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda about: about["picked"].pop(), "'picked' does not fit config.explain.pick"),
        (lambda about: about["config"].pop("explain"), "'picked' does not fit config.explain.pick"),
        (lambda about: about.update(picked=[7] * 12), "'picked' does not fit config.explain.pick"),
        (lambda about: about.update(picked="all"), "'picked' does not fit config.explain.pick"),
        (lambda about: about.update(config=[]), "'picked' does not fit config.explain.pick"),
        (lambda about: about["config"]["explain"]["pick"][3].update(figure="../out"), r"pick\.3: figure"),
        (lambda about: about["config"]["explain"]["pick"][2].update(printed_z=[1.0]), "1 printed_z"),
        (lambda about: about["config"]["explain"]["pick"][2].update(question=5), r"question"),
    ],
)
def test_a_run_json_that_contradicts_itself_is_refused(
    run: Path, tmp_path: Path, spoil: Any, named: str
) -> None:
    reader = RunReader(run)
    spoil(reader.about)
    with pytest.raises(HvxError, match=named) as refusal:
        write_picked_figures(reader, tmp_path / "figures", WIDTH)
    assert "run.json" in str(refusal.value)
    assert not list(tmp_path.iterdir())


def beside(tokens: str, printed: str) -> list[float | None]:
    theirs = printed.split()
    pick = {"question": printed, "printed_tokens": theirs, "printed_z": list(range(len(theirs)))}
    return printed_beside(tokens.split(), PickConfig.model_validate(pick))


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        ("is it red ?", "is it red ?", [0, 1, 2, 3]),
        ("is it red", "is it red ?", [0, 1, 2]),
        ("Is it RED", "is it red", [0, 1, 2]),
        ("is the toddlers hair", "is the toddler 's hair ?", [0, 1, None, 4]),
        ("the color of the bike", "the color of the bike ?", [0, 1, 2, 3, 4]),
        ("what is it really ?", "what is it ?", [0, 1, 2, None, 3]),
        ("other words", "is it red ?", [None, None]),
        ("is it", "", [None, None]),
        ("", "is it", []),
    ],
)
def test_printed_scores_stand_beside_the_tokens_that_both_have(
    ours: str, theirs: str, expected: list[float | None]
) -> None:
    assert beside(ours, theirs) == expected


def test_with_tokens_that_drop_punctuation_only_the_question_mark_goes_without_its_partner() -> None:
    for pick in picks():
        tokens = tokenize_mcb(pick.question.replace(" 's", ""))
        wanted = [
            z
            for token, z in zip(pick.printed_tokens, pick.printed_z, strict=True)
            if token not in ("?", "'s")
        ]
        assert printed_beside(tokens, pick) == wanted
