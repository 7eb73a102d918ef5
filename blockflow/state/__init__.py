"""WHAT has happened: the scheduler, the only owner of block and worker state. Pure: time comes in as an argument."""
