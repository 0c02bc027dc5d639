"""All methods, one file each, and the names they go by.

base        what a method is: image tokens in, scores and patch maps out; class names
registry    methods by name, with presets
sentences   handcrafted sentences: CLIP, CLIP-AC; winclip, april_gan and anovl build on them
anomalyclip learned prompts, also of coop and tcp: score, map and loss of a text pair
full_shot   one model per class from its normal pictures: patchcore, rd4ad
grounding   where FiLo looks
relations   how the patches of a picture relate to each other; needs no words
"""
