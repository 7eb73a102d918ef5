"""Sliding median: what is the upper median of every pixel over a window of frames that moves on?

1. The window is held in a ring: frame ``i`` lies in row ``i % kernel``. A median does not care about the
   order of its values, so a window that moves on costs the reading of its new frames and nothing else.
2. Of each pixel the last median is kept as a guess, with two counts over the window: ``below``, how many
   values are less than the guess, and ``upto``, how many are not greater. Frames that leave or enter change
   each count by one comparison. Backgrounds hardly change, so most guesses stay right.
3. The guess is the element of rank ``kernel // 2`` exactly where ``below <= rank < upto``. Everywhere else
   the element is searched: 8- and 16-bit values bit by bit from the highest (a bit stays set where the count
   of smaller values does not exceed the rank), which needs comparisons and sums only and is several times
   faster than sorting; floats by partition.

Pixels are worked off in strips that stay in the processor's cache. The guess is kept in the array that the
last image was written to, so beside the images the memory is the window, the two counts (a byte each per pixel
for kernels up to 255, else two) and about 1 MiB that depends on nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from blockflow.errors import PlanError

if TYPE_CHECKING:
    from collections.abc import Collection

    from blockflow.recipes.background_input import Stack

__all__ = ["SlidingMedian", "compute_images"]

Pixels: TypeAlias = NDArray[Any]
"""One value per pixel, shape ``(pixels,)``; with a first axis of frames, ``(frames, pixels)``."""

STRIP = 1 << 15
"""Pixels worked off together: a strip of a window of 200 8-bit frames (6 MB) stays in a level-3 cache."""

SCRATCH = 1 << 18
"""Bytes of comparison results at a time: 8 rows of a strip or more, so that calls into numpy cost little."""

COLUMNS = 1 << 18
"""Bytes of the window that are gathered or transposed at a time."""

SPARSE = 6
"""Wrong guesses are gathered if they are fewer than one in so many: gathering a pixel costs about five times
as much as searching it in place."""


class SlidingMedian:
    """The upper median over a window of frames, for windows that move on through a stack.

    >>> from blockflow.recipes.background_input import Stack
    >>> frames = np.arange(6, dtype=np.uint8).reshape(6, 1, 1)
    >>> median = SlidingMedian(Stack(frames), kernel=4)
    >>> images = np.empty((2, 1, 1), np.uint8)
    >>> median.move_to(0, images[0])
    >>> median.move_to(2, images[1])
    >>> images.ravel()
    array([2, 4], dtype=uint8)

    Args:
        stack: The frames.
        kernel: Frames in a window, at most as many as the stack has.

    Raises:
        PlanError: The kernel is not between 1 and the number of frames.
    """

    def __init__(self, stack: Stack, kernel: int) -> None:
        count, height, width = stack.shape
        if not 1 <= kernel <= count:
            raise PlanError(f"kernel must be between 1 and the {count} frames of the stack, got {kernel}")
        self._stack = stack
        self._kernel = kernel
        self._rank = kernel // 2
        self._start: int | None = None
        self._ring = np.empty((kernel, height * width), stack.dtype)
        self._image = np.zeros(1, stack.dtype)
        """The last image, where it was written; zero for every pixel before there is one."""
        counts = np.min_scalar_type(kernel)
        self._below = np.zeros(height * width, counts)
        self._upto = np.zeros(height * width, counts)
        self._scratch = np.empty(SCRATCH, bool)

    def move_to(self, start: int, out: NDArray[Any]) -> None:
        """Write the median of frames ``[start, start + kernel)``: element ``kernel // 2`` of the sorted values.

        Args:
            start: First frame of the window.
            out: Shape ``(height, width)``, C-contiguous, in the dtype of the stack. The next call begins with
                what it holds: it must not be changed in between.

        Raises:
            PlanError: The window reaches outside the stack, or ``out`` is another kind of array.
            ArrayError: A frame holds a value that is not finite.
        """
        count, height, width = self._stack.shape
        if not 0 <= start <= count - self._kernel:
            raise PlanError(
                f"a window of {self._kernel} frames must lie in the {count} frames of the stack: "
                f"it starts at frame {start}"
            )
        if (out.shape, out.dtype, out.flags.c_contiguous) != ((height, width), self._ring.dtype, True):
            raise PlanError(
                f"out must be C-contiguous with shape {(height, width)} and dtype {self._ring.dtype}, "
                f"got shape {out.shape}, dtype {out.dtype} and strides {out.strides}"
            )
        image = out.reshape(height * width)
        image[:] = self._image
        self._image = image
        if start != self._start:
            self._exchange(start)
            for begin in range(0, image.size, STRIP):
                self._settle(begin, min(begin + STRIP, image.size))
            self._start = start

    def _exchange(self, start: int) -> None:
        """Bring the frames of the window into the ring and the counts up to date with them."""
        held, self._start = self._start, None  # until the new window is complete there is none
        step = self._kernel if held is None else start - held
        if not 0 <= step < self._kernel:
            step = self._kernel
        counted = 2 * step < self._kernel  # else counting the whole window again is less work
        for begin, end in self._stack.portions(start + self._kernel - step, start + self._kernel):
            self._enter(begin, self._stack.frames(begin, end), counted)
        if not counted:
            self._below[:] = 0
            self._upto[:] = 0
            self._tally(slice(0, self._kernel), np.add)

    def _enter(self, first: int, frames: NDArray[Any], counted: bool) -> None:
        """Put consecutive frames, from frame ``first`` on, into the rows of those that leave."""
        row = first % self._kernel
        for begin, part in ((row, frames[: self._kernel - row]), (0, frames[self._kernel - row :])):
            rows = slice(begin, begin + len(part))
            if counted:
                self._tally(rows, np.subtract)
            self._ring[rows] = part.reshape(len(part), self._image.size)
            if counted:
                self._tally(rows, np.add)

    def _tally(self, rows: slice, change: np.ufunc) -> None:
        """Add these rows of the ring to the counts, or subtract them."""
        for begin in range(0, self._image.size, STRIP):
            strip = slice(begin, begin + STRIP)
            values, guess = self._ring[rows, strip], self._image[strip]
            for counts, compare in ((self._below, np.less), (self._upto, np.less_equal)):
                found = count_true(compare, values, guess, self._scratch, counts.dtype)
                change(counts[strip], found, out=counts[strip])

    def _settle(self, begin: int, end: int) -> None:
        """Search the median wherever the guess is not the element of the wanted rank."""
        strip = slice(begin, end)
        wrong = np.flatnonzero((self._below[strip] > self._rank) | (self._upto[strip] <= self._rank))
        if wrong.size * SPARSE > end - begin:
            self._search(self._ring[:, strip], strip)
            return
        wrong += begin
        batch = max(1, COLUMNS // (self._kernel * self._ring.itemsize))
        for first in range(0, wrong.size, batch):
            pixels = wrong[first : first + batch]
            self._search(self._ring.take(pixels, axis=1), pixels)

    def _search(self, values: Pixels, pixels: slice | NDArray[np.intp]) -> None:
        """Find the median of these columns of the ring, with its counts."""
        search = search_bits if self._ring.dtype.kind == "u" else search_partition
        self._image[pixels], self._below[pixels], self._upto[pixels] = search(
            values, self._rank, self._scratch, self._below.dtype
        )


def compute_images(stack: Stack, starts: Collection[int], kernel: int, out: NDArray[Any] | None = None) -> NDArray[Any]:
    """The background images of a run of windows.

    >>> from blockflow.recipes.background_input import Stack
    >>> frames = np.arange(12, dtype=np.float32).reshape(6, 2, 1)
    >>> compute_images(Stack(frames), [0, 1, 3], kernel=3)[..., 0]
    array([[2., 3.],
           [4., 5.],
           [8., 9.]], dtype=float32)

    Args:
        stack: The frames.
        starts: First frame of each window. Any order is right; ascending starts are fast.
        kernel: Frames in a window.
        out: Where to write them; a new array if not given.

    Returns:
        ``out``: shape ``(len(starts), height, width)``, in the dtype of the stack.

    Raises:
        PlanError: A window reaches outside the stack, or ``out`` is another kind of array.
        ArrayError: A frame holds a value that is not finite.
    """
    median = SlidingMedian(stack, kernel)
    images = np.empty((len(starts), *stack.shape[1:]), stack.dtype) if out is None else out
    for image, start in zip(images, starts, strict=True):
        median.move_to(int(start), image)
    return images


def count_true(
    compare: np.ufunc, values: Pixels, guess: Pixels, scratch: NDArray[np.bool_], dtype: np.dtype[Any]
) -> Pixels:
    """How many of the rows of ``values`` compare with ``guess`` as asked, per pixel.

    Comparison results are bytes; up to 255 rows of them add up in a byte, which the processor does 32 or 64
    at a time.

    >>> rows = np.array([[1, 9], [2, 8], [3, 7]], np.uint8)
    >>> count_true(np.less, rows, np.array([3, 8], np.uint8), np.empty(64, bool), np.dtype(np.uint8))
    array([2, 1], dtype=uint8)
    """
    count, width = values.shape
    group = min(scratch.size // width, 255)
    total = np.zeros(width, dtype)
    for first in range(0, count, group):
        rows = values[first : first + group]
        outcome = scratch[: rows.size].reshape(rows.shape)
        compare(rows, guess, out=outcome)
        total += np.add.reduce(outcome.view(np.uint8), axis=0, dtype=np.uint8)
    return total


def search_bits(
    values: Pixels, rank: int, scratch: NDArray[np.bool_], dtype: np.dtype[Any]
) -> tuple[Pixels, Pixels, Pixels]:
    """The element of a rank in each column of unsigned integers, with its counts, bit by bit.

    The element is the greatest ``v`` with ``count(values < v) <= rank``. The last candidate that held gives
    the count below the element, the last that did not is the element plus one and gives the count up to it.

    >>> columns = np.array([[5, 0], [1, 255], [9, 255]], np.uint8)
    >>> [found.tolist() for found in search_bits(columns, 1, np.empty(64, bool), np.dtype(np.uint8))]
    [[5, 255], [1, 1], [2, 3]]
    """
    count, width = values.shape
    element = np.zeros(width, values.dtype)
    below, upto = np.zeros(width, dtype), np.full(width, count, dtype)
    for bit in reversed(range(int(values.max()).bit_length())):
        candidate = element | values.dtype.type(1 << bit)
        smaller = count_true(np.less, values, candidate, scratch, dtype)
        holds = smaller <= rank
        np.copyto(element, candidate, where=holds)
        np.copyto(below, smaller, where=holds)
        np.copyto(upto, smaller, where=~holds)
    return element, below, upto


def search_partition(
    values: Pixels, rank: int, scratch: NDArray[np.bool_], dtype: np.dtype[Any]
) -> tuple[Pixels, Pixels, Pixels]:
    """The element of a rank in each column of floats without NaN, with its counts, by partition.

    Columns are transposed first, a few at a time: each then lies in one piece, which more than halves the
    time.

    >>> columns = np.array([[0.5, 2.0], [0.1, 2.0], [0.9, 3.0]])
    >>> [found.tolist() for found in search_partition(columns, 1, np.empty(64, bool), np.dtype(np.uint8))]
    [[0.5, 2.0], [1, 0], [2, 2]]
    """
    count, width = values.shape
    element = np.empty(width, values.dtype)
    step = max(1, COLUMNS // (count * values.itemsize))
    for first in range(0, width, step):
        columns = values[:, first : first + step].T.copy()
        columns.partition(rank, axis=1)
        element[first : first + step] = columns[:, rank]
    below = count_true(np.less, values, element, scratch, dtype)
    return element, below, count_true(np.less_equal, values, element, scratch, dtype)
