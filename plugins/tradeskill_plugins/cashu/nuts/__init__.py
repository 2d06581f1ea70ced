"""The Cashu protocol (NUTs) without a wallet: values, curve, tokens, exact requests, a client. Nothing here stores anything or decides about money."""
