"""vqa.pytorch's folders, built here from the format's definition, against a forward pass written out here."""

from __future__ import annotations

import copy
import pickle
import random
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hostile import Harm, mutated
from torch import Tensor, nn

from hvx.config import BackboneConfig
from hvx.data.tokenize import TOKENIZERS, padded
from hvx.errors import HvxError, shown
from hvx.explain.hadamard import head_gradients
from hvx.importers.vqa_pytorch import import_vqa_pytorch
from hvx.models.checkpoint import VQAModel, load_checkpoint, save_checkpoint

BACKBONE = BackboneConfig(architecture="resnet10", node="layer2")
CHANNELS, HIDDEN, JOINT, EMBEDDING, LATTICE = 128, 9, 7, 5, 3
WORDS = ("what", "color", "is", "the", "UNK", "café")
ANSWERS = ("yes", "no", "2", "café au lait")
QUESTIONS = ("What color is the café?", "is it", "the the the", "What")


def att_options(glimpses: int) -> dict[str, Any]:
    """The keys of vqa.pytorch's own options, at small sizes, all activations tanh."""
    return {
        "vqa": {"nlp": "mcb", "pad": "right", "nans": len(ANSWERS)},
        "coco": {"arch": "fbresnet152", "mode": "att", "size": 64},
        "model": {
            "arch": "MLBAtt",
            "dim_v": CHANNELS,
            "dim_q": HIDDEN,
            "seq2vec": {"arch": "skipthoughts", "type": "BayesianUniSkip", "dropout": 0.25},
            "attention": {
                "nb_glimpses": glimpses,
                "dim_h": JOINT,
                "dropout_v": 0.5,
                "activation_v": "tanh",
                "activation_q": "tanh",
                "activation_mm": "tanh",
            },
            "fusion": {"dim_h": JOINT, "activation_v": "tanh", "activation_q": "tanh"},
            "classif": {"activation": "tanh", "dropout": 0.5},
        },
        "optim": {"lr": 0.0001},
    }


def noatt_options() -> dict[str, Any]:
    options = att_options(1)
    fusion = {"dim_v": CHANNELS, "dim_q": HIDDEN, **options["model"]["fusion"]}
    options["model"] = {
        "arch": "MLBNoAtt",
        "seq2vec": options["model"]["seq2vec"],
        "fusion": fusion,
        "classif": options["model"]["classif"],
    }
    return options


def foreign_state(glimpses: int) -> dict[str, Tensor]:
    """A random state dict of MLBAtt, or of MLBNoAtt for no glimpses."""
    generator = torch.Generator().manual_seed(3)

    def linear(name: str, out: int, into: int, *kernel: int, bias: bool = True) -> dict[str, Tensor]:
        weight = torch.randn(out, into, *kernel, generator=generator) * (1.5 / into**0.5)
        own = {f"{name}.weight": weight}
        return own | ({f"{name}.bias": torch.randn(out, generator=generator) * 0.3} if bias else {})

    table = torch.randn(len(WORDS) + 1, EMBEDDING, generator=generator)
    table[0] = 0
    state = {"seq2vec.embedding.weight": table}
    for gate in "rin":
        state |= linear(f"seq2vec.rnn.gru_cell.weight_i{gate}", HIDDEN, EMBEDDING)
        state |= linear(f"seq2vec.rnn.gru_cell.weight_h{gate}", HIDDEN, HIDDEN, bias=False)
    width = JOINT * max(1, glimpses)
    state |= linear("linear_classif", len(ANSWERS), width)
    if not glimpses:
        state |= linear("fusion.linear_v", JOINT, CHANNELS) | linear("fusion.linear_q", JOINT, HIDDEN)
        return state
    state |= linear("conv_v_att", JOINT, CHANNELS, 1, 1) | linear("linear_q_att", JOINT, HIDDEN)
    state |= linear("conv_att", glimpses, JOINT, 1, 1) | linear("linear_q_fusion", width, HIDDEN)
    for g in range(glimpses):
        state |= linear(f"list_linear_v_fusion.{g}", JOINT, CHANNELS)
    return state


