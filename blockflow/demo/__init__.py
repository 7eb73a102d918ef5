"""The demo: what does a whole job look like, and is its result the one that a single process gets?

picture.py reads a picture, blocks.py computes on it block by block, check.py compares the results with those of the
whole picture at once, drawing.py draws them, and job.py joins these. Needs the packages of the extra ``demo``.
"""
