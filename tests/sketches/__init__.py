"""Programs as users write them; each must type-check and run."""
