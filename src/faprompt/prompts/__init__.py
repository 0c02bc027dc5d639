"""Room: words into text directions.

templates    handcrafted sentences
words        the frozen words around learned vectors
compound     CAP: abnormality prompts on one normal prompt
prior        DAP: the prior drawn from an image's own strangest patches
descriptions sentences on what can be wrong with a class, and where
meta         small networks from a feature to prompt vectors (CoCoOp, TCP)
"""
