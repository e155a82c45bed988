"""How a call of a stream is read, answered on the shortest way, and undone where it fails."""

__all__: list[str] = []


def __dir__() -> list[str]:
    return list(__all__)
