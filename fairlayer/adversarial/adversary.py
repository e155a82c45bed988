"""Adversary: heads that read sensitive features off a model, which learns to leave them nothing to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fairlayer._typing import called_like
from fairlayer.adversarial.building import On, as_targets, feature_names, learn, make_head
from fairlayer.adversarial.heads import Head
from fairlayer.adversarial.reading import example_features
from fairlayer.adversarial.reversal import GradientReversal
from fairlayer.adversarial.schedules import Schedule, linear, strength_at
from fairlayer.adversarial.tap import Read, Tap, find_module
from fairlayer.edge import read_per_sample
from fairlayer.errors import CategoryError, LabelValueError, MissingLabelsError, ShapeError
from fairlayer.groups import Groups, Vocabulary, read_sensitive_features
from fairlayer.tensor_state import ROOM_OF_WORDS, check_states, read_tensor, to_tensor

__all__ = ["Adversary"]


class Adversary(nn.Module):
    """Heads that learn to read sensitive features off an inner output of a model, through a gradient reversal.

        minimise over heads:   sum_heads loss(head(h), feature)
        minimise over model:   task loss - strength * sum_heads loss(head(h), feature),    h = the output read

    Both at once, with one optimiser over both sets of parameters and one loss: task loss + adversary.loss(...).
    The model is not changed and not owned: a forward hook reads the output, and `remove` takes the hook off.

    Args:
        model: the model to train; its parameters are not the adversary's.
        on: the features to read, one head each; a tuple of names inside is one head on their intersections.
        sensitive_features: columns of the training data, from which categories (and the mean and deviation of
            continuous features) are learnt; a category that is not in them is an error later.
        example: input of the model for a few samples, to size the heads: a tensor, a tuple of arguments, or a
            mapping of keywords.
        at: dotted name of the submodule whose output is read; None for the model's own output.
        read: a function that takes a tensor (n, ...) out of that submodule's output; None where it is one, or has
            `.logits`.
        continuous: those names of `on` that are numbers; read by regression instead of cross entropy.
        given_label: let the heads know the label, so that only what they can read beyond it counts.
        hidden: widths of the hidden layers of each head; () for linear heads.
        schedule: progress in [0, 1] -> strength; see `fairlayer.adversarial.schedules`.

    Raises:
        AdversaryDefinitionError: no such submodule, it did not run, or nothing to read.

    Source: Ganin et al. (2016) for the reversal; Zhang, Lemoine, Mitchell (2018), section 3, for the label given.
    Limits: nothing is bounded. A low loss of these heads says nothing of other readers: measure `leakage`.

    Example:
        >>> import torch, fairlayer as fl
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
        >>> x, sex = torch.randn(64, 3), torch.arange(64) % 2
        >>> adversary = Adversary(net, on="sex", sensitive_features={"sex": sex}, example=x, at="1")
        >>> optimiser = torch.optim.Adam([*net.parameters(), *adversary.parameters()])
        >>> task = net(x).square().mean()
        >>> (task + adversary.loss({"sex": sex})).backward()
        >>> adversary.advance(0.5), float(adversary.reversal.strength)
        (None, 0.55...)
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        on: On,
        sensitive_features: Any,
        example: Any,
        at: str | None = None,
        read: Read | None = None,
        continuous: Sequence[str] = (),
        given_label: bool = False,
        hidden: Sequence[int] = (64,),
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__()
        self.at = at
        self.given_label = given_label
        self.schedule = linear(0.1, 1.0) if schedule is None else schedule
        self.reversal = GradientReversal(strength_at(self.schedule, 0.0))
        targets = as_targets(on)
        self.vocabulary, groups = learn(targets, sensitive_features, tuple(continuous))
        features = example_features(model, at, read, example)
        width = _with_label(features, torch.zeros(len(features))).shape[1] if given_label else features.shape[1]
        heads = [make_head(names, groups, width, hidden, tuple(continuous)) for names in targets]
        wide = torch.float64 if features.dtype == torch.float64 else torch.float32
        self.heads = nn.ModuleList(heads).to(features.device, wide)
        self.reversal.to(features.device)
        self._tap = Tap.at(at, read).attach(find_module(model, at))

    @property
    def names(self) -> tuple[str, ...]:
        """What each head reads: `sex`, or `sex & race`."""
        return tuple(head.target.name for head in self._heads)

    @property
    def strength(self) -> float:
        """The factor that the reversed gradient takes."""
        return float(self.reversal.strength)

    def advance(self, progress: float) -> None:
        """Set the strength for a progress of training in [0, 1].

        Raises:
            ScheduleError: the progress is outside [0, 1], or the schedule's strength negative or not finite.
        """
        self.reversal.set_strength(strength_at(self.schedule, progress))

    def loss(self, sensitive_features: Any, y: Any = None) -> Tensor:
        """Return the sum of `losses`."""
        return torch.stack(list(self.losses(sensitive_features, y).values())).sum()

    def losses(self, sensitive_features: Any, y: Any = None) -> dict[str, Tensor]:
        """Return each head's loss on the latest forward of the model, which is then forgotten.

        Args:
            sensitive_features: the sensitive features of the same samples; see `project`. Unknown ones count in no
                loss.
            y: labels 0/1 or numbers (n,), with `given_label`.

        Returns:
            Mean cross entropy in nats (groups), mean squared error in units of the variance (numbers), by name.

        Raises:
            CaptureError: no forward of the model since the last reading.
            ShapeError: another number of samples than in that forward.
            CategoryError: a category that the adversary was not built with.
            MissingLabelsError: `given_label` without y.
        """
        features = self._tap.peek()
        groups = self._read_groups(sensitive_features, len(features))
        losses = self._losses(features, groups, y)
        self._tap.clear()
        return losses

    def forward(self, features: Tensor, y: Any = None) -> tuple[Tensor, ...]:
        """Return what each head makes of features (n, width): logits (n, groups), or standardised numbers (n,)."""
        reversed_: Tensor = self.reversal(features.to(next(self.heads.parameters()).dtype))
        if self.given_label:
            reversed_ = _with_label(reversed_, y)
        return tuple(head(reversed_) for head in self._heads)

    if TYPE_CHECKING:

        @called_like(forward)
        def __call__(self, *args: Any, **kwargs: Any) -> Any: ...

        __getattr__: None  # type: ignore[assignment, misc]  # an attribute that nobody defines is an error

    def remove(self) -> None:
        """Take the hook off the model; the heads remain."""
        self._tap.close()

    def __enter__(self) -> Adversary:
        return self

    def __exit__(self, *error: object) -> None:
        self.remove()

    def get_extra_state(self) -> Tensor:
        """Return the categories as one tensor; see `fairlayer.tensor_state`."""
        state = {"vocabulary": self.vocabulary.to_state(), "names": list(self.names)}
        return to_tensor("adversary", state, room=ROOM_OF_WORDS)

    def set_extra_state(self, state: Tensor) -> None:
        """Take over the categories that the heads were trained with.

        Raises:
            CategoryError: they read other features.
            CheckpointError: it is no such tensor, or was changed; the categories are as before.
        """
        self.vocabulary = self._read_state(state)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        check_states(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _read_state(self, state: Tensor) -> Vocabulary:
        words, names = read_tensor(
            "adversary", state, lambda saved: (Vocabulary.from_state(saved["vocabulary"]), tuple(saved["names"]))
        )
        if names != self.names:
            raise CategoryError(
                f"the state is of an adversary on {list(names)}, but this one reads {list(self.names)}. "
                "Build it with the same on=."
            )
        return words

    def extra_repr(self) -> str:
        """Show what is read, and where."""
        return f"on={list(self.names)}, at={self.at!r}, given_label={self.given_label}"

    @property
    def _heads(self) -> tuple[Head, ...]:
        return tuple(self.heads)  # type: ignore[arg-type]

    def _read_groups(self, sensitive_features: Any, n: int) -> Groups:
        names = feature_names(head.target.on for head in self._heads)
        groups = read_sensitive_features(sensitive_features, names, self.vocabulary)
        if groups.n != n:
            raise ShapeError(
                f"the latest forward gave {n} samples at {self._tap.where}, but the sensitive features have "
                f"{groups.n} entries. Call the model and the adversary on the same batch."
            )
        return groups

    def _losses(self, features: Tensor, groups: Groups, y: Any) -> dict[str, Tensor]:
        outputs = self(features, y)
        return {head.target.name: head.loss(output, groups) for head, output in zip(self._heads, outputs, strict=True)}


def _with_label(features: Tensor, y: Any) -> Tensor:
    """Return [h, y, y h]: even a linear head may then weigh the features differently for each label."""
    if y is None:
        raise MissingLabelsError("an adversary with given_label=True reads labels, but no y was given. Pass y=labels.")
    labels = read_per_sample("y", y, (len(features), 1))
    assert labels is not None
    whole = isinstance(y, Tensor) and not y.is_floating_point()
    if whole and labels.size and not 0 <= labels.min() <= labels.max() <= 1:
        raise LabelValueError(
            f"given_label reads labels 0 or 1, or numbers, but y holds integers from {labels.min():g} to "
            f"{labels.max():g}. For several classes build one adversary per class, with y == class; pass numbers as "
            "floats."
        )
    column = torch.tensor(labels, dtype=features.dtype, device=features.device)
    return torch.cat([features, column, column * features], dim=1)
