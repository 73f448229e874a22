"""A service manager that remembers what it was told."""


class FakeNotifier:
    """See `ports.Notifier`. `said` holds every word in order."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.watchdog_s = float("inf")

    def ready(self) -> None:
        self.said.append("ready")

    def status(self, text: str) -> None:
        self.said.append(f"status {text}")

    def reloading(self) -> None:
        self.said.append("reloading")

    def stopping(self) -> None:
        self.said.append("stopping")

    def extend(self, seconds: float) -> None:
        self.said.append(f"extend {seconds:g}")

    def alive(self) -> None:
        self.said.append("alive")
