"""How long from an agent's exit to its next run."""

import time

from bench.agents import brief
from bench.results import Key, Results
from bench.sessions import Session

WORK = "next run"
TOOK = "exit to next run (ms)"
LIVES_S = (1.1, 1.37, 1.64, 1.91)
"""How long the agents run: longer than a second, before which some take an exit for a failure."""

GAPS = 3
PATIENCE_S = 18.0
NO_SIGN_S = 9.0


def measure(session: Session, results: Results) -> None:
    """Watch agents that exit by themselves until each has run several times more."""
    peer, words = session.peer, session.ground.words
    peer.prepare([brief(number, life) for number, life in enumerate(LIVES_S)])
    peer.launch()
    began = time.monotonic()
    gaps: list[float] = []
    while len(gaps) < GAPS * len(LIVES_S):
        waited = time.monotonic() - began
        if waited > PATIENCE_S or (not gaps and waited > NO_SIGN_S):
            break
        time.sleep(0.1)
        gaps = _gaps(session)
    if gaps:
        results.add(Key(WORK, TOOK, peer.name, 1), *(gap * 1000 for gap in gaps))
    else:
        results.reasons[WORK, peer.name] = "it starts nothing again"
    words.forget()


def _gaps(session: Session) -> list[float]:
    """Return what is between an agent's last word and the next run's first one."""
    gaps: list[float] = []
    for number in range(len(LIVES_S)):
        ends = [each.moment for each in session.ground.words.all("end") if each.number == number]
        ups = [each.moment for each in session.ground.words.all("up") if each.number == number]
        gaps += [up - end for end, up in zip(ends, ups[1:], strict=False)]
    return gaps
