"""What a server allows, and to whom."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from kringle.errors import UserError

LOCAL_NAMES = ("localhost", "localhost.localdomain", "ip6-localhost")


@dataclass(frozen=True)
class Settings:
    """Limits and access of one server; sizes in bytes, times in seconds.

    `keys`: who does not send one of them is refused; none means that nobody is asked. `hosts` are names under which
    the server may be reached besides `localhost` and plain addresses; `origins` are pages that may call it besides its
    own. A request may ask for more new tokens than `most_new_tokens` or its context allow and gets as many as they do.
    """

    keys: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    most_body: int = 2_000_000
    body_seconds: float = 20.0  # in which a request's body must have come
    send_seconds: float = 20.0  # in which a client must take what is sent
    most_samples: int = 16  # of one request, all its prompts together
    most_new_tokens: int = 1024
    new_tokens: int = 128  # where a request does not say, and its dialect has no default
    deadline: float = 60.0  # of a request, waiting for a row included
    heal: bool = True  # move the cursor back to a token border

    def knows_host(self, header: str) -> bool:
        """Whether a `Host` header may be this server's. An address is always: a page whose name was made to lead here
        (DNS rebinding) sends that name."""
        name = host_name(header)
        if name is None:
            return False
        if name in LOCAL_NAMES or name in self.hosts:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def host_name(header: str) -> str | None:
    """The name or address in a `Host` header, without port and brackets, in lower case; None where it is none."""
    text = header.strip().lower()
    if text.startswith("["):
        name, bracket, port = text[1:].partition("]")
        if not bracket or (port and not port.startswith(":")):
            return None
        port = port[1:]
    else:
        name, _, port = text.partition(":")
    if not name or (port and not port.isdigit()):
        return None
    return name.rstrip(".") or None


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens on `host`."""
    if host in LOCAL_NAMES:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_keys(file: Path | None, variable: str) -> tuple[str, ...]:
    """The keys of a file, one a line, and of the environment. UserError for a file that cannot be read or holds none,
    or a key that no header can carry."""
    keys = [variable.strip()] if variable.strip() else []
    if file is not None:
        try:
            lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"cannot be read ({error})", where=f"--api-key-file {file}") from None
        found = [line for line in lines if line and not line.startswith("#")]
        if not found:
            raise UserError("holds no key", where=f"--api-key-file {file}", hint="write one a line")
        keys += found
    if any(not key.isascii() or not key.isprintable() or " " in key for key in keys):
        raise UserError(
            "a key has characters that a header cannot carry", where="API keys", hint="use letters and digits"
        )
    return tuple(dict.fromkeys(keys))


def check_access(host: str, keys: tuple[str, ...], *, no_key: bool) -> None:
    """UserError for a server that everybody on the network could use without being asked to."""
    if not is_loopback(host) and not keys and not no_key:
        raise UserError(
            f"other machines could use a server on {host}, and no key is set",
            where="--host",
            hint="give --api-key-file FILE or KRINGLE_API_KEY, or --no-key to let everybody in",
        )