def write_folder(
    folder: Path, options: dict[str, Any], state: dict[str, Tensor], protocol: int = 4, **save: Any
) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "options.yaml").write_text(yaml.dump(options))
    torch.save(OrderedDict(state), folder / "best_model.pth.tar", **save)
    vocabularies = {
        "wid_to_word": dict(enumerate(WORDS, 1)),
        "word_to_wid": {word: number for number, word in enumerate(WORDS, 1)},
        "aid_to_ans": dict(enumerate(ANSWERS)),
        "ans_to_aid": {answer: number for number, answer in enumerate(ANSWERS)},
    }
    for name, held in vocabularies.items():
        (folder / f"{name}.pickle").write_bytes(pickle.dumps(held, protocol))
    return folder


def activation(options: dict[str, Any], section: str, key: str) -> Any:
    name = options["model"][section].get(key)
    return getattr(torch, name) if name else lambda x: x


def reference(
    options: dict[str, Any], state: dict[str, Tensor], features: Tensor, embedded: Tensor
) -> tuple[Tensor, list[Tensor], Tensor, Tensor]:
    """One question on one image in float64, step by step: logits, α for each glimpse, V and Q.

    ``features`` (M, S, S), ``embedded`` (T, E).
    """
    own = {name: tensor.double().flatten(1) if tensor.ndim > 1 else tensor.double()
           for name, tensor in state.items()}  # fmt: skip

    def linear(name: str, x: Tensor) -> Tensor:
        return own[f"{name}.weight"] @ x + own.get(f"{name}.bias", 0)

    h = torch.zeros(HIDDEN, dtype=torch.float64)
    cell = "seq2vec.rnn.gru_cell.weight_"
    for x in embedded:
        r = torch.sigmoid(linear(cell + "ir", x) + linear(cell + "hr", h))
        i = torch.sigmoid(linear(cell + "ii", x) + linear(cell + "hi", h))
        n = torch.tanh(linear(cell + "in", x) + r * linear(cell + "hn", h))
        h = (1 - i) * n + i * h

    cells = [features[:, row, column] for row in range(LATTICE) for column in range(LATTICE)]
    attention: list[Tensor] = []
    if options["model"]["arch"] == "MLBNoAtt":
        visual = activation(options, "fusion", "activation_v")(linear("fusion.linear_v", sum(cells) / 9))
        textual = activation(options, "fusion", "activation_q")(linear("fusion.linear_q", h))
    else:
        asked = activation(options, "attention", "activation_q")(linear("linear_q_att", h))
        scores = []
        for cell_features in cells:
            seen = activation(options, "attention", "activation_v")(linear("conv_v_att", cell_features))
            scores.append(linear("conv_att", activation(options, "attention", "activation_mm")(seen * asked)))
        parts = []
        for g in range(options["model"]["attention"]["nb_glimpses"]):
            weights = torch.stack([torch.exp(score[g]) for score in scores])
            attention.append(weights / weights.sum())
            pooled = sum(weight * cell for weight, cell in zip(attention[-1], cells, strict=True))
            part = linear(f"list_linear_v_fusion.{g}", pooled)
            parts.append(activation(options, "fusion", "activation_v")(part))
        visual = torch.cat(parts)
        textual = activation(options, "fusion", "activation_q")(linear("linear_q_fusion", h))
    joined = activation(options, "classif", "activation")(visual * textual)
    return linear("linear_classif", joined), attention, visual, textual


