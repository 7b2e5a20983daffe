"""How good a model is on labelled pictures: figures, comparisons, and a report of all of it."""
