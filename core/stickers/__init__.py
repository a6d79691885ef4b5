"""The sticker world: scenes of everyday objects with exact masks, made from freely licensed art.

Training data of the embedded models and their held-out tests; nothing of it is needed to run
the suite.
"""
