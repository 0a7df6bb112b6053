"""The MNIST recipe: section 3 of Hinton, Vinyals and Dean (2015), on the training and distillation code of speech.

`pipeline` lists the steps. `variants` defines the networks, `networks` trains them and `score` counts their errors.
`claim_tests` and `verdicts` test the paper's claims, `results` writes results.json, `tables` and `figures` show it.
"""
