"""An encoding: how a publication becomes the bytes of one dialect on one transport, made once and shared."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dualcast.model.publication import Entry


class Encoding:
    """`encode` (dialect) makes the text, `wrap` (transport) frames it. Instances are singletons, compared by
    identity.

    b"" or () is no text: the publication is not of that dialect. Nothing is written then, and nothing counted
    as delivered; the session's position moves on. Several texts are several messages, written together.
    """

    __slots__ = ("conflates", "encode", "encode_recovered", "name", "transport", "wrap")

    def __init__(
        self,
        name: str,
        transport: str,
        encode: Callable[[Entry], bytes | Sequence[bytes]],
        wrap: Callable[[bytes], bytes],
        *,
        conflates: bool,
        encode_recovered: Callable[[Entry], bytes] | None = None,
    ) -> None:
        self.name = name
        self.transport = transport
        """`sse` or `ws`: the metric label."""
        self.encode = encode
        self.wrap = wrap
        self.conflates = conflates
        """Whether sessions of this encoding may get only the latest of a conflation key while behind."""
        self.encode_recovered = encode_recovered

    def frame(self, entry: Entry) -> bytes:
        """The wire bytes of `entry`, encoded at its first use and the same object ever after; b"": it is not
        written."""
        found = entry.frames.get(self)
        if found is None:
            found = entry.frames[self] = self.frames(self.encode(entry))
        return found

    def frames(self, texts: bytes | Sequence[bytes]) -> bytes:
        """The wire bytes of one text or of several."""
        if isinstance(texts, bytes):
            return self.wrap(texts) if texts else b""
        return b"".join([self.wrap(text) for text in texts if text])

    def __repr__(self) -> str:
        return f"Encoding({self.name})"
