"""Recipes: one file per method, and the names they go by.

base         what a method is: image tokens in, scores and patch maps out
registry     methods by name, with presets
faprompt     compound prompts and the data-dependent prior
anomalyclip  two learned prompts
anomalyclip_ensemble  ten abnormal prompts of its kind
text_pair    one forward and loss for all that learn one pair of texts
class_names  what all share that ask what a picture shows
class_prompts  what prompts with a class name share
coop, cocoop  a learned context, and one shifted by the image
filo         descriptions, adaptive prompts, convolutions of many shapes
grounding    where FiLo looks: boxes of a Grounding DINO, or the peak of its map
tcp          a context overwritten by what CLIP says of the class
plain_clip   handcrafted sentences; nothing is learned
sentences    what methods of handcrafted sentences about a class share
winclip      windows of patches, and normal pictures to refer to
april_gan    linear layers on patch tokens of several depths
anovl        V-V tokens, views, and an adapter made anew for every picture
reference    the authors' checkpoints under our names
"""
