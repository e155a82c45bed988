"""Streams that outlive their process, in a SQLite file or in a PostgreSQL database that workers share."""

__all__: list[str] = []


def __dir__() -> list[str]:
    return list(__all__)
