"""WHAT there is to do: tiling, conflicts, tasks and their graph. Pure: no IO, no clock, no randomness."""
