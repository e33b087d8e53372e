"""Models and tokenizers, loaded and quantized."""
