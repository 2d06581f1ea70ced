"""The rail `cashu`: ecash. `plugin` is what is loaded, `cli` the command; neither needs the other, and a help loads no wallet."""
