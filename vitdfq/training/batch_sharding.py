"""Who trains on which images of a batch: processes that train one thing together share it out; one by itself has all of it."""

from dataclasses import dataclass

from torch import Tensor

from vitdfq.runtime import distributed


@dataclass(frozen=True)
class BatchSharding:
    """How the processes share the batches of a training.

    Attributes:
        together: all processes train the same thing: each takes some images of a batch, and what they find is summed, so that
            all take the same step. Otherwise this process does everything, and hears from no other.
    """

    together: bool

    def of(self, batch: Tensor) -> Tensor:
        """This process's images of a batch (B, ...): every n-th of them, for n processes."""
        return batch[distributed.index() :: distributed.count()] if self.together else batch

    def summed(self, value: Tensor) -> Tensor:
        """The sum over those who share a batch, of a part that each has of it."""
        return distributed.summed(value.clone()) if self.together else value

    def sum_gradients(self, parameters: list[Tensor]) -> None:
        """Give the parameters the gradients of the whole batch's loss, of those that each has of its part."""
        if self.together:
            distributed.sum_gradients(parameters)

    def once(self) -> float:
        """What a term of the loss that depends on no image is multiplied by: it counts in one of the processes."""
        return 0.0 if self.together and not distributed.is_main() else 1.0


def sharding_for(images: int) -> BatchSharding:
    """BatchSharding of batches of so many images; where some process would have none, all do the whole batch alike."""
    return BatchSharding(together=images >= distributed.count())
