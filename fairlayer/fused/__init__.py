"""Compiled sweeps over a batch, where numba is installed (the extra `fused`); the plain ways serve everywhere else.

Nothing here is imported by `import fairlayer`: `switch.kernels` loads it when there is work that pays for it. Each
compiled sweep does what a plain one of `fairlayer.passes` does, and tests hold the two equal.
"""

from fairlayer.fused.switch import kernels, loaded, stream_kernels, stream_loaded, stream_refused

__all__ = ["kernels", "loaded", "stream_kernels", "stream_loaded", "stream_refused"]


def __dir__() -> list[str]:
    return list(__all__)
