"""The oracle's own process: tiny checkpoints by Transformers' config classes, converted by llama.cpp's converter.

Runs in an environment with torch, transformers and sentencepiece, never in the tests' one: `oracle.py` starts it. Reads a JSON list
of cases from standard input and writes one JSON answer for each into a folder.
"""

from __future__ import annotations

import json
import logging
import shutil
import struct
import sys
import tempfile
import traceback
from pathlib import Path

TREE, TOKENIZERS, OUT = (Path(text) for text in sys.argv[1:4])
sys.path[:0] = [str(TREE), str(TREE / "gguf-py"), str(Path(__file__).parent)]

import gguf  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from conversion import get_model_class  # noqa: E402
from conversion.base import ModelBase, ModelType, TextModel, get_model_architecture  # noqa: E402
from oracle_weights import TOKENS, digest, write_folder  # noqa: E402

FILE_TYPES = {"F32": "ALL_F32", "F16": "MOSTLY_F16", "BF16": "MOSTLY_BF16"}
KEPT = ("architecture", "type", "file_type", "quantization_version")


def tensors_of_transformers(case: dict, folder: Path) -> dict:
    """Let Transformers save the model once, for its names, shapes and config."""
    cls = getattr(transformers, case["model_class"] or case["hf_name"])
    # As from a file: nested settings become config objects.
    config = cls.config_class.from_dict(case["config"])
    config.architectures = [case["hf_name"]]
    with torch.device("meta"):
        model = cls(config)
    model = model.to_empty(device="cpu").to(torch.float32)
    model.tie_weights()
    model.tie_weights()
    model.save_pretrained(folder)
    raw = (folder / "model.safetensors").read_bytes()
    head = json.loads(raw[8 : 8 + struct.unpack("<Q", raw[:8])[0]])
    return {k: [v["dtype"], *v["shape"]] for k, v in head.items() if k != "__metadata__"}


def made(case: dict, folder: Path) -> dict:
    """Write the checkpoint; what of it cannot be derived goes into the answer."""
    config, tensors = {**case["config"], "architectures": [case["hf_name"]]}, {}
    if case["tensors"] is None:
        tensors = tensors_of_transformers(case, folder)
        config = json.loads((folder / "config.json").read_text())
        config["architectures"] = [case["hf_name"]]
        shutil.rmtree(folder)
    config |= case["config_json"]
    for old, new in case["renames"].items():
        tensors = {k.replace(old, new): v for k, v in tensors.items()}
    for name, what in (case["tensors"] or case["more_tensors"]).items():
        tensors[name] = what if isinstance(what[0], str) else ["F32", *what]
    write_folder(folder, config, tensors, case["files"])
    if case["tokenizer"]:
        for path in (TOKENIZERS / case["tokenizer"]).iterdir():
            if path.name.startswith(("tokenizer", "special_tokens", "vocab", "merges", "added_")):
                shutil.copy(path, folder)
    return {"config": config, "tensors": tensors}


def without_vocab(cls: type) -> None:
    """Take the tokenizer out of a class and all made of it."""
    cls.set_vocab = lambda _self: None
    for child in cls.__subclasses__():
        without_vocab(child)


def converted(folder: Path, out: Path, type_name: str, *, is_projector: bool) -> gguf.GGUFReader:
    """Run llama.cpp's converter, without the tokenizer: that is another matter."""
    kind = ModelType.MMPROJ if is_projector else ModelType.TEXT
    hparams = ModelBase.load_hparams(folder, False)
    cls = get_model_class(get_model_architecture(hparams, kind), mmproj=is_projector)
    without_vocab(TextModel)
    for state in ("module_paths", "dense_features_dims"):  # kept by the class: of the file before
        getattr(cls, state, []).clear()
    with torch.inference_mode():
        model = cls(
            folder,
            gguf.LlamaFileType[FILE_TYPES[type_name]],
            out,
            model_name="tiny",
            sentence_transformers_dense_modules=True,
        )
        model.write()
    return gguf.GGUFReader(out)


def key_of(field: gguf.ReaderField) -> list:
    """[type, value] of a key-value pair."""
    kinds = [kind.name for kind in field.types]
    value = field.contents()
    return [":".join(kinds[:2]), value]


def is_kept(name: str) -> bool:
    """Keys to compare: not the file's, not the tokenizer's, and of the general ones those that decide something."""
    if name.startswith("general."):
        return name.removeprefix("general.") in KEPT
    return not name.startswith(("GGUF.", "tokenizer."))


def answer_of(folder: Path, *, is_projector: bool) -> dict:
    """Keys and tensors of all types."""
    keys: dict = {}
    tensors: dict = {}
    for type_name in FILE_TYPES:
        reader = converted(
            folder, folder.parent / f"{type_name}.gguf", type_name, is_projector=is_projector
        )
        found = {k: key_of(v) for k, v in reader.fields.items() if is_kept(k)}
        found.pop("general.file_type", None)
        keys = found
        for tensor in reader.tensors:
            tensors.setdefault(tensor.name, [[int(n) for n in reversed(tensor.shape)]]).append(
                digest(tensor.name, tensor.tensor_type.name, tensor.data.tobytes())
            )
    return {"keys": keys, "tensors": tensors}


def scores_of(case: dict, folder: Path) -> list[float]:
    """What Transformers says of a few tokens."""
    model = getattr(transformers, case["hf_name"]).from_pretrained(folder).eval()
    with torch.inference_mode():
        return model(torch.tensor([TOKENS])).logits[0].tolist()


load_hparams = ModelBase.load_hparams


def raw_hparams(folder: Path, is_mistral_format: bool = False) -> dict:
    """config.json as it is, where Transformers would change what llama.cpp's converter asks for."""
    return json.loads((folder / "config.json").read_text())


def main() -> None:
    """All cases of standard input."""
    logging.disable(logging.WARNING)
    n_failed = 0
    for case in json.load(sys.stdin):
        with tempfile.TemporaryDirectory() as temp:
            folder = Path(temp) / "tiny"
            try:
                ModelBase.load_hparams = staticmethod(
                    raw_hparams if case["config_json"] else load_hparams
                )
                answer = {"hf_name": case["hf_name"], **made(case, folder)}
                answer |= {key: case[key] for key in ("files", "tokenizer", "not_run")}
                if case["has_model"]:
                    answer["model"] = answer_of(folder, is_projector=False)
                if case["hf_name"].endswith("ForSequenceClassification"):
                    answer["scores"] = scores_of(case, folder)
                if case["has_projector"]:
                    answer["projector"] = answer_of(folder, is_projector=True)
            except Exception:
                n_failed += 1
                traceback.print_exc()
                print(f"{case['name']}: failed", flush=True)
                continue
        lines = [
            f"{json.dumps(k)}: {json.dumps(v, separators=(',', ':'))}" for k, v in answer.items()
        ]
        (OUT / f"{case['name']}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")
        print(f"{case['name']}: made", flush=True)
    sys.exit(1 if n_failed else 0)


if __name__ == "__main__":
    np.seterr(all="ignore")
    main()
