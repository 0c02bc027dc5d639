"""Text directions from words and learned vectors.

templates     handcrafted sentences, and their cached features
prompt_parts  learned vectors, small networks, and the frozen words around them
compound      CAP: abnormality prompts on one normal prompt
prior         DAP: the prior computed from an image's most abnormal patches
descriptions  phrases for what can be wrong with a class
"""
