"""What stands behind the Segment tab: a visitor's scene, its edits, its pictures."""