def assert_computes_the_same(model: VQAModel, options: dict[str, Any], state: dict[str, Tensor]) -> None:
    """Logits, attention and both gradients of the imported head against the written-out pass."""
    tokens = [TOKENIZERS["mcb"](question) for question in QUESTIONS]
    rows = [[WORDS.index(t if t in WORDS else "UNK") + 1 for t in question] for question in tokens]
    assert [model.vocabulary.rows(question) for question in tokens] == rows
    features = torch.randn(2, CHANNELS, LATTICE, LATTICE, generator=torch.Generator().manual_seed(5))
    images = torch.tensor([0, 1, 1, 0])
    matrix, lengths = padded(rows)
    found = head_gradients(model.head, features, images, torch.from_numpy(matrix), torch.from_numpy(lengths))
    table = state["seq2vec.embedding.weight"].double()
    for n, question in enumerate(rows):
        seen = features[images[n]].double().requires_grad_()
        embedded = table[question].requires_grad_()
        logits, attention, visual, textual = reference(options, state, seen, embedded)
        product = (visual * textual).detach()
        to_image = torch.autograd.grad(visual, seen, visual.detach() - product, retain_graph=True)[0]
        to_words = torch.autograd.grad(textual, embedded, textual.detach() - product)[0]
        close = {"atol": 1e-5, "rtol": 1e-5}
        torch.testing.assert_close(found.joint.logits[n].double(), logits, **close)
        torch.testing.assert_close(found.features[0][n].double(), to_image, **close)
        torch.testing.assert_close(found.embeddings[n, : len(question)].double(), to_words, **close)
        if attention:
            assert found.joint.attention is not None
            torch.testing.assert_close(
                found.joint.attention[n].flatten(1).double(), torch.stack(attention), **close
            )
        else:
            assert found.joint.attention is None


def variants() -> list[Any]:
    bare = att_options(2)
    for section in ("attention", "fusion", "classif"):
        bare["model"][section] = {k: v for k, v in bare["model"][section].items() if "activation" not in k}
    mixed = att_options(1)
    mixed["model"]["attention"] |= {"activation_q": "relu", "activation_mm": "sigmoid"}
    mixed["model"]["fusion"]["activation_v"] = "sigmoid"
    del mixed["model"]["classif"]["activation"]
    bare_noatt = noatt_options()
    del bare_noatt["model"]["fusion"]["activation_v"], bare_noatt["model"]["classif"]["activation"]
    return [
        pytest.param(att_options(4), 4, id="as-published"),
        pytest.param(bare, 2, id="no-activations"),
        pytest.param(mixed, 1, id="one-glimpse-mixed"),
        pytest.param(noatt_options(), 0, id="no-attention"),
        pytest.param(bare_noatt, 0, id="no-attention-fewer-activations"),
    ]


@pytest.mark.parametrize(("options", "glimpses"), variants())
def test_an_imported_network_computes_what_the_format_defines(
    tmp_path: Path, options: dict[str, Any], glimpses: int
) -> None:
    state = foreign_state(glimpses)
    folder = write_folder(tmp_path / "f", options, state)
    model = import_vqa_pytorch(folder, BACKBONE)
    assert_computes_the_same(model, options, state)
    assert model.answers == list(ANSWERS)
    assert model.vocabulary.words == WORDS
    assert model.config.glimpses == glimpses
    assert model.training["imported_from"] == "vqa-pytorch"


def test_a_native_checkpoint_of_it_computes_the_same(tmp_path: Path) -> None:
    options, state = att_options(2), foreign_state(2)
    native = tmp_path / "native.safetensors"
    save_checkpoint(native, import_vqa_pytorch(write_folder(tmp_path / "f", options, state), BACKBONE))
    model = load_checkpoint(native)
    assert_computes_the_same(model, options, state)
    assert (model.config.encoder.candidate, model.config.encoder.tokenizer) == ("reset_after", "mcb")
    assert (model.config.encoder.sentences, model.config.encoder.max_tokens) == (False, 26)


@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
def test_the_prefix_module_is_no_part_of_a_name(tmp_path: Path, new: bool) -> None:
    options, state = att_options(2), foreign_state(2)
    prefixed = {f"module.{name}": tensor for name, tensor in state.items()}
    folder = write_folder(tmp_path / "f", options, prefixed, _use_new_zipfile_serialization=new)
    assert_computes_the_same(import_vqa_pytorch(folder, BACKBONE), options, state)


@pytest.mark.parametrize("protocol", range(6))
def test_vocabularies_of_every_protocol_are_read(tmp_path: Path, protocol: int) -> None:
    folder = write_folder(tmp_path / "f", noatt_options(), foreign_state(0), protocol)
    (folder / "aid_to_ans.pickle").write_bytes(pickle.dumps(list(ANSWERS), protocol))  # as vqa.pytorch does
    model = import_vqa_pytorch(folder, BACKBONE)
    assert (model.vocabulary.words, tuple(model.answers)) == (WORDS, ANSWERS)


