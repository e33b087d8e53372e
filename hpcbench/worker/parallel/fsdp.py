"""Sharding of weights, gradients and optimizer state over ranks by FSDP2 (arXiv:2304.11277), through accelerate.

In: the arguments of a training and its prepared model. Out: settings of transformers' TrainingArguments. It wraps no
module itself.
"""
