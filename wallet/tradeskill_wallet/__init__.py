"""The rail nano: keys, blocks, work, RPC, invoices, settlement, and the dev ledger."""
