"""What people see of a stream: its report, its picture, its trace and its callbacks."""

__all__: list[str] = []


def __dir__() -> list[str]:
    return list(__all__)
