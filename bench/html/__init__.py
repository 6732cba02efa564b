"""Results as one page that opens offline: plots, tables, the machine."""
