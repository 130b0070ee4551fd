"""An encoding: how a publication becomes the bytes of one dialect on one transport, made once and shared."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dualcast.model.publication import Entry, Publication


class Encoding:
    """`encode` (dialect) makes the text, `wrap` (transport) frames it. Instances are singletons, compared by
    identity.

    b"" or () is no text: the publication is not of that dialect. Nothing is written then, and nothing counted
    as delivered; the session's position moves on. Several texts are several messages, written together.
    """

    __slots__ = (
        "_latest",
        "_latest_frame",
        "conflates",
        "encode",
        "encode_recovered",
        "everywhere",
        "name",
        "transport",
        "wrap",
    )

    def __init__(
        self,
        name: str,
        transport: str,
        encode: Callable[[Entry], bytes | Sequence[bytes]],
        wrap: Callable[[bytes], bytes],
        *,
        conflates: bool,
        everywhere: bool = False,
        encode_recovered: Callable[[Entry], bytes] | None = None,
    ) -> None:
        self.name = name
        self.transport = transport
        """`sse` or `ws`: the metric label."""
        self.encode = encode
        self.wrap = wrap
        self.conflates = conflates
        """Whether sessions of this encoding may get only the latest of a conflation key while behind."""
        self.everywhere = everywhere
        """Whether the bytes are the same on every channel. A publication to many channels is encoded once
        then: its entries come one after the other, so the last one's bytes are all there is to keep."""
        self.encode_recovered = encode_recovered
        self._latest: Publication | None = None
        self._latest_frame = b""

    def frame(self, entry: Entry) -> bytes:
        """The wire bytes of `entry`, encoded at its first use and the same object ever after; b"": it is not
        written."""
        found = entry.frames.get(self)
        if found is None:
            publication = entry.publication
            if self.everywhere and publication is self._latest:
                found = self._latest_frame
            else:
                found = self.frames(self.encode(entry))
                if self.everywhere:
                    self._latest, self._latest_frame = publication, found
            entry.frames[self] = found
        return found

    def frames(self, texts: bytes | Sequence[bytes]) -> bytes:
        """The wire bytes of one text or of several."""
        if isinstance(texts, bytes):
            return self.wrap(texts) if texts else b""
        return b"".join([self.wrap(text) for text in texts if text])

    def __repr__(self) -> str:
        return f"Encoding({self.name})"
