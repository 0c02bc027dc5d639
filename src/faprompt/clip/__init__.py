"""The frozen backbone, on top of open_clip.

backbone          both towers, tokenizer and fingerprint
spec              sizes and activation of a CLIP
vision            class token, and patch tokens of the V-V path
text              text features of continuous vectors
tokens            sentences as ids, and as one tree of ids
weights           load and save a backbone
known_backbones   names of backbones, and their weights in caches or downloaded
tensor_files      tensors of a file, read without running it
transformers_folders  folders of the transformers library: CLIP, and BLIP as a CLIP
wide_resnet       WideResNet-50-2, for the full-shot methods
"""
