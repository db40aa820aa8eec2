"""What the ledger does with rows that nobody recorded, and what it shows to whom."""