def test_files_may_lie_elsewhere_and_the_last_epoch_can_be_asked_for(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "f", noatt_options(), foreign_state(0))
    processed = tmp_path / "processed"
    processed.mkdir()
    for path in folder.glob("*.pickle"):
        path.rename(processed / path.name)
    (folder / "best_model.pth.tar").rename(folder / "ckpt_model.pth.tar")
    (folder / "options.yaml").rename(folder / "mlb_noatt_train.yaml")
    (folder / "args.yaml").write_text("resume: ckpt\n")
    (folder / "ckpt_info.pth.tar").write_bytes(b"never read")
    model = import_vqa_pytorch(folder, BACKBONE, which="ckpt", vocabulary=processed)
    assert model.training["checkpoint"] == "ckpt_model.pth.tar"
    (folder / "other.yaml").write_text("model: {}\n")
    import_vqa_pytorch(
        folder, BACKBONE, which="ckpt", vocabulary=processed, options=folder / "mlb_noatt_train.yaml"
    )
    with pytest.raises(HvxError, match=r"2 \.yaml files .*give the options' file"):
        import_vqa_pytorch(folder, BACKBONE, which="ckpt", vocabulary=processed)


@pytest.mark.parametrize(
    ("coco", "size", "interpolation"),
    [
        ({"arch": "fbresnet152", "size": 448}, 448, "bilinear"),
        ({"arch": "fbresnet152torch"}, 448, "bicubic"),
        ({"arch": "resnet152", "size": 224}, 224, "bilinear"),
    ],
)
def test_images_are_scaled_as_for_the_features(
    tmp_path: Path, coco: dict[str, Any], size: int, interpolation: str
) -> None:
    options = noatt_options() | {"coco": coco}
    image = import_vqa_pytorch(write_folder(tmp_path / "f", options, foreign_state(0)), BACKBONE).config.image
    assert (image.size, image.interpolation) == (size, interpolation)


def changed(options: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    options = copy.deepcopy(options)
    *path, last = key.split(".")
    section = options
    for part in path:
        section = section[part]
    section[last] = value
    return options


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model.arch", "MCBAtt", r"options\.yaml: model\.arch: .*'MutanAtt' or 'MutanNoAtt', not 'MCBAtt'"),
        ("model.seq2vec.arch", "2-lstm", r"model\.seq2vec\.arch: .*'skipthoughts', not '2-lstm'"),
        ("model.seq2vec.type", "BiSkip", r"model\.seq2vec\.type: .*'BayesianUniSkip'.*, not 'BiSkip'"),
        ("model.fusion.activation_v", "elu", r"model\.fusion\.activation_v: .*'tanh'.* not 'elu'"),
        ("model.classif.activation", 3, r"model\.classif\.activation: .*'tanh'.* not 3"),
        ("vqa.nlp", "naive", r"vqa\.nlp: .*'mcb' or 'nltk', not 'naive'"),
        ("vqa.pad", "left", r"vqa\.pad: .*'right', not 'left'"),
        ("model.attention.nb_glimpses", 4, r"'conv_att\.weight' .* with 2 where .*nb_glimpses says 4"),
        ("model.attention.nb_glimpses", 10**9, r"'conv_att\.weight'.*nb_glimpses says 1,000,000,000"),
        ("model.attention.dim_h", 8, r"the attention's joint is 8 wide, the other 7; .*one dim_h"),
        ("model.fusion.dim_h", 6, r"the attention's joint is 7 wide, the other 6; .*one dim_h"),
        ("model.dim_q", 10, r"weight_ir\.weight' .* with 9 where options\.yaml: model\.dim_q says 10"),
        ("model.dim_v", 64, r"'conv_v_att\.weight' .* with 128 where options\.yaml: model\.dim_v says 64"),
        ("model.attention", None, r"key 'model\.attention' is missing"),
        ("model", 3, r"options\.yaml: model: "),
    ],
)
def test_options_that_do_not_fit_are_refused_by_name(
    tmp_path: Path, key: str, value: Any, message: str
) -> None:
    folder = write_folder(tmp_path / "f", changed(att_options(2), key, value), foreign_state(2))
    with pytest.raises(HvxError, match=message):
        import_vqa_pytorch(folder, BACKBONE)


