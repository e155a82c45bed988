"""The arithmetic that policies are made of: bands, guards, debts and leases, and corrections for the past."""
