"""Skip-thought files, built here from the format's definition, against a GRU written out here."""

from __future__ import annotations

import io
import json
import pickle
import random
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hostile import Harm, mutated
from safetensors.torch import save_file

from hvx.config import EncoderConfig
from hvx.data.tokenize import Vocabulary
from hvx.errors import HvxError
from hvx.importers.skipthoughts import (
    PretrainedEncoder,
    fill_encoder,
    import_skipthoughts,
    load_pretrained,
    save_pretrained,
)
from hvx.models.encoder import QuestionEncoder

EMBEDDING, HIDDEN = 5, 4
WORDS = ("<eos>", "UNK", "the", "cat", "café", "sat")


def foreign_arrays() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(2)
    shapes = {
        "encoder_W": (EMBEDDING, 2 * HIDDEN),
        "encoder_U": (HIDDEN, 2 * HIDDEN),
        "encoder_b": (2 * HIDDEN,),
        "encoder_Wx": (EMBEDDING, HIDDEN),
        "encoder_Ux": (HIDDEN, HIDDEN),
        "encoder_bx": (HIDDEN,),
        "decoder_b": (3,),
    }
    return {name: generator.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def foreign_table() -> np.ndarray:
    return np.random.default_rng(3).normal(size=(len(WORDS), EMBEDDING)).astype(np.float32)


def write_folder(folder: Path, **replaced: Any) -> Path:
    folder.mkdir(exist_ok=True)
    np.savez(folder / "uni_skip.npz", **(foreign_arrays() | replaced))
    np.save(folder / "utable.npy", foreign_table())
    (folder / "dictionary.txt").write_text("".join(f"{word}\n" for word in WORDS), encoding="utf-8")
    return folder


def new_encoder(words: int, embedding: int = EMBEDDING, hidden: int = HIDDEN) -> QuestionEncoder:
    torch.manual_seed(0)
    config = EncoderConfig(embedding=embedding, hidden=hidden, candidate="reset_after")
    return QuestionEncoder(config, words)


def reference_state(words: list[str]) -> np.ndarray:
    """The state after these words, in float64, from the foreign arrays themselves."""
    p = {name: array.astype(np.float64) for name, array in foreign_arrays().items()}
    table = foreign_table().astype(np.float64)
    h = np.zeros(HIDDEN)
    for word in words:
        x = table[WORDS.index(word if word in WORDS else "UNK")]
        gates = 1 / (1 + np.exp(-(x @ p["encoder_W"] + p["encoder_b"] + h @ p["encoder_U"])))
        r, z = gates[:HIDDEN], gates[HIDDEN:]
        candidate = np.tanh(x @ p["encoder_Wx"] + p["encoder_bx"] + r * (h @ p["encoder_Ux"]))
        h = z * h + (1 - z) * candidate
    return h


def assert_computes_the_same(start: PretrainedEncoder) -> None:
    vocabulary = Vocabulary(("sat", "zebra", "the", "UNK", "café"))
    encoder = new_encoder(len(vocabulary))
    assert fill_encoder(encoder, vocabulary, start) == 4
    assert not encoder.table.weight[0].any()
    for question in (["the", "zebra", "sat"], ["café"], ["café", "the", "the", "UNK"]):
        rows = torch.tensor([[*vocabulary.rows(question), 0, 0]])
        with torch.no_grad():
            state = encoder(encoder.embed(rows), torch.tensor([len(question)]))[0]
        np.testing.assert_allclose(state.numpy(), reference_state(question), atol=1e-6)


def test_an_encoder_so_started_computes_what_the_format_defines(tmp_path: Path) -> None:
    assert_computes_the_same(import_skipthoughts(write_folder(tmp_path / "st")))


def test_a_start_file_holds_the_same(tmp_path: Path) -> None:
    start = import_skipthoughts(write_folder(tmp_path / "st"))
    save_pretrained(tmp_path / "start.safetensors", start)
    loaded = load_pretrained(tmp_path / "start.safetensors")
    assert_computes_the_same(loaded)
    assert (loaded.words, loaded.embedding, loaded.hidden) == (WORDS, EMBEDDING, HIDDEN)
    assert torch.equal(loaded.table, torch.from_numpy(foreign_table()))


def python_2_npy(array: np.ndarray) -> bytes:
    """A ``.npy`` as Python 2 wrote it, with its long integers."""
    shape = "(" + "".join(f"{length}L, " for length in array.shape) + ")"
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}"
    header += " " * (-(len(header) + 11) % 16) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + array.tobytes()


