# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Working block by block
#
# You have a volume that is too large for one process, and a function that works on a piece of it. This tutorial goes
# from there to a chain of tasks that survives crashes and whose results do not show where one block ended and the
# next began. It is a notebook as well as a script: `python tutorial.py` runs all of it in well under a minute, and
# leaves its pictures and data in `tutorial_output`.
#
# What it needs besides blockflow: `pip install 'blockflow-nd[demo]'`.

# %%
import json
import random
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from scipy.ndimage import gaussian_filter, label

from blockflow import Block, Coordinate, Roi, Task, run_blockwise
from blockflow.arrays import Array, open_ds, prepare_ds

HERE = Path(__file__).parent if "__file__" in globals() else Path.cwd()
OUTPUT = Path("tutorial_output")
STORE = OUTPUT / "tissue.zarr"

shutil.rmtree(OUTPUT, ignore_errors=True)
OUTPUT.mkdir()

# %% [markdown]
# ## 1. Places
#
# blockflow talks about *places*, not about voxels. A `Coordinate` is a point or an extent with one whole number per
# axis; a `Roi` (region of interest) is a box with an offset and a shape. Both are in **world units**, whatever your
# world is measured in. Here it is micrometres, and the axes are z, y, x.
#
# Arithmetic works axis by axis, and boxes can be moved, grown and intersected:

# %%
tissue = Roi(offset=(0, 0, 0), shape=(128, 192, 192))
middle = Coordinate(64, 96, 96)

probe = Roi(middle - Coordinate(16, 16, 16), (32, 32, 32))
assert probe.center == middle
assert probe.grow(4, 4).shape == (40, 40, 40)  # 4 on each side
assert probe.shift(Coordinate(64, 0, 0)).intersect(tissue) == Roi((112, 80, 80), (16, 32, 32))
assert tissue.contains(probe)
print("the tissue is", tissue, "and the probe is", probe)

# %% [markdown]
# ## 2. Arrays
#
# An `Array` knows where its voxels are: it has an offset and a voxel size, and is read and written by `Roi`. Let us
# make some tissue with nuclei in it. A voxel is 2 µm thick and 1 µm wide.

# %%
VOXEL = Coordinate(2, 1, 1)


