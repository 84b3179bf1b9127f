"""How a recipe divides the training images of an epoch into batches.

With n images in batches of B, n mod B images remain at the end of an epoch. A step has the same learning rate whatever
the number of its images, so that each image of a small last batch moves the weights B / (n mod B) times as far as
another one, along a gradient that is as much noisier. From :data:`SMALLEST_SHARE` of a batch on, the factor is at most
2, and the remaining images are a batch in every recipe. Fewer are a *tiny* last batch, for which the recipe's
``last_batch`` decides:

``keep``
    They are a batch, as in torch's ``DataLoader`` and in the public code of most papers. A single image is left out,
    because batch normalisation needs two.
``drop``
    They are left out: other images in every epoch, since the order is shuffled.
``spread``
    They are distributed over the other batches, whose sizes then differ by at most 1: every image counts, and the
    number of batches is n / B rounded to the nearest whole number.

If there is no full batch, all images are one batch in any case: nothing is then larger than it.
"""

from __future__ import annotations

from typing import Literal

LastBatch = Literal["keep", "drop", "spread"]

#: The smallest share of a batch's size that a last batch may have without being tiny.
SMALLEST_SHARE = 1 / 2


def remaining_images(images: int, batch_size: int) -> int:
    """The number of images of an epoch that are a tiny last batch, or would be one; 0 if the last batch is not tiny."""
    full, rest = divmod(images, batch_size)
    return rest if full and (rest == 1 or rest < SMALLEST_SHARE * batch_size) else 0


def batch_sizes(images: int, batch_size: int, last_batch: LastBatch = "keep") -> list[int]:
    """The number of images of every batch of an epoch, from the first batch to the last; at least two each.

    images: of the training split without the validation images, at least two.
    """
    full, rest = divmod(images, batch_size)
    tiny = remaining_images(images, batch_size)
    if tiny and last_batch == "spread":
        more, larger = divmod(tiny, full)
        return [batch_size + more + 1] * larger + [batch_size + more] * (full - larger)
    left_out = tiny == 1 or (tiny and last_batch == "drop")
    return [batch_size] * full + ([rest] if rest and not left_out else [])


def held_out(images: int, validation_fraction: float) -> int:
    """The number of validation images that a recipe's ``validation_fraction`` takes out of a training split."""
    return round(validation_fraction * images)
