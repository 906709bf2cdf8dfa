"""What is done to an account: keys, budgets, codes, prices, corrections, alerts."""
