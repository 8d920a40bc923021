"""What a training tells to whoever watches it: progress bars, curves, pruning of a search."""

from __future__ import annotations


class Callback:
    """Hears what a training does. Each method does nothing unless a subclass says otherwise.

    Example:
        >>> class Print(Callback):
        ...     def on_epoch(self, epoch: int, values: dict[str, float]) -> None:
        ...         print(epoch, values["loss"])
    """

    def on_restart(self, changes: str) -> None:
        """A checkpoint is there but was made from other inputs: the training begins anew.

        Args:
            changes: Which inputs differ, for a person.
        """

    def on_start(self, epoch: int) -> None:
        """The training begins, or continues, with this epoch (counted from 0). Its first step builds the graph."""

    def on_step(self, epoch: int, step: int) -> None:
        """``step`` steps of an epoch are done."""

    def on_epoch(self, epoch: int, values: dict[str, float]) -> None:
        """An epoch is over; its checkpoint is saved after this call.

        Args:
            epoch: Counted from 0.
            values: what ``Trainer.run_epoch`` gives, and ``val_...``, as far as they are known.
        """