def make_tissue(roi: Roi, count: int) -> tuple[np.ndarray, int]:
    """Noisy bright balls (nuclei) that do not touch, and how many there are."""
    numbers = np.random.default_rng(1)
    centres: list[np.ndarray] = []
    for candidate in numbers.uniform(12, np.array(roi.shape) - 12, size=(20_000, 3)):
        if len(centres) < count and all(np.linalg.norm(candidate - other) > 27 for other in centres):
            centres.append(candidate)
    axes = [np.arange(0, extent, size) + size / 2 for extent, size in zip(roi.shape, VOXEL, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij", sparse=True)
    volume = numbers.normal(0.2, 0.15, size=np.array(roi.shape) // VOXEL)
    for centre in centres:
        distance = np.sqrt((z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2)
        volume += 0.8 / (1 + np.exp(2 * (distance - 8)))
    return volume.astype(np.float32), len(centres)


volume, nuclei = make_tissue(tissue, 90)
in_memory = Array(volume, offset=(0, 0, 0), voxel_size=VOXEL)
assert in_memory.roi == tissue
assert in_memory.to_ndarray(probe).shape == (16, 32, 32)  # 32 µm are 16 voxels along z

# %% [markdown]
# Data that several processes work on lives in a [zarr](https://zarr.dev) store. `prepare_ds` makes an array in it,
# and `open_ds` opens one. `write_size` is the region that one block will write: chunks are chosen so that two blocks
# never share one. Without that, two workers could write to the same file at once, and one of them would lose.

# %%
BLOCK = Coordinate(64, 64, 64)

raw = prepare_ds(STORE, "raw", tissue, VOXEL, np.float32, write_size=BLOCK)
raw[tissue] = volume

again = open_ds(STORE, "raw")  # for reading; mode="r+" to write as well
assert again.voxel_size == VOXEL
assert np.array_equal(again.to_ndarray(probe), in_memory.to_ndarray(probe))
print(again)

# %% [markdown]
# Reading beyond the array is an error unless you say what is out there. Writing beyond it is always one.

# %%
outside = probe.shift(Coordinate(64, 0, 0))
try:
    again.to_ndarray(outside)
except IndexError as error:
    print("as it should be:", error)
assert again.to_ndarray(outside, fill_value=0).shape == (16, 32, 32)


# %% [markdown]
# A helper for the pictures of this tutorial: the plane in the middle, or what is brightest along z.


# %%
def draw(name: str, **images: np.ndarray) -> None:
    figure, axes = plt.subplots(1, len(images), figsize=(4 * len(images), 4.3), layout="constrained", squeeze=False)
    for place, (title, image) in zip(axes.flat, images.items(), strict=True):
        labels = image.dtype.kind in "ui"
        flat = image.max(axis=0) if labels else image[len(image) // 2]
        if labels:  # neighbouring numbers in different colours, zero in black
            flat = np.ma.masked_equal(flat * 7919 % 251 + (flat > 0), 0)
        place.imshow(flat, cmap="gist_rainbow" if labels else "gray")
        place.set_facecolor("black")
        place.set_title(title.replace("_", " "))
        place.set_xticks([])
        place.set_yticks([])
    figure.savefig(OUTPUT / f"{name}.png", dpi=100)


# %% [markdown]
# ## 3. A block
#
# A block says where to read and where to write; it holds no data. The scheduler makes blocks, and hands them to your
# function. To try that function, make one yourself:

# %%
SIGMA = 3.0  # µm


def smooth(source: str, target: str, block: Block) -> None:
    """Smooth what the block may read, and keep what it has to write."""
    input_, output = open_ds(STORE, source), open_ds(STORE, target, mode="r+")
    seen = block.read_roi.intersect(input_.roi)  # there is nothing to read beyond the tissue
    sigma = [SIGMA / size for size in input_.voxel_size]
    smoothed = gaussian_filter(input_.to_ndarray(seen), sigma, mode="nearest", truncate=3)
    output[block.write_roi] = Array(smoothed, roi=seen, voxel_size=input_.voxel_size)[block.write_roi]


first = Roi((0, 0, 0), BLOCK)
prepare_ds(STORE, "smooth_alone", tissue, VOXEL, np.float32, write_size=BLOCK)
smooth("raw", "smooth_alone", Block(tissue, read_roi=first, write_roi=first))
assert open_ds(STORE, "smooth_alone").to_ndarray(first).any()

# %% [markdown]
# ## 4. A task, and why blocks need context
#
# A `Task` is a function and the blocks to call it on. You give the *first* block's ROIs, and the task shifts them over
# the total ROI. The function takes one argument, the block; `functools.partial` binds all others, the block last.
#
# `run_blockwise` starts worker processes, hands out the blocks, and returns what became of them. What it returns is
# true if, and only if, every block is done.

# %%
alone = Task(
    "alone",
    total_roi=tissue,
    read_roi=first,
    write_roi=first,
    process_function=partial(smooth, "raw", "smooth_alone"),
    read_write_conflict=False,  # no block reads what another one writes; part 9 is about the case where they do
    num_workers=2,
)
result = run_blockwise([alone])
assert result
assert result["alone"].completed_count == 18

# %% [markdown]
# Each block was smoothed as if nothing were around it, and it shows: compare with the whole volume, smoothed at once.

# %%
expected = gaussian_filter(volume, [SIGMA / size for size in VOXEL], mode="nearest", truncate=3)
seams = np.abs(open_ds(STORE, "smooth_alone").to_ndarray() - expected)
print(f"largest error without context: {seams.max():.3f}")
assert seams.max() > 0.05

# %% [markdown]
# The remedy is **context**: a read ROI that is larger than the write ROI. This Gaussian ends three standard
# deviations from its middle, so 9 µm would do; ROIs must lie on the voxel grid, hence 10. The total ROI grows as well,
# because it is what the *read* ROIs tile.

# %%
CONTEXT = Coordinate(10, 10, 10)

prepare_ds(STORE, "smooth", tissue, VOXEL, np.float32, write_size=BLOCK)
smoothing = Task(
    "smooth",
    total_roi=tissue.grow(CONTEXT, CONTEXT),
    read_roi=first.grow(CONTEXT, CONTEXT),
    write_roi=first,
    process_function=partial(smooth, "raw", "smooth"),
    read_write_conflict=False,
    num_workers=2,
    voxel_size=VOXEL,  # optional: lets the task refuse ROIs that cut through voxels
)
assert run_blockwise([smoothing])

error = np.abs(open_ds(STORE, "smooth").to_ndarray() - expected)
print(f"largest error with context: {error.max():.1g}")
assert error.max() < 1e-6
draw(
    "smoothing",
    raw=volume,
    blocks_without_context=open_ds(STORE, "smooth_alone").to_ndarray(),
    their_error=seams,
    blocks_with_context=open_ds(STORE, "smooth").to_ndarray(),
)

# %% [markdown]
# ## 5. When something is wrong with your function
#
# With `multiprocessing=False` everything runs in this process, and the first exception comes out as it is: a debugger
# can stop there. Otherwise exceptions are collected, and what workers print is in `daisy_logs/<task>/`.


# %%
def hopeless(block: Block) -> None:
    raise ValueError(f"no idea what to do at {block.write_roi.offset}")


trial = Task("trial", tissue, first, first, hopeless)
try:
    run_blockwise([trial], multiprocessing=False, progress=False)
except ValueError as error:
    print("stopped with:", error)
else:
    raise AssertionError("the exception was lost")

# %% [markdown]
# ## 6. Workers of your own
#
# If a process function takes *no* argument, it is the worker: it is called once in each worker process, and has to see
# to it that somebody asks for blocks. That somebody is often a script, which loads a network once and then works on
# many blocks, in another environment, or on another machine. `tutorial_worker.py` is such a script: it opens a
# `Client`, and asks for blocks until there are no more. What it needs to know is in `tutorial_config.json`; how to
# reach the run, it finds in its environment.
#
# On a cluster, the command would begin with `srun` or `bsub -I`.

# %%
config = json.loads((HERE / "tutorial_config.json").read_text())
assert Path(config["store"]) == STORE
prepare_ds(STORE, config["output"], tissue, VOXEL, np.float32, write_size=BLOCK)


def start_script() -> None:
    subprocess.run(
        [sys.executable, str(HERE / "tutorial_worker.py"), str(HERE / "tutorial_config.json")],
        check=True,
    )


by_script = Task(
    "script",
    total_roi=tissue.grow(CONTEXT, CONTEXT),
    read_roi=first.grow(CONTEXT, CONTEXT),
    write_roi=first,
    process_function=start_script,
    read_write_conflict=False,
    num_workers=2,
)
assert run_blockwise([by_script])
assert np.array_equal(open_ds(STORE, "smooth_by_script").to_ndarray(), open_ds(STORE, "smooth").to_ndarray())

# %% [markdown]
# ## 7. Failures, and going on after them
#
# Machines are preempted, disks fill up, GPUs run out of memory. A block that fails is tried again, `max_retries` times
# (2 unless you say otherwise), before it counts as failed. Here is a function that fails every other time. When it
# has done its work, it writes that down: `done` is a tiny array in which *one voxel is one block*.

# %%
prepare_ds(STORE, "smooth_at_last", tissue, VOXEL, np.float32, write_size=BLOCK)
prepare_ds(STORE, "done", tissue, BLOCK, np.uint8, write_size=BLOCK)


def smooth_with_luck(block: Block) -> None:
    if random.random() < 0.5:
        raise RuntimeError("bad luck")
    smooth("raw", "smooth_at_last", block)
    open_ds(STORE, "done", mode="r+")[block.write_roi] = 1


def is_done(block: Block) -> bool:
    return bool(open_ds(STORE, "done").to_ndarray(block.write_roi).all())


def lucky(max_retries: int) -> Task:
    return Task(
        "luck",
        total_roi=tissue.grow(CONTEXT, CONTEXT),
        read_roi=first.grow(CONTEXT, CONTEXT),
        write_roi=first,
        process_function=smooth_with_luck,
        check_function=is_done,
        read_write_conflict=False,
        num_workers=2,
        max_retries=max_retries,
    )


# %% [markdown]
# First without a second chance. About half of the blocks fail, and the result says which ones, and why:

# %%
once = run_blockwise([lucky(max_retries=0)])
failed = once["luck"].failed_count
print(f"{failed} of {once['luck'].total_block_count} blocks failed:", once.causes[0].error if once.causes else "")
assert bool(once) == (failed == 0)
assert len(once.failed_blocks.get("luck", [])) == failed
draw("half_done", after_the_first_run=open_ds(STORE, "smooth_at_last").to_ndarray())

# %% [markdown]
# Now the same task again, with many retries. Its `check_function` is asked about every block before that is handed
# out, and what is done already is skipped: only the rest runs. This is how to go on after a crash, too.

# %%
rest = run_blockwise([lucky(max_retries=30)])
assert rest
assert rest["luck"].skipped_count == once["luck"].completed_count
assert np.array_equal(open_ds(STORE, "smooth_at_last").to_ndarray(), open_ds(STORE, "smooth").to_ndarray())

# %% [markdown]
# (A check can also look at a result *after* its block has run: pass `check_function=(before, after)`, with `None` for
# the one that you do not need. A block whose `after` says no has failed.)
#
# ## 8. One task after another
#
# Next, the nuclei: voxels that are bright after smoothing, with a number for each connected group. This task reads what
# *smooth* writes, which is said by `upstream_tasks`. Its blocks have another shape. A block of it starts as soon as the
# blocks that it reads from are done: nobody waits for the whole of the first task.
#
# No two blocks may use the same number, so each block has a range of its own.

# %%
TILE = Coordinate(64, 48, 48)
tile = Roi((0, 0, 0), TILE)
BRIGHT = 0.5
MOST_IN_A_TILE = 1000

prepare_ds(STORE, "smooth_again", tissue, VOXEL, np.float32, write_size=BLOCK)
prepare_ds(STORE, "nuclei_cut", tissue, VOXEL, np.uint32, write_size=TILE)


def find_nuclei(source: str, target: str, block: Block) -> None:
    labels, count = label(open_ds(STORE, source).to_ndarray(block.write_roi) > BRIGHT)
    assert count < MOST_IN_A_TILE
    labels[labels > 0] += block.block_id[1] * MOST_IN_A_TILE
    open_ds(STORE, target, mode="r+")[block.write_roi] = labels


smoothing = Task(
    "smooth again",
    total_roi=tissue.grow(CONTEXT, CONTEXT),
    read_roi=first.grow(CONTEXT, CONTEXT),
    write_roi=first,
    process_function=partial(smooth, "raw", "smooth_again"),
    read_write_conflict=False,
    num_workers=2,
)
finding = Task(
    "nuclei",
    total_roi=tissue,
    read_roi=tile,
    write_roi=tile,
    process_function=partial(find_nuclei, "smooth_again", "nuclei_cut"),
    read_write_conflict=False,
    num_workers=2,
    upstream_tasks=[smoothing],
)
assert run_blockwise([smoothing, finding])

found = len(np.unique(open_ds(STORE, "nuclei_cut").to_ndarray())) - 1
print(f"{found} labels for {nuclei} nuclei")
assert found > nuclei

# %% [markdown]
# Too many: a nucleus that lies on the border of two blocks has got two numbers.
#
# ## 9. Blocks that look at their neighbours
#
# Let each block look at what its neighbours have written, and take over their numbers. With a context of 20 µm, which
# is more than any nucleus measures, a block sees every nucleus that it has a part of as a whole; if a neighbour was
# there before, its number is already in it.
#
# That is right only if no two neighbours run *at the same time*, when neither would see the other's numbers. This is
# what `read_write_conflict=True` promises, and it is the default: two blocks of a task never run at once if one reads
# where the other writes.

# %%
AROUND = Coordinate(20, 20, 20)
prepare_ds(STORE, "nuclei", tissue, VOXEL, np.uint32, write_size=TILE)


def find_whole_nuclei(source: str, target: str, block: Block) -> None:
    output = open_ds(STORE, target, mode="r+")
    seen = block.read_roi.intersect(output.roi)
    labels, count = label(open_ds(STORE, source).to_ndarray(seen) > BRIGHT)
    assert count < MOST_IN_A_TILE
    numbers = np.arange(count + 1) + block.block_id[1] * MOST_IN_A_TILE
    numbers[0] = 0
    written = output.to_ndarray(seen)
    known = written > 0
    numbers[labels[known]] = written[known]
    output[block.write_roi] = Array(numbers[labels], roi=seen, voxel_size=VOXEL)[block.write_roi]


careful = Task(
    "whole nuclei",
    total_roi=tissue.grow(AROUND, AROUND),
    read_roi=tile.grow(AROUND, AROUND),
    write_roi=tile,
    process_function=partial(find_whole_nuclei, "smooth_again", "nuclei"),
    read_write_conflict=True,
    num_workers=2,
)
assert run_blockwise([careful])

found = len(np.unique(open_ds(STORE, "nuclei").to_ndarray())) - 1
print(f"{found} labels for {nuclei} nuclei")
assert found == nuclei
draw(
    "nuclei",
    smoothed=open_ds(STORE, "smooth_again").to_ndarray(),
    each_block_for_itself=open_ds(STORE, "nuclei_cut").to_ndarray(),
    neighbours_seen=open_ds(STORE, "nuclei").to_ndarray(),
)

# %% [markdown]
# Objects of any size, which may run through many blocks, need one thing more: a block that meets two different numbers
# in one object has to note that they are the same, and a further task puts it right. `blockflow demo` does that; see
# `blockflow/demo/blocks.py`.
#
# ## To remember
#
# - ROIs are in world units; give the first block's, and the task shifts them.
# - Context is a read ROI beyond the write ROI; let the total ROI grow by the same.
# - `write_size=` of `prepare_ds` is the shape of the write ROI.
# - `read_write_conflict=False` if no block reads what another one writes. It is faster, as any blocks may run at once.
# - The value of `run_blockwise` is true only if everything is done. Look at it.

# %%
print(f"pictures are in {OUTPUT}: ", *sorted(path.name for path in OUTPUT.glob("*.png")))
