"""An attack and a defense outside the Gatecrash repository, found through entry points."""
