"""The experiments of Rumberger et al. 2021 (arXiv 2101.05846) on this project's own code.

pictures.py     discs on a square grid, and ones: pictures whose instances all look alike
setups.py       one network and how it is trained: a declared value, quick and full
learn.py        train it once, keep it, read it back
numbering.py    Lemma 1: a network with set weights that numbers the pixels of a period window
counting.py     how many things are different: output functions, ids, instances
stitching.py    tiles of any width, put side by side, against one pass over the whole
figures.py      pictures and charts as files
exact.py        statements that need no training
synthetic.py    Figs. 2, 4, 5 and the supplement
nuclei.py       Fig. 6, on real nuclei
suite.py        all experiments by name; each leaves a JSON, a table and pictures
"""
