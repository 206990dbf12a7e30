"""The built-in model `tiny` as files, read through `importlib.resources.files("olm.data.tiny")`.

`model.json` names the model, the fields of its config blob, and its layers in manifest order, each with file name,
media type, digest and size. All files are written by `models/tiny/make_gguf.py`; installing them into
a store is the business of `olm.store`.
"""

__all__: list[str] = []
