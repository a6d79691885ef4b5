"""DreamBooth on Stable Diffusion that learns a subject and not its backgrounds, by PerSAM's masks.

Ruiz et al., "DreamBooth", arXiv 2208.12242; the masked loss is that of Zhang et al.,
"Personalize Segment Anything Model with One Shot", arXiv 2305.03048, section "Better
Personalization of Stable Diffusion".
"""