def test_layouts_of_other_writers_are_read(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "st")
    (folder / "utable.npy").write_bytes(python_2_npy(foreign_table()))
    with zipfile.ZipFile(folder / "uni_skip.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in foreign_arrays().items():
            archive.writestr(f"{name}.npy", python_2_npy(array))
    assert_computes_the_same(import_skipthoughts(folder))
    other = {name: np.asfortranarray(array.astype(">f8")) for name, array in foreign_arrays().items()}
    np.savez_compressed(folder / "uni_skip.npz", **other)
    with (folder / "utable.npy").open("wb") as file:
        np.lib.format.write_array(file, np.asfortranarray(foreign_table()), version=(2, 0))
    (folder / "dictionary.txt").write_bytes("\r\n".join(WORDS).encode())
    assert_computes_the_same(import_skipthoughts(folder))


def test_of_a_word_that_occurs_twice_the_later_row_counts(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "st")
    (folder / "dictionary.txt").write_text("cat\nUNK\n\ncat\ncafé\nsat\n", encoding="utf-8")
    encoder = new_encoder(1)
    fill_encoder(encoder, Vocabulary(("cat",)), import_skipthoughts(folder))
    assert torch.equal(encoder.table.weight[1], torch.from_numpy(foreign_table())[3])


@pytest.mark.parametrize("name", ["uni_skip.npz", "utable.npy", "dictionary.txt"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    folder = write_folder(tmp_path / "st")
    (folder / name).unlink()
    with pytest.raises(HvxError, match=f"{name}: no such file"):
        import_skipthoughts(folder)


def test_a_missing_folder_or_start_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(HvxError, match="nowhere: no such folder"):
        import_skipthoughts(tmp_path / "nowhere")
    with pytest.raises(HvxError, match="nowhere: no such start file"):
        load_pretrained(tmp_path / "nowhere")


def objects(value: Any) -> np.ndarray:
    array = np.empty(3, object)
    array[:] = [value] * 3
    return array


def test_object_arrays_are_refused_and_not_opened(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "st", encoder_Wx=objects(Harm(tmp_path)))
    with pytest.raises(HvxError, match=r"uni_skip\.npz: encoder_Wx: an object array, .* stays unopened"):
        import_skipthoughts(folder)
    write_folder(folder)
    np.save(folder / "utable.npy", objects(Harm(tmp_path)), allow_pickle=True)
    with pytest.raises(HvxError, match=r"utable\.npy: an object array, .*numpy\.vstack"):
        import_skipthoughts(folder)
    (folder / "utable.npy").write_bytes(pickle.dumps(Harm(tmp_path)))
    with pytest.raises(HvxError, match=r"utable\.npy: not an array in numpy's format"):
        import_skipthoughts(folder)
    assert not (tmp_path / "harmed").exists()


def test_an_object_array_that_nothing_asks_for_is_let_be(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "st", history_errs=objects(Harm(tmp_path)))
    assert_computes_the_same(import_skipthoughts(folder))
    assert not (tmp_path / "harmed").exists()


def header_of(text: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not an array in numpy's format"),
        (header_of("{'descr': '<f4', 'fortran_order': False, 'shape': (400000000, 620)}") + b"\0" * 64,
         "claims 992,000,000,000 bytes of numbers; it holds 64"),
        (header_of("{'descr': '<f4', 'fortran_order': False, 'shape': (4, 4)}") + b"\0" * 65, "it holds 65"),
        (header_of("{'descr': '<f4', 'fortran_order': False, 'shape': (4,)}") + b"\0" * 16,
         r"expected words × embedding, not shape \(4,\)"),
        (header_of("{'descr': '<f4', 'fortran_order': False, 'shape': (0, 4)}"), r"of shape \(0, 4\)"),
        (header_of("{'descr': '<f4', 'fortran_order': False, 'shape': (-4, -4)}") + b"\0" * 64,
         "expected an array"),
        (header_of("{'descr': '<i8', 'fortran_order': False, 'shape': (4, 4)}") + b"\0" * 128, "not '<i8'"),
        (header_of("{'descr': [('a', '|O')], 'fortran_order': False, 'shape': (4, 4)}"), "expected an array"),
        (header_of("{'descr': '<f4', 'shape': (4, 4)}"), "its header is broken"),
        (header_of("__import__('os').system('true')"), "its header is broken"),
        (header_of("(" * 9000), "its header is broken"),
        (header_of("9" * 9000), "its header is broken"),
        (header_of("[1]"), "its header is broken"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff", "not an array in numpy's format"),
    ],
)  # fmt: skip
def test_tables_that_are_not_what_they_claim_are_refused(tmp_path: Path, data: bytes, message: str) -> None:
    folder = write_folder(tmp_path / "st")
    (folder / "utable.npy").write_bytes(data)
    with pytest.raises(HvxError, match=rf"utable\.npy: .*{message}"):
        import_skipthoughts(folder)


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"encoder_W": np.zeros((EMBEDDING, HIDDEN), "f4")}, r"encoder_W has shape \(5, 4\); .* be \(5, 8\)"),
        ({"encoder_Wx": np.zeros((6, HIDDEN), "f4")}, r"encoder_Wx .*embeddings of 5 it would be \(5, 4\)"),
        ({"encoder_Ux": np.zeros((HIDDEN, 3), "f4")}, r"encoder_Ux has shape \(4, 3\)"),
        ({"encoder_b": np.zeros((1, 2 * HIDDEN), "f4")}, r"encoder_b has shape \(1, 8\)"),
        ({"encoder_bx": np.full(HIDDEN, np.nan, "f4")}, "encoder_bx: not all of its numbers are finite"),
        ({"encoder_bx": np.full(HIDDEN, 1e300)}, "encoder_bx: not all of its numbers are finite"),
        ({"encoder_bx": np.zeros(HIDDEN, int)}, "encoder_bx: expected an array of floats, not '<i8'"),
        ({"encoder_bx": np.float32(1)}, r"encoder_bx: expected an array of floats, .*shape \(\)"),
    ],
)
def test_a_gru_of_other_shapes_is_refused(tmp_path: Path, replaced: dict[str, Any], message: str) -> None:
    with pytest.raises(HvxError, match=rf"uni_skip\.npz: {message}"):
        import_skipthoughts(write_folder(tmp_path / "st", **replaced))


