"""Which models exist, where their weights come from, and how they are read safely."""