@pytest.mark.parametrize("key", ["model.dim_q", "model.dim_v", "model.attention.dim_h", "model.fusion.dim_h"])
def test_sizes_that_options_leave_out_are_the_tensors_own(tmp_path: Path, key: str) -> None:
    options, state = changed(att_options(2), key, None), foreign_state(2)
    folder = write_folder(tmp_path / "f", options, state)
    assert_computes_the_same(import_vqa_pytorch(folder, BACKBONE), options, state)


def test_options_that_are_no_mapping_are_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "f", noatt_options(), foreign_state(0))
    for text in ("[1, 2]", "model: [", "!!python/object/apply:os.system ['true']", "\x00"):
        (folder / "options.yaml").write_text(text)
        with pytest.raises(HvxError, match=r"options\.yaml: "):
            import_vqa_pytorch(folder, BACKBONE)


@pytest.mark.parametrize(
    "name", ["wid_to_word.pickle", "word_to_wid.pickle", "aid_to_ans.pickle", "ans_to_aid.pickle",
             "best_model.pth.tar", "options.yaml"],
)  # fmt: skip
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    folder = write_folder(tmp_path / "f", noatt_options(), foreign_state(0))
    (folder / name).unlink()
    with pytest.raises(HvxError, match=re.escape(name)):
        import_vqa_pytorch(folder, BACKBONE)


def test_what_is_not_there_is_said_with_what_is(tmp_path: Path) -> None:
    with pytest.raises(HvxError, match="no such folder"):
        import_vqa_pytorch(tmp_path / "nowhere", BACKBONE)
    folder = write_folder(tmp_path / "f", noatt_options(), foreign_state(0))
    (folder / "best_model.pth.tar").rename(folder / "ckpt_model.pth.tar")
    with pytest.raises(HvxError, match=r"no best_model\.pth\.tar; it has ckpt_model\.pth\.tar"):
        import_vqa_pytorch(folder, BACKBONE)
    for which in ("../x", "epoch,", "epoch,7/../../x", "epoch,1234567"):
        with pytest.raises(HvxError, match=rf"'best', 'ckpt' or 'epoch,N', not {re.escape(shown(which))}"):
            import_vqa_pytorch(folder, BACKBONE, which=which)


def test_the_checkpoint_of_an_epoch_can_be_asked_for(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "f", noatt_options(), foreign_state(0))
    (folder / "best_model.pth.tar").rename(folder / "ckpt_epoch,12_model.pth.tar")
    model = import_vqa_pytorch(folder, BACKBONE, which="epoch,12")
    assert model.training["checkpoint"] == "ckpt_epoch,12_model.pth.tar"
    (folder / "ckpt_epoch,9_model.pth.tar").write_bytes(b"")
    (folder / "ckpt_epoch,x_model.pth.tar").write_bytes(b"")
    has = r"it has ckpt_epoch,9_model\.pth\.tar, ckpt_epoch,12_model\.pth\.tar: ask for 'epoch,9'"
    with pytest.raises(HvxError, match=rf"no ckpt_epoch,3_model\.pth\.tar; {has}"):
        import_vqa_pytorch(folder, BACKBONE, which="epoch,3")


