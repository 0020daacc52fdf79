"""A run in miniature, in a process of its own: what one step, one evaluation and one file cost."""
