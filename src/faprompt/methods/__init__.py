"""Recipes: one file per method, and the names they go by.

base         what a method is: image tokens in, scores and patch maps out
registry     methods by name, with presets
faprompt     compound prompts and the data-dependent prior
anomalyclip  two learned prompts
plain_clip   handcrafted sentences; nothing is learned
reference    the authors' checkpoints under our names
"""
