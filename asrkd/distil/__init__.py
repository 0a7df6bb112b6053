"""Distillation (Hinton, Vinyals and Dean 2015). Needs neither k2 nor lhotse.

ensemble          several teachers as one distribution
store             their posteriors on disk, top-k classes per frame
loss              the student's loss: Distillation, from a store or from dense targets
external_teacher  posteriors of another system as a store
bias              class biases repaired after distillation on an unbalanced transfer set
"""
