"""The only room that imports torch, transformers, peft, datasets and lm_eval."""
