"""Fan-out: a batch of entries becomes one write per session, in offset order, with the bytes of each encoding
shared.

The hot path of the server: every line here runs once per delivery. `gate` makes one comparison answer "live,
and not written yet".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import itemgetter

from dualcast.model.publication import Entry, Publication
from dualcast.telemetry.counters import DeliveryCounters

from .encoding import Encoding
from .feed import ChannelFeed
from .subscriber import BEHIND, Subscriber

_NOBODY: set[Subscriber] = set()
MIN_DOMINANT = 64
"""Sessions a channel must have before its fan-out is worth separating from the rest of a batch."""
FRAMES_PER_WRITE = 16
"""So many frames put into a write take about as long as the write itself."""


def weight(run: Sequence[Entry]) -> int:
    """What writing `run` to one session takes, in writes of a few frames."""
    return 1 + len(run) // FRAMES_PER_WRITE


def session_counts(channels: dict[str, ChannelFeed], batch: Sequence[Entry]) -> dict[str, int]:
    """How many sessions each channel of `batch` has."""
    counts = {entry.channel: 0 for entry in batch}
    for name in counts:
        found = channels.get(name)
        counts[name] = len(found.sessions) if found is not None else 0
    return counts


def dominant(
    channels: dict[str, ChannelFeed], batch: Sequence[Entry], counts: dict[str, int]
) -> ChannelFeed | None:
    """The channel of `batch` that has nearly all of its sessions, if its entries are plain ones. `counts`:
    `session_counts`.
    """
    name = max(counts, key=counts.__getitem__)
    size = counts[name]
    if size < MIN_DOMINANT or (sum(counts.values()) - size) * 4 > size:
        return None
    for entry in batch:
        if entry.channel == name and (not entry.offset or entry.publication.audience is not None):
            return None
    return channels[name]


def fan_out_run(feed: ChannelFeed, run: Sequence[Entry], sessions: Iterable[Subscriber]) -> None:
    """Writes `run` (entries of one channel, offsets ascending, no audience) to those of `sessions` that are
    live.

    Sessions share the joined bytes. A session that has a part of the run already gets the rest only.
    """
    first, last = run[0].offset, run[-1].offset
    members = feed.sessions
    encoding: Encoding | None = None
    joined: dict[Encoding, tuple[bytes, int]] = {}
    data = b""
    sent = 0
    size = 0  # publications of the run that the encoding has a text for
    counters: DeliveryCounters | None = None
    broken: list[Subscriber] = []  # they leave after the loop: leaving changes what is iterated
    for session in sessions:
        if session.gate < first:
            if session.encoding is not encoding:
                if counters is not None:
                    _count(counters, run, size, sent, len(data))
                    sent = 0
                encoding, counters = session.encoding, session.counters
                found = joined.get(encoding)
                if found is None:
                    found = joined[encoding] = _joined(encoding, run)
                data, size = found
            session.gate = last
            if not data:
                continue
            sent += 1
            try:
                session.transport.write(data)
            except Exception:  # noqa: BLE001 — one broken connection must not end the others' fan-out
                broken.append(session)
        elif session.gate != BEHIND and session.gate < last and session in members:
            tail, some = _joined(session.encoding, [entry for entry in run if entry.offset > session.gate])
            session.gate = last
            if not tail:
                continue
            _count(session.counters, run, some, 1, len(tail))
            try:
                session.transport.write(tail)
            except Exception:  # noqa: BLE001 — as above
                broken.append(session)
    if counters is not None:
        _count(counters, run, size, sent, len(data))
    for session in broken:
        session.write_failed()


def fan_out_mixed(
    channels: dict[str, ChannelFeed],
    batch: Sequence[Entry],
    only: Sequence[Subscriber] | None = None,
    given: dict[int, set[Subscriber]] | None = None,
) -> None:
    """Writes a batch over several channels: one write per session, its frames merged in offset order.

    Equal merges are joined once. Ephemeral entries (offset 0) keep their place in the batch and move no gate.
    `only` restricts it to those sessions (a slice of a large channel); `given` remembers between slices who
    has had which ephemeral publication (by its object's id), since no gate does.
    """
    dirty: list[Subscriber] = []
    if given is None:
        given = {}
    for entry in batch:
        feed = channels.get(entry.channel)
        if feed is None or not feed.sessions:
            continue
        offset = entry.offset
        had = _NOBODY if offset else given.setdefault(id(entry.publication), set())
        audience = entry.publication.audience
        encoding: Encoding | None = None
        counters: DeliveryCounters | None = None
        frame = b""
        sent = 0
        for session in feed.sessions if only is None else only:
            gate = session.gate
            if offset:
                if gate >= offset:
                    continue
            elif gate == BEHIND:
                session.counters.ephemeral_skipped += 1
                continue
            elif session in had:
                continue  # by another of its channels
            else:
                had.add(session)
            if audience is not None and not session.due(audience):
                if offset:
                    session.gate = offset
                continue
            if session.encoding is not encoding:
                if counters is not None:
                    _count(counters, (entry,), 1, sent, len(frame))
                    sent = 0
                encoding, counters = session.encoding, session.counters
                frame = encoding.frame(entry)
            if offset:
                session.gate = offset
            if not frame:
                continue
            sent += 1
            out = session.out
            if out is None:
                session.out = frame
                dirty.append(session)
            elif type(out) is list:
                out.append(frame)
            else:
                session.out = [out, frame]  # type: ignore[list-item]
        if counters is not None:
            _count(counters, (entry,), 1, sent, len(frame))
    joins: dict[tuple[int, ...], bytes] = {}
    for session in dirty:
        out = session.out
        session.out = None
        if type(out) is list:
            # Frames are memoised on the entries of this batch, so their ids are stable while it is being
            # written.
            key = tuple(map(id, out))
            data = joins.get(key)
            if data is None:
                data = joins[key] = b"".join(out)
        else:
            data = out  # type: ignore[assignment]
        try:
            session.transport.write(data)
        except Exception:  # noqa: BLE001 — as above
            session.write_failed()


def fan_out_around(channels: dict[str, ChannelFeed], large: ChannelFeed, batch: Sequence[Entry]) -> None:
    """Like `fan_out_mixed` for a batch in which one channel has nearly all the sessions: those that get only
    its
    entries (no audience, not ephemeral) share one run; the few that get something else as well are merged one
    by one.
    """
    run: list[tuple[int, Entry]] = []
    few: dict[Subscriber, list[tuple[int, Entry]]] = {}
    for index, entry in enumerate(batch):
        if entry.channel == large.name:
            run.append((index, entry))
        elif (feed := channels.get(entry.channel)) is not None:
            for session in feed.sessions:
                few.setdefault(session, []).append((index, entry))
    members = large.sessions
    rest = [session for session in members if session not in few] if few else members
    fan_out_run(large, [entry for _, entry in run], rest)
    for session, own in few.items():
        due = sorted(own + run, key=_position) if session in members else own
        _write_merged(session, [entry for _, entry in due])


_position = itemgetter(0)


def _write_merged(session: Subscriber, entries: list[Entry]) -> None:
    """Writes to one session what it is due of `entries` (in batch order), as one write."""
    frames: list[bytes] = []
    sent: list[Entry] = []
    passing: Publication | None = None
    for entry in entries:
        gate, offset, audience = session.gate, entry.offset, entry.publication.audience
        if offset:
            if gate >= offset:
                continue
            session.gate = offset
        elif gate == BEHIND:
            session.counters.ephemeral_skipped += 1
            continue
        elif entry.publication is passing:
            continue  # by another of its channels
        else:
            passing = entry.publication
        if (audience is None or session.due(audience)) and (frame := session.encoding.frame(entry)):
            frames.append(frame)
            sent.append(entry)
    if not frames:
        return
    data = frames[0] if len(frames) == 1 else b"".join(frames)
    _count(session.counters, sent, len(sent), 1, len(data))
    try:
        session.transport.write(data)
    except Exception:  # noqa: BLE001 — as above
        session.write_failed()


def _joined(encoding: Encoding, run: Sequence[Entry]) -> tuple[bytes, int]:
    """The bytes of `run`, and how many of its publications have any."""
    if len(run) == 1:
        frame = encoding.frame(run[0])
        return frame, 1 if frame else 0
    frames = [frame for frame in map(encoding.frame, run) if frame]
    return b"".join(frames), len(frames)


def _count(
    counters: DeliveryCounters, run: Sequence[Entry], publications: int, sessions: int, size: int
) -> None:
    """`publications` of `run` were written to each of `sessions`, in `size` bytes."""
    if sessions:
        counters.delivered += sessions * publications
        counters.bytes += sessions * size
        counters.latency(run[-1].publication.time_ms, sessions * publications)
