"""Personalized segmentation (PerSAM, PerSAM-F): one picture and mask of an object, then any other.

Zhang et al., "Personalize Segment Anything Model with One Shot", arXiv 2305.03048.
"""
