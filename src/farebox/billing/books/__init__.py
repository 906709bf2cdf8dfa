"""The books: transfers between accounts, what stands in every scope, and the rows that everything else is summed from."""
