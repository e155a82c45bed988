"""Labels that come late: what waits for them, how they are counted, and what a label is taken to be until then."""

__all__: list[str] = []


def __dir__() -> list[str]:
    return list(__all__)
