"""Every environment variable of olm, once: name, default, meaning, and the settings read from them.

`OLM_X` wins over `OLLAMA_X`; values are trimmed of spaces and quotes; a boolean that does not parse is true (as in
Ollama's envconfig, commit fb30760). The table is the source of `olm serve --help` and of docs/configuration.md.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import urlsplit

import attrs

from olm.errors import InvalidRequest
from olm.units import FOREVER, parse_bytes, parse_duration

__all__ = ["VARIABLES", "Address", "Settings", "Variable", "parse_host", "read_settings"]

T = TypeVar("T")


@attrs.frozen
class Variable:
    """One environment variable.

    Attributes:
        name: without the `OLM_` or `OLLAMA_` prefix.
        default: as help shows it.
        help: one line.
        ollama: whether `OLLAMA_<name>` is honoured too.
    """

    name: str
    default: str
    help: str
    ollama: bool = True


VARIABLES: Final = (
    Variable(
        "HOST",
        "127.0.0.1:11434",
        "address to listen on and to connect to: host, host:port, :port, unix:/path",
    ),
    Variable("HOME", "~/.olm", "folder for keys, history and, by default, models", ollama=False),
    Variable("MODELS", "~/.olm/models", "the model store; an Ollama store can be named here"),
    Variable(
        "KEEP_ALIVE",
        "5m",
        "how long an idle model stays loaded: duration or seconds, negative for ever",
    ),
    Variable(
        "LOAD_TIMEOUT", "5m", "give up a load that makes no progress for this long; 0 for never"
    ),
    Variable(
        "MAX_LOADED_MODELS", "3", "models loaded at once (0: three for each GPU, three on a CPU)"
    ),
    Variable("MAX_QUEUE", "512", "requests waiting for a model or a slot before 503 is answered"),
    Variable(
        "MAX_QUEUE_PER_MODEL",
        "0",
        "requests waiting for one model before 503 is answered; 0: MAX_QUEUE alone bounds them",
        ollama=False,
    ),
    Variable(
        "MAX_QUEUE_PER_CLIENT",
        "0",
        "requests of one client (API key or address) that may wait; 0: as many as MAX_QUEUE while nobody else comes",
        ollama=False,
    ),
    Variable(
        "SLOW_READER",
        "60s",
        "a stream that nobody reads for so long lends its place at the model to others; 0 for never",
        ollama=False,
    ),
    Variable(
        "READER_TIMEOUT",
        "10m",
        "a stream that nobody reads for so much longer is ended; 0 for never",
        ollama=False,
    ),
    Variable("NUM_PARALLEL", "4", "requests one model works on at once (fewer if memory says so)"),
    Variable(
        "CONTEXT_LENGTH", "4096", "default num_ctx, bounded by what the model was trained for"
    ),
    Variable("KV_CACHE_TYPE", "f16", "type of the KV cache: f16, q8_0, q4_0, …"),
    Variable("FLASH_ATTENTION", "auto", "flash attention: 1, 0 or unset"),
    Variable(
        "GO_TEMPLATE",
        "",
        "1: use Go templates wherever a model has one; 0: the model's own; unset: whichever can do more",
    ),
    Variable("ORIGINS", "", "further allowed CORS origins, comma separated, * as a wildcard"),
    Variable("NOPRUNE", "0", "keep unreferenced blobs at start and when a model is replaced"),
    Variable("NOHISTORY", "0", "no history file for the REPL"),
    Variable("DEBUG", "0", "1 for debug logging, 2 for trace"),
    Variable(
        "DRAIN_TIMEOUT",
        "30s",
        "how long running streams may take to finish after SIGTERM",
        ollama=False,
    ),
    Variable("NUM_THREADS", "0", "compute threads of a model (0: physical cores)", ollama=False),
    Variable("CPU_VARIANT", "", "force one CPU build of the engine, e.g. haswell", ollama=False),
    Variable(
        "SPARE_WORKER",
        "1",
        "keep one started worker in reserve, so that a load does not wait for Python",
        ollama=False,
    ),
    Variable(
        "API_KEYS",
        "~/.olm/keys.json",
        "file with the hashes of API keys; `olm keys` writes it",
        ollama=False,
    ),
    Variable("API_KEY", "", "the key that commands send to the server", ollama=False),
    Variable("REQUIRE_KEYS", "0", "ask clients on this machine for a key too", ollama=False),
    Variable(
        "ALLOW_OPEN",
        "0",
        "without keys, let clients elsewhere pull, push, create, copy and delete models",
        ollama=False,
    ),
    Variable("TLS_CERT", "", "certificate chain to serve https with, PEM", ollama=False),
    Variable(
        "TLS_KEY", "", "private key of the certificate, PEM, without a password", ollama=False
    ),
    Variable(
        "TLS_CA", "", "certificates that commands trust, PEM, instead of the system's", ollama=False
    ),
    Variable("SOCKET_MODE", "0600", "permissions of a unix socket, octal", ollama=False),
    Variable(
        "MAX_CONNECTIONS",
        "8192",
        "connections at once, at most what the limit of open files has room for; then 503",
        ollama=False,
    ),
    Variable(
        "MAX_CONNECTIONS_PER_CLIENT",
        "512",
        "connections at once of one address elsewhere (IPv6: of one /64); then 503",
        ollama=False,
    ),
    Variable("EXPORT_WORKERS", "4", "threads that copy or compress for one export, 1 to 16"),
    Variable(
        "TRANSFER_RATE",
        "0",
        "the most bytes a second for all pulls and pushes together, such as 10MB; 0: no limit",
        ollama=False,
    ),
    Variable("EDITOR", "", "editor for Ctrl-g in the REPL"),
)

DEFAULT_PORT: Final = 11434


@attrs.frozen
class Address:
    """Where the daemon listens: a TCP host and port, or a unix socket path."""

    host: str
    port: int
    unix_path: str | None = None
    scheme: str = "http"

    @property
    def url(self) -> str:
        """The base URL a TCP client uses; an unspecified address becomes loopback."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(self.host, self.host)
        return f"{self.scheme}://{f'[{host}]' if ':' in host else host}:{self.port}"