def test_a_state_dict_of_another_network_is_refused(tmp_path: Path) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"extra.weight": torch.ones(2)}, r"unexpected tensor 'extra\.weight'"),
        ({"linear_classif.bias": None}, r"tensor 'linear_classif\.bias' is missing"),
        ({"linear_classif.bias": torch.full((4,), torch.nan)}, "not finite"),
        ({"linear_classif.bias": torch.ones(4, dtype=torch.long)}, "plain tensor of real numbers"),
        ({"linear_classif.weight": torch.ones(1).expand(4, 2**40)}, "more numbers than the file holds"),
        ({"seq2vec.embedding.weight": torch.ones(12, 5)}, r"with 12 where the vocabulary .* says 7"),
        ({"linear_classif.weight": torch.ones(5, 7), "linear_classif.bias": torch.ones(5)},
         r"with 5 where the vocabulary of answers says 4"),
        ({"fusion.linear_v.weight": torch.ones(7)}, r"'fusion\.linear_v\.weight' has shape \(7,\)"),
        ({"fusion.linear_v.weight": torch.ones(7, 128, 3, 3)}, r"shape \(7, 128, 3, 3\)"),
    ]  # fmt: skip
    for changes, message in cases:
        state = {k: v for k, v in (foreign_state(0) | changes).items() if v is not None}
        with pytest.raises(HvxError, match=message):
            import_vqa_pytorch(write_folder(tmp_path / "f", noatt_options(), state), BACKBONE)


def test_a_state_dict_may_lie_under_a_key(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "f", noatt_options(), foreign_state(0))
    plain = import_vqa_pytorch(folder, BACKBONE)
    torch.save({"epoch": 3, "state_dict": foreign_state(0)}, folder / "best_model.pth.tar")
    nested = import_vqa_pytorch(folder, BACKBONE)
    for name, tensor in plain.head.state_dict().items():
        assert torch.equal(tensor, nested.head.state_dict()[name]), name


def test_a_checkpoint_with_code_or_without_tensors_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "f", noatt_options(), foreign_state(0))
    for held in ({"epoch": 3}, {"model": {}}, nn.Linear(2, 2), {"a": Harm(tmp_path)}):
        torch.save(held, folder / "best_model.pth.tar")
        with pytest.raises(HvxError, match=r"best_model\.pth\.tar: "):
            import_vqa_pytorch(folder, BACKBONE)
    assert not (tmp_path / "harmed").exists()


def test_a_backbone_of_other_features_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "f", noatt_options(), foreign_state(0))
    with pytest.raises(HvxError, match=r"best_model\.pth\.tar: the head reads features of 128 channels"):
        import_vqa_pytorch(folder, BACKBONE.model_copy(update={"node": "layer3"}))


@pytest.mark.parametrize(
    ("name", "held", "message"),
    [
        ("wid_to_word", dict(enumerate(WORDS)), r"numbers from 1 on; 6 is none"),
        ("wid_to_word", {1: "a", 3: "b"}, r"numbers from 1 on; 2 is none"),
        ("wid_to_word", {1: "a", 2: "a"}, "the same text twice"),
        ("wid_to_word", {1: 5}, "1 is no text, but 5"),
        ("wid_to_word", {1: "\ud800"}, "1 is no text"),
        ("wid_to_word", {}, "is empty"),
        ("wid_to_word", list(WORDS), "a pickle of a list"),
        ("word_to_wid", {w: i for i, w in enumerate(WORDS)}, r"not the inverse of wid_to_word\.pickle"),
        ("aid_to_ans", dict(enumerate(ANSWERS, 1)), "numbers from 0 on; 0 is none"),
        ("ans_to_aid", {"yes": 0}, r"not the inverse of aid_to_ans\.pickle"),
    ],
)
def test_vocabularies_that_do_not_fit_are_refused(tmp_path: Path, name: str, held: Any, message: str) -> None:
    folder = write_folder(tmp_path / "f", noatt_options(), foreign_state(0))
    (folder / f"{name}.pickle").write_bytes(pickle.dumps(held))
    with pytest.raises(HvxError, match=message):
        import_vqa_pytorch(folder, BACKBONE)


def test_mutated_folders_are_imported_or_refused(tmp_path: Path) -> None:
    chance = random.Random(2)
    folder = write_folder(tmp_path / "f", noatt_options(), foreign_state(0))
    whole = {path: path.read_bytes() for path in sorted(folder.iterdir())}
    refused = whole_lines = 0
    for turn in range(150):
        path = list(whole)[turn % len(whole)]
        path.write_bytes(mutated(whole[path], chance))
        try:
            import_vqa_pytorch(folder, BACKBONE)
        except HvxError as error:
            refused += 1
            whole_lines += "\n" not in str(error)
        path.write_bytes(whole[path])
    assert refused == whole_lines > 50
