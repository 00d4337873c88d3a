"""Stands for torchvision, of which some package indexes have no build beside torch for the CPU.

MONAI Label imports two functions of it that only its segmentation writers use.
"""
