"""The digits recipe: section 3 of Hinton, Vinyals and Dean (2015) on MNIST, by the `train` and `distil` of speech.

`variants` says which networks there are, `networks` trains them, `score` counts errors, `claims` judges the paper's
claims by tests, `tables` and `figures` show it, `plan` is the ordered list of steps.
"""
