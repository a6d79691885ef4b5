"""The Degraded tab: SAM and RobustSAM on a bad picture, side by side."""
