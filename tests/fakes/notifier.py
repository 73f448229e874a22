"""A service manager that remembers what it was told."""


class FakeNotifier:
    """See `ports.Notifier`. `said` holds every word in order."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def ready(self) -> None:
        self.said.append("ready")

    def status(self, text: str) -> None:
        self.said.append(f"status {text}")

    def stopping(self) -> None:
        self.said.append("stopping")

    def alive(self) -> None:
        self.said.append("alive")
