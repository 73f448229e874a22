"""A heartbeat file in memory."""

from factoryd.core.heartbeat import Heartbeat


class FakeHeartbeatFile:
    """See `ports.HeartbeatFile`. A test may set `failure` and read `beats`."""

    def __init__(self) -> None:
        self.beats: list[Heartbeat] = []
        self.failure: OSError | None = None

    def write(self, beat: Heartbeat) -> None:
        if self.failure is not None:
            raise self.failure
        self.beats.append(beat)

    def remove(self) -> None:
        self.beats.clear()
