"""What a stream has counted: sums and recent scores per cell, and sums per bucket of a window."""

__all__: list[str] = []


def __dir__() -> list[str]:
    return list(__all__)
