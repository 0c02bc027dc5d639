"""Room: words into text directions.

templates    handcrafted sentences
words        what classes are called; the frozen words around learned vectors
compound     CAP: abnormality prompts on one normal prompt
prior        DAP: the prior drawn from an image's own strangest patches
descriptions what can be wrong with a class, in words
meta         small networks from a feature to prompt vectors (CoCoOp, TCP)
"""
