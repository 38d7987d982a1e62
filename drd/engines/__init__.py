"""How each kind of database is dumped, restored and fingerprinted; engines do not know each other."""