def test_archives_that_are_not_what_they_claim_are_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "st")
    path = folder / "uni_skip.npz"
    np.savez(path, **{name: array for name, array in foreign_arrays().items() if name != "encoder_U"})
    with pytest.raises(HvxError, match=r"uni_skip\.npz: no array 'encoder_U'"):
        import_skipthoughts(folder)
    np.savez_compressed(path, **(foreign_arrays() | {"encoder_Ux": np.zeros((3000, 3000), "f4")}))
    with pytest.raises(HvxError, match=r"claims 36,000,\d+ bytes of weights in a file of"):
        import_skipthoughts(folder)
    path.write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(HvxError, match=r"uni_skip\.npz: not a whole \.npz archive"):
        import_skipthoughts(folder)


def test_a_member_that_unpacks_to_more_than_it_claims_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "st")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in foreign_arrays().items():
            npy = io.BytesIO()
            np.save(npy, array)
            more = b"\0" * 2**22 if name == "encoder_W" else b""
            archive.writestr(f"{name}.npy", npy.getvalue() + more)
    honest = (128 + 4 * foreign_arrays()["encoder_W"].size).to_bytes(4, "little")
    said = (int.from_bytes(honest, "little") + 2**22).to_bytes(4, "little")
    (folder / "uni_skip.npz").write_bytes(packed.getvalue().replace(said, honest))
    with pytest.raises(HvxError, match=r"uni_skip\.npz: not a whole \.npz archive: Bad CRC"):
        import_skipthoughts(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"UNK\nthe\n", "2 words, but a table of 6 rows"),
        (b"a\nb\nc\nd\ne\nf\n", "the word 'UNK', .*is missing"),
        (b"UNK\n\xff\n", r"dictionary\.txt: not text in UTF-8 \(byte 4\)"),
    ],
)
def test_a_dictionary_that_does_not_fit_is_refused(tmp_path: Path, text: bytes, message: str) -> None:
    folder = write_folder(tmp_path / "st")
    (folder / "dictionary.txt").write_bytes(text)
    with pytest.raises(HvxError, match=message):
        import_skipthoughts(folder)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"embedding": 6}, r"model\.encoder\.embedding: 6, but .*st has 5"),
        ({"hidden": 8}, r"model\.encoder\.hidden: 8, but .*st has 4"),
    ],
)
def test_an_encoder_of_other_sizes_is_refused_by_its_key(
    tmp_path: Path, sizes: dict[str, int], message: str
) -> None:
    start = import_skipthoughts(write_folder(tmp_path / "st"))
    with pytest.raises(HvxError, match=message):
        fill_encoder(new_encoder(1, **sizes), Vocabulary(("cat",)), start)


