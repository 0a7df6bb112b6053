"""Distillation: objective, ensembles, their posteriors at rest, bias repair. Needs neither k2 nor lhotse."""
