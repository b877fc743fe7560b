"""What goes into a journal, what comes out, and the hash that binds it."""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, NamedTuple

NO_HASH = bytes(32)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# previous hash, version, time in µs, then the byte lengths of stream, type, subject and data
pack_prefix = struct.Struct(">32sqqIIII").pack


class NewEvent(NamedTuple):
    """A fact to append: its type, what it is about, and a JSON object in UTF-8."""

    type: str
    subject: str
    data: bytes | str = b"{}"


class RecordedEvent(NamedTuple):
    """A fact as it stands in the journal.

    ``position`` counts all events of the file from 1, ``version`` those of the stream from 1,
    ``at`` is in microseconds since 1970 UTC, ``data`` is the JSON text in UTF-8.
    """

    position: int
    stream: str
    version: int
    subject: str
    type: str
    at: int
    data: bytes
    hash: bytes

    @property
    def time(self) -> datetime:
        """Return ``at`` as an aware datetime in UTC."""
        return EPOCH + timedelta(microseconds=self.at)

    def json(self) -> dict[str, Any]:
        """Return the data as a dictionary.

        Raises:
            ValueError: The appender did not write valid JSON.
        """
        from json import loads  # readers with a decoder of their own never pay for it

        decoded: dict[str, Any] = loads(self.data)
        return decoded


class Head(NamedTuple):
    """The end of a stream: version 0, position 0 and 32 zero bytes if it has no events."""

    version: int
    position: int
    hash: bytes


def event_hash(event: RecordedEvent, previous: bytes) -> bytes:
    """Return the 32 bytes that an event must carry if ``previous`` is the hash before it in its stream.

    SHA-256 over the previous hash, the version and the time as signed 64-bit big-endian numbers, the
    lengths in bytes of stream, type, subject and data as unsigned 32-bit big-endian numbers, and then these
    four texts in UTF-8. The lengths make the encoding unambiguous.
    """
    stream, kind, subject = event.stream.encode(), event.type.encode(), event.subject.encode()
    data = event.data
    prefix = pack_prefix(previous, event.version, event.at, len(stream), len(kind), len(subject), len(data))
    return sha256(b"".join((prefix, stream, kind, subject, data))).digest()
