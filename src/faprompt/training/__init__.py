"""Training of any method that learns: features once, then prompts, epoch by epoch.

config       TrainingConfig, every number with its source
recipes      what a method of its own wants otherwise
optimizer    Adam, AdamW or SGD, and the learning rate of every epoch
pictures     samples -> hashes, pixels, read ahead
masks        samples -> ground truth at the model's size, packed
features     the frozen tower's tokens: cached on disk, or streamed
store        the memory-mapped files of that cache
loop         train(): all of it in one call
run          batches, losses, updates, interrupt and resume
checkpoint   one atomic file that a run continues from
curves       loss.csv, loss.png, TensorBoard
"""