def test_rows_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "st")
    table = foreign_table()
    table[WORDS.index("cat"), 2] = np.inf
    np.save(folder / "utable.npy", table)
    start = import_skipthoughts(folder)
    fill_encoder(new_encoder(1), Vocabulary(("sat",)), start)
    with pytest.raises(HvxError, match="not all of its numbers are finite"):
        fill_encoder(new_encoder(1), Vocabulary(("cat",)), start)


def about(**changes: Any) -> dict[str, str]:
    told = {"format": 1, "embedding": EMBEDDING, "hidden": HIDDEN, "candidate": "reset_after",
            "words": list(WORDS)}  # fmt: skip
    return {"hvx_start": json.dumps(told | changes)}


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"hvx": "{}"}, "not a start file"),
        ({"hvx_start": "[]"}, "not a start file"),
        ({"hvx_start": "{"}, "not a readable start file"),
        (about(format=2), "start file of format 2"),
        (about(candidate="reset_before"), "'reset_before'; this hvx reads 1, 'reset_after'"),
        (about(words=[1] * 6), "must be a list of strings"),
        (about(words=["UNK"]), r"tensor 'table' has shape \(6, 5\); expected \(1, 5\)"),
        (about(hidden=5), r"tensor 'gru\.input\.weight' has shape"),
        (about(hidden="4"), "must be whole numbers"),
        (about(words=["a", "b", "c", "d", "e", "f"]), "the word 'UNK'"),
    ],
)
def test_start_files_that_are_none_are_refused(
    tmp_path: Path, metadata: dict[str, str], message: str
) -> None:
    start = import_skipthoughts(write_folder(tmp_path / "st"))
    path = tmp_path / "start.safetensors"
    tensors = {"table": start.table} | {f"gru.{name}": tensor for name, tensor in start.gru.items()}
    save_file(tensors, path, metadata=about())
    assert load_pretrained(path).words == WORDS
    save_file(tensors, path, metadata=metadata)
    with pytest.raises(HvxError, match=rf"start\.safetensors: .*{message}"):
        load_pretrained(path)


def test_mutated_files_are_imported_or_refused(tmp_path: Path) -> None:
    chance = random.Random(4)
    folder = write_folder(tmp_path / "st")
    save_pretrained(folder / "start.safetensors", import_skipthoughts(folder))
    whole = {path: path.read_bytes() for path in sorted(folder.iterdir())}
    outcomes, lines = [0, 0], 0
    for turn in range(2400):
        path = list(whole)[turn % len(whole)]
        path.write_bytes(mutated(whole[path], chance))
        try:
            start = load_pretrained(path) if path.suffix == ".safetensors" else import_skipthoughts(folder)
            fill_encoder(new_encoder(2), Vocabulary(("the", "dog")), start)
        except HvxError as error:
            outcomes[0] += 1
            lines += str(error).count("\n")
        else:
            outcomes[1] += 1
        path.write_bytes(whole[path])
    assert min(outcomes) > 100 and lines == 0