@attrs.frozen
class Settings:
    """The settings of one daemon, read once at start. Durations are seconds.

    Attributes:
        api_keys: the file of keys, which need not exist; None for none at all.
    """

    address: Address
    home: Path
    models: Path
    keep_alive_s: float = 300.0
    load_timeout_s: float = 300.0
    max_loaded_models: int = 3
    max_queue: int = 512
    max_queue_per_model: int = 0
    max_queue_per_client: int = 0
    slow_reader_s: float = 60.0
    reader_timeout_s: float = 600.0
    num_parallel: int = 4
    context_length: int = 4096
    kv_cache_type: str = "f16"
    flash_attention: bool | None = None
    go_template: bool | None = None
    origins: tuple[str, ...] = ()
    noprune: bool = False
    nohistory: bool = False
    debug: int = 0
    drain_timeout_s: float = 30.0
    num_threads: int = 0
    cpu_variant: str = ""
    spare_worker: bool = True
    api_keys: Path | None = None
    require_keys: bool = False
    allow_open: bool = False
    tls_cert: Path | None = None
    tls_key: Path | None = None
    socket_mode: int = 0o600
    max_connections: int = 8192
    max_connections_per_client: int = 512
    export_workers: int = 4
    transfer_rate: int = 0
    editor: str = ""


class _Env:
    """Typed look-ups; a bad value names its variable."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._known = {variable.name: variable for variable in VARIABLES}

    def text(self, name: str) -> str:
        """The trimmed value of OLM_<name>, else OLLAMA_<name>, else the empty string."""
        prefixes = ("OLM_", "OLLAMA_") if self._known[name].ollama else ("OLM_",)
        for prefix in prefixes:
            value = self._environ.get(prefix + name, "").strip().strip("\"'").strip()
            if value:
                return value
        return ""

    def path(self, name: str) -> Path | None:
        """The value as a path, `~` being the user's home; None when it is not set."""
        text = self.text(name)
        return Path(text).expanduser() if text else None

    def parsed(self, name: str, parse: Callable[[str], T], default: T) -> T:
        value = self.text(name)
        if not value:
            return default
        try:
            return parse(value)
        except (ValueError, InvalidRequest) as exc:
            raise InvalidRequest(
                f"environment variable OLM_{name}: cannot read {value!r}: {exc}"
            ) from exc


def _boolean(text: str) -> bool:
    return text.lower() not in ("0", "f", "false")


def _seconds(text: str) -> float:
    """A Go duration or bare seconds; negative is for ever."""
    seconds = float(text) if text.lstrip("+-").isdigit() else parse_duration(text)
    return FOREVER if seconds < 0 else seconds


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise ValueError("must not be negative")
    return number


