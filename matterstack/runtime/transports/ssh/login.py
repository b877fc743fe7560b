"""Logging in: keys of the agent and of files, then questions to the person at the terminal."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

import paramiko
from msgspec import Struct

from matterstack.errors import AccessError, LoginRefused
from matterstack.runtime.transports.asking import Ask
from matterstack.runtime.transports.ssh.destination import Destination

Keyring = dict[str, paramiko.PKey]
"""Keys whose passphrase was typed, by file, so that a broken connection asks nobody again."""

_TRIES: Final = 3
_PERSON_S: Final = 300.0


class _NobodyHere(Exception):
    """The host asks a question, and there is no person to answer it."""


class _Key(Struct):
    """A key to offer; ``locked`` until its passphrase is known."""

    label: str
    key: paramiko.PKey | None = None
    path: str = ""


def login(transport: paramiko.Transport, destination: Destination, keyring: Keyring, ask: Ask | None) -> None:
    """Log in to a host whose key was checked.

    Raises:
        LoginRefused: All keys and answers were refused, or somebody has to answer and nobody is there.
        paramiko.SSHException: The connection broke.
    """
    attempt = _Login(transport, destination, keyring, ask)
    allowed = attempt.ask_methods()
    if "publickey" in allowed:
        allowed = attempt.offer_keys(allowed)
    for method, use in (("keyboard-interactive", attempt.answer_questions), ("password", attempt.type_password)):
        if transport.is_active() and not transport.is_authenticated() and method in allowed:
            allowed = use(allowed)
    if not transport.is_authenticated():
        raise attempt.refused(allowed)


class _Login:
    """One login. Each method returns how the host lets us go on."""

    def __init__(
        self, transport: paramiko.Transport, destination: Destination, keyring: Keyring, ask: Ask | None
    ) -> None:
        self._transport, self._destination, self._keyring, self._ask = transport, destination, keyring, ask
        self._tried: list[str] = []
        self._refusals = 0
        self._lacking: list[str] = []

    def ask_methods(self) -> list[str]:
        try:
            return self._transport.auth_none(self._destination.user)
        except paramiko.BadAuthenticationType as error:
            return error.allowed_types

    def offer_keys(self, allowed: list[str]) -> list[str]:
        agent = paramiko.Agent() if self._destination.config.agent else None
        try:
            for found in self._keys(agent.get_keys() if agent else ()):
                key = found.key or self._unlock(found.path)
                if key is None:
                    continue
                self._tried.append(found.label)
                rest = self._try(partial(self._transport.auth_publickey, self._destination.user, key))
                if rest is not None:
                    return rest
                if not self._transport.is_active():
                    break
        finally:
            if agent:
                agent.close()
        return [method for method in allowed if method != "publickey"]

    def answer_questions(self, allowed: list[str]) -> list[str]:
        def answer(title: str, text: str, questions: list[tuple[str, bool]]) -> list[str]:
            if questions and self._ask is None:
                raise _NobodyHere
            above = "".join(f"{line}\n" for line in (title, text) if line)
            return [self._ask(above + question, seen) for question, seen in questions if self._ask]

        try:
            return self._with_person(
                "answers", lambda: self._transport.auth_interactive(self._destination.user, answer), allowed
            )
        except _NobodyHere:
            self._lacking.append("it asks for a one-time password or the like, and nobody is here to answer")
            return []

    def type_password(self, allowed: list[str]) -> list[str]:
        ask, user = self._ask, self._destination.user
        if ask is None:
            return allowed
        question = f"Password of {self._destination.name}: "
        return self._with_person(
            "password", lambda: self._transport.auth_password(user, ask(question, False), fallback=False), allowed
        )

    def refused(self, allowed: list[str]) -> AccessError:
        tried = ", ".join(self._tried) or "nothing, for there was no usable key"
        problem = f"the login of user {self._destination.user!r} was refused (tried: {tried})"
        if self._lacking:
            problem += "; " + "; ".join(self._lacking)
        host = self._destination
        remedy = f"see that `ssh -p {host.port} {host.user}@{host.host}` logs in without a question, or log in by hand"
        if "gssapi-with-mic" in allowed or self._lacking:
            remedy += ", or share a connection that is open already with transport: openssh"
        return (LoginRefused if self._tried else AccessError)(host.name, problem, f"{remedy}.")

    def _keys(self, held: tuple[paramiko.AgentKey, ...]) -> Iterator[_Key]:
        """Yield the keys to offer: those of files, then the agent's others, then those that need a passphrase."""
        by_blob = {key.asbytes(): key for key in held}
        locked = []
        for path in self._destination.keys:
            blobs = (_public(f"{path}-cert"), _public(path))
            copies = [by_blob.pop(blob) for blob in blobs if blob in by_blob]
            yield from (_Key(f"{path} (by the agent)", key) for key in copies)
            if copies and not os.path.exists(f"{path}-cert.pub"):
                continue
            try:
                yield _Key(path, self._keyring.get(path) or load(path, None))
            except paramiko.PasswordRequiredException:
                locked.append(_Key(path, path=path))
            except (OSError, ValueError, paramiko.SSHException) as error:
                self._lacking.append(f"{path} cannot be read ({error})")
        if not self._destination.only_keys:
            yield from (_Key(f"agent's {key.get_name()} key {key.fingerprint}", key) for key in by_blob.values())
        yield from locked

    def _unlock(self, path: str) -> paramiko.PKey | None:
        if self._ask is None:
            self._lacking.append(f"{path} needs its passphrase and nobody is here to type it: `ssh-add {path}` first")
            return None
        for _ in range(_TRIES):
            phrase = self._ask(f"Passphrase for key {path}: ", False)
            if not phrase:
                break
            try:
                self._keyring[path] = load(path, phrase)
            except (ValueError, paramiko.SSHException):
                continue
            return self._keyring[path]
        self._lacking.append(f"{path} was not opened by what was typed")
        return None

    def _with_person(self, label: str, use: Callable[[], list[str]], allowed: list[str]) -> list[str]:
        """Let the person try a few times, with time to type."""
        self._transport.auth_timeout = _PERSON_S
        for tries in range(_TRIES):
            rest = self._try(use)
            if rest is not None:
                return rest
            self._tried += [label] * (tries == 0)
            if not self._transport.is_active() or self._ask is None:
                break
        return allowed

    def _try(self, use: Callable[[], list[str]]) -> list[str] | None:
        """Return how to go on after success, complete or not, or None where it was refused."""
        try:
            return use()
        except paramiko.BadAuthenticationType:
            return None
        except paramiko.AuthenticationException:
            # Cut off before any answer is not a refusal; cut off after some is how hosts end too many tries.
            if not self._transport.is_active() and not self._refusals:
                raise
            self._refusals += 1
            return None


def load(path: str, passphrase: str | None) -> paramiko.PKey:
    """Return the private key in a file, with its certificate where there is one beside it.

    Raises:
        paramiko.PasswordRequiredException: It needs a passphrase.
        paramiko.SSHException: It is no key that paramiko knows, or the passphrase is wrong.
    """
    for kind in (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey):
        try:
            key = kind.from_private_key_file(path, passphrase)
        except paramiko.PasswordRequiredException:
            raise
        except (ValueError, paramiko.SSHException) as error:
            problem = error
            continue
        if os.path.exists(certificate := f"{path}-cert.pub"):
            key.load_certificate(certificate)
        return key
    raise problem


def _public(path: str) -> bytes:
    """Return the public half of a key, from the file beside it, or nothing."""
    try:
        with open(f"{path}.pub", encoding="utf-8", errors="replace") as opened:
            return base64.b64decode(opened.read().split()[1])
    except (OSError, ValueError, IndexError):
        return b""
