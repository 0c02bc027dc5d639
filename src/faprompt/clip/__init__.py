"""Room: the frozen backbone, on top of open_clip.

backbone     both towers, tokenizer and fingerprint
spec         what a CLIP is made of
vision       class token, and patch tokens of the V-V path
attention    softmax attention over image tokens
text         prompts of continuous vectors
tokens       sentences into ids
weights      backbones from names and files
catalog      the names
archive      tensors of a file, without running it
huggingface  transformers folders
blip         BLIP's two towers, blip_folder their files
"""
