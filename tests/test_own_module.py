"""``hvx explain --model``: a module of the user's own over a split, and what is refused of it."""

from __future__ import annotations

import json
import runpy
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import REPOSITORY, hvx
from processes import datasets, finished, shards_there, signalled, started, until
from torch import Tensor

import hvx as face
from hvx.adapters.explainer import AdapterExplainer
from hvx.adapters.user_code import UserCode
from hvx.data.images import load_input
from hvx.data.scenes import write_scenes
from hvx.store.reader import RunReader

FOREIGN = Path(__file__).with_name("foreign_module.py")
EXAMPLE = REPOSITORY / "docs" / "examples" / "own_module.py"


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config without checkpoint, beside a small split."""
    root = tmp_path_factory.mktemp("own")
    write_scenes(root / "scenes", 24, 8, 64, 0)
    tree = yaml.safe_load((REPOSITORY / "configs" / "scenes.yaml").read_text())
    del tree["checkpoint"], tree["model"], tree["train"]
    tree |= {"root": str(root)}
    tree["explain"] |= {"batch_images": 3, "shard_questions": 1, "workers": 0}
    config = root / "config.yaml"
    config.write_text(yaml.safe_dump(tree))
    return config


def command(split: Path, run: Path, model: object, *more: str) -> list[str]:
    own = ["explain", str(split), "--set", f"explain.run={run}", "--model", str(model), "--device", "cpu"]
    return [*own, *more]


@pytest.fixture(scope="module")
def run(split: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the foreign module; tests do not change it."""
    found = tmp_path_factory.mktemp("run") / "run"
    torch.set_num_threads(1)
    done = hvx(*command(split, found, f"{FOREIGN}:adapter"))
    assert done.returncode == 0, done.stderr
    return found


def _module(seed: int = 0) -> dict[str, Any]:
    """The foreign file's names, and its adapter with the weights that a run's seed gives."""
    names = runpy.run_path(str(FOREIGN))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        names["made"] = names["adapter"]()
    return names


def test_a_run_is_what_explain_product_gives_for_each_question(run: Path) -> None:
    """One question at a time, so that another batch, order or padding would show."""
    names = _module()
    module = names["made"].module.eval()
    with RunReader(run) as reader:
        assert len(reader) > 30 and reader.glimpses == 1
        for number in range(0, len(reader), 3):
            item = reader[number]
            photo = load_input(reader.image_folders[0] / item.image_path, _image())[None]
            made = names["inputs"](photo, [item.question])
            found = face.explain_product(module, made.inputs, image=photo, words=made.words, mask=made.mask)
            assert item.tokens == made.tokens[0]
            _close(item.heatmap, found.heatmap[0])
            _close(item.token_z, found.z[0])
            _close(item.attention, found.attention[0])
            chances = found.output["logits"].softmax(1)[0]
            assert item.answer == names["ANSWERS"][int(chances.argmax())]
            assert item.probability == pytest.approx(float(chances.max()), abs=1e-5)


def _image() -> Any:
    from hvx.config import ImageConfig

    return ImageConfig(size=64)


def _close(stored: Any, wanted: Tensor | None) -> None:
    assert wanted is not None
    np.testing.assert_allclose(np.asarray(stored, np.float32), wanted.numpy(), rtol=5e-3, atol=5e-3)


def test_a_killed_run_goes_on_to_the_same_bytes(split: Path, run: Path, tmp_path: Path) -> None:
    again = tmp_path / "run"
    own = [sys.executable, "-m", "hvx", *command(split, again, f"{FOREIGN}:adapter")]
    process = started(own)
    until(shards_there(again, 2), process)
    signalled(process, signal.SIGKILL, everyone=True)
    process.communicate()
    assert not (again / "explanations.h5").exists() and list((again / "shards").glob("*.h5"))
    without = hvx("explain", split, "--set", f"explain.run={again}", "--set", "checkpoint=none")
    assert without.returncode == 2 and "name its file again by --model" in without.stderr
    assert finished(started(own))[0] == 0
    assert datasets(again) == datasets(run)
    assert (again / "results.json").read_bytes() == (run / "results.json").read_bytes()


