"""One batch in parts, one part per process: how numbers of a part become numbers of the whole.

Every exchange is an all-gather of a short float64 vector, which each process then adds up in the order of the ranks:
the result is bit by bit the same everywhere, so that all processes take the same decisions. The first numbers of a
message say whether its sender failed and what it is about. So an error on one rank is raised on all of them, and
processes that have come to do different things are told so, where each would wait for the other for ever.
"""

from __future__ import annotations

import pickle
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

import numpy as np
import torch
import torch.distributed as dist

from fairlayer._typing import FloatArray
from fairlayer.errors import FairlayerError

__all__ = ["LostProcessError", "Ranks", "RanksDifferError", "RemoteError"]

_SLOT = 64  # numbers in the first message of an exchange; more follow in a second one
_HEAD = 3  # failed, length, subject
_ROOM = _SLOT - _HEAD

T = TypeVar("T")


class RemoteError(FairlayerError, RuntimeError):
    """Another process of the group failed while all worked on one batch."""


class LostProcessError(RemoteError):
    """Another process of the group has ended, or did not answer within the group's timeout."""


class RanksDifferError(FairlayerError, ValueError):
    """The processes of a group were given different things where they must be given the same."""


class Ranks:
    """The processes of one torch.distributed group.

    Args:
        group: a process group, or "world" for the default one, which is looked up when it is first needed.
    """

    def __init__(self, group: Any) -> None:
        self.group = group
        self._place: torch.device | None = None

    @staticmethod
    def of(process_group: Any) -> Ranks | None:
        """Return the processes of a group; None stays None.

        Raises:
            RanksDifferError: it is not a process group of which this process is a member.
        """
        if process_group is None or isinstance(process_group, Ranks):
            return process_group
        known = isinstance(process_group, dist.ProcessGroup) if dist.is_available() else False
        if process_group != "world" and not known:
            raise RanksDifferError(
                f'process_group must be None, "world", or a torch.distributed process group that this process belongs '
                f"to, but is {process_group!r}."
            )
        return Ranks(process_group)

    @property
    def size(self) -> int:
        """Number of processes."""
        return dist.get_world_size(self._group)

    @property
    def rank(self) -> int:
        """Number of this process within the group."""
        return dist.get_rank(self._group)

    def gather(self, vector: FloatArray, subject: str) -> FloatArray:
        """Return the vectors of all processes, (ranks, len(vector)), in the order of the ranks.

        Args:
            vector: a vector of the same length on every process.
            subject: what the numbers are, the same on every process.

        Raises:
            RanksDifferError: other processes sent something else.
            FairlayerError: another process failed; its error.
            LostProcessError: another process has ended, or did not answer.
        """
        heads = self._start(vector, subject)
        if (heads[:, 1] != len(vector)).any():
            raise self._out_of_step(heads, subject)
        if len(vector) <= _ROOM:
            return heads[:, _HEAD : _HEAD + len(vector)]
        rest = self._exchange(vector[_ROOM:], len(vector) - _ROOM)
        return np.concatenate([heads[:, _HEAD:], rest], axis=1)

    def total(self, vector: FloatArray, subject: str = "sums") -> FloatArray:
        """Return the sum of the vectors of all processes."""
        return np.asarray(self.gather(vector.ravel(), subject).sum(axis=0).reshape(vector.shape))

    def objects(self, value: T, subject: str) -> list[T]:
        """Return the (picklable) values of all processes, in the order of the ranks."""
        letter = pickle.dumps(value)
        vector = np.frombuffer(letter.ljust(8 * -(-len(letter) // 8), b"\0"))
        heads = self._start(vector, subject)
        letters, longest = heads[:, _HEAD:], int(heads[:, 1].max())
        if longest > _ROOM:
            letters = np.concatenate([letters, self._exchange(vector[_ROOM:], longest - _ROOM)], axis=1)
        return [pickle.loads(np.ascontiguousarray(each).tobytes()) for each in letters]  # what follows is ignored

    @contextmanager
    def together(self) -> Iterator[None]:
        """Raise what fails on one process inside the block on all of them.

        The last thing in the block must be an exchange; what comes after it must not fail.
        """
        try:
            yield
        except _Remote as remote:
            raise remote.error from None
        except (RanksDifferError, LostProcessError):
            raise  # all processes see it, or there is nobody to tell
        except Exception as error:
            self._exchange(np.array([1.0]), _SLOT)
            self._raise_remote(error)

    def __deepcopy__(self, memo: Any) -> Ranks:
        return self  # processes are not copied

    def __reduce__(self) -> Any:
        if self.group == "world":
            return Ranks, ("world",)
        raise RanksDifferError(
            'a process group cannot be pickled. Save the state_dict instead, or use process_group="world".'
        )

    def __repr__(self) -> str:
        return repr(self.group)

    @property
    def _group(self) -> Any:
        if not (dist.is_available() and dist.is_initialized()):
            raise RanksDifferError(
                "process_group was given, but torch.distributed is not initialised in this process. Call "
                "torch.distributed.init_process_group(...) first, or use process_group=None."
            )
        return None if self.group == "world" else self.group

    def _start(self, vector: FloatArray, subject: str) -> FloatArray:
        """Return the first messages of an exchange on a subject, (ranks, head and the first numbers)."""
        about = float(zlib.crc32(subject.encode()))
        heads = self._exchange(np.concatenate([[0.0, len(vector), about], vector[:_ROOM]]), _SLOT)
        if heads[:, 0].any():
            self._raise_remote(None)
        if (heads[:, 2] != about).any():
            raise self._out_of_step(heads, subject)
        return heads

    def _out_of_step(self, heads: FloatArray, subject: str) -> RanksDifferError:
        sent, subjects = heads[:, 1].astype(int).tolist(), len(set(heads[:, 2].tolist()))
        return RanksDifferError(
            f"the processes are not working on the same batch: rank {self.rank} has come to {subject!r}, and all ranks "
            f"sent {sent} numbers on {subjects} subject(s). Call the projection equally often on every rank, with the "
            "same constraints, bounds and options, and let each go backward: an error of one rank in between ends here."
        )

    def _exchange(self, vector: FloatArray, length: int) -> FloatArray:
        message = torch.zeros(length, dtype=torch.float64)
        message[: len(vector)] = torch.tensor(vector)  # copies: it may be read-only
        message = message.to(self._device())
        answers = [torch.empty_like(message) for _ in range(self.size)]
        try:
            dist.all_gather(answers, message, group=self._group)
        except RuntimeError as error:
            raise LostProcessError(
                f"rank {self.rank} of {self.size} got no answer from the other processes of its group: one has ended, "
                "or is busy elsewhere for longer than the timeout of init_process_group. Look at what the others say, "
                f"and start all of them again. ({error})"
            ) from error
        return np.asarray(torch.stack(answers).cpu().numpy())

    def _device(self) -> torch.device:
        """Where the group's backend takes tensors from: the GPU for NCCL, else the host."""
        if self._place is None:
            on_gpu = dist.get_backend(self._group) == "nccl"
            self._place = torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")
        return self._place

    def _raise_remote(self, own: Exception | None) -> NoReturn:
        """Tell all processes what failed on which, and raise: one's own error where there is one."""
        texts = self.objects(None if own is None else _in_words(own), "an error")
        if own is not None:
            raise own
        raise _Remote(_mirrored(texts))


class _Remote(Exception):  # noqa: N818 - carries an error out of an exchange, past the handler of one's own errors
    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


def _in_words(error: Exception) -> tuple[type[FairlayerError] | None, str]:
    kind = type(error)
    if issubclass(kind, FairlayerError) and kind.__module__.startswith("fairlayer."):
        return kind, str(error)
    return None, f"{kind.__name__}: {error}"


def _mirrored(texts: Sequence[tuple[type[FairlayerError] | None, str] | None]) -> Exception:
    """Return the first error as one of this process."""
    rank, (kind, text) = next((rank, text) for rank, text in enumerate(texts) if text is not None)
    return (kind or RemoteError)(f"on rank {rank} of {len(texts)}: {text}")