def _workers(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 16:
        raise ValueError("must be 1 to 16")
    return number


def _mode(text: str) -> int:
    mode = int(text, 8)
    if not 0 <= mode <= 0o777:
        raise ValueError("must be permissions such as 0660")
    return mode


def parse_host(text: str) -> Address:
    """Read OLLAMA_HOST in all its forms (spec/ollama §4.1): `host`, `host:port`, `:port`, `scheme://…`, bare IPv6.

    An invalid port falls back to the default, as in Ollama.
    """
    if text.startswith("unix:"):
        return Address("localhost", 0, unix_path=text.removeprefix("unix:").removeprefix("//"))
    scheme, default_port = "http", DEFAULT_PORT
    if "://" in text:
        scheme = text.split("://", 1)[0].lower()
        default_port = {"http": 80, "https": 443}.get(scheme, DEFAULT_PORT)
        text = text.split("://", 1)[1]
    text = text.split("/", 1)[0]
    if text.count(":") > 1 and not text.startswith("["):
        return Address(text, default_port, scheme=scheme)
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port = text.rsplit(":", 1)[0].strip("[]"), None
    return Address(host or "127.0.0.1", default_port if port is None else port, scheme=scheme)


def read_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from an environment, by default this process's.

    Raises:
        InvalidRequest: a value that cannot be read, with the variable's name.
    """
    env = _Env(os.environ if environ is None else environ)
    home = env.path("HOME") or Path("~/.olm").expanduser()
    return Settings(
        address=parse_host(env.text("HOST"))
        if env.text("HOST")
        else Address("127.0.0.1", DEFAULT_PORT),
        home=home,
        models=env.path("MODELS") or home / "models",
        keep_alive_s=env.parsed("KEEP_ALIVE", _seconds, 300.0),
        load_timeout_s=env.parsed("LOAD_TIMEOUT", _seconds, 300.0) or FOREVER,
        max_loaded_models=env.parsed("MAX_LOADED_MODELS", _count, 3) or 3,
        max_queue=env.parsed("MAX_QUEUE", _count, 512),
        max_queue_per_model=env.parsed("MAX_QUEUE_PER_MODEL", _count, 0),
        max_queue_per_client=env.parsed("MAX_QUEUE_PER_CLIENT", _count, 0),
        slow_reader_s=env.parsed("SLOW_READER", _seconds, 60.0) or FOREVER,
        reader_timeout_s=env.parsed("READER_TIMEOUT", _seconds, 600.0) or FOREVER,
        num_parallel=env.parsed("NUM_PARALLEL", _count, 4) or 4,
        context_length=env.parsed("CONTEXT_LENGTH", _count, 4096) or 4096,
        kv_cache_type=env.text("KV_CACHE_TYPE").lower() or "f16",
        flash_attention=env.parsed("FLASH_ATTENTION", _boolean, None),
        go_template=env.parsed("GO_TEMPLATE", _boolean, None),
        origins=tuple(part.strip() for part in env.text("ORIGINS").split(",") if part.strip()),
        noprune=env.parsed("NOPRUNE", _boolean, False),
        nohistory=env.parsed("NOHISTORY", _boolean, False),
        debug=env.parsed(
            "DEBUG", lambda text: int(text) if text.isdigit() else int(_boolean(text)), 0
        ),
        drain_timeout_s=env.parsed("DRAIN_TIMEOUT", _seconds, 30.0),
        num_threads=env.parsed("NUM_THREADS", _count, 0),
        cpu_variant=env.text("CPU_VARIANT"),
        spare_worker=env.parsed("SPARE_WORKER", _boolean, True),
        api_keys=env.path("API_KEYS") or home / "keys.json",
        require_keys=env.parsed("REQUIRE_KEYS", _boolean, False),
        allow_open=env.parsed("ALLOW_OPEN", _boolean, False),
        tls_cert=env.path("TLS_CERT"),
        tls_key=env.path("TLS_KEY"),
        socket_mode=env.parsed("SOCKET_MODE", _mode, 0o600),
        max_connections=env.parsed("MAX_CONNECTIONS", _count, 8192) or 8192,
        max_connections_per_client=env.parsed("MAX_CONNECTIONS_PER_CLIENT", _count, 512) or 512,
        export_workers=env.parsed("EXPORT_WORKERS", _workers, 4),
        transfer_rate=env.parsed("TRANSFER_RATE", parse_bytes, 0),
        editor=env.text("EDITOR"),
    )
