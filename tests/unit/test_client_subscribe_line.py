"""The state machine that opens a subscription's line: what each close code, refusal and request leads to, and
what no sequence of them may lead to.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualcast.model.codes import Close, action
from dualcast_client.line import (
    CLOSE_REASONS,
    FAILURES,
    Answered,
    Apart,
    Asked,
    Delay,
    Ended,
    GivenUp,
    Happening,
    Joined,
    Line,
    Mode,
    Moved,
    Mute,
    Reconnects,
    Refused,
    Restart,
    Staged,
    Tick,
    Told,
    Unreached,
    Welcomed,
)
from dualcast_client.reconnect import begin, decide
from dualcast_client.wanted import wanted

RULES = Reconnects()


def line_of(mode: Mode = "auto", *, renewable: bool = True, cursor: str = "") -> Line:
    return begin(mode, cursor, renewable, RULES)


def after(line: Line, *happenings: Happening, now: float = 100.0, draw: float = 0.5) -> Line:
    for one in happenings:
        line = decide(line, one, now, draw)
    return line


def opening(mode: Mode = "auto", **more: Any) -> Line:
    return after(line_of(mode, **more), Tick())


def live(mode: Mode = "auto", **more: Any) -> Line:
    return after(opening(mode, **more), Welcomed("e-1"))


def step(line: Line) -> Line:
    """To the next attempt, when its time has come."""
    assert line.phase == "waiting"
    return decide(line, Tick(), line.due, 0.5)


def test_the_table_of_close_codes_is_that_of_the_server() -> None:
    assert {code.value: code.reason for code in Close} == CLOSE_REASONS


@pytest.mark.parametrize("code", list(Close))
def test_every_close_code_is_followed_as_the_table_of_the_server_says(code: Close) -> None:
    line = after(live("websocket", renewable=False), Ended(code, code.reason))
    expected = "stop" if code == Close.TOKEN_EXPIRED else action(code)  # there is no other token
    if expected == "stop":
        assert (line.phase, line.code) == ("stopped", code.reason)
    elif expected == "now":
        assert (line.phase, line.due) == ("waiting", 100.0)
    else:
        assert line.phase == "waiting" and line.due > 100.0


@pytest.mark.parametrize("code", [0, 1000, 1001, 1006, 1011, 3000, 4300, 4999])
def test_any_other_code_is_an_accident(code: int) -> None:
    line = after(live(), Ended(code))
    assert line.phase == "waiting" and 100 < line.due <= 101 and line.cursor == "e-1"


def test_the_delay_of_the_server_is_kept_to() -> None:
    line = after(live(), Told(4100, 7_000), Ended(4100, "drain"), draw=0.9)
    assert line.due == 107.0
    stream = after(live("sse"), Delay(3_000), Ended())
    assert stream.due == 103.0
    mad = after(live("sse"), Delay(10**15), Ended())
    assert mad.due == 100 + RULES.server_cap_s


def test_a_bye_counts_where_the_connection_ends_without_a_code() -> None:
    assert after(live("sse"), Told(4009, 60_000), Ended(0, "")).code == "replaced"
    assert after(live("sse"), Told(4200), Ended()).due == 100.0


def test_waits_grow_at_random_up_to_the_cap_and_begin_anew_after_a_good_line() -> None:
    line, waits = opening("websocket"), []
    for _ in range(8):
        line = decide(line, Unreached(), 100.0, 0.999)
        waits.append(line.due - 100)
        line = step(line)
    assert [round(wait) for wait in waits] == [1, 2, 4, 8, 16, 30, 30, 30]
    assert decide(line, Unreached(), 100.0, 0.0).due == 100.0, "full jitter"
    good = after(line, Welcomed("e-2"), Moved("e-3"), Ended(1006), draw=0.999)
    assert good.due - 100 < 1
    short = after(line, Welcomed("e-2"), Ended(1006), draw=0.999)
    assert short.due - 100 > 20, "a welcome alone proves nothing"


def test_at_once_is_once_when_nothing_comes_of_it() -> None:
    line = after(live(), Ended(4202))
    assert line.due == 100.0
    line = after(step(line), Welcomed("e-1"), Ended(4202))
    assert line.due > 100.0


def test_another_token_is_asked_for_once() -> None:
    for ended in (Ended(4201), Ended(4001)):
        again = after(live(), ended)
        assert (again.phase, again.fresh, again.due) == ("waiting", True, 100.0)
        assert not after(step(again), Welcomed(None)).fresh
    assert after(step(after(live(), Ended(4001))), Ended(4001)).phase == "stopped"
    late = after(step(after(live(), Ended(4201))), Ended(4201))
    assert late.phase == "waiting" and late.fresh and late.due > 100
    assert after(opening("sse"), Refused(401)).fresh
    assert after(opening("sse", renewable=False), Refused(401)).status == 401


@pytest.mark.parametrize("status", [400, 403, 413, 422])
def test_refusals_of_a_stream_that_coming_back_does_not_help(status: int) -> None:
    line = after(opening("sse"), Refused(status, code="why"))
    assert (line.phase, line.code, line.status) == ("stopped", "why", status)


def test_a_socket_that_does_not_open_twice_gives_way_to_the_stream() -> None:
    line = after(opening(), Refused(502))
    assert line.transport == "websocket"
    line = after(step(line), Refused(502))
    assert (line.transport, line.fallen, line.due) == ("sse", "http-502", 100.0)
    assert "fallback_reason=http-502" in wanted().query(line)
    assert "fallback_reason" not in wanted().query(after(step(line), Welcomed(None), Ended()))
    mute = after(opening(), Mute())
    assert (mute.transport, mute.fallen) == ("sse", "silent"), "an open socket that carries nothing: at once"
    assert after(opening("websocket"), Mute()).transport == "websocket"
    gone = opening()
    for _ in range(5 * FAILURES):
        gone = step(after(gone, Unreached()))
    assert gone.transport == "websocket", "nobody was there: that is not the socket's fault"


def fallen() -> Line:
    return after(step(after(opening(), Mute())), Welcomed("e-1"))


def test_after_a_fallback_the_socket_is_tried_beside_it_less_and_less_often() -> None:
    line = fallen()
    assert line.wake == line.probe_at == 100 + 0.75 * RULES.probe_s
    probe = decide(line, Tick(), line.probe_at, 0.5)
    assert (probe.phase, probe.transport, probe.beside) == ("live", "sse", "websocket")
    waits = []
    for _ in range(7):
        probe = decide(probe, Apart(Refused(502)), probe.probe_at, 0.5)
        assert (probe.phase, probe.transport, probe.beside, probe.fallen) == ("live", "sse", None, "silent")
        at = probe.wake
        assert at is not None
        probe = decide(probe, Tick(), at, 0.5)
        waits.append(probe.probe_s)
    assert waits == [60, 120, 240, 480, 600, 600, 600]
    good = after(probe, Joined())
    assert (good.phase, good.transport, good.fallen, good.beside) == ("live", "websocket", "", None)
    cut = after(good, Ended(1006))
    assert (cut.transport, cut.fallen, cut.probe_s) == ("sse", "ended", 600), "it did not last"
    settled = decide(good, Tick(), 100 + RULES.settle_s, 0.5)
    assert settled.settled and (settled.probing, settled.probe_s) == (False, RULES.probe_s)
    assert after(settled, Ended(1006)).transport == "websocket"
    banned = after(decide(line, Tick(), line.probe_at, 0.5), Apart(Ended(4010, "stage")))
    assert (banned.banned, banned.fallen, banned.wake) == ("websocket", "", None)


def test_where_the_stream_does_not_open_either_it_was_not_the_sockets_fault() -> None:
    neither = after(step(after(opening(), Mute())), Unreached())
    assert neither.transport == "websocket"
    again = after(step(neither), Mute())
    assert again.transport == "sse" and "fallback_reason" not in wanted().query(again)
    back = after(step(again), Welcomed("e-1"), draw=0.5)
    assert back.wake == 100 + 0.5 * RULES.move_spread_s, "so it is tried soon"


def test_a_socket_that_is_cut_again_and_again_gives_way_and_one_that_lasted_does_not() -> None:
    line = opening()
    for _ in range(FAILURES):
        assert line.transport == "websocket"
        line = step(after(line, Welcomed("e-1"), Answered(), Moved("e-2"), Ended(1006)))
    assert (line.transport, line.fallen) == ("sse", "ended")
    line = opening()
    for _ in range(FAILURES * 3):
        line = after(line, Welcomed("e-1"), Answered())
        line = step(after(decide(line, Tick(), 100 + RULES.settle_s, 0.5), Ended(1006), now=200.0))
    assert line.transport == "websocket"
    line = opening()
    for _ in range(FAILURES * 3):  # a server that dies is not there afterwards
        line = step(after(line, Welcomed("e-1"), Ended(1006)))
        line = step(after(line, Unreached()))
    assert line.transport == "websocket"
    for code in (4100, 4101, 4103, 4200, 4202):
        line = opening()
        for _ in range(FAILURES * 3):  # the server's own words came through
            line = step(after(line, Welcomed("e-1"), Ended(code)))
        assert line.transport == "websocket"


def test_a_socket_that_carries_in_one_direction_only_gives_way() -> None:
    deaf = after(opening(), Welcomed("e-1"))
    assert deaf.wake is None
    assert after(deaf, Mute()).transport == "sse"
    heard = after(deaf, Answered())
    assert heard.wake == 100 + RULES.settle_s


def test_a_stage_without_websocket_means_the_stream_and_back() -> None:
    line = after(live(), Ended(4010, "stage"))
    assert (line.transport, line.banned, line.due) == ("sse", "websocket", 100.0)
    opened = step(line)
    line = after(opened, Welcomed("e-2", "sse"))
    assert after(line, Staged("shadow")).wake is None
    assert after(opened, Welcomed("e-2", "fallback")).wake is not None, "it changed while there was no line"
    line = after(line, Staged("fallback"))
    assert line.wake is not None
    assert decide(line, Tick(), line.wake, 0.5).beside == "websocket"
    assert after(live("websocket"), Ended(4010, "stage")).code == "stage"
    sunset = after(live("sse"), Told(4010, 0), Ended())
    assert (sunset.phase, sunset.code) == ("stopped", "stage")
    back = after(step(after(live(), Ended(4010, "stage"))), Welcomed("e-2"), Told(4010, 0), Ended())
    assert (back.transport, back.banned) == ("websocket", "sse")
    explained = after(fallen(), Staged("sse"))
    assert (explained.fallen, explained.banned, explained.wake) == ("", "websocket", None)


def test_a_tenant_that_has_left_sse() -> None:
    assert after(opening("sse"), Refused(204)).code == "sse-ended"
    fallen = step(after(opening(), Mute()))
    back = after(fallen, Refused(204))
    assert (back.transport, back.banned) == ("websocket", "sse")
    again = after(step(after(step(back), Mute())), Mute())
    assert again.transport == "websocket", "there is nothing else"


def test_who_is_asked_to_move_opens_the_other_one_after_the_delay() -> None:
    line = after(live(), Asked("sse", 5.0))
    assert line.wake == 105.0 and after(line, Tick(), now=104.9).beside is None
    moving = after(line, Tick(), now=105.0)
    assert (moving.phase, moving.transport, moving.beside) == ("live", "websocket", "sse")
    moved = after(moving, Joined())
    assert (moved.transport, moved.banned) == ("sse", "websocket")
    assert after(moved, Staged("fallback")).move_to == "websocket"
    stays = after(moving, Apart(Unreached()))
    assert (stays.phase, stays.transport, stays.beside, stays.wake) == ("live", "websocket", None, None)
    lost = after(moving, Ended(4010, "stage"))
    assert (lost.phase, lost.transport, lost.beside) == ("waiting", "sse", None)
    assert after(live("websocket"), Asked("sse")).wake is None, "the program chose"
    assert after(live(), Asked("pigeon")).wake is None


def test_a_program_that_wants_another_connection_has_it_at_once() -> None:
    line = after(live("sse"), Restart("channels"))
    assert (line.phase, line.due, line.cursor, line.attempt) == ("waiting", 100.0, "e-1", 0)


happenings = st.one_of(
    st.just(Tick()),
    st.builds(
        Welcomed,
        st.one_of(st.none(), st.sampled_from(["e-1", "e-2", "f-1"])),
        st.sampled_from(["", "sse", "shadow", "fallback", "websocket"]),
    ),
    st.just(Answered()),
    st.just(Joined()),
    st.builds(Apart, st.sampled_from([Ended(4010), Ended(1006), Refused(502), Unreached(), Mute()])),
    st.just(Restart("channels")),
    st.builds(Moved, st.sampled_from(["e-1", "e-2", "e-3"])),
    st.builds(Delay, st.integers(0, 10**12)),
    st.builds(Told, st.integers(3999, 4300), st.one_of(st.none(), st.integers(0, 10**12))),
    st.builds(Asked, st.sampled_from(["sse", "websocket", "x"]), st.floats(0, 1e6)),
    st.builds(Staged, st.sampled_from(["sse", "shadow", "fallback", "websocket", "?"])),
    st.builds(Ended, st.one_of(st.integers(0, 5000), st.sampled_from(list(map(int, Close))))),
    st.builds(Refused, st.sampled_from([0, 204, 301, 400, 401, 403, 404, 413, 422, 429, 500, 502, 503])),
    st.just(Unreached()),
    st.just(Mute()),
)


@settings(max_examples=300)
@given(
    st.sampled_from(["auto", "websocket", "sse"]),
    st.booleans(),
    st.lists(st.tuples(happenings, st.floats(0, 100), st.floats(0, 1, exclude_max=True)), max_size=60),
)
def test_no_sequence_leads_to_a_state_without_an_exit_or_to_a_second_connection(
    mode: Mode, renewable: bool, sequence: list[tuple[Happening, float, float]]
) -> None:
    now, line = 0.0, line_of(mode, renewable=renewable, cursor="e-0")
    cursor = "e-0"
    for what, passed, draw in sequence:
        now += passed
        old = line
        line = decide(old, what, now, draw)
        if old.phase == "stopped":
            assert line == old
            break
        if isinstance(what, Moved) or (
            isinstance(what, Welcomed) and what.cursor is not None and old.phase == "opening"
        ):
            assert what.cursor is not None
            cursor = what.cursor
        assert line.cursor == cursor, "only what was received moves the position"
        assert mode == "auto" or line.transport == mode
        if line.transport != old.transport and isinstance(what, Joined):
            assert (old.phase, line.phase, old.beside) == ("live", "live", line.transport)
        elif line.transport != old.transport:
            assert line.phase == "waiting", "else the transport changes only while nothing is open"
        assert line.beside is None or (line.phase == "live" and line.beside != line.transport)
        if old.phase == "waiting":
            assert line.phase == "waiting" or (isinstance(what, Tick) and now >= old.due)
        if line.phase == "opening":
            assert old.phase in ("waiting", "opening")
        if line.phase == "stopped":
            assert line.code and not isinstance(what, Tick | Moved | Welcomed | Unreached | Mute)
        if line.phase == "waiting":
            assert line.move_to is None
            if old.phase != "waiting":
                assert now <= line.due <= now + RULES.server_cap_s + RULES.cap_s
        assert 0 <= line.attempt <= 30 and line.probe_s <= RULES.probe_cap_s
        assert not (line.fallen and line.transport == "websocket")
        # There is always a way on.
        if line.phase == "waiting":
            assert decide(line, Tick(), line.due, draw).phase == "opening"
        if line.phase == "opening":
            assert decide(line, Welcomed(None), now, draw).phase == "live"
            assert decide(line, Mute(), now, draw).phase == "waiting"
        if line.phase == "live":
            assert decide(line, Ended(1006), now, draw).phase in ("waiting", "stopped")
            if line.wake is not None:
                moved = decide(line, Tick(), max(now, line.wake), draw)
                assert moved.beside is not None or moved.settled
            if line.beside is not None:
                assert decide(line, Joined(), now, draw).transport == line.beside
                assert decide(line, Apart(Mute()), now, draw).beside is None
        assert decide(line, GivenUp("closed"), now, draw).phase == "stopped"


def test_a_line_that_has_stopped_stays_so() -> None:
    line = after(live(), GivenUp("closed"))
    assert after(line, Tick(), Welcomed("x"), Moved("x"), Ended(4200)) == line


@pytest.mark.parametrize("ended", [Ended(4200), Ended()])
def test_a_server_that_wants_everybody_back_at_once_is_not_run_against(ended: Ended) -> None:
    line, waits = opening("sse"), []
    for n in range(5):
        line = after(line, Welcomed(None), Delay(0), Moved(f"e-{n}"), ended, draw=0.999)
        waits.append(line.due - 100)
        line = step(line)
    assert waits[0] == 0, "as it says"
    assert min(waits[1:]) > 0.9, "news or no news"


def test_a_retry_after_is_waited_for_over_a_fallback_too() -> None:
    line = after(opening(), Refused(429, 60.0), draw=0.0)
    assert line.due == 160.0
    line = after(step(line), Refused(429, 60.0), draw=0.0)
    assert (line.transport, line.due) == ("sse", 160.0)