def test_through_ray_the_run_is_the_same(split: Path, run: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    again = tmp_path / "run"
    more = ["--engine", "ray", "--workers", "2", "--gpus-per-worker", "0"]
    own = [part for part in command(split, again, f"{FOREIGN}:adapter") if part not in ("--device", "cpu")]
    done = subprocess.run(
        [sys.executable, "-m", "hvx", *own, *more], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    one, two = RunReader(run), RunReader(again)
    with one, two:
        for name in ("question_id", "answer", "tokens"):
            assert (one.column(name) == two.column(name)).all()
        for number in range(len(one)):
            np.testing.assert_allclose(one[number].heatmap, two[number].heatmap, 2e-3, 2e-3)
            np.testing.assert_allclose(one[number].token_z, two[number].token_z, 2e-3, 1e-3)
    assert (again / "results.json").read_bytes() == (run / "results.json").read_bytes()


def test_changed_code_or_weights_are_another_run(split: Path, run: Path, tmp_path: Path) -> None:
    changed = tmp_path / "foreign_module.py"
    changed.write_text(FOREIGN.read_text() + "\n# another\n")
    done = hvx(*command(split, run, f"{changed}:adapter"))
    assert done.returncode == 2 and "another model_code_sha256" in done.stderr
    done = hvx(*command(split, run, f"{FOREIGN}:adapter", "--set", "seed=5"))
    assert done.returncode == 2 and "another model_weights_sha256" in done.stderr


def test_the_cnn_runs_once_for_an_image_where_the_module_allows_it(split: Path) -> None:
    torch.manual_seed(0)
    adapter = runpy.run_path(str(EXAMPLE))["adapter"]()
    explainer = AdapterExplainer(adapter, UserCode(EXAMPLE, "adapter"), torch.device("cpu"))
    images = torch.randn(2, 3, 64, 64)
    asked = ["what color is it ?", "is there a star ?", "what ?", "is the circle red or green ?"]
    explainer.check(images, asked)
    assert explainer.takes_one_image
    rows: list[int] = []
    adapter.module.cnn[0].register_forward_hook(lambda module, given, out: rows.append(len(out)))
    one = explainer.explain(images, [0, 0, 1, 0], asked)
    assert rows == [1, 1]  # three questions on the first image, one on the second
    explainer.takes_one_image = False
    many = explainer.explain(images, [0, 0, 1, 0], asked)
    assert sum(rows[2:]) == 4
    assert one.tokens == many.tokens and one.answers == many.answers
    for name in ("heatmap", "saliency", "probabilities"):
        torch.testing.assert_close(getattr(one, name), getattr(many, name), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(one.z, many.z, rtol=1e-3, atol=1e-3, equal_nan=True)


BAD = [
    ("Foreign(), inputs", "Foreign(), 3", "inputs: expected a function, not int"),
    ("return hvx.Adapter(", "return dict(", "TypeError"),
    ("    return hvx.Adapter(", "    return 5, hvx.Adapter(", "returned tuple; expected an hvx.Adapter"),
    (
        "ANSWERS, read",
        "ANSWERS[:3], read",
        "returned (4, 7) for 4 questions; expected (4, 3), answers for each",
    ),
    (', read=lambda found: found["logits"]', "", "the module returned dict; expected one tensor of floats"),
    ('found["logits"]', 'found["logits"][:2]', "returned (2, 7) for 4 questions; expected (4, 7)"),
    ('found["logits"]', 'found["logits"].sort(0)[0]', "changes the order of its rows"),
    ('found["logits"]', 'found["logits"] / 0 * 0', "returned NaN"),
    ('found["logits"]', 'found["nothing"]', "KeyError: 'nothing' (line"),
    ("words, tokens,", "words, tokens[1:],", "tokens of 3 questions; it was given 4"),
    ("words, tokens,", "words, tokens[::-1],", "positions of its words"),
    ("words, tokens,", "words, [own[1:] for own in tokens],", "tokens for"),
    ("return hvx.ModelInputs(", "return (", "inputs= returned tuple; expected hvx.ModelInputs"),
    (", batch_second=True", "", "of words (T, N) say batch_second=True"),
    ("size=64", "size=64, prepare=lambda photo: torch.zeros(3, 9, 9)", "prepare= returned (3, 9, 9)"),
    ("size=64", "size=64, output='chance'", "output: expected 'logits'"),
    ("size=64", "size=0", "size: "),
    ("size=64", "size=64, product='x'", "product 'x'"),
    ("import torch\n", "import torch\nimport nothing_of_this_name\n", "ModuleNotFoundError"),
    ("import torch\n", "import torch\nraise SystemExit(4)\n", "SystemExit: 4"),
    ("class Foreign", "clas Foreign", "SyntaxError"),
]


@pytest.mark.parametrize(("old", "new", "said"), BAD, ids=[said[:40] for *_, said in BAD])
def test_what_is_wrong_with_an_adapter_is_one_line(
    split: Path, tmp_path: Path, old: str, new: str, said: str
) -> None:
    code = FOREIGN.read_text()
    assert code.count(old) >= 1
    file = tmp_path / "mine.py"
    file.write_text(code.replace(old, new))
    done = hvx(*command(split, tmp_path / "run", f"{file}:adapter"))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and said in done.stderr, done.stderr
    assert f"{file}:adapter" in done.stderr
    assert not (tmp_path / "run").exists()


def test_debug_shows_where_the_user_s_code_raised(split: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(FOREIGN.read_text().replace('found["logits"]', 'found["nothing"]'))
    done = hvx(*command(split, tmp_path / "run", f"{file}:adapter", "--debug"))
    assert done.returncode == 2 and "Traceback" in done.stderr and "KeyError: 'nothing'" in done.stderr


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("{file}:nothing", "no function 'nothing'"),
        ("{file}:adaptr", "did you mean 'adapter'?"),
        ("{file}", "expected FILE.py:FUNCTION"),
        ("{file}:", "expected FILE.py:FUNCTION"),
        ("{folder}:adapter", "expected a Python file"),
        ("{folder}/none.py:adapter", "no such file (--model)"),
        ("{folder}/a.txt:adapter", "expected a Python file"),
    ],
)
def test_a_model_that_is_no_function_in_a_file_is_refused(
    split: Path, tmp_path: Path, model: str, said: str
) -> None:
    named = model.format(file=FOREIGN, folder=tmp_path)
    done = hvx(*command(split, tmp_path / "run", named))
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and said in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "change",
    [
        "lambda photo: pixels(photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT))",
        "lambda photo: pixels(photo.crop((8, 8, 56, 56)).resize((64, 64)))",
    ],
)
def test_a_preparation_that_moves_the_picture_is_refused(split: Path, tmp_path: Path, change: str) -> None:
    file = tmp_path / "mine.py"
    own = (
        "from PIL import Image\nimport numpy as np\n\n"
        "def pixels(photo):\n    return torch.from_numpy(np.array(photo)).permute(2, 0, 1) / 128 - 1\n"
    )
    code = FOREIGN.read_text().replace("import torch\n", "import torch\n" + own, 1)
    file.write_text(code.replace("size=64", f"size=64, prepare={change}"))
    done = hvx(*command(split, tmp_path / "run", f"{file}:adapter"))
    assert done.returncode == 2 and "prepare= moves what the picture shows" in done.stderr
    file.write_text(code.replace("size=64", "size=64, prepare=pixels"))
    done = hvx(*command(split, tmp_path / "run", f"{file}:adapter", "--set", "splits.val.limit=3"))
    assert done.returncode == 0, done.stderr


def test_what_a_run_of_it_offers(split: Path, run: Path, tmp_path: Path) -> None:
    """Figure, gallery, info; what needs hvx's own head says so in one line."""
    assert hvx("figure", run, "-o", tmp_path / "figure.png", "--rows", "3").returncode == 0
    assert hvx("gallery", run, "-o", tmp_path / "gallery").returncode == 0
    told = hvx("info", run)
    assert "foreign_module.py:adapter, code sha256 " in told.stdout
    refused = hvx("measure", run)
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1
    assert "a module of one's own (foreign_module.py:adapter)" in refused.stderr


def test_check_tells_of_the_module_and_asks_for_no_checkpoint(split: Path, tmp_path: Path) -> None:
    own = ["--set", f"explain.run={tmp_path / 'run'}", "--device", "cpu", "--json"]
    done = hvx("check", split, "--model", f"{FOREIGN}:adapter", *own)
    found = json.loads(done.stdout)
    assert done.returncode == 0 and not found["problems"]
    assert found["model"]["module"] == "Foreign" and found["model"]["answers"] == 7
    assert found["time"]["explanations per second"] > 0
    assert "checkpoint" in hvx("check", split, *own).stderr


def test_a_config_names_no_code(split: Path, tmp_path: Path) -> None:
    done = hvx("explain", split, "--set", f"model.adapter={FOREIGN}:adapter", "--set", "checkpoint=x")
    assert done.returncode == 2 and "unknown key 'model.adapter'" in done.stderr
