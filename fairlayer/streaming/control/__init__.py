"""The arithmetic that policies are made of: bands, guards, debts and leases, and corrections for the past."""

__all__: list[str] = []


def __dir__() -> list[str]:
    return list(__all__)
