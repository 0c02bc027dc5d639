"""All methods, and the names they go by.

base        what a method is: image tokens in, scores and patch maps out
registry    methods by name, with presets
faprompt    FAPrompt: compound prompts and the data-dependent prior
text_pair   score, map and loss of methods that learn one pair of texts
anomalyclip AnomalyCLIP and its ensemble
coop, tcp   learned prompts with a class name: CoOp, CoCoOp, TCP
sentences   handcrafted sentences: CLIP, CLIP-AC
winclip, april_gan, anovl  methods on handcrafted sentences; few_shot: WinCLIP+'s references
filo        FiLo; grounding: where it looks
full_shot   one model per class from its normal pictures; patchcore, rd4ad
class_names the class of each picture, in words and as a number
released_checkpoints  the authors' checkpoints under our names
"""
