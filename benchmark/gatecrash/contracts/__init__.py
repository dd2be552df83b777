"""What a plugin author reads: what attacks, defenses, triggers, datasets and models are, and what they are given."""
