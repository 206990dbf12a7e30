"""The seam to the extension: error codes, arguments, the log."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest

from olm.errors import ContextTooLong, NativeError, NotSupported
from olm.native import lib as native
from olm.native.handles import Model, devices
from olm.native.lib import ERRORS, check, ffi, lib, new_pointer, take_text

pytestmark = pytest.mark.native


def test_every_error_code_has_its_own_exception() -> None:
    names = [ffi.string(lib.olm_error_name(code)).decode() for code in range(lib.olm_error_count())]

    assert names[0] == "OK"
    assert set(names[1:]) == set(ERRORS)
    assert len(set(ERRORS.values())) == len(ERRORS)


def test_a_code_becomes_its_exception_with_its_name() -> None:
    code = list(ERRORS).index("PROMPT_TOO_LONG") + 1

    error = native.native_error(code, "too long")

    assert isinstance(error, native.PromptTooLong)
    assert isinstance(error, ContextTooLong)
    assert isinstance(error, NativeError)
    assert (error.details["code"], error.http_status) == ("PROMPT_TOO_LONG", 400)


@pytest.mark.parametrize("code", [-1, 10_000])
def test_an_unknown_code_is_an_internal_failure(code: int) -> None:
    assert isinstance(native.native_error(code, ""), native.InternalFailure)


def test_not_supported_is_a_request_error() -> None:
    assert issubclass(native.Unsupported, NotSupported)


def test_without_the_extension_the_import_says_what_to_do() -> None:
    script = (
        "import sys\n"
        "sys.modules['olm.native._olm'] = None\n"
        "from olm.errors import NativeError\n"
        "try:\n"
        "    import olm.native.lib\n"
        "except NativeError as exc:\n"
        "    print(exc)\n"
    )

    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )

    assert "not built" in result.stdout
    assert "build_native.py" in result.stdout


def test_before_olm_init_loading_is_refused() -> None:
    script = (
        "from olm.native.handles import Model\n"
        "from olm.native.lib import NotInitialized\n"
        "try:\n"
        "    Model.load('/nowhere.gguf')\n"
        "except NotInitialized as exc:\n"
        "    print('refused')\n"
    )

    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )

    assert result.stdout == "refused\n"


@pytest.mark.parametrize(
    "json", [b"{", b"[]", b"nonsense", b'{"cpu": 5}', b'{"cpu": "relative.so"}']
)
def test_bad_json_for_init_is_an_invalid_argument(backend: object, json: bytes) -> None:
    with pytest.raises(native.InvalidArgument):
        native.initialize(json)


def test_a_backend_that_is_none_is_refused(backend: object) -> None:
    with pytest.raises(native.BackendFailed, match="libnone"):
        native.initialize(b'{"backends": ["/nowhere/libnone.so"]}')


def test_null_pointers_are_refused(tiny: Model) -> None:
    with pytest.raises(native.InvalidArgument):
        check(lib.olm_engine_cancel(ffi.NULL, 1))
    with pytest.raises(native.InvalidArgument):
        check(lib.olm_engine_new(ffi.NULL, b"{}", new_pointer("olm_engine **")))
    with pytest.raises(native.InvalidArgument):
        check(lib.olm_model_info_json(tiny.pointer, ffi.NULL))


def test_the_cpu_is_among_the_devices(backend: object) -> None:
    assert "cpu" in {device.type for device in devices()}


def test_the_log_keeps_what_llama_cpp_complained_about(backend: object) -> None:
    with pytest.raises(native.ModelLoadFailed):
        Model.load(__file__)

    lines = msgspec.json.decode(take_text(lib.olm_log_json), type=list[dict[str, str]])

    assert any(line["level"] == "error" and "gguf" in line["text"] for line in lines)
    assert all("\n" not in line["text"] for line in lines)
