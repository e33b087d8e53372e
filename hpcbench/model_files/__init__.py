"""Model folders without torch: what their files say, by which plan and the worker judge requests alike."""
