"""The plugin `cashu`: ecash as a payment rail."""
