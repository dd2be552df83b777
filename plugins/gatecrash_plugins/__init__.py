"""The plugins that ship with Gatecrash; every module below is scanned, so a new file is a new plugin."""
