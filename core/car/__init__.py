"""Segmentation by words (CaR): which of many words are in a picture, and where.

Sun et al., "CLIP as RNN: Segment Countless Visual Concepts without Training Endeavor", CVPR 2024,
arXiv 2312.07661. Two frozen CLIPs: one proposes a mask for each word, the other scores the
picture with each mask drawn on it; words of a low score are dropped, until none is.
"""
