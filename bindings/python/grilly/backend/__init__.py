"""What layers compute with."""
