"""Room: words into text directions.

templates    handcrafted sentences
compound     CAP: abnormality prompts on one normal prompt
prior        DAP: the prior drawn from an image's own strangest patches
"""
