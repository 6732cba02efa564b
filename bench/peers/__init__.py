"""What users would pick instead, each with its own documented best settings."""
